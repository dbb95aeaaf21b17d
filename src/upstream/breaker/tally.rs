//! How many there were within the last while, without a lock.
//!
//! Time is cut into slots of a tenth of the window. Each of the ten places of the ring holds the number of its slot and the
//! count in one word, so that a count can never be added to a slot that has gone by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Slots of a window.
pub const SLOTS: usize = 10;
/// The lower half of a word is the count.
const COUNT_BITS: u32 = 32;
const COUNT_MAX: u64 = u32::MAX as u64;

/// Counts within a window: between nine tenths of it and the whole.
pub struct Tally {
    origin: Instant,
    slot: Duration,
    places: [AtomicU64; SLOTS],
}

impl Tally {
    /// Nothing before `origin` is ever counted apart from it.
    pub fn new(window: Duration, origin: Instant) -> Self {
        let slot = window.checked_div(SLOTS as u32).unwrap_or_default().max(Duration::from_millis(1));
        Self { origin, slot, places: Default::default() }
    }

    /// One at `at`. What lies so far back that its place was given to a later slot is not counted.
    pub fn add(&self, at: Instant) {
        let number = self.number(at);
        let Some(place) = usize::try_from(number).ok().and_then(|number| self.places.get(number % SLOTS)) else {
            return;
        };
        let added = |word: u64| {
            let (held, count) = (word >> COUNT_BITS, word & COUNT_MAX);
            match held.cmp(&number) {
                std::cmp::Ordering::Greater => None,
                std::cmp::Ordering::Equal => Some((held << COUNT_BITS) | count.saturating_add(1).min(COUNT_MAX)),
                std::cmp::Ordering::Less => Some((number << COUNT_BITS) | 1),
            }
        };
        // Refused where the slot has gone by: then there is nothing to count.
        let _ = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
    }

    /// How many there were within the window that ends at `now`.
    pub fn sum(&self, now: Instant) -> u64 {
        let number = self.number(now);
        let words = self.places.iter().map(|place| place.load(Ordering::Relaxed));
        let within = words.filter(|word| (word >> COUNT_BITS).saturating_add(SLOTS as u64) > number);
        within.map(|word| word & COUNT_MAX).fold(0, u64::saturating_add)
    }

    pub fn clear(&self) {
        self.places.iter().for_each(|place| place.store(0, Ordering::Relaxed));
    }

    /// The number of the slot that `at` lies in. With the shortest window it is good for thirteen years.
    pub fn number(&self, at: Instant) -> u64 {
        let number = at.saturating_duration_since(self.origin).as_nanos().checked_div(self.slot.as_nanos());
        number.and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn at(origin: Instant, millis: u64) -> Instant {
        origin + Duration::from_millis(millis)
    }

    #[test]
    fn what_is_older_than_the_window_is_gone_and_what_is_not_is_there() {
        let origin = clock::now();
        let tally = Tally::new(Duration::from_secs(1), origin);
        tally.add(at(origin, 99));
        tally.add(at(origin, 100));
        assert_eq!(tally.sum(at(origin, 999)), 2);
        assert_eq!(tally.sum(at(origin, 1000)), 1);
        assert_eq!(tally.sum(at(origin, 1099)), 1);
        assert_eq!(tally.sum(at(origin, 1100)), 0);
    }

    #[test]
    fn a_late_one_counts_where_it_belongs_or_not_at_all() {
        let origin = clock::now();
        let tally = Tally::new(Duration::from_secs(1), origin);
        tally.add(at(origin, 950));
        tally.add(at(origin, 150));
        assert_eq!(tally.sum(at(origin, 1000)), 2);
        tally.add(at(origin, 1150));
        tally.add(at(origin, 150));
        assert_eq!(tally.sum(at(origin, 1150)), 2);
        tally.clear();
        assert_eq!(tally.sum(at(origin, 1150)), 0);
    }

    #[test]
    fn no_jump_of_time_is_too_far() {
        let origin = clock::now();
        let tally = Tally::new(Duration::from_secs(1), origin);
        let far = origin + Duration::from_secs(20 * 365 * 86_400);
        for now in [origin.checked_sub(Duration::from_secs(5)).unwrap_or(origin), origin, far] {
            tally.add(now);
            assert!(tally.sum(now) >= 1);
        }
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let origin = clock::now();
        let tally = Tally::new(Duration::from_secs(10), origin);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let tally = &tally;
                scope.spawn(move || (0..10_000_u64).for_each(|step| tally.add(at(origin, (step + thread) % 5_000))));
            }
        });
        assert_eq!(tally.sum(at(origin, 5_000)), 40_000);
    }
}
