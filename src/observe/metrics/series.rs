//! The counters underneath, and how they are shown.
//!
//! Children are kept by the thing they count and not in the crate's vectors, whose key is a hash of the label values
//! joined without a separator: upstream `a` at `10.0.0.1:80` and upstream `a1` at `0.0.0.1:80` would be one series.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Upper bounds of duration buckets, in microseconds.
type Bounds = [u64; 14];

/// 1 ms to 30 s.
const SHORT: Bounds = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000,
];

/// 5 ms to a day: of what may be tried again for long.
const LONG: Bounds = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
    600_000_000,
    3_600_000_000,
    21_600_000_000,
    86_400_000_000,
];

/// One more than the bounds: what took longer than the last.
const BUCKETS: usize = SHORT.len() + 1;

pub(super) const STATUS_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// A counter for each class of status.
#[derive(Default)]
pub(super) struct ByStatus([AtomicU64; STATUS_CLASSES.len()]);

impl ByStatus {
    pub(super) fn add(&self, status: u16) {
        let class = usize::from(status / 100).checked_sub(1).and_then(|class| self.0.get(class));
        if let Some(count) = class.or(self.0.last()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The classes that occurred.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        STATUS_CLASSES.into_iter().zip(self.0.iter().map(load)).filter(|(_, count)| *count > 0)
    }
}

/// Counters by a code that the program knows, or by several, so their number is bounded by the program. Codes are
/// compared by their text. Adding to a code seen before is a walk over the few that occurred, and one atomic add.
pub(super) struct ByCode<K = &'static str> {
    first: OnceLock<Box<CodeCount<K>>>,
}

struct CodeCount<K> {
    code: K,
    count: AtomicU64,
    next: OnceLock<Box<CodeCount<K>>>,
}

impl<K> Default for ByCode<K> {
    fn default() -> Self {
        Self { first: OnceLock::new() }
    }
}

impl<K: Copy + PartialEq> ByCode<K> {
    pub(super) fn add(&self, code: K) {
        let mut place = &self.first;
        loop {
            let found =
                place.get_or_init(|| Box::new(CodeCount { code, count: AtomicU64::new(0), next: OnceLock::new() }));
            if found.code == code {
                found.count.fetch_add(1, Ordering::Relaxed);
                return;
            }
            place = &found.next;
        }
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (K, u64)> {
        std::iter::successors(self.first.get(), |count| count.next.get()).map(|count| (count.code, load(&count.count)))
    }
}

/// A histogram of durations: two atomic adds an observation.
pub(super) struct Durations {
    bounds: &'static Bounds,
    buckets: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

impl Default for Durations {
    fn default() -> Self {
        Self::within(&SHORT)
    }
}

impl Durations {
    /// For what may take a day.
    pub(super) fn long() -> Self {
        Self::within(&LONG)
    }

    fn within(bounds: &'static Bounds) -> Self {
        Self { bounds, buckets: Default::default(), sum_micros: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let place = self.bounds.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// `None` before the first observation: a route without traffic costs no seventeen lines a scrape.
    pub(super) fn metric(&self, labels: &[(&str, &str)]) -> Option<Metric> {
        let total = self.buckets.iter().map(load).fold(0, u64::saturating_add);
        if total == 0 {
            return None;
        }
        let mut so_far = 0_u64;
        // The encoder adds the last bucket, `+Inf`, by itself.
        let shown = self.bounds.iter().zip(&self.buckets).map(|(bound, count)| {
            so_far = so_far.saturating_add(load(count)).min(total);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / 1e6);
            bucket.set_cumulative_count(so_far);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(shown.collect());
        histogram.set_sample_count(total);
        histogram.set_sample_sum(load(&self.sum_micros) as f64 / 1e6);
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        Some(metric)
    }
}

pub(super) fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// Shown exactly up to 2^53, as every Prometheus value.
pub(super) fn counter(labels: &[(&str, &str)], value: u64) -> Metric {
    counter_f64(labels, value as f64)
}

pub(super) fn counter_f64(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = labelled(labels);
    metric.set_counter(counter);
    metric
}

pub(super) fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = labelled(labels);
    metric.set_gauge(gauge);
    metric
}

/// `buckets`: upper bound, and how many values were no larger.
pub(super) fn histogram(labels: &[(&str, &str)], buckets: &[(u64, u64)], count: u64, sum: u64) -> Metric {
    let shown = buckets.iter().map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64);
        bucket.set_cumulative_count(*count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(shown.collect());
    histogram.set_sample_count(count);
    histogram.set_sample_sum(sum as f64);
    let mut metric = labelled(labels);
    metric.set_histogram(histogram);
    metric
}

pub(super) fn counters(name: &str, help: &str, metrics: impl IntoIterator<Item = Metric>) -> MetricFamily {
    family(name, help, MetricType::COUNTER, metrics)
}

pub(super) fn gauges(name: &str, help: &str, metrics: impl IntoIterator<Item = Metric>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, metrics)
}

pub(super) fn histograms(name: &str, help: &str, metrics: impl IntoIterator<Item = Metric>) -> MetricFamily {
    family(name, help, MetricType::HISTOGRAM, metrics)
}

fn family(name: &str, help: &str, kind: MetricType, metrics: impl IntoIterator<Item = Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.into_iter().collect());
    family
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}
