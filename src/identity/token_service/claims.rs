//! What the tokens of a token service say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::super::revocations::SESSION_CLAIM;
use super::super::users::Person;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Lets in. `type: access`.
    Access,
    /// Is exchanged for a new pair, once. `type: refresh`; no verifier may take it for the other kind.
    Refresh,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Refresh => "refresh",
        }
    }
}

/// What is signed into every token of a service.
pub struct Issuing<'a> {
    pub issuer: &'a str,
    pub audience: Option<&'a str>,
    pub now: SystemTime,
}

impl Issuing<'_> {
    /// Claims of an access token.
    pub fn access(&self, person: &Person, id: &str, session: Option<&str>, lifetime: Duration) -> Map<String, Value> {
        let mut claims = self.of(&person.name, Purpose::Access, id, session, self.end(lifetime));
        if let Some(audience) = self.audience {
            claims.insert("aud".to_owned(), audience.into());
        }
        if let Some(role) = person.roles.first() {
            claims.insert("role".to_owned(), role.as_str().into());
        }
        claims.insert("roles".to_owned(), person.roles.clone().into());
        if !person.scopes.is_empty() {
            claims.insert("scope".to_owned(), person.scopes.join(" ").into());
        }
        claims
    }

    /// Claims of a refresh token. Its audience is the service itself, so that who checks `aud` does not let in by it.
    pub fn refresh(&self, name: &str, id: &str, session: &str, ends: u64) -> Map<String, Value> {
        let mut claims = self.of(name, Purpose::Refresh, id, Some(session), ends);
        claims.insert("aud".to_owned(), format!("{}#refresh", self.issuer).into());
        claims
    }

    /// Seconds since 1970 at which something of this length ends.
    pub fn end(&self, lifetime: Duration) -> u64 {
        seconds(self.now).saturating_add(lifetime.as_secs())
    }

    fn of(&self, name: &str, purpose: Purpose, id: &str, session: Option<&str>, ends: u64) -> Map<String, Value> {
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), self.issuer.into());
        claims.insert("sub".to_owned(), name.into());
        claims.insert("type".to_owned(), purpose.as_str().into());
        claims.insert("iat".to_owned(), seconds(self.now).into());
        claims.insert("exp".to_owned(), ends.into());
        claims.insert("jti".to_owned(), id.into());
        if let Some(session) = session {
            claims.insert(SESSION_CLAIM.to_owned(), session.into());
        }
        claims
    }
}

/// What a token that was signed here says.
pub struct Token {
    pub purpose: Purpose,
    pub name: String,
    pub id: String,
    pub session: Option<String>,
    /// Seconds since 1970.
    pub ends: u64,
}

impl Token {
    pub fn read(claims: &Map<String, Value>, issuer: &str) -> Option<Self> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let purpose = match claims.get("type")?.as_str()? {
            "access" => Purpose::Access,
            "refresh" => Purpose::Refresh,
            _ => return None,
        };
        (claims.get("iss")?.as_str()? == issuer).then_some(())?;
        let ends = claims.get("exp")?.as_u64()?;
        Some(Self { purpose, name: text("sub")?, id: text("jti")?, session: text(SESSION_CLAIM), ends })
    }

    /// RFC 7519 §4.1.4: at its `exp` a token is not accepted any more.
    pub fn has_ended(&self, now: SystemTime) -> bool {
        self.ends <= seconds(now)
    }
}

/// Whole seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
