//! What this gateway knows of messages itself.

use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;

use super::entry::{Claim, Found, later};
use crate::state::{Limits, Memory, Now, Pending, StoreError};

/// Some 200,000 messages: three quarters of the entries that a [`Memory`] takes in all.
pub const LIMITS: Limits = Limits { entries_max: 262_144, bytes_max: 96 * 1024 * 1024 };
/// How long what the store knows as well is remembered here: for the time when it fails.
const KNOWN_TWICE: Duration = Duration::from_secs(60 * 60);

/// A table in memory.
pub struct Local {
    memory: Memory,
    /// More entries than that are not made for what the store knows as well: the rest is for the time when it fails.
    known_twice_max: usize,
}

impl Local {
    pub fn new(limits: Limits, now: Now) -> Self {
        Self { memory: Memory::with_clock(limits, now), known_twice_max: limits.entries_max / 2 }
    }

    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// # Errors
    /// There is no room.
    pub fn claim(&self, claim: &Claim) -> Result<Found, StoreError> {
        at_once(Box::pin(claim.make(&self.memory)))
    }

    /// Notes that it got through. `known_twice`: the store is told as well.
    pub fn deliver(&self, claim: &Claim, now: SystemTime, known_twice: bool) {
        if !known_twice {
            let _ = at_once(Box::pin(claim.deliver(&self.memory, later(now, claim.window()))));
        } else if self.memory.len() <= self.known_twice_max {
            let ends = later(now, claim.window().min(KNOWN_TWICE));
            let _ = at_once(Box::pin(claim.deliver(&self.memory, ends)));
        } else {
            self.release(claim);
        }
    }

    pub fn release(&self, claim: &Claim) {
        let _ = at_once(Box::pin(claim.release(&self.memory)));
    }
}

/// Memory never keeps anybody waiting.
fn at_once<T>(work: Pending<'_, T>) -> Result<T, StoreError> {
    work.now_or_never().unwrap_or_else(|| Err(StoreError("memory waits".to_owned())))
}
