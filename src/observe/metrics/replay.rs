//! What is counted for messages that must not pass twice.

use prometheus::proto::MetricFamily;

use super::series::{counter, counters, gauge, gauges};
use super::store::StoreSample;

/// How it goes with the protection against messages that come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplaySample {
    /// The store that tells them. Decisions are those on messages.
    pub store: StoreSample,
    /// Messages in memory of this gateway.
    pub noted: usize,
    /// Messages of which the store never learned that they got through.
    pub untold: u64,
}

pub(super) fn families(sample: Option<ReplaySample>) -> Vec<MetricFamily> {
    let sample = sample.as_ref();
    let without = sample.iter().flat_map(|sample| sample.store.without);
    vec![
        gauges(
            "tollgate_replay_store_up",
            "1 while the state store tells webhooks that come again.",
            sample.map(|sample| gauge(&[], f64::from(u8::from(sample.store.is_up)))),
        ),
        counters(
            "tollgate_replay_store_errors_total",
            "Questions about webhooks to the state store that failed.",
            sample.map(|sample| counter(&[], sample.store.errors)),
        ),
        counters(
            "tollgate_replay_without_store_total",
            "Webhooks decided on while the state store failed, by on_store_error.",
            without.map(|(policy, count)| counter(&[("policy", policy)], count)),
        ),
        gauges(
            "tollgate_replay_noted",
            "Webhooks that this gateway remembers in memory of its own.",
            sample.map(|sample| gauge(&[], sample.noted as f64)),
        ),
        counters(
            "tollgate_replay_untold_total",
            "Webhooks of which the state store never learned that they got through.",
            sample.map(|sample| counter(&[], sample.untold)),
        ),
    ]
}
