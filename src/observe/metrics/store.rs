//! What is counted for the store that limits are kept in.

use prometheus::proto::MetricFamily;

use super::series::{counter, counters, gauge, gauges};

/// How it goes with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSample {
    pub is_up: bool,
    /// Questions to it that failed.
    pub errors: u64,
    /// Decisions of limits made without it, by policy.
    pub without: [(&'static str, u64); 3],
}

pub(super) fn families(sample: Option<StoreSample>) -> Vec<MetricFamily> {
    let sample = sample.as_ref();
    vec![
        gauges(
            "tollgate_state_up",
            "1 while limits can be kept in the state store.",
            sample.map(|sample| gauge(&[], f64::from(u8::from(sample.is_up)))),
        ),
        counters(
            "tollgate_state_errors_total",
            "Questions of limits and quotas to the state store that failed.",
            sample.map(|sample| counter(&[], sample.errors)),
        ),
        counters(
            "tollgate_limits_without_store_total",
            "Decisions of limits and quotas made while the state store failed, by on_store_error.",
            sample
                .iter()
                .flat_map(|sample| sample.without)
                .map(|(policy, count)| counter(&[("policy", policy)], count)),
        ),
    ]
}
