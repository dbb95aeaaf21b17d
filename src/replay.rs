//! Messages that must not pass twice: who came first, and whether it got through.
//!
//! A message that begins leaves an entry in the state store that says so and ends after a minute. When the message got
//! through, the entry becomes one that stays for the whole window; when it did not, it goes, and whoever sends the message
//! again is let pass. A gateway that dies in between leaves an entry that ends by itself: nothing is ever lost for it. An
//! exchange that takes longer than that minute may so be overtaken by another try.
//!
//! Each gateway notes the same in memory of its own, so that what it knows itself needs no store: a store that fails is not
//! asked again on the path of a request until it has proved itself beside it.

mod entry;
mod local;
mod right;
mod settling;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use self::entry::{Claim, Found, Owners};
use self::local::Local;
use self::right::Right;
use self::settling::Settling;
use crate::context::Once;
use crate::observe::metrics::{ReplaySample, StoreSample};
use crate::state::availability::{Availability, PROBE_INTERVAL, Words};
use crate::state::{Now, Store, StoreError, wall};

/// What names a message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Who asks: messages of different scopes never meet.
    pub scope: &'a str,
    /// Where it goes. The same message may be meant for several, each of which gets it once.
    pub route: &'a str,
    /// Who sent it.
    pub provider: &'a str,
    /// Made of what the sender signed.
    pub delivery: &'a str,
}

/// Whether a message may pass.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It may. When the right is dropped without a word, the next one may.
    First(Arc<dyn Once>),
    /// It got through before.
    Delivered,
    /// It is on its way.
    InProgress,
    /// Nobody knows, and that is not to be risked.
    Unavailable,
}

/// What becomes of a message while the state store cannot be asked whether it passed before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OnReplayStoreError")]
pub enum OnStoreError {
    /// Each gateway goes by what it knows itself.
    #[default]
    Local,
    /// Every message passes, the second time too.
    Allow,
    /// No message passes, unless this gateway knows that it got through: then it is answered as such.
    Deny,
}

/// How long a message may be on its way before somebody else may try.
const IN_PROGRESS: Duration = Duration::from_secs(60);
/// How long a request waits for the store at most.
const CLAIM_PATIENCE: Duration = Duration::from_millis(500);

/// What is known of messages beyond one snapshot.
pub struct Replay {
    inner: Arc<Inner>,
}

struct Inner {
    store: OnceLock<Arc<dyn Store>>,
    local: Local,
    owners: Owners,
    now: Now,
    availability: Availability,
    settling: Settling,
    without: Without,
}

/// Messages that were decided on without the store, by policy.
#[derive(Default)]
struct Without {
    local: AtomicU64,
    allow: AtomicU64,
    deny: AtomicU64,
}

impl Default for Replay {
    fn default() -> Self {
        Self::with_clock(wall(), local::LIMITS, PROBE_INTERVAL)
    }
}

impl Replay {
    fn with_clock(now: Now, limits: crate::state::Limits, probe_interval: Duration) -> Self {
        let words = Words {
            failed: "messages that come again are told by each gateway alone: the state store failed or is full. Look \
                     at it and the way to it; until it answers, each `webhook` goes by its `on_store_error`",
            again: "messages that come again are told by the state store again",
        };
        Self {
            inner: Arc::new(Inner {
                store: OnceLock::new(),
                local: Local::new(limits, Arc::clone(&now)),
                owners: Owners::default(),
                now,
                availability: Availability::new(probe_interval, words),
                settling: Settling::default(),
                without: Without::default(),
            }),
        }
    }

    /// Hands in the state store, once it is open. The first one stays.
    pub fn attach(&self, store: Arc<dyn Store>) {
        let _ = self.inner.store.set(store);
    }

    /// Begins with a message, unless another has begun or is done with it. What got through is remembered for `window`.
    /// Takes at most half a second, and no time while the store is known to fail.
    pub async fn begin(&self, message: Message<'_>, window: Duration, on_error: OnStoreError) -> Begun {
        let inner = &self.inner;
        let claim = Claim::new(message, window, &inner.owners, (inner.now)());
        let noted = inner.availability.noted();
        let store = inner.store.get();
        if store.is_some() && !noted.is_up() && on_error == OnStoreError::Allow {
            inner.without.count(on_error);
            return Begun::First(Arc::new(Right::unnoted(inner, claim)));
        }
        let has_room = match inner.local.claim(&claim) {
            Ok(Found::Delivered) => return Begun::Delivered,
            Ok(Found::InProgress) => return Begun::InProgress,
            Ok(Found::Nothing) => true,
            Err(_) => false,
        };
        // From here on whoever stops waiting lets go of it.
        let mut right = Right::unnoted(inner, claim);
        right.noted = has_room;
        let Some(store) = store else { return right.alone(has_room, on_error) };
        if noted.is_up() {
            right.stored = true;
            match inner.ask(store, right.claim()).await {
                Ok(Found::Nothing) => return Begun::First(Arc::new(right)),
                Ok(found) => {
                    right.stored = false;
                    return if found == Found::Delivered { Begun::Delivered } else { Begun::InProgress };
                }
                Err(error) => inner.availability.failed(noted, &error.0),
            }
        }
        inner.without.count(on_error);
        right.alone(has_room, on_error)
    }

    /// Looks after the store, and tells it what became of messages, for as long as the process lives.
    pub async fn keep(self: Arc<Self>) {
        let inner = &self.inner;
        let Some(store) = inner.store.get() else { return };
        if let Err(error) = inner.probe(store).await {
            inner.availability.failed(inner.availability.noted(), &error.0);
        }
        let probe = || async { inner.probe(store).await.is_ok() };
        tokio::join!(inner.availability.keep(probe, || inner.without.total()), settling::keep(inner, store));
    }

    /// Waits until the store was told what became of the messages so far: the last thing that a gateway does. Bounded.
    pub async fn flush(&self) {
        self.inner.settling.idle(|| self.inner.availability.is_up()).await;
    }

    /// How it goes with the store.
    pub fn sample(&self) -> ReplaySample {
        let Inner { availability, without, settling, local, .. } = &*self.inner;
        let store =
            StoreSample { is_up: availability.is_up(), errors: availability.errors(), without: without.sample() };
        ReplaySample { store, noted: local.len(), untold: settling.lost() }
    }
}

impl Inner {
    async fn ask(&self, store: &Arc<dyn Store>, claim: &Claim) -> Result<Found, StoreError> {
        let late = |_| StoreError(format!("it did not answer within {CLAIM_PATIENCE:?}"));
        tokio::time::timeout(CLAIM_PATIENCE, claim.make(&**store)).await.map_err(late)?
    }

    /// Finds out whether the store takes entries: a full one reads well.
    async fn probe(&self, store: &Arc<dyn Store>) -> Result<(), StoreError> {
        let claim = Claim::probe(&self.owners, (self.now)());
        self.ask(store, &claim).await?;
        claim.release(&**store).await
    }
}

impl Without {
    fn count(&self, policy: OnStoreError) {
        let count = match policy {
            OnStoreError::Local => &self.local,
            OnStoreError::Allow => &self.allow,
            OnStoreError::Deny => &self.deny,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn sample(&self) -> [(&'static str, u64); 3] {
        [("local", &self.local), ("allow", &self.allow), ("deny", &self.deny)]
            .map(|(policy, count)| (policy, count.load(Ordering::Relaxed)))
    }

    fn total(&self) -> u64 {
        self.sample().iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests;
