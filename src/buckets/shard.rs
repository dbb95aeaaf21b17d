//! A part of the buckets, with a lock of its own.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::{Key, Level, Seen};

/// Buckets that are compared when one has to go.
const SAMPLE: usize = 16;
/// Of so many, all are compared.
const ALL: usize = 64;
/// Hits between two that sweep.
const HITS_PER_SWEEP: u8 = 8;
/// Slots that one of these looks at.
const SWEPT_PER_HIT: usize = 4;
/// Room that is never given back, in buckets.
const CAPACITY_MIN: usize = 64;

/// A name that all buckets of one limit share. One word in each of them, not two.
pub(super) type Name = Arc<Box<str>>;

#[derive(Default)]
pub(super) struct Shard {
    /// Boxed: tables double when they grow, and half of what they hold may be empty.
    buckets: HashTable<Box<Bucket>>,
    /// The slot that is swept next.
    cursor: usize,
    hits: u8,
    /// The latest moment that somebody drew at.
    latest: Duration,
}

struct Bucket {
    /// Of its key. Whoever looks for it made it already, to choose the shard.
    hash: u64,
    name: Name,
    who: Box<str>,
    level: Level,
}

/// A bucket that may have to go.
struct Candidate<'a> {
    slot: usize,
    name: &'a Name,
    share: f64,
    full_in: Duration,
}

impl Bucket {
    fn is(&self, key: Key<'_>) -> bool {
        *self.who == *key.who && **self.name == *key.bucket
    }
}

impl Shard {
    /// The moment that counts for who read the clock at `now`. It may have waited since, for a place or a key set: to a bucket
    /// an earlier moment would be a clock that was set back, and the same time would flow back twice.
    pub(super) fn advance(&mut self, now: Duration) -> Duration {
        self.latest = self.latest.max(now);
        self.latest
    }

    pub(super) fn find(&mut self, hash: u64, key: Key<'_>) -> Option<&mut Level> {
        self.buckets.find_mut(hash, |bucket| bucket.is(key)).map(|bucket| &mut bucket.level)
    }

