//! What all snapshots of a process have in common.

use std::hash::RandomState;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use reqwest::Url;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::Reason;
use super::jwks::{KeySets, Source};
use super::managed::ManagedKeys;
use super::passwords::Hashing;
use super::revocations::Revocations;
use super::token_service::{Attempts, Clients};
use crate::caller::{Caller, Credential};
use crate::clock;
use crate::observe::audit::AuditLog;
use crate::state::{Mark, Store, StoreError};

/// How often counters of use are added to the store; so much of them is lost with a process that is killed.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is asked what other gateways wrote.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// How often managed keys are read again, in times of that: for what has ended.
const FOLLOWS_PER_READ: u32 = 3600;

/// What identity knows beyond one snapshot.
#[derive(Default)]
pub struct Shared {
    store: OnceLock<Arc<dyn Store>>,
    audit: OnceLock<Arc<AuditLog>>,
    /// Key sets that are fetched.
    pub key_sets: KeySets,
    managed: ManagedKeys,
    generations: AtomicU64,
    /// How many times something was revoked.
    told_revoked: watch::Sender<u64>,
    /// Tokens that were taken back.
    pub revocations: Revocations,
    /// The store did not say yet which those are.
    revocations_unread: AtomicBool,
    /// Whether managed keys can be read, and counters of use be written.
    reading: Episodes,
    flushing: Episodes,
    /// Failed logins.
    pub(super) attempts: Attempts,
    /// Where passwords are checked.
    pub(super) hashing: Hashing,
    /// Connections to services that know users.
    pub(super) clients: Clients,
    /// Which user's hash is checked for a name that nobody has: the same one throughout.
    pub(super) names: RandomState,
}

/// Up to where it is known what was written in the store.
#[derive(Default)]
struct Followed {
    keys: Mark,
    revocations: Mark,
    times: u32,
    asking: Episodes,
}

/// Times in which the store fails. Each is told once.
#[derive(Default)]
struct Episodes(AtomicBool);

