//! `api_keys`: people make, change and revoke API keys over HTTP.
//!
//! Managed keys work like those of `consumers`, from the moment they are made, and are kept in the state store: with
//! `state: { file: … }` they outlive the process. Only the hash of a key is kept. Keys that belong to a deployment are
//! better written down under `consumers`, where a review sees them.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `prefix` | the word before the `_` of new keys, 1 to 16 letters, digits, `-` and `_` | `tg` |
//! | `scope` | the scope that a caller must have to use this handler at all | `admin:api_keys` |
//! | `scopes_allowed` | the scopes that keys may have; `read:*` stands for every one that begins with `read:` | whatever their maker has |
//! | `roles_allowed` | the roles that keys may have | none |
//! | `expires_default` | how long a key lives when nothing is said | `365d` |
//! | `expires_max` | how long a key may live | `730d` |
//! | `rotation_overlap` | how long a rotated key is still accepted when nothing is said; at most `30d` | `24h` |
//! | `max_keys` | how many managed keys there may be, 1 to 100000 | `10000` |
//!
//! Mount it on two routes, behind `auth`. The first has the parameter `{id?}`, the second `{id}` and one segment more:
//!
//! | request | answer |
//! |---|---|
//! | `POST …` with `name`, `scopes`, `roles`, `rates`, `description`, `expires_in` or `expires_at` | 201 and the key itself, which is never shown again |
//! | `GET …?limit=50&after=ID` | 200 and keys in the order they were made; `next` is the `after` of the next page |
//! | `GET …/{id}` | 200 and what is known of the key |
//! | `PUT …/{id}` with any of `name`, `scopes`, `roles`, `rates`, `description`, `disabled`, `expires_in`, `expires_at` | 200; what is left out stays |
//! | `POST …/{id}/rotate` with `overlap`, `expires_in` or `expires_at`, or no body | 200 and a new key under the same id; the old one works for `overlap` more |
//! | `DELETE …/{id}` | 204; the key is refused from the next request on |
//! | `GET …/{id}/usage` | 200 and how often it was used: by route and status, by day for 90 days |
//!
//! A body is JSON of at most 16 KiB with `Content-Type: application/json`. Unknown members, wrong types and values out of
//! range are refused with 400 `VALIDATION_ERROR`; `details` has `field`, `value` and `expected`. `name` has letters, digits,
//! `.`, `_` and `-`, names the caller in logs and to services like that of a consumer, and can be neither that of one, nor of a
//! user, nor that of a key that can do more than the caller; when the configuration gets a consumer or user of this name, the
//! key is refused. A duration such as `expires_in` is written as in the configuration: `"90d"`. `rates` stand in place of those of
//! the `rate_limit`s that count by consumer or key: `["1000/min"]` for all of them, `{"reads": ["1000/min"]}` for the bucket of that name,
//! `null` to take them away again. What the key has used up is kept.
//!
//! **Nobody makes a key that can do more than they can.** Each scope must be one that the caller has, each role one that the
//! caller has too, and whose scopes and level the caller has; only who has the scope `*` gives any. The same holds for changing,
//! rotating and revoking: a key that can do more than the caller is out of reach. `rates` are given by who has the scope `*` only. Refused with 403 `FORBIDDEN`. Without an
//! `auth` in front there is no caller, and every request is refused with 401 `UNAUTHORIZED`.
//!
//! Answers carry `Cache-Control: no-store`. When the state store fails the answer is 503 `STATE_UNAVAILABLE`; a key that was to be
//! revoked is refused by this gateway all the same. Counters of use reach the store within about a second. A key is kept for
//! 30 days after its end. Who made, changed and revoked which key stands in the error log (level `info`), never the key.
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! consumers:
//!   - name: console
//!     scopes: [admin:api_keys, read:inventory, write:inventory]
//!     keys:
//!       # The SHA-256 of `an-example-and-no-secret`.
//!       - { id: console-2026, sha256: ed2c955ec1590d74413fd5232da4b044e2c55d30f7c20ef4bf5293f96410ebfd }
//! chains:
//!   admin:
//!     - auth: { accept: [api_key] }
//!     - require: { scopes: [admin:api_keys] }
//! routes:
//!   - name: api-keys
//!     match: { methods: [GET, POST, PUT, DELETE], path: "/api/v1/api-keys/{id?}" }
//!     filters: [{ use: admin }]
//!     api_keys: &keys { prefix: gsp, scopes_allowed: ["read:*", "write:*"], expires_default: 90d }
//!   - name: api-keys.one
//!     match: { methods: [GET, POST], path: "/api/v1/api-keys/{id}/{action}" }
//!     filters: [{ use: admin }]
//!     api_keys: *keys
//! tests:
//!   - { request: POST /api/v1/api-keys, expect: { status: 401, code: UNAUTHORIZED } }
//!   - request: GET /api/v1/api-keys/key_1/usage
//!     headers: { Authorization: Bearer an-example-and-no-secret }
//!     expect: { route: api-keys.one, status: 200 }
//! ```

