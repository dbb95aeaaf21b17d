//! The store in memory: gone with the process, bounded in entries and bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::expiry::{self, Now, milliseconds};
use super::{Entry, Pending, REPLAY, Space, Spend, Spent, Store, StoreError, check, counted};

/// How much a [`Memory`] may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub entries_max: usize,
    /// Keys, values and what it takes to find them, in bytes.
    pub bytes_max: usize,
}

impl Default for Limits {
    /// A million entries, 256 MiB.
    fn default() -> Self {
        Self { entries_max: 1_000_000, bytes_max: 256 * 1024 * 1024 }
    }
}

/// Shards, so that workers seldom wait for each other.
const SHARDS: usize = 16;
/// What an entry takes besides its key and value, in bytes: nodes of two trees.
const ENTRY_BYTES: usize = 160;
/// Ended entries that a write removes on its way.
const SWEPT_AT_ONCE: usize = 8;

/// Counters and messages that passed leave one in so many of the entries and bytes to what is written on purpose.
const LEFT_BY_OTHERS: usize = 4;

/// Keeps everything in memory. An entry that would exceed the limits is refused. Counters, and what is in [`REPLAY`], may not
/// take all of the room: anybody brings one about who is counted, and a flood of them must not stand in the way of a revocation.
pub struct Memory {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    usage: Usage,
    now: Now,
}

impl Memory {
    pub fn new(limits: Limits) -> Self {
        Self::with_clock(limits, expiry::wall())
    }

    /// One that takes the time of day from `now`.
    pub fn with_clock(limits: Limits, now: Now) -> Self {
        let usage = Usage { limits, entries: AtomicUsize::new(0), bytes: AtomicUsize::new(0) };
        Self { shards: Default::default(), hasher: RandomState::new(), usage, now }
    }

    /// Entries that take room, ended ones included until they are swept.
    pub fn len(&self) -> usize {
        self.usage.entries.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, space: Space, key: &str) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one((space, key));
        let index = usize::try_from(hash).unwrap_or_default() % SHARDS;
        // The remainder is always an index; the first shard is never taken in its place.
        let shard = self.shards.get(index).unwrap_or(&self.shards[0]);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        milliseconds((self.now)())
    }

    fn room(&self) -> Room<'_> {
        Room { usage: &self.usage, limits: self.usage.limits }
    }

    fn room_in(&self, space: Space) -> Room<'_> {
        if space == REPLAY { self.room_of_others() } else { self.room() }
    }

    fn room_of_others(&self) -> Room<'_> {
        let Limits { entries_max, bytes_max } = self.usage.limits;
        let part = |max: usize| max.saturating_sub(max / LEFT_BY_OTHERS);
        Room { usage: &self.usage, limits: Limits { entries_max: part(entries_max), bytes_max: part(bytes_max) } }
    }

    /// Makes room by removing what has ended, in all shards.
    fn sweep(&self, now: i64) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).sweep(now, usize::MAX, &self.usage);
        }
    }

    /// Does `write`, and once more when there was no room before all that has ended was removed.
    fn write<T>(
        &self,
        space: Space,
        key: &str,
        mut write: impl FnMut(&mut Shard, i64) -> Result<T, Full>,
    ) -> Result<T, StoreError> {
        let now = self.now();
        {
            let mut shard = self.shard(space, key);
            shard.sweep(now, SWEPT_AT_ONCE, &self.usage);
            if let Ok(done) = write(&mut shard, now) {
                return Ok(done);
            }
        }
        self.sweep(now);
        write(&mut self.shard(space, key), now).map_err(|Full| self.usage.full())
    }
}

