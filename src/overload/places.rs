//! Places for requests in flight: as many as the limit, kept where they are used.
//!
//! One counter for all workers would be one cache line that every request takes away from another core, twice. So each worker
//! keeps some places of its own, takes more from the common stock a few at a time, and those of other workers when that is empty:
//! a request is refused only when there is no place anywhere. Places are moved, never made: the limit is never exceeded.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Priority, Reason, Worker};

/// Most places that a worker takes at a time.
const BATCH_MAX: i64 = 64;

/// A cache line of its own, and the one that the processor reads along with it.
#[derive(Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

/// All places.
pub struct Places {
    /// How many there are; 0: no limit.
    max: AtomicI64,
    /// Those that nobody keeps. Below 0 when there are fewer than requests in flight, after a change of the limit.
    stock: Padded<AtomicI64>,
    /// Those that each worker keeps.
    kept: Box<[Padded<AtomicI64>]>,
    /// Held while the limit changes.
    changing: Mutex<()>,
}

impl Places {
    pub fn new(workers: usize) -> Self {
        Self {
            max: AtomicI64::new(0),
            stock: Padded::default(),
            kept: (0..workers).map(|_| Padded::default()).collect(),
            changing: Mutex::new(()),
        }
    }

    /// Changes how many there are. What is in flight stays so.
    pub fn set_max(&self, max: u32) {
        let max = i64::from(max);
        if self.max.load(Ordering::Relaxed) == max {
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.max.swap(max, Ordering::Relaxed);
        self.stock.0.fetch_add(max.saturating_sub(before), Ordering::Relaxed);
        // What is kept would be places beyond the new limit.
        for kept in &self.kept {
            self.stock.0.fetch_add(kept.0.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Takes a place for worker `index`, if there are fewer than `part` requests in flight.
    fn take(&self, index: usize, part: i64, max: i64) -> bool {
        // The stock alone says that there are few enough, as long as they are: then nobody's places are counted.
        if part < max && max.saturating_sub(self.stock.0.load(Ordering::Relaxed)) >= part && self.in_flight(max) >= part
        {
            return false;
        }
        let Some(kept) = self.kept.get(index) else { return true };
        if take_one(&kept.0) {
            return true;
        }
        let some = |stock: i64| (stock > 0).then(|| stock.saturating_sub(self.batch(max).min(stock)));
        if let Ok(stock) = self.stock.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, some) {
            let taken = self.batch(max).min(stock);
            kept.0.fetch_add(taken.saturating_sub(1), Ordering::Relaxed);
            return true;
        }
        self.kept.iter().any(|other| take_one(&other.0))
    }

    fn give_back(&self, index: usize) {
        let max = self.max.load(Ordering::Relaxed);
        let keeps = |kept: &i64| *kept < self.batch(max).saturating_mul(2);
        match self.kept.get(index) {
            // Fewer places than requests: this one is gone.
            _ if self.stock.0.load(Ordering::Relaxed) < 0 => self.stock.0.fetch_add(1, Ordering::Relaxed),
            Some(kept) if Some(kept.0.load(Ordering::Relaxed)).filter(keeps).is_some() => {
                kept.0.fetch_add(1, Ordering::Relaxed)
            }
            _ => self.stock.0.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// How many requests are in flight. One that takes its place at this moment may count already.
    fn in_flight(&self, max: i64) -> i64 {
        let kept = self.kept.iter().map(|kept| kept.0.load(Ordering::Relaxed)).fold(0, i64::saturating_add);
        max.saturating_sub(self.stock.0.load(Ordering::Relaxed)).saturating_sub(kept)
    }

    /// How many a worker takes at a time: so few that what all of them keep is no large part of the limit.
    fn batch(&self, max: i64) -> i64 {
        let workers = i64::try_from(self.kept.len()).unwrap_or(i64::MAX).max(1);
        max.checked_div(workers.saturating_mul(8)).unwrap_or(1).clamp(1, BATCH_MAX)
    }
}

fn take_one(places: &AtomicI64) -> bool {
    let one_less = |places: i64| (places > 0).then(|| places.saturating_sub(1));
    places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
}

/// The place of a request in flight; given back when it is dropped.
#[must_use = "the request counts as ended when this is dropped"]
pub struct Place(Arc<Worker>);

impl Place {
    /// A place for a request of this priority. None is needed when there is no limit.
    pub(super) fn take(worker: &Arc<Worker>, priority: Priority) -> Result<Option<Self>, Reason> {
        let places = &worker.overload.places;
        let max = places.max.load(Ordering::Relaxed);
        let Some(limit) = u64::try_from(max).ok().filter(|max| *max > 0) else { return Ok(None) };
        let part = i64::try_from(priority.part_of(limit)).unwrap_or(i64::MAX);
        if places.take(worker.index, part, max) { Ok(Some(Self(Arc::clone(worker)))) } else { Err(Reason::InFlight) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.overload.places.give_back(self.0.index);
    }
}

#[cfg(test)]
mod tests;
