//! The request body, gathered for those who decide on the whole of it.
//!
//! Memory is taken for what has come, never for what a client says will come, and is charged to
//! [`limits.body_memory_max`](crate::gateway::Limits::body_memory_max) before it is taken.

mod whole;

use std::time::Duration;

use bytes::Bytes;
use http::header::{EXPECT, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Version};
use pingora::Error;
use pingora::proxy::Session;

use super::admit;
use super::heads;
use super::memory::BODIES;
use crate::gateway::Limits;
use crate::reply::{Code, Rejection};
use whole::{TooMuch, Whole};

/// How much of a body is gathered.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Largest body, in bytes.
    pub body_max: u64,
    /// Most bytes of memory that all bodies may take.
    pub memory_max: u64,
    /// How long it may take to arrive.
    pub within: Duration,
}

/// Why there is no body.
pub enum Unread {
    Rejected(Box<Rejection>),
    /// The client left, or sends what is no body.
    Failed(Box<Error>),
}

impl Bounds {
    pub fn new(limits: &Limits, body_max: u64) -> Self {
        Self { body_max, memory_max: limits.body_memory_max, within: limits.body_timeout }
    }

    /// The same for somebody who takes only so much.
    #[must_use]
    pub fn at_most(self, body_max: u64) -> Self {
        Self { body_max: self.body_max.min(body_max), ..self }
    }

    /// Refuses a body that was gathered for somebody who takes more.
    pub fn check(self, body: &Bytes) -> Result<(), Unread> {
        if body.len() as u64 > self.body_max { Err(too_large(self.body_max)) } else { Ok(()) }
    }
}

/// Gathers the body of a request whose head was taken apart. Nobody has to be asked for the body any more then: `Expect` is
/// gone from the head.
pub async fn gather_apart(
    session: &mut Session,
    head: &mut Parts,
    bounds: Bounds,
    bytes_in: &mut u64,
) -> Result<Bytes, Unread> {
    // The head says how the body is framed: without it Pingora would take the body for the next request.
    let blank = http::Request::new(()).into_parts().0;
    heads::put_back(session.req_header_mut(), std::mem::replace(head, blank));
    let gathered = gather(session, bounds, bytes_in).await;
    *head = heads::take(session.req_header_mut());
    head.headers.remove(EXPECT);
    gathered
}

/// Reads the whole body, and adds what has come to `bytes_in`. One that says it is too large is refused unread.
pub async fn gather(session: &mut Session, bounds: Bounds, bytes_in: &mut u64) -> Result<Bytes, Unread> {
    if let Err(rejection) = admit::check_length(session.req_header(), bounds.body_max) {
        return Err(Unread::Rejected(Box::new(rejection)));
    }
    if session.is_body_done() {
        return Ok(Bytes::new());
    }
    match tokio::time::timeout(bounds.within, read(session, bounds, bytes_in)).await {
        Ok(read) => read,
        Err(_) => {
            // Whoever was too slow for the body is too slow for the next request as well.
            session.set_keepalive(None);
            Err(rejected(Rejection::new(Code::REQUEST_TIMEOUT, "the request body did not arrive in time")))
        }
    }
}

async fn read(session: &mut Session, bounds: Bounds, bytes_in: &mut u64) -> Result<Bytes, Unread> {
    if expects_continue(session) {
        session.as_downstream_mut().write_continue_response().await.map_err(failed)?;
    }
    let mut whole = Whole::new(BODIES.charge(), bounds, admit::length(session.req_header()));
    while let Some(piece) = session.read_request_body().await.map_err(failed)? {
        *bytes_in = bytes_in.saturating_add(piece.len() as u64);
        whole.push(piece).map_err(|too_much| match too_much {
            TooMuch::Body => too_large(bounds.body_max),
            TooMuch::Memory => overloaded(),
        })?;
    }
    Ok(whole.finish())
}

/// Without the side that failed, an error would be taken for one of the gateway.
fn failed(error: Box<Error>) -> Unread {
    Unread::Failed(error.into_down())
}

fn rejected(rejection: Rejection) -> Unread {
    Unread::Rejected(Box::new(rejection))
}

fn too_large(max: u64) -> Unread {
    rejected(admit::too_large(max))
}

fn overloaded() -> Unread {
    let rejection = Rejection::new(Code::OVERLOADED, "the gateway holds as many request bodies as it may");
    rejected(rejection.with_field(RETRY_AFTER, HeaderValue::from_static("1")))
}

/// Whether the client waits to be asked for the body (RFC 9110 §10.1.1).
fn expects_continue(session: &Session) -> bool {
    let head = session.req_header();
    let expected = head.headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    expected && head.version != Version::HTTP_10
}
