//! Inboxes: requests that are stored before they are acknowledged, and delivered afterwards.
//!
//! A handler puts a [`Message`] into a [`Queue`] and acknowledges it once that says [`Put::Stored`]. From then on it is lost to
//! nothing that the backend survives. A worker claims it, delivers it, and settles the claim. Whoever claims a message may
//! die before that, so a message may be delivered more than once: [`Claimed::attempt`] tells.

mod account;
mod file;
mod packed;
mod redis;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::observe::metrics::Metrics;
use crate::observe::webhooks::WebhookLog;
use crate::state::StoreError;

pub use account::{Account, Fate, Names, Service};
pub use file::File;
pub use redis::RedisQueue;

/// Most entries that [`Queue::list`] gives at once.
pub const LIST_MAX: usize = 1000;

/// What a [`Queue`] returns.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A request to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Unique among all messages of all gateways; in the order of arrival as far as clocks agree.
    pub id: String,
    /// The name of the inbox.
    pub inbox: Arc<str>,
    /// The `Idempotency-Key`: the same for every delivery of the same thing. Of a verified webhook, what names it in what its
    /// sender signed; otherwise `id`.
    pub delivery: String,
    /// Messages of an inbox with the same key are delivered one after the other. `None`: in any order.
    pub order: Option<String>,
    /// When it arrived; whole milliseconds.
    pub received: SystemTime,
    pub request_id: String,
    pub route: String,
    /// Whose webhook it is.
    pub provider: Option<String>,
    pub method: String,
    /// Path and query.
    pub target: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Bytes,
}

impl Message {
    /// What it takes of [`Bounds::bytes_max`]: the text of its head, and its body.
    pub fn bytes(&self) -> u64 {
        self.head_bytes().saturating_add(long(self.body.len()))
    }

    fn head_bytes(&self) -> u64 {
        let text = [&self.id, &self.delivery, &self.request_id, &self.route, &self.method, &self.target];
        let options = [&self.order, &self.provider].into_iter().flatten();
        let text = text.into_iter().chain(options).map(String::len);
        let fields = self.fields.iter().map(|(name, value)| name.len().saturating_add(value.len()));
        long(text.chain(fields).fold(0, usize::saturating_add))
    }
}

fn long(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// How much an inbox holds at most. Dead messages count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub messages_max: u64,
    /// Of heads and bodies together.
    pub bytes_max: u64,
}

/// What became of a message that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is kept, as the backend promises.
    Stored,
    /// The inbox is full; nothing was stored.
    Full,
}

/// A message that a worker has for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub message: Message,
    /// The first is 1. From 2 on it may have been delivered before.
    pub attempt: u32,
}

impl Claimed {
    /// In place of `attempt`: it was never stored, and nothing that is sent says that it was.
    pub const NO_DELIVERY: u32 = 0;
}

/// Messages to deliver, and when there may be more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    pub messages: Vec<Claimed>,
    /// When to ask again, unless [`Queue::changed`] comes first: when the next delayed message is due, or the next claim runs
    /// out; at once, when more could have been claimed if they were not so large. It says nothing of messages beyond as
    /// many as were asked for. `None`: no time is known.
    pub next: Option<SystemTime>,
}

/// How a claim ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is removed.
    Delivered,
    /// It is to be tried again, not before `due`.
    Retry { due: SystemTime, why: String },
    /// It is kept, but not tried again unless somebody says so.
    Dead { why: String },
    /// It was not sent: the attempt does not count.
    Returned,
}

/// Where a message is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It can be claimed, or waits for one before it with the same order.
    Ready,
    /// It is tried again later.
    Delayed,
    /// A worker has it.
    Claimed,
    /// It was given up.
    Dead,
}

/// A message and how it stands, for those who operate the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub message: Message,
    pub standing: Standing,
    /// How often a worker had it.
    pub attempts: u32,
    /// When it can be claimed; of a claimed one, when the claim runs out.
    pub due: Option<SystemTime>,
    /// What went wrong the last time.
    pub why: Option<String>,
}

