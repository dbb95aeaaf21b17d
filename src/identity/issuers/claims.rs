//! What a token must say, and whom it speaks for. Comes after the signature: until then nothing of it is true.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::caller::{Caller, CallerFields, Credential};
use crate::identity::Reason;
use crate::identity::keyset::Mark;
use crate::identity::roles::Roles;

/// The last second of the year 9999, in seconds since 1970: what lies behind is no date.
const SECONDS_MAX: u64 = 253_402_300_799;

/// What an issuer's tokens must say.
#[derive(Debug)]
pub struct Rules {
    /// What `iss` must be. `None`: it is not looked at.
    pub issuer: Option<Box<str>>,
    /// What `aud` must hold, one of them. `None`: there must be no `aud`.
    pub audience: Option<Box<[Box<str>]>>,
    pub leeway: Duration,
    pub name: Claim,
    pub roles: Claim,
    pub scopes: Claim,
}

/// Where a claim stands.
#[derive(Debug)]
pub struct Claim {
    /// As it is written: a claim of this very name comes first, dots or not (`https://a.example/roles`).
    whole: Box<str>,
    /// The names from the outermost object inward.
    path: Box<[Box<str>]>,
}

/// A caller, and when its token begins to hold.
#[derive(Debug)]
pub struct Verified {
    pub caller: Caller,
    pub from: Option<SystemTime>,
}

impl Claim {
    pub fn new(written: &str) -> Self {
        Self { whole: written.into(), path: written.split('.').map(Box::from).collect() }
    }

    fn find<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        if let Some(found) = claims.get(&*self.whole) {
            return Some(found);
        }
        let (last, outer) = self.path.split_last().filter(|(_, outer)| !outer.is_empty())?;
        let inner = outer.iter().try_fold(claims, |object, name| object.get(&**name)?.as_object())?;
        inner.get(&**last)
    }
}

impl Rules {
    /// The caller that claims speak for at `now`; the key with the mark `key` signed them.
    pub fn caller(
        &self,
        claims: Map<String, Value>,
        issuer: &Arc<str>,
        key: Mark,
        roles: &Roles,
        now: SystemTime,
    ) -> Result<Verified, Reason> {
        let expires = date(&claims, "exp")?.ok_or(Reason::Claims)?;
        let expires = expires.checked_add(self.leeway).ok_or(Reason::Claims)?;
        let from = date(&claims, "nbf")?.map(|from| from.checked_sub(self.leeway).unwrap_or(SystemTime::UNIX_EPOCH));
        date(&claims, "iat")?;
        if now >= expires {
            return Err(Reason::Expired);
        }
        if from.is_some_and(|from| now < from) {
            return Err(Reason::NotYet);
        }
        self.check_issuer(&claims)?;
        self.check_audience(&claims)?;
        if is_refresh(&claims) {
            return Err(Reason::Claims);
        }
        let id = text(&claims, "jti")?.map(Box::from);
        text(&claims, "sub")?;
        let name = self.name.find(&claims).and_then(Value::as_str).filter(|name| !name.is_empty());
        let name: Arc<str> = Arc::from(name.ok_or(Reason::Claims)?);
        let own_roles: Box<[Box<str>]> = texts(self.roles.find(&claims), |one| vec![one])?;
        let own_scopes = texts(self.scopes.find(&claims), |one| one.split(' ').filter(|it| !it.is_empty()).collect())?;
        let scopes = roles.scopes(&own_roles, own_scopes.iter().map(|scope| &**scope));
        let fields = CallerFields::new(&name, &own_roles, &scopes).ok_or(Reason::Claims)?;
        let caller = Caller {
            name,
            credential: Credential::Token { issuer: Arc::clone(issuer), id, key },
            level: roles.level(&own_roles),
            roles: own_roles,
            scopes,
            claims,
            expires: Some(expires),
            fields,
            rates: None,
        };
        Ok(Verified { caller, from })
    }

    /// Whether claims that were accepted before are still those of the issuer.
    pub fn still_fit(&self, claims: &Map<String, Value>) -> Result<(), Reason> {
        self.check_issuer(claims)?;
        self.check_audience(claims)
    }

    /// Whether a token that names this `iss` can be one of the issuer's.
    pub fn may_be_from(&self, issuer: Option<&str>) -> bool {
        self.issuer.is_none() || self.issuer.as_deref() == issuer
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), Reason> {
        let issuer = text(claims, "iss")?;
        if self.may_be_from(issuer) { Ok(()) } else { Err(Reason::Issuer) }
    }

    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), Reason> {
        let named = claims.get("aud").map(|audience| texts(Some(audience), |one| vec![one])).transpose()?;
        match (&self.audience, named) {
            (None, None) => Ok(()),
            (Some(ours), Some(named)) if named.iter().any(|name| ours.contains(name)) => Ok(()),
            _ => Err(Reason::Audience),
        }
    }
}

/// Whether it only buys a new access token. Ours say so with `type`, others with `typ` or `token_use`.
fn is_refresh(claims: &Map<String, Value>) -> bool {
    let says = |name: &str| {
        let kind = claims.get(name).and_then(Value::as_str);
        kind.is_some_and(|kind| ["refresh", "refresh_token", "offline"].iter().any(|it| kind.eq_ignore_ascii_case(it)))
    };
    ["type", "typ", "token_type", "token_use"].iter().any(|name| says(name))
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Result<Option<&'c str>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Reason::Claims),
    }
}

/// A list of strings, or one string that `split` makes a list of. Nothing is an empty list.
fn texts(value: Option<&Value>, split: fn(&str) -> Vec<&str>) -> Result<Box<[Box<str>]>, Reason> {
    match value {
        None => Ok(Box::default()),
        Some(Value::String(one)) => Ok(split(one).into_iter().map(Box::from).collect()),
        Some(Value::Array(all)) => all.iter().map(|one| one.as_str().map(Box::from).ok_or(Reason::Claims)).collect(),
        Some(_) => Err(Reason::Claims),
    }
}

/// A date in seconds since 1970 (RFC 7519 §2), which may have a fraction. Before 1970 and after 9999 there is none.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<SystemTime>, Reason> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let Value::Number(number) = value else { return Err(Reason::Claims) };
    let since = match (number.as_u64(), number.as_f64()) {
        (Some(seconds), _) if seconds <= SECONDS_MAX => Duration::from_secs(seconds),
        (None, Some(seconds)) if (0.0..=SECONDS_MAX as f64).contains(&seconds) => {
            Duration::try_from_secs_f64(seconds).map_err(|_| Reason::Claims)?
        }
        _ => return Err(Reason::Claims),
    };
    SystemTime::UNIX_EPOCH.checked_add(since).map(Some).ok_or(Reason::Claims)
}

#[cfg(test)]
mod tests;
