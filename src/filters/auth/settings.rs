//! The settings of `auth`, and what is made of them.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Auth;
use super::challenges::Challenges;
use super::forward::Forward;
use crate::context::CloseOn;
use crate::contract::{Calling, Compiler, Settings, Step};
use crate::head::HeaderName;
use crate::identity::Issuer;
use crate::identity::presented::{Bearer, Places};
use crate::yaml::{Located, Named, Problem};

const KEY_HEADER: &str = "X-API-Key";
const REALM: &str = "tollgate";

/// Finds out who calls.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct AuthSettings {
    /// Kinds of credentials.
    accept: Located<Vec<Located<Accept>>>,
    /// A request without a credential goes on as nobody's; one with a wrong credential is still refused. Default false.
    #[serde(default)]
    optional: bool,
    /// Whose tokens are accepted. Default: all `issuers`.
    issuers: Option<Located<Vec<Located<String>>>>,
    /// Where API keys may stand.
    api_key: Option<Located<KeyPlaces>>,
    /// Where tokens may stand.
    jwt: Option<Located<TokenPlaces>>,
    /// Fields that tell the service who calls. Default: nothing is told.
    #[serde(default)]
    forward: ForwardSettings,
    /// The service is sent the credential too. Default false.
    #[serde(default)]
    keep_credentials: bool,
    /// What ends a WebSocket that is open. Default: nothing.
    #[serde(default)]
    close_on: Vec<Located<End>>,
    /// How a WebSocket is refused. Default status.
    #[serde(default)]
    websocket_refusal: SocketRefusal,
    /// Named in `WWW-Authenticate`. Default tollgate.
    realm: Option<Located<String>>,
}

/// A kind of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Accept {
    ApiKey,
    Jwt,
    /// The certificate of the client.
    Mtls,
}

/// What ends a WebSocket that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum End {
    /// The credential expires.
    TokenExpiry,
    /// The credential is revoked, or the configuration does not know it any more.
    KeyRevoked,
}

/// How a WebSocket is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SocketRefusal {
    /// As any other request.
    #[default]
    Status,
    /// It is accepted and closed at once with the code 1008 and the message.
    Close,
}

/// Where API keys may stand.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
struct KeyPlaces {
    /// The field of a key. Default X-API-Key.
    header: Option<Located<String>>,
    /// A key may stand behind `Authorization: Bearer`. Default true.
    bearer: bool,
    /// The query parameter of a key. Default: none.
    query: Option<Located<String>>,
}

impl Default for KeyPlaces {
    fn default() -> Self {
        Self { header: None, bearer: true, query: None }
    }
}

/// Where tokens may stand.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
struct TokenPlaces {
    /// A token may stand behind `Authorization: Bearer`. Default true.
    bearer: bool,
    /// The cookie of a token. Default: none.
    cookie: Option<Located<String>>,
    /// The query parameter of a token. Default: none.
    query: Option<Located<String>>,
}

impl Default for TokenPlaces {
    fn default() -> Self {
        Self { bearer: true, cookie: None, query: None }
    }
}

/// Fields that tell the service who calls.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ForwardSettings {
    /// Name of the consumer, or subject of the token.
    pub name: Option<Located<String>>,
    /// Its roles, with commas between.
    pub roles: Option<Located<String>>,
    /// Its scopes, with spaces between.
    pub scopes: Option<Located<String>>,
    /// `user`, `service` or `admin`.
    pub level: Option<Located<String>>,
    /// Id of the key, the token or the certificate.
    pub credential: Option<Located<String>>,
    /// Claims of the token, each with its field.
    pub claims: Named<Located<String>>,
}

