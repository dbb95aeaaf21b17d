//! What the checks of one target said, and when the next one is due.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::Subject;
use super::compile::Check;
use super::verdict::Verdict;

/// The verdict on one target.
pub struct Checked {
    subject: Subject,
    /// What a request reads.
    healthy: AtomicBool,
    state: Mutex<State>,
    good: AtomicU64,
    bad: AtomicU64,
}

struct State {
    verdict: Verdict,
    /// Since when it is what it is.
    since: Instant,
    /// What was asked last.
    check: Option<Arc<Check>>,
    /// When it is to be asked again. `None`: at once.
    due: Option<Instant>,
    last: Option<Last>,
}

/// The last check.
#[derive(Clone, Debug)]
struct Last {
    at: Instant,
    /// Why it failed.
    error: Option<String>,
}

/// How it stands with the checks of a target.
pub struct CheckView {
    pub healthy: bool,
    pub since: Instant,
    /// When it was checked last.
    pub last: Option<Instant>,
    /// Why that failed.
    pub error: Option<String>,
    /// Results in a row that speak against the verdict.
    pub against: u32,
}

impl Checked {
    pub fn new(subject: Subject, now: Instant) -> Self {
        Self {
            subject,
            healthy: AtomicBool::new(true),
            state: Mutex::new(State { verdict: Verdict::new(), since: now, check: None, due: None, last: None }),
            good: AtomicU64::new(0),
            bad: AtomicU64::new(0),
        }
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// When it is to be asked by this check: at once when it was not asked before, or asked something else.
    pub fn due(&self, check: &Arc<Check>, now: Instant) -> Instant {
        let mut state = self.lock();
        if state.check.as_ref().is_none_or(|known| !known.asks_the_same(check)) {
            state.verdict.renew();
            state.due = None;
        }
        state.check = Some(Arc::clone(check));
        let latest = now.checked_add(check.interval).unwrap_or(now);
        state.due.map_or(now, |due| due.min(latest))
    }

    /// Nothing can be asked now; to be tried again so much later.
    pub fn postpone(&self, period: Duration, now: Instant) {
        self.lock().due = now.checked_add(period);
    }

    /// Hears what came of a check that began at `started`. `jitter` is from 0 to 1.
    pub fn hear(&self, check: &Arc<Check>, result: Result<(), String>, started: Instant, now: Instant, jitter: f32) {
        let mut state = self.lock();
        if state.check.as_ref().is_none_or(|known| !Arc::ptr_eq(known, check)) {
            // Of a configuration that is gone.
            return;
        }
        let (good, first) = (result.is_ok(), state.last.is_none());
        let count = if good { &self.good } else { &self.bad };
        count.fetch_add(1, Ordering::Relaxed);
        // The second one comes at any time within the interval: what began together does not stay together.
        let factor = if first { jitter } else { 0.9 + 0.2 * jitter };
        state.due = started.checked_add(check.interval.mul_f32(factor.max(0.05)));
        let error = result.err();
        state.last = Some(Last { at: now, error: error.clone() });
        let failures = state.verdict.against().saturating_add(1);
        if !state.verdict.hear(good, check.thresholds) {
            return;
        }
        state.since = now;
        if good {
            self.subject.state.warm_up(now);
        }
        self.healthy.store(good, Ordering::Relaxed);
        drop(state);
        self.subject.shared.changed();
        let (upstream, address, asked) = (&*self.subject.upstream, &*self.subject.address, check.name());
        match error {
            Some(why) => warn!(
                upstream,
                address,
                check = asked,
                failures,
                why,
                "the target is unhealthy: it is left out until its checks succeed; look at the service, or at the check"
            ),
            None => info!(upstream, address, check = asked, "the target is healthy again"),
        }
    }

    pub fn view(&self) -> CheckView {
        let state = self.lock();
        CheckView {
            healthy: state.verdict.is_healthy(),
            since: state.since,
            last: state.last.as_ref().map(|last| last.at),
            error: state.last.as_ref().and_then(|last| last.error.clone()),
            against: state.verdict.against(),
        }
    }

    /// Checks that succeeded, and that failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.good.load(Ordering::Relaxed), self.bad.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
