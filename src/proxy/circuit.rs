//! What becomes of a request whose upstream has breakers: it passes, or gets what stands for the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::request::Parts;

use super::exchange::{Exchange, Forward};
use super::heads::Seen;
use super::target::hints;
use crate::clock;
use crate::gateway::Fallback;
use crate::head::HeaderValue;
use crate::reply::{Code, Rejection, Reply};
use crate::types::seconds_up;
use crate::upstream::stale::Asked;
use crate::upstream::{Hints, NoTarget, Upstream};

const MESSAGE: &str = "the service failed too often and is left alone for a while";

/// What becomes of a request that is to be forwarded.
pub enum Entry {
    /// Its way to the upstream, or to the one that stands for it, is set up.
    Open,
    Reply(Reply),
    Refuse(Rejection),
}

/// Sets up the way to the upstream. `has_body`: the request has one that is not empty, or may have.
pub fn enter(head: &Parts, has_body: bool, x: &mut Exchange, upstream: &Arc<Upstream>) -> Entry {
    let now = if x.waited { clock::now() } else { x.started };
    let wait = match forward(upstream, &hints(&Seen(head), x.context.as_ref()), x.started, now) {
        Ok(mut forward) => {
            if let Some(stale) = upstream.stale() {
                forward.keeping = stale.keep(&Seen(head), asked(x, has_body)).map(Box::new);
            }
            x.forward = Some(forward);
            return Entry::Open;
        }
        Err(wait) => wait,
    };
    upstream.rejected();
    match x.gateway.fallback_of(&upstream.name).cloned() {
        None => Entry::Refuse(refusal(wait)),
        Some(Fallback::Stale) => {
            let kept = upstream.stale().and_then(|stale| stale.answer(&Seen(head), asked(x, has_body), now));
            kept.map_or_else(|| Entry::Refuse(refusal(wait)), Entry::Reply)
        }
        Some(Fallback::Reply(handler)) => {
            let Some(context) = &x.context else { return Entry::Refuse(refusal(wait)) };
            match handler.answer(&Seen(head), context) {
                Ok(reply) => Entry::Reply(reply),
                Err(rejection) => Entry::Refuse(*rejection),
            }
        }
        Some(Fallback::Upstream(other)) => {
            let other = other.load();
            match forward(&other, &hints(&Seen(head), x.context.as_ref()), x.started, now) {
                Ok(forward) => {
                    x.forward = Some(forward);
                    Entry::Open
                }
                Err(wait) => {
                    // What stands for that one is not asked: there is an end to it.
                    other.rejected();
                    Entry::Refuse(refusal(wait))
                }
            }
        }
    }
}

/// The way to an upstream whose breakers let the request through. Otherwise: how long to stay away.
fn forward(upstream: &Arc<Upstream>, hints: &Hints<'_>, started: Instant, now: Instant) -> Result<Forward, Duration> {
    let permit = upstream.admit(now)?;
    let mut forward = Forward::new(Arc::clone(upstream), started, permit);
    match forward.choose(hints, now) {
        Err(NoTarget::Open(wait)) => return Err(wait),
        // The others are said when it is to be connected to: there may be room by then.
        Ok(()) | Err(NoTarget::Unavailable | NoTarget::Full) => {}
    }
    Ok(forward)
}

fn asked(x: &Exchange, has_body: bool) -> Asked<'_> {
    Asked {
        route: x.route.as_ref().map_or("", |route| &route.name),
        caller: x.context.as_ref().and_then(|context| context.caller.as_deref()),
        has_body,
    }
}

impl Forward {
    /// The next piece of an answer that may be kept, and whether it is the last one.
    pub fn keep(&mut self, piece: &[u8], last: bool) {
        if let Some(keeping) = &mut self.keeping {
            keeping.body(piece);
        }
        if last && let Some(keeping) = self.keeping.take() {
            keeping.end();
        }
    }
}

fn refusal(wait: Duration) -> Rejection {
    // Whole seconds, and never an invitation to come at once.
    Rejection::new(Code::CIRCUIT_OPEN, MESSAGE).with_field(RETRY_AFTER, HeaderValue::from(seconds_up(wait).max(1)))
}
