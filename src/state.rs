//! What outlives a request and a reload: managed keys, refresh tokens, revocations.
//!
//! One trait, [`Store`]; every backend passes the same tests: [`Memory`] and [`File`]. Keys live in a [`Space`], one for
//! each purpose, and may end by themselves. No caller waits longer than the backend's own bound: a dead backend is an
//! error, not a wait. A full one is an error too; nothing is ever thrown out to make room for something else.

mod expiry;
mod file;
mod memory;

use std::pin::Pin;
use std::time::SystemTime;

pub use file::{File, OpenError};
pub use memory::{Limits, Memory};

/// What a [`Store`] returns.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// One purpose of the store; keys of different spaces never meet. A short lower-case word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Space(pub &'static str);

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
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

    /// Removes a value and gives it: of several at once, one gets it.
    fn take<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>>;

    /// Up to `limit` entries of a space in the order of their keys, from behind `after` on.
    fn list<'a>(&'a self, space: Space, after: Option<&'a str>, limit: usize) -> Pending<'a, Vec<Entry>>;
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
mod tests;
