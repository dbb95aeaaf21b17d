//! Whether the store can be reached.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::clock;

/// How often a store that failed is asked again.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// A store that was well for so long is trusted after one good answer.
const TRUST_AFTER: Duration = Duration::from_secs(60);
/// Good answers in a row that a store needs at most which fails again and again.
const PROOFS_MAX: u32 = 64;
/// What operators read of episodes.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// When one begins.
    pub failed: &'static str,
    /// When it is over.
    pub again: &'static str,
}

/// Episodes in which the store cannot be reached.
pub struct Availability {
    /// How often a store that failed is asked again.
    interval: Duration,
    words: Words,
    /// How often it became unreachable or reachable again. Odd: it cannot be reached.
    changes: AtomicU64,
    errors: AtomicU64,
    begun: Notify,
    ended: Notify,
}

/// How it was at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Noted(u64);

impl Noted {
    pub fn is_up(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

impl Availability {
    pub fn new(interval: Duration, words: Words) -> Self {
        Self {
            interval,
            words,
            changes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            begun: Notify::new(),
            ended: Notify::new(),
        }
    }

    pub fn noted(&self) -> Noted {
        Noted(self.changes.load(Ordering::Relaxed))
    }

    pub fn is_up(&self) -> bool {
        self.noted().is_up()
    }

    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// A request failed that was made when it was as `noted`: an episode begins, unless one has begun since. What was
    /// asked before an episode ended begins no new one.
    pub fn failed(&self, noted: Noted, why: &str) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let next = noted.0.wrapping_add(1);
        let begins =
            noted.is_up() && self.changes.compare_exchange(noted.0, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if begins {
            warn!(why, "{}", self.words.failed);
            self.begun.notify_one();
        }
    }

    /// Waits for the end of an episode, where there is one.
    pub async fn up(&self) {
        loop {
            let ended = self.ended.notified();
            if self.is_up() {
                return;
            }
            ended.await;
        }
    }

    /// Ends episodes, for ever. `without` counts the decisions made without the store.
    pub async fn keep<P: Future<Output = bool>>(&self, probe: impl Fn() -> P, without: impl Fn() -> u64) {
        let (mut ended, mut proofs, mut before) = (None, 1_u32, without());
        loop {
            while self.is_up() {
                self.begun.notified().await;
            }
            let began = clock::now();
            let is_trusted = ended.is_none_or(|ended| began.saturating_duration_since(ended) >= TRUST_AFTER);
            proofs = if is_trusted { 1 } else { proofs.saturating_mul(2).min(PROOFS_MAX) };
            let mut good = 0;
            while good < proofs {
                tokio::time::sleep(self.interval).await;
                good = if probe().await {
                    good.saturating_add(1)
                } else {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    0
                };
            }
            self.changes.fetch_add(1, Ordering::Relaxed);
            self.ended.notify_waiters();
            let now = clock::now();
            ended = Some(now);
            let total = without();
            let decisions = total.saturating_sub(std::mem::replace(&mut before, total));
            info!(lasted = ?now.saturating_duration_since(began), decisions, "{}", self.words.again);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Arc;

    const INTERVAL: Duration = Duration::from_millis(1);
    const WORDS: Words = Words { failed: "away", again: "back" };

    /// What a store does that answers, for as long as the test takes.
    async fn looked_after(availability: &Availability, probes: &Cell<u32>, test: impl Future<Output = ()>) {
        let probe = || async {
            probes.set(probes.get() + 1);
            true
        };
        tokio::select! {
            () = test => {}
            () = availability.keep(probe, || 0) => unreachable!("it never ends"),
        }
    }

    #[test]
    fn one_of_several_failures_begins_an_episode() {
        let availability = Arc::new(Availability::new(INTERVAL, WORDS));
        let noted = availability.noted();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let availability = Arc::clone(&availability);
                std::thread::spawn(move || availability.failed(noted, "test"))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!((availability.noted().0, availability.errors()), (1, 8));
        availability.failed(availability.noted(), "test");
        assert!(!availability.is_up(), "a failure within an episode changes nothing");
    }

    #[tokio::test]
    async fn what_was_asked_before_an_episode_ended_begins_no_new_one() {
        let availability = Availability::new(INTERVAL, WORDS);
        let late = availability.noted();
        availability.failed(late, "test");
        looked_after(&availability, &Cell::new(0), availability.up()).await;
        availability.failed(late, "late");
        assert!(availability.is_up());
        availability.failed(availability.noted(), "again");
        assert!(!availability.is_up());
    }

    #[tokio::test]
    async fn a_store_that_fails_again_and_again_has_to_prove_itself() {
        let availability = Availability::new(INTERVAL, WORDS);
        let probes = Cell::new(0);
        let flap = async {
            for expected in [1, 2, 4, 8, 16, 32, 64, 64] {
                probes.set(0);
                availability.failed(availability.noted(), "test");
                availability.up().await;
                assert_eq!(probes.get(), expected);
            }
        };
        looked_after(&availability, &probes, flap).await;
    }
}
