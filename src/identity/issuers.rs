//! Issuers of tokens: whose signature is accepted, and what their claims mean.

mod claims;
mod compile;

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::SystemTime;

use jsonwebtoken::Algorithm;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Reason;
use super::cache::{Entry, Tokens};
use super::jwks::Source;
use super::keyset::{KeySet, Mark};
use super::shared::Shared;
use super::token::{TOKEN_BYTES_MAX, Token};
use crate::caller::Caller;
use crate::types::{Period, Secret};
use crate::yaml::Located;
use claims::{Rules, Verified};

/// Who signs tokens. Exactly one of `secret`, `public_key`, `jwks`, `jwks_file` and `token_service` says with what.
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
    /// A token service of this configuration, by its name: its key, its algorithm, its `issuer` and its `audience`.
    pub token_service: Option<Located<String>>,
    /// Accepted algorithms: HS256, HS384, HS512 with a secret; any of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384,
    /// EdDSA with public keys. Required, except with `token_service`.
    #[serde(default)]
    pub algorithms: Vec<Located<String>>,
    /// What `iss` must be. Default: not looked at.
    pub issuer: Option<Located<String>>,
    /// What `aud` must hold; one of them is enough. Default: a token must have no `aud`.
    #[serde(default)]
    pub audience: Option<Located<Audience>>,
    /// How far clocks may differ, for `exp` and `nbf`. Default 0s, at most 5m.
    pub leeway: Option<Located<Period>>,
    /// The claim that names the caller; a path such as `user.name`. Default `sub`.
    pub name_claim: Option<Located<String>>,
    /// The claim that holds roles, one as a string or several as a list; a path such as `realm_access.roles`. Default `roles`.
    pub roles_claim: Option<Located<String>>,
    /// The claim that holds scopes, in a string with spaces or a list; a path too. Default `scope`.
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
    /// Its place among the issuers of the snapshot.
    index: usize,
    algorithms: Box<[Algorithm]>,
    keys: Keys,
    rules: Rules,
    roles: Arc<super::Roles>,
    tokens: Arc<Tokens>,
    shared: Arc<Shared>,
}

/// Where keys come from.
enum Keys {
    Fixed(Arc<KeySet>),
    Fetched(Arc<Source>),
}

impl Issuers {
    pub fn get(&self, name: &str) -> Option<&Arc<Issuer>> {
        self.all.iter().find(|issuer| &*issuer.name == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.all.iter()
    }
}

impl Issuer {
    /// The caller a token speaks for: signature, times and claims all hold at `now`.
    ///
    /// # Errors
    /// Why not. [`Reason::UnknownKey`] and [`Reason::KeysUnavailable`] may be another answer a moment later: the keys are
    /// being fetched.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Arc<Caller>, Reason> {
        match remembered(std::slice::from_ref(self), token, now) {
            Some(known) => known,
            None => self.examine(token, &Token::parse(token)?, &mut None, now),
        }
    }

