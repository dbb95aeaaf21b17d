//! Limits on what callers may do: what all snapshots of a process have in common.

use std::sync::{Arc, OnceLock};

use crate::buckets::{Limiter, Local};
use crate::state::Store;

/// What limits know beyond one snapshot.
#[derive(Default)]
pub struct Limits {
    /// Buckets of this gateway alone.
    pub local: Local,
    shared: OnceLock<Shared>,
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

    /// What was handed in. In `tollgate check`, `test` and `explain` there is none.
    pub fn shared(&self) -> Option<&Shared> {
        self.shared.get()
    }
}
