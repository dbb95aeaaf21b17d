//! Permits: how many requests may be in flight at once, counted by bucket and by who they are of.
//!
//! The table belongs to the process, so a reload resets nothing. The bound is said with each request: after a reload that
//! lowers it nobody gets in until enough permits came back; one that raises it reaches those that wait with the next
//! request, or the next permit that comes back.
//!
//! Who has to wait stands in line: first come, first served, and no newcomer overtakes. A line has a bound, and so has the
//! time in it. What is kept is what is held or waited for and nothing else: memory is bounded by the requests in flight.
//!
//! Every decision is made under the lock of its shard. Wakers run, and permits are dropped, without it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher as _, Hash, Hasher, RandomState};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hashbrown::Equivalent;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::clock;
use crate::observe::metrics::{ConcurrencySample, WaitEnd, Waits};

/// Independent parts of the table.
const SHARDS: usize = 64;
/// An empty shard keeps no more room than this, in entries.
const KEPT_ENTRIES_MAX: usize = 256;

/// Every permit that the process gave out.
#[derive(Clone, Default)]
pub struct Permits(Arc<Table>);

/// What is counted together under one name. Lives as long as somebody may still come, or has a permit.
pub struct PermitBucket {
    name: Box<str>,
    id: u64,
    waits: Arc<Waits>,
    table: Arc<Table>,
}

/// What one caller has in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupied {
    pub who: Arc<str>,
    pub in_flight: u32,
    /// In line for a permit.
    pub waiting: usize,
    /// How many may be in flight.
    pub max: u32,
}

/// What became of a request for a permit.
pub enum Entrance {
    Admitted(Permit),
    /// All are taken; there was room in the line.
    Queued(Waiting),
    /// All are taken, and the line is full.
    Full,
}

/// One request in flight. Dropping it lets the next one in.
pub struct Permit {
    bucket: Arc<PermitBucket>,
    key: Key,
}

/// A place in the line. Dropping it leaves the line; a permit that is on its way to it goes to the next one.
pub struct Waiting {
    bucket: Arc<PermitBucket>,
    key: Key,
    number: u64,
    permit: oneshot::Receiver<Permit>,
    since: Instant,
    end: WaitEnd,
}

impl Permits {
    /// The bucket of this name. All who ask for it at a time get the same.
    pub fn bucket(&self, name: &str) -> Arc<PermitBucket> {
        let mut names = self.0.names();
        if let Some(found) = names.by_name.get(name).and_then(Weak::upgrade) {
            return found;
        }
        names.next = names.next.wrapping_add(1);
        let (id, table) = (names.next, Arc::clone(&self.0));
        let made = Arc::new(PermitBucket { name: name.into(), id, waits: Arc::default(), table });
        names.by_name.insert(name.into(), Arc::downgrade(&made));
        made
    }

    /// How it stands with every bucket, in no order.
    pub fn samples(&self) -> Vec<ConcurrencySample> {
        let mut counted: HashMap<u64, (u64, u64)> = HashMap::new();
        for shard in &self.0.shards {
            for (key, slot) in &shard.lock().slots {
                let (held, waiting) = counted.entry(key.bucket).or_default();
                *held = held.saturating_add(slot.held.into());
                *waiting = waiting.saturating_add(slot.line.len() as u64);
            }
        }
        // The lock is released before a bucket can be dropped here, which takes it too.
        let buckets: Vec<Arc<PermitBucket>> = self.0.names().by_name.values().filter_map(Weak::upgrade).collect();
        let sample = |bucket: &Arc<PermitBucket>| {
            let (in_flight, waiting) = counted.get(&bucket.id).copied().unwrap_or_default();
            ConcurrencySample { bucket: bucket.name.clone(), in_flight, waiting, waits: Arc::clone(&bucket.waits) }
        };
        buckets.iter().map(sample).collect()
    }
}

