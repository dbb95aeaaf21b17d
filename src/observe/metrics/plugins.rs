//! What is shown of plugins, and what they count themselves.

use prometheus::proto::{Metric, MetricFamily};

use super::series::{counter, counters, gauge, gauges, histogram, histograms};

/// How it stands with a plugin.
pub struct PluginSample {
    pub plugin: Box<str>,
    /// How often it did not do its work, by reason.
    pub failures: Vec<(&'static str, u64)>,
    pub instances: usize,
    /// Memory of all of them.
    pub memory_bytes: usize,
    pub metrics: Vec<PluginMetric>,
}

/// A metric that a plugin defined.
pub struct PluginMetric {
    pub name: Box<str>,
    pub value: PluginValue,
}

/// What it says.
pub enum PluginValue {
    Counter(u64),
    Gauge(u64),
    /// `buckets`: upper bound, and how many values were no larger.
    Histogram {
        buckets: Vec<(u64, u64)>,
        count: u64,
        sum: u64,
    },
}

/// How a metric is shown in one of the families; `None` when it is of another kind.
type Shown = fn(&[(&str, &str)], &PluginValue) -> Option<Metric>;

pub(super) fn families(samples: &[PluginSample]) -> Vec<MetricFamily> {
    let own = |shown: Shown| {
        let all = samples.iter().flat_map(|sample| sample.metrics.iter().map(move |metric| (sample, metric)));
        let shown = all.filter_map(move |(sample, metric)| {
            shown(&[("name", &metric.name), ("plugin", &sample.plugin)], &metric.value)
        });
        shown.collect::<Vec<_>>()
    };
    let failures = samples.iter().flat_map(|sample| {
        let each =
            |(reason, count): &(&'static str, u64)| counter(&[("plugin", &sample.plugin), ("reason", reason)], *count);
        sample.failures.iter().map(each).collect::<Vec<_>>()
    });
    vec![
        counters(
            "tollgate_plugin_failures_total",
            "Requests that a plugin did not do its work for, by reason.",
            failures,
        ),
        gauges(
            "tollgate_plugin_instances",
            "Instances of a plugin.",
            samples.iter().map(|sample| gauge(&[("plugin", &sample.plugin)], sample.instances as f64)),
        ),
        gauges(
            "tollgate_plugin_memory_bytes",
            "Memory of all instances of a plugin.",
            samples.iter().map(|sample| gauge(&[("plugin", &sample.plugin)], sample.memory_bytes as f64)),
        ),
        counters(
            "tollgate_plugin_counter_total",
            "What plugins count, by the name they gave it.",
            own(|labels, value| match value {
                PluginValue::Counter(value) => Some(counter(labels, *value)),
                _ => None,
            }),
        ),
        gauges(
            "tollgate_plugin_gauge",
            "What plugins measure, by the name they gave it.",
            own(|labels, value| match value {
                PluginValue::Gauge(value) => Some(gauge(labels, *value as f64)),
                _ => None,
            }),
        ),
        histograms(
            "tollgate_plugin_histogram",
            "What plugins record, by the name they gave it.",
            own(|labels, value| match value {
                PluginValue::Histogram { buckets, count, sum } => Some(histogram(labels, buckets, *count, *sum)),
                _ => None,
            }),
        ),
    ]
}
