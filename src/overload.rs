//! Sheds requests before the machine suffers: when too many are in flight, when the process takes too much memory, or when a
//! worker is late with its work.
//!
//! What decides is looked up on the path of a request and worked out beside it: a request reads a few atomics that hardly ever
//! change. Routes have a [`Priority`]; each has a share of every limit, so that what matters least goes first.

mod episodes;
mod lag;
mod memory;
mod places;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tracing::warn;

use crate::clock;
use crate::observe::metrics::SheddingSample;
use episodes::Episodes;
use places::{Padded, Places};

pub use places::Place;

/// How often the memory of the process is looked at, and changes of the limits taken over.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// How long a route is served when requests are shed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// To the end: up to the limits themselves.
    Critical,
    /// Up to 98 % of a limit.
    High,
    /// Up to 90 % of a limit.
    #[default]
    Normal,
    /// Up to 70 % of a limit.
    Low,
}

impl Priority {
    /// From what is shed first to what is shed last.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// Its share of every limit, in percent.
    fn share(self) -> u64 {
        match self {
            Self::Critical => 100,
            Self::High => 98,
            Self::Normal => 90,
            Self::Low => 70,
        }
    }

    /// The level from which on it is shed.
    fn level(self) -> u8 {
        match self {
            Self::Low => 1,
            Self::Normal => 2,
            Self::High => 3,
            Self::Critical => 4,
        }
    }

    /// Its part of a limit, rounded up: a limit of 1 lets one request of any priority in.
    fn part_of(self, limit: u64) -> u64 {
        limit.saturating_mul(self.share()).div_ceil(100)
    }
}

/// The limits, as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub in_flight_max: Option<u32>,
    pub memory_bytes_max: Option<u64>,
    pub lag_max: Option<Duration>,
}

/// Why a request is shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    InFlight,
    Memory,
    Lag,
}

impl Reason {
    pub const ALL: [Self; 3] = [Self::InFlight, Self::Memory, Self::Lag];

    /// The limit it is about.
    pub fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight_max",
            Self::Memory => "memory_max",
            Self::Lag => "lag_max",
        }
    }
}

/// What the workers of a process know together. Not of one snapshot: what is in flight is in flight, under whichever
/// configuration it came in.
pub struct Overload {
    /// Some limit is set.
    active: AtomicBool,
    places: Places,
    /// The priorities that are shed because of memory: all whose level is not above this.
    memory_level: AtomicU8,
    lag_max_ms: AtomicU64,
    counts: Box<[Padded<Counts>]>,
    /// Whether an episode is on, by reason; for the metrics.
    shedding: [AtomicBool; Reason::ALL.len()],
}

/// What one worker counts.
#[derive(Default)]
struct Counts {
    /// As `memory_level`, for how late this worker is.
    lag_level: AtomicU8,
    /// Requests shed, by reason and priority.
    shed: [[AtomicU64; Priority::ALL.len()]; Reason::ALL.len()],
}

/// The part of one worker thread.
pub struct Worker {
    overload: Arc<Overload>,
    index: usize,
}

impl Overload {
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            active: AtomicBool::new(false),
            places: Places::new(workers),
            memory_level: AtomicU8::new(0),
            lag_max_ms: AtomicU64::new(0),
            counts: (0..workers).map(|_| Padded::default()).collect(),
            shedding: Default::default(),
        })
    }

    pub fn worker(self: &Arc<Self>, index: usize) -> Arc<Worker> {
        Arc::new(Worker { overload: Arc::clone(self), index })
    }

    /// Takes over what is configured.
    pub fn follow(&self, bounds: &Bounds) {
        self.places.set_max(bounds.in_flight_max.unwrap_or(0));
        let lag_ms = bounds.lag_max.map_or(0, |lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX));
        self.lag_max_ms.store(lag_ms, Ordering::Relaxed);
        let memory = bounds.memory_bytes_max.map_or(0, |max| {
            let before = self.memory_level.load(Ordering::Relaxed);
            // What cannot be measured sheds nothing.
            memory::resident_bytes().map_or(0, |bytes| level(bytes, max, before))
        });
        self.memory_level.store(memory, Ordering::Relaxed);
        self.active.store(*bounds != Bounds::default(), Ordering::Relaxed);
    }

    /// Follows the configuration and the memory of the process, and writes down when shedding begins and ends.
    pub async fn keep(self: Arc<Self>, bounds: impl Fn() -> Bounds) {
        let mut episodes = Episodes::default();
        if self.memory_level.load(Ordering::Relaxed) > 0 {
            warn!(
                "`limits.memory_max` is hardly more than the gateway takes at rest: requests are shed from the start"
            );
        }
        loop {
            tokio::time::sleep(SAMPLE_EVERY).await;
            self.follow(&bounds());
            let on = episodes.look(&self.shed(), clock::now());
            for (shown, on) in self.shedding.iter().zip(on) {
                shown.store(on, Ordering::Relaxed);
            }
        }
    }

    /// What the metrics show.
    pub fn samples(&self) -> Vec<SheddingSample> {
        let pairs = Reason::ALL.iter().zip(&self.shedding);
        pairs.map(|(reason, on)| SheddingSample { reason: reason.name(), on: on.load(Ordering::Relaxed) }).collect()
    }

    /// How many requests were shed, by reason and priority.
    fn shed(&self) -> [[u64; Priority::ALL.len()]; Reason::ALL.len()] {
        let mut sums = [[0_u64; Priority::ALL.len()]; Reason::ALL.len()];
        for counts in &self.counts {
            for (sums, counts) in sums.iter_mut().zip(&counts.0.shed) {
                for (sum, count) in sums.iter_mut().zip(counts) {
                    *sum = sum.saturating_add(count.load(Ordering::Relaxed));
                }
            }
        }
        sums
    }
}

impl Worker {
    /// Lets a request in, or says why not. Without any limit this is one load.
    pub fn admit(self: &Arc<Self>, priority: Priority) -> Result<Option<Place>, Reason> {
        if !self.overload.active.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let admitted = self.admit_within(priority);
        if let Err(reason) = admitted {
            self.count(reason, priority);
        }
        admitted
    }

    fn admit_within(self: &Arc<Self>, priority: Priority) -> Result<Option<Place>, Reason> {
        if self.overload.memory_level.load(Ordering::Relaxed) >= priority.level() {
            return Err(Reason::Memory);
        }
        let lag_level = self.counts().map_or(0, |counts| counts.lag_level.load(Ordering::Relaxed));
        if lag_level >= priority.level() {
            return Err(Reason::Lag);
        }
        Place::take(self, priority)
    }

    fn counts(&self) -> Option<&Counts> {
        self.overload.counts.get(self.index).map(|padded| &padded.0)
    }

    fn count(&self, reason: Reason, priority: Priority) {
        let place = |all: &[Reason]| all.iter().position(|one| *one == reason);
        let shed = self.counts().zip(place(&Reason::ALL)).and_then(|(counts, at)| counts.shed.get(at));
        let at = Priority::ALL.iter().position(|one| *one == priority);
        if let Some(count) = shed.zip(at).and_then(|(counts, at)| counts.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The priorities that are shed while `used` of `max` is in use: all whose level is not above the result. What is shed already is
/// shed until a twentieth of the limit is free again: otherwise it would come and go with every sample.
fn level(used: u64, max: u64, before: u8) -> u8 {
    let is_shed = |priority: &&Priority| {
        let from = priority.part_of(max);
        let until = from.saturating_sub(max.div_euclid(20));
        used > if before >= priority.level() { until } else { from }
    };
    Priority::ALL.iter().filter(is_shed).map(|priority| priority.level()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
