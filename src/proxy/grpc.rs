//! What a call of gRPC needs on its way through: its deadline, its way of being refused, and an end that says why.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Version, request, response};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::exchange::{Exchange, Forward};
use crate::clock;
use crate::config::Protocol;
use crate::context::Speaks;
use crate::reply::grpc::trailers_frame;
use crate::reply::{Code, Rejection};

/// How long the client waits, and what the service has left of it
/// ([PROTOCOL-HTTP2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)).
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The largest value of `grpc-timeout` has eight digits.
const DIGITS_MAX: usize = 8;
const VALUE_MAX: u128 = 99_999_999;

/// How the request of this exchange speaks gRPC, when it does. Over HTTP/1.1 there is gRPC-Web alone.
pub fn speaks(head: &request::Parts, x: &Exchange) -> Option<Speaks> {
    if let Some(web) = x.context.as_ref().and_then(|context| context.grpc_web) {
        return Some(web);
    }
    let (speaks, _) = Speaks::of(head.headers.get(CONTENT_TYPE)?.as_bytes())?;
    (speaks != Speaks::Grpc || head.version == Version::HTTP_2).then_some(speaks)
}

/// Bounds the exchange by the deadline of its client. Called when the way to the upstream is known.
pub fn take_deadline(head: &request::Parts, x: &mut Exchange) -> std::result::Result<(), Rejection> {
    let Some(forward) = x.forward.as_mut().filter(|forward| forward.upstream.protocol != Protocol::Http1) else {
        return Ok(());
    };
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if content_type.and_then(Speaks::of).is_none() {
        return Ok(());
    }
    forward.is_grpc = true;
    let mut timeouts = head.headers.get_all(GRPC_TIMEOUT).iter();
    let Some(timeout) = timeouts.next() else { return Ok(()) };
    let timeout = parse(timeout.as_bytes()).filter(|_| timeouts.next().is_none());
    let timeout = timeout.ok_or_else(|| Rejection::new(Code::BAD_REQUEST, "the grpc-timeout is not valid"))?;
    // What cannot be held as a time is as good as none.
    if let Some(deadline) = x.started.checked_add(timeout) {
        forward.deadline = Some(forward.deadline.map_or(deadline, |total| total.min(deadline)));
    }
    Ok(())
}

/// The request of a call as the service is sent it.
pub fn prepare(request: &mut RequestHeader, x: &mut Exchange) -> Result<()> {
    let Some(forward) = x.forward.as_ref().filter(|forward| forward.is_grpc) else { return Ok(()) };
    if forward.deadline.is_some()
        && let Some(left) = forward.remaining(clock::now())
    {
        request.insert_header(GRPC_TIMEOUT, written(left))?;
    }
    if let Some(web) = x.context.as_ref().and_then(|context| context.grpc_web) {
        // gRPC asks for trailers so; a page cannot, and a browser speaks HTTP/1.1 as well.
        request.insert_header(TE, "trailers")?;
        if web == Speaks::WebText {
            // It becomes shorter on the way.
            request.remove_header(&CONTENT_LENGTH);
            x.grpc_web_rest.clear();
        }
    }
    Ok(())
}

/// Takes Base64 off a piece of a request body of gRPC-Web.
pub fn decode(body: &mut Option<Bytes>, end: bool, x: &mut Exchange) -> Result<()> {
    if x.context.as_ref().and_then(|context| context.grpc_web) != Some(Speaks::WebText) {
        return Ok(());
    }
    let rest = &mut x.grpc_web_rest;
    rest.extend_from_slice(body.as_deref().unwrap_or_default());
    let whole = rest.len().saturating_sub(rest.len() % 4);
    let mut decoded = Vec::with_capacity(whole / 4 * 3);
    // Each piece that a client encodes by itself may end in padding.
    let sound = rest.chunks_exact(4).all(|group| STANDARD.decode_vec(group, &mut decoded).is_ok());
    rest.drain(..whole);
    if !sound || (end && !rest.is_empty()) {
        x.code = Some(Code::BAD_REQUEST);
        return Err(Error::new_down(ErrorType::HTTPStatus(400)));
    }
    // Not none, which would be the end of the body.
    *body = Some(decoded.into());
    Ok(())
}

