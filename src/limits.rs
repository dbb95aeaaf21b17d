//! Limits on what callers may do: what all snapshots of a process have in common.

pub mod fields;
pub mod per;
pub mod permits;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use self::permits::Permits;
use crate::buckets::{Limiter, Local};
use crate::state::Store;

/// What limits know beyond one snapshot.
#[derive(Default)]
pub struct Limits {
    /// Buckets of this gateway alone.
    pub local: Local,
    /// Who is in flight.
    pub permits: Permits,
    shared: OnceLock<Shared>,
    numbers: AtomicU64,
}

/// Where counts are kept that outlive the process, or that gateways share.
pub struct Shared {
    /// Counters of quotas.
    pub store: Arc<dyn Store>,
    /// Buckets of several gateways. `None`: each gateway has its own.
    pub limiter: Option<Arc<dyn Limiter>>,
}

impl Limits {
    /// Hands in the state store, once it is open. The first one stays.
    pub fn attach(&self, shared: Shared) {
        let _ = self.shared.set(shared);
    }

    /// A number that no other filter of this process has.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// What was handed in. In `tollgate check`, `test` and `explain` there is none.
    pub fn shared(&self) -> Option<&Shared> {
        self.shared.get()
    }
}
