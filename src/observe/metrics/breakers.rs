//! What is shown of circuit breakers.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::series::{counter, counters, gauge, gauges};

/// How it stands with the breakers of an upstream.
pub struct BreakersSample {
    pub upstream: Arc<str>,
    /// Requests that none of them let through.
    pub rejected: u64,
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
    ]
}
