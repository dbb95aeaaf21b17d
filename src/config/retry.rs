//! `retry` of an upstream, as it is written.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::built_in;
use crate::types::{Percent, Period, Rate};
use crate::yaml::{Located, Node};

/// Trying again when a try failed and nothing of an answer was passed on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Retry {
    /// Tries in all, the first one included. Default 2, at most 10; each on another target while there are others.
    pub attempts: Located<u8>,
    /// What is tried again: `connect`, `reset`, `timeout`, statuses from 400 to 599. Default `[connect]`.
    #[schemars(with = "Option<Vec<RetryOn>>")]
    pub on: Option<Vec<Node>>,
    /// Whether a request that may do something twice is tried again once it was sent. Default `with_idempotency_key`.
    pub unsafe_methods: UnsafeMethods,
    /// How long each try may take from the end of the request to the head of the answer. Default: as long as the request.
    pub try_timeout: Option<Located<Period>>,
    /// Pauses before further tries.
    pub backoff: Backoff,
    /// Most retries, as a share of the requests of the last ten seconds. Default 20%.
    pub budget: Option<Located<Percent>>,
    /// Retries that are there beside the share, at least 6/min. Default 10/s.
    pub budget_min: Option<Located<Rate>>,
}

/// Requests that may do something twice: their method is not idempotent (RFC 9110 §9.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnsafeMethods {
    /// Those that carry an `Idempotency-Key`: the service knows them again.
    #[default]
    WithIdempotencyKey,
    Never,
    /// All: for services where nothing happens twice.
    Always,
}

/// Pauses before further tries: a random part of a time that doubles with each.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Backoff {
    /// The longest pause before the second try. Default 25ms.
    pub first: Option<Located<Period>>,
    /// The longest before any, also when `Retry-After` asks for more. Default 1s, at most 1m.
    pub max: Option<Located<Period>>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: built_in(2),
            on: None,
            unsafe_methods: UnsafeMethods::default(),
            try_timeout: None,
            backoff: Backoff::default(),
            budget: None,
            budget_min: None,
        }
    }
}

/// What is tried again, for the schema.
struct RetryOn;

impl JsonSchema for RetryOn {
    fn schema_name() -> Cow<'static, str> {
        "RetryOn".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [
                { "description": "No connection could be made: nothing was sent, so any method may be tried again.",
                  "type": "string", "const": "connect" },
                { "description": "The connection broke before an answer.", "type": "string", "const": "reset" },
                { "description": "No answer in time.", "type": "string", "const": "timeout" },
                { "description": "The answer has this status. It is passed on when no further try may be made.",
                  "type": "integer", "minimum": 400, "maximum": 599 },
            ]
        })
    }
}
