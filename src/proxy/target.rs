//! The target of an attempt: chosen, told of how it did, and left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, StatusCode, Version, response};

use super::exchange::{Chosen, Exchange, Fares, Forward};
use super::heads::Seen;
use crate::context::{Context, Scheme};
use crate::observe::metrics::UpstreamError;
use crate::reply::Code;
use crate::upstream::{Choice, Hints, NoTarget};

impl Forward {
    /// The target of the attempt that begins now: the one that was chosen for it, or else one that is chosen now.
    pub fn next(&mut self, hints: &Hints<'_>, now: Instant) -> Result<Chosen, NoTarget> {
        if self.chosen.is_none() {
            self.choose(hints, now)?;
        }
        self.chosen.take().ok_or(NoTarget::Unavailable)
    }

    /// Chooses the target of the next attempt. From now on the request counts as in flight to it.
    pub fn choose(&mut self, hints: &Hints<'_>, now: Instant) -> Result<(), NoTarget> {
        // What the last attempt held may be the very place that is looked for.
        self.leave();
        let upstream = Arc::clone(&self.upstream);
        self.take(upstream.choose(&self.tried, hints, now)?);
        Ok(())
    }

    /// Takes this target for the next attempt, and leaves that of the last one.
    pub fn take(&mut self, choice: Choice<'_>) {
        let metrics = Arc::clone(&choice.target.metrics);
        let name = choice.target.name.clone();
        self.chosen = Some(Chosen { index: choice.index, metrics, address: choice.address, name });
        self.sets_cookie = choice.sets_cookie;
        let (seat, permit) = choice.keep();
        self.leave();
        self.seat = Some(seat);
        self.permit_of_target = permit;
    }

    /// The head of an answer arrived; whether the client gets it or not.
    pub fn responded(&mut self, status: u16, took: Duration, now: Instant) {
        if let Some(target) = &self.target {
            target.responded(status, took);
        }
        if let Some(seat) = self.seat {
            let well = self.upstream.responded(seat, status, took, now);
            self.fares = if well { Fares::Well(now) } else { Fares::Settled };
        }
        if let Some(permit) = &mut self.permit_of_target {
            permit.answered(status, took, now);
        }
    }

    /// The answer whose head arrived is passed on.
    pub fn passed_on(&mut self, status: u16, took: Duration, now: Instant) {
        if let Some(permit) = &mut self.permit {
            permit.answered(status, took, now);
        }
    }

    /// The attempt failed, and the target is to blame. Whether another one follows is decided later: until then that is between
    /// the gateway and the target.
    pub fn failed(&mut self, kind: UpstreamError, now: Instant) {
        if let Some(target) = &self.target {
            target.failed(kind);
        }
        if let Some(seat) = self.seat {
            let counted = std::mem::replace(&mut self.fares, Fares::Settled) == Fares::Settled;
            self.upstream.failed(seat, Some(kind).filter(|_| !counted), now);
        }
        if let Some(permit) = &mut self.permit_of_target {
            permit.failed(now);
        }
    }

    /// No further attempt is made, or none at all. What the attempts failed of was told of their targets.
    pub fn gave_up(&mut self, now: Instant) {
        if let Some(permit) = self.permit.as_mut().filter(|_| !self.tried.is_empty()) {
            permit.failed(now);
        }
    }

    /// What to tell the client when there is no target for it.
    pub fn code_without(&self, none: NoTarget) -> &'static Code {
        match none {
            NoTarget::Unavailable => Code::UPSTREAM_UNAVAILABLE,
            NoTarget::Full => Code::OVERLOADED,
            NoTarget::Open(_) if self.tried.is_empty() => Code::CIRCUIT_OPEN,
            // The attempt that failed opened the last breaker.
            NoTarget::Open(_) => Code::BAD_GATEWAY,
        }
    }

    /// Nothing that is still to come says more about the service. The request may still be in flight.
    pub fn settled(&mut self) {
        self.permit = None;
        self.permit_of_target = None;
    }

    /// The exchange with the service is over.
    pub fn end(&mut self) {
        self.permit = None;
        self.leave();
    }

    /// The request is in flight to no target any more.
    pub fn leave(&mut self) {
        self.permit_of_target = None;
        if let Some(seat) = self.seat.take() {
            if let Fares::Well(began) = std::mem::replace(&mut self.fares, Fares::Unknown) {
                self.upstream.succeeded(seat, began);
            }
            self.upstream.leave(seat);
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.end();
    }
}

impl Chosen {
    /// The target as `Host`: what its certificate is for, or else its address.
    pub fn host(&self) -> String {
        let name = self.name.as_ref().map(|name| name.host.to_string());
        name.unwrap_or_else(|| self.address.to_string())
    }
}

/// What may decide which target gets a request.
pub fn hints<'a>(head: &'a Seen<'a>, context: Option<&'a Context>) -> Hints<'a> {
    Hints { head, client: context.map(|context| context.client), consumer: context.and_then(name_of_caller) }
}

fn name_of_caller(context: &Context) -> Option<&str> {
    context.caller.as_ref().map(|caller| &*caller.name)
}

/// The cookie that leads the client back to its target, if it has to be told.
pub fn sticky_cookie(x: &Exchange) -> Option<HeaderValue> {
    let forward = x.forward.as_ref().filter(|forward| forward.sets_cookie)?;
    let https = x.context.as_ref().is_some_and(|context| context.scheme == Scheme::Https);
    forward.upstream.cookie(forward.seat?, https)
}

/// Whether no body follows the head of an answer (RFC 9112 §6.3).
pub fn is_whole(method: &Method, head: &response::Parts) -> bool {
    *method == Method::HEAD
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || head.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0")
}

/// Whether the end of the body is told by more than the end of the connection.
pub fn tells_its_end(head: &response::Parts) -> bool {
    head.version == Version::HTTP_2
        || head.headers.contains_key(CONTENT_LENGTH)
        || head.headers.contains_key(TRANSFER_ENCODING)
}
