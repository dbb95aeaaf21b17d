//! Settings of an upstream: its targets, and how they are asked.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Balance, CircuitBreakers, Discovery, Health, Retry, Sticky, TellClient, UpstreamTls, built_in};
use crate::types::Period;
use crate::yaml::Located;

/// A named set of targets.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Upstream {
    /// Those that are always there. Needed unless there is `discovery`.
    #[serde(default = "no_targets")]
    pub targets: Located<Vec<Target>>,
    /// Where further targets come from, and go again, without a reload.
    pub discovery: Option<Discovery>,
    #[serde(default)]
    pub balance: Balance,
    /// How long a target that is new, or usable again, works up to its share. Default: none, at most 1h.
    pub slow_start: Option<Located<Period>>,
    /// Leads clients back to their target by a cookie.
    pub sticky: Option<Sticky>,
    /// Most requests in flight to each target that has no `in_flight_max`. Default: none.
    pub target_in_flight_max: Option<Located<u32>>,
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Trying again when a try failed.
    #[serde(default)]
    pub retry: Retry,
    /// Leaving the service alone when it fails too often; a list of two for one per upstream and one per target. Default: none.
    pub circuit_breaker: Option<CircuitBreakers>,
    /// Leaving targets out that are not well, by asking them and by how clients fare with them. Default: none.
    pub health: Option<Located<Health>>,
    /// The protocol targets speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// TLS to the targets: `true`, or how. Default: none.
    pub tls: Option<UpstreamTls>,
    /// The `Host` field targets are sent: `pass` (default) what the client sent, `target` the target's address, or with `tls`
    /// the name its certificate is for.
    #[serde(default)]
    pub host: UpstreamHost,
    /// Connections begin with a header of the PROXY protocol that names the client; no two clients share one. Default: none.
    pub proxy_protocol: Option<TellClient>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Target {
    /// `127.0.0.1:9101` or `tasks.internal:9101`. Names are resolved beside the request path, again and again.
    pub address: Located<String>,
    /// Share of the requests, relative to the other targets. Default 1, at most 1000.
    pub weight: Option<Located<u16>>,
    /// Gets requests only while no other target can take them.
    #[serde(default)]
    pub backup: bool,
    /// Most requests in flight to it; more go to others. Default: `target_in_flight_max` of the upstream.
    pub in_flight_max: Option<Located<u32>>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Timeouts {
    /// To make a connection. Default 5s.
    pub connect: Option<Period>,
    /// From the end of the request to the head of the answer. Default: `timeout` of the route or of `defaults`. For clients of
    /// HTTP/2 the larger of this and `idle` counts: one timer serves both there. With a body on its way to a service of HTTP/2 it
    /// counts from the last piece that passed either way.
    pub first_byte: Option<Period>,
    /// Between two reads of an answer, and how long the service may take nothing of a body that is sent to it. Default 60s.
    pub idle: Option<Period>,
    /// From the request to the end of the answer. Default: none.
    pub total: Option<Period>,
    /// How long an unused connection is kept. Default: until the target closes it. Set it below the target's own limit, so
    /// that no request meets a connection that is just being closed.
    pub keepalive: Option<Period>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge, without TLS
    H2c,
    /// HTTP/2, agreed on with `tls`. A target that does not agree gets no request.
    H2,
    /// HTTP/2 or HTTP/1.1, as each target prefers; with `tls`
    Auto,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamHost {
    #[default]
    Pass,
    Target,
}

fn no_targets() -> Located<Vec<Target>> {
    built_in(Vec::new())
}
