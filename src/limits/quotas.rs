//! Quotas over calendar days, weeks and months. Counters are in the state store; blocks of units are taken from them in
//! advance, so that a request as a rule is decided in memory.
//!
//! Who admits a unit has taken it from the counter before, and the counter never exceeds the limit by that: all gateways
//! on one store together admit no more than the limit. A block that is lost with its process was counted and not used.
//!
//! While the store is away, `local` admits what is left as far as this gateway knows, and pays for it when the store is back:
//! each gateway alone keeps the limit then, all of them together may exceed it. What a store did although it failed counts
//! twice.

mod account;
mod bucket;
mod calendar;
mod look;
mod teller;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::MissedTickBehavior;
use tracing::warn;

use self::bucket::SHARDS;
use self::teller::Teller;
use crate::clock;
use crate::observe::metrics::StoreSample;
use crate::state::Store;

pub use self::account::Want;
pub use self::bucket::{Bucket, Moment, Outcome, Terms};
pub use self::calendar::{Calendar, Unit};
pub use self::look::Used;
pub use self::teller::UNITS_MAX;
pub use super::remote::OnStoreError;

/// How often idle accounts are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Parts of each bucket that are swept at once: each has its turn every four intervals.
const SWEPT_AT_ONCE: usize = SHARDS / 4;
/// How long the end of the process waits until everything is given back.
const FLUSH_BOUND: Duration = Duration::from_secs(5);

/// How a quota stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    pub limit: u64,
    /// As far as this gateway knows; what others hold in advance counts as used.
    pub used: u64,
    /// The first moment of the next period.
    pub ends: SystemTime,
    /// How long the period is.
    pub length: Duration,
}

/// What is said to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Admitted(Figures),
    /// The quota is used up.
    Refused(Figures),
    /// The store fails, and `on_store_error` is `deny`; or there are too many accounts.
    Unavailable,
}

/// The quotas of a process.
#[derive(Default)]
pub struct Quotas {
    teller: Arc<Teller>,
    buckets: Mutex<HashMap<Box<str>, Arc<Bucket>>>,
    /// Which parts are swept next.
    turn: AtomicUsize,
}

impl Quotas {
    /// Hands in the store that counters are in. The first one stays.
    pub fn attach(&self, store: Arc<dyn Store>) {
        self.teller.attach(store);
    }

    /// The bucket of this name: the same one for as long as somebody uses it.
    pub fn bucket(&self, name: &str) -> Arc<Bucket> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(buckets.entry(name.into()).or_insert_with(|| Arc::new(Bucket::new(name, &self.teller))))
    }

    /// How it goes with the store.
    pub fn sample(&self) -> StoreSample {
        StoreSample {
            is_up: !self.teller.is_in_episode(),
            errors: self.teller.failures(),
            without: self.teller.without().sample(),
        }
    }

    /// Keeps blocks in order beside the requests, until it is dropped. What requests need of the store is done in the
    /// runtime that this runs in.
    pub async fn keep(&self) {
        self.teller.settle_here();
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sweep(clock::now());
            self.teller.end_episode(clock::now());
            if !self.teller.is_away() {
                self.teller.clear().await;
            }
        }
    }

    /// Has some of the accounts that nobody uses give back what they hold, and forgets buckets that nobody can use.
    fn sweep(&self, now: Instant) {
        let turn = self.turn.fetch_add(SWEPT_AT_ONCE, Ordering::Relaxed);
        for bucket in self.all() {
            for shard in turn..turn.saturating_add(SWEPT_AT_ONCE) {
                bucket.sweep(shard % SHARDS, now, false);
            }
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_empty());
    }

    /// Gives back everything and pays everything, before the process ends. No request may be under way.
    pub async fn flush(&self) {
        let flush = async {
            self.teller.at_rest().await;
            for bucket in self.all() {
                for shard in 0..SHARDS {
                    bucket.sweep(shard, clock::now(), true);
                    self.teller.at_rest().await;
                }
            }
            while self.teller.clear().await {}
        };
        if tokio::time::timeout(FLUSH_BOUND, flush).await.is_err() {
            warn!("the state store did not take back in time what quotas hold; up to a block of each counts as used");
        }
    }

    fn all(&self) -> Vec<Arc<Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
