//! The arithmetic of one bucket: no clock, no lock.
//!
//! For each rate a bucket knows how many tokens are in use, and for all of them since when that holds. Time takes from
//! what is in use, at `count / period`; what is taken adds to it. Nothing is taken unless all rates have it, and a refusal
//! changes nothing: neither is a rate charged that had enough, nor does being asked again and again slow the refill.
//!
//! **Rates that changed** (a reload, a caller with another role) find what is in use by their period. Where a rate of the
//! same period was there before, all that is in use stays so, even when it is more than the new capacity; the time since
//! the last change of the level counts at the faster of both. A rate with a period that was not there begins with what the
//! rate of the next shorter period has in use, which is used up in the longer one too; if there is none, with that of the
//! next longer one, at most its own capacity, so that who had used up everything waits for one interval at least.
//! The last is a guess that a change of the configuration needs: who asks one bucket by turns with rates of *different*
//! periods makes it forget. Rates of one bucket have the same periods for everybody, or `who` tells them apart.

use std::time::Duration;

use crate::rates::{Ask, Drawn, RATES_MAX, Rate, Rates, TOLERANCE};

/// How much earlier than the last one a moment may be because somebody read the clock and then had to wait for the bucket.
/// More than this is a clock that was set back.
const LATE_MAX: Duration = Duration::from_secs(1);

/// The state of one bucket.
///
/// Moments are times since any point that stays the same, to the nanosecond, up to 584 years.
#[derive(Clone, Debug)]
pub struct Level {
    rates: Rates,
    /// Tokens in use for each rate when the level was changed last.
    used: [f64; RATES_MAX],
    /// When that was, in nanoseconds.
    since: u64,
}

impl Level {
    /// A bucket of which nothing is in use.
    pub fn full(rates: &Rates, now: Duration) -> Self {
        Self { rates: rates.clone(), used: [0.0; RATES_MAX], since: nanoseconds(now) }
    }

    /// Takes tokens: exactly `ask.least`, or when `ask.most` is more, as many whole ones as there are; never more than that.
    /// Takes nothing when there are fewer than `ask.least`.
    pub fn draw(&mut self, rates: &Rates, ask: Ask, now: Duration) -> Drawn {
        let now = self.accept(now);
        let used = self.used_by(rates, now);
        let least = ask.least.max(0.0);
        let there = pairs(rates, &used).map(|(rate, used)| rate.capacity - used).fold(f64::INFINITY, f64::min);
        if there + TOLERANCE < least || least == f64::INFINITY {
            return refusal(rates, &used, least);
        }
        let got = if ask.most > least { ask.most.min(there + TOLERANCE).floor().max(least) } else { least };
        let mut used = used;
        if got > 0.0 {
            used.iter_mut().take(rates.as_slice().len()).for_each(|used| *used += got);
            self.used = used;
            self.since = now;
            if !self.rates.is(rates) {
                self.rates = rates.clone();
            }
        }
        admission(rates, &used, got)
    }

    /// The rates it was last drawn with.
    pub fn rates(&self) -> &[Rate] {
        self.rates.as_slice()
    }

    /// Tokens in use, for each rate it was last drawn with.
    pub fn used(&self, now: Duration) -> impl Iterator<Item = f64> {
        self.levels(now).map(|(_, used)| used)
    }

    /// The largest share of a capacity that is in use. 0 says that the bucket is as good as new.
    pub fn share(&self, now: Duration) -> f64 {
        self.levels(now).map(|(rate, used)| used / rate.capacity).fold(0.0, f64::max)
    }

    /// Until nothing of it is in use.
    pub fn full_in(&self, now: Duration) -> Duration {
        self.levels(now).map(|(rate, used)| rate.time_for(used)).max().unwrap_or_default()
    }

