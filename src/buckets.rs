//! Token buckets: what a limiter does, and the limiter in memory.
//!
//! # Why this is not the crate `governor`
//!
//! governor's GCRA is right for one quota, and it is the oracle that the tests of [`Level`] are held against. It is not
//! what runs here, because a limit needs what it does not have:
//! - a limiter of it has one quota for all its keys; here the rates differ by role, consumer and key within one bucket name;
//! - several rates cannot be charged all or none: the second one's refusal leaves the first one charged;
//! - there is no look without taking, and none that takes between this and that many;
//! - its state is a time, which means something else as soon as the quota changes: what is used up would be lost or multiplied
//!   by a reload;
//! - one key can neither be shown, reset, nor found among those that use the most;
//! - its store of keys has no bound: a flood of addresses grows it until somebody calls `retain_recent`, which walks everything
//!   and keeps whatever is recent.

mod level;
mod local;
mod shard;

use std::borrow::Cow;
use std::pin::Pin;

use sha2::{Digest, Sha256};

use crate::rates::{Ask, Drawn, Rate, Rates};
use crate::types::hex;

pub use level::{Level, admission, refusal};
pub use local::{BUCKETS_MAX, Local};

/// What a [`Limiter`] returns.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, LimiterError>> + Send + 'a>>;

/// Which bucket: the name of the limit, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key<'a> {
    /// A name that the configuration gives: there are few of them.
    pub bucket: &'a str,
    /// `consumer=dashboard`, `ip=192.0.2.0/24`; empty where all share one.
    pub who: &'a str,
}

/// Longest [`Key::who`] that is kept as it is, in bytes.
pub const WHO_BYTES_MAX: usize = 160;

/// As much of a longer text is kept for people to read.
const WHO_BYTES_SHOWN: usize = 64;

/// `who` in at most [`WHO_BYTES_MAX`] bytes: of a longer one the beginning and the SHA-256 of it all. Clients choose it where a
/// limit counts by a header field; a million long ones must not fill the memory. Shortened twice is shortened once.
pub fn short(who: &str) -> Cow<'_, str> {
    if who.len() <= WHO_BYTES_MAX {
        return Cow::Borrowed(who);
    }
    let mut short = who.get(..who.floor_char_boundary(WHO_BYTES_SHOWN)).unwrap_or_default().to_owned();
    short.push_str("…sha256:");
    short.push_str(&hex(&Sha256::digest(who)));
    Cow::Owned(short)
}

/// A bucket as an operator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub bucket: String,
    pub who: String,
    /// Those that were asked for last, the shortest period first.
    pub rates: Vec<Rate>,
    /// Tokens in use, for each of them.
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

#[cfg(test)]
mod tests;
