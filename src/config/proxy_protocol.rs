//! `proxy_protocol` of listeners and of upstreams, as it is written.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use crate::types::Network;
use crate::yaml::{Kind, Located, Node, Problem, decode};

/// `proxy_protocol` of a listener: `true`, or a map.
#[derive(Clone, Debug)]
pub struct ProxyProtocol(pub Node);

/// Connections begin with a header of the PROXY protocol that names the client.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
struct Long {
    /// Networks that connections are taken from. Default: `trusted_proxies`.
    from: Option<Located<Vec<Network>>>,
}

/// Who may send the header.
pub enum From {
    /// Nobody does: connections begin with what the client sends.
    Off,
    /// Those in `trusted_proxies`.
    Trusted,
    These(Located<Vec<Network>>),
}

impl ProxyProtocol {
    pub fn from(&self) -> Result<From, Vec<Problem>> {
        match &self.0.kind {
            Kind::Bool(true) => Ok(From::Trusted),
            Kind::Bool(false) => Ok(From::Off),
            Kind::Map(_) => {
                let long: Long = decode(&self.0)?;
                Ok(long.from.map_or(From::Trusted, From::These))
            }
            _ => {
                let problem = Problem::new(self.0.place, "`proxy_protocol` is neither `true` nor a map");
                Err(vec![problem.with_hint("write `proxy_protocol: { from: [10.0.0.0/8] }`")])
            }
        }
    }
}

impl<'de> Deserialize<'de> for ProxyProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Node::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for ProxyProtocol {
    fn schema_name() -> Cow<'static, str> {
        "ProxyProtocol".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Form::json_schema(generator)
    }
}

/// `true`: a header is required, from `trusted_proxies`.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "describes the format; never built")]
enum Form {
    Short(bool),
    Long(Long),
}

/// The header that connections to targets begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TellClient {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}