mod body;
mod refusals;
mod rights;
mod subject;
mod view;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Settings;
use crate::caller::{Caller, Scopes};
use crate::clock;
use crate::context::Context;
use crate::contract::{Answering, AnyHandler, AsyncHandler, Compiler};
use crate::head::{HeaderValue, Method, RequestHead, StatusCode, query_parameter};
use crate::identity::managed::{Previous, Record, WriteError, from_seconds, seconds};
use crate::identity::{Identity, NewKey, StoredRates, is_prefix, scope_problem};
use crate::reply::{Code, Rejection, Reply};
use crate::state::StoreError;
use crate::types::Period;
use crate::yaml::{Located, Place, Problem};
use body::{Members, invalid};
use refusals::{failed, internal, method_not_allowed, not_found, unavailable};
use subject::{Subject, is_id, new_id, subject};

/// Largest body, in bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;
const LIST_DEFAULT: usize = 50;
const LIST_MAX: usize = 100;
const DAY: Duration = Duration::from_secs(24 * 3600);
const OVERLAP_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// As long as the largest `expires_max`: a hundred years.
const EXPIRES_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const KEYS_MAX: u32 = 100_000;

type Refused = Box<Rejection>;

/// Makes, changes and revokes API keys over HTTP.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ApiKeysSettings {
    /// The word before the `_` of new keys. Default `tg`.
    prefix: Option<Located<String>>,
    /// The scope that a caller must have. Default `admin:api_keys`.
    scope: Option<Located<String>>,
    /// The scopes that keys may have. Default: whatever their maker has.
    scopes_allowed: Option<Vec<Located<String>>>,
    /// The roles that keys may have. Default: none.
    roles_allowed: Vec<Located<String>>,
    /// How long a key lives when nothing is said. Default 365d.
    expires_default: Option<Located<Period>>,
    /// How long a key may live. Default 730d.
    expires_max: Option<Located<Period>>,
    /// How long a rotated key is still accepted. Default 24h, at most 30d.
    rotation_overlap: Option<Located<Period>>,
    /// How many managed keys there may be, 1 to 100000. Default 10000.
    #[schemars(range(min = 1, max = 100_000))]
    max_keys: Option<Located<u32>>,
}

impl Settings for ApiKeysSettings {
    const NAME: &'static str = "api_keys";
    const SUMMARY: &'static str = "makes, changes and revokes API keys over HTTP";

    fn build(self, compiler: &mut Compiler) -> Option<AnyHandler> {
        compiler.path_parameter("id");
        let prefix = self.prefix.unwrap_or_else(|| Located::new("tg".to_owned(), Place::UNKNOWN));
        if !is_prefix(&prefix) {
            let problem = Problem::new(prefix.place, "a prefix has 1 to 16 letters, digits, `-` and `_`");
            compiler.report(problem.with_hint("such as `gsp`: keys are `gsp_9b5546ec…`"));
        }
        let scope = self.scope.unwrap_or_else(|| Located::new("admin:api_keys".to_owned(), Place::UNKNOWN));
        let scopes = self.scopes_allowed.iter().flatten().chain(std::iter::once(&scope));
        scopes.filter_map(scope_problem).for_each(|problem| compiler.report(problem));
        let identity = Arc::clone(compiler.identity());
        for role in self.roles_allowed.iter().filter(|role| !identity.roles().contains(role)) {
            compiler.report(Problem::unknown(
                role.place,
                "role",
                role,
                identity.roles().names().collect::<Vec<_>>().into_iter(),
            ));
        }
        let expires_max = period(self.expires_max, 730 * DAY, EXPIRES_MAX, "expires_max", compiler);
        let expires_default =
            period(self.expires_default, expires_max.min(365 * DAY), expires_max, "expires_default", compiler);
        let max_keys = compiler.within("max_keys", self.max_keys, 10_000, 1..=KEYS_MAX);
        let words = |list: Vec<Located<String>>| list.into_iter().map(|word| word.value);
        Some(AnyHandler::waiting(ApiKeys {
            prefix: prefix.value,
            scope: scope.value,
            scopes_allowed: self.scopes_allowed.map(|allowed| Scopes::new(words(allowed))),
            roles_allowed: words(self.roles_allowed).collect(),
            expires_default,
            expires_max,
            overlap: period(self.rotation_overlap, DAY, OVERLAP_MAX, "rotation_overlap", compiler),
            keys_max: usize::try_from(max_keys).unwrap_or_default(),
            identity,
        }))
    }
}

