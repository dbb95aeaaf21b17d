//! The request body, gathered for a handler that takes one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Version;
use http::header::EXPECT;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::exchange::Exchange;
use crate::reply::Code;

/// Reads the whole body. One larger than `max` bytes, or one that does not arrive within `within`, is an error with its
/// code in `x`.
pub async fn gather(session: &mut Session, x: &mut Exchange, max: usize, within: Duration) -> pingora::Result<Bytes> {
    match tokio::time::timeout(within, read(session, x, max)).await {
        Ok(read) => read,
        Err(_) => {
            x.code = Some(Code::REQUEST_TIMEOUT);
            Err(Error::new_down(ErrorType::ReadTimedout))
        }
    }
}

async fn read(session: &mut Session, x: &mut Exchange, max: usize) -> pingora::Result<Bytes> {
    if expects_continue(session) {
        session.as_downstream_mut().write_continue_response().await?;
    }
    let mut whole = BytesMut::new();
    // Without the side that failed, an error would be taken for one of the gateway.
    while let Some(piece) = session.read_request_body().await.map_err(Error::into_down)? {
        x.body_bytes_in = x.body_bytes_in.saturating_add(piece.len() as u64);
        if whole.len().saturating_add(piece.len()) > max {
            x.code = Some(Code::BODY_TOO_LARGE);
            return Err(Error::new_down(ErrorType::HTTPStatus(413)));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// Whether the client waits to be asked for the body (RFC 9110 §10.1.1).
fn expects_continue(session: &Session) -> bool {
    let head = session.req_header();
    let expected = head.headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    expected && head.version != Version::HTTP_10
}