impl Store for Memory {
    fn get<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let now = self.now();
            Ok(self.shard(space, key).get(space, key, now).map(|item| item.value.clone()))
        })
    }

    fn put<'a>(&'a self, space: Space, key: &'a str, value: Vec<u8>, expires: Option<SystemTime>) -> Pending<'a, ()> {
        Box::pin(async move {
            check(key, &value)?;
            let expires = expires.map(milliseconds);
            self.write(space, key, |shard, _| shard.set(space, key, &value, expires, self.room_in(space)))
        })
    }

    fn insert<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool> {
        Box::pin(async move {
            check(key, &value)?;
            let expires = expires.map(milliseconds);
            self.write(space, key, |shard, now| match shard.get(space, key, now) {
                Some(_) => Ok(false),
                None => shard.set(space, key, &value, expires, self.room_in(space)).map(|()| true),
            })
        })
    }

    fn replace<'a>(&'a self, space: Space, key: &'a str, expected: &'a [u8], value: Vec<u8>) -> Pending<'a, bool> {
        Box::pin(async move {
            check(key, &value)?;
            self.write(space, key, |shard, now| match shard.get(space, key, now) {
                Some(item) if item.value == expected => {
                    let expires = item.expires;
                    shard.set(space, key, &value, expires, self.room_in(space)).map(|()| true)
                }
                _ => Ok(false),
            })
        })
    }

    fn exchange<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        expected: &'a [u8],
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool> {
        Box::pin(async move {
            check(key, &value)?;
            let expires = expires.map(milliseconds);
            self.write(space, key, |shard, now| match shard.get(space, key, now) {
                Some(item) if item.value == expected && expires.is_some_and(|expires| expires <= now) => {
                    Ok(shard.remove(space, key, &self.usage).is_some())
                }
                Some(item) if item.value == expected => {
                    shard.set(space, key, &value, expires, self.room_in(space)).map(|()| true)
                }
                _ => Ok(false),
            })
        })
    }

    fn take<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let now = self.now();
            let mut shard = self.shard(space, key);
            let there = shard.get(space, key, now).is_some();
            Ok(shard.remove(space, key, &self.usage).filter(|_| there).map(|item| item.value))
        })
    }

    fn spend<'a>(&'a self, space: Space, key: &'a str, ask: Spend, expires: SystemTime) -> Pending<'a, Spent> {
        Box::pin(async move {
            check(key, &[])?;
            let mut outcome = Ok(Spent { got: 0, used: 0 });
            self.write(space, key, |shard, now| {
                let item = shard.get(space, key, now);
                let ends = item.map_or(Some(milliseconds(expires)), |item| item.expires);
                outcome = counted(item.map(|item| &*item.value)).map(|used| ask.from(used));
                match &outcome {
                    Ok(Spent { got: 1.., used }) => {
                        shard.set(space, key, used.to_string().as_bytes(), ends, self.room_of_others())
                    }
                    _ => Ok(()),
                }
            })?;
            outcome
        })
    }

    fn give_back<'a>(&'a self, space: Space, key: &'a str, amount: u64) -> Pending<'a, ()> {
        Box::pin(async move {
            let mut outcome = Ok(());
            self.write(space, key, |shard, now| {
                let Some(item) = shard.get(space, key, now) else { return Ok(()) };
                let ends = item.expires;
                match counted(Some(&item.value)) {
                    Ok(used) => {
                        let left = used.saturating_sub(amount).to_string();
                        shard.set(space, key, left.as_bytes(), ends, self.room())
                    }
                    Err(error) => {
                        outcome = Err(error);
                        Ok(())
                    }
                }
            })?;
            outcome
        })
    }

    fn list<'a>(&'a self, space: Space, after: Option<&'a str>, limit: usize) -> Pending<'a, Vec<Entry>> {
        Box::pin(async move {
            let now = self.now();
            // All at once: what is listed was there at one moment. Others lock one shard only, so nobody waits in a circle.
            let locked = self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner));
            let locked: Vec<_> = locked.collect();
            let mut found: Vec<Entry> = locked.iter().flat_map(|shard| shard.list(space, after, limit, now)).collect();
            drop(locked);
            found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            found.truncate(limit);
            Ok(found)
        })
    }
}

/// There is no room for it.
struct Full;

/// What all shards hold together.
struct Usage {
    limits: Limits,
    entries: AtomicUsize,
    bytes: AtomicUsize,
}

