//! How late a worker is with its work: the time from when a timer was due to when it was looked at.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Worker, level};
use crate::clock;

/// How often it is measured.
const EVERY: Duration = Duration::from_millis(100);
/// How often it is looked whether it is to be measured.
const EVERY_OFF: Duration = Duration::from_secs(1);
/// A worker is as late as it was at the best of so many times: one long pause is no overload.
const SAMPLES: usize = 3;

impl Worker {
    /// Measures, as long as a limit says so. Runs on the worker.
    pub async fn measure_lag(&self) {
        let Some(counts) = self.counts() else { return };
        let mut late_ms = [0_u64; SAMPLES];
        loop {
            let max_ms = self.overload.lag_max_ms.load(Ordering::Relaxed);
            let pause = if max_ms == 0 { EVERY_OFF } else { EVERY };
            let begun = clock::now();
            tokio::time::sleep(pause).await;
            let late = clock::now().saturating_duration_since(begun).saturating_sub(pause);
            late_ms.rotate_left(1);
            if let Some(last) = late_ms.last_mut() {
                *last = if max_ms == 0 { 0 } else { u64::try_from(late.as_millis()).unwrap_or(u64::MAX) };
            }
            let least = late_ms.into_iter().min().unwrap_or(0);
            let before = counts.lag_level.load(Ordering::Relaxed);
            let now = if max_ms == 0 { 0 } else { level(least, max_ms, before) };
            counts.lag_level.store(now, Ordering::Relaxed);
        }
    }
}
