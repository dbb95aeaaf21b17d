//! Buckets in the memory of one gateway: sharded, bounded, swept.

use std::collections::HashMap;
use std::future::ready;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::shard::{Name, Shard};
use super::{Key, Level, Limiter, Pending, Seen, short};
use crate::clock;
use crate::rates::{Ask, Drawn, Rates};

/// Most buckets when nothing is said.
pub const BUCKETS_MAX: usize = 1_000_000;

/// Shards, so that cores seldom wait for each other.
const SHARDS: usize = 256;
/// Slots that are looked at for each new bucket. More than one is taken of so many, so that sweeping is faster than coming.
const SWEPT_PER_INSERT: usize = 8;
/// Slots that are looked at before a lock is let go.
const SLOTS_AT_ONCE: usize = 256;
/// Names that are kept before those are forgotten that no bucket has.
const NAMES_KEPT: usize = 1_024;

/// Buckets in memory, at most so many as [`set_max`](Self::set_max) says.
///
/// A bucket that is as good as new takes no room for long: requests sweep such buckets on their way. When there is no room for
/// a new one, a bucket makes place that is missed little: as good as new, or of a random sample, and there of the limit that has
/// the most in it, the one of which the smallest share is in use. So a flood of addresses, each seen once, drives out its own,
/// neither those that are used up, nor those of another limit, nor is a newcomer refused. Keys are hashed with a secret of the process: nobody chooses keys that meet in one shard.
///
/// The methods that take `now` do their work at once; those of [`Limiter`] are the same, and read the clock.
pub struct Local {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    names: RwLock<Names>,
    /// Buckets in all shards.
    count: AtomicUsize,
    max: AtomicUsize,
    origin: Instant,
}

impl Default for Local {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            names: RwLock::default(),
            count: AtomicUsize::new(0),
            max: AtomicUsize::new(BUCKETS_MAX),
            origin: clock::now(),
        }
    }
}

impl Local {
    /// Takes tokens from a bucket.
    pub fn draw(&self, key: Key<'_>, rates: &Rates, ask: Ask, now: Instant) -> Drawn {
        let now = self.moment(now);
        let who = short(key.who);
        let key = Key { who: &who, ..key };
        let hash = self.hasher.hash_one(key);
        loop {
            if let Some(drawn) = self.try_draw(hash, key, rates, ask, now) {
                return drawn;
            }
            // The shard is empty although all of them together are full.
            self.evict_anywhere(now);
        }
    }

