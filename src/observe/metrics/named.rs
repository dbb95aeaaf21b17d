//! Things kept by name for as long as somebody holds them, so that a reload that keeps a name keeps its counts.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How many names may exist at once, over all tables that share it.
pub(super) struct Budget {
    used: AtomicUsize,
    max: AtomicUsize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max: AtomicUsize::new(max) })
    }

    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Release);
    }

    fn take(&self) -> bool {
        let max = self.max.load(Ordering::Acquire);
        let taken = |used: usize| (used < max).then_some(used).and_then(|used| used.checked_add(1));
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).is_ok()
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) struct Named<K, T> {
    live: Mutex<HashMap<K, Weak<T>>>,
    budget: Arc<Budget>,
}

impl<K: Clone + Eq + Hash, T> Named<K, T> {
    pub(super) fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { live: Mutex::default(), budget })
    }

    /// The living thing of that name, or a new one; `None` when the budget is used up. A new one must keep its
    /// [`Lease`].
    pub(super) fn get(self: &Arc<Self>, key: K, make: impl FnOnce(Lease<K, T>) -> T) -> Option<Arc<T>> {
        let mut live = self.lock();
        if let Some(found) = live.get(&key).and_then(Weak::upgrade) {
            return Some(found);
        }
        if !self.budget.take() {
            return None;
        }
        let made = Arc::new(make(Lease { table: Arc::clone(self), key: key.clone() }));
        live.insert(key, Arc::downgrade(&made));
        Some(made)
    }

    /// Everything alive. The lock is released before the caller can be the last to let one go.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Weak<T>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a table, held by the thing itself: its name is free again when it is dropped.
pub(super) struct Lease<K: Clone + Eq + Hash, T> {
    table: Arc<Named<K, T>>,
    key: K,
}

impl<K: Clone + Eq + Hash, T> Drop for Lease<K, T> {
    fn drop(&mut self) {
        let mut live = self.table.lock();
        // A successor of the same name may be there already.
        if live.get(&self.key).is_some_and(|entry| entry.strong_count() == 0) {
            live.remove(&self.key);
        }
        self.table.budget.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing {
        // Dropped in this order: the name is taken anew while the first holder is half gone.
        _last_words: LastWords,
        _lease: Lease<u8, Thing>,
    }

    struct LastWords(Option<Box<dyn FnOnce() + Send + Sync>>);

    impl Drop for LastWords {
        fn drop(&mut self) {
            if let Some(say) = self.0.take() {
                say();
            }
        }
    }

    #[test]
    fn the_end_of_the_first_leaves_its_successor_alone() {
        let table: Arc<Named<u8, Thing>> = Named::new(Budget::new(2));
        let successor = Arc::new(Mutex::new(None));
        let (again, place) = (Arc::clone(&table), Arc::clone(&successor));
        let say = move || {
            let made = again.get(7, |lease| Thing { _last_words: LastWords(None), _lease: lease });
            *place.lock().unwrap() = made;
        };
        drop(table.get(7, |lease| Thing { _last_words: LastWords(Some(Box::new(say))), _lease: lease }).unwrap());
        let successor = successor.lock().unwrap().take().unwrap();
        assert!(table.all().iter().any(|thing| Arc::ptr_eq(thing, &successor)));
        drop(successor);
        assert!(table.all().is_empty() && table.lock().is_empty());
        assert_eq!(table.budget.used.load(Ordering::Acquire), 0);
    }
}
