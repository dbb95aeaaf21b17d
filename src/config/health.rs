//! `health` of an upstream, as it is written.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

use crate::types::{Percent, Period, Secret};
use crate::yaml::{Located, Named};

/// Which targets get requests. One of `path`, `tcp` and `grpc` says how targets are asked, `outliers` what their answers to
/// clients say.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Health {
    /// HTTP: the path, with its query, that is asked for.
    pub path: Option<Located<String>>,
    /// TCP: whether a connection can be made is all that is asked.
    pub tcp: Option<Located<bool>>,
    /// gRPC: `grpc.health.v1.Health/Check`, over HTTP/2.
    pub grpc: Option<Located<GrpcHealth>>,
    /// Of `path`: the method. Default `GET`.
    pub method: Option<Located<String>>,
    /// Of `path`: statuses of a healthy target, each one or a range. Default `["200-399"]`.
    pub status: Option<Located<Vec<Statuses>>>,
    /// Of `path`: what the first 64 KiB of the body must hold. Default: anything.
    pub body: Option<Located<HealthBody>>,
    /// Of `path`: the `Host`. Default: the address of the target as it is written.
    pub host: Option<Located<String>>,
    /// Of `path`: further fields of the request.
    pub headers: Named<Located<Secret>>,
    /// Another port than that of the target.
    pub port: Option<Located<u16>>,
    /// From one check of a target to the next, give or take a tenth, 100ms to 1h. Default 5s.
    pub interval: Option<Located<Period>>,
    /// How long a check may take, 1ms to 1m. Default 2s.
    pub timeout: Option<Located<Period>>,
    /// So many checks in a row have to fail, 1 to 100. Default 3.
    pub unhealthy_after: Option<Located<u32>>,
    /// So many checks in a row have to succeed, 1 to 100. Default 2.
    pub healthy_after: Option<Located<u32>>,
    /// Leaving targets out for a while whose answers to clients are worse than those of the others. Default: none.
    pub outliers: Option<Located<Outliers>>,
    /// With a smaller share of healthy targets health is ignored. Default: none.
    pub panic_threshold: Option<Located<Percent>>,
    /// What becomes of requests while no target is healthy. Default `use_all`.
    pub all_unhealthy: AllUnhealthy,
}

/// A check by the gRPC health checking protocol.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GrpcHealth {
    /// The service that is asked for. Default: the server as a whole.
    pub service: String,
}

/// What a body must hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthBody {
    /// This text.
    Contains(String),
    /// Something that this regular expression matches.
    Matches(Located<String>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllUnhealthy {
    /// They go to all targets, as if all were healthy.
    #[default]
    UseAll,
    /// 503 `UPSTREAM_UNAVAILABLE`
    Refuse,
}

/// When a target is left out for how clients fared with it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Outliers {
    /// So many failures in a row, 1 to 1000. Default 5 unless `rate` or `latency` is given.
    pub failures: Option<Located<u32>>,
    /// Such a share of its answers within `window` were failures.
    pub rate: Option<Located<Percent>>,
    /// Too many of its answers within `window` were slow.
    pub latency: Option<Located<SlowTargets>>,
    /// The least number of answers that `rate` and `latency` look at, 1 to 1000000. Default 20.
    pub requests_min: Option<Located<u32>>,
    /// How far back `rate` and `latency` look, 1s to 1h. Default 10s.
    pub window: Option<Located<Period>>,
    /// What is a failure: statuses from 400 to 599, `connect`, `timeout`, `reset`. Default
    /// `[connect, timeout, reset, 500, 502, 503, 504]`.
    pub on: Option<Located<Vec<Located<OutlierFailure>>>>,
    /// How long the first ejection lasts, the second twice as long and so on, 100ms to 1h. Default 30s.
    pub eject_for: Option<Located<Period>>,
    /// The longest ejection. Default 5m, at least `eject_for`.
    pub eject_for_max: Option<Located<Period>>,
    /// At most this share of the targets is ejected at once, and one of several in any case. Default 50%.
    pub ejected_max: Option<Located<Percent>>,
}

/// When the answers of a target are slow. At least one of `over` and `times`; with both, both must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SlowTargets {
    /// An answer is slow whose head takes longer than this, 1ms to 1h.
    pub over: Option<Located<Period>>,
    /// An answer is slow that takes more than so many times what is usual for the others, 2 to 100.
    pub times: Option<Located<u32>>,
    /// Such a share of slow answers is too much. Default 50%.
    pub share: Option<Located<Percent>>,
}

/// What counts as a failure of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutlierFailure {
    /// No connection could be made.
    Connect,
    /// It did not answer in time.
    Timeout,
    /// The connection broke off, or what came was no HTTP.
    Reset,
    Status(u16),
}

/// A status, or all from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    pub first: u16,
    pub last: u16,
}

const STATUSES: &str = "a status such as 200, or a range such as \"200-299\"";
const FAILURES: &str = "a status from 400 to 599, `connect`, `timeout` or `reset`";

impl Statuses {
    pub fn contain(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusesVisitor)
    }
}

struct StatusesVisitor;

impl Visitor<'_> for StatusesVisitor {
    type Value = Statuses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STATUSES)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Statuses, E> {
        let status = u16::try_from(number).ok().filter(|status| (200..=599).contains(status));
        let status = status.ok_or_else(|| E::custom(format_args!("{number} is no status\nhint: 200 to 599")))?;
        Ok(Statuses { first: status, last: status })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Statuses, E> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.parse::<u16>().ok().filter(|status| (200..=599).contains(status));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Statuses { first, last }),
            _ => Err(E::custom(format_args!("`{text}` is no range of statuses\nhint: write \"200-299\""))),
        }
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A status, or a range of them: 200, \"200-299\"",
            "anyOf": [
                { "type": "integer", "minimum": 200, "maximum": 599 },
                { "type": "string", "pattern": "^[2-5][0-9]{2}(-[2-5][0-9]{2})?$|\\$\\{" },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for OutlierFailure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FailureVisitor)
    }
}

struct FailureVisitor;

impl Visitor<'_> for FailureVisitor {
    type Value = OutlierFailure;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FAILURES)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<OutlierFailure, E> {
        let status = u16::try_from(number).ok().filter(|status| (400..=599).contains(status));
        status
            .map(OutlierFailure::Status)
            .ok_or_else(|| E::custom(format_args!("{number} is no status of a failure\nhint: write {FAILURES}")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<OutlierFailure, E> {
        match text {
            "connect" => Ok(OutlierFailure::Connect),
            "timeout" => Ok(OutlierFailure::Timeout),
            "reset" => Ok(OutlierFailure::Reset),
            // A value that was substituted is a text.
            _ => match text.parse::<u16>() {
                Ok(status) => self.visit_i64(status.into()),
                Err(_) => Err(E::custom(format_args!("`{text}` is no kind of failure\nhint: write {FAILURES}"))),
            },
        }
    }
}

impl JsonSchema for OutlierFailure {
    fn schema_name() -> Cow<'static, str> {
        "OutlierFailure".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What counts as a failure of a target",
            "anyOf": [
                { "type": "integer", "minimum": 400, "maximum": 599 },
                { "enum": ["connect", "timeout", "reset"] },
                { "type": "string", "pattern": "^[45][0-9]{2}$|\\$\\{" },
            ],
        })
    }
}