impl Settings for AuthSettings {
    const NAME: &'static str = "auth";
    const SUMMARY: &'static str = "finds out who calls, by API key, token or certificate; refuses who cannot show it";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        compiler.calling(Calling::Finds);
        self.check_accept(compiler);
        let keys =
            self.accepts(Accept::ApiKey).then(|| self.api_key.clone().map(|keys| keys.value).unwrap_or_default());
        let tokens = self.accepts(Accept::Jwt).then(|| self.jwt.clone().map(|tokens| tokens.value).unwrap_or_default());
        let places = places(keys.as_ref(), tokens.as_ref(), compiler);
        let issuers = if tokens.is_some() { self.issuers(compiler) } else { Box::default() };
        let key_header = keys.as_ref().map(|keys| keys.header.as_ref().map_or(KEY_HEADER, |header| &header.value));
        let forward = Forward::compile(&self.forward, &[KEY_HEADER, key_header.unwrap_or(KEY_HEADER)], compiler);
        let realm = self.realm(compiler);
        let challenges = Challenges::new(realm, places.bearer.is_some() || tokens.is_some(), key_header);
        Some(Step::filter(Auth {
            identity: Arc::clone(compiler.identity()),
            places,
            issuers,
            certificates: self.accepts(Accept::Mtls),
            optional: self.optional,
            close_on: CloseOn {
                token_expiry: self.close_on.iter().any(|end| end.value == End::TokenExpiry),
                key_revoked: self.close_on.iter().any(|end| end.value == End::KeyRevoked),
            },
            closes_refused_sockets: self.websocket_refusal == SocketRefusal::Close,
            keeps_credentials: self.keep_credentials,
            forward,
            challenges,
        }))
    }
}

impl AuthSettings {
    fn accepts(&self, kind: Accept) -> bool {
        self.accept.iter().any(|accepted| accepted.value == kind)
    }

    fn check_accept(&self, compiler: &mut Compiler) {
        if self.accept.is_empty() {
            let problem = Problem::new(self.accept.place, "`accept` names no kind of credential: nobody could get in");
            compiler.report(problem.with_hint("write `accept: [api_key, jwt]`"));
        }
        for (at, kind) in self.accept.iter().enumerate() {
            if let Some(first) = self.accept.iter().take(at).find(|first| first.value == kind.value) {
                let problem = Problem::new(kind.place, "this kind of credential is named twice");
                compiler.report(problem.with_related("first", first.place));
            }
        }
        let unused = [
            (self.api_key.as_ref().map(|keys| keys.place), Accept::ApiKey, "api_key", "api_key"),
            (self.jwt.as_ref().map(|tokens| tokens.place), Accept::Jwt, "jwt", "jwt"),
            (self.issuers.as_ref().map(|issuers| issuers.place), Accept::Jwt, "issuers", "jwt"),
        ];
        for (place, kind, key, name) in unused {
            if let (Some(place), false) = (place, self.accepts(kind)) {
                let problem = Problem::new(place, format!("`{key}` has no effect: `{name}` is not accepted"));
                compiler.report(problem.with_hint(format!("add `{name}` to `accept`, or leave `{key}` out")));
            }
        }
    }

    fn issuers(&self, compiler: &mut Compiler) -> Box<[Arc<Issuer>]> {
        let identity = Arc::clone(compiler.identity());
        let Some(names) = &self.issuers else {
            if identity.issuers().next().is_none() {
                let problem = Problem::new(self.accept.place, "tokens are accepted, but there are no `issuers`");
                compiler.report(problem.with_hint("say in gateway.yaml who signs them: `issuers: { main: { … } }`"));
            }
            return identity.issuers().map(Arc::clone).collect();
        };
        if names.is_empty() {
            let problem = Problem::new(names.place, "the list is empty: no token would be accepted");
            compiler.report(problem.with_hint("name issuers, or leave `issuers` out for all"));
        }
        let mut found = Vec::with_capacity(names.len());
        for name in names.iter() {
            match identity.issuer(&name.value) {
                Some(issuer) => found.push(Arc::clone(issuer)),
                None => {
                    let known: Vec<Arc<Issuer>> = identity.issuers().map(Arc::clone).collect();
                    let known = known.iter().map(|issuer| &*issuer.name);
                    compiler.report(Problem::unknown(name.place, "issuer", &name.value, known));
                }
            }
        }
        found.into()
    }