fn period(
    written: Option<Located<Period>>,
    default: Duration,
    most: Duration,
    name: &str,
    compiler: &mut Compiler,
) -> Duration {
    let Some(written) = written else { return default };
    if written.value.0 > most {
        compiler.report(Problem::new(written.place, format!("`{name}` is at most {}", Period(most))));
    }
    written.value.0
}

struct ApiKeys {
    prefix: String,
    scope: String,
    scopes_allowed: Option<Scopes>,
    roles_allowed: Box<[String]>,
    expires_default: Duration,
    expires_max: Duration,
    overlap: Duration,
    keys_max: usize,
    identity: Arc<Identity>,
}

impl AsyncHandler for ApiKeys {
    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }

    fn answer<'a>(&'a self, request: &'a dyn RequestHead, body: Bytes, context: &'a Context) -> Answering<'a> {
        Box::pin(async move {
            let caller = self.admit(context)?;
            let now = clock::wall();
            let reply = match (request.method(), subject(request, context)?) {
                (&Method::GET | &Method::HEAD, Subject::All) => self.list(request).await,
                (&Method::POST, Subject::All) => self.create(Members::read(request, &body)?, caller, now).await,
                (&Method::GET | &Method::HEAD, Subject::One(id)) => self.show(id, now).await,
                (&Method::PUT, Subject::One(id)) => self.change(id, Members::read(request, &body)?, caller, now).await,
                (&Method::DELETE, Subject::One(id)) => self.revoke(id, caller).await,
                (&Method::GET | &Method::HEAD, Subject::Usage(id)) => self.usage(id).await,
                (&Method::POST, Subject::Rotation(id)) => {
                    self.rotate(id, Members::read_optional(request, &body)?, caller, now).await
                }
                (_, subject) => Err(method_not_allowed(&subject)),
            }?;
            Ok(reply.with_field(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        })
    }
}

