//! Who speaks to the store for all accounts: never on the time of a request, and with care when the store is away.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{info, warn};

use super::account::{Leftover, Plan, Said};
use crate::clock;
use crate::limits::remote::Without;
use crate::state::{Space, Spend, Store, StoreError};

/// Where counters are kept. The key is the bucket, the period and whose the counter is.
const SPACE: Space = Space("quota");
/// How long a request waits for the store at most. A store that takes longer is away: until it answers in time again,
/// nobody waits for it.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How often a store that is away is asked whether it is back.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// How long a counter is kept behind the end of its period: for clocks that are set back, and that differ.
const KEPT: Duration = Duration::from_secs(2 * 86_400);
/// So long without a failure ends an episode.
const CALM: Duration = Duration::from_secs(10);
/// Leftovers that are remembered; what is beyond is lost.
const LEFTOVERS_MAX: usize = 100_000;
/// Leftovers that are told to the store at once.
const LEFTOVERS_AT_ONCE: usize = 256;
/// Counters that are read at once.
const COUNTERS_AT_ONCE: usize = 500;
/// No counter goes further: a store may count in floating point, which is exact up to here.
pub const UNITS_MAX: u64 = 1 << 53;

/// Whether the store may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may, and its answer may be waited for.
    Open,
    /// It is away. This one may ask whether it is back, and is not to wait for the answer.
    Probe,
    Closed,
}

pub struct Teller {
    store: OnceLock<Arc<dyn Store>>,
    /// Where work goes on when a request does not wait for it any more, or its thread ends.
    home: OnceLock<Handle>,
    began: Instant,
    away: AtomicBool,
    /// When the store may be asked next while it is away, in milliseconds since `began`.
    probe_at: AtomicU64,
    failures: AtomicU64,
    /// Decisions made without the store.
    without: Without,
    /// Set during an episode of failures, so that nobody waits for the lock while there is none.
    in_episode: AtomicBool,
    episode: Mutex<Option<Episode>>,
    under_way: watch::Sender<usize>,
    leftovers: Mutex<VecDeque<(String, Leftover)>>,
}

struct Episode {
    began: Instant,
    failed: Instant,
}

impl Default for Teller {
    fn default() -> Self {
        Self {
            store: OnceLock::new(),
            home: OnceLock::new(),
            began: clock::now(),
            away: AtomicBool::new(false),
            probe_at: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            without: Without::default(),
            in_episode: AtomicBool::new(false),
            episode: Mutex::new(None),
            under_way: watch::Sender::new(0),
            leftovers: Mutex::default(),
        }
    }
}

impl Teller {
    /// Hands in the store. The first one stays.
    pub fn attach(&self, store: Arc<dyn Store>) {
        let _ = self.store.set(store);
    }

    /// From now on work goes on in the runtime that this is called in.
    pub fn settle_here(&self) {
        let _ = self.home.set(Handle::current());
    }

    /// How often the store failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Decisions made without the store, by the policy that they went by.
    pub fn without(&self) -> &Without {
        &self.without
    }

    /// Whether a request may ask the store. Of all who ask while it is away, one in a while may.
    pub fn access(&self, now: Instant) -> Access {
        if !self.is_away() {
            return Access::Open;
        }
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = milliseconds(now.saturating_duration_since(self.began));
        let at = self.probe_at.load(Ordering::Relaxed);
        let next = now.saturating_add(milliseconds(PROBE_INTERVAL));
        let order = Ordering::Relaxed;
        let is_mine = at <= now && self.probe_at.compare_exchange(at, next, order, order).is_ok();
        if is_mine { Access::Probe } else { Access::Closed }
    }

    /// Whether the store failed of late.
    pub fn is_in_episode(&self) -> bool {
        self.in_episode.load(Ordering::Relaxed)
    }

    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Whether it failed of late.
    pub fn is_failing(&self) -> bool {
        self.in_episode.load(Ordering::Relaxed)
    }

    /// Somebody waited for as long as anybody may.
    pub fn lost_patience(&self) {
        self.away.store(true, Ordering::Relaxed);
        self.failed(&StoreError(format!("it did not answer within {PATIENCE:?}")), clock::now());
    }

