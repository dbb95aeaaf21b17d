//! What all snapshots of a process have in common.

use std::sync::{Arc, OnceLock};

use crate::state::{Store, StoreError};

/// What identity knows beyond one snapshot.
#[derive(Default)]
pub struct Shared {
    store: OnceLock<Arc<dyn Store>>,
}

impl Shared {
    /// Hands in the state store, once it is open. The first one stays.
    pub fn attach(&self, store: Arc<dyn Store>) {
        let _ = self.store.set(store);
    }

    /// The state store.
    ///
    /// # Errors
    /// It is not open: in `tollgate check`, `test` and `explain` it never is.
    pub fn store(&self) -> Result<&Arc<dyn Store>, StoreError> {
        self.store.get().ok_or_else(|| StoreError("it is not open".to_owned()))
    }
}
