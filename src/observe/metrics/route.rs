//! What is counted for each route.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;
use prometheus::proto::MetricFamily;

use super::named::Lease;
use super::series::{ByCode, ByStatus, Durations, counter, counters, gauge, gauges, histograms, load};
use super::webhooks::Webhooks;

/// The labels of methods; every method that is not listed counts as the last.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "other"];

/// What became of the copy of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirrored {
    /// It was answered.
    Sent,
    /// It was not.
    Failed,
    /// It was never sent.
    Dropped,
}

const MIRRORED: [&str; 3] = ["sent", "failed", "dropped"];

/// The counters of one route, all of them atomics that are reached without a lookup by name.
pub struct RouteMetrics {
    name: String,
    /// A row comes into being with the first request of its method: most routes know one or two.
    requests: [OnceLock<Box<ByStatus>>; METHODS.len()],
    durations: Durations,
    in_flight: AtomicI64,
    refused: ByCode,
    pub(super) shed: ByCode,
    /// By filter, kind of credential and reason.
    decided: ByCode<[&'static str; 3]>,
    pub(super) webhooks: Webhooks,
    mirrored: [AtomicU64; MIRRORED.len()],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    _lease: Option<Lease<String, RouteMetrics>>,
}

impl RouteMetrics {
    pub(super) fn new(name: &str, lease: Option<Lease<String, Self>>) -> Self {
        Self {
            name: name.to_owned(),
            requests: Default::default(),
            durations: Durations::default(),
            in_flight: AtomicI64::new(0),
            refused: ByCode::default(),
            shed: ByCode::default(),
            decided: ByCode::default(),
            webhooks: Webhooks::default(),
            mirrored: Default::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            _lease: lease,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A request began; it ends when the guard is dropped, however that comes.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// A request was answered. Bytes are those of the bodies.
    pub fn finished(&self, method: &Method, status: u16, duration: Duration, bytes_in: u64, bytes_out: u64) {
        if let Some(row) = self.requests.get(method_place(method)) {
            row.get_or_init(Box::default).add(status);
        }
        self.durations.observe(duration);
        for (sum, bytes) in [(&self.bytes_in, bytes_in), (&self.bytes_out, bytes_out)] {
            // Most requests have no body, and an atomic addition of nothing costs as much as any other.
            if bytes > 0 {
                sum.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    /// The gateway refused a request by itself. Codes are constants of the program, never text of a client.
    pub fn refused(&self, code: &'static str) {
        self.refused.add(code);
    }

    /// A request was shed. Reasons are constants of the program.
    pub fn shed(&self, reason: &'static str) {
        self.shed.add(reason);
    }

    /// A filter decided about the caller. All texts are constants of the program.
    pub fn decided(&self, filter: &'static str, kind: &'static str, reason: &'static str) {
        self.decided.add([filter, kind, reason]);
    }

    /// A copy of a request came to its end.
    pub fn mirrored(&self, end: Mirrored) {
        if let Some(count) = self.mirrored.get(end as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One request in flight.
#[must_use = "the request counts as ended when this is dropped"]
pub struct InFlight(Arc<RouteMetrics>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn families(routes: &[Arc<RouteMetrics>]) -> Vec<MetricFamily> {
    let requests = routes.iter().flat_map(|route| {
        METHODS.iter().zip(&route.requests).filter_map(|(method, row)| row.get().map(|row| (method, row))).flat_map(
            |(method, row)| {
                row.counts().map(|(status, count)| {
                    counter(&[("method", method), ("route", &route.name), ("status", status)], count)
                })
            },
        )
    });
    let refused = routes.iter().flat_map(|route| {
        route.refused.counts().map(|(code, count)| counter(&[("code", code), ("route", &route.name)], count))
    });
    let decided = routes.iter().flat_map(|route| {
        route.decided.counts().map(|([filter, kind, reason], count)| {
            counter(&[("filter", filter), ("kind", kind), ("reason", reason), ("route", &route.name)], count)
        })
    });
    let mirrored = routes.iter().flat_map(|route| {
        let ends = MIRRORED.iter().zip(route.mirrored.iter().map(load)).filter(|(_, count)| *count > 0);
        ends.map(|(end, count)| counter(&[("result", end), ("route", &route.name)], count))
    });
    let bytes = |of: fn(&RouteMetrics) -> &AtomicU64| {
        routes.iter().map(move |route| counter(&[("route", &route.name)], load(of(route))))
    };
    vec![
        counters("tollgate_requests_total", "Requests answered, by route, method and class of status.", requests),
        histograms(
            "tollgate_request_duration_seconds",
            "Time from the first byte of a request to the last of its response.",
            routes.iter().filter_map(|route| route.durations.metric(&[("route", &route.name)])),
        ),
        gauges(
            "tollgate_requests_in_flight",
            "Requests begun and not yet answered.",
            routes
                .iter()
                .map(|route| gauge(&[("route", &route.name)], route.in_flight.load(Ordering::Relaxed).max(0) as f64)),
        ),
        counters("tollgate_refused_total", "Requests refused by the gateway itself, by error code.", refused),
        counters("tollgate_auth_total", "Decisions about callers, by filter, kind of credential and reason.", decided),
        counters("tollgate_mirrored_requests_total", "Copies of requests for other upstreams, by result.", mirrored),
        counters("tollgate_request_bytes_total", "Bytes of request bodies received.", bytes(|route| &route.bytes_in)),
        counters("tollgate_response_bytes_total", "Bytes of response bodies sent.", bytes(|route| &route.bytes_out)),
    ]
}

fn method_place(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::PATCH => 4,
        Method::DELETE => 5,
        Method::OPTIONS => 6,
        Method::TRACE => 7,
        Method::CONNECT => 8,
        _ => 9,
    }
}