/// What of the room some may take.
#[derive(Clone, Copy)]
struct Room<'a> {
    usage: &'a Usage,
    limits: Limits,
}

impl Room<'_> {
    /// Takes room for `entries` more entries and goes from `old` to `new` bytes.
    fn take(&self, entries: usize, old: usize, new: usize) -> Result<(), Full> {
        let within = |used: usize, less: usize, more: usize, max: usize| {
            let after = used.saturating_sub(less).saturating_add(more);
            // What takes less than before is never refused.
            (after <= max || more <= less).then_some(after)
        };
        let (usage, order) = (self.usage, Ordering::Relaxed);
        let Limits { entries_max, bytes_max } = self.limits;
        usage.entries.fetch_update(order, order, |used| within(used, 0, entries, entries_max)).map_err(|_| Full)?;
        let bytes = usage.bytes.fetch_update(order, order, |used| within(used, old, new, bytes_max));
        bytes.map(|_| ()).map_err(|_| {
            usage.entries.fetch_sub(entries, order);
            Full
        })
    }
}

impl Usage {
    fn give_back(&self, bytes: usize) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn full(&self) -> StoreError {
        let Limits { entries_max, bytes_max } = self.limits;
        StoreError(format!("the memory of the state store is full ({entries_max} entries or {bytes_max} bytes)"))
    }
}

struct Item {
    value: Vec<u8>,
    /// In milliseconds since 1970.
    expires: Option<i64>,
}

fn size(key: &str, item: &Item) -> usize {
    key.len().saturating_mul(2).saturating_add(item.value.len()).saturating_add(ENTRY_BYTES)
}

#[derive(Default)]
struct Shard {
    spaces: BTreeMap<&'static str, BTreeMap<String, Item>>,
    /// Entries by when they end.
    ending: BTreeSet<(i64, &'static str, String)>,
}

impl Shard {
    fn get(&self, space: Space, key: &str, now: i64) -> Option<&Item> {
        let item = self.spaces.get(space.0)?.get(key)?;
        item.expires.is_none_or(|expires| now < expires).then_some(item)
    }

    fn set(&mut self, space: Space, key: &str, value: &[u8], expires: Option<i64>, room: Room<'_>) -> Result<(), Full> {
        let items = self.spaces.entry(space.0).or_default();
        let item = Item { value: value.to_owned(), expires };
        let old = items.get(key).map(|old| (size(key, old), old.expires));
        let old_bytes = old.map_or(0, |(bytes, _)| bytes);
        room.take(usize::from(old.is_none()), old_bytes, size(key, &item))?;
        if let Some((_, Some(expires))) = old {
            self.ending.remove(&(expires, space.0, key.to_owned()));
        }
        if let Some(expires) = expires {
            self.ending.insert((expires, space.0, key.to_owned()));
        }
        items.insert(key.to_owned(), item);
        Ok(())
    }

    fn remove(&mut self, space: Space, key: &str, usage: &Usage) -> Option<Item> {
        let item = self.spaces.get_mut(space.0)?.remove(key)?;
        if let Some(expires) = item.expires {
            self.ending.remove(&(expires, space.0, key.to_owned()));
        }
        usage.give_back(size(key, &item));
        Some(item)
    }

    /// Removes up to `most` entries that have ended.
    fn sweep(&mut self, now: i64, most: usize, usage: &Usage) {
        for _ in 0..most {
            if self.ending.first().is_none_or(|(expires, ..)| now < *expires) {
                return;
            }
            let Some((_, space, key)) = self.ending.pop_first() else { return };
            self.remove(Space(space), &key, usage);
        }
    }

    fn list(&self, space: Space, after: Option<&str>, limit: usize, now: i64) -> Vec<Entry> {
        let Some(items) = self.spaces.get(space.0) else { return Vec::new() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let there = items.range::<str, _>((from, Bound::Unbounded));
        let there = there.filter(|(_, item)| item.expires.is_none_or(|expires| now < expires));
        there.take(limit).map(|(key, item)| Entry { key: key.clone(), value: item.value.clone() }).collect()
    }
}
