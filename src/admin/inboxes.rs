//! The inboxes: what they hold, and messages to be looked at, delivered again or removed.

mod change;
mod shown;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use self::change::Change;
pub use self::shown::{All, Changed, FieldShown, InboxShown, MessageShown, One, Page, Several};
use super::{Admin, refuse};
use crate::clock;
use crate::gateway::Gateway;
use crate::inbox::{LIST_MAX, Queue, Standing};
use crate::observe::metrics::InboxSample;
use crate::reply::{Code, Rejection};
use crate::types::Size;

/// Messages that are shown when nothing is said.
const LIMIT_DEFAULT: usize = 100;
/// Bytes of a body that are shown when nothing is said.
const BODY_BYTES_DEFAULT: u64 = 64 * 1024;
/// Most bytes of a body that are shown: JSON may double them.
const BODY_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most inboxes in one answer.
const INBOXES_MAX: usize = 1000;
/// Names in a refusal.
const NAMES_MAX: usize = 50;

/// The path of a request.
#[derive(Deserialize)]
pub struct Addressed {
    inbox: String,
    #[serde(default)]
    id: String,
}

/// Which messages of an inbox.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    standing: Option<Standing>,
    /// Those stored behind the one with this id.
    after: Option<String>,
    limit: Option<usize>,
}

/// How much of a message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedOne {
    body_max: Option<String>,
}

/// Nothing is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

type Answer = Result<Response, Box<Rejection>>;
type PathOr = Result<Path<Addressed>, PathRejection>;
type QueryOr<T> = Result<Query<T>, QueryRejection>;

/// `GET /inboxes`
pub async fn list(State(admin): State<Admin>) -> Response {
    finish(&admin, all(&admin).await)
}

/// `GET /inboxes/{inbox}`
pub async fn look(State(admin): State<Admin>, path: PathOr, asked: QueryOr<Asked>) -> Response {
    finish(&admin, page(&admin, path, asked).await)
}

/// `GET /inboxes/{inbox}/{id}`
pub async fn show(State(admin): State<Admin>, path: PathOr, asked: QueryOr<AskedOne>) -> Response {
    finish(&admin, one(&admin, path, asked).await)
}

/// `POST /inboxes/{inbox}/{id}/replay`
pub async fn replay(State(admin): State<Admin>, path: PathOr, asked: QueryOr<Nothing>) -> Response {
    change_one(admin, path, asked, Change::Replay).await
}

/// `DELETE /inboxes/{inbox}/{id}`
pub async fn discard(State(admin): State<Admin>, path: PathOr, asked: QueryOr<Nothing>) -> Response {
    change_one(admin, path, asked, Change::Discard).await
}

/// `POST /inboxes/{inbox}/replay?standing=…`
pub async fn replay_several(State(admin): State<Admin>, path: PathOr, asked: QueryOr<Asked>) -> Response {
    change_several(admin, path, asked, Change::Replay).await
}

/// `DELETE /inboxes/{inbox}?standing=…`
pub async fn discard_several(State(admin): State<Admin>, path: PathOr, asked: QueryOr<Asked>) -> Response {
    change_several(admin, path, asked, Change::Discard).await
}

async fn all(admin: &Admin) -> Answer {
    let (queue, gateway) = (queue(admin)?, admin.live.current());
    let names = names(&gateway, &**queue).await?;
    let samples = admin.metrics.inbox_samples();
    let mut inboxes = Vec::with_capacity(names.len().min(INBOXES_MAX));
    for name in names.iter().take(INBOXES_MAX) {
        inboxes.push(inbox_shown(&gateway, &**queue, &samples, name).await?);
    }
    Ok(axum::Json(All { inboxes, total: names.len() }).into_response())
}

async fn page(admin: &Admin, path: PathOr, asked: QueryOr<Asked>) -> Answer {
    let Path(Addressed { inbox, .. }) = path.map_err(unreadable)?;
    let Query(Asked { standing, after, limit }) = asked.map_err(unreadable)?;
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIST_MAX).contains(&limit) {
        return Err(invalid(format!("`limit` is 1 to {LIST_MAX}")));
    }
    let (queue, gateway) = (queue(admin)?, admin.live.current());
    known(&gateway, &**queue, &inbox).await?;
    let listed = queue.list(&inbox, standing, after.as_deref(), limit, clock::wall()).await;
    let entries = listed.map_err(away)?;
    let next = entries.last().filter(|_| entries.len() == limit).map(|entry| entry.message.id.clone());
    let messages = entries.iter().map(|entry| shown::message(entry, &gateway.hidden)).collect();
    let inbox = inbox_shown(&gateway, &**queue, &admin.metrics.inbox_samples(), &inbox).await?;
    Ok(axum::Json(Page { inbox, messages, next }).into_response())
}

async fn inbox_shown(
    gateway: &Gateway,
    queue: &dyn Queue,
    samples: &[InboxSample],
    name: &str,
) -> Result<InboxShown, Box<Rejection>> {
    let now = clock::wall();
    let counts = queue.counts(name, now).await.map_err(away)?;
    let paused = samples.iter().find(|sample| sample.inbox == name).map(|sample| sample.is_paused);
    Ok(InboxShown { paused, configured: is_configured(gateway, name), ..shown::inbox(name, &counts, now) })
}

