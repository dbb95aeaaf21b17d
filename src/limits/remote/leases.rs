//! What a gateway holds of all shared buckets: a table that is bounded, and in parts with a lock each.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Lease;
use super::lease::{Answer, Asked, Held, Next};
use crate::buckets::Key;
use crate::rates::{Drawn, Rates};

const SHARDS: usize = 64;
/// Most buckets of which something is held. Further ones are asked for, request by request.
pub const HELD_MAX: usize = 65_536;
const SHARD_MAX: usize = HELD_MAX / SHARDS;
/// How often a part that is full is looked through for what may be forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// What is held, by bucket.
pub struct Leases {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

/// By name and by whose it is: found without making a key of both.
#[derive(Default)]
struct Shard {
    buckets: HashMap<Box<str>, HashMap<Box<str>, Held>>,
    count: usize,
    swept: Option<Instant>,
}

impl Default for Leases {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Leases {
    /// What somebody does who wants `cost` tokens.
    pub fn next(&self, key: Key<'_>, rates: &Rates, cost: f64, lease: &Lease, now: Instant) -> Next {
        let Some(mut shard) = self.shard(key) else { return Next::Alone };
        if let Some(held) = shard.get(key) {
            return held.next(rates, cost, lease, now);
        }
        if !shard.has_room(now) {
            return Next::Alone;
        }
        let mut held = Held::new(rates, cost, now);
        let next = held.next(rates, cost, lease, now);
        shard.insert(key, held);
        next
    }

    /// Takes an answer of the store to what was asked at `asked`.
    pub fn answered(&self, key: Key<'_>, answer: Answer<'_>, lease: &Lease, asked: Instant) -> Option<Drawn> {
        self.shard(key)?.get(key)?.answered(answer, lease, asked)
    }

    /// Stands for one that asks for itself and for those behind it, until it is answered or gives up.
    pub fn leading<'a>(&'a self, key: Key<'a>, asked: Asked) -> Leading<'a> {
        Leading { leases: self, key, asked: Some(asked) }
    }

    /// Throws away what is held of a bucket.
    pub fn forget(&self, key: Key<'_>) {
        if let Some(mut shard) = self.shard(key)
            && let Some(held) = shard.get(key)
        {
            held.clear();
        }
    }

    fn shard(&self, key: Key<'_>) -> Option<MutexGuard<'_, Shard>> {
        let place = usize::try_from(self.hasher.hash_one(key)).ok().and_then(|hash| hash.checked_rem(SHARDS))?;
        let shard = self.shards.get(place)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shard {
    fn get(&mut self, key: Key<'_>) -> Option<&mut Held> {
        self.buckets.get_mut(key.bucket)?.get_mut(key.who)
    }

    fn insert(&mut self, key: Key<'_>, held: Held) {
        let bucket = match self.buckets.get_mut(key.bucket) {
            Some(bucket) => bucket,
            None => self.buckets.entry(key.bucket.into()).or_default(),
        };
        if bucket.insert(key.who.into(), held).is_none() {
            self.count = self.count.saturating_add(1);
        }
    }

    /// Makes room, if it is time to look for some.
    fn has_room(&mut self, now: Instant) -> bool {
        let rests = |swept| now.saturating_duration_since(swept) < SWEEP_INTERVAL;
        if self.count >= SHARD_MAX && !self.swept.is_some_and(rests) {
            self.swept = Some(now);
            for bucket in self.buckets.values_mut() {
                bucket.retain(|_, held| !held.is_idle(now));
            }
            self.buckets.retain(|_, bucket| !bucket.is_empty());
            self.count = self.buckets.values().map(HashMap::len).sum();
        }
        self.count < SHARD_MAX
    }
}

/// Somebody asks for itself and for those behind it.
pub struct Leading<'a> {
    leases: &'a Leases,
    key: Key<'a>,
    asked: Option<Asked>,
}

impl Leading<'_> {
    /// The store answered `drawn` to what was asked at `at` for `cost` tokens.
    pub fn answered(&mut self, cost: f64, drawn: Drawn, lease: &Lease, at: Instant) -> Drawn {
        let Some(asked) = self.asked.take() else { return drawn };
        let known = self.leases.answered(self.key, Answer::Led(asked, cost, drawn), lease, at);
        known.unwrap_or(Drawn { got: cost.min(drawn.got), ..drawn })
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        if let (Some(asked), Some(mut shard)) = (self.asked.take(), self.leases.shard(self.key))
            && let Some(held) = shard.get(self.key)
        {
            held.give_up(asked);
        }
    }
}
