//! What a store says of a message.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use super::{IN_PROGRESS, Message};
use crate::state::{self, Space, Store, StoreError};
use crate::types::hex;

const SPACE: Space = state::REPLAY;
/// The value of a message that got through. One that is on its way has `p`, when that ends in milliseconds since 1970, and
/// whose it is: `p 1767268860000 5f….12`.
const DELIVERED: &[u8] = b"d";
/// By how much clocks of gateways may differ. What began later than that in the future began before a clock was set back:
/// nobody works on it any more, and it would stand in the way for as long as the clock was set back by.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(60);
/// How often an entry may come and go while it is looked at.
const ATTEMPTS: usize = 3;
/// How long an entry lives that only shows whether there can be one.
const PROBED: Duration = Duration::from_secs(10);

/// What was found of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: it is ours now.
    Nothing,
    InProgress,
    Delivered,
}

/// Names those who work on a message.
pub struct Owners {
    process: u128,
    next: AtomicU64,
}

impl Default for Owners {
    fn default() -> Self {
        let mut bits = [0; 16];
        // It is no secret: where the system gives no random numbers, the time and the thread make one.
        let process = getrandom::fill(&mut bits).map_or_else(|_| fastrand::u128(..), |()| u128::from_le_bytes(bits));
        Self { process, next: AtomicU64::new(0) }
    }
}

/// Somebody's wish to work on a message.
#[derive(Clone, Debug)]
pub struct Claim {
    key: String,
    /// What stands in the entry while it is ours.
    value: Vec<u8>,
    now: SystemTime,
    ends: SystemTime,
    window: Duration,
}

impl Claim {
    pub fn new(message: Message<'_>, window: Duration, owners: &Owners, now: SystemTime) -> Self {
        Self::of(key(message), IN_PROGRESS, window, owners, now)
    }

    /// One of no message.
    pub fn probe(owners: &Owners, now: SystemTime) -> Self {
        let number = owners.next.load(Ordering::Relaxed);
        Self::of(format!("probe.{:032x}.{number}", owners.process), PROBED, Duration::ZERO, owners, now)
    }

    fn of(key: String, lasts: Duration, window: Duration, owners: &Owners, now: SystemTime) -> Self {
        let ends = later(now, lasts);
        let number = owners.next.fetch_add(1, Ordering::Relaxed);
        let value = format!("p {} {:032x}.{number}", milliseconds(ends), owners.process).into_bytes();
        Self { key, value, now, ends, window }
    }

    /// How long it is remembered that it got through.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// Makes the message ours, unless it is somebody's or got through.
    ///
    /// # Errors
    /// The store failed. The message may be ours nevertheless.
    pub async fn make(&self, store: &dyn Store) -> Result<Found, StoreError> {
        for _ in 0..ATTEMPTS {
            if store.insert(SPACE, &self.key, self.value.clone(), Some(self.ends)).await? {
                return Ok(Found::Nothing);
            }
            match store.get(SPACE, &self.key).await? {
                // It went in between.
                None => {}
                Some(found) if found == DELIVERED => return Ok(Found::Delivered),
                Some(found) => {
                    if !self.is_left_over(&found) {
                        return Ok(Found::InProgress);
                    }
                    if store.exchange(SPACE, &self.key, &found, self.value.clone(), Some(self.ends)).await? {
                        return Ok(Found::Nothing);
                    }
                }
            }
        }
        Ok(Found::InProgress)
    }

    /// Whether an entry began so far in the future that a clock was set back since.
    fn is_left_over(&self, found: &[u8]) -> bool {
        let end = std::str::from_utf8(found).ok().and_then(|text| text.split(' ').nth(1)?.parse::<u128>().ok());
        let latest = later(self.now, IN_PROGRESS.saturating_add(CLOCKS_DIFFER_MAX));
        end.is_some_and(|end| end > milliseconds(latest))
    }

    /// Says that it got through, until `ends`. What is somebody else's by now is left alone.
    ///
    /// # Errors
    /// The store failed. It may have been said nevertheless; saying it again does no harm.
    pub async fn deliver(&self, store: &dyn Store, ends: SystemTime) -> Result<(), StoreError> {
        if store.exchange(SPACE, &self.key, &self.value, DELIVERED.to_vec(), Some(ends)).await? {
            return Ok(());
        }
        // The entry has ended, or there never was one because the store was away: then the place is free.
        store.insert(SPACE, &self.key, DELIVERED.to_vec(), Some(ends)).await.map(drop)
    }

    /// Lets go of it, if it is still ours.
    ///
    /// # Errors
    /// The store failed. The entry ends by itself.
    pub async fn release(&self, store: &dyn Store) -> Result<(), StoreError> {
        store.exchange(SPACE, &self.key, &self.value, Vec::new(), Some(UNIX_EPOCH)).await.map(drop)
    }
}

/// A key that tells nothing of the message, of the same length for all.
fn key(message: Message<'_>) -> String {
    let mut hash = Sha256::new();
    for part in [message.scope, message.route, message.provider, message.delivery] {
        // With their lengths, no two divisions of a text are the same.
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// A time that does not exist never comes.
pub fn later(now: SystemTime, by: Duration) -> SystemTime {
    now.checked_add(by).unwrap_or(now)
}

fn milliseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}
