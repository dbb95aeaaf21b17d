//! What the operator is told of failed exchanges.
//!
//! Every one is in the access log, with its code. The reason goes to the error log, for each worker once a second at most:
//! an upstream that is down must not fill the disk.

use std::cell::Cell;
use std::time::{Duration, Instant};

use http::header::{REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Version};
use pingora::Error;
use tracing::warn;

use super::exchange::Exchange;
use super::heads::Seen;
use crate::clock;
use crate::observe::access::{AccessLog, Entry};

const EVERY: Duration = Duration::from_secs(1);

thread_local! {
    /// When this worker last wrote, and how many it kept to itself since.
    static LAST: Cell<(Option<Instant>, u64)> = const { Cell::new((None, 0)) };
}

/// Says why an exchange failed.
pub fn failure(error: &Error, exchange: &Exchange) {
    let now = clock::now();
    let (last, kept) = LAST.get();
    if last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
        LAST.set((last, kept.saturating_add(1)));
        return;
    }
    LAST.set((Some(now), 0));
    let forward = exchange.forward.as_ref();
    warn!(
        upstream = forward.map(|forward| &*forward.upstream.name),
        // Not `target`: in JSON that is the module which speaks.
        address = forward.and_then(|forward| forward.address).map(tracing::field::display),
        route = exchange.route.as_ref().map(|route| &*route.name),
        request_id = exchange.context.as_ref().map(|context| context.request_id.as_str()),
        code = exchange.code.map(|code| code.name),
        %error,
        not_shown = kept,
        "a request failed"
    );
}

/// What the client was sent.
#[derive(Clone, Copy)]
pub struct Answered {
    pub status: u16,
    /// Of its body.
    pub bytes: u64,
}

/// Writes the line of the exchange in the access log.
pub fn access(log: &AccessLog, head: &Parts, x: &Exchange, answer: Answered, duration: Duration) {
    let Some(context) = &x.context else { return };
    let target = x.original.as_ref().unwrap_or(&head.uri);
    let seen = Seen(head);
    log.record(&Entry {
        time: clock::wall().checked_sub(duration).unwrap_or(std::time::UNIX_EPOCH),
        request_id: context.request_id.as_str(),
        client: context.client,
        method: head.method.as_str(),
        host: crate::head::RequestHead::host(&seen),
        path: target.path(),
        query: target.query(),
        hidden: &x.gateway.hidden,
        version: version(head.version),
        status: answer.status,
        code: x.code.map(|code| code.name),
        route: Some(&*context.route).filter(|name| !name.is_empty()),
        consumer: context.caller.as_ref().map(|caller| &*caller.name),
        upstream: x.forward.as_ref().map(|forward| &*forward.upstream.name),
        target: x.forward.as_ref().and_then(|forward| forward.address),
        duration,
        upstream_duration: x.forward.as_ref().and_then(|forward| forward.to_head),
        bytes_in: x.body_bytes_in,
        bytes_out: answer.bytes,
        referer: head.headers.get(REFERER).map(HeaderValue::as_bytes),
        user_agent: head.headers.get(USER_AGENT).map(HeaderValue::as_bytes),
        attempts: x.forward.as_ref().map_or(0, |forward| u32::try_from(forward.tried.len()).unwrap_or(u32::MAX)),
    });
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}
