//! Settings of a route that sends requests, or copies of them, to more than one upstream.

use schemars::JsonSchema;
use serde::Deserialize;

use super::HashBy;
use crate::types::{Percent, Size};
use crate::yaml::Located;

/// The handler `upstream` with several upstreams that share the requests of a route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Split {
    /// Who gets what, at most 100.
    pub split: Located<Vec<SplitPart>>,
    /// Requests with the same key go the same way. Default: none, each request goes as the weights say.
    pub by: Option<HashBy>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct SplitPart {
    /// The name of the upstream.
    pub upstream: Located<String>,
    /// Its share of the requests, relative to the others: 0 to 1000.
    pub weight: Located<u16>,
    /// Requests that go here whatever the weights say.
    pub when: Option<SplitWhen>,
}

/// A field that a request must have, with exactly this value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct SplitWhen {
    pub header: Located<String>,
    pub value: Located<String>,
}

/// Copies of requests that another upstream gets. What it answers goes nowhere.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Mirror {
    /// The name of the upstream.
    pub upstream: Located<String>,
    /// How many of the requests are copied. Default 100%.
    pub share: Option<Percent>,
    /// Requests with larger bodies are not copied. Default 64KiB, at most 16MiB.
    pub body_max: Option<Located<Size>>,
    /// Most copies under way; further ones are left out. Default 100, at most 10000.
    pub in_flight_max: Option<Located<u32>>,
}
