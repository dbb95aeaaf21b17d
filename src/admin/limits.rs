//! The limits of the snapshot in use: all of them, who has used the most of one, and the bucket of one caller, to be shown
//! and filled again.

mod figures;
mod listed;
mod shown;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Deserialize;
use tracing::info;

use self::figures::Reader;
use self::listed::{Listed, all};
pub use self::shown::{All, Figures, LimitShown, One, RateShown, Reset, Top, Use};
use super::{Admin, refuse};
use crate::buckets::short;
use crate::clock;
use crate::head::HeaderValue;
use crate::reply::{Code, Rejection};

/// Callers that are shown when nothing is said.
const TOP_DEFAULT: usize = 20;
/// Most callers that are shown.
const TOP_MAX: usize = 1000;
/// Names in a refusal.
const NAMES_MAX: usize = 50;

/// The path of a request.
#[derive(Deserialize)]
pub struct Addressed {
    bucket: String,
    #[serde(default)]
    who: Option<String>,
}

/// The query of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The filter: `rate_limit`, `quota`, `concurrency`.
    kind: Option<String>,
    /// Whose bucket.
    who: Option<String>,
    /// How many callers.
    top: Option<usize>,
}

type Answer = Result<Response, Box<Rejection>>;
type PathOr = Result<Path<Addressed>, PathRejection>;
type AskedOr = Result<Query<Asked>, QueryRejection>;

/// `GET /limits`
pub async fn list(State(admin): State<Admin>) -> Response {
    let gateway = admin.live.current();
    axum::Json(shown::all(&all(&gateway), &gateway, &admin.limits)).into_response()
}

/// `GET /limits/{bucket}`, `GET /limits/{bucket}/{who}`
pub async fn look(State(admin): State<Admin>, path: PathOr, asked: AskedOr) -> Response {
    let answer = async {
        let (bucket, asked) = addressed(path, asked)?;
        match &asked.who {
            Some(who) => show(&admin, &bucket, who, &asked).await,
            None => top(&admin, &bucket, &asked).await,
        }
    };
    answer.await.unwrap_or_else(|rejection| refuse(&admin, *rejection))
}

/// `DELETE /limits/{bucket}?who=…`, `DELETE /limits/{bucket}/{who}`
pub async fn reset(State(admin): State<Admin>, path: PathOr, asked: AskedOr) -> Response {
    let answer = async {
        let (bucket, asked) = addressed(path, asked)?;
        let Some(who) = &asked.who else {
            return Err(invalid("say whose bucket it is: /limits/{bucket}/{who}, or ?who="));
        };
        reset_one(&admin, &bucket, who, &asked).await
    };
    answer.await.unwrap_or_else(|rejection| refuse(&admin, *rejection))
}

/// The bucket, and what is asked about it. Who stands in the path counts before who stands in the query.
fn addressed(path: PathOr, asked: AskedOr) -> Result<(String, Asked), Box<Rejection>> {
    let Path(Addressed { bucket, who }) = path.map_err(unreadable)?;
    let Query(asked) = asked.map_err(unreadable)?;
    let who = who.or(asked.who);
    Ok((bucket, Asked { who, ..asked }))
}

async fn top(admin: &Admin, bucket: &str, asked: &Asked) -> Answer {
    let most = asked.top.unwrap_or(TOP_DEFAULT);
    if !(1..=TOP_MAX).contains(&most) {
        return Err(invalid(format!("`top` is 1 to {TOP_MAX}")));
    }
    let gateway = admin.live.current();
    let limits = all(&gateway);
    let found = find(&limits, bucket, asked)?;
    let top = Reader::new(&admin.limits, found.limit).top(most).await?;
    let limit = shown::limit(found, &gateway, &admin.limits);
    Ok(axum::Json(Top { limit, top }).into_response())
}

async fn show(admin: &Admin, bucket: &str, who: &str, asked: &Asked) -> Answer {
    let gateway = admin.live.current();
    let limits = all(&gateway);
    let found = find(&limits, bucket, asked)?;
    let figures = Reader::new(&admin.limits, found.limit).show(who).await?;
    let (bucket, kind) = (bucket.to_owned(), found.kind.to_owned());
    Ok(axum::Json(One { bucket, kind, who: short(who).into_owned(), figures }).into_response())
}

async fn reset_one(admin: &Admin, bucket: &str, who: &str, asked: &Asked) -> Answer {
    let gateway = admin.live.current();
    let limits = all(&gateway);
    let found = find(&limits, bucket, asked)?;
    let was_in_use = Reader::new(&admin.limits, found.limit).reset(who).await?;
    let (bucket, kind, who) = (bucket.to_owned(), found.kind.to_owned(), short(who).into_owned());
    // Whoever asks chooses what is written: quoted, so that it cannot look like another line.
    info!(?bucket, kind, ?who, was_in_use, "a limit was reset");
    Ok(axum::Json(Reset { bucket, kind, who, was_in_use }).into_response())
}

/// The limit that is asked for.
fn find<'a, 'b>(limits: &'b [Listed<'a>], bucket: &str, asked: &Asked) -> Result<&'b Listed<'a>, Box<Rejection>> {
    let is_wanted = |limit: &&Listed<'_>| asked.kind.as_ref().is_none_or(|kind| limit.kind == kind);
    let mut found = limits.iter().filter(|limit| *limit.limit.bucket == *bucket).filter(is_wanted);
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => {
            let message =
                format!("this is the bucket of a {} and of a {}: add ?kind={}", first.kind, second.kind, first.kind);
            Err(invalid(message))
        }
        (Some(found), None) => Ok(found),
        (None, _) => Err(Box::new(no_such_bucket(limits))),
    }
}

fn no_such_bucket(limits: &[Listed<'_>]) -> Rejection {
    let mut names: Vec<&str> = limits.iter().map(|limit| &*limit.limit.bucket).collect();
    names.sort_unstable();
    names.dedup();
    let some = names.get(..NAMES_MAX).unwrap_or(&names);
    let message = if names.is_empty() {
        "no route has a limit".to_owned()
    } else {
        let more = if names.len() > some.len() { ", and more: see /limits" } else { "" };
        format!("no limit has this bucket; there are {}{more}", some.join(", "))
    };
    Rejection::new(Code::NOT_FOUND, message).with_detail("buckets", some)
}

fn unreadable(rejection: impl std::fmt::Display) -> Box<Rejection> {
    invalid(format!("this cannot be read: {rejection}"))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Box<Rejection> {
    Box::new(Rejection::new(Code::VALIDATION_ERROR, message))
}

/// What is under way can only end by itself.
fn not_to_be_reset() -> Box<Rejection> {
    let rejection = Rejection::new(Code::METHOD_NOT_ALLOWED, "requests in flight cannot be reset: they end");
    Box::new(rejection.with_field(header::ALLOW, HeaderValue::from_static("GET, HEAD")))
}

/// A time of day that is so far away.
fn in_time(duration: std::time::Duration) -> Option<String> {
    clock::wall().checked_add(duration).map(clock::rfc3339)
}
