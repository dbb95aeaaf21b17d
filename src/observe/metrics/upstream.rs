//! What is counted for each upstream and each of its targets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::MetricFamily;

use super::named::Lease;
use super::series::{ByStatus, Durations, counter, counters, histograms, load};

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    /// No connection came about.
    Connect,
    /// The connection was there, the answer or the rest of it was not in time.
    Timeout,
    /// The target closed or reset the connection.
    Reset,
    /// What the target sent is not HTTP.
    Protocol,
    Other,
    /// The connection was there, but TLS was not agreed on: a certificate that does not hold, no version in common.
    Tls,
}

const ERROR_KINDS: [&str; 6] = ["connect", "timeout", "reset", "protocol", "other", "tls"];

/// Why a try followed another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    Connect,
    /// A kept connection turned out dead.
    Reused,
    Reset,
    Timeout,
    /// The status of an answer.
    Status,
}

const RETRY_REASONS: [&str; 5] = ["connect", "reused", "reset", "timeout", "status"];

/// The counters of one target of an upstream.
pub struct TargetMetrics {
    target: String,
    upstream: Arc<UpstreamMetrics>,
    responses: ByStatus,
    errors: [AtomicU64; ERROR_KINDS.len()],
    _lease: Option<Lease<(String, String), TargetMetrics>>,
}

/// What the targets of one upstream share.
pub(super) struct UpstreamMetrics {
    name: String,
    durations: Durations,
    retries: [AtomicU64; RETRY_REASONS.len()],
    retries_refused: AtomicU64,
    connections_new: AtomicU64,
    connections_reused: AtomicU64,
    _lease: Option<Lease<String, UpstreamMetrics>>,
}

impl TargetMetrics {
    pub(super) fn new(
        target: &str,
        upstream: Arc<UpstreamMetrics>,
        lease: Option<Lease<(String, String), Self>>,
    ) -> Self {
        Self {
            target: target.to_owned(),
            upstream,
            responses: ByStatus::default(),
            errors: Default::default(),
            _lease: lease,
        }
    }

    /// The head of a response arrived, so long after the request was sent.
    pub fn responded(&self, status: u16, to_head: Duration) {
        self.responses.add(status);
        self.upstream.durations.observe(to_head);
    }

    /// An attempt failed.
    pub fn failed(&self, kind: UpstreamError) {
        if let Some(count) = self.errors.get(kind as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Another attempt is made because this one failed.
    pub fn retried(&self, reason: RetryReason) {
        if let Some(count) = self.upstream.retries.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// No other attempt is made, because the budget of retries is used up.
    pub fn retry_refused(&self) {
        self.upstream.retries_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is used, taken from the pool or new.
    pub fn connected(&self, reused: bool) {
        let count = if reused { &self.upstream.connections_reused } else { &self.upstream.connections_new };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl UpstreamMetrics {
    pub(super) fn new(name: &str, lease: Option<Lease<String, Self>>) -> Self {
        Self {
            name: name.to_owned(),
            durations: Durations::default(),
            retries: Default::default(),
            retries_refused: AtomicU64::new(0),
            connections_new: AtomicU64::new(0),
            connections_reused: AtomicU64::new(0),
            _lease: lease,
        }
    }
}

pub(super) fn families(upstreams: &[Arc<UpstreamMetrics>], targets: &[Arc<TargetMetrics>]) -> Vec<MetricFamily> {
    let responses = targets.iter().flat_map(|target| {
        target.responses.counts().map(|(status, count)| {
            counter(&[("status", status), ("target", &target.target), ("upstream", &target.upstream.name)], count)
        })
    });
    let errors = targets.iter().flat_map(|target| {
        ERROR_KINDS.iter().zip(target.errors.iter().map(load)).filter(|(_, count)| *count > 0).map(|(kind, count)| {
            counter(&[("kind", kind), ("target", &target.target), ("upstream", &target.upstream.name)], count)
        })
    });
    let connections = upstreams.iter().flat_map(|upstream| {
        [("false", &upstream.connections_new), ("true", &upstream.connections_reused)]
            .map(|(reused, count)| counter(&[("reused", reused), ("upstream", &upstream.name)], load(count)))
    });
    vec![
        counters("tollgate_upstream_requests_total", "Responses of upstreams, by target and status class.", responses),
        histograms(
            "tollgate_upstream_duration_seconds",
            "Time from sending a request to an upstream to the head of its response.",
            upstreams.iter().filter_map(|upstream| upstream.durations.metric(&[("upstream", &upstream.name)])),
        ),
        counters("tollgate_upstream_errors_total", "Attempts at an upstream that failed, by target and kind.", errors),
        counters(
            "tollgate_upstream_retries_total",
            "Attempts made again after a failed one.",
            upstreams.iter().flat_map(|upstream| {
                RETRY_REASONS
                    .iter()
                    .zip(&upstream.retries)
                    .map(|(reason, count)| counter(&[("reason", reason), ("upstream", &upstream.name)], load(count)))
            }),
        ),
        counters(
            "tollgate_upstream_retries_refused_total",
            "Attempts that were not made again because the budget was used up.",
            upstreams.iter().map(|upstream| counter(&[("upstream", &upstream.name)], load(&upstream.retries_refused))),
        ),
        counters(
            "tollgate_upstream_connections_total",
            "Connections to upstreams used, from the pool or new.",
            connections,
        ),
    ]
}
