//! What outlives a request and a reload: managed keys, refresh tokens, revocations.
//!
//! One trait, [`Store`]; every backend passes the same tests: [`Memory`], [`File`] and [`Redis`]. Keys live in a [`Space`], one for
//! each purpose, and may end by themselves. No caller waits longer than the backend's own bound: a dead backend is an
//! error, not a wait. A full one is an error too; nothing is ever thrown out to make room for something else.

pub mod availability;
pub mod database;
pub mod expiry;
mod file;
mod memory;
pub mod redis;

use std::pin::Pin;
use std::time::SystemTime;

pub use database::{Guard, OpenError};
pub use expiry::{Now, wall};
pub use file::File;
pub use memory::{Limits, Memory};
pub use redis::Redis;

/// Which backend a configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    Memory,
    /// Relative to `gateway.yaml`.
    File(String),
    Redis(Box<redis::Settings>),
}

/// What a [`Store`] returns.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// One purpose of the store; keys of different spaces never meet. A short lower-case word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Space(pub &'static str);

/// Messages that passed. In memory they do not get all of the room: a busy sender must not stand in the way of a
/// revocation.
pub const REPLAY: Space = Space("replay");

/// What is to be added to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spend {
    /// Less is of no use. 0 adds nothing and only looks.
    pub least: u64,
    pub most: u64,
    /// What the counter never exceeds by this.
    pub limit: u64,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// What was added: 0, or between what was asked at least and at most.
    pub got: u64,
    /// What the counter says now.
    pub used: u64,
}

impl Spend {
    /// What is added to a counter that says `used`.
    fn from(self, used: u64) -> Spent {
        let fits = self.limit.saturating_sub(used).min(self.most);
        let got = if fits < self.least { 0 } else { fits };
        Spent { got, used: used.saturating_add(got) }
    }
}

/// What a counter says: decimal digits, and 0 where there is none.
fn counted(value: Option<&[u8]>) -> Result<u64, StoreError> {
    let Some(value) = value else { return Ok(0) };
    let count = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    count.ok_or_else(|| StoreError::new("an entry is no counter"))
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
}

/// Up to where changes of a space are known. The default is before all of them. Only the store reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark(String);

/// What was written in a space since a [`Mark`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// For the next time.
    pub mark: Mark,
    /// Keys that were written or removed, perhaps more than once. `None`: any may have been, and all have to be read again.
    pub keys: Option<Vec<String>>,
}

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Keeps small values by key. Every operation is atomic; what is acknowledged is kept as the backend promises. One that
/// failed may have happened nevertheless.
///
/// An entry is there while the time of day is before `expires`, counted in milliseconds; from then on it is as if it had
/// never been. Keys have at most [`KEY_BYTES_MAX`] bytes and values at most [`VALUE_BYTES_MAX`].
pub trait Store: Send + Sync + 'static {
    /// The value, unless there is none or it has ended.
    fn get<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>>;

    /// Writes a value, whatever was there. It ends at `expires`.
    fn put<'a>(&'a self, space: Space, key: &'a str, value: Vec<u8>, expires: Option<SystemTime>) -> Pending<'a, ()>;

    /// Writes a value only where there is none: of several at once, one gets `true`.
    fn insert<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool>;

    /// Replaces a value only if it is still `expected`, keeping when it ends: of several at once, one gets `true`.
    fn replace<'a>(&'a self, space: Space, key: &'a str, expected: &'a [u8], value: Vec<u8>) -> Pending<'a, bool>;

    /// Replaces a value only if it is still `expected`; the new one ends at `expires`, and one that ends in the past is gone:
    /// of several at once, one gets `true`.
    fn exchange<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        expected: &'a [u8],
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool>;

    /// Removes a value and gives it: of several at once, one gets it.
    fn take<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>>;

    /// Adds to a counter, kept as decimal digits, what still fits under `ask.limit`, up to `ask.most`, or nothing when that is less than `ask.least`.
    /// One that is not there counts as 0 and then ends at `expires`; one that is keeps its end.
    fn spend<'a>(&'a self, space: Space, key: &'a str, ask: Spend, expires: SystemTime) -> Pending<'a, Spent>;

    /// Takes from a counter what was spent and not used; never below 0. One that has ended stays so.
    fn give_back<'a>(&'a self, space: Space, key: &'a str, amount: u64) -> Pending<'a, ()>;

    /// Up to `limit` entries of a space in the order of their keys, from behind `after` on.
    fn list<'a>(&'a self, space: Space, after: Option<&'a str>, limit: usize) -> Pending<'a, Vec<Entry>>;

    /// What any gateway has written in a space since `since`, counters and ended entries left out. Of a store that only this
    /// process uses: nothing, since whoever wrote it knows.
    fn changes<'a>(&'a self, space: Space, since: &'a Mark) -> Pending<'a, Changes> {
        let _ = space;
        Box::pin(std::future::ready(Ok(Changes { mark: since.clone(), keys: Some(Vec::new()) })))
    }
}

/// Why the store did not do what it was asked to. The text is for operators; it holds no value.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the state store failed: {0}")]
pub struct StoreError(pub String);

impl StoreError {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Refuses what no backend takes.
fn check(key: &str, value: &[u8]) -> Result<(), StoreError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(StoreError(format!("a key has at most {KEY_BYTES_MAX} bytes, not {}", key.len())));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(StoreError(format!("a value has at most {VALUE_BYTES_MAX} bytes, not {}", value.len())));
    }
    Ok(())
}

#[cfg(test)]
pub mod tests;
