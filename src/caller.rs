//! Who calls: what an `auth` filter found out about the sender of a request.
//!
//! A [`Caller`] is made once for each key when the configuration is compiled and once for each token when it is first
//! verified; a request only holds a reference to it.

mod certificate;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::head::HeaderValue;
use crate::rates::OwnRates;

pub use certificate::{ClientCertificate, SubjectName};

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Name of the consumer, or the subject of the token.
    pub name: Arc<str>,
    pub credential: Credential,
    pub level: Level,
    pub roles: Box<[Box<str>]>,
    /// Its own scopes and those of its roles.
    pub scopes: Scopes,
    /// What the token says; empty without one.
    pub claims: Map<String, Value>,
    /// When the credential ends. `None`: never.
    pub expires: Option<SystemTime>,
    /// Name, roles and scopes as fields carry them.
    pub fields: CallerFields,
    /// The rates it has in place of those that filters say.
    pub rates: Option<Arc<OwnRates>>,
}

impl Caller {
    /// What the token says of `name`: the member of that name, or else the one that it is the path of
    /// (`realm_access.roles`).
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.get(name).or_else(|| {
            let (first, path) = name.split_once('.')?;
            path.split('.').try_fold(self.claims.get(first)?, |value, member| value.as_object()?.get(member))
        })
    }
}

/// A claim as text: a string as it is, anything else in JSON; nothing for `null`.
pub fn claim_text(claim: &Value) -> Option<Cow<'_, str>> {
    match claim {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        other => Some(Cow::Owned(other.to_string())),
    }
}

/// Whether a field would not keep the text as it is: blanks around a value are no part of it (RFC 9110 §5.5), so that ` admin`
/// would arrive as `admin`.
pub fn is_padded(text: &str) -> bool {
    let blank = [' ', '\t'];
    text.starts_with(blank) || text.ends_with(blank)
}

/// How the caller proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An API key, by its id. A managed one lives in the state store, any other in the configuration. `version` tells it
    /// from another key that takes its place under the same id.
    Key { id: Arc<str>, managed: bool, version: u64 },
    /// A token, by the name of its issuer in the configuration and its own id (`jti`). `key` tells the key that verified it
    /// from every other one.
    Token { issuer: Arc<str>, id: Option<Box<str>>, key: u64 },
    /// A client certificate.
    Certificate(Arc<ClientCertificate>),
}

impl Credential {
    /// The word for its kind in logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Key { .. } => "api_key",
            Self::Token { .. } => "jwt",
            Self::Certificate(_) => "mtls",
        }
    }

    /// What it is called in logs; a token need not have a name.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Key { id, .. } => Some(id),
            Self::Token { id, .. } => id.as_deref(),
            Self::Certificate(certificate) => Some(&certificate.sha256),
        }
    }
}

/// How far a caller is trusted in general; each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Anybody, authenticated or not.
    Public,
    /// Anybody who is authenticated.
    #[default]
    User,
    /// Another service.
    Service,
    Admin,
}

impl Level {
    /// The word for it in the configuration, in logs and to services.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::User => "user",
            Self::Service => "service",
            Self::Admin => "admin",
        }
    }
}

/// Name, roles and scopes, ready to be sent.
#[derive(Clone, Debug)]
pub struct CallerFields {
    pub name: HeaderValue,
    /// Separated by commas.
    pub roles: HeaderValue,
    /// Separated by spaces (RFC 6749 §3.3).
    pub scopes: HeaderValue,
}

impl CallerFields {
    /// `None` when some text cannot stand in a field, or would be read as another one there.
    pub fn new(name: &str, roles: &[Box<str>], scopes: &Scopes) -> Option<Self> {
        // A comma in a role, or a blank in a scope, would make two of one.
        let splits = |text: &str, by: &[char]| text.contains(by) || text.is_empty();
        if roles.iter().any(|role| splits(role, &[',']) || is_padded(role))
            || scopes.iter().any(|scope| splits(scope, &[' ', '\t']))
            || is_padded(name)
        {
            return None;
        }
        Some(Self {
            name: HeaderValue::from_str(name).ok()?,
            roles: HeaderValue::from_str(&roles.join(",")).ok()?,
            scopes: HeaderValue::from_str(&scopes.to_string()).ok()?,
        })
    }
}

