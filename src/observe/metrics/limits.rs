//! What is counted for each limit of each route.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto::MetricFamily;

use super::named::Lease;
use super::series::{counter, counters, load};
use crate::context::Limited;

/// The counters of one bucket on one route.
pub struct LimitMetrics {
    route: String,
    bucket: String,
    allowed: AtomicU64,
    limited: AtomicU64,
    observed: AtomicU64,
    _lease: Option<Lease<(String, String), LimitMetrics>>,
}

impl LimitMetrics {
    pub(super) fn new(route: &str, bucket: &str, lease: Option<Lease<(String, String), Self>>) -> Self {
        Self {
            route: route.to_owned(),
            bucket: bucket.to_owned(),
            allowed: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            observed: AtomicU64::new(0),
            _lease: lease,
        }
    }

    /// A limit said this about a request.
    pub fn count(&self, outcome: Limited) {
        let count = match outcome {
            Limited::Allowed => &self.allowed,
            Limited::Refused => &self.limited,
            Limited::Observed => &self.observed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn families(limits: &[Arc<LimitMetrics>]) -> Vec<MetricFamily> {
    let samples = limits.iter().flat_map(|limit| {
        let results = [("allowed", &limit.allowed), ("limited", &limit.limited), ("observed", &limit.observed)];
        // What only some limits ever do is shown once it happened.
        let shown = results.into_iter().filter(|(result, count)| *result != "observed" || load(count) > 0);
        shown.map(|(result, count)| {
            counter(&[("bucket", &limit.bucket), ("result", result), ("route", &limit.route)], load(count))
        })
    });
    vec![counters(
        "tollgate_rate_limit_total",
        "Requests that a limit let through, refused, or would have refused if it did not only observe.",
        samples,
    )]
}
