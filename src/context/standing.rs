//! What limits said about a request, and how clients are told.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a limit said about the request.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The filter, by the number it got when it was compiled.
    pub filter: u64,
    pub outcome: Limited,
    /// When it said so: what is said of times counts from there.
    pub at: Instant,
    /// How many requests may be made at once, or in the period.
    pub limit: u64,
    /// How many are left.
    pub remaining: u64,
    /// Until all of them may be made again.
    pub reset: Duration,
    /// Until more of them may be made; of a refused request, until it may be made again.
    pub more: Duration,
    /// What the client is told about the limit; `None`: nothing.
    pub policy: Option<Arc<Policy>>,
    /// Which of the rates of the policy it is about.
    pub rate: usize,
}

/// What a limit made of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    Allowed,
    Refused,
    /// It would have been refused, but the limit only observes.
    Observed,
}

/// What clients are told about a limit, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The value of `RateLimit-Policy`, when there is to be one.
    pub standard: Option<Box<str>>,
    /// The names of the rates in it, in quotes.
    pub names: Box<[Box<str>]>,
    /// Whether it counts for the `X-RateLimit-*` fields.
    pub legacy: bool,
}
