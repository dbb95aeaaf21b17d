//! The right to deliver a message.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::entry::{Claim, later};
use super::settling::{Job, What};
use super::{Begun, Inner, OnStoreError};
use crate::context::Once;

/// Whoever has it may deliver the message. Dropped without a word, it leaves no trace.
pub struct Right {
    inner: Arc<Inner>,
    claim: Arc<Claim>,
    /// There is, or may be, an entry of ours in memory.
    pub noted: bool,
    /// There is, or may be, an entry of ours in the store.
    pub stored: bool,
    is_delivered: AtomicBool,
}

impl Right {
    /// One that has left no entry yet.
    pub fn unnoted(inner: &Arc<Inner>, claim: Claim) -> Self {
        let claim = Arc::new(claim);
        Self { inner: Arc::clone(inner), claim, noted: false, stored: false, is_delivered: AtomicBool::new(false) }
    }

    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// What becomes of a message when the store says nothing of it. With no room to note it, nobody could tell it when it
    /// comes again: better it comes later.
    pub fn alone(self, has_room: bool, on_error: OnStoreError) -> Begun {
        match on_error {
            OnStoreError::Allow => Begun::First(Arc::new(self)),
            OnStoreError::Local if has_room => Begun::First(Arc::new(self)),
            OnStoreError::Local | OnStoreError::Deny => Begun::Unavailable,
        }
    }

    fn settle(&self, what: What) {
        if self.inner.store.get().is_some() {
            self.inner.settling.push(Job { claim: Arc::clone(&self.claim), what });
        }
    }
}

impl Once for Right {
    fn delivered(&self) {
        if self.is_delivered.swap(true, Ordering::AcqRel) {
            return;
        }
        let now = (self.inner.now)();
        let has_store = self.inner.store.get().is_some();
        self.inner.local.deliver(&self.claim, now, has_store && self.inner.availability.is_up());
        // Also of one that began without the store: when it is back, the other gateways learn it.
        self.settle(What::Delivered { ends: later(now, self.claim.window()) });
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        if *self.is_delivered.get_mut() {
            return;
        }
        if self.noted {
            self.inner.local.release(&self.claim);
        }
        if self.stored {
            self.settle(What::Released);
        }
    }
}

impl fmt::Debug for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Right").field("is_delivered", &self.is_delivered).finish_non_exhaustive()
    }
}
