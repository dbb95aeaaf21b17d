//! An embedded SQLite database that survives the end of the process, `kill -9` included.
//!
//! One thread owns the database. Operations come to it over a bounded queue; those that wait together share one
//! transaction, so one flush to disk acknowledges them all. Nothing is acknowledged before it is flushed.

mod guard;
mod open;
mod turns;

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::StoreError;
use turns::Turns;

pub use guard::Guard;
pub use open::{Format, OpenError, Others, open, prepare, version};

/// Operations that may wait for the thread. Behind them callers wait for a place, up to their patience.
const QUEUE_MAX: usize = 4096;
/// Operations that share a transaction.
const BATCH_MAX: usize = 512;
/// Bytes that operations bring along into a transaction, as long as it is more than one operation: what the write-ahead
/// log grows by at once.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long one operation may take, waiting included.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A database that is open. Another gateway may have it open too: [`Others`].
pub struct Database {
    pub connection: Connection,
    turns: Turns,
}

impl Database {
    /// Begins to write. What is read in it is not changed by others, and whoever has waited longer was first.
    ///
    /// # Errors
    /// Another one does not end its transaction.
    pub fn write(&mut self) -> rusqlite::Result<Transaction<'_>> {
        let turn = self.turns.next();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        drop(turn);
        transaction
    }
}

/// What is done with a database.
pub trait Work: Send + 'static {
    type Operation: Send + 'static;
    type Answer: Send + 'static;

    /// What it is to operators, and the name of its thread.
    const NAME: &'static str;

    /// How many bytes an operation brings along.
    fn weight(operation: &Self::Operation) -> usize {
        let _ = operation;
        0
    }

    /// Does all of them in one transaction. They are on disk when it returns; after an error none of them has happened.
    ///
    /// # Errors
    /// One of them cannot be done.
    fn together(&mut self, database: &mut Database, batch: &[Self::Operation]) -> rusqlite::Result<Vec<Self::Answer>>;
}

/// The thread that works on a database.
pub struct Worker<W: Work> {
    /// `None` only while it is dropped.
    queue: Option<mpsc::Sender<Job<W>>>,
    thread: Option<JoinHandle<()>>,
    patience: Duration,
}

struct Job<W: Work> {
    operation: W::Operation,
    answer: oneshot::Sender<Result<W::Answer, StoreError>>,
}

impl<W: Work> Worker<W> {
    /// # Errors
    /// No thread can be started.
    pub fn start(database: Database, work: W, path: &Path, patience: Duration) -> Result<Self, OpenError> {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new().name(W::NAME.to_owned());
        let thread = thread.spawn(move || serve(database, jobs, work));
        let thread =
            thread.map_err(|error| OpenError::new(path, W::NAME, format!("no thread can be started: {error}")))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), patience })
    }

    /// # Errors
    /// It failed, or took longer than the patience; then it may happen nevertheless.
    pub async fn ask(&self, operation: W::Operation) -> Result<W::Answer, StoreError> {
        let Some(queue) = &self.queue else { return Err(gone()) };
        let (answer, answered) = oneshot::channel();
        let asked = async {
            queue.send(Job { operation, answer }).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        };
        let late = |_| StoreError(format!("it did not answer within {:?}", self.patience));
        tokio::time::timeout(self.patience, asked).await.map_err(late)?
    }
}

/// There is nobody to answer, or not what was asked for.
pub fn gone() -> StoreError {
    StoreError::new("its thread has ended")
}

impl<W: Work> Drop for Worker<W> {
    /// Waits until what was asked for is written and the file is closed.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Works until nobody can ask any more.
fn serve<W: Work>(mut database: Database, mut jobs: mpsc::Receiver<Job<W>>, mut work: W) {
    while let Some(first) = jobs.blocking_recv() {
        let mut bytes = W::weight(&first.operation);
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && bytes < BATCH_BYTES_MAX
            && let Ok(job) = jobs.try_recv()
        {
            bytes = bytes.saturating_add(W::weight(&job.operation));
            batch.push(job);
        }
        // Who has stopped waiting takes what comes after a failure for granted: that nothing happens later.
        batch.retain(|job| !job.answer.is_closed());
        let (operations, callers): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.operation, job.answer)).unzip();
        match work.together(&mut database, &operations) {
            Ok(answers) => {
                for (caller, answer) in callers.into_iter().zip(answers) {
                    let _ = caller.send(Ok(answer));
                }
            }
            // One of them cannot be done; the others are not to suffer for it.
            Err(error) => {
                if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
                    make_room(&database.connection);
                }
                for (operation, caller) in operations.iter().zip(callers) {
                    let alone = work.together(&mut database, std::slice::from_ref(operation));
                    let alone = alone.map_err(|error| failed::<W>(&error));
                    let _ = caller.send(alone.and_then(|mut answers| answers.pop().ok_or_else(gone)));
                }
            }
        }
    }
}

/// Brings what is in the write-ahead log to its place, and gives its space back. On a disk that is full the log cannot grow to
/// the length at which that happens by itself, and nothing could be written any more, not even that something is gone.
pub fn make_room(connection: &Connection) {
    // Where that fails too there is no room indeed, and what is tried next says so.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

/// The failure as operators read it. It holds no value: SQLite's messages never do.
fn failed<W: Work>(error: &rusqlite::Error) -> StoreError {
    error!(%error, "the {} failed", W::NAME);
    StoreError(error.to_string())
}
