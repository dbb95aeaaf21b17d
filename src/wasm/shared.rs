//! What the instances of a plugin share: values by key, and queues.
//!
//! Every instance of a plugin has the same ones, before and after a reload that keeps its name. Everything is bounded. No lock is
//! held while a plugin runs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

use super::instance::Vm;
use super::named::Named;
use super::status::Status;
use super::timers;

/// Most values of one plugin.
pub const ENTRIES_MAX: usize = 10_000;
/// Most bytes of their keys and values together.
pub const ENTRY_BYTES_MAX: usize = 16 << 20;
/// Most queues of one plugin.
pub const QUEUES_MAX: usize = 64;
/// Most items that wait in one queue.
pub const ITEMS_MAX: usize = 10_000;
/// Most bytes of the items of one queue.
pub const ITEM_BYTES_MAX: usize = 4 << 20;
/// Longest key, and longest name of a queue, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

static SPACES: Named<Space> = Named::new();

/// What the plugins of one VM id share.
#[derive(Default)]
pub struct Space {
    values: Mutex<Values>,
    queues: Mutex<BTreeMap<Box<[u8]>, Arc<Queue>>>,
}

#[derive(Default)]
struct Values {
    entries: HashMap<Box<[u8]>, Entry>,
    bytes: usize,
    /// The number that the last change got.
    changes: u32,
}

struct Entry {
    value: Bytes,
    cas: u32,
}

/// A queue. Its number is the same for everybody.
pub struct Queue {
    pub id: u32,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Bytes>,
    bytes: usize,
    /// Items that nobody was told of yet.
    untold: usize,
    /// The background knows of it already.
    is_announced: bool,
    /// The instances that registered it: one of them is told of each item.
    owners: Vec<Weak<Mutex<Vm>>>,
}

/// What the plugins of a VM id share.
pub fn space(vm_id: &str) -> Arc<Space> {
    SPACES.get(vm_id, Space::default)
}

/// The queue that plugins of a VM id have under a name.
pub fn resolve(vm_id: &str, name: &[u8]) -> Option<Arc<Queue>> {
    let space = SPACES.find(vm_id)?;
    lock(&space.queues).get(name).cloned()
}

impl Space {
    /// A value and the number of its last change.
    pub fn get(&self, key: &[u8]) -> Option<(Bytes, u32)> {
        lock(&self.values).entries.get(key).map(|entry| (entry.value.clone(), entry.cas))
    }

    /// Sets a value; with a `cas` other than 0 only if nobody changed it since.
    ///
    /// # Errors
    /// `CAS_MISMATCH`; `INTERNAL_FAILURE` when there is no room.
    pub fn set(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
        let value = Bytes::copy_from_slice(value);
        let mut values = lock(&self.values);
        let known = values.entries.get(key).map(|entry| (entry.cas, entry.value.len()));
        if cas != 0 && known.map(|(cas, _)| cas) != Some(cas) {
            return Err(Status::CasMismatch);
        }
        let before = known.map_or(0, |(_, length)| key.len().saturating_add(length));
        let after = key.len().saturating_add(value.len());
        let bytes = values.bytes.saturating_sub(before).saturating_add(after);
        let is_full = known.is_none() && values.entries.len() >= ENTRIES_MAX;
        if is_full || bytes > ENTRY_BYTES_MAX || key.len() > KEY_BYTES_MAX {
            return Err(Status::InternalFailure);
        }
        // 0 means that anything may be overwritten.
        values.changes = values.changes.checked_add(1).unwrap_or(1);
        let cas = values.changes;
        values.bytes = bytes;
        match values.entries.get_mut(key) {
            Some(entry) => *entry = Entry { value, cas },
            None => {
                values.entries.insert(key.into(), Entry { value, cas });
            }
        }
        Ok(())
    }

    /// The queue of that name, or a new one.
    ///
    /// # Errors
    /// `INTERNAL_FAILURE` when there are too many.
    pub fn register(&self, name: &[u8]) -> Result<Arc<Queue>, Status> {
        static IDS: AtomicU32 = AtomicU32::new(1);
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get(name) {
            return Ok(Arc::clone(queue));
        }
        if queues.len() >= QUEUES_MAX || name.len() > KEY_BYTES_MAX {
            return Err(Status::InternalFailure);
        }
        let queue = Queue { id: IDS.fetch_add(1, Ordering::Relaxed), waiting: Mutex::default() };
        let queue = Arc::new(queue);
        queues.insert(name.into(), Arc::clone(&queue));
        Ok(queue)
    }
}

impl Queue {
    /// Adds an item; whoever registered the queue is told.
    ///
    /// # Errors
    /// `INTERNAL_FAILURE` when there is no room.
    pub fn push(self: &Arc<Self>, item: &[u8]) -> Result<(), Status> {
        let item = Bytes::copy_from_slice(item);
        let mut waiting = lock(&self.waiting);
        let bytes = waiting.bytes.saturating_add(item.len());
        if waiting.items.len() >= ITEMS_MAX || bytes > ITEM_BYTES_MAX {
            return Err(Status::InternalFailure);
        }
        waiting.bytes = bytes;
        waiting.items.push_back(item);
        waiting.untold = waiting.untold.saturating_add(1);
        let is_news = !waiting.owners.is_empty() && !std::mem::replace(&mut waiting.is_announced, true);
        drop(waiting);
        if is_news {
            timers::announce(Arc::clone(self));
        }
        Ok(())
    }

