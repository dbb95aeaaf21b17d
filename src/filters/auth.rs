//! `auth`: finds out who calls, by API key, token or client certificate, and refuses who cannot show that.
//!
//! Place it before everything that depends on the caller: its neighbour `require`, limits for each consumer, templates with
//! `{consumer}`. Which keys and tokens there are is said by `consumers` and `issuers`; what a caller may do is asked by `require`.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `accept` | kinds of credentials: `api_key`, `jwt`, `mtls` | required |
//! | `optional` | a request without a credential goes on as nobody's; one with a wrong credential is still refused | `false` |
//! | `issuers` | whose tokens are accepted | all `issuers` |
//! | `api_key.header` | the field of a key | `X-API-Key` |
//! | `api_key.bearer` | a key may stand behind `Authorization: Bearer` | `true` |
//! | `api_key.query` | the query parameter of a key; avoid it: addresses end up in histories | none |
//! | `jwt.bearer` | a token may stand behind `Authorization: Bearer` | `true` |
//! | `jwt.cookie` | the cookie of a token | none |
//! | `jwt.query` | the query parameter of a token: for WebSockets of browsers, which can set no field | none |
//! | `forward` | fields that tell the service who calls: `name`, `roles` (`a,b`), `scopes` (`a b`), `level`, `credential` (the id of the key, token or certificate), `claims` (each claim with its field) | nothing is told |
//! | `keep_credentials` | the service is sent the credential too | `false` |
//! | `close_on` | what ends a WebSocket that is open (close code 1008): `token_expiry`, `key_revoked`, which is also a key taken out of the configuration, and of a token the key that signed it | nothing |
//! | `websocket_refusal` | how a WebSocket is refused, here and by `require` behind it: `status`, or `close`, which accepts and closes it with the code 1008 and the message, so that a script in a browser learns why | `status` |
//! | `realm` | named in `WWW-Authenticate` | `tollgate` |
//!
//! **One reading only.** A credential may stand in several places, but once in each; two different ones in a request are refused, and
//! so is one that is wrong, whatever else is right. Two `Authorization` fields, a list in one, a tab after `Bearer`, a cookie or
//! parameter that stands twice, an empty value: all refused. The scheme is read in any case (`bearer`, `BEARER`); names of cookies and
//! parameters exactly; parameters are percent-decoded, and a broken escape is refused. `Authorization` with another scheme (`Basic`)
//! is the service's business: not looked at, and passed on. Where a key and a token may both stand behind `Bearer`, two dots
//! make it a token. A key has at most 1024 bytes and is any text in its own field, but only letters, digits and `-._~+/=`
//! behind `Bearer`; a token has at most 8192.
//!
//! A client certificate is that of the connection, verified by its listener (`client_ca`), and counts when the request
//! brings no other credential; one that belongs to no consumer is refused.
//!
//! **Nothing is forged.** Credentials are taken out before the request goes on, from the query too; other cookies and
//! parameters stay as they are. What clients send under a name of `forward` is removed, on every route of the gateway and in every
//! spelling (`X_Consumer`). A role, scope or claim the caller does not have is a field that is absent; a claim that is no string is sent
//! as JSON. A parameter of a chosen name is `[redacted]` in the access log.
//!
//! **Refusals** are 401 `UNAUTHORIZED` with a challenge: `Bearer` where tokens or bearers are accepted, with `error="invalid_token"` when one was
//! sent; beside it `ApiKey realm="…", header="X-API-Key"` where keys are (no registered scheme, but one that says what is missing).
//! They do not say whether a key exists: the reason stands in the audit log and in `tollgate_auth_total` alone. A credential that
//! cannot be verified because the keys of its issuer never came, or the state store was never read, is 503 `IDENTITY_UNAVAILABLE`: the
//! client may be right and is not told to throw it away. A preflight that a `cors` filter of the route answers needs no credential; an upgrade to a WebSocket does.
//!
//! Refused when the configuration is read: settings of a kind that is not accepted, an unknown issuer, tokens without any issuer, one
//! field for two facts, or one that clients or the gateway itself need (`Authorization`, `X-Forwarded-For`), two `auth` in one chain.
//!
//! Source: [RFC 9110 §11](https://www.rfc-editor.org/rfc/rfc9110#section-11),
//! [RFC 6750](https://www.rfc-editor.org/rfc/rfc6750), [RFC 6265 §5.4](https://www.rfc-editor.org/rfc/rfc6265#section-5.4).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! consumers:
//!   - name: dashboard
//!     scopes: [read:tasks]
//!     keys:
//!       # The SHA-256 of `an-example-and-no-secret`.
//!       - { id: dashboard-2026, sha256: ed2c955ec1590d74413fd5232da4b044e2c55d30f7c20ef4bf5293f96410ebfd }
//! routes:
//!   - name: tasks
//!     match: GET /tasks
//!     filters:
//!       - auth: { accept: [api_key], forward: { name: X-Consumer, scopes: X-Scopes } }
//!     respond: { json: { hello: "{consumer}" } }
//!   - name: news
//!     match: GET /news
//!     filters:
//!       - auth: { accept: [api_key], optional: true }
//!     respond: { body: "news" }
//! tests:
//!   - request: GET /tasks
//!     headers: { X-API-Key: an-example-and-no-secret }
//!     expect: { status: 200 }
//!   - request: GET /tasks
//!     expect: { status: 401, code: UNAUTHORIZED }
//!   - request: GET /tasks
//!     headers: { X-API-Key: guessed }
//!     expect: { status: 401, code: UNAUTHORIZED }
//!   - { request: GET /news, expect: { status: 200 } }
//!   - request: GET /news
//!     headers: { Authorization: Bearer guessed }
//!     expect:
//!       status: 401
//!       headers:
//!         WWW-Authenticate: 'Bearer realm="tollgate", error="invalid_token", ApiKey realm="tollgate", header="X-API-Key"'
//! ```

