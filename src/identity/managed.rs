//! Managed keys: made, changed and revoked over HTTP while the gateway runs, and kept in the state store.
//!
//! Requests never wait for the store: they find keys in an index in memory, which is read from the store at start and
//! changed with every write. What a key may do is worked out under the snapshot of the request, so that a reload that
//! changes roles changes what their holders may do from the next request on.

mod record;
mod shards;
mod usage;
mod writing;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;

use super::{Digest, Identity, Reason};
use crate::caller::Caller;
use crate::state::{Mark, Space, Store, StoreError};
use shards::Shards;

pub use record::{ManagedKey, Previous, Record, from_seconds, seconds};
pub use usage::{Counts, DAYS_KEPT, Day, Usage};
pub use writing::WriteError;

/// Records by id.
const KEYS: Space = Space("api_keys");
/// Records read from the store at once.
const PAGE: usize = 500;
/// How long a key is kept after its end, so that people still see what ended.
const KEPT_AFTER_END: Duration = Duration::from_secs(30 * 24 * 3600);

/// All managed keys of a process.
#[derive(Default)]
pub struct ManagedKeys {
    by_digest: Shards<Digest, Arc<ManagedKey>>,
    by_id: Shards<Arc<str>, Arc<ManagedKey>>,
    count: AtomicUsize,
    /// Held from the read of a record to the change of the index, so that the index follows the store in order.
    writing: Mutex<()>,
    usage: usage::Dirty,
    /// Set while there is a store that was not read yet.
    expected: OnceLock<()>,
    loaded: OnceLock<()>,
}

impl ManagedKeys {
    /// From now on an unknown key may be one that is in the store.
    pub(super) fn expect_keys(&self) {
        let _ = self.expected.set(());
    }

    /// The caller that a key belongs to, under the roles of `identity`.
    pub(super) fn find(&self, digest: &Digest, identity: &Identity, now: SystemTime) -> Result<Arc<Caller>, Reason> {
        if self.count.load(Ordering::Acquire) > 0
            && let Some(key) = self.by_digest.get(digest)
        {
            return key.caller(digest, identity, now);
        }
        let unread = self.expected.get().is_some() && !self.is_loaded();
        Err(if unread { Reason::KeysUnavailable } else { Reason::Unknown })
    }

    /// Whether the key `id` is still the one that was let in, and would be let in again.
    pub(super) fn still_holds(&self, id: &str, version: u64, now: SystemTime) -> Result<(), Reason> {
        self.by_id.get(id).ok_or(Reason::Revoked)?.still_holds(version, now)
    }

    /// Whether the store was read once.
    pub fn is_loaded(&self) -> bool {
        self.loaded.get().is_some()
    }

    /// How many there are, ended ones included.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether any key is so. Looks at all of them: not for the path of requests.
    pub fn any(&self, is: impl Fn(&Record) -> bool) -> bool {
        self.by_id.any(|key| is(&key.record))
    }

    /// A key by its id.
    pub fn get(&self, id: &str) -> Option<Arc<ManagedKey>> {
        self.by_id.get(id)
    }

    /// Reads all keys from the store: at start, and now and then for what another gateway changed. Keys that ended 30 days
    /// ago are removed from the store. Gives how many there are.
    ///
    /// # Errors
    /// The store failed; what is known stays.
    pub async fn load(&self, store: &dyn Store, now: SystemTime) -> Result<usize, StoreError> {
        let _writing = self.writing.lock().await;
        let mut seen = HashSet::new();
        let mut after: Option<String> = None;
        loop {
            let page = store.list(KEYS, after.as_deref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in page {
                let Ok(record) = serde_json::from_slice::<Record>(&entry.value) else {
                    tracing::warn!(
                        id = entry.key,
                        "this managed key is damaged in the state store; it is not accepted"
                    );
                    continue;
                };
                let gone = from_seconds(record.expires_at).checked_add(KEPT_AFTER_END);
                if record.id != entry.key || gone.is_none_or(|gone| gone <= now) {
                    store.take(KEYS, &entry.key).await?;
                    continue;
                }
                seen.insert(record.id.clone());
                if self.by_id.get(record.id.as_str()).is_none_or(|known| known.record != record) {
                    self.show(record);
                }
            }
        }
        for key in self.by_id.values() {
            if !seen.contains(&key.record.id) {
                self.hide(&key.record.id);
            }
        }
        let _ = self.loaded.set(());
        Ok(self.len())
    }

    /// Takes over what was written since `mark`, by whichever gateway; whether a key changed by that.
    ///
    /// # Errors
    /// The store failed; what is known stays, and `mark` with it.
    pub(super) async fn follow(&self, store: &dyn Store, mark: &mut Mark, now: SystemTime) -> Result<bool, StoreError> {
        let changes = store.changes(KEYS, mark).await?;
        let mut changed = changes.keys.is_none();
        match changes.keys {
            None => drop(self.load(store, now).await?),
            Some(ids) => {
                for id in ids {
                    changed |= self.read_again(store, &id).await?;
                }
            }
        }
        *mark = changes.mark;
        Ok(changed)
    }

    /// Reads one key; whether it is another one now.
    async fn read_again(&self, store: &dyn Store, id: &str) -> Result<bool, StoreError> {
        let _writing = self.writing.lock().await;
        let stored = store.get(KEYS, id).await?;
        let record = stored.and_then(|stored| serde_json::from_slice::<Record>(&stored).ok());
        let known = self.by_id.get(id);
        let Some(record) = record.filter(|record| record.id == id) else {
            self.hide(id);
            return Ok(known.is_some());
        };
        let same = known.is_some_and(|known| known.record == record);
        if !same && self.show(record).is_none() {
            // A damaged one lets nobody in, and neither does the one before it.
            self.hide(id);
        }
        Ok(!same)
    }

    /// Puts a record into the index, in the place of what is there under its id. A damaged one stays out.
    fn show(&self, record: Record) -> Option<Arc<ManagedKey>> {
        let before = self.by_id.get(record.id.as_str());
        let meter = before.as_ref().map_or_else(Default::default, |before| Arc::clone(&before.meter));
        let key = Arc::new(ManagedKey::new(record, meter)?);
        for digest in key.digests() {
            self.by_digest.insert(digest, Arc::clone(&key));
        }
        self.by_id.insert(Arc::from(key.record.id.as_str()), Arc::clone(&key));
        match before {
            Some(before) => {
                for stale in before.digests().filter(|digest| !key.digests().any(|kept| kept == *digest)) {
                    self.by_digest.remove(&stale);
                }
            }
            None => {
                self.count.fetch_add(1, Ordering::Release);
            }
        }
        Some(key)
    }

    /// Takes a key out of the index: no request that begins from now on is let in with it.
    fn hide(&self, id: &str) {
        let Some(key) = self.by_id.remove(id) else { return };
        for digest in key.digests() {
            self.by_digest.remove(&digest);
        }
        self.count.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
