//! What is counted for each key set that is fetched.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::proto::MetricFamily;

use super::series::{counter, counters, gauge, gauges};

/// How it goes with the key set of an issuer.
pub struct KeySetSample {
    pub issuer: String,
    pub fetched: u64,
    pub failed: u64,
    /// Keys in use.
    pub keys: usize,
    /// When they were last found to be the provider's.
    pub loaded: Option<SystemTime>,
}

pub(super) fn families(samples: &[KeySetSample]) -> Vec<MetricFamily> {
    let fetches = samples.iter().flat_map(|sample| {
        [("failed", sample.failed), ("ok", sample.fetched)]
            .map(|(result, count)| counter(&[("issuer", &sample.issuer), ("result", result)], count))
    });
    let loaded = samples.iter().filter_map(|sample| {
        let since = sample.loaded?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(gauge(&[("issuer", &sample.issuer)], since.as_secs_f64()))
    });
    vec![
        counters("tollgate_jwks_fetches_total", "Fetches of key sets, by issuer and result.", fetches),
        gauges(
            "tollgate_jwks_keys",
            "Keys in use of a key set that is fetched.",
            samples.iter().map(|sample| gauge(&[("issuer", &sample.issuer)], sample.keys as f64)),
        ),
        gauges(
            "tollgate_jwks_loaded_timestamp_seconds",
            "When the keys of an issuer were last fetched, in seconds since 1970.",
            loaded,
        ),
    ]
}
