//! `require`: lets only callers through that may do what the route does.
//!
//! Place it behind `auth`, which finds out who calls. Everything that is given must hold. An empty `require: {}` lets every caller through who
//! is known: use it where an `auth` for all routes is `optional`.
//!
//! | setting | meaning |
//! |---|---|
//! | `scopes` | all of these; a grant of `read:*` or `*` covers them too |
//! | `any_scope` | at least one of these |
//! | `roles` | at least one of these |
//! | `level` | at least this one: `user`, `service`, `admin`; the highest of the caller's roles counts |
//! | `claims` | what the token says: each claim is this value, or one of these; of a list in a token, one entry has to be. Text, numbers and `true`/`false` are told apart; a path (`realm.tenant`) leads into objects |
//! | `consumers` | the caller is one of these, by name; a token is none of a consumer that `consumers:` defines, whatever name it says |
//!
//! * Nobody known: 401 `UNAUTHORIZED` with the challenge of `auth`. Known, but not allowed: 403 `FORBIDDEN`; when it is a scope that is missing, with
//!   `WWW-Authenticate: Bearer error="insufficient_scope", scope="…"` and the scopes in `details`. What else is missing is in the audit log
//!   and in `tollgate_auth_total` only: `level`, `role`, `claim`, `consumer`.
//! * A WebSocket is refused as `websocket_refusal` of `auth` says.
//! * Roles and scopes are those of the moment the credential was verified, from the key, the token and `roles:`.
//! * A preflight that a `cors` filter of the route answers needs nobody known.
//!
//! Refused when the configuration is read: no `auth` before it, a role that `roles:` does not define, a wildcard (a requirement names one scope), an
//! empty list, `level: public`.
//!
//! Source: [RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1),
//! [RFC 9110 §15.5.4](https://www.rfc-editor.org/rfc/rfc9110#section-15.5.4).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! roles:
//!   viewer: { scopes: ["read:*"] }
//! consumers:
//!   - name: dashboard
//!     roles: [viewer]
//!     keys:
//!       # The SHA-256 of `an-example-and-no-secret`.
//!       - { id: dashboard-2026, sha256: ed2c955ec1590d74413fd5232da4b044e2c55d30f7c20ef4bf5293f96410ebfd }
//! chains:
//!   api:
//!     - auth: { accept: [api_key] }
//! routes:
//!   - name: tasks.read
//!     match: GET /tasks
//!     filters: [{ use: api }, { require: { scopes: [read:tasks] } }]
//!     respond: { json: { tasks: [] } }
//!   - name: tasks.write
//!     match: POST /tasks
//!     filters: [{ use: api }, { require: { scopes: [write:tasks] } }]
//!     respond: { status: 201 }
//! tests:
//!   - request: GET /tasks
//!     headers: { X-API-Key: an-example-and-no-secret }
//!     expect: { status: 200 }
//!   - request: POST /tasks
//!     headers: { X-API-Key: an-example-and-no-secret }
//!     expect:
//!       status: 403
//!       code: FORBIDDEN
//!       headers: { WWW-Authenticate: 'Bearer error="insufficient_scope", scope="write:tasks"' }
//!   - { request: POST /tasks, expect: { status: 401, code: UNAUTHORIZED } }
//! ```

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::caller::{Caller, Credential, Level};
use crate::context::{Context, Decision};
use crate::contract::{Calling, Compiler, Filter, Hooks, Settings, Step, Verdict};
use crate::head::{HeaderValue, RequestHead};
use crate::identity::check_scope;
use crate::reply::{Code, Rejection};
use crate::yaml::{Located, Named, Problem};

/// Lets only callers through that may do what the route does. Everything that is given must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RequireSettings {
    /// All of these scopes.
    scopes: Option<Located<Vec<Located<String>>>>,
    /// At least one of these scopes.
    any_scope: Option<Located<Vec<Located<String>>>>,
    /// At least one of these roles.
    roles: Option<Located<Vec<Located<String>>>>,
    /// At least this level.
    level: Option<Located<Level>>,
    /// What the token says: each claim is this value, or one of these.
    claims: Named<Located<Allowed>>,
    /// The caller is one of these, by name.
    consumers: Option<Located<Vec<Located<String>>>>,
}

