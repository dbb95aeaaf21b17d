//! Bodies on their way past the filters that see them pass, and answers that such a filter gives in place of a response.

use std::mem;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Version, response};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::exchange::Exchange;
use super::heads::{Seen, SeenResponse};
use crate::chain::Instead;
use crate::reply::Rejection;

/// Whether no body follows a request head, which was taken out of its session.
pub fn is_bodiless(session: &mut Session, head: &Parts) -> bool {
    if session.is_http2() {
        return session.is_body_empty();
    }
    let length = head.headers.get(CONTENT_LENGTH);
    !head.headers.contains_key(TRANSFER_ENCODING) && length.is_none_or(|length| length == "0")
}

/// A piece of a request body.
pub fn request_piece(session: &Session, body: &mut Option<Bytes>, ends: bool, x: &mut Exchange) -> Result<()> {
    let Exchange { route, context, reached, .. } = x;
    let (Some(route), Some(context)) = (route, context) else { return Ok(()) };
    if !route.chain.watches_request_body(*reached, context) {
        return Ok(());
    }
    x.is_shown = true;
    let piece = body.take().unwrap_or_default();
    match route.chain.request_piece(*reached, &Seen(session.req_header()), piece, ends, context) {
        // Not none, which would be the end of the body.
        Ok(piece) => *body = Some(piece),
        Err(rejection) => return Err(instead(x, *rejection)),
    }
    Ok(())
}

/// A piece of a response body.
pub fn response_piece(session: &Session, body: &mut Option<Bytes>, ends: bool, x: &mut Exchange) -> Result<()> {
    let Exchange { route, context, reached, .. } = x;
    let (Some(route), Some(context)) = (route, context) else { return Ok(()) };
    if !route.chain.accompanies() || session.was_upgraded() {
        return Ok(());
    }
    let piece = body.take().unwrap_or_default();
    match route.chain.response_piece(*reached, &Seen(session.req_header()), piece, ends, context) {
        // An empty chunk would be the end of the body.
        Ok(piece) => *body = (!piece.is_empty()).then_some(piece),
        Err(rejection) => return Err(instead(x, *rejection)),
    }
    Ok(())
}

/// The whole body of an answer of our own.
///
/// # Errors
/// What is answered in its place.
pub fn whole(request: &Parts, x: &Exchange, body: &mut Bytes) -> std::result::Result<(), Instead> {
    let (Some(route), Some(context)) = (&x.route, &x.context) else { return Ok(()) };
    if !route.chain.accompanies() {
        return Ok(());
    }
    match route.chain.response_piece(x.reached, &Seen(request), mem::take(body), true, context) {
        Ok(piece) => {
            *body = piece;
            Ok(())
        }
        // None of them sees the refusal: it was one of them.
        Err(rejection) => Err(Instead { reached: 0, answer: Err(rejection) }),
    }
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
    x.instead = Some(Box::new(instead));
    Error::new_in(ErrorType::Custom("a filter answers in place of the service"))
}

fn instead(x: &mut Exchange, rejection: Rejection) -> Box<Error> {
    let reached = x.reached;
    x.code = Some(rejection.code);
    replaced(x, Instead { reached, answer: Err(Box::new(rejection)) })
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
