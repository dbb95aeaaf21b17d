//! What is counted for each listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus::proto::MetricFamily;

use super::named::Lease;
use super::series::{ByCode, counter, counters, gauge, gauges};

/// The counters of one listener.
pub struct ListenerMetrics {
    name: String,
    open: AtomicI64,
    refused: ByCode,
    handshakes_failed: ByCode,
    _lease: Option<Lease<String, ListenerMetrics>>,
}

impl ListenerMetrics {
    pub(super) fn new(name: &str, lease: Option<Lease<String, Self>>) -> Self {
        let (refused, handshakes_failed) = (ByCode::default(), ByCode::default());
        Self { name: name.to_owned(), open: AtomicI64::new(0), refused, handshakes_failed, _lease: lease }
    }

    /// A connection was accepted; it is closed when the guard is dropped.
    pub fn accepted(self: &Arc<Self>) -> OpenConnection {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(self))
    }

    /// A connection was turned away. Reasons are constants of the program.
    pub fn refused(&self, reason: &'static str) {
        self.refused.add(reason);
    }

    /// A TLS handshake failed. Reasons are constants of the program.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.handshakes_failed.add(reason);
    }
}

/// One open connection.
#[must_use = "the connection counts as closed when this is dropped"]
pub struct OpenConnection(Arc<ListenerMetrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn families(listeners: &[Arc<ListenerMetrics>]) -> Vec<MetricFamily> {
    let by_reason = |of: fn(&ListenerMetrics) -> &ByCode| {
        listeners.iter().flat_map(move |listener| {
            let counts = of(listener).counts();
            counts.map(|(reason, count)| counter(&[("listener", &listener.name), ("reason", reason)], count))
        })
    };
    vec![
        gauges(
            "tollgate_connections",
            "Client connections open.",
            listeners.iter().map(|listener| {
                gauge(&[("listener", &listener.name)], listener.open.load(Ordering::Relaxed).max(0) as f64)
            }),
        ),
        counters(
            "tollgate_connections_refused_total",
            "Client connections turned away, by reason.",
            by_reason(|listener| &listener.refused),
        ),
        counters(
            "tollgate_tls_handshakes_failed_total",
            "TLS handshakes that failed, by reason.",
            by_reason(|listener| &listener.handshakes_failed),
        ),
    ]
}
