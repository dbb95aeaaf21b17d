//! Answers to an authority that asks whether a name leads here, before any route.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use super::exchange::Exchange;
use crate::context::Scheme;
use crate::reply::{Code, Rejection, Reply};

/// Lets a request go on that no route takes, if it is an authority's.
pub fn pass(head: &Parts, rejection: Rejection, x: &Exchange) -> Result<(), Rejection> {
    let unrouted = [Code::NOT_FOUND, Code::METHOD_NOT_ALLOWED].contains(&rejection.code);
    if unrouted && pending(head, x).is_some() { Ok(()) } else { Err(rejection) }
}

/// The answer, if the request asks for one that is pending now. Everything else is for routes.
pub fn answer(head: &Parts, x: &mut Exchange) -> Option<Box<Reply>> {
    let answer = pending(head, x)?;
    let binary = HeaderValue::from_static("application/octet-stream");
    let mut reply = Reply::new(StatusCode::OK).with_field(CONTENT_TYPE, binary);
    reply.body = Bytes::from(answer);
    // No filter sees it, on the way in or out: whatever routes say, the authority gets what it came for.
    x.reached = 0;
    x.in_flight = None;
    x.route = Some(Arc::clone(x.gateway.fallback()));
    Some(Box::new(reply))
}

/// RFC 8555 §8.3: over plain HTTP, and only while this token is pending.
fn pending(head: &Parts, x: &Exchange) -> Option<String> {
    let site = x.gateway.acme.as_ref()?;
    let plain = x.connection.as_ref().is_some_and(|connection| connection.scheme == Scheme::Http);
    let asks = plain && head.method == Method::GET;
    site.challenges.answer(head.uri.path()).filter(|_| asks)
}
