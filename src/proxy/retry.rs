//! Whether another try follows one that failed. Decided when a try fails, while an answer can still be passed on instead.
//!
//! Pingora drives the tries: it makes another one when the error of the last one says so. What failed is told of its target
//! first, so that the choice of the next one knows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::response;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use super::exchange::{Exchange, Forward};
use super::failure;
use super::heads::Seen;
use super::sent::Sent;
use super::target::hints;
use super::unprocessed::is_unprocessed;
use crate::clock;
use crate::delivery::retry_after;
use crate::observe::metrics::{RetryReason, UpstreamError};
use crate::upstream::Hints;
use crate::upstream::retry::Reason;

const TOO_MANY_REQUESTS: u16 = 429;
const UNAVAILABLE: u16 = 503;

/// Called before each try: waits for as long as was decided when the one before failed. Meanwhile only the client counts.
pub async fn pause(session: &mut Session, x: &mut Exchange) -> pingora::Result<()> {
    let Some(forward) = x.forward.as_mut().filter(|forward| forward.target.is_some()) else { return Ok(()) };
    forward.to_head = None;
    if let Some(copying) = &mut x.copying {
        copying.begin_again();
    }
    if let Some(connection) = &x.connection {
        // The time of the last try is over; that of the next one begins when it does.
        connection.begin_again();
    }
    let Some(pause) = forward.pause.take().filter(|pause| !pause.is_zero()) else { return Ok(()) };
    if !x.is_gathered() && !session.is_body_done() {
        tokio::time::sleep(pause).await;
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(pause) => Ok(()),
        left = session.downstream_session.read_body_or_idle(true) => {
            Err(left.err().unwrap_or_else(|| Error::new(ErrorType::ConnectionClosed)).into_down())
        }
    }
}

/// No connection to the target came about.
pub fn not_connected(sent: &Sent<'_>, x: &mut Exchange, mut e: Box<Error>) -> Box<Error> {
    let again = fails(sent, x, failure::kind(&e), Some(Reason::Connect), clock::now());
    e.set_retry(again);
    e
}

/// Whether an answer is given up for another try. It is not for the client then.
pub fn discards(sent: &Sent<'_>, head: &response::Parts, x: &mut Exchange, now: Instant) -> bool {
    let Exchange { forward, context, is_shown, .. } = x;
    let Some(forward) = forward.as_mut().filter(|_| !*is_shown) else { return false };
    let status = head.status.as_u16();
    if !forward.upstream.retry.rules.covers(Reason::Status(status)) {
        return false;
    }
    let asked = head.headers.get(RETRY_AFTER).filter(|_| matches!(status, TOO_MANY_REQUESTS | UNAVAILABLE));
    let asked = asked.and_then(|value| retry_after(value.to_str().ok()?, clock::wall()));
    let seen = Seen(sent.head);
    forward.tries_again(sent, &hints(&seen, context.as_ref()), Reason::Status(status), asked, now)
}

/// The error of a try whose answer is given up.
pub fn discarded() -> Box<Error> {
    Error::new_up(ErrorType::Custom("the answer is given up for another try"))
}

/// A try that had a connection ended with an error.
pub fn broke_off(sent: &Sent<'_>, x: &mut Exchange, mut e: Box<Error>, client_reused: bool) -> Box<Error> {
    if x.instead.is_some() {
        e.set_retry(false);
        return e;
    }
    if x.forward.as_ref().is_some_and(|forward| forward.pause.is_some()) {
        e.set_retry(true);
        return e;
    }
    if !sent.is_answered && is_repeatable(sent, x) && is_unprocessed(&e) {
        // The service has done nothing about it: as if there had been no connection.
        let again = fails(sent, x, UpstreamError::Reset, Some(Reason::Connect), clock::now());
        e.set_retry(again);
        return e;
    }
    if is_stale(sent, x, &mut e, client_reused) {
        let is_to_blame = failure::blame(&e, x).is_some();
        if let Some(forward) = x.forward.as_mut().filter(|_| is_to_blame) {
            // A target is not to blame for closing an idle connection: it stays in the choice.
            forward.tried.pop();
            if let Some(target) = &forward.target {
                target.retried(RetryReason::Reused);
            }
        }
    } else if let Some(kind) = failure::blame(&e, x) {
        let reason = match kind {
            UpstreamError::Reset => Some(Reason::Reset),
            UpstreamError::Timeout => Some(Reason::Timeout),
            UpstreamError::Connect | UpstreamError::Tls | UpstreamError::Protocol | UpstreamError::Other => None,
        };
        let again = fails(sent, x, kind, reason, clock::now());
        e.set_retry(again);
    }
    e
}

