//! `circuit_breaker` of an upstream, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::types::{Percent, Period, Size};
use crate::yaml::{Kind, Located, Node, Problem, decode};

/// One circuit breaker, or one for the upstream and one for each target.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "Form")]
pub struct CircuitBreakers(Node);

/// Leaves a service alone that fails too often.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CircuitBreaker {
    /// What it watches over. Default `upstream`.
    pub per: BreakerPer,
    /// So many failures within `window` open it, 1 to 1000. Default 5 unless `rate` is given.
    pub failures: Option<Located<u32>>,
    /// Such a share of the requests within `window` opens it.
    pub rate: Option<Located<Percent>>,
    /// The least number of requests that `rate` is a share of, 1 to 1000000. Default 20.
    pub requests_min: Option<Located<u32>>,
    /// How long a failure counts, 1s to 1h. Default 10s.
    pub window: Option<Located<Period>>,
    /// An answer whose head takes longer is a failure. Default: none is too slow.
    pub slow: Option<Located<Period>>,
    /// How long it stays open, 100ms to 1h. Default 15s.
    pub open_for: Option<Located<Period>>,
    /// After `open_for`: requests let through at once, 1 to 100; as many have to succeed to close it. Default 1.
    pub half_open_requests: Option<Located<u32>>,
    /// Statuses that are failures, 400 to 599. Default 500, 502, 503, 504.
    pub on: Option<Vec<Located<u16>>>,
    /// What a client gets instead of 503 while nothing is let through.
    pub fallback: Option<BreakerFallback>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerPer {
    /// All targets together.
    #[default]
    Upstream,
    /// Each target by itself.
    Target,
}

/// What a client gets while a circuit breaker lets nothing through.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerFallback {
    /// The settings of the handler `respond`.
    Respond(Node),
    /// The answer of another upstream.
    Upstream(Located<String>),
    /// The last answer that the service gave to the same GET request.
    Stale(StaleFallback),
}

/// Which answers are kept for the time when a circuit breaker lets nothing through.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StaleFallback {
    /// How old an answer may be, 1s to 7d. Default 1h.
    pub max_age: Option<Located<Period>>,
    /// Memory for all of them, at least 1MiB. Default 64MiB.
    pub memory: Option<Located<Size>>,
    /// Answers with a larger body are not kept; at most a quarter of `memory`. Default 256KiB.
    pub body_max: Option<Located<Size>>,
    /// Request fields that tell callers apart, besides `Authorization`, `Cookie` and `X-API-Key`.
    pub by: Vec<Located<String>>,
}

impl CircuitBreakers {
    /// All of them, each with the place it stands at.
    pub fn list(&self) -> Result<Vec<Located<CircuitBreaker>>, Vec<Problem>> {
        let written = match &self.0.kind {
            Kind::Seq(items) => items,
            _ => std::slice::from_ref(&self.0),
        };
        if written.is_empty() {
            return Err(vec![Problem::new(self.0.place, "a list of circuit breakers holds at least one")]);
        }
        let (mut list, mut problems) = (Vec::new(), Vec::new());
        for node in written {
            match decode(node) {
                Ok(breaker) => list.push(Located::new(breaker, node.place)),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(list) } else { Err(problems) }
    }
}

#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[allow(dead_code, reason = "describes the format; never built")]
enum Form {
    One(Box<CircuitBreaker>),
    Several(Vec<CircuitBreaker>),
}
