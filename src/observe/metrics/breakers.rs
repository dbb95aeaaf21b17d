//! What is shown of circuit breakers.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::series::{counter, counters, gauge, gauges};

/// How it stands with the breakers of an upstream.
pub struct BreakersSample {
    pub upstream: Arc<str>,
    /// Requests that none of them let through.
    pub rejected: u64,
    /// Answers that were kept and given out instead, and the bytes of those that are kept.
    pub stale: Option<(u64, u64)>,
    pub breakers: Vec<BreakerSample>,
}

/// How it stands with one of them.
pub struct BreakerSample {
    /// None: it is that of the whole upstream.
    pub target: Option<Arc<str>>,
    /// 0 closed, 1 half-open, 2 open.
    pub state: u8,
    /// How often it came into a state, by its name.
    pub transitions: Vec<(&'static str, u64)>,
}

pub(super) fn families(samples: &[BreakersSample]) -> Vec<MetricFamily> {
    let all = || samples.iter().flat_map(|sample| sample.breakers.iter().map(|breaker| (&*sample.upstream, breaker)));
    let stale = || samples.iter().filter_map(|sample| Some((&*sample.upstream, sample.stale?)));
    let states = all().map(|(upstream, breaker)| match breaker.target.as_deref() {
        Some(target) => gauge(&[("target", target), ("upstream", upstream)], breaker.state.into()),
        None => gauge(&[("upstream", upstream)], breaker.state.into()),
    });
    let transitions = all().flat_map(|(upstream, breaker)| {
        breaker.transitions.iter().map(move |(to, count)| match breaker.target.as_deref() {
            Some(target) => counter(&[("target", target), ("to", to), ("upstream", upstream)], *count),
            None => counter(&[("to", to), ("upstream", upstream)], *count),
        })
    });
    vec![
        gauges(
            "tollgate_circuit_breaker_state",
            "Whether a circuit breaker lets requests through: 0 closed, 1 half-open, 2 open.",
            states,
        ),
        counters(
            "tollgate_circuit_breaker_transitions_total",
            "Changes of state of a circuit breaker, by the new one.",
            transitions,
        ),
        counters(
            "tollgate_circuit_breaker_rejected_total",
            "Requests that the circuit breakers of an upstream did not let through.",
            samples.iter().map(|sample| counter(&[("upstream", &sample.upstream)], sample.rejected)),
        ),
        counters(
            "tollgate_stale_answers_total",
            "Answers from before that clients got while circuit breakers let nothing through.",
            stale().map(|(upstream, (served, _))| counter(&[("upstream", upstream)], served)),
        ),
        gauges(
            "tollgate_stale_bytes",
            "Memory of the answers that are kept for that.",
            stale().map(|(upstream, (_, bytes))| gauge(&[("upstream", upstream)], bytes as f64)),
        ),
    ]
}
