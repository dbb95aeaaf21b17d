//! Making, changing and revoking managed keys: first in the store, then in the index.
//!
//! A caller of these runs them to their end: stopped between the two steps, the index would not know what the store knows
//! until it is read again.

use std::sync::Arc;

use super::{KEYS, ManagedKey, ManagedKeys, Record};
use crate::state::{Store, StoreError};

/// How often a change is tried again that another gateway was faster with.
const ATTEMPTS: usize = 5;

/// Why a key was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is no such key")]
    NotFound,
    #[error("there are as many keys as there may be")]
    Full,
    #[error("the key was changed by somebody else at the same time")]
    Conflict,
}

impl ManagedKeys {
    /// Keeps a new key. There may be `most`.
    ///
    /// # Errors
    /// The store failed, there are too many keys, or the id is taken.
    pub async fn create(&self, store: &dyn Store, record: Record, most: usize) -> Result<Arc<ManagedKey>, WriteError> {
        let _writing = self.writing.lock().await;
        if self.len() >= most {
            return Err(WriteError::Full);
        }
        if !store.insert(KEYS, &record.id, written(&record)?, None).await? {
            return Err(WriteError::Conflict);
        }
        self.show(record).ok_or(WriteError::Conflict)
    }

    /// Changes a key by `edit`, which may refuse: it sees the record as it is when it is replaced, and may be called again.
    ///
    /// # Errors
    /// The store failed, there is no such key, or somebody else changes it all the time.
    pub async fn change<E>(
        &self,
        store: &dyn Store,
        id: &str,
        edit: impl Fn(&Record) -> Result<Record, E>,
    ) -> Result<Result<Arc<ManagedKey>, E>, WriteError> {
        let _writing = self.writing.lock().await;
        for _ in 0..ATTEMPTS {
            let Some(stored) = store.get(KEYS, id).await? else {
                // Another gateway may have revoked it.
                self.hide(id);
                return Err(WriteError::NotFound);
            };
            let record: Record = serde_json::from_slice(&stored).map_err(|_| WriteError::NotFound)?;
            let edited = match edit(&record) {
                Ok(edited) => edited,
                Err(refused) => return Ok(Err(refused)),
            };
            if store.replace(KEYS, id, &stored, written(&edited)?).await? {
                return self.show(edited).map(Ok).ok_or(WriteError::Conflict);
            }
        }
        Err(WriteError::Conflict)
    }

    /// Revokes a key, unless `refuse` says no.
    ///
    /// # Errors
    /// The store failed or there is no such key. When the store failed the key is refused here all the same, and has to be
    /// revoked again for the others.
    pub async fn revoke<E>(
        &self,
        store: &dyn Store,
        id: &str,
        refuse: impl Fn(&Record) -> Result<(), E>,
    ) -> Result<Result<(), E>, WriteError> {
        let _writing = self.writing.lock().await;
        let record = match self.get(id) {
            Some(key) => Some(key.record.clone()),
            // Perhaps another gateway made it since the last reading.
            None => store.get(KEYS, id).await?.and_then(|stored| serde_json::from_slice(&stored).ok()),
        };
        if let Some(record) = &record
            && let Err(refused) = refuse(record)
        {
            return Ok(Err(refused));
        }
        self.hide(id);
        store.take(KEYS, id).await?.ok_or(WriteError::NotFound)?;
        Ok(Ok(()))
    }

    /// Up to `limit` keys in the order they were made, from behind the id `after` on.
    ///
    /// # Errors
    /// The store failed.
    pub async fn list(&self, store: &dyn Store, after: Option<&str>, limit: usize) -> Result<Vec<Record>, StoreError> {
        let entries = store.list(KEYS, after, limit).await?;
        Ok(entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect())
    }
}

fn written(record: &Record) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| StoreError(format!("a record cannot be written: {error}")))
}
