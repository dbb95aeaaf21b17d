//! Which process it is of those that handed over to one another.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto::MetricFamily;

use super::series::{counter, counters, gauge, gauges, load};

/// How it went with upgrades of the binary.
#[derive(Default)]
pub struct Upgrades {
    generation: AtomicU64,
    failed: AtomicU64,
}

impl Upgrades {
    /// How many gateways came before this process.
    pub fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// The next gateway did not come to serve.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn families(&self) -> Vec<MetricFamily> {
        vec![
            gauges(
                "tollgate_generation",
                "Upgrades since the gateway was started: 0 in the first process.",
                [gauge(&[], load(&self.generation) as f64)],
            ),
            counters(
                "tollgate_upgrades_failed_total",
                "Upgrades in which the next process did not come to serve, and this one went on.",
                [counter(&[], load(&self.failed))],
            ),
        ]
    }
}