/// One value or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Allowed {
    One(Scalar),
    Any(Vec<Scalar>),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Scalar {
    Flag(bool),
    Number(i64),
    Text(String),
}

impl Settings for RequireSettings {
    const NAME: &'static str = "require";
    const SUMMARY: &'static str = "lets only callers through with these scopes, roles, level or claims";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        compiler.calling(Calling::Needs);
        let scopes = names(self.scopes.as_ref(), "scopes", compiler);
        let any_scope = names(self.any_scope.as_ref(), "any_scope", compiler);
        for list in [&self.scopes, &self.any_scope].into_iter().flatten() {
            list.iter().for_each(|scope| check_required(scope, compiler));
        }
        let roles = names(self.roles.as_ref(), "roles", compiler);
        for role in self.roles.iter().flat_map(|list| list.iter()) {
            check_role(role, compiler);
        }
        if let Some(level) = self.level.as_ref().filter(|level| level.value == Level::Public) {
            let problem = Problem::new(level.place, "`level: public` requires nothing");
            compiler.report(problem.with_hint("leave `require` out, and make `auth` optional"));
        }
        let claims = self.claims.iter().map(|(name, allowed)| {
            let values = match &allowed.value {
                Allowed::One(value) => vec![value.clone()],
                Allowed::Any(values) => values.clone(),
            };
            if values.is_empty() {
                let problem = Problem::new(allowed.place, format!("no value of `{}` would do", name.value));
                compiler.report(problem.with_hint("list the values that are allowed"));
            }
            (name.value.as_str().into(), values.into())
        });
        let claims = claims.collect();
        Some(Step::filter(Require {
            lacks_scopes: insufficient(&scopes),
            lacks_any_scope: insufficient(&any_scope),
            scopes,
            any_scope,
            roles,
            level: self.level.map(|level| level.value),
            claims,
            consumers: consumers(self.consumers.as_ref(), compiler),
        }))
    }
}

type Names = Box<[Box<str>]>;

fn names(written: Option<&Located<Vec<Located<String>>>>, key: &str, compiler: &mut Compiler) -> Names {
    let Some(list) = written else { return Names::default() };
    if list.is_empty() {
        let problem = Problem::new(list.place, format!("`{key}` is an empty list"));
        compiler.report(problem.with_hint("list what is required, or leave the key out"));
    }
    list.iter().map(|name| name.value.as_str().into()).collect()
}

fn consumers(written: Option<&Located<Vec<Located<String>>>>, compiler: &mut Compiler) -> Box<[Wanted]> {
    let names = names(written, "consumers", compiler);
    let identity = compiler.identity();
    names.into_iter().map(|name| Wanted { is_defined: identity.has_consumer(&name), name }).collect()
}

fn check_required(scope: &Located<String>, compiler: &mut Compiler) {
    if let Some(problem) = check_scope(scope) {
        compiler.report(problem);
    } else if scope.ends_with('*') {
        let problem =
            Problem::new(scope.place, format!("`{}` is a wildcard; a requirement names one scope", scope.value));
        compiler.report(problem.with_hint("wildcards are for what is granted: in `roles` and `consumers`"));
    }
}

fn check_role(role: &Located<String>, compiler: &mut Compiler) {
    let identity = std::sync::Arc::clone(compiler.identity());
    if identity.roles().contains(&role.value) {
        return;
    }
    let known: Vec<&str> = identity.roles().names().collect();
    let problem = Problem::unknown(role.place, "role", &role.value, known.iter().copied());
    let problem = if known.is_empty() {
        problem.with_hint(format!("define it in gateway.yaml: `roles: {{ {}: {{}} }}`", role.value))
    } else {
        problem
    };
    compiler.report(problem);
}

/// A claim by its name, and what it may be.
type Claim = (Box<str>, Box<[Scalar]>);

struct Require {
    scopes: Names,
    any_scope: Names,
    roles: Names,
    level: Option<Level>,
    claims: Box<[Claim]>,
    consumers: Box<[Wanted]>,
    lacks_scopes: Rejection,
    lacks_any_scope: Rejection,
}

