//! `proxy_protocol` of listeners and of upstreams, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::types::Network;
use crate::yaml::{Kind, Located, Node, Problem, decode};

/// `true`: a header is required, from `trusted_proxies`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "Form")]
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

#[derive(JsonSchema)]
#[schemars(untagged, inline)]
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
