//! How long an upgraded connection may live: as long as the credential of its caller.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::edge::{Closer, Connection};
use crate::caller::Caller;
use crate::clock;
use crate::context::{CloseOn, Context};
use crate::identity::Reason;
use crate::live::Live;
use crate::observe::metrics::Metrics;
use crate::reply::websocket::{POLICY_VIOLATION, close_frame};

/// How long an end may take that is agreed on with the client: the rest of a frame, the close frame, the answer to it.
pub const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// The time of day can be set: longer than this no look at it is trusted.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Watches over one connection until it is dropped.
pub struct Tenure(JoinHandle<()>);

impl Drop for Tenure {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Tenure {
    /// Begins to watch, when a filter asked for it. To be called before the head of the 101 is sent.
    pub fn begin(connection: &Connection, context: &Context, live: &Arc<Live>, metrics: &Arc<Metrics>) -> Option<Self> {
        let caller = context.caller.clone().filter(|_| context.close_on.any())?;
        let watch = Watch { live: Arc::clone(live), caller, close_on: context.close_on };
        let (closer, metrics) = (Arc::clone(connection.closer()), Arc::clone(metrics));
        Some(Self(tokio::spawn(async move {
            let reason = watch.ended().await;
            metrics.socket_closed(reason.as_str());
            close(&closer, close_frame(POLICY_VIOLATION, message(reason)).into()).await;
        })))
    }
}

/// Closes a connection with this frame, in bounded time.
async fn close(closer: &Closer, frame: Bytes) {
    closer.close(frame);
    tokio::time::sleep(CLOSE_WAIT).await;
    closer.cut();
}

/// What the client learns.
fn message(reason: Reason) -> &'static str {
    if reason == Reason::Expired { "the credential has expired" } else { "the credential is not valid any more" }
}

struct Watch {
    live: Arc<Live>,
    caller: Arc<Caller>,
    close_on: CloseOn,
}

impl Watch {
    /// Waits until the right to the connection ends; says why.
    async fn ended(&self) -> Reason {
        // Before the first look: whatever changes from now on is told.
        let mut swapped = self.live.subscribe();
        let mut revoked = self.live.current().identity.shared().revoked();
        loop {
            let now = clock::wall();
            if let Some(reason) = self.over(now) {
                return reason;
            }
            let left = self.caller.expires.and_then(|expires| expires.duration_since(now).ok());
            let look = left.filter(|_| self.close_on.token_expiry).unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
            // Neither sender is gone before the process ends; a closed one must not spin.
            let told = async {
                tokio::select! {
                    swapped = swapped.changed() => swapped,
                    revoked = revoked.changed() => revoked,
                }
            };
            if let Ok(Err(_)) = tokio::time::timeout(look, told).await {
                tokio::time::sleep(look).await;
            }
        }
    }

    fn over(&self, now: SystemTime) -> Option<Reason> {
        let expires = self.caller.expires.filter(|expires| *expires <= now);
        if self.close_on.token_expiry && expires.is_some() {
            return Some(Reason::Expired);
        }
        if !self.close_on.key_revoked {
            return None;
        }
        // Where expiry ends nothing, what counts is whether it would hold but for that.
        let then = expires.and_then(|expires| expires.checked_sub(Duration::from_millis(1))).unwrap_or(now);
        self.live.current().identity.still_holds(&self.caller, then).err()
    }
}

#[cfg(test)]
mod tests;