    /// One bucket; `None` while nothing of it is in use.
    pub fn show(&self, key: Key<'_>, now: Instant) -> Option<Seen> {
        let now = self.moment(now);
        let who = short(key.who);
        let key = Key { who: &who, ..key };
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash);
        let level = shard.find(hash, key).filter(|level| level.share(now) > 0.0)?;
        let (bucket, who) = (key.bucket.to_owned(), key.who.to_owned());
        Some(Seen { bucket, who, rates: level.rates().to_vec(), used: level.used(now).collect() })
    }

    /// Fills a bucket. `false` when nothing of it was in use.
    pub fn reset(&self, key: Key<'_>, now: Instant) -> bool {
        let who = short(key.who);
        let key = Key { who: &who, ..key };
        let hash = self.hasher.hash_one(key);
        let removed = self.shard(hash).remove(hash, key);
        self.count.fetch_sub(usize::from(removed.is_some()), Ordering::Relaxed);
        removed.is_some_and(|level| level.share(self.moment(now)) > 0.0)
    }

    /// The buckets of one limit of which the largest share is in use. What changes meanwhile may be left out.
    pub fn top(&self, bucket: &str, most: usize, now: Instant) -> Vec<Seen> {
        let now = self.moment(now);
        let name = self.names.read().unwrap_or_else(PoisonError::into_inner).known.get(bucket).cloned();
        let Some(name) = name else { return Vec::new() };
        let mut found = Vec::new();
        let mut enough = 0.0;
        for shard in &self.shards {
            let mut start: usize = 0;
            while start < locked(shard).slots() {
                let end = start.saturating_add(SLOTS_AT_ONCE);
                found.extend(locked(shard).busy(&name, start..end, enough, now));
                start = end;
                if found.len() > most.saturating_mul(2) {
                    keep_busiest(&mut found, most);
                    enough = found.last().map_or(enough, |(share, _)| *share);
                }
            }
        }
        keep_busiest(&mut found, most);
        found.into_iter().map(|(_, seen)| seen).collect()
    }

    /// Removes all buckets that are as good as new, and gives back their memory: how many. Takes about half a second for a
    /// million; no lock is held for longer than some microseconds.
    pub fn sweep(&self, now: Instant) -> usize {
        let now = self.moment(now);
        let mut removed: usize = 0;
        for shard in &self.shards {
            locked(shard).restart();
            let turns = locked(shard).slots().div_ceil(SLOTS_AT_ONCE);
            // Requests may end the round sooner.
            for turn in 0..turns {
                let mut shard = locked(shard);
                if turn > 0 && shard.is_at_start() {
                    break;
                }
                removed = removed.saturating_add(self.removed(shard.sweep(SLOTS_AT_ONCE, now)));
            }
        }
        removed
    }

    /// How many buckets there may be: at least 1. Those that are too many go at once, those that are missed least first.
    pub fn set_max(&self, max: usize, now: Instant) {
        let (max, now) = (max.max(1), self.moment(now));
        self.max.store(max, Ordering::Relaxed);
        if self.len() <= max {
            return;
        }
        // The same for each shard, so that none has to let go of what is missed while another keeps what is not.
        let share = max.div_ceil(SHARDS);
        for shard in &self.shards {
            while locked(shard).len() > share {
                self.removed(usize::from(locked(shard).evict(now)));
            }
        }
        while self.len() > max {
            self.evict_anywhere(now);
        }
    }

    /// Buckets of one limit that take room, as [`Self::len`] counts them.
    pub fn len_of(&self, bucket: &str) -> usize {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        // Each bucket holds the name, and so does the set of names.
        names.known.get(bucket).map_or(0, |name| Arc::strong_count(name).saturating_sub(1))
    }

    /// Buckets that take room, those included that are as good as new and not swept yet.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For how many buckets memory is held.
    pub fn capacity(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).capacity()).sum()
    }

    /// `None` when there is no room for a new bucket, nor one in this shard that could make place.
    fn try_draw(&self, hash: u64, key: Key<'_>, rates: &Rates, ask: Ask, now: Duration) -> Option<Drawn> {
        let mut shard = self.shard(hash);
        let now = shard.advance(now);
        if let Some(level) = shard.find(hash, key) {
            let drawn = level.draw(rates, ask, now);
            self.removed(shard.sweep_on_hit(now));
            return Some(drawn);
        }
        let mut level = Level::full(rates, now);
        let drawn = level.draw(rates, ask, now);
        if drawn.got > 0.0 {
            self.removed(shard.sweep(SWEPT_PER_INSERT, now));
            if !self.takes_room() && !shard.evict(now) {
                return None;
            }
            shard.insert(hash, self.name(key.bucket), key.who, level);
        }
        Some(drawn)
    }

    /// Counts one more, if there is room for it.
    fn takes_room(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let more = |count: usize| (count < max).then(|| count.saturating_add(1));
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn removed(&self, count: usize) -> usize {
        if count > 0 {
            self.count.fetch_sub(count, Ordering::Relaxed);
        }
        count
    }

    /// Removes one bucket of any shard.
    fn evict_anywhere(&self, now: Duration) {
        let first = fastrand::usize(..SHARDS);
        let shards = self.shards.iter().cycle().skip(first).take(SHARDS);
        let evicted = shards.into_iter().any(|shard| locked(shard).evict(now));
        self.removed(usize::from(evicted));
    }

    /// The one copy of a name that all its buckets share.
    fn name(&self, name: &str) -> Name {
        let known = self.names.read().unwrap_or_else(PoisonError::into_inner).known.get(name).cloned();
        known.unwrap_or_else(|| self.names.write().unwrap_or_else(PoisonError::into_inner).add(name))
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table of a shard goes by the lowest and the highest bits.
        let index = (hash >> 32) as usize % SHARDS;
        // The remainder is always an index; the first shard is never taken in its place.
        #[allow(clippy::indexing_slicing, reason = "there are SHARDS shards")]
        locked(self.shards.get(index).unwrap_or(&self.shards[0]))
    }

    fn moment(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.origin)
    }
}

impl Limiter for Local {
    fn draw<'a>(&'a self, key: Key<'a>, rates: &'a Rates, ask: Ask) -> Pending<'a, Drawn> {
        Box::pin(ready(Ok(Self::draw(self, key, rates, ask, clock::now()))))
    }

    fn show<'a>(&'a self, key: Key<'a>) -> Pending<'a, Option<Seen>> {
        Box::pin(ready(Ok(Self::show(self, key, clock::now()))))
    }

    fn reset<'a>(&'a self, key: Key<'a>) -> Pending<'a, bool> {
        Box::pin(ready(Ok(Self::reset(self, key, clock::now()))))
    }

    fn top<'a>(&'a self, bucket: &'a str, most: usize) -> Pending<'a, Vec<Seen>> {
        Box::pin(ready(Ok(Self::top(self, bucket, most, clock::now()))))
    }
}

/// Names of limits that have buckets.
#[derive(Default)]
struct Names {
    known: HashMap<Box<str>, Name>,
    /// How many there may be before those are forgotten that no bucket has: the configuration may give others at each reload.
    kept: usize,
}

impl Names {
    fn add(&mut self, name: &str) -> Name {
        if let Some(known) = self.known.get(name) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.kept.max(NAMES_KEPT) {
            self.known.retain(|_, name| Arc::strong_count(name) > 1);
            self.kept = self.known.len().saturating_mul(2);
        }
        let shared = Arc::new(Box::from(name));
        self.known.insert(name.into(), Arc::clone(&shared));
        shared
    }
}

fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The `most` of which the largest share is in use, in this order; one that was seen in two places, because its table grew
/// meanwhile, once.
fn keep_busiest(found: &mut Vec<(f64, Seen)>, most: usize) {
    found.sort_by(|(a, one), (b, other)| b.total_cmp(a).then_with(|| one.who.cmp(&other.who)));
    found.dedup_by(|(_, one), (_, other)| one.who == other.who);
    found.truncate(most);
}

#[cfg(test)]
mod tests;
