//! What retries may cost: a share of the requests of the last ten seconds, and a few beside it.
//!
//! Requests are counted for each second by an atomic addition. Retries are rare, so they stand behind a lock: two that come
//! at once never share the last one that is left.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How far back requests and retries count, in seconds: the current one and those before.
pub const SECONDS: u64 = 10;
/// The upper bits of a place hold its second, the lower ones the count.
const COUNT_BITS: u32 = 40;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// What of a second is kept: it comes again after half a year without a request.
const SECOND: u64 = u64::MAX >> COUNT_BITS;
const MILLION: u64 = 1_000_000;

/// Aligned so that counting slows nobody else down.
#[repr(align(128))]
pub struct Budget {
    epoch: Instant,
    requests: [AtomicU64; SECONDS as usize],
    retries: Mutex<[u64; SECONDS as usize]>,
}

impl Budget {
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, requests: Default::default(), retries: Mutex::default() }
    }

    /// Counts a request.
    pub fn requested(&self, now: Instant) {
        let second = self.second(now);
        let Some(place) = self.requests.get(index(second)) else { return };
        if is_of(place.load(Ordering::Relaxed), second) {
            // Where another thread begins the next round in between, this one counts there.
            place.fetch_add(1, Ordering::Relaxed);
        } else {
            let next = |old| Some(one_more(old, second));
            let _ = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        }
    }

    /// Takes a retry, unless `share` millionths of the requests, and `least` beside them, are used up; whether it was there.
    pub fn charge(&self, share: u32, least: u64, now: Instant) -> bool {
        let second = self.second(now);
        let mut retries = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = self.requests.iter().map(|place| counted(place.load(Ordering::Relaxed), second));
        let requests = requests.fold(0, u64::saturating_add);
        let used = retries.iter().map(|place| counted(*place, second)).fold(0, u64::saturating_add);
        let of_share = requests.saturating_mul(u64::from(share)).checked_div(MILLION).unwrap_or_default();
        if used >= of_share.saturating_add(least) {
            return false;
        }
        if let Some(place) = retries.get_mut(index(second)) {
            *place = one_more(*place, second);
        }
        true
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs()
    }
}

fn index(second: u64) -> usize {
    usize::try_from(second.checked_rem(SECONDS).unwrap_or_default()).unwrap_or_default()
}

fn is_of(place: u64, second: u64) -> bool {
    place >> COUNT_BITS == second & SECOND
}

/// The place after one more in this second: what it held of an older one is over.
fn one_more(place: u64, second: u64) -> u64 {
    if is_of(place, second) { place.saturating_add(1) } else { (second & SECOND) << COUNT_BITS | 1 }
}

/// What a place counts now.
fn counted(place: u64, second: u64) -> u64 {
    let age = second.wrapping_sub(place >> COUNT_BITS) & SECOND;
    if age < SECONDS { place & COUNT } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    const FIFTH: u32 = 200_000;

    #[test]
    fn a_fifth_of_the_requests_and_not_one_more() {
        let (now, mut charged) = (clock::now(), 0);
        let budget = Budget::new(now);
        for requests in 1_u64..=100 {
            budget.requested(now);
            while budget.charge(FIFTH, 0, now) {
                charged += 1;
            }
            assert_eq!(charged, requests / 5, "{requests}");
        }
        assert!(budget.charge(FIFTH, 1, now) && !budget.charge(FIFTH, 1, now), "one beside the share");
    }

    #[test]
    fn without_requests_there_is_what_is_there_beside_them() {
        let now = clock::now();
        let budget = Budget::new(now);
        let count = |at| (0..10).filter(|_| budget.charge(FIFTH, 3, at)).count();
        assert_eq!(count(now), 3);
        assert_eq!(count(now + Duration::from_secs(SECONDS - 1)), 0, "they count for ten seconds");
        assert_eq!(count(now + Duration::from_secs(SECONDS)), 3);
    }

    #[test]
    fn requests_count_for_ten_seconds() {
        let now = clock::now();
        let budget = Budget::new(now);
        (0..10).for_each(|_| budget.requested(now));
        let at = now + Duration::from_millis(9_999);
        assert!(budget.charge(FIFTH, 0, at) && budget.charge(FIFTH, 0, at) && !budget.charge(FIFTH, 0, at));
        let later = now + Duration::from_secs(10);
        (0..5).for_each(|_| budget.requested(later));
        // What the share of the old ones was used for is used up.
        assert!(!budget.charge(FIFTH, 0, later));
        assert!(budget.charge(FIFTH, 2, later));
    }

    #[test]
    fn threads_never_share_the_last_one() {
        let now = clock::now();
        let (budget, charged) = (Budget::new(now), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        budget.requested(now);
                        if budget.charge(FIFTH, 5, now) {
                            charged.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        while budget.charge(FIFTH, 5, now) {
            charged.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(charged.into_inner(), 805);
    }

    proptest! {
        /// Whatever happens when, what is charged within ten seconds never exceeds what its rules allow for them.
        #[test]
        fn a_model_says_the_same(steps in proptest::collection::vec((0_u64..4, 0_u8..3), 1..200)) {
            let start = clock::now();
            let budget = Budget::new(start);
            let (mut second, mut requests, mut retries) = (0, Vec::new(), Vec::new());
            for (later, what) in steps {
                second += later;
                let now = start + Duration::from_secs(second);
                if what == 0 {
                    let recent = |of: &Vec<u64>| of.iter().filter(|at| second - **at < SECONDS).count();
                    let may = recent(&retries) < recent(&requests) / 5 + 1;
                    prop_assert_eq!(budget.charge(FIFTH, 1, now), may);
                    if may {
                        retries.push(second);
                    }
                } else {
                    budget.requested(now);
                    requests.push(second);
                }
            }
        }
    }
}