/// Looks whether the answer is one of gRPC, whose end can be told in it.
pub fn look(head: &response::Parts, forward: Option<&mut Forward>) {
    if let Some(forward) = forward.filter(|forward| forward.is_grpc) {
        let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        forward.answers_grpc = content_type.and_then(Speaks::of).is_some();
    }
}

/// A piece of an answer as a client of gRPC-Web reads it.
pub fn encode(body: &mut Option<Bytes>, x: &Exchange) {
    if let (Some(web), Some(bytes)) = (translates(x), body.as_mut().filter(|bytes| !bytes.is_empty())) {
        *bytes = web.encode(std::mem::take(bytes));
    }
}

/// What stands for the trailers of an answer in its body.
pub fn last_frame(trailers: &HeaderMap, x: &Exchange) -> Option<Bytes> {
    translates(x).map(|web| frame(web, trailers))
}

fn translates(x: &Exchange) -> Option<Speaks> {
    let web = x.context.as_ref()?.grpc_web?;
    x.forward.as_ref().is_some_and(|forward| forward.answers_grpc).then_some(web)
}

/// Ends a call whose answer has begun by saying why: a stream that is cut off says nothing. `false`: it is no call, or its
/// end was sent.
pub async fn end(session: &mut Session, x: &Exchange, rejection: &Rejection) -> bool {
    if !x.forward.as_ref().is_some_and(|forward| forward.is_grpc && forward.answers_grpc) {
        return false;
    }
    let trailers = HeaderMap::from_iter(rejection.grpc_trailers());
    let Some(speaks) = speaks(session.req_header(), x) else { return false };
    write_end(&mut session.downstream_session, speaks, trailers).await.is_ok()
}

async fn write_end(session: &mut ServerSession, speaks: Speaks, trailers: HeaderMap) -> Result<()> {
    match speaks {
        Speaks::Grpc => session.write_response_trailers(trailers).await,
        Speaks::Web | Speaks::WebText => {
            session.write_response_body(frame(speaks, &trailers), true).await?;
            session.finish_body().await.map(drop)
        }
    }
}

/// Trailers as they end a body of gRPC-Web.
pub fn frame(speaks: Speaks, trailers: &HeaderMap) -> Bytes {
    speaks.encode(trailers_frame(trailers))
}

/// `250m` → 250 ms. `None`: it is none.
fn parse(timeout: &[u8]) -> Option<Duration> {
    let (unit, digits) = timeout.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(value.saturating_mul(3600)),
        b'M' => Duration::from_secs(value.saturating_mul(60)),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

/// The other way round: never longer than it is, in the finest unit that has room for it.
fn written(left: Duration) -> String {
    let units = [(left.as_micros(), "u"), (left.as_millis(), "m"), (u128::from(left.as_secs()), "S")];
    match units.into_iter().find(|(value, _)| *value <= VALUE_MAX) {
        Some((value, unit)) => format!("{value}{unit}"),
        None => format!("{}H", (left.as_secs() / 3600).min(VALUE_MAX as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("0S", Some(Duration::ZERO)),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("100000000S", None),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("1 S", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_left_is_written_in_eight_digits_and_never_longer() {
        for (left, expected) in [
            (Duration::ZERO, "0u"),
            (Duration::from_nanos(1999), "1u"),
            (Duration::from_micros(99_999_999), "99999999u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_millis(99_999_999), "99999999m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(99_999_999), "99999999S"),
            (Duration::from_secs(100_000_000), "27777H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(written(left), expected);
            assert!(parse(expected.as_bytes()).unwrap() <= left);
        }
    }
}