    /// The first item.
    pub fn pop(&self) -> Option<Bytes> {
        let mut waiting = lock(&self.waiting);
        let item = waiting.items.pop_front()?;
        waiting.bytes = waiting.bytes.saturating_sub(item.len());
        waiting.untold = waiting.untold.min(waiting.items.len());
        Some(item)
    }

    /// Tells this instance too, from now on: also of what was there before and nobody was told of.
    pub fn own(self: &Arc<Self>, instance: &Weak<Mutex<Vm>>) {
        let mut waiting = lock(&self.waiting);
        waiting.owners.retain(|owner| owner.strong_count() > 0 && !owner.ptr_eq(instance));
        waiting.owners.push(Weak::clone(instance));
        let is_news = waiting.untold > 0 && !std::mem::replace(&mut waiting.is_announced, true);
        drop(waiting);
        if is_news {
            timers::announce(Arc::clone(self));
        }
    }

    /// Who is to be told of an item; `None` when there is nothing to tell, or nobody.
    pub(super) fn owners(&self) -> Option<Vec<Arc<Mutex<Vm>>>> {
        let mut waiting = lock(&self.waiting);
        let owners: Vec<_> = waiting.owners.iter().filter_map(Weak::upgrade).collect();
        let is_due = waiting.untold > 0 && !owners.is_empty();
        waiting.is_announced = is_due;
        drop(waiting);
        is_due.then_some(owners)
    }

    /// Somebody is told of an item.
    pub(super) fn told(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.untold = waiting.untold.saturating_sub(1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_changed_only_by_who_saw_the_last_change() {
        let space = Space::default();
        assert_eq!(space.get(b"k"), None);
        assert_eq!(space.set(b"k", b"1", 7), Err(Status::CasMismatch), "there is none to compare with");
        space.set(b"k", b"1", 0).unwrap();
        let (value, cas) = space.get(b"k").unwrap();
        assert_eq!((&value[..], cas != 0), (&b"1"[..], true));
        space.set(b"k", b"2", cas).unwrap();
        assert_eq!(space.set(b"k", b"3", cas), Err(Status::CasMismatch));
        space.set(b"k", b"4", 0).unwrap();
        assert_eq!(space.get(b"k").unwrap().0, b"4"[..]);
    }

    #[test]
    fn no_more_values_are_kept_than_there_may_be() {
        let space = Space::default();
        for number in 0..ENTRIES_MAX {
            space.set(&number.to_le_bytes(), b"", 0).unwrap();
        }
        assert_eq!(space.set(b"one more", b"", 0), Err(Status::InternalFailure));
        space.set(&0_usize.to_le_bytes(), b"changed", 0).unwrap();
        let space = Space::default();
        space.set(b"key", &vec![0; ENTRY_BYTES_MAX - 3], 0).unwrap();
        assert_eq!(space.set(b"k", b"", 0), Err(Status::InternalFailure));
        assert_eq!(space.set(b"key", &vec![0; ENTRY_BYTES_MAX - 2], 0), Err(Status::InternalFailure));
        space.set(b"key", b"", 0).unwrap();
        space.set(b"k", b"", 0).unwrap();
        assert_eq!(space.set(&[0; KEY_BYTES_MAX + 1], b"", 0), Err(Status::InternalFailure));
        space.set(&[0; KEY_BYTES_MAX], b"", 0).unwrap();
    }

    #[test]
    fn a_queue_gives_what_was_put_in_first_and_holds_no_more_than_it_may() {
        let space = space("shared::tests");
        let queue = space.register(b"q").unwrap();
        assert_eq!(space.register(b"q").unwrap().id, queue.id);
        assert_eq!(resolve("shared::tests", b"q").map(|queue| queue.id), Some(queue.id));
        assert!(resolve("shared::tests", b"r").is_none() && resolve("shared::none", b"q").is_none());
        assert_eq!(queue.pop(), None);
        for number in 0..ITEMS_MAX {
            queue.push(&number.to_le_bytes()).unwrap();
        }
        assert_eq!(queue.push(b""), Err(Status::InternalFailure));
        assert_eq!(queue.pop().as_deref(), Some(&0_usize.to_le_bytes()[..]));
        queue.push(b"").unwrap();
        let queue = space.register(b"large").unwrap();
        assert_eq!(queue.push(&vec![0; ITEM_BYTES_MAX + 1]), Err(Status::InternalFailure));
        queue.push(&vec![0; ITEM_BYTES_MAX]).unwrap();
        assert_eq!(queue.push(b"1"), Err(Status::InternalFailure));
        for number in 2..QUEUES_MAX {
            space.register(&number.to_le_bytes()).unwrap();
        }
        assert!(space.register(b"one more").is_err() && space.register(b"q").is_ok());
    }
}
