//! What is counted about a plugin, and what it counts itself.
//!
//! Kept by the name of the plugin, so a reload does not begin at 0. A plugin's own metrics are numbered in a table that only
//! grows: adding to one is an atomic add.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::named::Named;
use super::status::Status;
use crate::observe::metrics::{PluginMetric, PluginSample, PluginValue};

/// Most metrics of one plugin.
pub const METRICS_MAX: usize = 100;
/// Longest name of a metric, in bytes.
pub const METRIC_NAME_BYTES_MAX: usize = 128;
/// Most names of foreign functions that a plugin is remembered to have asked for.
const FOREIGN_MAX: usize = 16;
/// Upper bounds of the buckets of a histogram. What the numbers mean only the plugin knows.
const BOUNDS: [u64; 16] =
    [1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 1_000_000];

static RECORDS: Named<Record> = Named::new();

/// What is known of the plugin of that name.
pub fn record(name: &str) -> Arc<Record> {
    RECORDS.get(name, || Record::new(name))
}

/// How it stands with every plugin that there is.
pub fn samples() -> Vec<PluginSample> {
    RECORDS.all().iter().map(|record| record.sample()).collect()
}

/// What is counted about a plugin.
pub struct Record {
    name: Box<str>,
    failures: Mutex<BTreeMap<&'static str, u64>>,
    instances: AtomicUsize,
    memory_bytes: AtomicUsize,
    metrics: Box<[OnceLock<Metric>]>,
    /// Held while a metric is defined.
    defining: Mutex<()>,
    foreign: Mutex<BTreeSet<Box<str>>>,
}

/// A metric of a plugin.
struct Metric {
    kind: Kind,
    name: Box<str>,
    /// The value; of a histogram the sum.
    value: AtomicU64,
    /// One more than the bounds; only a histogram has them.
    buckets: Box<[AtomicU64]>,
}

/// Kinds of metrics, as the ABI numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub fn of(number: u32) -> Result<Self, Status> {
        Ok(match number {
            0 => Self::Counter,
            1 => Self::Gauge,
            2 => Self::Histogram,
            _ => return Err(Status::BadArgument),
        })
    }
}

