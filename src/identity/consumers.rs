//! Consumers as they are written: who calls, with which keys, roles and scopes.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::yaml::Located;

/// Who calls.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ConsumerSettings {
    /// Unique; names the caller in logs, metrics and to services.
    pub name: Located<String>,
    #[serde(default)]
    pub roles: Vec<Located<String>>,
    /// Scopes beside those of the roles.
    #[serde(default)]
    pub scopes: Vec<Located<String>>,
    /// None of its credentials is accepted.
    #[serde(default)]
    pub disabled: bool,
    /// API keys. Several may be valid at once, so that one can be exchanged without a gap.
    #[serde(default)]
    pub keys: Vec<KeySettings>,
}

/// An API key: never itself, only its hash. `tollgate key new` makes one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct KeySettings {
    /// Unique; names the key in logs.
    pub id: Located<String>,
    /// SHA-256 of the key, 64 hexadecimal digits.
    pub sha256: Located<String>,
    /// The first characters of the key, to recognise it by.
    pub prefix: Option<Located<String>>,
    /// When it ends, in RFC 3339: `2027-01-01T00:00:00Z`. Default: never.
    pub expires: Option<Located<String>>,
    #[serde(default)]
    pub disabled: bool,
    /// The only scopes it has. Default: those of the consumer.
    pub scopes: Option<Vec<Located<String>>>,
}