/// What a caller may do. `*` covers every scope, `read:*` every one that begins with `read:`; nothing else is special.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// Sorted, without duplicates.
    granted: Box<[Box<str>]>,
    wildcard: bool,
}

impl Scopes {
    pub fn new(granted: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        let mut granted: Vec<Box<str>> = granted.into_iter().map(Into::into).collect();
        granted.sort_unstable();
        granted.dedup();
        let wildcard = granted.iter().any(|scope| scope.ends_with('*'));
        Self { granted: granted.into(), wildcard }
    }

    /// Whether `scope` is granted, by itself or by a wildcard.
    pub fn allow(&self, scope: &str) -> bool {
        let exact = self.granted.binary_search_by(|granted| (**granted).cmp(scope)).is_ok();
        exact || (self.wildcard && self.granted.iter().any(|granted| covers(granted, scope)))
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.granted.iter().map(|scope| &**scope)
    }
}

fn covers(granted: &str, scope: &str) -> bool {
    match granted.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => prefix.ends_with(':') && scope.starts_with(prefix),
        None => granted == scope,
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.granted.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_what_stands_behind_their_colon() {
        let scopes = Scopes::new(["read:*", "write:tasks", "odd*"]);
        assert!(scopes.allow("read:tasks") && scopes.allow("read:") && scopes.allow("write:tasks"));
        assert!(!scopes.allow("read") && !scopes.allow("reader:x") && !scopes.allow("write:task"));
        assert!(!scopes.allow("write:tasks2") && !scopes.allow("oddity"));
        assert!(Scopes::new(["*"]).allow("anything at all"));
        assert!(!Scopes::default().allow("read:tasks"));
        assert_eq!(Scopes::new(["b", "a", "b"]).to_string(), "a b");
    }

    #[test]
    fn texts_that_would_become_two_or_break_a_field_are_refused() {
        let fields =
            |name: &str, role: &str, scope: &str| CallerFields::new(name, &[role.into()], &Scopes::new([scope]));
        assert!(fields("dashboard", "user", "read:tasks").is_some());
        assert!(fields("a\r\nb", "user", "s").is_none());
        assert!(fields("a", "user,admin", "s").is_none());
        assert!(fields("a", "user", "s admin").is_none());
    }

    /// Whoever may choose a name with a blank before it must not arrive as the one without.
    #[test]
    fn blanks_around_a_name_do_not_make_it_another() {
        let fields =
            |name: &str, role: &str, scope: &str| CallerFields::new(name, &[role.into()], &Scopes::new([scope]));
        assert!(fields("a b", "team lead", "s").is_some());
        for blank in [" ", "\t"] {
            for (before, after) in [(blank, ""), ("", blank)] {
                assert!(fields(&format!("{before}root{after}"), "user", "s").is_none());
                assert!(fields("a", &format!("{before}admin{after}"), "s").is_none());
            }
        }
        assert!(fields("a", "user", "s\tadmin").is_none(), "two scopes for who splits at any blank");
    }

    #[test]
    fn a_claim_is_found_by_its_name_or_its_path() {
        let claims = serde_json::json!({
            "sub": "me", "a": {"b": {"c": [1, "x"]}, "d": null}, "a.b": true, "https://t.example/id": 7
        });
        let Value::Object(claims) = claims else { panic!("it is an object") };
        let fields = CallerFields::new("me", &[], &Scopes::default()).unwrap();
        let caller = Caller {
            name: "me".into(),
            credential: Credential::Token { issuer: "main".into(), id: None, key: 0 },
            level: Level::User,
            roles: Box::default(),
            scopes: Scopes::default(),
            claims,
            expires: None,
            fields,
            rates: None,
        };
        let text = |name: &str| caller.claim(name).and_then(claim_text).map(Cow::into_owned);
        assert_eq!(text("sub").as_deref(), Some("me"));
        assert_eq!(text("a.b").as_deref(), Some("true"), "a member of that name comes first");
        assert_eq!(text("a.b.c").as_deref(), Some(r#"[1,"x"]"#));
        assert_eq!(text("https://t.example/id").as_deref(), Some("7"));
        for absent in ["a.d", "a.x", "sub.x", "a.b.c.0", "", "."] {
            assert_eq!(text(absent), None, "{absent}");
        }
    }

    #[test]
    fn levels_are_ordered() {
        assert!(Level::Public < Level::User && Level::User < Level::Service && Level::Service < Level::Admin);
    }
}