impl ApiKeys {
    /// The caller, if it may use this handler at all.
    fn admit<'a>(&self, context: &'a Context) -> Result<&'a Arc<Caller>, Refused> {
        let Some(caller) = &context.caller else {
            let rejection = Rejection::new(Code::UNAUTHORIZED, "managing API keys needs a credential");
            return Err(Box::new(rejection.with_field(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))));
        };
        if !caller.scopes.allow(&self.scope) {
            let rejection = Rejection::new(Code::FORBIDDEN, "this credential may not manage API keys");
            return Err(Box::new(rejection.with_detail("expected", format!("the scope {}", self.scope))));
        }
        Ok(caller)
    }

    async fn create(&self, mut members: Members, caller: &Arc<Caller>, now: SystemTime) -> Result<Reply, Refused> {
        let name = members.required("name", body::name)?;
        let asked = self.asked(&mut members, now)?;
        members.end()?;
        let expires = asked.expires.unwrap_or_else(|| self.ends(self.expires_default, now));
        let (key, id) = (new_key(&self.prefix)?, new_id(now)?);
        let record = Record {
            id,
            name: self.free(name, caller)?,
            description: asked.description.unwrap_or_default(),
            prefix: key.visible,
            sha256: key.digest.to_string(),
            previous: None,
            scopes: asked.scopes.unwrap_or_default(),
            roles: asked.roles.unwrap_or_default(),
            rates: asked.rates.flatten(),
            disabled: false,
            created_at: seconds(now),
            created_by: caller.name.to_string(),
            updated_at: seconds(now),
            expires_at: expires,
        };
        rights::check(caller, &record, self.identity.roles())?;
        let (most, identity) = (self.keys_max, Arc::clone(&self.identity));
        let written = to_the_end(async move {
            let store = identity.shared().store()?;
            identity.shared().managed().create(store.as_ref(), record, most).await
        });
        let made = written.await.map_err(|error| failed(&error))?;
        tracing::info!(key = made.record.id, name = made.record.name, by = &*caller.name, "API key made");
        Ok(Reply::json(StatusCode::CREATED, &view::with_key(&made.record, &key.text, now)))
    }

    async fn list(&self, request: &dyn RequestHead) -> Result<Reply, Refused> {
        let limit = match query_parameter(request.query(), "limit") {
            None => LIST_DEFAULT,
            Some(text) => {
                let limit = text.parse().ok().filter(|limit| (1..=LIST_MAX).contains(limit));
                limit.ok_or_else(|| invalid("limit", &json!(text), "a number from 1 to 100"))?
            }
        };
        let after = query_parameter(request.query(), "after");
        if let Some(after) = after.filter(|after| !is_id(after)) {
            return Err(invalid("after", &json!(after), "the id of a key"));
        }
        let shared = self.identity.shared();
        let store = shared.store().map_err(|error| unavailable(&error))?;
        // One more than asked tells whether there is a next page.
        let listed = shared.managed().list(store.as_ref(), after, limit.saturating_add(1)).await;
        let mut records = listed.map_err(|error| unavailable(&error))?;
        let more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| more).map(|last| last.id.clone());
        let now = clock::wall();
        let keys: Vec<Value> = records.iter().map(|record| view::record(record, now)).collect();
        Ok(Reply::json(StatusCode::OK, &json!({ "keys": keys, "next": next })))
    }

    async fn show(&self, id: &str, now: SystemTime) -> Result<Reply, Refused> {
        let key = self.identity.shared().managed().get(id).ok_or_else(not_found)?;
        Ok(Reply::json(StatusCode::OK, &view::record(&key.record, now)))
    }

    async fn change(
        &self,
        id: &str,
        mut members: Members,
        caller: &Arc<Caller>,
        now: SystemTime,
    ) -> Result<Reply, Refused> {
        let name = members.optional("name", body::name)?.map(|name| self.free(name, caller)).transpose()?;
        let disabled = members.optional("disabled", body::boolean)?;
        let asked = self.asked(&mut members, now)?;
        members.end()?;
        let edit = move |record: &Record| Record {
            name: name.clone().unwrap_or_else(|| record.name.clone()),
            description: asked.description.clone().unwrap_or_else(|| record.description.clone()),
            scopes: asked.scopes.clone().unwrap_or_else(|| record.scopes.clone()),
            roles: asked.roles.clone().unwrap_or_else(|| record.roles.clone()),
            rates: asked.rates.clone().unwrap_or_else(|| record.rates.clone()),
            disabled: disabled.unwrap_or(record.disabled),
            expires_at: asked.expires.unwrap_or(record.expires_at),
            updated_at: seconds(now),
            ..record.clone()
        };
        let record = self.write(id, caller, edit).await?;
        tracing::info!(key = id, by = &*caller.name, "API key changed");
        Ok(Reply::json(StatusCode::OK, &view::record(&record, now)))
    }

    async fn rotate(
        &self,
        id: &str,
        mut members: Members,
        caller: &Arc<Caller>,
        now: SystemTime,
    ) -> Result<Reply, Refused> {
        let overlap = members.optional("overlap", |value| body::period(value, OVERLAP_MAX))?.unwrap_or(self.overlap);
        let expires = body::expires(&mut members, self.expires_max, now)?;
        members.end()?;
        let expires_at = expires.unwrap_or_else(|| self.ends(self.expires_default, now));
        let key = new_key(&self.prefix)?;
        let (visible, digest) = (key.visible.clone(), key.digest.to_string());
        let until = self.ends(overlap, now);
        let edit = move |record: &Record| Record {
            // Not beyond the end it had: rotating does not make the old key live longer.
            previous: Some(Previous {
                prefix: record.prefix.clone(),
                sha256: record.sha256.clone(),
                until: until.min(record.expires_at),
            }),
            prefix: visible.clone(),
            sha256: digest.clone(),
            expires_at,
            updated_at: seconds(now),
            ..record.clone()
        };
        let record = self.write(id, caller, edit).await?;
        tracing::info!(key = id, by = &*caller.name, "API key rotated");
        Ok(Reply::json(StatusCode::OK, &view::with_key(&record, &key.text, now)))
    }

    async fn revoke(&self, id: &str, caller: &Arc<Caller>) -> Result<Reply, Refused> {
        let (by, of, identity) = (Arc::clone(caller), id.to_owned(), Arc::clone(&self.identity));
        let revoked = to_the_end(async move {
            let store = identity.shared().store()?;
            let within_reach = |record: &Record| rights::reach(&by, record, identity.roles());
            let revoked = identity.shared().managed().revoke(store.as_ref(), &of, within_reach).await;
            identity.shared().tell_revoked();
            revoked
        });
        revoked.await.map_err(|error| failed(&error))??;
        tracing::info!(key = id, by = &*caller.name, "API key revoked");
        Ok(Reply::new(StatusCode::NO_CONTENT))
    }

    async fn usage(&self, id: &str) -> Result<Reply, Refused> {
        let shared = self.identity.shared();
        if shared.managed().get(id).is_none() {
            return Err(not_found());
        }
        let store = shared.store().map_err(|error| unavailable(&error))?;
        let usage = shared.managed().usage(store.as_ref(), id).await.map_err(|error| unavailable(&error))?;
        Ok(Reply::json(StatusCode::OK, &view::usage(id, &usage)))
    }

    /// Changes a record that the caller could have made, into one that the caller could make.
    async fn write(
        &self,
        id: &str,
        caller: &Arc<Caller>,
        edit: impl Fn(&Record) -> Record + Send + Sync + 'static,
    ) -> Result<Record, Refused> {
        let (by, of, identity) = (Arc::clone(caller), id.to_owned(), Arc::clone(&self.identity));
        let changed = to_the_end(async move {
            let store = identity.shared().store()?;
            let edit = |record: &Record| {
                rights::reach(&by, record, identity.roles())?;
                let edited = edit(record);
                rights::check(&by, &edited, identity.roles())?;
                Ok::<_, Refused>(edited)
            };
            let changed = identity.shared().managed().change(store.as_ref(), &of, edit).await;
            // It may be switched off, or end sooner.
            identity.shared().tell_revoked();
            changed
        });
        let key = changed.await.map_err(|error| failed(&error))??;
        Ok(key.record.clone())
    }

    /// What may be said when a key is made and when it is changed.
    fn asked(&self, members: &mut Members, now: SystemTime) -> Result<Asked, Refused> {
        let allowed = |scope: &str| self.scopes_allowed.as_ref().is_none_or(|allowed| allowed.allow(scope));
        let role_allowed = |role: &str| self.roles_allowed.iter().any(|allowed| allowed == role);
        Ok(Asked {
            description: members.optional("description", body::description)?,
            scopes: members.optional("scopes", |value| body::scopes(value, allowed))?,
            roles: members.optional("roles", |value| body::roles(value, role_allowed))?,
            rates: members.optional("rates", body::rates)?,
            expires: body::expires(members, self.expires_max, now)?,
        })
    }

    /// A name under which the caller may make a key: routes and services know callers by it, so that it is none of a consumer
    /// or user of the configuration, nor of a key that can do more than the caller.
    fn free(&self, name: String, caller: &Caller) -> Result<String, Refused> {
        if self.identity.has_name(&name) {
            return Err(invalid("name", &json!(name), "a name that no consumer and no user of the configuration has"));
        }
        let roles = self.identity.roles();
        let beyond = |record: &Record| record.name == name && rights::reach(caller, record, roles).is_err();
        if self.identity.shared().managed().any(beyond) {
            return Err(invalid("name", &json!(name), "a name that no key has that can do more than the caller"));
        }
        Ok(name)
    }

    fn ends(&self, after: Duration, now: SystemTime) -> u64 {
        seconds(now).saturating_add(after.as_secs())
    }
}

struct Asked {
    description: Option<String>,
    scopes: Option<Vec<String>>,
    roles: Option<Vec<String>>,
    /// `Some(None)`: none of its own any more.
    rates: Option<Option<StoredRates>>,
    expires: Option<u64>,
}

/// Runs a write to its end even when the client leaves meanwhile: index and store would differ.
async fn to_the_end<T: Send + 'static>(
    write: impl Future<Output = Result<T, WriteError>> + Send + 'static,
) -> Result<T, WriteError> {
    let ended = tokio::spawn(write).await;
    ended.unwrap_or_else(|error| Err(WriteError::Store(StoreError(format!("a write did not end: {error}")))))
}

fn new_key(prefix: &str) -> Result<NewKey, Refused> {
    NewKey::random(prefix).map_err(|_| internal())
}

/// Whether a key that ended is still shown as one that works.
fn is_over(expires_at: u64, now: SystemTime) -> bool {
    from_seconds(expires_at) <= now
}

#[cfg(test)]
mod tests;
