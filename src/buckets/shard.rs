//! A part of the buckets, with a lock of its own.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use indexmap::map::raw_entry_v1::{RawEntryApiV1 as _, RawEntryMut};

use super::{Key, Level, Seen};

/// Buckets that are compared when one has to go.
const SAMPLE: usize = 16;
/// Hits between two that sweep.
const HITS_PER_SWEEP: u8 = 8;
/// Buckets that one of these looks at.
const SWEPT_PER_HIT: usize = 2;
/// Room that is never given back, in buckets.
const CAPACITY_MIN: usize = 64;

#[derive(Default)]
pub(super) struct Shard {
    /// Found by a hash that the caller makes: it chose the shard by it.
    buckets: IndexMap<Owner, Level, ()>,
    /// Buckets before this one have not been looked at in this round of sweeping.
    cursor: usize,
    hits: u8,
}

/// Whose a bucket is.
struct Owner {
    bucket: Arc<str>,
    who: Box<str>,
}

impl Owner {
    fn is(&self, key: Key<'_>) -> bool {
        *self.who == *key.who && *self.bucket == *key.bucket
    }
}

impl Shard {
    pub(super) fn find(&mut self, hash: u64, key: Key<'_>) -> Option<&mut Level> {
        match self.buckets.raw_entry_mut_v1().from_hash(hash, |owner| owner.is(key)) {
            RawEntryMut::Occupied(found) => Some(found.into_mut()),
            RawEntryMut::Vacant(_) => None,
        }
    }

    /// Keeps a bucket that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, bucket: Arc<str>, who: &str, level: Level) {
        let owner = Owner { bucket, who: who.into() };
        let entry = self.buckets.raw_entry_mut_v1().from_hash(hash, |_| false);
        if let RawEntryMut::Vacant(vacant) = entry {
            vacant.insert_hashed_nocheck(hash, owner, level);
        }
    }

    pub(super) fn remove(&mut self, hash: u64, key: Key<'_>) -> Option<Level> {
        match self.buckets.raw_entry_mut_v1().from_hash(hash, |owner| owner.is(key)) {
            RawEntryMut::Occupied(found) => {
                let level = found.swap_remove();
                self.shrink();
                Some(level)
            }
            RawEntryMut::Vacant(_) => None,
        }
    }

    /// Removes one bucket, that which is missed least: of a random sample the one of which the smallest share is in use, and
    /// of equal ones the one that is full again first. `false` when there is none.
    pub(super) fn evict(&mut self, now: Duration) -> bool {
        let len = self.buckets.len();
        let mut least: Option<(usize, f64, Duration)> = None;
        for _ in 0..SAMPLE.min(len) {
            let index = fastrand::usize(..len);
            let Some((_, level)) = self.buckets.get_index(index) else { continue };
            let (share, full_in) = (level.share(now), level.full_in(now));
            if least.is_none_or(|(_, least, until)| share.total_cmp(&least).then(full_in.cmp(&until)) == Ordering::Less)
            {
                least = Some((index, share, full_in));
            }
            if share == 0.0 {
                break;
            }
        }
        least.is_some_and(|(index, ..)| self.buckets.swap_remove_index(index).is_some())
    }

    /// Sweeps a little at every eighth call: who is there keeps the room small, even when nobody new comes.
    pub(super) fn sweep_on_hit(&mut self, now: Duration) -> usize {
        self.hits = self.hits.wrapping_add(1);
        if self.hits.is_multiple_of(HITS_PER_SWEEP) { self.sweep(SWEPT_PER_HIT, now) } else { 0 }
    }

    /// Looks at so many buckets, going on where it stopped, and removes those that are as good as new: how many.
    pub(super) fn sweep(&mut self, most: usize, now: Duration) -> usize {
        let before = self.buckets.len();
        for _ in 0..most.min(before) {
            // From the end: what takes the place of a removed one has been looked at.
            let next = self.cursor.min(self.buckets.len()).checked_sub(1);
            let Some(index) = next.or(self.buckets.len().checked_sub(1)) else { break };
            self.cursor = index;
            if self.buckets.get_index(index).is_some_and(|(_, level)| level.share(now) == 0.0) {
                self.buckets.swap_remove_index(index);
            }
        }
        let removed = before.saturating_sub(self.buckets.len());
        if removed > 0 {
            self.shrink();
        }
        removed
    }

    /// Gives back room when three quarters of it are empty.
    fn shrink(&mut self) {
        let (len, capacity) = (self.buckets.len(), self.buckets.capacity());
        if capacity > CAPACITY_MIN && len < capacity / 4 {
            self.buckets.shrink_to(len.saturating_mul(2).max(CAPACITY_MIN));
            self.cursor = self.cursor.min(len);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// For how many buckets there is room.
    pub(super) fn capacity(&self) -> usize {
        self.buckets.capacity()
    }

    /// Those of one limit, between two positions, of which more than `share` is in use.
    pub(super) fn busy(
        &self,
        bucket: &Arc<str>,
        positions: std::ops::Range<usize>,
        share: f64,
        now: Duration,
    ) -> impl Iterator<Item = (f64, Seen)> {
        let range = positions.start.min(self.len())..positions.end.min(self.len());
        let entries = self.buckets.get_range(range).into_iter().flatten();
        let ours = entries.filter(|(owner, _)| Arc::ptr_eq(&owner.bucket, bucket));
        let busy =
            ours.map(move |(owner, level)| (level.share(now), owner, level)).filter(move |found| found.0 > share);
        busy.map(move |(share, owner, level)| {
            let used = level.used(now).collect();
            (share, Seen { bucket: owner.bucket.as_ref().to_owned(), who: owner.who.clone().into(), used })
        })
    }
}