impl PermitBucket {
    /// Asks for a permit: at most `max` are out for `who` at a time, and at most `queue` wait for one.
    pub fn enter(self: &Arc<Self>, who: &str, max: NonZeroU32, queue: usize) -> Entrance {
        let wanted = Wanted { hash: self.table.seed.hash_one((self.id, who)), bucket: self.id, who };
        let mut shard = self.table.shard(wanted.hash).lock();
        let Slots { slots, last } = &mut *shard;
        let key = slots.get_key_value(&wanted).map_or_else(|| wanted.key(), |(key, _)| key.clone());
        let slot = slots.entry(key.clone()).or_default();
        slot.max = max.get();
        let granted = slot.grant();
        let entrance = if slot.line.is_empty() && slot.held < slot.max {
            slot.held = slot.held.saturating_add(1);
            Entrance::Admitted(Permit { bucket: Arc::clone(self), key: key.clone() })
        } else if slot.line.len() < queue {
            *last = last.wrapping_add(1);
            let (sender, permit) = oneshot::channel();
            slot.line.push_back(Place { number: *last, sender });
            let (bucket, key, since) = (Arc::clone(self), key.clone(), clock::now());
            Entrance::Queued(Waiting { bucket, key, number: *last, permit, since, end: WaitEnd::Left })
        } else {
            Entrance::Full
        };
        drop(shard);
        self.hand_out(granted, &key);
        if matches!(entrance, Entrance::Full) {
            self.waits.full();
        }
        entrance
    }

    fn hand_out(self: &Arc<Self>, granted: Granted, key: &Key) {
        for sender in granted {
            // One that left meanwhile hands it back: it is dropped here, and goes to the next.
            let _ = sender.send(Permit { bucket: Arc::clone(self), key: key.clone() });
        }
    }

    fn give_back(self: &Arc<Self>, key: &Key) {
        let mut shard = self.table.shard(key.hash).lock();
        let Some(slot) = shard.slots.get_mut(key) else { return };
        slot.held = slot.held.saturating_sub(1);
        let granted = slot.grant();
        if slot.is_idle() {
            shard.forget(key);
        }
        drop(shard);
        self.hand_out(granted, key);
    }
}

impl PermitBucket {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who has requests in flight here or waits, the busiest first.
    pub fn occupied(&self, most: usize) -> Vec<Occupied> {
        let mut found = Vec::new();
        for shard in &self.table.shards {
            let shard = shard.lock();
            let ours = shard.slots.iter().filter(|(key, _)| key.bucket == self.id);
            found.extend(ours.map(|(key, slot)| Occupied::of(key, slot)));
        }
        found.sort_by(|one, other| other.total().cmp(&one.total()).then_with(|| one.who.cmp(&other.who)));
        found.truncate(most);
        found
    }

    /// The same of one; `None` while it has nothing in flight.
    pub fn occupied_by(&self, who: &str) -> Option<Occupied> {
        let wanted = Wanted { hash: self.table.seed.hash_one((self.id, who)), bucket: self.id, who };
        let shard = self.table.shard(wanted.hash).lock();
        shard.slots.get_key_value(&wanted).map(|(key, slot)| Occupied::of(key, slot))
    }

