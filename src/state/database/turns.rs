//! Turns of two gateways that write to one database: the one that serves, and the one that takes over from it.
//!
//! SQLite's lock goes to whoever asks while it is free. A gateway under load asks again within microseconds, and one that looks
//! every now and then finds it taken for seconds. So who is to write next takes a lock of its own first, waits for SQLite's,
//! and lets go of the first one: whoever has just written waits behind it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// How long one waits before it looks again whether a lock is free.
const PAUSE: Duration = Duration::from_millis(1);
/// How often: for about 2 seconds, which is how long another gateway may take with a transaction.
const LOOKS_MAX: i32 = 2000;

/// The lock of whoever is to write next: of a file beside the database. It belongs to what is open, not to the process.
pub struct Turns(File);

/// The right to write next, until it is dropped.
pub struct Turn<'a>(&'a File);

impl Turns {
    /// # Errors
    /// The file cannot be opened.
    pub fn open(database: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(beside(database)).map(Self)
    }

    /// Waits until it is this one's turn. Nothing when another one neither writes nor lets go: then it goes without, and what
    /// keeps two transactions apart is SQLite's own lock, as ever.
    pub fn next(&self) -> Option<Turn<'_>> {
        let mut looks = 0;
        while flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_err() {
            if !look_again(looks) {
                return None;
            }
            looks = looks.saturating_add(1);
        }
        Some(Turn(&self.0))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // It cannot fail for a file that is open; the end of the process would do the same.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

/// Waits before the next look at a lock; not when there were too many. It is a busy handler of SQLite too, whose own waits up to
/// 100 ms between two looks.
#[expect(
    clippy::disallowed_methods,
    reason = "nobody tells one process that another one has let go, within bounded time"
)]
pub fn look_again(looks: i32) -> bool {
    thread::sleep(PAUSE);
    looks < LOOKS_MAX
}

/// `data/tollgate.db-turn` for `data/tollgate.db`.
fn beside(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-turn");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use super::super::{Database, Format, Others, open};
    use crate::clock;

    const FORMAT: Format =
        Format { name: "database", application_id: 1, version: 1, schema: "CREATE TABLE t (a)", pages_max: 1000 };

    #[expect(clippy::disallowed_methods, reason = "it stands for a slow disk")]
    fn write(database: &mut Database, takes: Duration) {
        let transaction = database.write().unwrap();
        transaction.execute("INSERT INTO t VALUES (1)", []).unwrap();
        std::thread::sleep(takes);
        transaction.commit().unwrap();
    }

    /// A gateway could not take over from one whose disk was slow and whose inbox was busy: "another program holds it".
    #[test]
    fn who_writes_without_a_pause_lets_others_write_in_between() {
        const SLOW: Duration = Duration::from_millis(20);
        const TURNS: usize = 10;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let mut busy = open(&path, &FORMAT, Others::None).unwrap();
        let (written, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Bounded: who waits in vain gives up after 2 seconds, and this has to end then too.
                while !done.load(Ordering::Relaxed) && written.load(Ordering::Relaxed) < 20 * TURNS {
                    write(&mut busy, SLOW);
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
            while written.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            // It begins while the other one writes, and so it goes on.
            let mut other = open(&path, &FORMAT, Others::Predecessor).unwrap();
            (0..TURNS).for_each(|_| write(&mut other, Duration::ZERO));
            done.store(true, Ordering::Relaxed);
        });
        let written = written.into_inner();
        // One at a time and in turn, give or take what the scheduler does to threads.
        assert!(written < 4 * TURNS, "{written} transactions of the one while the other had {TURNS}");
        let count: i64 = busy.connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(usize::try_from(count), Ok(written + TURNS));
    }

    #[test]
    fn one_that_hangs_with_its_turn_holds_nobody_up_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let [hangs, other] = [0, 1].map(|_| super::Turns::open(&path).unwrap());
        let turn = hangs.next().unwrap();
        let begun = clock::now();
        assert!(other.next().is_none());
        assert!(clock::now().duration_since(begun) >= Duration::from_secs(2));
        drop(turn);
        assert!(other.next().is_some());
    }
}