/// A caller by its name.
struct Wanted {
    name: Box<str>,
    /// `consumers:` says how this one proves who it is.
    is_defined: bool,
}

impl Wanted {
    /// Users of an issuer may choose their name: saying that of a consumer does not make them that one.
    fn is(&self, caller: &Caller) -> bool {
        let by_token = matches!(caller.credential, Credential::Token { .. });
        *self.name == *caller.name && !(self.is_defined && by_token)
    }
}

impl Filter for Require {
    fn hooks(&self) -> Hooks {
        Hooks::REQUEST
    }

    fn on_request(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        if context.preflight {
            // A filter behind this one answers it: no handler ever sees it.
            return Verdict::Continue;
        }
        let (kind, lack) = match &context.caller {
            None => ("none", Some(Lack { reason: "missing", rejection: unauthorized(context) })),
            Some(caller) => (caller.credential.kind(), self.lacking(caller)),
        };
        let reason = lack.as_ref().map_or("ok", |lack| lack.reason);
        context.decisions.push(Decision { by: "require", allowed: lack.is_none(), kind, reason });
        lack.map_or(Verdict::Continue, |lack| Verdict::refuse(lack.rejection, request, context))
    }
}

/// What is missing, and what the client is told of it.
struct Lack {
    reason: &'static str,
    rejection: Rejection,
}

impl Require {
    /// The first thing that the caller lacks.
    fn lacking(&self, caller: &Caller) -> Option<Lack> {
        let any =
            |names: &Names, holds: &dyn Fn(&str) -> bool| names.is_empty() || names.iter().any(|name| holds(name));
        let forbidden = || Rejection::new(Code::FORBIDDEN, "this caller may not use this route");
        let lack = |reason, rejection| Some(Lack { reason, rejection });
        if self.level.is_some_and(|level| caller.level < level) {
            lack("level", forbidden())
        } else if !self.scopes.iter().all(|scope| caller.scopes.allow(scope)) {
            lack("scope", self.lacks_scopes.clone())
        } else if !any(&self.any_scope, &|scope| caller.scopes.allow(scope)) {
            lack("scope", self.lacks_any_scope.clone())
        } else if !any(&self.roles, &|role| caller.roles.iter().any(|own| **own == *role)) {
            lack("role", forbidden())
        } else if !self
            .claims
            .iter()
            .all(|(name, allowed)| caller.claim(name).is_some_and(|claim| says(claim, allowed)))
        {
            lack("claim", forbidden())
        } else if !self.consumers.is_empty() && !self.consumers.iter().any(|wanted| wanted.is(caller)) {
            lack("consumer", forbidden())
        } else {
            None
        }
    }
}

/// Whether a claim, or an entry of one that is a list, is one of these.
fn says(claim: &Value, allowed: &[Scalar]) -> bool {
    let is = |value: &Value| {
        allowed.iter().any(|allowed| match allowed {
            Scalar::Flag(flag) => value.as_bool() == Some(*flag),
            Scalar::Number(number) => value.as_i64() == Some(*number),
            Scalar::Text(text) => value.as_str() == Some(text),
        })
    };
    match claim {
        Value::Array(entries) => entries.iter().any(is),
        other => is(other),
    }
}

/// An `auth` before let a request through that nobody had signed.
fn unauthorized(context: &Context) -> Rejection {
    let rejection = Rejection::new(Code::UNAUTHORIZED, "a valid credential is needed");
    let challenges = context.challenges.iter().flat_map(|challenges| challenges.iter());
    challenges.fold(rejection, |rejection, value| rejection.with_field(http::header::WWW_AUTHENTICATE, value.clone()))
}

/// RFC 6750 §3.1. Scopes are checked: they hold nothing that would end a quoted string.
fn insufficient(scopes: &Names) -> Rejection {
    let named: Vec<Value> = scopes.iter().map(|scope| Value::from(&**scope)).collect();
    let rejection = Rejection::new(Code::FORBIDDEN, "a scope is missing").with_detail("scopes", named);
    let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", scopes.join(" "));
    match HeaderValue::try_from(challenge) {
        Ok(challenge) => rejection.with_field(http::header::WWW_AUTHENTICATE, challenge),
        Err(_) => rejection,
    }
}

#[cfg(test)]
mod tests;
