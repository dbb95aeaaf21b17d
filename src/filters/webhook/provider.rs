//! A provider: whose webhooks they are, and how one knows.

use std::sync::Arc;

use bytes::Bytes;
use http::header;

use super::message::{Naming, challenge};
use super::refusal::Refusal;
use super::scheme::{Presented, Scheme};
use super::signature::Keys;
use crate::head::{HeaderName, HeaderValue, Method, RequestHead, StatusCode};
use crate::reply::Reply;

pub struct Provider {
    pub name: Arc<str>,
    pub scheme: Scheme,
    pub keys: Keys,
    pub naming: Naming,
    /// How far a signed timestamp may lie from now, in seconds, in both directions.
    pub tolerance: u64,
    /// Asks with `HEAD` whether somebody is there, before it sends anything (Trello).
    pub asks_with_head: bool,
    /// Asks with a signed body, and wants an answer (Slack).
    pub asks_with_challenge: bool,
    /// What a refusal says in `WWW-Authenticate`.
    pub challenge: HeaderValue,
}

impl Provider {
    /// Answers a question that needs no signature.
    pub fn answer_head(&self, request: &dyn RequestHead) -> Option<Reply> {
        (self.asks_with_head && request.method() == Method::HEAD).then(|| Reply::new(StatusCode::OK))
    }

    /// Whether the head could belong to a message that is verified. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// Signature or timestamp are missing or cannot be read, or the timestamp is too old or too new.
    pub fn check_head<'r>(&self, request: &'r dyn RequestHead, now: u64) -> Result<Presented<'r>, Refusal> {
        let presented = self.scheme.read(request)?;
        match presented.timestamp {
            Some(time) if now.saturating_sub(time.seconds) > self.tolerance => {
                Err(Refusal::expired("the message was signed too long ago"))
            }
            Some(time) if time.seconds.saturating_sub(now) > self.tolerance => {
                Err(Refusal::expired("the message was signed in the future; one of the two clocks is wrong"))
            }
            _ => Ok(presented),
        }
    }

    /// Verifies a message; what names it.
    ///
    /// The head is looked at again: a body can take its time, and a message that has become stale meanwhile could be one
    /// that replay protection has forgotten.
    ///
    /// # Errors
    /// As [`Provider::check_head`], and that no secret makes such a signature.
    pub fn verify(&self, request: &dyn RequestHead, body: &[u8], now: u64) -> Result<Arc<str>, Refusal> {
        let presented = self.check_head(request, now)?;
        let pieces = self.scheme.signed.pieces(&presented, body);
        if !self.keys.verify(&pieces, &presented.signatures) {
            return Err(Refusal::invalid());
        }
        Ok(self.naming.delivery(presented.id, body, pieces))
    }

    /// Answers a question whose signature is verified.
    pub fn answer_body(&self, body: &[u8]) -> Option<Reply> {
        let text = if self.asks_with_challenge { challenge(body) } else { None }?;
        let mut reply = Reply::new(StatusCode::OK)
            .with_field(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))
            .with_field(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
        reply.body = Bytes::from(text);
        Some(reply)
    }
}
