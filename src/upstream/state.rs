//! What a target has to do and how it does: kept over reloads for as long as the target stays.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much a sample counts at least in the average of latencies.
const SAMPLE_SHARE_MIN: f32 = 1.0 / 16.0;
/// After this time without a sample the average has lost half of its weight against others.
const FADES_AFTER_MS: f32 = 10_000.0;
/// The share of its work that a target in slow start begins with.
const SHARE_MIN: f32 = 0.1;

/// The state of one target. Aligned so that no two share a line of the cache.
#[repr(align(128))]
pub struct State {
    epoch: Instant,
    in_flight: AtomicU32,
    /// When the last sample came, in milliseconds since `epoch`, then the average in microseconds as the bits of an `f32`. Zero:
    /// there was no sample. In one place, so that both are read and written at once.
    latency: AtomicU64,
    /// When it began to warm up, in milliseconds since `epoch`, plus one. Zero: it is warm.
    warms_since: AtomicU64,
}

impl State {
    /// A warm target that has nothing to do.
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, in_flight: AtomicU32::new(0), latency: AtomicU64::new(0), warms_since: AtomicU64::new(0) }
    }

    /// How many requests are in flight to it.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more in flight, unless there are `max` already; whether it was counted.
    pub fn enter(&self, max: Option<u32>) -> bool {
        let Some(max) = max else {
            self.in_flight.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        let more = |count: u32| (count < max).then(|| count.saturating_add(1));
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives back what [`enter`](Self::enter) counted.
    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A sample for the average of latencies. Of two at the same time one may be lost.
    pub fn sample(&self, latency: Duration, now: Instant) {
        let packed = self.latency.load(Ordering::Relaxed);
        let micros = (latency.as_secs_f32() * 1e6).max(1.0);
        let average = match unpack(packed) {
            None => micros,
            Some((at, average)) => {
                let share = (self.elapsed(at, now) / FADES_AFTER_MS).clamp(SAMPLE_SHARE_MIN, 1.0);
                average + (micros - average) * share
            }
        };
        self.latency.store(pack(self.millis(now), average), Ordering::Relaxed);
    }

    /// The average latency, in microseconds. It fades while no sample comes, so that a target that was slow once is tried again.
    pub fn latency(&self, now: Instant) -> Option<f32> {
        let (at, average) = unpack(self.latency.load(Ordering::Relaxed))?;
        Some(average * FADES_AFTER_MS / (FADES_AFTER_MS + self.elapsed(at, now)))
    }

    /// The target is new, or usable again: from now on it warms up.
    pub fn warm_up(&self, now: Instant) {
        let millis = u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX);
        self.warms_since.store(millis.saturating_add(1), Ordering::Relaxed);
    }

    /// The part of its share that a target gets which warms up for `slow_start`: more than 0, at most 1.
    pub fn share(&self, slow_start: Duration, now: Instant) -> f32 {
        let Some(since) = self.warms_since.load(Ordering::Relaxed).checked_sub(1) else { return 1.0 };
        let since = self.epoch.checked_add(Duration::from_millis(since)).unwrap_or(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= slow_start {
            // From now on nothing has to be worked out.
            self.warms_since.store(0, Ordering::Relaxed);
            return 1.0;
        }
        (elapsed.as_secs_f32() / slow_start.as_secs_f32()).clamp(SHARE_MIN, 1.0)
    }

    /// Milliseconds since the beginning; after 49 days they begin anew.
    fn millis(&self, now: Instant) -> u32 {
        let millis = now.saturating_duration_since(self.epoch).as_millis();
        u32::try_from(millis & u128::from(u32::MAX)).unwrap_or_default()
    }

    /// Milliseconds from `at` to `now`. A sample that came a moment after `now` was read is as good as new.
    fn elapsed(&self, at: u32, now: Instant) -> f32 {
        let elapsed = self.millis(now).wrapping_sub(at);
        if elapsed > u32::MAX / 2 { 0.0 } else { elapsed as f32 }
    }
}

fn pack(at: u32, average: f32) -> u64 {
    u64::from(at) << 32 | u64::from(average.to_bits())
}

fn unpack(packed: u64) -> Option<(u32, f32)> {
    let low = u32::try_from(packed & u64::from(u32::MAX)).unwrap_or_default();
    let high = u32::try_from(packed >> 32).unwrap_or_default();
    (packed != 0).then(|| (high, f32::from_bits(low)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);
    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn no_more_than_the_most_enter() {
        let state = State::new(clock::now());
        assert!(state.enter(Some(2)) && state.enter(Some(2)));
        assert!(!state.enter(Some(2)));
        assert!(state.enter(None), "another snapshot may have no bound");
        assert_eq!(state.in_flight(), 3);
        state.leave();
        assert!(!state.enter(Some(2)));
        state.leave();
        assert!(state.enter(Some(2)));
    }

    #[test]
    fn the_average_follows_its_samples_and_fades() {
        let start = clock::now();
        let state = State::new(start);
        let is_about = |millis: f32, at| {
            let micros = state.latency(at).unwrap();
            assert!((micros - millis * 1000.0).abs() < 10.0, "{micros} µs for {millis} ms");
        };
        assert_eq!(state.latency(start), None);
        state.sample(MILLISECOND, start);
        is_about(1.0, start);
        state.sample(MILLISECOND * 17, start);
        is_about(2.0, start);
        for _ in 0..200 {
            state.sample(MILLISECOND * 17, start);
        }
        is_about(17.0, start);
        // After ten seconds half is left of it; then the next sample is all there is.
        is_about(8.5, start + SECOND * 10);
        state.sample(MILLISECOND, start + SECOND * 10);
        is_about(1.0, start + SECOND * 10);
        // A clock read a little before the sample.
        is_about(1.0, start + SECOND * 9);
    }

    #[test]
    fn a_share_grows_from_a_tenth_to_the_whole() {
        let start = clock::now();
        let state = State::new(start);
        assert_eq!(state.share(SECOND * 10, start), 1.0, "warm from the beginning");
        state.warm_up(start + SECOND);
        let share = |seconds: u32| state.share(SECOND * 10, start + SECOND * seconds);
        assert_eq!((share(1), share(2)), (0.1, 0.1));
        assert!((share(6) - 0.5).abs() < 0.001 && (share(10) - 0.9).abs() < 0.001);
        assert_eq!(share(11), 1.0);
        assert_eq!(share(3), 1.0, "it stays warm");
        state.warm_up(start + SECOND * 20);
        assert_eq!(share(20), 0.1);
    }
}