/// Whether a kept connection turned out to be dead, so that nobody has seen the request. The engine's own rule: only for
/// idempotent methods, only with a body that can be replayed, never after a byte of the response.
fn is_stale(sent: &Sent<'_>, x: &Exchange, e: &mut Box<Error>, client_reused: bool) -> bool {
    let replayable = sent.head.method.is_idempotent() && is_repeatable(sent, x);
    if !replayable || sent.is_answered {
        e.set_retry(false);
        return false;
    }
    // A body that is there at once is often still being written when the connection turns out dead. Pingora takes
    // that for more than a connection that was closed while nobody used it.
    if x.is_gathered() && *e.esource() == ErrorSource::Upstream && *e.etype() == ErrorType::WriteError {
        e.set_retry(client_reused);
    }
    e.retry.decide_reuse(client_reused);
    e.retry()
}

/// Whether the body can be sent once more.
fn is_repeatable(sent: &Sent<'_>, x: &Exchange) -> bool {
    !x.is_shown && sent.is_kept
}

/// A try failed, and the target is to blame. Whether another one follows.
fn fails(sent: &Sent<'_>, x: &mut Exchange, kind: UpstreamError, reason: Option<Reason>, now: Instant) -> bool {
    let Exchange { forward, context, is_shown, .. } = x;
    let Some(forward) = forward else { return false };
    let reason = reason.filter(|_| !*is_shown);
    forward.failed(kind, now);
    let seen = Seen(sent.head);
    let hints = hints(&seen, context.as_ref());
    let again = reason.is_some_and(|reason| forward.tries_again(sent, &hints, reason, None, now));
    if !again {
        forward.gave_up(now);
    }
    again
}

impl Forward {
    /// Decides on another try, and then chooses its target and its pause, and pays for it. `asked`: how long the service asks to
    /// wait.
    fn tries_again(
        &mut self,
        sent: &Sent<'_>,
        hints: &Hints<'_>,
        reason: Reason,
        asked: Option<Duration>,
        now: Instant,
    ) -> bool {
        let upstream = Arc::clone(&self.upstream);
        let rules = &upstream.retry.rules;
        let tries = self.tried.len();
        if tries >= usize::from(rules.attempts) || !rules.covers(reason) {
            return false;
        }
        if reason != Reason::Connect && !(rules.allow(hints.head) && self.can_be_sent_again(sent)) {
            return false;
        }
        if !matches!(reason, Reason::Status(_)) {
            // What the failed try held may be the very place that is looked for. An answer may yet be passed on.
            self.leave();
        }
        let Ok(choice) = upstream.choose(&self.tried, hints, now) else { return false };
        let is_known = self.tried.contains(&choice.index);
        // Another target is not bound by what this one asks for, unless it speaks of the client.
        let asked = asked.filter(|_| is_known || reason == Reason::Status(TOO_MANY_REQUESTS)).unwrap_or_default();
        // Where nothing was sent, nobody is spared by sending it elsewhere later.
        let is_free = reason == Reason::Connect && !is_known;
        let pause = if is_free { Duration::ZERO } else { rules.pause(tries, fastrand::f64()).max(asked) };
        if asked > rules.longest || self.remaining(now).is_some_and(|remaining| remaining <= pause) {
            return false;
        }
        if !is_free && !upstream.retry.charge(now) {
            self.target.iter().for_each(|target| target.retry_refused());
            return false;
        }
        self.target.iter().for_each(|target| target.retried(shown(reason)));
        self.take(choice);
        self.pause = Some(pause);
        true
    }

    /// Whether all that was sent is still there, and nothing came back that the client has seen.
    fn can_be_sent_again(&self, sent: &Sent<'_>) -> bool {
        self.to_head.is_none() && !sent.is_answered && !sent.is_upgrade && sent.is_kept
    }
}

fn shown(reason: Reason) -> RetryReason {
    match reason {
        Reason::Connect => RetryReason::Connect,
        Reason::Reset => RetryReason::Reset,
        Reason::Timeout => RetryReason::Timeout,
        Reason::Status(_) => RetryReason::Status,
    }
}
