//! To deliver messages again, or to remove them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::IntoResponse;
use futures_util::future::join_all;
use tracing::info;

use super::shown::{Changed, Several};
use super::{Answer, away, known, no_message, queue};
use crate::admin::Admin;
use crate::clock;
use crate::inbox::{Account, Entry, Message, Queue, Standing};
use crate::observe::webhooks::Step;
use crate::reply::{Code, Rejection};
use crate::state::StoreError;

/// When work with many messages stops, to go on with the next request: well within the time of a connection.
const BUDGET: Duration = Duration::from_secs(10);
/// Messages that are changed at once: a store that syncs does so once for all of them.
const AT_ONCE: usize = 50;

/// What is done to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Replay,
    Discard,
}

impl Change {
    /// Whether many messages that stand so can be changed at once.
    pub fn takes(self, standing: Standing) -> bool {
        match self {
            Self::Replay => matches!(standing, Standing::Dead | Standing::Delayed),
            Self::Discard => standing != Standing::Claimed,
        }
    }

    /// The same, in words.
    pub fn standings(self) -> &'static str {
        match self {
            Self::Replay => "dead or delayed",
            Self::Discard => "dead, delayed or ready",
        }
    }

    fn step(self) -> Step {
        match self {
            Self::Replay => Step::Replayed,
            Self::Discard => Step::Discarded,
        }
    }

    async fn make(self, queue: &dyn Queue, inbox: &str, id: &str) -> Result<bool, StoreError> {
        match self {
            Self::Replay => queue.replay(inbox, id, clock::wall()).await,
            Self::Discard => queue.discard(inbox, id, clock::wall()).await,
        }
    }
}

pub async fn one(admin: &Admin, inbox: &str, id: &str, change: Change) -> Answer {
    let queue = queue(admin)?;
    let Some(entry) = queue.show(inbox, id, clock::wall()).await.map_err(away)? else {
        return Err(no_message(&admin.live.current(), &**queue, inbox, id).await);
    };
    let is_ready = entry.standing == Standing::Ready && change == Change::Replay;
    if is_ready || !change.make(&**queue, inbox, id).await.map_err(away)? {
        return Err(busy(&entry));
    }
    tell(admin, &entry.message, change);
    let what = change.step().as_str();
    // Whoever asks chooses what is written: quoted, so that it cannot look like another line.
    info!(?inbox, ?id, "a message was {what}");
    let (inbox, id) = (inbox.to_owned(), id.to_owned());
    Ok(axum::Json(Changed { inbox, id, result: what.to_owned() }).into_response())
}

/// Why a message that is there cannot be changed now.
fn busy(entry: &Entry) -> Box<Rejection> {
    let message = match entry.standing {
        Standing::Ready => "it waits to be delivered already",
        Standing::Claimed => "a worker has it: it is just being delivered",
        Standing::Delayed | Standing::Dead => "its standing has just changed: look again",
    };
    Box::new(Rejection::new(Code::IN_PROGRESS, message))
}

/// Which messages.
pub struct Of<'a> {
    pub inbox: &'a str,
    pub standing: Standing,
    pub after: Option<&'a str>,
    pub limit: usize,
}

pub async fn several(admin: &Admin, of: Of<'_>, change: Change) -> Answer {
    let queue = queue(admin)?;
    known(&admin.live.current(), &**queue, of.inbox).await?;
    let listed = queue.list(of.inbox, Some(of.standing), of.after, of.limit, clock::wall()).await;
    let entries = listed.map_err(away)?;
    let (what, started) = (change.step().as_str(), clock::now());
    let (mut changed, mut seen) = (0_usize, 0_usize);
    for some in entries.chunks(AT_ONCE) {
        let made = join_all(some.iter().map(|entry| change.make(&**queue, of.inbox, &entry.message.id))).await;
        let mut failed = None;
        for (entry, made) in some.iter().zip(made) {
            match made {
                Ok(true) => {
                    tell(admin, &entry.message, change);
                    changed = changed.saturating_add(1);
                }
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            info!(inbox = ?of.inbox, changed, "some messages were {what} before the state store failed");
            let rejection = away(error);
            return Err(Box::new(rejection.with_detail(what, changed)));
        }
        seen = seen.saturating_add(some.len());
        if is_over(started) {
            break;
        }
    }
    info!(inbox = ?of.inbox, changed, "messages were {what}");
    let is_whole = seen == entries.len() && entries.len() < of.limit;
    let last = seen.checked_sub(1).and_then(|last| entries.get(last));
    let next = last.filter(|_| !is_whole).map(|entry| entry.message.id.clone());
    let left = seen.saturating_sub(changed);
    let several = Several { inbox: of.inbox.to_owned(), result: what.to_owned(), count: changed, left, next };
    Ok(axum::Json(several).into_response())
}

fn is_over(started: Instant) -> bool {
    clock::now().saturating_duration_since(started) >= BUDGET
}

fn tell(admin: &Admin, message: &Message, change: Change) {
    Account::new(Arc::clone(&message.inbox), &admin.inboxes).changed(message, change.step(), clock::wall());
}
