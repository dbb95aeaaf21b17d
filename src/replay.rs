//! Messages that must not pass twice: who came first, and whether it got through.

use std::sync::{Arc, OnceLock};

use crate::state::Store;

/// What is known of messages beyond one snapshot.
#[derive(Default)]
pub struct Replay {
    store: OnceLock<Arc<dyn Store>>,
}

impl Replay {
    /// Hands in the state store, once it is open. The first one stays.
    pub fn attach(&self, store: Arc<dyn Store>) {
        let _ = self.store.set(store);
    }
}
