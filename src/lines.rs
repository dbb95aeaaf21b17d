//! Lines of text written beside the path of a request: what the access log and the audit log stand on.
//!
//! Every thread appends to a buffer of its own, whose lock is shared with nobody but the one thread that writes: no
//! core waits for another, and no request for a disk. The writer empties all buffers ten times a second, or at once
//! when one of them passes [`WAKE_BYTES`]. A buffer is bounded by [`SHARD_BYTES_MAX`]: when the disk cannot keep up,
//! lines are dropped and counted, never requests delayed.

pub mod json;
mod sink;
mod stamp;

use std::cell::RefCell;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use self::sink::Sink;
pub use self::stamp::{RFC3339, Stamp};

/// What one thread may hold back, in bytes. Lines beyond are dropped.
pub const SHARD_BYTES_MAX: usize = 1024 * 1024;

/// A thread that holds back more than this, in bytes, wakes the writer.
pub const WAKE_BYTES: usize = 32 * 1024;

/// How long a line waits at most for the writer to look.
const WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// How long the last lines may take when the log is dropped.
const DROP_BOUND: Duration = Duration::from_secs(2);

/// A buffer that grew beyond this in a burst gives the memory back.
const KEPT_BYTES_MAX: usize = 4 * WAKE_BYTES;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Stdout,
    /// A leading `~/` is the home folder. Missing folders are made.
    File(PathBuf),
}

/// A log as it is opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// What it is called in messages: `access log`.
    pub name: &'static str,
    pub target: &'a Target,
    /// Size in bytes at which a file is rotated; 0: never.
    pub rotate_bytes: u64,
    /// How many rotated files are kept as `file.1`, `file.2`, …; 0: a full file is deleted.
    pub keep: usize,
    /// The home folder, for `~`.
    pub home: Option<&'a Path>,
}

/// Lines on their way to a target. Dropping it writes what is held back.
pub struct Lines {
    shared: Arc<Shared>,
    writer: Thread,
}

impl Lines {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened for appending, its folder cannot be made, `~` is used without a `home`, or no
    /// thread can be started.
    pub fn open(opening: Opening<'_>) -> io::Result<Self> {
        static LOGS: AtomicU64 = AtomicU64::new(0);
        let Opening { name, target, rotate_bytes, keep, home } = opening;
        let sink = match target {
            Target::Stdout => Sink::stdout(name)?,
            Target::File(path) => Sink::file(name, expand_home(path, home)?, rotate_bytes, keep)?,
        };
        let shared = Arc::new(Shared {
            id: LOGS.fetch_add(1, Ordering::Relaxed),
            shards: Mutex::default(),
            dropped: AtomicU64::new(0),
            reopen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            answered: Mutex::new(0),
            answer: Condvar::new(),
        });
        let writing = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name.replace(' ', "-")).spawn(move || writing.run(sink))?;
        Ok(Self { shared, writer: thread.thread().clone() })
    }

    /// Appends to the buffer of this thread what `write` writes: whole lines.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>, &mut Stamp)) {
        let appended = MINE.try_with(|mine| {
            let mut mine = mine.try_borrow_mut().ok()?;
            let known = mine.iter().position(|(id, _)| *id == self.shared.id);
            if known.is_none() {
                // Logs that are gone leave their buffers with us alone.
                mine.retain(|(_, shard)| Arc::strong_count(shard) > 1);
                mine.push((self.shared.id, self.shared.register()));
            }
            let (_, shard) = known.map_or_else(|| mine.last(), |at| mine.get(at))?;
            Some(shard.append(write))
        });
        match appended {
            Ok(Some(Appended::Kept)) => {}
            Ok(Some(Appended::Wake)) => self.writer.unpark(),
            // The thread is ending, or its buffer is full.
            Ok(Some(Appended::Full) | None) | Err(_) => {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Opens the file anew, soon: for a SIGUSR1. A file that was renamed away is noticed without it.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.writer.unpark();
    }

    /// Blocks until every line recorded before the call is written or counted as dropped, or until `bound` has
    /// passed: then `false`.
    pub fn flush(&self, bound: Duration) -> bool {
        let ticket = self.shared.asked.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        self.writer.unpark();
        let answered = lock(&self.shared.answered);
        let (answered, _) = self
            .shared
            .answer
            .wait_timeout_while(answered, bound, |answered| *answered < ticket)
            .unwrap_or_else(PoisonError::into_inner);
        *answered >= ticket
    }

    /// How many lines were lost since the start: to full buffers, or to a target that could not be written.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush(DROP_BOUND);
        // Not joined: a target that blocks must not keep the process from ending.
        self.shared.stop.store(true, Ordering::Release);
        self.writer.unpark();
    }
}

