//! What the answers hold.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::inbox::{Counts, Entry, Standing};
use crate::observe::access::{Hidden, REDACTED, redact_query};
use crate::types::names_credential;

/// `/inboxes`
#[derive(Debug, Serialize, Deserialize)]
pub struct All {
    pub inboxes: Vec<InboxShown>,
    /// How many there are: a long list is cut.
    pub total: usize,
}

/// An inbox, and how many messages it holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct InboxShown {
    pub inbox: String,
    pub ready: u64,
    pub delayed: u64,
    pub claimed: u64,
    pub dead: u64,
    /// Of all of them.
    pub bytes: u64,
    /// How long ago the oldest came that is not dead.
    pub oldest_seconds: Option<u64>,
    /// Whether nothing is delivered because its upstream is away; absent while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// `false`: the configuration has it no more, and nothing is delivered.
    pub configured: bool,
}

/// `/inboxes/{inbox}`
#[derive(Debug, Serialize, Deserialize)]
pub struct Page {
    pub inbox: InboxShown,
    pub messages: Vec<MessageShown>,
    /// What to give as `after` for the next page, if there may be one.
    pub next: Option<String>,
}

/// A message, without fields and body.
#[derive(Debug, Serialize, Deserialize)]
pub struct MessageShown {
    pub id: String,
    /// Its `Idempotency-Key`.
    pub delivery: String,
    pub standing: Standing,
    /// How often a worker had it.
    pub attempts: u32,
    /// When it can be claimed; of a claimed one, when the claim runs out.
    pub due: Option<String>,
    /// What went wrong the last time.
    pub why: Option<String>,
    pub received: String,
    pub request_id: String,
    pub route: String,
    pub provider: Option<String>,
    pub method: String,
    /// Path and query, without credentials.
    pub target: String,
    /// Its order key.
    pub order: Option<String>,
}

/// `/inboxes/{inbox}/{id}`
#[derive(Debug, Serialize, Deserialize)]
pub struct One {
    #[serde(flatten)]
    pub message: MessageShown,
    /// Of head and body.
    pub bytes: u64,
    pub fields: Vec<FieldShown>,
    /// Text, or base64.
    pub body: String,
    /// `text` or `base64`.
    pub body_encoding: String,
    /// Of all of it.
    pub body_bytes: usize,
    /// There is more than is shown.
    pub body_cut: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct FieldShown {
    pub name: String,
    pub value: String,
}

/// What became of one message.
#[derive(Debug, Serialize, Deserialize)]
pub struct Changed {
    pub inbox: String,
    pub id: String,
    /// `replayed` or `discarded`.
    pub result: String,
}

/// What became of many messages.
#[derive(Debug, Serialize, Deserialize)]
pub struct Several {
    pub inbox: String,
    /// `replayed` or `discarded`.
    pub result: String,
    /// How many.
    pub count: usize,
    /// How many were not: their standing changed meanwhile.
    pub left: usize,
    /// What to give as `after` to go on, if there may be more.
    pub next: Option<String>,
}

/// Where nothing but the counts is known.
pub fn inbox(name: &str, counts: &Counts, now: SystemTime) -> InboxShown {
    let Counts { ready, delayed, claimed, dead, bytes, oldest } = *counts;
    let oldest_seconds = oldest.map(|oldest| now.duration_since(oldest).unwrap_or_default().as_secs());
    let (paused, configured) = (None, false);
    InboxShown { inbox: name.to_owned(), ready, delayed, claimed, dead, bytes, oldest_seconds, paused, configured }
}

pub fn message(entry: &Entry, hidden: &Hidden) -> MessageShown {
    let message = &entry.message;
    let target = match message.target.split_once('?') {
        Some((path, query)) => format!("{path}?{}", redact_query(query, hidden)),
        None => message.target.clone(),
    };
    MessageShown {
        id: message.id.clone(),
        delivery: message.delivery.clone(),
        standing: entry.standing,
        attempts: entry.attempts,
        due: entry.due.map(clock::rfc3339),
        why: entry.why.clone(),
        received: clock::rfc3339(message.received),
        request_id: message.request_id.clone(),
        route: message.route.clone(),
        provider: message.provider.clone(),
        method: message.method.clone(),
        target,
        order: message.order.clone(),
    }
}

/// With at most `body_bytes` of its body.
pub fn one(entry: &Entry, hidden: &Hidden, body_bytes: usize) -> One {
    let body = &*entry.message.body;
    let (shown, encoding) = body_shown(body, body_bytes);
    let fields = entry.message.fields.iter().map(|(name, value)| FieldShown {
        name: name.clone(),
        value: if is_credential(name) { REDACTED.to_owned() } else { String::from_utf8_lossy(value).into_owned() },
    });
    One {
        message: message(entry, hidden),
        bytes: entry.message.bytes(),
        fields: fields.collect(),
        body: shown,
        body_encoding: encoding.to_owned(),
        body_bytes: body.len(),
        body_cut: body.len() > body_bytes,
    }
}

/// The beginning of a body, and how it is written. What a terminal would take for more than text is none.
fn body_shown(body: &[u8], most: usize) -> (String, &'static str) {
    let is_plain = |letter: char| !letter.is_control() || matches!(letter, '\t' | '\n' | '\r');
    match std::str::from_utf8(body).ok().filter(|text| text.chars().all(is_plain)) {
        Some(text) => (text.get(..text.floor_char_boundary(most)).unwrap_or_default().to_owned(), "text"),
        None => (STANDARD.encode(body.get(..most).unwrap_or(body)), "base64"),
    }
}

/// Trello's signature is the one of a provider whose field does not say what it is.
fn is_credential(name: &str) -> bool {
    names_credential(name) || name.eq_ignore_ascii_case("x-trello-webhook")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_text_where_it_is_and_cut_between_letters() {
        let cases: [(&[u8], usize, &str, &str); 8] = [
            (b"{}\r\n", 100, "{}\r\n", "text"),
            (b"", 100, "", "text"),
            (b"abcd", 4, "abcd", "text"),
            (b"abcd", 3, "abc", "text"),
            ("aü".as_bytes(), 2, "a", "text"),
            (b"ab\xff", 100, "YWL/", "base64"),
            (b"ab\xff", 2, "YWI=", "base64"),
            (b"\x1b[2J", 100, "G1sySg==", "base64"),
        ];
        for (body, most, shown, encoding) in cases {
            assert_eq!(body_shown(body, most), (shown.to_owned(), encoding), "{body:?} {most}");
        }
    }

    #[test]
    fn signatures_and_credentials_are_not_shown() {
        for name in [
            "Authorization",
            "cookie",
            "X-Hub-Signature-256",
            "stripe-signature",
            "x-shopify-hmac-sha256",
            "X-Trello-Webhook",
            "webhook-signature",
            "x-api-key",
            "x-gitlab-token",
        ] {
            assert!(is_credential(name), "{name}");
        }
        for name in ["content-type", "user-agent", "x-github-event", "webhook-id", "x-request-id"] {
            assert!(!is_credential(name), "{name}");
        }
    }
}
