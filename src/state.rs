//! What outlives a request and a reload: managed keys, refresh tokens, revocations.
//!
//! One trait, [`Store`]; every backend passes the same tests. Keys live in a [`Space`], one for each purpose, and may
//! end by themselves. No caller waits longer than the backend's own bound: a dead backend is an error, not a wait.

use std::pin::Pin;
use std::time::SystemTime;

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

/// Keeps small values by key. Every operation is atomic; what is acknowledged is kept as the backend promises.
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
