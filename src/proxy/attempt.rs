//! One attempt at an upstream, whichever engine makes it: where it goes, how long it may take, and what its answer says.

use std::time::{Duration, Instant};

use http::request::Parts;
use http::response;
use pingora::{Error, ErrorType, Result};

use super::exchange::{Chosen, Exchange};
use super::heads::Seen;
use super::peer::shorter;
use super::retry;
use super::sent::Sent;
use super::target::hints;
use crate::clock;
use crate::reply::Code;

/// An attempt that begins.
pub struct Attempt {
    pub chosen: Chosen,
    pub now: Instant,
    /// How long the exchange may still take.
    pub remaining: Option<Duration>,
    /// How long this attempt may take to the head of its answer, once the request is sent.
    pub first_byte: Duration,
}

/// Begins an attempt.
///
/// # Errors
/// There is no target for it, or no time.
pub fn begin(head: &Parts, x: &mut Exchange) -> Result<Attempt> {
    let is_gathered = x.is_gathered();
    let (Some(route), Some(forward)) = (x.route.as_ref(), x.forward.as_mut()) else {
        return Err(Error::new_in(ErrorType::InternalError));
    };
    let first_byte = forward.first_byte(route.first_byte);
    // A chain that waited for nothing took no time worth a look at the clock.
    let now = if x.waited || forward.target.is_some() { clock::now() } else { x.started };
    let remaining = forward.remaining(now);
    if remaining.is_some_and(|remaining| remaining.is_zero()) {
        forward.gave_up(now);
        x.code = Some(Code::GATEWAY_TIMEOUT);
        return Err(Error::new_up(ErrorType::ReadTimedout));
    }
    let chosen = match forward.next(&hints(&Seen(head), x.context.as_ref()), now) {
        Ok(chosen) => chosen,
        Err(none) => {
            forward.gave_up(now);
            x.code = Some(forward.code_without(none));
            return Err(Error::new_up(ErrorType::ConnectNoRoute));
        }
    };
    if !is_gathered {
        // What the last attempt has sent comes again.
        x.body_bytes_in = 0;
    }
    forward.tried.push(chosen.index);
    forward.target = Some(std::sync::Arc::clone(&chosen.metrics));
    forward.address = Some(chosen.address);
    forward.attempt = now;
    Ok(Attempt { chosen, now, remaining, first_byte: shorter(first_byte, remaining) })
}

/// The head of an answer came that is no interim one.
///
/// # Errors
/// It is given up for another try.
pub fn answered(sent: &Sent<'_>, head: &response::Parts, x: &mut Exchange, now: Instant) -> Result<()> {
    let Some(forward) = x.forward.as_mut() else { return Ok(()) };
    let to_head = now.saturating_duration_since(forward.attempt);
    forward.responded(head.status.as_u16(), to_head, now);
    if retry::discards(sent, head, x, now) {
        return Err(retry::discarded());
    }
    if let Some(forward) = x.forward.as_mut() {
        forward.to_head = Some(to_head);
        forward.passed_on(head.status.as_u16(), to_head, now);
    }
    Ok(())
}