impl Episodes {
    /// The failure, if it is the first one since the last success.
    fn begins(&self, failure: Option<StoreError>) -> Option<StoreError> {
        let told = self.0.swap(failure.is_some(), Ordering::Relaxed);
        failure.filter(|_| !told)
    }
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Shared {
    /// Hands in the state store, once it is open. The first one stays.
    pub fn attach(&self, store: Arc<dyn Store>) {
        let _ = self.store.set(store);
        self.managed.expect_keys();
    }

    /// Hands in the audit log, once it is open. The first one stays.
    pub fn attach_audit(&self, log: Arc<AuditLog>) {
        let _ = self.audit.set(log);
    }

    /// The audit log, when there is one. In `tollgate check`, `test` and `explain` there is none.
    pub fn audit(&self) -> Option<&Arc<AuditLog>> {
        self.audit.get()
    }

    /// Reads from the store what requests ask for in memory. Nothing is served before that was tried.
    ///
    /// # Errors
    /// The store is not open or does not answer. Until [`Shared::keep`] succeeds with it, no token is accepted.
    pub async fn load(&self) -> Result<(), StoreError> {
        let loaded = self.revocations.load(&**self.store()?, clock::wall()).await;
        self.revocations_unread.store(loaded.is_err(), Ordering::Release);
        loaded
    }

    /// Whether the tokens of a caller were taken back.
    ///
    /// # Errors
    /// They were, or nobody can say.
    pub(super) fn check_revoked(&self, caller: &Caller) -> Result<(), Reason> {
        if self.is_revoked(caller) {
            return Err(Reason::Revoked);
        }
        let token = matches!(caller.credential, Credential::Token { .. });
        if token && self.revocations_unread.load(Ordering::Acquire) { Err(Reason::KeysUnavailable) } else { Ok(()) }
    }

    /// Takes back the token or login `id`, whose last token ends at `ends`.
    ///
    /// # Errors
    /// The store failed; in this process it is taken back nevertheless.
    pub async fn revoke(&self, id: &str, ends: SystemTime, now: SystemTime) -> Result<(), StoreError> {
        let added = self.revocations.add(&**self.store()?, id, ends, now).await;
        self.tell_revoked();
        added
    }

    /// The state store.
    ///
    /// # Errors
    /// It is not open: in `tollgate check`, `test` and `explain` it never is.
    pub fn store(&self) -> Result<&Arc<dyn Store>, StoreError> {
        self.store.get().ok_or_else(|| StoreError("it is not open".to_owned()))
    }

    /// Whether the token of a caller was taken back.
    pub fn is_revoked(&self, caller: &Caller) -> bool {
        self.revocations.cover(caller)
    }

    /// The keys that are kept in the state store.
    pub fn managed(&self) -> &ManagedKeys {
        &self.managed
    }

    /// Reads the managed keys. Where that fails it is tried again by [`Shared::keep`], and until then an unknown key is
    /// refused as one that cannot be looked up.
    pub async fn read_keys(&self) {
        let Ok(store) = self.store() else { return };
        let read = self.managed.load(store.as_ref(), clock::wall()).await;
        if let Some(error) = self.reading.begins(read.err()) {
            warn!(%error, "managed API keys could not be read");
        }
    }

    /// Adds counters of use to the store.
    pub async fn flush(&self) {
        let Ok(store) = self.store() else { return };
        let flushed = self.managed.flush(store.as_ref()).await;
        if let Some(error) = self.flushing.begins(flushed.err()) {
            warn!(%error, "the use of API keys could not be written down; it is kept and tried again");
        }
    }

    /// Keeps store and memory together, beside the requests, until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        let flush = async {
            let mut ticks = interval(FLUSH_INTERVAL);
            loop {
                ticks.tick().await;
                self.flush().await;
            }
        };
        let follow = async {
            let mut followed = Followed::default();
            let mut ticks = interval(FOLLOW_INTERVAL);
            loop {
                ticks.tick().await;
                self.follow(&mut followed).await;
            }
        };
        // Apart, so that many counters do not delay the news that a key was revoked.
        tokio::join!(flush, follow);
    }

    /// Takes over what other gateways wrote since the last time, and what could not be read before.
    async fn follow(&self, followed: &mut Followed) {
        followed.times = followed.times.wrapping_add(1);
        let Ok(store) = self.store() else { return };
        if self.revocations_unread.load(Ordering::Acquire) && self.load().await.is_ok() {
            info!("revocations could be read");
        }
        if !self.managed.is_loaded() || followed.times.is_multiple_of(FOLLOWS_PER_READ) {
            self.read_keys().await;
        }
        let now = clock::wall();
        let keys = self.managed.follow(store.as_ref(), &mut followed.keys, now).await;
        let revoked = self.revocations.follow(store.as_ref(), &mut followed.revocations, now).await;
        if matches!(keys, Ok(true)) || matches!(revoked, Ok(true)) {
            self.tell_revoked();
        }
        if let Some(error) = followed.asking.begins(keys.and(revoked).err()) {
            warn!(%error, "what other gateways revoke is not known until the state store answers");
        }
    }

    /// The key set at this address. When it changes, that is told like a revocation: a key may have been withdrawn.
    pub(super) fn key_set(&self, url: &Url) -> Arc<Source> {
        self.key_sets.source(url, &self.told_revoked)
    }

    /// A number for the next snapshot; 0 is that of none.
    pub(super) fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// To be called whenever a credential may have been revoked: open WebSockets with `close_on: [key_revoked]` ask again whether theirs
    /// still holds.
    pub fn tell_revoked(&self) {
        self.told_revoked.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Tells whenever something was revoked.
    pub fn revoked(&self) -> watch::Receiver<u64> {
        self.told_revoked.subscribe()
    }
}

#[cfg(test)]
mod tests;
