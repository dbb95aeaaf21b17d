//! `registry`, as it is written: who may register services at the admin address.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::types::{Network, Period, Secret};
use crate::yaml::Located;

/// Services register themselves with `POST /registry/services` at the admin address.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Registry {
    /// Who may.
    pub tokens: Located<Vec<RegistryToken>>,
    /// Networks that addresses have to be in: requests go there.
    pub allow: Located<Vec<Network>>,
    /// The longest time that a service may name until it has to be heard of again. Default 5m, 1s to 24h.
    pub ttl_max: Option<Located<Period>>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct RegistryToken {
    /// What stands behind `Authorization: Bearer`, 16 characters or more.
    pub token: Located<Secret>,
    /// The services it is for. Default: all that upstreams ask for.
    pub services: Option<Located<Vec<Located<String>>>>,
}