/// How much an inbox holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub ready: u64,
    pub delayed: u64,
    pub claimed: u64,
    pub dead: u64,
    /// Of all of them.
    pub bytes: u64,
    /// When the oldest arrived that is not dead.
    pub oldest: Option<SystemTime>,
}

/// Keeps messages until they are delivered. Every operation is atomic. No caller waits longer than the backend's own bound.
///
/// Several gateways may work on one inbox: a message is claimed by one at a time. Of messages with the same order only the
/// first that is neither delivered nor dead can be claimed, and none while another is claimed.
pub trait Queue: Send + Sync + 'static {
    /// Stores a message; of one that is there already (by its id) nothing changes.
    fn put(&self, message: Message, bounds: Bounds) -> Pending<'_, Put>;

    /// Up to `most` messages that are due, the first stored first. They are the worker's for `lease`; then others get them.
    /// Fewer when their bodies are large, but at least one.
    fn claim<'a>(&'a self, inbox: &'a str, most: usize, lease: Duration, now: SystemTime) -> Pending<'a, Claims>;

    /// Prolongs a claim; whether it was still held.
    fn renew<'a>(&'a self, claimed: &'a Claimed, lease: Duration, now: SystemTime) -> Pending<'a, bool>;

    /// Ends a claim. `false`: it had run out and somebody else has the message, or it is gone; nothing changes then.
    fn settle<'a>(&'a self, claimed: &'a Claimed, outcome: Outcome, now: SystemTime) -> Pending<'a, bool>;

    /// Resolves when this process has put something since the last time, or made a message ready, or due at another time.
    /// It may resolve without that too. Who makes it before a claim and awaits it after that misses nothing, however many do.
    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    fn counts<'a>(&'a self, inbox: &'a str, now: SystemTime) -> Pending<'a, Counts>;

    /// Names of the inboxes that hold something.
    fn inboxes(&self) -> Pending<'_, Vec<String>>;

    /// Up to `limit` messages, and at most [`LIST_MAX`], without their bodies in the order they were stored, from behind the one
    /// with the id `after` on.
    fn list<'a>(
        &'a self,
        inbox: &'a str,
        standing: Option<Standing>,
        after: Option<&'a str>,
        limit: usize,
        now: SystemTime,
    ) -> Pending<'a, Vec<Entry>>;

    fn show<'a>(&'a self, inbox: &'a str, id: &'a str, now: SystemTime) -> Pending<'a, Option<Entry>>;

    /// Makes a dead or delayed message ready, with all attempts before it: the next is its first again. `false`: there is none,
    /// or a worker has it.
    fn replay<'a>(&'a self, inbox: &'a str, id: &'a str, now: SystemTime) -> Pending<'a, bool>;

    /// Removes a message. `false`: there is none, or a worker has it.
    fn discard<'a>(&'a self, inbox: &'a str, id: &'a str, now: SystemTime) -> Pending<'a, bool>;
}

/// What inboxes know beyond one snapshot.
#[derive(Default)]
pub struct Inboxes {
    queue: OnceLock<Arc<dyn Queue>>,
    metrics: OnceLock<Arc<Metrics>>,
    log: OnceLock<Arc<WebhookLog>>,
}

impl Inboxes {
    /// Hands in where messages are kept, once it is open. The first one stays.
    pub fn attach(&self, queue: Arc<dyn Queue>) {
        let _ = self.queue.set(queue);
    }

    /// Hands in where messages are counted. The first one stays.
    pub fn attach_metrics(&self, metrics: Arc<Metrics>) {
        let _ = self.metrics.set(metrics);
    }

    /// Hands in where it is written what becomes of messages. The first one stays.
    pub fn attach_log(&self, log: Arc<WebhookLog>) {
        let _ = self.log.set(log);
    }

    /// What was handed in. In `tollgate check`, `test` and `explain` there is none.
    pub fn queue(&self) -> Option<&Arc<dyn Queue>> {
        self.queue.get()
    }
}
