//! What every backend has to do, and what each does in its own way.

mod contract;
mod file;
mod limiter;
mod memory;
mod model;
mod outages;
mod redis;
pub mod server;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::expiry::Now;
use super::{File, Limits, Memory, Redis, Space, Store};

const SPACE: Space = Space("test");
const OTHER: Space = Space("other");

/// Each of these tests, for each of those backends.
macro_rules! for_each {
    ({ $($backend:ident: $bench:expr),+ $(,)? }, $tests:tt) => {
        $(for_each!(@one $backend, $bench, $tests);)+
    };
    (@one $backend:ident, $bench:expr, [$($test:ident),+ $(,)?]) => {
        mod $backend {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($bench).await;
            })+
        }
    };
}
pub(crate) use for_each;

/// A time of day that only moves when it is told to.
#[derive(Clone)]
pub struct Clock(Arc<AtomicU64>);

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_767_268_800_000)))
    }

    pub fn now(&self) -> Now {
        let milliseconds = Arc::clone(&self.0);
        Arc::new(move || UNIX_EPOCH + Duration::from_millis(milliseconds.load(Ordering::SeqCst)))
    }

    pub fn forward(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::SeqCst);
    }

    pub fn back(&self, milliseconds: u64) {
        self.0.fetch_sub(milliseconds, Ordering::SeqCst);
    }

    fn later(&self, milliseconds: u64) -> Option<SystemTime> {
        Some((self.now())() + Duration::from_millis(milliseconds))
    }
}

/// A store to be tested, on a clock that stands still.
pub struct Bench {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    _folder: Option<tempfile::TempDir>,
}

impl Bench {
    pub fn memory() -> Self {
        let clock = Clock::new();
        Self { store: Arc::new(Memory::with_clock(Limits::default(), clock.now())), clock, _folder: None }
    }

    pub fn redis() -> Self {
        let clock = Clock::new();
        let store = Redis::with_clock(&server::shared().settings(), clock.now()).unwrap();
        Self { store: Arc::new(server::up(store)), clock, _folder: None }
    }

    pub fn file() -> Self {
        let clock = Clock::new();
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().join("state.db"), &clock);
        Self { store: Arc::new(store), clock, _folder: Some(folder) }
    }
}

fn open(path: &Path, clock: &Clock) -> File {
    File::with_clock(path, clock.now(), Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error}"))
}

/// The keys of what is listed.
async fn keys(store: &dyn Store, after: Option<&str>, limit: usize) -> Vec<String> {
    store.list(SPACE, after, limit).await.unwrap().into_iter().map(|entry| entry.key).collect()
}
