//! What all snapshots of a process have in common.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::jwks::KeySets;
use super::managed::ManagedKeys;
use crate::caller::Caller;
use crate::observe::audit::AuditLog;
use crate::state::{Store, StoreError};

/// What identity knows beyond one snapshot.
#[derive(Default)]
pub struct Shared {
    store: OnceLock<Arc<dyn Store>>,
    audit: OnceLock<Arc<AuditLog>>,
    /// Key sets that are fetched.
    pub key_sets: KeySets,
    revoked: OnceLock<Box<dyn Fn(&Caller) -> bool + Send + Sync>>,
    managed: ManagedKeys,
    generations: AtomicU64,
    /// How many times something was revoked.
    revocations: watch::Sender<u64>,
}

impl Shared {
    /// Hands in the state store, once it is open. The first one stays.
    pub fn attach(&self, store: Arc<dyn Store>) {
        let _ = self.store.set(store);
        self.managed.expect_keys();
    }

    /// Hands in the audit log, once it is open. The first one stays.
    pub fn attach_audit(&self, log: Arc<AuditLog>) {
        let _ = self.audit.set(log);
    }

    /// The audit log, when there is one. In `tollgate check`, `test` and `explain` there is none.
    pub fn audit(&self) -> Option<&Arc<AuditLog>> {
        self.audit.get()
    }

    /// The state store.
    ///
    /// # Errors
    /// It is not open: in `tollgate check`, `test` and `explain` it never is.
    pub fn store(&self) -> Result<&Arc<dyn Store>, StoreError> {
        self.store.get().ok_or_else(|| StoreError("it is not open".to_owned()))
    }

    /// Hands in what knows the tokens that were taken back. It is asked with every request that brings a token, and must
    /// answer from memory. The first one stays.
    pub fn revoke_by(&self, revoked: impl Fn(&Caller) -> bool + Send + Sync + 'static) {
        let _ = self.revoked.set(Box::new(revoked));
    }

    /// Whether the token of a caller was taken back.
    pub fn is_revoked(&self, caller: &Caller) -> bool {
        self.revoked.get().is_some_and(|revoked| revoked(caller))
    }

    /// The keys that are kept in the state store.
    pub fn managed(&self) -> &ManagedKeys {
        &self.managed
    }

    /// A number for the next snapshot; 0 is that of none.
    pub(super) fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// To be called whenever a credential was revoked: open WebSockets with `close_on: [key_revoked]` ask again whether theirs
    /// still holds.
    pub fn tell_revoked(&self) {
        self.revocations.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Tells whenever something was revoked.
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }
}
