//! How often something may be done: rates as a token bucket uses them, and what a bucket answers.
//!
//! A bucket holds at most `capacity` tokens and begins full; tokens flow back continuously, `count` of them in each
//! `period`. So at most `capacity + count × t / period` tokens are taken within any time `t` (the generic cell rate
//! algorithm, ITU-T I.371).

use std::sync::Arc;
use std::time::Duration;

use crate::types;

/// Most rates of one limit.
pub const RATES_MAX: usize = 4;

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

    /// How long it takes until so many tokens have flown back.
    pub fn time_for(&self, tokens: f64) -> Duration {
        Duration::try_from_secs_f64(tokens.max(0.0) / self.count * self.period.as_secs_f64()).unwrap_or(Duration::MAX)
    }
}

/// The rates of one limit, the shortest period first. All must pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates(Box<[Rate]>);

impl Rates {
    /// `burst` is the capacity of the rate with the shortest period; any other has its count. `None` without a rate.
    pub fn new(rates: impl IntoIterator<Item = types::Rate>, burst: Option<u64>) -> Option<Self> {
        let mut rates: Vec<types::Rate> = rates.into_iter().collect();
        rates.sort_by_key(|rate| rate.per);
        let compiled = rates.iter().enumerate().map(|(index, rate)| {
            let capacity = burst.filter(|_| index == 0).unwrap_or(rate.count);
            Rate { count: rate.count as f64, period: rate.per, capacity: capacity as f64 }
        });
        let compiled: Box<[Rate]> = compiled.collect();
        (!compiled.is_empty()).then_some(Self(compiled))
    }

    /// The same rates for somebody who has `factor` of them.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let scaled = |rate: &Rate| Rate { count: rate.count * factor, capacity: rate.capacity * factor, ..*rate };
        Self(self.0.iter().map(scaled).collect())
    }

    pub fn as_slice(&self) -> &[Rate] {
        &self.0
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
    pub every: Option<Arc<Rates>>,
    pub by_bucket: Box<[(Box<str>, Arc<Rates>)]>,
}

impl OwnRates {
    /// Those for the bucket of this name, if it has its own.
    pub fn of(&self, bucket: &str) -> Option<&Arc<Rates>> {
        let named = self.by_bucket.iter().find(|(name, _)| **name == *bucket);
        named.map(|(_, rates)| rates).or(self.every.as_ref())
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