    /// How many have requests in flight here.
    pub fn len(&self) -> usize {
        let ours = |shard: &Shard| shard.lock().slots.keys().filter(|key| key.bucket == self.id).count();
        self.table.shards.iter().map(ours).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Occupied {
    fn of(key: &Key, slot: &Slot) -> Self {
        Self { who: Arc::clone(&key.who), in_flight: slot.held, waiting: slot.line.len(), max: slot.max }
    }

    fn total(&self) -> usize {
        self.waiting.saturating_add(usize::try_from(self.in_flight).unwrap_or(usize::MAX))
    }
}

impl Drop for PermitBucket {
    fn drop(&mut self) {
        let mut names = self.table.names();
        // A successor of the same name may be there already.
        if names.by_name.get(&self.name).is_some_and(|known| known.strong_count() == 0) {
            names.by_name.remove(&self.name);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.bucket.give_back(&self.key);
    }
}

impl Waiting {
    /// Waits for a permit, at most so long. One that comes in the last moment counts.
    pub async fn within(mut self, wait: Duration) -> Option<Permit> {
        let permit = match tokio::time::timeout(wait, &mut self.permit).await {
            Ok(permit) => permit.ok()?,
            Err(_) if self.leave() => {
                self.end = WaitEnd::TimedOut;
                return None;
            }
            // It is on its way: whoever took it out of the line sends it next.
            Err(_) => (&mut self.permit).await.ok()?,
        };
        self.end = WaitEnd::Admitted;
        Some(permit)
    }

    /// Leaves the line. `false` when it was not in it any more: a permit is there, or on its way.
    fn leave(&self) -> bool {
        let mut shard = self.bucket.table.shard(self.key.hash).lock();
        let Some(slot) = shard.slots.get_mut(&self.key) else { return false };
        // Numbers only grow, so the line is in their order.
        let Ok(at) = slot.line.binary_search_by_key(&self.number, |place| place.number) else { return false };
        let place = slot.line.remove(at);
        if slot.is_idle() {
            shard.forget(&self.key);
        }
        drop(shard);
        place.is_some()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.end == WaitEnd::Left {
            self.leave();
        }
        self.bucket.waits.ended(self.end, clock::now().saturating_duration_since(self.since));
    }
}

/// The permits to be sent once the lock is released.
type Granted = SmallVec<[oneshot::Sender<Permit>; 1]>;

struct Table {
    shards: [Shard; SHARDS],
    /// Secret: clients choose what is hashed.
    seed: RandomState,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    next: u64,
    by_name: HashMap<Box<str>, Weak<PermitBucket>>,
}

/// On a cache line of its own, so that neighbours do not slow each other down.
#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    slots: hashbrown::HashMap<Key, Slot, Hashed>,
    /// The number of the last place in a line.
    last: u64,
}

/// Who holds permits or waits for one.
#[derive(Default)]
struct Slot {
    held: u32,
    /// As it was said last.
    max: u32,
    line: VecDeque<Place>,
}

struct Place {
    number: u64,
    sender: oneshot::Sender<Permit>,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Shard::default()), seed: RandomState::new(), names: Mutex::default() }
    }
}

impl Table {
    fn shard(&self, hash: u64) -> &Shard {
        // The low bits choose within the map.
        let [first, rest @ ..] = &self.shards;
        let index = usize::try_from(hash >> 32).unwrap_or_default() % SHARDS;
        index.checked_sub(1).and_then(|index| rest.get(index)).unwrap_or(first)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn forget(&mut self, key: &Key) {
        self.slots.remove(key);
        if self.slots.is_empty() && self.slots.capacity() > KEPT_ENTRIES_MAX {
            self.slots = hashbrown::HashMap::default();
        }
    }
}

impl Slot {
    /// Takes those out of the line that may come in now.
    fn grant(&mut self) -> Granted {
        let mut granted = Granted::new();
        while self.held < self.max
            && let Some(place) = self.line.pop_front()
        {
            self.held = self.held.saturating_add(1);
            granted.push(place.sender);
        }
        granted
    }

    fn is_idle(&self) -> bool {
        self.held == 0 && self.line.is_empty()
    }
}

#[derive(Clone)]
struct Key {
    /// Of the rest.
    hash: u64,
    bucket: u64,
    who: Arc<str>,
}

/// A [`Key`] that is only looked for.
struct Wanted<'a> {
    hash: u64,
    bucket: u64,
    who: &'a str,
}

impl Wanted<'_> {
    fn key(&self) -> Key {
        Key { hash: self.hash, bucket: self.bucket, who: self.who.into() }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bucket == other.bucket && self.who == other.who
    }
}

impl Eq for Key {}

impl Hash for Wanted<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<Key> for Wanted<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.hash == key.hash && self.bucket == key.bucket && *self.who == *key.who
    }
}

/// Takes the hash that the key brings along: it is made once.
type Hashed = std::hash::BuildHasherDefault<Brought>;

#[derive(Default)]
struct Brought(u64);

impl Hasher for Brought {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used: keys write one number.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({})", self.bucket.name)
    }
}

#[cfg(test)]
mod tests;