    /// The key set its keys are fetched from.
    pub fn source(&self) -> Option<&Arc<Source>> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Fetched(source) => Some(source),
        }
    }

    fn still(&self, Entry { caller, from, .. }: Entry, now: SystemTime) -> Result<Arc<Caller>, Reason> {
        if caller.expires.is_some_and(|expires| now >= expires) {
            return Err(Reason::Expired);
        }
        if from.is_some_and(|from| now < from) {
            return Err(Reason::NotYet);
        }
        self.shared.check_revoked(&caller)?;
        Ok(caller)
    }

    /// Verifies a token that nothing is known of. `claims` are its own, when they were read already; who verifies it takes them.
    fn examine(
        &self,
        text: &str,
        token: &Token<'_>,
        claims: &mut Option<Map<String, Value>>,
        now: SystemTime,
    ) -> Result<Arc<Caller>, Reason> {
        if !self.algorithms.contains(&token.algorithm) {
            return Err(Reason::Algorithm);
        }
        let keys = self.keys.current().ok_or(Reason::KeysUnavailable).inspect_err(|_| self.want_keys())?;
        let key = keys.verify(token).inspect_err(|reason| {
            // A token that names no key may be signed with one that came since.
            if *reason == Reason::UnknownKey || (*reason == Reason::Signature && token.kid.is_none()) {
                self.want_keys();
            }
        })?;
        let claims = claims.take().map_or_else(|| token.claims(), Ok)?;
        let Verified { caller, from } = self.rules.caller(claims, &self.name, key, &self.roles, now)?;
        let entry = Entry { caller: Arc::new(caller), from, issuer: self.index, generation: keys.generation };
        self.tokens.insert(text, entry.clone());
        self.still(entry, now)
    }

    /// Whether a token that was accepted before would be so now, by its key and what it says. While the keys of the issuer
    /// are not there yet, nothing speaks against it.
    pub fn still_accepts(&self, key: Mark, claims: &Map<String, Value>) -> Result<(), Reason> {
        if self.keys.current().is_some_and(|keys| !keys.has(key)) {
            return Err(Reason::UnknownKey);
        }
        self.rules.still_fit(claims)
    }

    fn want_keys(&self) {
        if let Keys::Fetched(source) = &self.keys {
            source.want();
        }
    }
}

impl Keys {
    fn current(&self) -> Option<Arc<KeySet>> {
        match self {
            Self::Fixed(keys) => Some(Arc::clone(keys)),
            Self::Fetched(source) => source.keys(),
        }
    }
}

/// Most issuers that a token is tried with.
const TRIES_MAX: usize = 8;

/// The caller a token speaks for, by the word of one of `issuers`. A token that names an issuer in `iss` is tried with those
/// of that name first and with those that do not look at `iss` then; each issuer costs at most a few signatures.
pub fn verify_with(issuers: &[Arc<Issuer>], token: &str, now: SystemTime) -> Result<Arc<Caller>, Reason> {
    let several = match issuers {
        [] => return Err(Reason::Issuer),
        [only] => return only.verify(token, now),
        several => several,
    };
    if let Some(known) = remembered(several, token, now) {
        return known;
    }
    let parsed = Token::parse(token)?;
    let claims = parsed.claims()?;
    let named = claims.get("iss").and_then(Value::as_str).map(str::to_owned);
    let mut claims = Some(claims);
    let by_name = several.iter().filter(|it| it.rules.issuer.is_some() && it.rules.may_be_from(named.as_deref()));
    let others = several.iter().filter(|issuer| issuer.rules.issuer.is_none());
    let mut worst = Reason::Issuer;
    for issuer in by_name.chain(others).take(TRIES_MAX) {
        match issuer.examine(token, &parsed, &mut claims, now) {
            Ok(caller) => return Ok(caller),
            Err(reason) => worst = nearer(worst, reason),
        }
    }
    Err(worst)
}

/// What has become of a token that one of `issuers`, all of one snapshot, verified before with the keys that it has now.
fn remembered<I: Borrow<Issuer>>(issuers: &[I], token: &str, now: SystemTime) -> Option<Result<Arc<Caller>, Reason>> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let entry = issuers.first()?.borrow().tokens.get(token)?;
    let issuer = issuers.iter().map(Borrow::borrow).find(|issuer| issuer.index == entry.issuer)?;
    let current = issuer.keys.current().is_some_and(|keys| keys.generation == entry.generation);
    current.then(|| issuer.still(entry, now))
}

/// Of two reasons, the one of the issuer that came further with the token.
fn nearer(one: Reason, other: Reason) -> Reason {
    let distance = |reason| match reason {
        Reason::Issuer => 5,
        Reason::Algorithm => 4,
        Reason::UnknownKey => 3,
        Reason::Signature => 2,
        Reason::KeysUnavailable => 1,
        _ => 0,
    };
    if distance(other) < distance(one) { other } else { one }
}

#[cfg(test)]
mod tests;