impl Record {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            failures: Mutex::default(),
            instances: AtomicUsize::new(0),
            memory_bytes: AtomicUsize::new(0),
            metrics: (0..METRICS_MAX).map(|_| OnceLock::new()).collect(),
            defining: Mutex::default(),
            foreign: Mutex::default(),
        }
    }

    /// A plugin did not do its work. Reasons are constants of the program.
    pub fn failed(&self, reason: &'static str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(reason).or_default();
        *count = count.saturating_add(1);
    }

    pub fn instance_began(&self) {
        self.instances.fetch_add(1, Ordering::Relaxed);
    }

    pub fn instance_ended(&self) {
        self.instances.fetch_sub(1, Ordering::Relaxed);
    }

    /// An instance that had `before` bytes has `after` of them now.
    pub fn memory_changed(&self, before: usize, after: usize) {
        self.memory_bytes.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        self.memory_bytes.fetch_sub(before.saturating_sub(after), Ordering::Relaxed);
    }

    /// Whether it is the first time that the plugin asks for this foreign function.
    pub fn is_first_asked(&self, function: &str) -> bool {
        let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        foreign.len() < FOREIGN_MAX && foreign.insert(function.into())
    }

    /// The number of a metric of the plugin.
    ///
    /// # Errors
    /// `BAD_ARGUMENT` for a name that is none; `INTERNAL_FAILURE` when there are too many.
    pub fn define(&self, kind: Kind, name: &[u8]) -> Result<u32, Status> {
        if name.is_empty() || name.len() > METRIC_NAME_BYTES_MAX {
            return Err(Status::BadArgument);
        }
        let name: String =
            String::from_utf8_lossy(name).chars().map(|c| if c.is_control() { '_' } else { c }).collect();
        let _defining = self.defining.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, place) in self.metrics.iter().enumerate() {
            let metric = place.get_or_init(|| Metric::new(kind, &name));
            if metric.kind == kind && *metric.name == *name {
                // No metric has the number 0, so that one that was never defined is none.
                return u32::try_from(index.saturating_add(1)).map_err(|_| Status::InternalFailure);
            }
        }
        Err(Status::InternalFailure)
    }

    /// Sets a gauge; a counter, which never goes back, to the larger value; adds to a histogram.
    ///
    /// # Errors
    /// `NOT_FOUND` when no metric has the number.
    pub fn record(&self, id: u32, value: u64) -> Result<(), Status> {
        let metric = self.metric(id)?;
        match metric.kind {
            Kind::Counter => {
                metric.value.fetch_max(value, Ordering::Relaxed);
            }
            Kind::Gauge => metric.value.store(value, Ordering::Relaxed),
            Kind::Histogram => {
                let place = BOUNDS.partition_point(|bound| *bound < value);
                if let Some(bucket) = metric.buckets.get(place) {
                    bucket.fetch_add(1, Ordering::Relaxed);
                }
                metric.value.fetch_add(value, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Adds to a counter or a gauge; a gauge stops at 0.
    ///
    /// # Errors
    /// `NOT_FOUND` when no metric has the number, `BAD_ARGUMENT` when it cannot be changed like that.
    pub fn increment(&self, id: u32, delta: i64) -> Result<(), Status> {
        let metric = self.metric(id)?;
        let added = |value: u64| Some(value.saturating_add_signed(delta));
        match metric.kind {
            Kind::Counter if delta >= 0 => {
                metric.value.fetch_add(delta.unsigned_abs(), Ordering::Relaxed);
            }
            Kind::Gauge => {
                let _ = metric.value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
            }
            Kind::Counter | Kind::Histogram => return Err(Status::BadArgument),
        }
        Ok(())
    }

    /// The value of a counter or a gauge.
    ///
    /// # Errors
    /// `NOT_FOUND` when no metric has the number, `BAD_ARGUMENT` for a histogram, which has no one value.
    pub fn value(&self, id: u32) -> Result<u64, Status> {
        let metric = self.metric(id)?;
        if metric.kind == Kind::Histogram {
            return Err(Status::BadArgument);
        }
        Ok(metric.value.load(Ordering::Relaxed))
    }

    fn metric(&self, id: u32) -> Result<&Metric, Status> {
        let index = usize::try_from(id).ok().and_then(|id| id.checked_sub(1)).ok_or(Status::NotFound)?;
        self.metrics.get(index).and_then(OnceLock::get).ok_or(Status::NotFound)
    }

    fn sample(&self) -> PluginSample {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        PluginSample {
            plugin: self.name.clone(),
            failures: failures.iter().map(|(reason, count)| (*reason, *count)).collect(),
            instances: self.instances.load(Ordering::Relaxed),
            memory_bytes: self.memory_bytes.load(Ordering::Relaxed),
            metrics: self.metrics.iter().map_while(OnceLock::get).map(Metric::sample).collect(),
        }
    }
}

impl Metric {
    fn new(kind: Kind, name: &str) -> Self {
        let buckets = if kind == Kind::Histogram { BOUNDS.len().saturating_add(1) } else { 0 };
        Self {
            kind,
            name: name.into(),
            value: AtomicU64::new(0),
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn sample(&self) -> PluginMetric {
        let value = self.value.load(Ordering::Relaxed);
        let value = match self.kind {
            Kind::Counter => PluginValue::Counter(value),
            Kind::Gauge => PluginValue::Gauge(value),
            Kind::Histogram => {
                let mut count = 0_u64;
                let counts = self.buckets.iter().map(|bucket| {
                    count = count.saturating_add(bucket.load(Ordering::Relaxed));
                    count
                });
                let counts: Vec<u64> = counts.collect();
                PluginValue::Histogram { buckets: BOUNDS.into_iter().zip(counts).collect(), count, sum: value }
            }
        };
        PluginMetric { name: self.name.clone(), value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_kind_and_name_and_capped() {
        let record = Record::new("a");
        let first = record.define(Kind::Counter, b"hits").unwrap();
        assert_eq!(record.define(Kind::Counter, b"hits"), Ok(first));
        assert_ne!(record.define(Kind::Gauge, b"hits"), Ok(first));
        for number in 2..METRICS_MAX {
            record.define(Kind::Gauge, number.to_string().as_bytes()).unwrap();
        }
        assert_eq!(record.define(Kind::Gauge, b"one more"), Err(Status::InternalFailure));
        assert_eq!(record.define(Kind::Counter, b"hits"), Ok(first));
        assert_eq!(record.define(Kind::Counter, b""), Err(Status::BadArgument));
        let record = Record::new("a");
        assert_eq!(record.define(Kind::Counter, &[b'a'; METRIC_NAME_BYTES_MAX + 1]), Err(Status::BadArgument));
        assert!(record.define(Kind::Counter, &[b'a'; METRIC_NAME_BYTES_MAX]).is_ok());
        record.define(Kind::Counter, b"a\nb\xff").unwrap();
        assert_eq!(&*record.sample().metrics[1].name, "a_b\u{fffd}");
    }

    #[test]
    fn a_counter_never_goes_back_and_a_gauge_not_below_0() {
        let record = Record::new("a");
        let counter = record.define(Kind::Counter, b"c").unwrap();
        record.increment(counter, 5).unwrap();
        assert_eq!(record.increment(counter, -1), Err(Status::BadArgument));
        record.record(counter, 3).unwrap();
        assert_eq!(record.value(counter), Ok(5));
        record.record(counter, 9).unwrap();
        assert_eq!(record.value(counter), Ok(9));
        let gauge = record.define(Kind::Gauge, b"g").unwrap();
        record.record(gauge, 3).unwrap();
        record.increment(gauge, i64::MIN).unwrap();
        assert_eq!(record.value(gauge), Ok(0));
        record.increment(gauge, i64::MAX).unwrap();
        for unknown in [0, 3, u32::MAX] {
            assert_eq!(record.value(unknown), Err(Status::NotFound));
            assert_eq!(record.record(unknown, 1), Err(Status::NotFound));
            assert_eq!(record.increment(unknown, 1), Err(Status::NotFound));
        }
    }

    #[test]
    fn a_histogram_counts_what_is_no_larger_than_each_bound() {
        let record = Record::new("a");
        let id = record.define(Kind::Histogram, b"h").unwrap();
        for value in [0, 1, 2, 1_000_000, 1_000_001] {
            record.record(id, value).unwrap();
        }
        assert_eq!(record.value(id), Err(Status::BadArgument));
        assert_eq!(record.increment(id, 1), Err(Status::BadArgument));
        let sample = record.sample();
        let PluginValue::Histogram { buckets, count, sum } = &sample.metrics[0].value else { panic!("a histogram") };
        assert_eq!((buckets[0], buckets[1], buckets[15]), ((1, 2), (5, 3), (1_000_000, 4)));
        assert_eq!((*count, *sum), (5, 2_000_004));
    }
}