    fn levels(&self, now: Duration) -> impl Iterator<Item = (&Rate, f64)> {
        let elapsed = Duration::from_nanos(nanoseconds(now).saturating_sub(self.since));
        pairs(&self.rates, &self.used).map(move |(rate, used)| (rate, (used - rate.refill(elapsed)).max(0.0)))
    }

    /// The moment that counts as now. It never lies before the last change: the same time would flow back twice.
    fn accept(&mut self, now: Duration) -> u64 {
        let now = nanoseconds(now);
        if self.since.saturating_sub(now) > nanoseconds(LATE_MAX) {
            // Else nothing would flow back until the clock is again where it was.
            self.since = now;
        }
        now.max(self.since)
    }

    /// What of `rates` is in use.
    fn used_by(&self, rates: &Rates, now: u64) -> [f64; RATES_MAX] {
        let elapsed = Duration::from_nanos(now.saturating_sub(self.since));
        let mut used = [0.0; RATES_MAX];
        if self.rates.is(rates) {
            for (used, (rate, before)) in used.iter_mut().zip(pairs(rates, &self.used)) {
                *used = (before - rate.refill(elapsed)).max(0.0);
            }
            return used;
        }
        for (used, rate) in used.iter_mut().zip(rates.as_slice()) {
            *used = self.carried_over(rate, elapsed);
        }
        used
    }

    /// What of a rate is in use that may not have been there when the level was changed last.
    fn carried_over(&self, rate: &Rate, elapsed: Duration) -> f64 {
        let before = || pairs(&self.rates, &self.used);
        if let Some((same, used)) = before().find(|(before, _)| before.period == rate.period) {
            return (used - rate.refill(elapsed).max(same.refill(elapsed))).max(0.0);
        }
        let shorter = before().filter(|(before, _)| before.period < rate.period).last();
        let nearest = shorter.or_else(|| before().next());
        nearest.map_or(0.0, |(_, used)| (used.min(rate.capacity) - rate.refill(elapsed)).max(0.0))
    }
}

fn pairs<'a>(rates: &'a Rates, used: &'a [f64; RATES_MAX]) -> impl Iterator<Item = (&'a Rate, f64)> {
    rates.as_slice().iter().zip(used.iter().copied())
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What is said when `got` was given: of the rate that leaves the fewest tokens.
pub fn admission(rates: &Rates, used: &[f64; RATES_MAX], got: f64) -> Drawn {
    let left = |(rate, used): &(&Rate, f64)| rate.capacity - used;
    let tightest = pairs(rates, used).min_by(|a, b| left(a).total_cmp(&left(b)));
    drawn(tightest, got, true, Duration::ZERO)
}

/// What is said when there is not what was asked at least: of the rate that takes longest.
pub fn refusal(rates: &Rates, used: &[f64; RATES_MAX], least: f64) -> Drawn {
    let wait = |(rate, used): &(&Rate, f64)| {
        if least > rate.capacity + TOLERANCE { Duration::MAX } else { rate.time_for(used + least - rate.capacity) }
    };
    // Of several that never will, the smallest; otherwise the shortest.
    let longest = pairs(rates, used).reduce(|kept, next| {
        let (kept_wait, next_wait) = (wait(&kept), wait(&next));
        let is_smaller = next_wait == Duration::MAX && next.0.capacity < kept.0.capacity;
        if next_wait > kept_wait || (next_wait == kept_wait && is_smaller) { next } else { kept }
    });
    drawn(longest, 0.0, false, longest.as_ref().map_or(Duration::ZERO, wait))
}

fn drawn(of: Option<(&Rate, f64)>, got: f64, admitted: bool, retry_in: Duration) -> Drawn {
    let (limit, remaining, full_in) = of.map_or((0.0, 0.0, Duration::ZERO), |(rate, used)| {
        (rate.capacity, (rate.capacity - used).max(0.0), rate.time_for(used))
    });
    Drawn { got, admitted, limit, remaining, full_in, retry_in }
}

#[cfg(test)]
mod tests;
