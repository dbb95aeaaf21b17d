//! Tokens that were verified, so that the next request with one costs a look-up.
//!
//! One for each snapshot, found by the whole text of a token. An entry counts only for the issuer and the key set it was
//! verified by; what depends on time or can be taken back is checked by whoever asks.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::SystemTime;

use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::caller::Caller;

/// What all entries may hold, in bytes, as far as it can be told.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most entries.
const ENTRIES_MAX: u64 = 10_000;
/// Entries that there is room for from the beginning.
const ITEMS_EXPECTED: usize = 1_000;
/// What an entry holds besides copies of its text, in bytes.
const ENTRY_BYTES: u64 = 1_024;
/// Text, claims (names, values and the tree they hang on), name, roles, scopes and fields: at most so many times the length of
/// the text.
const COPIES: u64 = 6;

/// Tokens by their text.
pub struct Tokens(Cache<Box<str>, Entry, ByLength, RandomState>);

/// A token that was verified.
#[derive(Clone)]
pub struct Entry {
    pub caller: Arc<Caller>,
    /// When it begins to hold.
    pub from: Option<SystemTime>,
    /// Which issuer of the snapshot verified it.
    pub issuer: usize,
    /// By which key set.
    pub generation: u64,
}

#[derive(Clone)]
struct ByLength;

impl Weighter<Box<str>, Entry> for ByLength {
    fn weight(&self, text: &Box<str>, _: &Entry) -> u64 {
        let bytes = (text.len() as u64).saturating_mul(COPIES).saturating_add(ENTRY_BYTES);
        // No entry weighs less than its share, so that their number is bounded too.
        bytes.max(BYTES_MAX.div_ceil(ENTRIES_MAX))
    }
}

impl Tokens {
    pub fn get(&self, text: &str) -> Option<Entry> {
        self.0.get(text)
    }

    pub fn insert(&self, text: &str, entry: Entry) {
        self.0.insert(text.into(), entry);
    }
}

impl Default for Tokens {
    fn default() -> Self {
        // A keyed hash: nobody can make up texts that meet in one place.
        Self(Cache::with(ITEMS_EXPECTED, BYTES_MAX, ByLength, RandomState::new(), DefaultLifecycle::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{CallerFields, Credential, Level, Scopes};

    fn entry() -> Entry {
        let scopes = Scopes::default();
        let caller = Caller {
            name: "a".into(),
            credential: Credential::Token { issuer: "main".into(), id: None, key: 0 },
            level: Level::User,
            roles: Box::default(),
            fields: CallerFields::new("a", &[], &scopes).unwrap(),
            rates: None,
            scopes,
            claims: serde_json::Map::new(),
            expires: None,
        };
        Entry { caller: Arc::new(caller), from: None, issuer: 0, generation: 0 }
    }

    #[test]
    fn entries_and_bytes_are_bounded() {
        let (tokens, entry) = (Tokens::default(), entry());
        for number in 0..3 * ENTRIES_MAX {
            tokens.insert(&number.to_string(), entry.clone());
        }
        assert!(tokens.0.len() as u64 <= ENTRIES_MAX && tokens.0.weight() <= BYTES_MAX);
        assert!(tokens.0.len() as u64 > ENTRIES_MAX / 2, "{}", tokens.0.len());
        let tokens = Tokens::default();
        let long = "x".repeat(8 * 1024);
        for number in 0..2 * ENTRIES_MAX {
            tokens.insert(&format!("{number}{long}"), entry.clone());
        }
        assert!(tokens.0.weight() <= BYTES_MAX && (tokens.0.len() as u64) < BYTES_MAX / (8 * 1024 * COPIES) + 1);
    }
}
