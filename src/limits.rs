//! Limits on what callers may do: what all snapshots of a process have in common.

pub mod fields;
pub mod per;
pub mod permits;
pub mod quotas;
pub mod remote;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::MissedTickBehavior;

use self::permits::Permits;
use self::quotas::Quotas;
use self::remote::Remote;
use crate::buckets::{Limiter, Local};
use crate::clock;
use crate::observe::metrics::StoreSample;
use crate::state::Store;

/// What limits know beyond one snapshot.
#[derive(Default)]
pub struct Limits {
    /// Buckets of this gateway alone.
    pub local: Local,
    /// Who is in flight.
    pub permits: Permits,
    /// Quotas over calendar periods.
    pub quotas: Quotas,
    numbers: AtomicU64,
    shared: OnceLock<Shared>,
    remote: OnceLock<Arc<Remote>>,
}

/// What becomes of a request for which nothing is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It passes, and is counted.
    Observe,
    /// Nothing is counted.
    Off,
}

/// How often buckets that are full again are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
            Self::Off => "off",
        }
    }
}

/// How long a limiter is waited for that does not keep its own bound: longer than any `timeout` and one try more.
const REMOTE_BOUND: Duration = Duration::from_secs(11);

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
        self.quotas.attach(Arc::clone(&shared.store));
        let limiter = shared.limiter.clone();
        if self.shared.set(shared).is_ok()
            && let Some(limiter) = limiter
        {
            let _ = self.remote.set(Arc::new(Remote::new(limiter, REMOTE_BOUND)));
        }
    }

    /// Keeps memory and store together, beside the requests, until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        tokio::join!(self.quotas.keep(), self.keep_sweeping());
    }

    /// Buckets sweep themselves while requests come; this gives memory back when none do.
    async fn keep_sweeping(self: &Arc<Self>) {
        let mut rounds = tokio::time::interval(SWEEP_INTERVAL);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let limits = Arc::clone(self);
            // A round over a million buckets takes long enough to keep this thread's other work waiting.
            let _ = tokio::task::spawn_blocking(move || limits.local.sweep(clock::now())).await;
        }
    }

    /// A number that no other filter of this process has.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// What was handed in. In `tollgate check`, `test` and `explain` there is none.
    pub fn shared(&self) -> Option<&Shared> {
        self.shared.get()
    }

    /// How it goes with the store that buckets are shared in and quotas are counted in.
    pub fn store(&self) -> StoreSample {
        let quotas = self.quotas.sample();
        self.remote().map_or(quotas, |remote| {
            let remote = remote.sample();
            let mut without = remote.without;
            for ((_, count), (_, more)) in without.iter_mut().zip(quotas.without) {
                *count = count.saturating_add(more);
            }
            StoreSample {
                is_up: remote.is_up && quotas.is_up,
                errors: remote.errors.saturating_add(quotas.errors),
                without,
            }
        })
    }

    /// The buckets of several gateways, where there are such.
    pub fn remote(&self) -> Option<&Arc<Remote>> {
        self.remote.get()
    }
}