async fn one(admin: &Admin, path: PathOr, asked: QueryOr<AskedOne>) -> Answer {
    let Path(Addressed { inbox, id }) = path.map_err(unreadable)?;
    let Query(AskedOne { body_max }) = asked.map_err(unreadable)?;
    let body_max = body_bytes(body_max.as_deref())?;
    let (queue, gateway) = (queue(admin)?, admin.live.current());
    let Some(entry) = queue.show(&inbox, &id, clock::wall()).await.map_err(away)? else {
        return Err(no_message(&gateway, &**queue, &inbox, &id).await);
    };
    Ok(axum::Json(shown::one(&entry, &gateway.hidden, body_max)).into_response())
}

/// `64KiB`, or a number of bytes.
fn body_bytes(written: Option<&str>) -> Result<usize, Box<Rejection>> {
    let Some(written) = written else { return Ok(usize::try_from(BODY_BYTES_DEFAULT).unwrap_or(usize::MAX)) };
    let bytes = written.parse::<u64>().ok().or_else(|| written.parse::<Size>().ok().map(|size| size.0));
    match bytes.filter(|bytes| *bytes <= BODY_BYTES_MAX) {
        Some(bytes) => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
        None => Err(invalid(format!("`body_max` is 0 to {}, such as 64KiB", Size(BODY_BYTES_MAX)))),
    }
}

async fn change_one(admin: Admin, path: PathOr, asked: QueryOr<Nothing>, change: Change) -> Response {
    let work = {
        let admin = admin.clone();
        async move {
            let Path(Addressed { inbox, id }) = path.map_err(unreadable)?;
            asked.map_err(unreadable)?;
            change::one(&admin, &inbox, &id, change).await
        }
    };
    unbroken(&admin, work).await
}

async fn change_several(admin: Admin, path: PathOr, asked: QueryOr<Asked>, change: Change) -> Response {
    let work = {
        let admin = admin.clone();
        async move {
            let Path(Addressed { inbox, .. }) = path.map_err(unreadable)?;
            let Query(Asked { standing, after, limit }) = asked.map_err(unreadable)?;
            let Some(standing) = standing.filter(|standing| change.takes(*standing)) else {
                return Err(invalid(format!("say which messages: ?standing={}", change.standings())));
            };
            if limit.is_some_and(|limit| !(1..=LIST_MAX).contains(&limit)) {
                return Err(invalid(format!("`limit` is 1 to {LIST_MAX}")));
            }
            let of = change::Of { inbox: &inbox, standing, after: after.as_deref(), limit: limit.unwrap_or(LIST_MAX) };
            change::several(&admin, of, change).await
        }
    };
    unbroken(&admin, work).await
}

/// In a task of its own: a client that hangs up does not part what is done from what is told of it.
async fn unbroken(admin: &Admin, work: impl Future<Output = Answer> + Send + 'static) -> Response {
    let broken = |_| Err(Box::new(Rejection::new(Code::INTERNAL, "the work broke off")));
    finish(admin, tokio::spawn(work).await.unwrap_or_else(broken))
}

fn finish(admin: &Admin, answer: Answer) -> Response {
    answer.unwrap_or_else(|rejection| refuse(admin, *rejection))
}

fn queue(admin: &Admin) -> Result<&Arc<dyn Queue>, Box<Rejection>> {
    admin.inboxes.queue().ok_or_else(|| {
        let message = "no messages are kept: `state` is memory, and inboxes need a file or Redis";
        Box::new(Rejection::new(Code::STATE_UNAVAILABLE, message))
    })
}

fn is_configured(gateway: &Gateway, name: &str) -> bool {
    gateway.inboxes().iter().any(|inbox| *inbox.name == *name)
}

/// The inboxes of the configuration, and those that hold something.
async fn names(gateway: &Gateway, queue: &dyn Queue) -> Result<BTreeSet<String>, Box<Rejection>> {
    let stored = queue.inboxes().await.map_err(away)?;
    let configured = gateway.inboxes().iter().map(|inbox| inbox.name.to_string());
    Ok(configured.chain(stored).collect())
}

/// # Errors
/// There is no such inbox.
async fn known(gateway: &Gateway, queue: &dyn Queue, inbox: &str) -> Result<(), Box<Rejection>> {
    if is_configured(gateway, inbox) {
        return Ok(());
    }
    let names = names(gateway, queue).await?;
    if names.contains(inbox) { Ok(()) } else { Err(no_inbox(&names)) }
}

fn no_inbox(names: &BTreeSet<String>) -> Box<Rejection> {
    let some: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
    let message = if some.is_empty() {
        "there is no inbox".to_owned()
    } else {
        let more = if names.len() > some.len() { ", and more: see /inboxes" } else { "" };
        format!("no inbox has this name; there are {}{more}", some.join(", "))
    };
    Box::new(Rejection::new(Code::NOT_FOUND, message).with_detail("inboxes", some))
}

/// Why a message is not there.
async fn no_message(gateway: &Gateway, queue: &dyn Queue, inbox: &str, id: &str) -> Box<Rejection> {
    if let Err(rejection) = known(gateway, queue, inbox).await {
        return rejection;
    }
    let message = "this inbox has no such message: it was delivered or removed, or never there";
    Box::new(Rejection::new(Code::NOT_FOUND, message).with_detail("message", json!({ "inbox": inbox, "id": id })))
}

fn away(error: impl std::fmt::Display) -> Box<Rejection> {
    tracing::error!(%error, "an inbox could not be looked at, or changed, for an operator");
    Box::new(Rejection::new(Code::STATE_UNAVAILABLE, "the state store does not answer; the log says why"))
}

fn unreadable(rejection: impl std::fmt::Display) -> Box<Rejection> {
    invalid(format!("this cannot be read: {rejection}"))
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Box<Rejection> {
    Box::new(Rejection::new(Code::VALIDATION_ERROR, message))
}
