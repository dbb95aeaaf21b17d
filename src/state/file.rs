//! The store in a file: an embedded SQLite database that survives the end of the process, `kill -9` included.
//!
//! One thread owns the database. Operations come to it over a bounded queue; those that wait together share one
//! transaction, so one flush to disk acknowledges them all. Nothing is acknowledged before it is flushed.

mod open;
mod statements;

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::expiry::{self, Now, milliseconds};
use super::{Entry, Pending, Space, Spend, Spent, Store, StoreError, check};

pub use open::OpenError;

/// Operations that may wait for the thread. Behind them callers wait for a place, up to [`PATIENCE`].
const QUEUE_MAX: usize = 4096;
/// Operations that share a transaction.
const BATCH_MAX: usize = 512;
/// How long one operation may take, waiting included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps entries in a file.
pub struct File {
    /// `None` only while it is dropped.
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    patience: Duration,
}

impl File {
    /// Opens the database, or makes a new one. Only one process may have it open.
    ///
    /// # Errors
    /// The path cannot be used, another process has the file open, or it is not a sound database of this gateway.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::with_clock(path, expiry::wall(), PATIENCE)
    }

    pub(super) fn with_clock(path: &Path, now: Now, patience: Duration) -> Result<Self, OpenError> {
        let connection = open::open(path)?;
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new().name("state".to_owned());
        let thread = thread.spawn(move || serve(connection, jobs, &now));
        let thread = thread.map_err(|error| OpenError::new(path, format!("no thread can be started: {error}")))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), patience })
    }

    async fn ask(&self, operation: Operation) -> Result<Answer, StoreError> {
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

fn gone() -> StoreError {
    StoreError::new("its thread has ended")
}

impl Drop for File {
    /// Waits until what was asked for is written and the file is closed.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Store for File {
    fn get<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(async move { self.ask(Operation::Get(space, key.to_owned())).await.map(Answer::value) })
    }

    fn put<'a>(&'a self, space: Space, key: &'a str, value: Vec<u8>, expires: Option<SystemTime>) -> Pending<'a, ()> {
        Box::pin(async move {
            check(key, &value)?;
            let expires = expires.map(milliseconds);
            self.ask(Operation::Put { space, key: key.to_owned(), value, expires }).await.map(|_| ())
        })
    }

    fn insert<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool> {
        Box::pin(async move {
            check(key, &value)?;
            let expires = expires.map(milliseconds);
            self.ask(Operation::Insert { space, key: key.to_owned(), value, expires }).await.map(|answer| answer.done())
        })
    }

    fn replace<'a>(&'a self, space: Space, key: &'a str, expected: &'a [u8], value: Vec<u8>) -> Pending<'a, bool> {
        Box::pin(async move {
            check(key, &value)?;
            let expected = expected.to_owned();
            self.ask(Operation::Replace { space, key: key.to_owned(), expected, value })
                .await
                .map(|answer| answer.done())
        })
    }

    fn exchange<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        expected: &'a [u8],
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool> {
        Box::pin(async move {
            check(key, &value)?;
            let (expected, expires) = (expected.to_owned(), expires.map(milliseconds));
            self.ask(Operation::Exchange { space, key: key.to_owned(), expected, value, expires })
                .await
                .map(|answer| answer.done())
        })
    }

    fn take<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(async move { self.ask(Operation::Take(space, key.to_owned())).await.map(Answer::value) })
    }

    fn spend<'a>(&'a self, space: Space, key: &'a str, ask: Spend, expires: SystemTime) -> Pending<'a, Spent> {
        Box::pin(async move {
            check(key, &[])?;
            let expires = milliseconds(expires);
            let answer = self.ask(Operation::Spend { space, key: key.to_owned(), ask, expires }).await?;
            if let Answer::Spent(spent) = answer { spent } else { Err(gone()) }
        })
    }

    fn give_back<'a>(&'a self, space: Space, key: &'a str, amount: u64) -> Pending<'a, ()> {
        Box::pin(async move {
            let answer = self.ask(Operation::GiveBack { space, key: key.to_owned(), amount }).await?;
            if let Answer::Spent(spent) = answer { spent.map(|_| ()) } else { Err(gone()) }
        })
    }

    fn list<'a>(&'a self, space: Space, after: Option<&'a str>, limit: usize) -> Pending<'a, Vec<Entry>> {
        let after = after.map(str::to_owned);
        Box::pin(async move { self.ask(Operation::List { space, after, limit }).await.map(Answer::entries) })
    }
}

