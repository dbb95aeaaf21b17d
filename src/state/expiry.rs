//! When entries end.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock;

/// Where a store reads the time of day.
pub type Now = Arc<dyn Fn() -> SystemTime + Send + Sync>;

pub fn wall() -> Now {
    Arc::new(clock::wall)
}

/// Milliseconds since 1970, rounded down; a time before that is 0, one that is too late never comes.
pub fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
