//! Things kept by the name of their plugin for as long as one of its instances lives: a reload that keeps the name keeps them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Things of the process, by name.
pub struct Named<T> {
    live: Mutex<BTreeMap<Box<str>, Weak<T>>>,
}

impl<T> Named<T> {
    pub const fn new() -> Self {
        Self { live: Mutex::new(BTreeMap::new()) }
    }

    /// The living thing of that name, or a new one.
    pub fn get(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut live = self.lock();
        if let Some(found) = live.get(name).and_then(Weak::upgrade) {
            return found;
        }
        live.retain(|_, known| known.strong_count() > 0);
        let made = Arc::new(make());
        live.insert(name.into(), Arc::downgrade(&made));
        made
    }

    /// The living thing of that name.
    pub fn find(&self, name: &str) -> Option<Arc<T>> {
        self.lock().get(name).and_then(Weak::upgrade)
    }

    /// Everything alive, by name.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Weak<T>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_lives_as_long_as_somebody_holds_it() {
        let named = Named::new();
        let first = named.get("a", || 1);
        assert_eq!(*named.get("a", || 2), 1);
        drop(first);
        assert!(named.find("a").is_none() && named.all().is_empty());
        assert_eq!(*named.get("a", || 3), 3);
    }
}