/// The path with a leading `~` replaced by `home`.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] when the path needs a home folder and there is none.
pub fn expand_home(path: &Path, home: Option<&Path>) -> io::Result<PathBuf> {
    match (path.strip_prefix("~"), home) {
        (Err(_), _) => Ok(path.to_owned()),
        (Ok(rest), Some(home)) => Ok(home.join(rest)),
        (Ok(_), None) => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{}: no home folder is known for `~`; write the whole path", path.display()),
        )),
    }
}

thread_local! {
    /// The buffers of this thread, by log. Two logs are the rule, so a list beats a map.
    static MINE: RefCell<Vec<(u64, Arc<Shard>)>> = const { RefCell::new(Vec::new()) };
}

struct Shared {
    id: u64,
    shards: Mutex<Vec<Arc<Shard>>>,
    dropped: AtomicU64,
    reopen: AtomicBool,
    stop: AtomicBool,
    /// The number of the latest flush asked for, and of the latest answered.
    asked: AtomicU64,
    answered: Mutex<u64>,
    answer: Condvar,
}

/// The buffer of one thread. On a cache line of its own.
#[repr(align(128))]
struct Shard(Mutex<Pending>);

struct Pending {
    lines: Vec<u8>,
    stamp: Stamp,
}

enum Appended {
    Kept,
    Wake,
    Full,
}

impl Shard {
    fn append(&self, write: impl FnOnce(&mut Vec<u8>, &mut Stamp)) -> Appended {
        let mut pending = lock(&self.0);
        let Pending { lines, stamp } = &mut *pending;
        let before = lines.len();
        write(lines, stamp);
        if lines.len() > SHARD_BYTES_MAX {
            lines.truncate(before);
            return Appended::Full;
        }
        // Only the line that crosses the mark wakes: one system call for hundreds of lines.
        if before <= WAKE_BYTES && lines.len() > WAKE_BYTES { Appended::Wake } else { Appended::Kept }
    }
}

impl Shared {
    fn register(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard(Mutex::new(Pending { lines: Vec::new(), stamp: Stamp::default() })));
        lock(&self.shards).push(Arc::clone(&shard));
        shard
    }

    fn run(&self, mut sink: Sink) {
        let mut spare = Vec::new();
        loop {
            // Read before the buffers are, so that the answer covers what was recorded before the question.
            let asked = self.asked.load(Ordering::Acquire);
            let stop = self.stop.load(Ordering::Acquire);
            if self.reopen.swap(false, Ordering::AcqRel) {
                sink.reopen();
            }
            self.write_all(&mut sink, &mut spare);
            *lock(&self.answered) = asked;
            self.answer.notify_all();
            if stop {
                return;
            }
            thread::park_timeout(WRITE_INTERVAL);
        }
    }

    fn write_all(&self, sink: &mut Sink, spare: &mut Vec<u8>) {
        // A copy of the list: a thread that logs for the first time must not wait for the disk.
        let shards = {
            let mut shards = lock(&self.shards);
            shards.retain(|shard| Arc::strong_count(shard) > 1 || !lock(&shard.0).lines.is_empty());
            shards.clone()
        };
        for shard in shards {
            mem::swap(&mut lock(&shard.0).lines, spare);
            let lost = sink.write(spare);
            self.dropped.fetch_add(lost, Ordering::Relaxed);
            spare.clear();
            spare.shrink_to(KEPT_BYTES_MAX);
        }
    }
}

/// A panic elsewhere does not end the log: whatever a buffer holds is whole lines or gets truncated to them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
