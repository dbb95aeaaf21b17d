//! What is counted for each bucket of `concurrency`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::MetricFamily;

use super::series::{Durations, counter, counters, gauge, gauges, histograms, load};

/// How it stands with a bucket.
pub struct ConcurrencySample {
    pub bucket: Box<str>,
    pub in_flight: u64,
    pub waiting: u64,
    pub waits: Arc<Waits>,
}

/// What became of those that found all permits taken.
#[derive(Default)]
pub struct Waits {
    durations: Durations,
    full: AtomicU64,
    timed_out: AtomicU64,
}

/// How a wait for a permit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    Admitted,
    TimedOut,
    /// Nobody waits for it any more.
    Left,
}

impl Waits {
    /// There was no room in the line.
    pub fn full(&self) {
        self.full.fetch_add(1, Ordering::Relaxed);
    }

    pub fn ended(&self, end: WaitEnd, after: Duration) {
        self.durations.observe(after);
        if end == WaitEnd::TimedOut {
            self.timed_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

pub(super) fn families(samples: &[ConcurrencySample]) -> Vec<MetricFamily> {
    let refused = samples.iter().flat_map(|sample| {
        [("full", &sample.waits.full), ("timeout", &sample.waits.timed_out)]
            .map(|(reason, count)| counter(&[("bucket", &sample.bucket), ("reason", reason)], load(count)))
    });
    let standing = |of: fn(&ConcurrencySample) -> u64| {
        samples.iter().map(move |sample| gauge(&[("bucket", &sample.bucket)], of(sample) as f64))
    };
    vec![
        gauges(
            "tollgate_concurrency_in_flight",
            "Requests that hold a permit of `concurrency`, by bucket.",
            standing(|sample| sample.in_flight),
        ),
        gauges(
            "tollgate_concurrency_waiting",
            "Requests that wait for a permit of `concurrency`, by bucket.",
            standing(|sample| sample.waiting),
        ),
        histograms(
            "tollgate_concurrency_wait_seconds",
            "How long requests waited for a permit, however that ended; without those that got one at once.",
            samples.iter().filter_map(|sample| sample.waits.durations.metric(&[("bucket", &sample.bucket)])),
        ),
        counters("tollgate_concurrency_refused_total", "Requests refused for want of a permit, by bucket.", refused),
    ]
}