    /// Keeps a bucket that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, name: Name, who: &str, level: Level) {
        let bucket = Box::new(Bucket { hash, name, who: who.into(), level });
        self.buckets.insert_unique(hash, bucket, |bucket| bucket.hash);
    }

    pub(super) fn remove(&mut self, hash: u64, key: Key<'_>) -> Option<Level> {
        let found = self.buckets.find_entry(hash, |bucket| bucket.is(key)).ok()?;
        let (bucket, _) = found.remove();
        Some(bucket.level)
    }

    /// Removes one bucket, that which is missed least: of a random sample and there of the limit that has the most in it, the
    /// one of which the smallest share is in use, and of equal ones the one that is full again first. So a flood of one limit
    /// drives out no bucket of another. `false` when there is none.
    pub(super) fn evict(&mut self, now: Duration) -> bool {
        let compared = if self.buckets.len() <= ALL { ALL } else { SAMPLE };
        let least = self.least(self.all_from_anywhere().take(compared), now);
        least.is_some_and(|slot| self.remove_from(slot))
    }

    fn least<'a>(&'a self, buckets: impl Iterator<Item = (usize, &'a Bucket)>, now: Duration) -> Option<usize> {
        let mut sample: SmallVec<[Candidate<'a>; ALL]> = SmallVec::new();
        for (slot, bucket) in buckets {
            let (share, full_in) = (bucket.level.share(now), bucket.level.full_in(now));
            if share == 0.0 {
                return Some(slot);
            }
            sample.push(Candidate { slot, name: &bucket.name, share, full_in });
        }
        let of_its_limit =
            |one: &Candidate<'_>| sample.iter().filter(|other| Arc::ptr_eq(one.name, other.name)).count();
        let least = sample.iter().map(|one| (Reverse(of_its_limit(one)), one)).min_by(|(many, one), (most, other)| {
            let shares = one.share.total_cmp(&other.share);
            many.cmp(most).then(shares).then(one.full_in.cmp(&other.full_in))
        });
        least.map(|(_, least)| least.slot)
    }

    /// All buckets, from any place on. Those that are taken first are each there once: of buckets that are picked one by one,
    /// the one that stays for long is picked again and again, for the gap before it grows.
    fn all_from_anywhere(&self) -> impl Iterator<Item = (usize, &Bucket)> {
        let slots = self.slots();
        let first = fastrand::usize(..slots.max(1));
        (first..slots).chain(0..first).filter_map(|slot| self.bucket_in(slot))
    }

    fn bucket_in(&self, slot: usize) -> Option<(usize, &Bucket)> {
        self.buckets.get_bucket(slot).map(|bucket| (slot, &**bucket))
    }

    fn remove_from(&mut self, slot: usize) -> bool {
        self.buckets.get_bucket_entry(slot).map(|found| drop(found.remove())).is_ok()
    }

    /// Sweeps a little at every eighth call: who is there keeps the room small, even when nobody new comes.
    pub(super) fn sweep_on_hit(&mut self, now: Duration) -> usize {
        self.hits = self.hits.wrapping_add(1);
        if self.hits.is_multiple_of(HITS_PER_SWEEP) { self.sweep(SWEPT_PER_HIT, now) } else { 0 }
    }

    /// Looks at so many slots, going on where it stopped, and removes the buckets that are as good as new: how many. At the end
    /// of a round memory is given back.
    pub(super) fn sweep(&mut self, slots: usize, now: Duration) -> usize {
        let mut removed: usize = 0;
        for slot in self.cursor..self.cursor.saturating_add(slots) {
            if self.buckets.get_bucket(slot).is_some_and(|bucket| bucket.level.share(now) == 0.0) {
                removed = removed.saturating_add(usize::from(self.remove_from(slot)));
            }
        }
        self.cursor = self.cursor.saturating_add(slots);
        if self.cursor >= self.buckets.num_buckets() {
            self.cursor = 0;
            self.shrink();
        }
        removed
    }

    /// Begins a round of sweeping.
    pub(super) fn restart(&mut self) {
        self.cursor = 0;
    }

    /// Whether no round of sweeping has begun, or the last one has just ended.
    pub(super) fn is_at_start(&self) -> bool {
        self.cursor == 0
    }

    /// Gives back room when three quarters of it are empty.
    fn shrink(&mut self) {
        let (len, capacity) = (self.buckets.len(), self.buckets.capacity());
        if capacity > CAPACITY_MIN && len < capacity / 4 {
            self.buckets.shrink_to(len.saturating_mul(2).max(CAPACITY_MIN / 2), |bucket| bucket.hash);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    pub(super) fn slots(&self) -> usize {
        self.buckets.num_buckets()
    }

    /// For how many buckets there is room.
    pub(super) fn capacity(&self) -> usize {
        self.buckets.capacity()
    }

    /// Those of one limit in some slots of which more than `share` is in use.
    pub(super) fn busy(&self, name: &Name, slots: Range<usize>, share: f64, now: Duration) -> Vec<(f64, Seen)> {
        let there = slots.filter_map(|slot| self.buckets.get_bucket(slot));
        let ours = there.filter(|bucket| Arc::ptr_eq(&bucket.name, name));
        let busy = ours.map(|bucket| (bucket.level.share(now), bucket)).filter(|(found, _)| *found > share);
        busy.map(|(share, bucket)| {
            let (level, who) = (&bucket.level, bucket.who.to_string());
            let (rates, used) = (level.rates().to_vec(), level.used(now).collect());
            (share, Seen { bucket: name.to_string(), who, rates, used })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_takes_eighty_bytes() {
        assert_eq!(size_of::<Bucket>(), 80);
    }
}
