//! What a request is about, and the ids of keys.

use std::time::SystemTime;

use super::Refused;
use super::refusals::{internal, not_found};
use crate::context::Context;
use crate::head::RequestHead;
use crate::identity::random_text;

/// What a request is about.
pub enum Subject<'a> {
    All,
    One(&'a str),
    Usage(&'a str),
    Rotation(&'a str),
}

/// What the path names: the routes of an operator's choice have `{id}` in them, and the word behind it.
pub fn subject<'a>(request: &'a dyn RequestHead, context: &'a Context) -> Result<Subject<'a>, Refused> {
    let Some(id) = context.captures.get("id") else { return Ok(Subject::All) };
    if !is_id(id) {
        return Err(not_found());
    }
    match request.path().trim_end_matches('/').rsplit('/').next() {
        Some("usage") => Ok(Subject::Usage(id)),
        Some("rotate") => Ok(Subject::Rotation(id)),
        Some(last) if last == id => Ok(Subject::One(id)),
        _ => Err(not_found()),
    }
}

/// `key_`, eleven digits of the time in milliseconds, ten random characters: in the order of the store, ids are in the
/// order they were made.
pub fn new_id(now: SystemTime) -> Result<String, Refused> {
    let millis = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Ok(format!("key_{millis:011x}{}", random_text(10).map_err(|_| internal())?))
}

pub fn is_id(text: &str) -> bool {
    let rest = text.strip_prefix("key_").unwrap_or_default();
    !rest.is_empty() && rest.len() <= 40 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
