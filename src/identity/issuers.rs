//! Issuers of tokens: whose signature is accepted, and what their claims mean.

use std::sync::Arc;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Reason;
use super::roles::Roles;
use super::shared::Shared;
use crate::caller::Caller;
use crate::types::{Period, Secret};
use crate::yaml::{Located, Problem};

/// Who signs tokens. Exactly one of `secret`, `public_key`, `jwks` and `jwks_file` says with what.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct IssuerSettings {
    /// Shared secret of HS256, HS384, HS512; at least as long as the hash (RFC 7518 §3.2): 32, 48 or 64 bytes.
    pub secret: Option<Located<Secret>>,
    /// Public key or certificate in PEM, best as `${file:…}`.
    pub public_key: Option<Located<String>>,
    /// Address of a JWK set (RFC 7517): `https://…`, or `http://` on loopback.
    pub jwks: Option<Located<String>>,
    /// A JWK set in a file, relative to gateway.yaml.
    pub jwks_file: Option<Located<String>>,
    /// Accepted algorithms, of one family: HS256, RS256, PS256, ES256, ES384, EdDSA, …
    pub algorithms: Vec<Located<String>>,
    /// What `iss` must be. Default: not looked at.
    pub issuer: Option<Located<String>>,
    /// What `aud` must hold; one of them is enough. Default: a token must have no `aud`.
    #[serde(default)]
    pub audience: Option<Located<Audience>>,
    /// How far clocks may differ, for `exp` and `nbf`. Default 0s, at most 5m.
    pub leeway: Option<Located<Period>>,
    /// The claim that names the caller. Default `sub`.
    pub name_claim: Option<Located<String>>,
    /// The claim that holds roles; a path such as `realm_access.roles`. Default `roles`.
    pub roles_claim: Option<Located<String>>,
    /// The claim that holds scopes. Default `scope`.
    pub scopes_claim: Option<Located<String>>,
}

/// One audience or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Any(Vec<String>),
}

/// The issuers of a configuration.
#[derive(Default)]
pub struct Issuers {
    all: Vec<Arc<Issuer>>,
}

/// A compiled issuer.
pub struct Issuer {
    pub name: Arc<str>,
}

impl Issuers {
    pub fn compile(
        written: &[(&Located<String>, &IssuerSettings)],
        _roles: &Roles,
        _shared: &Arc<Shared>,
        _problems: &mut Vec<Problem>,
    ) -> Self {
        let all = written.iter().map(|(name, _)| Arc::new(Issuer { name: Arc::from(name.value.as_str()) })).collect();
        Self { all }
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Issuer>> {
        self.all.iter().find(|issuer| &*issuer.name == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.all.iter()
    }
}

impl Issuer {
    /// The caller a token speaks for: signature, times and claims all hold at `now`.
    pub fn verify(&self, _token: &str, _now: SystemTime) -> Result<Arc<Caller>, Reason> {
        Err(Reason::Signature)
    }
}
