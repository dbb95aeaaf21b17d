//! How often something may be done: rates as a token bucket uses them, and what a bucket answers.
//!
//! A bucket holds at most `capacity` tokens and begins full; tokens flow back continuously, `count` of them in each
//! `period`. So at most `capacity + count × t / period` tokens are taken within any time `t` (the generic cell rate
//! algorithm, ITU-T I.371).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::types;

/// Most rates of one limit.
pub const RATES_MAX: usize = 4;

/// Largest count of a rate, burst and cost. Above it single tokens would be lost in rounding.
pub const COUNT_MAX: u64 = 1_000_000_000;

/// One rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Tokens that flow back in one `period`. More than 0; not whole where a role has a share of the rate.
    pub count: f64,
    pub period: Duration,
    /// Tokens there are at most: so many may be taken at once. More than 0.
    pub capacity: f64,
}

impl Rate {
    /// Tokens that flow back in `elapsed`.
    pub fn refill(&self, elapsed: Duration) -> f64 {
        elapsed.as_secs_f64() / self.period.as_secs_f64() * self.count
    }

    /// How long it takes until so many tokens have flown back, to the nanosecond; whoever waits that long does find them,
    /// within [`TOLERANCE`].
    pub fn time_for(&self, tokens: f64) -> Duration {
        if tokens <= 0.0 {
            return Duration::ZERO;
        }
        let token_nanos = self.period.as_secs_f64() * 1e9 / self.count;
        // To the nearest nanosecond, but upwards where a part of one matters: at a billion a second it is a token.
        let nanos = (tokens * token_nanos - (TOLERANCE / 2.0 * token_nanos).min(0.5)).ceil();
        if nanos < EXACT_NANOS_MAX {
            return Duration::from_nanos(nanos as u64);
        }
        Duration::try_from_secs_f64(nanos / 1e9).unwrap_or(Duration::MAX)
    }
}

/// `100/min`, `1000/hour, burst 50`. Parts of tokens that a role has are shown to the thousandth.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = types::Rate { count: 1, per: self.period }.to_string();
        let span = one.split_once('/').map_or("", |(_, span)| span);
        let shown = |count: f64| (count * 1000.0).round() / 1000.0;
        write!(f, "{}/{span}", shown(self.count))?;
        if self.capacity == self.count { Ok(()) } else { write!(f, ", burst {}", shown(self.capacity)) }
    }
}

/// What may be missing for a token to count as one: sums of fractions are never exact.
pub const TOLERANCE: f64 = 1e-6;

/// From 292 years on nobody counts nanoseconds.
const EXACT_NANOS_MAX: f64 = 9.2e18;

/// The rates of one limit, the shortest period first. All must pass. A clone is the same rates, not a copy.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates(
    /// Boxed again, so that each bucket has one word for it, not two.
    Arc<Box<[Rate]>>,
);

impl Rates {
    /// `burst` is the capacity of the rate with the shortest period; any other has its count. `None` without a rate, or with
    /// more than [`RATES_MAX`].
    pub fn new(rates: impl IntoIterator<Item = types::Rate>, burst: Option<u64>) -> Option<Self> {
        let mut rates: Vec<types::Rate> = rates.into_iter().collect();
        rates.sort_by_key(|rate| rate.per);
        let compiled = rates.iter().enumerate().map(|(index, rate)| {
            let capacity = burst.filter(|_| index == 0).unwrap_or(rate.count);
            Rate { count: rate.count as f64, period: rate.per, capacity: capacity as f64 }
        });
        let compiled: Box<[Rate]> = compiled.collect();
        (1..=RATES_MAX).contains(&compiled.len()).then(|| Self(Arc::new(compiled)))
    }

    /// The same rates for somebody who has `factor` of them.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let scaled = |rate: &Rate| Rate { count: rate.count * factor, capacity: rate.capacity * factor, ..*rate };
        Self(Arc::new(self.0.iter().map(scaled).collect()))
    }

    pub fn as_slice(&self) -> &[Rate] {
        &self.0
    }

    /// Whether both are clones of one: what is quickly told and nearly always so.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The least that a bucket of these rates can hold.
    pub fn capacity_min(&self) -> f64 {
        self.0.iter().map(|rate| rate.capacity).fold(f64::INFINITY, f64::min)
    }
}

/// The rates that a consumer or a key has in place of those that filters say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnRates {
    /// Where no bucket is named.
    pub every: Option<Own>,
    pub by_bucket: Box<[(Box<str>, Own)]>,
}

/// Rates of a consumer, or of one of its keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    pub rates: Rates,
    /// Only this key has them: it counts in a bucket of its own. In that of its consumer it would meet other rates, and
    /// a bucket that is asked with other periods by turns forgets.
    pub is_of_key: bool,
}

impl OwnRates {
    /// Those for the bucket of this name, if it has its own.
    pub fn of(&self, bucket: &str) -> Option<&Own> {
        let named = self.by_bucket.iter().find(|(name, _)| **name == *bucket);
        named.map(|(_, own)| own).or(self.every.as_ref())
    }

    /// The same, as rates that only one key has.
    #[must_use]
    pub fn of_key(mut self) -> Self {
        let named = self.by_bucket.iter_mut().map(|(_, own)| own);
        named.chain(&mut self.every).for_each(|own| own.is_of_key = true);
        self
    }
}

/// How many tokens somebody wants from a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask {
    /// Fewer are of no use. 0 takes nothing and only looks.
    pub least: f64,
    /// More are not wanted.
    pub most: f64,
}

impl Ask {
    pub fn exactly(tokens: f64) -> Self {
        Self { least: tokens, most: tokens }
    }
}

/// What a bucket answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// Tokens that were taken: 0, or between what was asked at least and at most.
    pub got: f64,
    /// Whether at least as many were there as were asked for.
    pub admitted: bool,
    /// Capacity of the rate that leaves the fewest tokens; of the one that takes longest, when nothing was given.
    pub limit: f64,
    /// Tokens it still has.
    pub remaining: f64,
    /// Until it is full again.
    pub full_in: Duration,
    /// Until it has what was asked at least. Zero when it was given, [`Duration::MAX`] when it never will.
    pub retry_in: Duration,
}

#[cfg(test)]
mod tests;
