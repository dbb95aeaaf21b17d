//! Bodies on their way past the filters that see them pass, and answers that such a filter gives in place of a response.

use std::mem;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version, response};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::exchange::Exchange;
use super::heads::{Seen, SeenResponse};
use crate::chain::Instead;
use crate::reply::{Code, Rejection};

/// Whether no body follows a request head, which was taken out of its session.
pub fn is_bodiless(session: &mut Session, head: &Parts) -> bool {
    if session.is_http2() {
        return session.is_body_empty();
    }
    let length = head.headers.get(CONTENT_LENGTH);
    !head.headers.contains_key(TRANSFER_ENCODING) && length.is_none_or(|length| length == "0")
}

/// A piece of a request body.
pub async fn request_piece(session: &Session, body: &mut Option<Bytes>, ends: bool, x: &mut Exchange) -> Result<()> {
    let Exchange { route, context, reached, .. } = x;
    let (Some(route), Some(context)) = (route, context) else { return Ok(()) };
    if !route.chain.watches_request_body(*reached, context) {
        return Ok(());
    }
    x.is_shown = true;
    let piece = body.take().unwrap_or_default();
    let came = piece.len();
    match route.chain.request_piece(*reached, &Seen(session.req_header()), piece, ends, context).await {
        // Not none, which would be the end of the body.
        Ok(piece) => {
            let length = if x.is_unmeasured || x.is_gathered() { None } else { length(&session.req_header().headers) };
            let sound = x.request_length.pass(length, came, piece.len(), ends);
            *body = Some(piece);
            if sound { Ok(()) } else { Err(unsound(x)) }
        }
        Err(instead) => Err(replaced(x, instead)),
    }
}

/// A piece of a response body that has to be waited for by nobody.
pub fn response_piece(session: &Session, body: &mut Option<Bytes>, ends: bool, x: &mut Exchange) -> Result<()> {
    let Exchange { route, context, reached, .. } = x;
    let (Some(route), Some(context)) = (route, context) else { return Ok(()) };
    if !route.chain.sees_response_bodies() || session.was_upgraded() {
        return Ok(());
    }
    let piece = body.take().unwrap_or_default();
    let came = piece.len();
    let seen = Seen(session.req_header());
    let passing = route.chain.response_piece(*reached, &seen, piece, ends, context);
    match passing.now_or_never() {
        Some(Ok(piece)) => {
            let sound = x.response_length.pass(x.response_bytes, came, piece.len(), ends);
            // An empty chunk would be the end of the body.
            *body = (!piece.is_empty()).then_some(piece);
            if sound { Ok(()) } else { Err(unsound(x)) }
        }
        Some(Err(instead)) => Err(replaced(x, instead)),
        // One that may hold a body has a session where it is waited for.
        None => Err(unsound(x)),
    }
}

/// The whole body of an answer of our own.
///
/// # Errors
/// What is answered in its place.
pub async fn whole(request: &Parts, x: &Exchange, body: &mut Bytes) -> std::result::Result<(), Instead> {
    let (Some(route), Some(context)) = (&x.route, &x.context) else { return Ok(()) };
    if !route.chain.accompanies() {
        return Ok(());
    }
    *body = route.chain.response_piece(x.reached, &Seen(request), mem::take(body), true, context).await?;
    Ok(())
}

/// How long a body was on its way to the filters, and behind them.
#[derive(Debug, Default)]
pub struct Lengths {
    came: u64,
    passed: u64,
}

impl Lengths {
    /// Counts a piece. `false`: the filters have changed the length of a body whose head says `length`. What the head says is what
    /// the other side goes by: it would take a body that was cut for a whole one, or wait for the rest.
    pub fn pass(&mut self, length: Option<u64>, came: usize, passed: usize, ends: bool) -> bool {
        self.came = self.came.saturating_add(came as u64);
        self.passed = self.passed.saturating_add(passed as u64);
        let fits = length.is_none_or(|length| self.passed <= length && (!ends || self.passed == length));
        fits || self.came == self.passed
    }
}

/// The length that a head says its body has.
pub fn length(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What becomes of a body that is not as long as its head says.
pub fn unsound(x: &mut Exchange) -> Box<Error> {
    let rejection = changed_length(x.route.as_ref().map_or("", |route| &*route.name));
    // None of them sees the refusal: it was one of them.
    replaced(x, Instead { reached: 0, answer: Err(Box::new(rejection)) })
}

/// Tells the author.
pub fn changed_length(route: &str) -> Rejection {
    tracing::error!(
        route,
        "a plugin changed the length of a body whose head says it: it has to remove `content-length` when it is told of the head"
    );
    Rejection::new(Code::PLUGIN_FAILED, "a filter of this route failed")
}

/// Tells the filters that the exchange is over.
pub fn end(request: &Parts, answered: Option<&response::Parts>, x: &Exchange) {
    if let (Some(route), Some(context)) = (&x.route, &x.context)
        && route.chain.accompanies()
    {
        let response = answered.map(SeenResponse);
        let seen = response.as_ref().map(|response| -> &dyn crate::head::ResponseHead { response });
        route.chain.end(&Seen(request), seen, context);
    }
}

/// Ends the exchange with the service: the client gets this answer.
pub fn replaced(x: &mut Exchange, instead: Instead) -> Box<Error> {
    if let Err(rejection) = &instead.answer {
        x.code = Some(rejection.code);
    }
    x.instead = Some(Box::new(instead));
    ended()
}

/// A filter answers in place of the service.
pub fn ended() -> Box<Error> {
    Error::new_in(ErrorType::Custom("a filter answers in place of the service"))
}

/// Puts back the length of a request body, whatever a filter did to it: the client's session goes by what the client said, and
/// what was gathered is as long as it is. `is_unmeasured`: a filter removed it, so what is sent on may be of another length.
pub fn remember_length(
    head: &mut Parts,
    length: Option<&HeaderValue>,
    gathered: Option<&Bytes>,
    is_unmeasured: &mut bool,
) {
    let Some(length) = length else { return };
    *is_unmeasured |= !head.headers.contains_key(CONTENT_LENGTH);
    head.headers.insert(CONTENT_LENGTH, gathered.map_or_else(|| length.clone(), |body| body.len().into()));
}

/// Sends a body on whose length may have changed.
pub fn without_length(request: &mut RequestHeader, x: &Exchange) -> Result<()> {
    if x.is_unmeasured && !x.is_gathered() {
        request.remove_header(&CONTENT_LENGTH);
        if request.version != Version::HTTP_2 {
            request.insert_header(TRANSFER_ENCODING, "chunked")?;
        }
    }
    Ok(())
}
