//! What the operator is told of failed exchanges.
//!
//! Every one is in the access log, with its code. The reason goes to the error log, for each worker once a second at most:
//! an upstream that is down must not fill the disk.

use std::cell::Cell;
use std::time::{Duration, Instant};

use pingora::Error;
use tracing::warn;

use super::exchange::Exchange;
use crate::clock;

const EVERY: Duration = Duration::from_secs(1);

thread_local! {
    /// When this worker last wrote, and how many it kept to itself since.
    static LAST: Cell<(Option<Instant>, u64)> = const { Cell::new((None, 0)) };
}

/// Says why an exchange failed.
pub fn failure(error: &Error, exchange: &Exchange) {
    let now = clock::now();
    let (last, kept) = LAST.get();
    if last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
        LAST.set((last, kept.saturating_add(1)));
        return;
    }
    LAST.set((Some(now), 0));
    let forward = exchange.forward.as_ref();
    warn!(
        upstream = forward.map(|forward| &*forward.upstream.name),
        // Not `target`: in JSON that is the module which speaks.
        address = forward.and_then(|forward| forward.address).map(tracing::field::display),
        route = exchange.route.as_ref().map(|route| &*route.name),
        request_id = exchange.context.as_ref().map(|context| context.request_id.as_str()),
        code = exchange.code.map(|code| code.name),
        %error,
        not_shown = kept,
        "a request failed"
    );
}
