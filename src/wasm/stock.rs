//! The instances of a plugin: how many there are, and those that no request is with.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::plugin::Instance;

/// Lists of idle instances; threads share one only where there are more of them.
const SHELVES: usize = 64;

/// The instances of a plugin.
pub struct Stock {
    shelves: Box<[Mutex<Shelf>]>,
    /// Instances that there are, busy ones included.
    count: AtomicUsize,
}

/// Idle instances, the one used last at the end.
#[derive(Default)]
struct Shelf {
    idle: Vec<Instance>,
    /// The fewest that lay here since it was last swept: so many nobody needed.
    least: usize,
}

impl Stock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { shelves: (0..SHELVES).map(|_| Mutex::default()).collect(), count: AtomicUsize::new(0) })
    }

    /// An idle instance: the one that this thread used last.
    pub fn take(&self) -> Option<Instance> {
        lock(self.own()?).take()
    }

    /// One that another thread used.
    pub fn take_from_others(&self) -> Option<Instance> {
        self.shelves.iter().find_map(|shelf| lock(shelf).take())
    }

    /// Makes room for one more; `false` when there are as many as there may be.
    pub fn begin(&self, instances_max: usize) -> bool {
        let is_free = self.count.fetch_add(1, Ordering::Relaxed) < instances_max;
        if !is_free {
            self.end();
        }
        is_free
    }

    /// One has ended.
    pub fn end(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Keeps an idle instance for this thread.
    pub fn keep(&self, instance: Instance) {
        match self.own() {
            Some(shelf) => lock(shelf).idle.push(instance),
            None => self.end(),
        }
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Lets go of those that nobody needed since it was called last. One for each thread stays: the next request is to find
    /// one, and a plugin that ticks goes on.
    pub fn sweep(&self) {
        for shelf in &self.shelves {
            let unneeded = lock(shelf).unneeded();
            // Dropped without the lock: to unmap a memory takes a while.
            unneeded.iter().for_each(|_| self.end());
        }
    }

    /// The idle instances of this thread.
    fn own(&self) -> Option<&Mutex<Shelf>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static OWN: usize = THREADS.fetch_add(1, Ordering::Relaxed));
        let own = OWN.with(|own| *own).checked_rem(self.shelves.len())?;
        self.shelves.get(own)
    }
}

impl Shelf {
    fn take(&mut self) -> Option<Instance> {
        let taken = self.idle.pop();
        self.least = self.least.min(self.idle.len());
        taken
    }

    fn unneeded(&mut self) -> Vec<Instance> {
        let count = self.least.min(self.idle.len().saturating_sub(1));
        let unneeded = self.idle.drain(..count).collect();
        self.least = self.idle.len();
        unneeded
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}