/// What the thread is asked to do.
enum Operation {
    Get(Space, String),
    Put { space: Space, key: String, value: Vec<u8>, expires: Option<i64> },
    Insert { space: Space, key: String, value: Vec<u8>, expires: Option<i64> },
    Replace { space: Space, key: String, expected: Vec<u8>, value: Vec<u8> },
    Exchange { space: Space, key: String, expected: Vec<u8>, value: Vec<u8>, expires: Option<i64> },
    Take(Space, String),
    Spend { space: Space, key: String, ask: Spend, expires: i64 },
    GiveBack { space: Space, key: String, amount: u64 },
    List { space: Space, after: Option<String>, limit: usize },
}

impl Operation {
    fn writes(&self) -> bool {
        !matches!(self, Self::Get(..) | Self::List { .. })
    }
}

/// What came of it.
enum Answer {
    Value(Option<Vec<u8>>),
    Done(bool),
    Entries(Vec<Entry>),
    Spent(Result<Spent, StoreError>),
}

impl Answer {
    fn value(self) -> Option<Vec<u8>> {
        match self {
            Self::Value(value) => value,
            Self::Done(_) | Self::Entries(_) | Self::Spent(_) => None,
        }
    }

    fn done(&self) -> bool {
        matches!(self, Self::Done(true))
    }

    fn entries(self) -> Vec<Entry> {
        match self {
            Self::Entries(entries) => entries,
            Self::Value(_) | Self::Done(_) | Self::Spent(_) => Vec::new(),
        }
    }
}

struct Job {
    operation: Operation,
    answer: oneshot::Sender<Result<Answer, StoreError>>,
}

/// Works until nobody can ask any more.
fn serve(mut connection: Connection, mut jobs: mpsc::Receiver<Job>, now: &Now) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        // Who has stopped waiting takes what comes after a failure for granted: that nothing happens later.
        batch.retain(|job| !job.answer.is_closed());
        let now = milliseconds(now());
        match together(&mut connection, &batch, now) {
            Ok(answers) => {
                for (job, answer) in batch.into_iter().zip(answers) {
                    let _ = job.answer.send(Ok(answer));
                }
            }
            // One of them cannot be done; the others are not to suffer for it.
            Err(_) => {
                for job in batch {
                    let alone = together(&mut connection, std::slice::from_ref(&job), now);
                    let _ = job.answer.send(
                        alone.map_err(|error| failed(&error)).and_then(|mut answers| answers.pop().ok_or_else(gone)),
                    );
                }
            }
        }
    }
}

/// Does all of them in one transaction. They are on disk when it returns.
fn together(connection: &mut Connection, batch: &[Job], now: i64) -> rusqlite::Result<Vec<Answer>> {
    let transaction = connection.transaction()?;
    if batch.iter().any(|job| job.operation.writes()) {
        statements::sweep(&transaction, now)?;
    }
    let answers: rusqlite::Result<Vec<Answer>> =
        batch.iter().map(|job| statements::execute(&transaction, &job.operation, now)).collect();
    let answers = answers?;
    transaction.commit()?;
    Ok(answers)
}

/// The failure as operators read it. It holds no value: SQLite's messages never do.
fn failed(error: &rusqlite::Error) -> StoreError {
    error!(%error, "the state store failed");
    StoreError(error.to_string())
}
