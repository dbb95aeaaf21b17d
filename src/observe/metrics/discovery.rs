//! What is shown of discoveries.

use std::sync::Arc;
use std::time::Duration;

use prometheus::proto::MetricFamily;

use super::series::{counter, counters, gauge, gauges};

/// How it goes with the discovery of an upstream.
pub struct DiscoverySample {
    pub upstream: Arc<str>,
    /// `dns`, `file`, `consul`, `registry`
    pub kind: &'static str,
    /// Whether the last look brought an answer.
    pub is_up: bool,
    pub endpoints: usize,
    /// Of the last good answer; none until there was one.
    pub age: Option<Duration>,
    /// Looks that brought a whole answer, and those that did not.
    pub ok: u64,
    pub failed: u64,
}

impl DiscoverySample {
    fn labels(&self) -> [(&str, &str); 2] {
        [("source", self.kind), ("upstream", &self.upstream)]
    }
}

pub(super) fn families(samples: &[DiscoverySample]) -> Vec<MetricFamily> {
    vec![
        gauges(
            "tollgate_discovery_up",
            "Whether the targets of an upstream could be found when they were last looked for.",
            samples.iter().map(|sample| gauge(&sample.labels(), f64::from(u8::from(sample.is_up)))),
        ),
        gauges(
            "tollgate_discovery_endpoints",
            "Targets of an upstream that were found last.",
            samples.iter().map(|sample| gauge(&sample.labels(), sample.endpoints as f64)),
        ),
        gauges(
            "tollgate_discovery_age_seconds",
            "How long ago the last whole answer came.",
            samples.iter().filter_map(|sample| Some(gauge(&sample.labels(), sample.age?.as_secs_f64()))),
        ),
        counters(
            "tollgate_discovery_lookups_total",
            "How often the targets of an upstream were looked for, by result.",
            samples.iter().flat_map(|sample| {
                let results = [("failed", sample.failed), ("ok", sample.ok)];
                results.map(|(result, count)| {
                    let [source, upstream] = sample.labels();
                    counter(&[("result", result), source, upstream], count)
                })
            }),
        ),
    ]
}
