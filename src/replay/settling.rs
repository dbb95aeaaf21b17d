//! Telling the store what became of messages, beside the requests.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, Semaphore};
use tracing::warn;

use super::Inner;
use super::entry::Claim;
use crate::state::{Store, StoreError};

/// What the store is told at a time. A file takes what comes together at the price of one.
const AT_ONCE: usize = 256;
/// What may wait while the store is away. What comes then is not told: an entry of a message that got through ends, and other
/// gateways let it pass again.
pub const WAITING_MAX: usize = 65_536;
/// How long the first one waits for others.
const LINGER: Duration = Duration::from_millis(1);
/// How often the store is told when it fails in between.
const TRIES: u32 = 5;
/// How long the store may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last ones may take when the gateway ends.
const FLUSH_BOUND: Duration = Duration::from_secs(5);

/// What the store is to be told of one message.
pub struct Job {
    pub claim: Arc<Claim>,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It got through, and that is remembered until `ends`.
    Delivered { ends: SystemTime },
    /// Others may try.
    Released,
}

/// What is still to be told.
#[derive(Default)]
pub struct Settling {
    waiting: Mutex<Waiting>,
    /// Something waits.
    more: Notify,
    /// Nothing is left.
    done: Notify,
    lost: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<(Job, u32)>,
    /// Those that wait, and those under way.
    count: usize,
    /// It was said that some are lost.
    told: bool,
}

impl Settling {
    pub fn push(&self, job: Job) {
        let mut waiting = self.waiting();
        if waiting.jobs.len() >= WAITING_MAX {
            self.lose(&mut waiting, job.what);
            return;
        }
        waiting.count = waiting.count.saturating_add(1);
        waiting.jobs.push_back((job, 1));
        drop(waiting);
        self.more.notify_one();
    }

    /// Deliveries that the store never learned of.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until nothing is left, in bounded time. Nobody waits for a store that is away.
    pub async fn idle(&self, is_up: impl Fn() -> bool) {
        let wait = async {
            while is_up() {
                let done = self.done.notified();
                if self.waiting().count == 0 {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(100), done).await;
            }
        };
        let _ = tokio::time::timeout(FLUSH_BOUND, wait).await;
        let left = self.waiting().jobs.iter().filter(|(job, _)| job.what != What::Released).count();
        if left > 0 {
            warn!(
                left,
                "the state store did not learn that these messages got through: they pass when they come again"
            );
        }
    }

    async fn next(&self) -> (Job, u32) {
        loop {
            let more = self.more.notified();
            if let Some(next) = self.waiting().jobs.pop_front() {
                return next;
            }
            more.await;
            // Under load others follow at once: waking for each of them costs more than all that is to be done.
            tokio::time::sleep(LINGER).await;
        }
    }

    /// One that failed: it waits again, behind the others.
    fn again(&self, job: Job, tries: u32) {
        let mut waiting = self.waiting();
        if tries < TRIES && waiting.jobs.len() < WAITING_MAX {
            waiting.jobs.push_back((job, tries.saturating_add(1)));
            drop(waiting);
            self.more.notify_one();
        } else {
            self.lose(&mut waiting, job.what);
            drop(waiting);
            self.finish();
        }
    }

    fn finish(&self) {
        let mut waiting = self.waiting();
        waiting.count = waiting.count.saturating_sub(1);
        if waiting.count == 0 {
            waiting.told = false;
            drop(waiting);
            self.done.notify_waiters();
        }
    }

    /// A message that is not released ends by itself; that one got through is lost.
    fn lose(&self, waiting: &mut Waiting, what: What) {
        if what == What::Released {
            return;
        }
        self.lost.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut waiting.told, true) {
            warn!(
                "the state store does not learn of messages that got through; other gateways let them pass again. \
                 See `tollgate_replay_untold_total`"
            );
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the store, for ever.
pub async fn keep(inner: &Arc<Inner>, store: &Arc<dyn Store>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        inner.availability.up().await;
        let (job, tries) = inner.settling.next().await;
        let (inner, store) = (Arc::clone(inner), Arc::clone(store));
        tokio::spawn(async move {
            let _place = place;
            let noted = inner.availability.noted();
            match tokio::time::timeout(PATIENCE, tell(&job, &store)).await {
                Ok(Ok(())) => inner.settling.finish(),
                failed => {
                    let why = match failed {
                        Ok(Err(error)) => error.0,
                        _ => format!("it did not answer within {PATIENCE:?}"),
                    };
                    // Before it waits again: then it waits for the end of the episode.
                    inner.availability.failed(noted, &why);
                    inner.settling.again(job, tries);
                }
            }
        });
    }
}

async fn tell(job: &Job, store: &Arc<dyn Store>) -> Result<(), StoreError> {
    match job.what {
        What::Delivered { ends } => job.claim.deliver(&**store, ends).await,
        What::Released => job.claim.release(&**store).await,
    }
}
