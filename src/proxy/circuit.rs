//! What becomes of a request whose upstream has breakers: it passes, or gets what stands for the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::exchange::{Exchange, Forward};
use super::heads::Seen;
use super::phases::App;
use super::target::hints;
use crate::clock;
use crate::gateway::Fallback;
use crate::head::HeaderValue;
use crate::reply::{Code, Rejection, Reply};
use crate::types::seconds_up;
use crate::upstream::stale::Asked;
use crate::upstream::{Hints, NoTarget, Upstream};

const MESSAGE: &str = "the service failed too often and is left alone for a while";

impl App {
    /// Sets up the way to the upstream, or to the one that stands for it. `false`: the client was answered instead. `body`: it
    /// was gathered.
    pub(super) async fn enter(
        &self,
        session: &mut Session,
        x: &mut Box<Exchange>,
        upstream: Arc<Upstream>,
        body: Option<&Bytes>,
    ) -> pingora::Result<bool> {
        let now = if x.waited { clock::now() } else { x.started };
        let wait = match forward(&upstream, &hints(&Seen(session.req_header()), x.context.as_ref()), x.started, now) {
            Ok(mut forward) => {
                if let Some(stale) = upstream.stale() {
                    let has_body = has_body(session, body);
                    forward.keeping = stale.keep(&Seen(session.req_header()), asked(x, has_body)).map(Box::new);
                }
                x.forward = Some(forward);
                return Ok(true);
            }
            Err(wait) => wait,
        };
        upstream.rejected();
        match x.gateway.fallback_of(&upstream.name).cloned() {
            None => self.refuse(session, x, refusal(wait)).await?,
            Some(Fallback::Stale) => match kept(&upstream, session, x, body, now) {
                Some(reply) => self.send(session, x, reply).await?,
                None => self.refuse(session, x, refusal(wait)).await?,
            },
            Some(Fallback::Reply(handler)) => {
                let Some(context) = &x.context else { return Err(Error::new_in(ErrorType::InternalError)) };
                match handler.answer(&Seen(session.req_header()), context) {
                    Ok(reply) => self.send(session, x, reply).await?,
                    Err(rejection) => self.refuse(session, x, *rejection).await?,
                }
            }
            Some(Fallback::Upstream(other)) => {
                let other = other.load();
                match forward(&other, &hints(&Seen(session.req_header()), x.context.as_ref()), x.started, now) {
                    Ok(forward) => {
                        x.forward = Some(forward);
                        return Ok(true);
                    }
                    Err(wait) => {
                        // What stands for that one is not asked: there is an end to it.
                        other.rejected();
                        self.refuse(session, x, refusal(wait)).await?;
                    }
                }
            }
        }
        Ok(false)
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

/// The answer that was kept for such a request.
fn kept(upstream: &Upstream, session: &mut Session, x: &Exchange, body: Option<&Bytes>, now: Instant) -> Option<Reply> {
    let has_body = has_body(session, body);
    upstream.stale()?.answer(&Seen(session.req_header()), asked(x, has_body), now)
}

/// Whether the request has a body that is not empty, or may have one.
fn has_body(session: &mut Session, gathered: Option<&Bytes>) -> bool {
    gathered.map_or_else(|| !session.is_body_done(), |body| !body.is_empty())
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
