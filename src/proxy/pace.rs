//! Request bodies that trickle: never silent for long, and never done.

use http::Version;
use http::header::CONTENT_LENGTH;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::exchange::Exchange;
use crate::clock;
use crate::reply::Code;

/// Looks at each piece of a body that streams: after `body_timeout` it has to have come as fast as `limits` say, on average.
pub fn check(session: &Session, x: &mut Exchange, end_of_stream: bool) -> pingora::Result<()> {
    let limits = &x.gateway.settings.limits;
    // What is whole, or was gathered, does not trickle any more.
    if limits.body_bytes_per_second_min == 0 || end_of_stream || x.is_gathered() {
        return Ok(());
    }
    let elapsed = clock::now().saturating_duration_since(x.started);
    let Some(beyond) = elapsed.checked_sub(limits.body_timeout) else { return Ok(()) };
    let millis = u64::try_from(beyond.as_millis()).unwrap_or(u64::MAX);
    let least = millis.saturating_mul(limits.body_bytes_per_second_min).div_euclid(1000);
    let head = session.req_header();
    // A stream of HTTP/2 that announces no length may be one that lasts, such as gRPC's.
    let lasts = head.version == Version::HTTP_2 && !head.headers.contains_key(CONTENT_LENGTH);
    if lasts || x.body_bytes_in >= least {
        return Ok(());
    }
    x.code = Some(Code::REQUEST_TIMEOUT);
    Err(Error::new_down(ErrorType::HTTPStatus(408)))
}
