//! `discovery` of an upstream, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::types::{Bind, Period, Secret};
use crate::yaml::{Located, Node, Problem, decode};

use super::Target;

/// Where the targets come from: `dns`, `file`, `consul`, `registry`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "Form")]
pub struct Discovery(Node);

/// The same, read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiscoverySource {
    /// The addresses of a name, or its SRV records.
    Dns(DnsDiscovery),
    /// A JSON or YAML file `{ targets: [{ address: … }] }`, relative to gateway.yaml. It is watched.
    File(Located<String>),
    /// The healthy instances of a service in Consul.
    Consul(ConsulDiscovery),
    /// Services that register themselves at the admin address; `registry` alone takes the name of the upstream.
    Registry(RegistryDiscovery),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct DnsDiscovery {
    /// `tasks.internal`; of SRV records `_http._tcp.tasks.internal`.
    pub name: Located<String>,
    /// The port of every address. SRV records bring their own.
    pub port: Option<Located<u16>>,
    /// Which records are asked for. Default: `a+aaaa`.
    #[serde(default, rename = "type")]
    pub records: DnsRecords,
    /// Name servers, asked by UDP, then by TCP where an answer is too long. Default: those of the system.
    pub resolver: Option<Located<Vec<Bind>>>,
    /// The name is asked for again no sooner. Default 1s, 100ms to 1h.
    pub ttl_min: Option<Located<Period>>,
    /// The name is asked for again no later. Default 5m, at most 24h.
    pub ttl_max: Option<Located<Period>>,
    /// How long the last good answer is used while there is none. Default: until there is another one.
    pub stale_max: Option<Located<Period>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DnsRecords {
    /// Both.
    #[default]
    #[serde(rename = "a+aaaa")]
    Both,
    A,
    Aaaa,
    /// The lowest priority gets the requests, all others are backups; weights count.
    Srv,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ConsulDiscovery {
    /// `http://127.0.0.1:8500`
    pub address: Located<String>,
    pub service: Located<String>,
    /// Only instances with this tag.
    pub tag: Option<Located<String>>,
    /// Default: that of the agent.
    pub datacenter: Option<Located<String>>,
    /// An ACL token that may read the service.
    pub token: Option<Secret>,
    /// Only instances whose checks all pass. Default true.
    pub passing_only: Option<bool>,
    /// How long the last good answer is used while there is none. Default: until there is another one.
    pub stale_max: Option<Located<Period>>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RegistryDiscovery {
    /// The name that instances register under. Default: that of the upstream.
    pub service: Option<Located<String>>,
}

/// What a file of targets holds.
#[derive(Clone, Debug, Deserialize)]
pub struct TargetsFile {
    pub targets: Located<Vec<Target>>,
}

impl Discovery {
    /// What it says.
    pub fn read(&self) -> Result<Located<DiscoverySource>, Vec<Problem>> {
        let place = self.0.place;
        if self.0.as_str() == Some("registry") {
            return Ok(Located::new(DiscoverySource::Registry(RegistryDiscovery::default()), place));
        }
        Ok(Located::new(decode(&self.0)?, place))
    }
}

#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[allow(dead_code, reason = "describes the format; never built")]
enum Form {
    Plain(Plain),
    Source(Box<DiscoverySource>),
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "describes the format; never built")]
enum Plain {
    /// Services that register themselves under the name of the upstream.
    Registry,
}
