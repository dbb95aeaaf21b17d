//! A map that many threads read on the path of requests, and few write.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{PoisonError, RwLock};

/// A power of two. More than the threads of any machine that runs this, so that two rarely meet.
const SHARDS: usize = 64;

/// A map in parts, each behind its own lock. A lock is held for one look-up or one change.
pub struct Shards<K, V> {
    shards: Box<[RwLock<HashMap<K, V>>]>,
    hasher: RandomState,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), hasher: RandomState::new() }
    }
}

impl<K: Hash + Eq, V: Clone> Shards<K, V> {
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        // A map whose writer panicked is whole all the same: its changes are single calls.
        self.shard(key)?.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub fn insert(&self, key: K, value: V) {
        if let Some(shard) = self.shard(&key) {
            shard.write().unwrap_or_else(PoisonError::into_inner).insert(key, value);
        }
    }

    pub fn remove<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.shard(key)?.write().unwrap_or_else(PoisonError::into_inner).remove(key)
    }

    /// Everything there is, one part after the other.
    pub fn values(&self) -> Vec<V> {
        let of = |shard: &RwLock<HashMap<K, V>>| {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.values().cloned().collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of).collect()
    }

    /// Whether anything there is so; not in one instant.
    pub fn any(&self, is: impl Fn(&V) -> bool) -> bool {
        let holds =
            |shard: &RwLock<HashMap<K, V>>| shard.read().unwrap_or_else(PoisonError::into_inner).values().any(&is);
        self.shards.iter().any(holds)
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> Option<&RwLock<HashMap<K, V>>> {
        let hash = self.hasher.hash_one(key);
        self.shards.get(usize::try_from(hash).unwrap_or_default() & (SHARDS - 1))
    }
}
