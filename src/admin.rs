//! The admin address: is it alive, is it ready, what does it run, how is it doing, reload.
//!
//! | request | answer |
//! |---|---|
//! | `GET /health` | 200 for as long as the process lives |
//! | `GET /ready` | 200; 503 with the reason while the gateway drains |
//! | `GET /status` | what runs, as JSON: [`live::Status`](Status), routes, upstreams, issuers of tokens, inboxes |
//! | `GET /metrics` | counters, in the Prometheus text format |
//! | `POST /reload` | 200 with the [`Outcome`] as JSON; 422 when a file on disk is not in use |
//! | `GET /limits` | the limits of all routes: buckets, terms, routes, places |
//! | `GET /limits/{bucket}?top=20` | who has used the largest share of one: up to 1000 callers |
//! | `GET /limits/{bucket}/{who}` | how it stands with one caller; `who` percent-encoded, or as `?who=` |
//! | `DELETE /limits/{bucket}/{who}` | gives this caller back what it has used, and says so in the log |
//! | `GET /inboxes` | what inboxes hold: messages by standing, bytes, age of the oldest |
//! | `GET /inboxes/{inbox}?standing=dead&after=ID&limit=100` | its messages, without fields and bodies |
//! | `GET /inboxes/{inbox}/{id}?body_max=64KiB` | one message whole; credentials in its fields and query are not shown |
//! | `POST /inboxes/{inbox}/{id}/replay` | delivers it again |
//! | `DELETE /inboxes/{inbox}/{id}` | removes it |
//! | `POST /inboxes/{inbox}/replay?standing=dead&after=ID`, `DELETE /inboxes/{inbox}?standing=dead&after=ID` | the same with many: up to 1000 at a time, and says where to go on |
//! | `POST /registry/services` | with a token of `registry`: an instance of a service registers itself, or says that it is still there |
//! | `DELETE /registry/services/{name}/{id}`, `GET /registry/services` | the same: it leaves; those that are there |
//!
//! A limit that is not there is 404, with the names there are. Where filters of two kinds have one bucket name, `?kind=` says
//! which: `rate_limit`, `quota` or `concurrency`. When the state store does not answer, its limits are 503. So are inboxes, also
//! where the configuration keeps no messages. An inbox or message that is not there is 404, one that a worker has 409.
//!
//! But for the registry there is no login: who can connect can ask. What a web page in an operator's browser could do is refused: all but `GET`
//! with an `Origin`, and a `Host` that a stranger could have pointed here (DNS rebinding). Accepted are addresses, names without a dot
//! and names below `localhost`, `local`, `internal` and `svc`, which are nobody's to register.
//!
//! At most 64 connections at a time, each for at most 30 seconds.

mod bounded;
pub mod inboxes;
pub mod limits;
mod registry;
mod upstreams;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::header;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;

use crate::clock;
use crate::context::RequestId;
use crate::gateway::Gateway;
use crate::handlers::Action;
use crate::head::{HeaderValue, Method, StatusCode};
use crate::inbox::Inboxes;
use crate::limits::Limits;
use crate::live::{Cause, Effect, Live, Outcome, Status};
use crate::observe::metrics::{CONTENT_TYPE, InboxSample, Metrics};
use crate::reply::{Code, Rejection, Reply};

use upstreams::{UpstreamShown, upstreams};

use bounded::Bounded;

/// What the admin address speaks for.
#[derive(Clone)]
pub struct Admin {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    limits: Arc<Limits>,
    inboxes: Arc<Inboxes>,
    draining: Arc<AtomicBool>,
    started: Instant,
    connections: Arc<dyn Fn() -> usize + Send + Sync>,
}

impl Admin {
    /// `connections` tells how many client connections are open now.
    pub fn new(
        live: Arc<Live>,
        metrics: Arc<Metrics>,
        limits: Arc<Limits>,
        inboxes: Arc<Inboxes>,
        draining: Arc<AtomicBool>,
        connections: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Self {
        Self { live, metrics, limits, inboxes, draining, started: clock::now(), connections: Arc::new(connections) }
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// Serves until `shutdown` is done and the last answer is sent.
///
/// # Errors
/// Those of the listener that cannot be waited out.
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(Bounded::new(listener), router(admin)).with_graceful_shutdown(shutdown).await
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/reload", post(reload))
        .route("/limits", get(limits::list))
        .route("/limits/{bucket}", get(limits::look).delete(limits::reset))
        .route("/limits/{bucket}/{*who}", get(limits::look).delete(limits::reset))
        .route("/registry/services", get(registry::list).post(registry::register))
        .route("/registry/services/{name}/{id}", delete(registry::deregister))
        .route("/inboxes", get(inboxes::list))
        .route("/inboxes/{inbox}", get(inboxes::look).delete(inboxes::discard_several))
        .route("/inboxes/{inbox}/replay", post(inboxes::replay_several))
        .route("/inboxes/{inbox}/{id}", get(inboxes::show).delete(inboxes::discard))
        .route("/inboxes/{inbox}/{id}/replay", post(inboxes::replay))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(admin.clone(), guard))
        .with_state(admin)
}

/// Refuses what a web page could send through a browser.
async fn guard(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if !safe && request.headers().contains_key(header::ORIGIN) {
        return refuse(&admin, Rejection::new(Code::FORBIDDEN, "a web page may not ask for this"));
    }
    let host = match request.uri().host() {
        Some(host) => Some(host),
        None => request.headers().get(header::HOST).and_then(|host| host.to_str().ok()),
    };
    if !host.is_some_and(is_ours) {
        let message = "this `Host` could be anybody's; use the address, or a name below `localhost`, `local`, `internal` or `svc`";
        return refuse(&admin, Rejection::new(Code::FORBIDDEN, message));
    }
    next.run(request).await
}

/// Whether nobody else can have made this name lead here.
fn is_ours(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => return address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    if name.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return false;
    }
    match name.rsplit_once('.') {
        Some((_, top)) => ["localhost", "local", "internal", "svc"].contains(&top),
        None => !name.is_empty(),
    }
}