    /// Begins with the work at once, and goes on elsewhere when that takes time.
    pub fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Without a runtime it is dropped, and has failed.
        let Some(home) = self.home.get().cloned().or_else(|| Handle::try_current().ok()) else { return };
        let mut work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
        // What it waits with (timers) has to be that of the runtime it goes on in.
        let entered = home.enter();
        let is_done = work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        drop(entered);
        if !is_done {
            home.spawn(work);
        }
    }

    /// Counts a piece of work until what it returns is dropped.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.send_modify(|count| *count = count.saturating_add(1));
        UnderWay(Arc::clone(self))
    }

    /// Waits until no work is under way.
    pub async fn at_rest(&self) {
        // It only fails when the sender is gone.
        let _ = self.under_way.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Tells the store what is planned for the counter `key`.
    pub async fn tell(&self, key: &str, plan: &Plan) -> Said {
        let began = clock::now();
        let mut said = Said::default();
        let told = self.try_tell(key, plan, &mut said).await;
        let now = clock::now();
        let is_slow = now.saturating_duration_since(began) >= PATIENCE;
        match told {
            Ok(()) => {
                said.complete = true;
                if !is_slow {
                    self.succeeded(now);
                }
            }
            Err(error) => {
                if is_slow {
                    self.away.store(true, Ordering::Relaxed);
                }
                self.failed(&error, now);
            }
        }
        said
    }

    async fn try_tell(&self, key: &str, plan: &Plan, said: &mut Said) -> Result<(), StoreError> {
        let store = self.store()?;
        let ends = plan.span.end();
        let ends = ends.checked_add(KEPT).unwrap_or(ends);
        if plan.pay > 0 {
            // It is used already, whatever the limit.
            let ask = Spend { least: plan.pay, most: plan.pay, limit: UNITS_MAX };
            said.counted = Some(store.spend(SPACE, key, ask, ends).await?.used);
            said.paid = true;
        }
        if plan.back > 0 {
            store.give_back(SPACE, key, plan.back).await?;
            said.returned = true;
            said.counted = said.counted.map(|counted| counted.saturating_sub(plan.back));
        }
        if plan.want > 0 {
            let ask = Spend { least: 1, most: plan.want, limit: plan.limit };
            let spent = store.spend(SPACE, key, ask, ends).await?;
            said.got = spent.got;
            said.counted = Some(spent.used);
        }
        Ok(())
    }

    /// What the counter `key` says; 0 where there is none.
    pub async fn counter(&self, key: &str) -> Result<u64, StoreError> {
        Ok(self.store()?.get(SPACE, key).await?.map_or(0, |value| count(&value)))
    }

    /// Counters whose keys begin so, by the rest of the key: of the first `most` in the order of keys.
    pub async fn counters(&self, prefix: &str, most: usize) -> Result<Vec<(String, u64)>, StoreError> {
        let store = self.store()?;
        let mut found = Vec::new();
        // The list begins behind it.
        if let Some(value) = store.get(SPACE, prefix).await? {
            found.push((String::new(), count(&value)));
        }
        let mut after = prefix.to_owned();
        while found.len() < most {
            let page = store.list(SPACE, Some(&after), COUNTERS_AT_ONCE).await?;
            let is_last = page.len() < COUNTERS_AT_ONCE;
            for entry in page {
                let Some(rest) = entry.key.strip_prefix(prefix) else { return Ok(found) };
                found.push((rest.to_owned(), count(&entry.value)));
                after = entry.key;
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    /// Removes the counter `key`: what it said.
    pub async fn remove(&self, key: &str) -> Result<u64, StoreError> {
        Ok(self.store()?.take(SPACE, key).await?.map_or(0, |value| count(&value)))
    }

    fn store(&self) -> Result<&Arc<dyn Store>, StoreError> {
        self.store.get().ok_or_else(|| StoreError("it is not open".to_owned()))
    }

    /// Remembers what a period left behind, to tell it when there is time.
    pub fn leave(&self, key: String, left: Leftover) {
        let mut leftovers = self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
        if leftovers.len() < LEFTOVERS_MAX {
            leftovers.push_back((key, left));
        }
    }

    /// Tells the store some of what was left behind. `false` when there is nothing more to tell, or it failed.
    pub async fn clear(&self) -> bool {
        let some: Vec<_> = {
            let mut leftovers = self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
            let count = leftovers.len().min(LEFTOVERS_AT_ONCE);
            leftovers.drain(..count).collect()
        };
        let tell = |(key, left): (String, Leftover)| async move {
            let plan = Plan { span: left.span, pay: left.pay, back: left.back, want: 0, limit: 0 };
            let said = self.tell(&key, &plan).await;
            if said.complete {
                return true;
            }
            let pay = if said.paid { 0 } else { left.pay };
            // Whether it was given back nobody knows: to do it twice could admit more than the limit.
            if pay > 0 {
                self.leave(key, Leftover { pay, back: 0, ..left });
            }
            false
        };
        let is_full = some.len() == LEFTOVERS_AT_ONCE;
        let told = futures_util::future::join_all(some.into_iter().map(tell)).await;
        is_full && told.into_iter().all(|is_told| is_told)
    }

    fn failed(&self, error: &StoreError, now: Instant) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut episode = self.episode.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(episode) = &mut *episode {
            episode.failed = now;
            return;
        }
        *episode = Some(Episode { began: now, failed: now });
        self.in_episode.store(true, Ordering::Relaxed);
        drop(episode);
        warn!(%error, "quotas cannot be counted in the state store; `on_store_error` decides until they can");
    }

    fn succeeded(&self, now: Instant) {
        self.away.store(false, Ordering::Relaxed);
        self.end_episode(now);
    }

    /// Ends an episode that nothing was heard of for a while.
    pub fn end_episode(&self, now: Instant) {
        if !self.in_episode.load(Ordering::Relaxed) || self.is_away() {
            return;
        }
        let mut episode = self.episode.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |episode: &&mut Episode| now.saturating_duration_since(episode.failed) >= CALM;
        if let Some(over) = episode.as_mut().filter(is_over) {
            let lasted = over.failed.saturating_duration_since(over.began);
            *episode = None;
            self.in_episode.store(false, Ordering::Relaxed);
            drop(episode);
            info!(?lasted, "quotas are counted in the state store again");
        }
    }
}

/// What a counter says, as the store keeps it.
fn count(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// A piece of work that is not done yet.
pub struct UnderWay(Arc<Teller>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count = count.saturating_sub(1));
    }
}