mod challenges;
mod forward;
mod settings;

use std::sync::Arc;

use self::challenges::Challenges;
use self::forward::Forward;
pub use self::settings::AuthSettings;
use crate::caller::Caller;
use crate::clock;
use crate::context::{CloseOn, Context, Decision};
use crate::contract::{Filter, Hooks, Verdict};
use crate::head::RequestHead;
use crate::identity::presented::{Kind, Malformed, Places, Presented};
use crate::identity::{Identity, Issuer, Reason};
use crate::reply::{Code, Rejection};

struct Auth {
    identity: Arc<Identity>,
    places: Places,
    issuers: Box<[Arc<Issuer>]>,
    /// Client certificates are accepted.
    certificates: bool,
    optional: bool,
    keeps_credentials: bool,
    close_on: CloseOn,
    closes_refused_sockets: bool,
    forward: Forward,
    challenges: Challenges,
}

/// Why a request is not let through.
struct Refusal {
    reason: Reason,
    kind: &'static str,
    by_bearer: bool,
}

/// The kind when no credential was sent.
const NONE: &str = "none";

impl Filter for Auth {
    fn hooks(&self) -> Hooks {
        Hooks::REQUEST
    }

    fn on_request(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        if context.preflight {
            // A filter behind this one answers it: no handler ever sees it.
            return Verdict::Continue;
        }
        context.closes_refused_sockets = self.closes_refused_sockets;
        match self.admit(request, context) {
            Ok(()) => Verdict::Continue,
            Err(refusal) => {
                decide(context, false, refusal.kind, refusal.reason.as_str());
                Verdict::refuse(self.rejection(&refusal), request, context)
            }
        }
    }
}

impl Auth {
    fn admit(&self, request: &mut dyn RequestHead, context: &mut Context) -> Result<(), Refusal> {
        let caller = match (self.places.find(request)?, &context.certificate) {
            (Some(presented), _) => self.verify(&presented).map_err(|reason| Refusal::of(&presented, reason))?,
            // A connection may carry the requests of many, as that of a proxy does: what a request brings itself counts first.
            (None, Some(certificate)) if self.certificates => {
                let found = self.identity.certificate(certificate, clock::wall());
                found.map_err(|reason| Refusal { reason, kind: "mtls", by_bearer: false })?
            }
            (None, _) => return self.admit_nobody(request, context),
        };
        let kind = caller.credential.kind();
        if !self.keeps_credentials && !self.places.remove(request) {
            return Err(Refusal { reason: Reason::Malformed, kind, by_bearer: false });
        }
        if !self.forward.tell(&caller, request) {
            return Err(Refusal { reason: Reason::Claims, kind, by_bearer: false });
        }
        decide(context, true, kind, "ok");
        context.close_on = self.close_on;
        context.caller = Some(caller);
        Ok(())
    }

    fn admit_nobody(&self, request: &mut dyn RequestHead, context: &mut Context) -> Result<(), Refusal> {
        if !self.optional {
            return Err(Refusal { reason: Reason::Missing, kind: NONE, by_bearer: false });
        }
        self.forward.clear(request);
        decide(context, true, NONE, "anonymous");
        context.challenges = Some(Arc::clone(&self.challenges.plain));
        Ok(())
    }

    fn verify(&self, presented: &Presented<'_>) -> Result<Arc<Caller>, Reason> {
        match presented.kind {
            Kind::ApiKey => self.identity.api_key(&presented.value, clock::wall()),
            Kind::Jwt => {
                let token = std::str::from_utf8(&presented.value).map_err(|_| Reason::Malformed)?;
                self.identity.token(&self.issuers, token, clock::wall())
            }
        }
    }

    fn rejection(&self, refusal: &Refusal) -> Rejection {
        let is_token = refusal.kind == Kind::Jwt.as_str();
        if refusal.reason == Reason::KeysUnavailable {
            let rejection =
                Rejection::new(Code::IDENTITY_UNAVAILABLE, "the credential cannot be verified at the moment");
            return rejection.with_field(http::header::RETRY_AFTER, challenges::RETRY_AFTER);
        }
        let message = match refusal.reason {
            Reason::Expired if is_token => "Token expired",
            _ if is_token => "Invalid token",
            _ => "a valid credential is needed",
        };
        let challenge = match refusal.reason {
            Reason::Expired if is_token => &self.challenges.expired,
            _ if is_token || refusal.by_bearer => &self.challenges.invalid,
            _ => &self.challenges.plain,
        };
        let rejection = Rejection::new(Code::UNAUTHORIZED, message);
        challenge
            .iter()
            .fold(rejection, |rejection, value| rejection.with_field(http::header::WWW_AUTHENTICATE, value.clone()))
    }
}

impl Refusal {
    fn of(presented: &Presented<'_>, reason: Reason) -> Self {
        Self { reason, kind: presented.kind.as_str(), by_bearer: presented.by_bearer }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self { reason: Reason::Malformed, kind: malformed.kind.as_str(), by_bearer: malformed.by_bearer }
    }
}

fn decide(context: &mut Context, allowed: bool, kind: &'static str, reason: &'static str) {
    context.decisions.push(Decision { by: "auth", allowed, kind, reason });
}

#[cfg(test)]
mod tests;