async fn health() -> Response {
    axum::Json(json!({ "status": "ok" })).into_response()
}

async fn ready(State(admin): State<Admin>) -> Response {
    if admin.is_draining() {
        let reason = "the gateway is draining: it takes no new requests";
        return (StatusCode::SERVICE_UNAVAILABLE, axum::Json(json!({ "ready": false, "reason": reason })))
            .into_response();
    }
    axum::Json(json!({ "ready": true })).into_response()
}

async fn status(State(admin): State<Admin>) -> Response {
    let current = admin.live.current();
    let shown = Shown {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: clock::now().saturating_duration_since(admin.started).as_secs(),
        draining: admin.is_draining(),
        connections: (admin.connections)(),
        config: admin.live.status(),
        routes: routes(&current),
        upstreams: upstreams(&current),
        issuers: issuers(&current),
        inboxes: inboxes(admin.metrics.inbox_samples()),
    };
    axum::Json(shown).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], admin.metrics.render()).into_response()
}

async fn reload(State(admin): State<Admin>) -> Response {
    // A task of its own: a client that hangs up does not break it off.
    let live = Arc::clone(&admin.live);
    match tokio::spawn(async move { live.reload(Cause::Api).await }).await {
        Ok(outcome) => (status_of(&outcome), axum::Json(outcome)).into_response(),
        Err(_) => refuse(&admin, Rejection::new(Code::INTERNAL, "the reload broke off")),
    }
}

fn status_of(outcome: &Outcome) -> StatusCode {
    match outcome.effect {
        Effect::Applied | Effect::Unchanged => StatusCode::OK,
        Effect::Partly | Effect::Refused => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

async fn unknown(State(admin): State<Admin>) -> Response {
    let message = "there are /health, /ready, /status, /metrics, /limits, /inboxes, /registry/services and /reload";
    refuse(&admin, Rejection::new(Code::NOT_FOUND, message))
}

async fn wrong_method(State(admin): State<Admin>) -> Response {
    refuse(&admin, Rejection::new(Code::METHOD_NOT_ALLOWED, "see `Allow`"))
}

fn refuse(admin: &Admin, rejection: Rejection) -> Response {
    let style = admin.live.current().settings.errors;
    let request_id = RequestId::from_bits(fastrand::u128(..));
    let Reply { status, fields, body, .. } = rejection.into_reply(style, &request_id, &clock::rfc3339(clock::wall()));
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().extend(fields);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `/status`
#[derive(Serialize)]
struct Shown {
    version: &'static str,
    uptime_seconds: u64,
    draining: bool,
    connections: usize,
    config: Status,
    routes: Vec<RouteShown>,
    upstreams: Vec<UpstreamShown>,
    issuers: Vec<IssuerShown>,
    inboxes: Vec<InboxStatus>,
}

#[derive(Serialize)]
struct RouteShown {
    name: String,
    /// `file:line:column`
    place: String,
    /// Which upstream it forwards to; none when a handler answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
}

#[derive(Serialize)]
struct IssuerShown {
    name: String,
    /// Where its keys are fetched from, if they are; without the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks: Option<String>,
    /// How many of the fetched keys are in use; none until they were fetched once.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<usize>,
    /// When they were last found to be the provider's.
    #[serde(skip_serializing_if = "Option::is_none")]
    fetched_at: Option<String>,
    /// Why the last fetch failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// An inbox as it was seen last: no answer of this page waits for the store.
#[derive(Serialize)]
struct InboxStatus {
    name: String,
    /// How many messages, by where they are on their way.
    messages: BTreeMap<&'static str, u64>,
    bytes: u64,
    paused: bool,
}

fn routes(gateway: &Gateway) -> Vec<RouteShown> {
    let shown = gateway.routes().iter().map(|route| RouteShown {
        name: route.name.to_string(),
        place: gateway.sources.locate(route.place),
        upstream: match &route.action {
            Action::Forward(upstream) => Some(upstream.name.to_string()),
            Action::Split(split) => {
                let names: Vec<&str> = split.parts().iter().map(|part| &*part.upstream.name).collect();
                Some(names.join(", "))
            }
            Action::Answer(_) | Action::Await(_) => None,
        },
    });
    shown.collect()
}

fn issuers(gateway: &Gateway) -> Vec<IssuerShown> {
    let shown = gateway.identity.issuers().map(|issuer| {
        let status = issuer.source().map(|source| source.status());
        IssuerShown {
            name: issuer.name.to_string(),
            keys: status.as_ref().and_then(|status| status.keys),
            fetched_at: status.as_ref().and_then(|status| status.loaded).map(clock::rfc3339),
            error: status.as_ref().and_then(|status| status.error.clone()),
            jwks: status.map(|status| status.url),
        }
    });
    shown.collect()
}

fn inboxes(samples: Vec<InboxSample>) -> Vec<InboxStatus> {
    let shown = samples.into_iter().map(|sample| InboxStatus {
        name: sample.inbox,
        messages: sample.messages.into_iter().collect(),
        bytes: sample.bytes,
        paused: sample.is_paused,
    });
    shown.collect()
}

#[cfg(test)]
mod tests;