    fn realm(&self, compiler: &mut Compiler) -> &str {
        let Some(realm) = &self.realm else { return REALM };
        let sound = |byte: u8| (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte);
        if !realm.bytes().all(sound) {
            let problem = Problem::new(realm.place, "a realm is visible ASCII without quotes and backslash");
            compiler.report(problem.with_hint("such as `realm: tasks`"));
        }
        &realm.value
    }
}

fn places(keys: Option<&KeyPlaces>, tokens: Option<&TokenPlaces>, compiler: &mut Compiler) -> Places {
    let bearer = match (keys.is_some_and(|keys| keys.bearer), tokens.is_some_and(|tokens| tokens.bearer)) {
        (true, true) => Some(Bearer::Either),
        (true, false) => Some(Bearer::Key),
        (false, true) => Some(Bearer::Token),
        (false, false) => None,
    };
    let key_query = keys.and_then(|keys| keys.query.as_ref());
    let token_query = tokens.and_then(|tokens| tokens.query.as_ref());
    if let (Some(key), Some(token)) = (key_query, token_query)
        && key.value == token.value
    {
        let problem = Problem::new(token.place, "one parameter cannot hold both a key and a token");
        compiler.report(problem.with_related("the key", key.place).with_hint("give each its own name"));
    }
    let token_cookie = tokens.and_then(|tokens| tokens.cookie.as_ref());
    let places = Places {
        bearer,
        key_header: keys.and_then(|keys| key_header(keys, compiler)),
        key_query: key_query.and_then(|name| parameter(name, compiler)),
        token_cookie: token_cookie.and_then(|name| cookie(name, compiler)),
        token_query: token_query.and_then(|name| parameter(name, compiler)),
    };
    if let (Some(TokenPlaces { bearer: false, .. }), None, None) = (tokens, token_cookie, token_query) {
        let problem = Problem::new(compiler.place(), "a token could stand nowhere");
        compiler.report(problem.with_hint("leave `jwt.bearer` at true, or name a `cookie` or a `query` parameter"));
    }
    places
}

fn key_header(keys: &KeyPlaces, compiler: &mut Compiler) -> Option<HeaderName> {
    let Some(written) = &keys.header else { return HeaderName::from_bytes(KEY_HEADER.as_bytes()).ok() };
    let name = compiler.field_name(&written.value, written.place)?;
    if name == http::header::AUTHORIZATION || name == http::header::COOKIE {
        let problem = Problem::new(written.place, format!("`{}` holds more than a key", written.value));
        compiler.report(problem.with_hint("`bearer: true` reads keys from `Authorization`; name another field here"));
        return None;
    }
    Some(name)
}

/// A name whose spelling leaves no doubt, so that it is found, removed and kept out of logs whatever a server decodes.
fn parameter(written: &Located<String>, compiler: &mut Compiler) -> Option<Box<str>> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if written.is_empty() || written.len() > 64 || !written.bytes().all(sound) {
        let problem = Problem::new(written.place, format!("`{}` is no name of a query parameter", written.value));
        compiler.report(problem.with_hint("1 to 64 letters, digits and `-._~`, such as `token`"));
        return None;
    }
    compiler.hide(&written.value);
    Some(written.value.as_str().into())
}

/// RFC 6265 §4.1.1: the name of a cookie is a token, as the name of a field is.
fn cookie(written: &Located<String>, compiler: &mut Compiler) -> Option<Box<str>> {
    if HeaderName::from_bytes(written.as_bytes()).is_err() {
        let problem = Problem::new(written.place, format!("`{}` is no name of a cookie", written.value));
        compiler.report(problem.with_hint("letters, digits and `!#$%&'*+-.^_`|~`, such as `session`"));
        return None;
    }
    Some(written.value.as_str().into())
}
