//! Copies of the requests of a route for another upstream: how many, how large, how many at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::config;
use crate::observe::metrics::{Mirrored, RouteMetrics};
use crate::types::{Percent, Size};
use crate::upstream::Slot;
use crate::yaml::Problem;

const BODY_BYTES_MAX: u64 = 64 * 1024;
const BODY_BYTES_MOST: u64 = 16 * 1024 * 1024;
const IN_FLIGHT_MAX: u32 = 100;
const IN_FLIGHT_MOST: u32 = 10_000;
/// How long an answer is waited for when the upstream does not say.
const TIMEOUT: Duration = Duration::from_secs(30);
const MILLION: u32 = 1_000_000;

/// Who gets copies.
pub struct Mirror {
    pub upstream: Arc<Slot>,
    pub body_bytes_max: u64,
    /// Until when the answer to a copy is waited for.
    pub timeout: Duration,
    /// Of the requests, in millionths.
    share: u32,
    in_flight_max: u32,
    in_flight: AtomicU32,
    metrics: Arc<RouteMetrics>,
}

/// A copy on its way. It counts as left out unless something else is said of it.
pub struct Ticket {
    mirror: Arc<Mirror>,
    end: Mirrored,
}

impl Mirror {
    pub(super) fn compile(
        written: &config::Mirror,
        upstream: Arc<Slot>,
        metrics: Arc<RouteMetrics>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let before = problems.len();
        if let Some(max) = written.body_max.filter(|max| max.value.0 > BODY_BYTES_MOST) {
            let message = format!("`body_max` of a mirror is at most {}", Size(BODY_BYTES_MOST));
            problems.push(Problem::new(max.place, message));
        }
        let in_flight_max = written
            .in_flight_max
            .map_or(IN_FLIGHT_MAX, |max| max.within("in_flight_max", 1..=IN_FLIGHT_MOST, problems));
        (problems.len() == before).then_some(())?;
        Some(Self {
            timeout: upstream.load().timeouts.first_byte.unwrap_or(TIMEOUT),
            upstream,
            body_bytes_max: written.body_max.map_or(BODY_BYTES_MAX, |max| max.value.0),
            share: written.share.map_or(MILLION, Percent::millionths),
            in_flight_max,
            in_flight: AtomicU32::new(0),
            metrics,
        })
    }

    /// Draws whether the next request is copied; and then there has to be room.
    pub fn draw(self: &Arc<Self>) -> Option<Ticket> {
        if self.share < MILLION && fastrand::u32(..MILLION) >= self.share {
            return None;
        }
        let more = |count: u32| (count < self.in_flight_max).then(|| count.saturating_add(1));
        if self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            self.metrics.mirrored(Mirrored::Dropped);
            return None;
        }
        Some(Ticket { mirror: Arc::clone(self), end: Mirrored::Dropped })
    }
}

impl Ticket {
    pub fn mirror(&self) -> &Arc<Mirror> {
        &self.mirror
    }

    /// What became of the copy.
    pub fn ended(mut self, end: Mirrored) {
        self.end = end;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.mirror.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.mirror.metrics.mirrored(self.end);
    }
}
