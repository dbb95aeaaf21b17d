//! What is told of messages: counters, and the lines of the webhook log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Claimed, Inboxes, Message};
use crate::observe::metrics::InboxMetrics;
use crate::observe::webhooks::{Event, Kept, Step, What};

/// Counts and logs what becomes of the messages of one inbox.
pub struct Account {
    inbox: Arc<str>,
    /// `None` where nothing is served.
    counters: Option<Arc<InboxMetrics>>,
    inboxes: Arc<Inboxes>,
}

/// What names a message in the log, while the message itself is with the queue.
pub struct Names {
    id: String,
    request_id: String,
    route: String,
    provider: Option<String>,
    delivery: String,
}

/// What a delivery came to, for the log.
#[derive(Clone, Copy, Debug)]
pub enum Fate<'a> {
    Delivered,
    /// It is tried again at this time.
    Retry(SystemTime, &'a str),
    Dead(&'a str),
}

/// Whom a message was sent to, and what they said; for the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Service {
    /// The address that was tried last, if there was one.
    pub target: Option<SocketAddr>,
    /// What it answered, if it did.
    pub status: Option<u16>,
}

impl Account {
    pub fn new(inbox: Arc<str>, inboxes: &Arc<Inboxes>) -> Self {
        let counters = inboxes.metrics.get().map(|metrics| metrics.inbox(&inbox));
        Self { inbox, counters, inboxes: Arc::clone(inboxes) }
    }

    /// What [`Account::stored`] needs to know; `None` where there is no log.
    pub fn names(&self, message: &Message) -> Option<Names> {
        self.inboxes.log.get()?;
        Some(Names {
            id: message.id.clone(),
            request_id: message.request_id.clone(),
            route: message.route.clone(),
            provider: message.provider.clone(),
            delivery: message.delivery.clone(),
        })
    }

    pub fn stored(&self, names: Option<&Names>, time: SystemTime) {
        if let Some(counters) = &self.counters {
            counters.stored();
        }
        if let (Some(log), Some(names)) = (self.inboxes.log.get(), names) {
            log.record(&Event {
                time,
                request_id: Some(&names.request_id),
                route: Some(&names.route),
                provider: names.provider.as_deref(),
                delivery: Some(&names.delivery),
                what: What::Kept(Kept::new(Step::Stored, &self.inbox, &names.id)),
            });
        }
    }

    /// The reason is `full` or `unavailable`.
    pub fn refused(&self, reason: &'static str) {
        if let Some(counters) = &self.counters {
            counters.refused(reason);
        }
    }

    /// An operator did something with it: [`Step::Replayed`] or [`Step::Discarded`].
    pub fn changed(&self, message: &Message, step: Step, time: SystemTime) {
        self.log(message, Kept::new(step, &self.inbox, &message.id), time);
    }

    /// A delivery ended.
    pub fn ended(&self, claimed: &Claimed, fate: Fate<'_>, service: Service, time: SystemTime) {
        let message = &claimed.message;
        let age = time.duration_since(message.received).unwrap_or_default();
        if let Some(counters) = &self.counters {
            match fate {
                Fate::Delivered => counters.delivered(age),
                Fate::Retry(..) => counters.retried(),
                Fate::Dead(_) => counters.dead(),
            }
        }
        let (step, why, due) = match fate {
            Fate::Delivered => (Step::Delivered, None, None),
            Fate::Retry(due, why) => (Step::Retry, Some(why), Some(due)),
            Fate::Dead(why) => (Step::Dead, Some(why), None),
        };
        let Service { target, status } = service;
        let (attempt, age) = (Some(claimed.attempt), Some(age));
        let kept = Kept { attempt, status, why, target, due, age, ..Kept::new(step, &self.inbox, &message.id) };
        self.log(message, kept, time);
    }

    fn log(&self, message: &Message, kept: Kept<'_>, time: SystemTime) {
        let Some(log) = self.inboxes.log.get() else { return };
        log.record(&Event {
            time,
            request_id: Some(&message.request_id),
            route: Some(&message.route),
            provider: message.provider.as_deref(),
            delivery: Some(&message.delivery),
            what: What::Kept(kept),
        });
    }
}
