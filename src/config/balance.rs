//! Settings of an upstream: which of its targets gets a request.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::types::{Period, Secret};
use crate::yaml::Located;

/// How the next target is chosen.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// The target with the fewest requests in flight for its weight; of several, the one whose turn it is.
    LeastConnections,
    /// The better one of two that are drawn by weight: by latency and by what is in flight.
    Random,
    /// The same target for the same key, as long as it has not much more to do than the others.
    Hash(HashBy),
}

/// The key of `hash`. A request without one is given to the target whose turn it is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashBy {
    /// The first value of this request field.
    Header(Located<String>),
    /// The value of this cookie.
    Cookie(Located<String>),
    /// The address of the client.
    Ip,
    /// The name of the consumer.
    Consumer,
    /// The path that the target is sent, without the query.
    Path,
}

/// A cookie that leads a client back to the target of its first request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Sticky {
    /// Its name. Each upstream of a host needs one of its own.
    pub cookie: Located<String>,
    /// What its values are made with, 16 characters or more: the same in every gateway. Default: random at each start.
    pub secret: Option<Located<Secret>>,
    /// How long clients keep it. Default: until the browser is closed.
    pub max_age: Option<Period>,
    /// Default `lax`.
    #[serde(default)]
    pub same_site: SameSite,
    /// Whether it is for HTTPS only. Default: when it is set in an answer over HTTPS.
    pub secure: Option<bool>,
}

/// Which requests from pages of other sites carry a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    Strict,
    /// Those that follow a link.
    #[default]
    Lax,
    /// All. Such a cookie is for HTTPS only.
    None,
}
