//! The store in a file: an embedded SQLite database that survives the end of the process, `kill -9` included.

mod statements;

use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::TransactionBehavior;

use super::database::{self, Database, Format, Guard, OpenError, Others, PATIENCE, Work, Worker, gone};
use super::expiry::{self, Now, milliseconds};
use super::{Changes, Entry, Mark, Pending, Space, Spend, Spent, Store, StoreError, check};

const FORMAT: Format = Format {
    name: "state store",
    // `TOLL`
    application_id: 0x544f_4c4c,
    version: 1,
    schema: statements::SCHEMA,
    // 1 GiB
    pages_max: 262_144,
};

/// Keeps entries in a file.
pub struct File {
    worker: Worker<Entries>,
    /// The version that there was before anything was read.
    opened: i64,
    /// Let go of after the file is closed.
    guard: Guard,
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
        database::prepare(path, FORMAT.name)?;
        let guard = Guard::take(path, FORMAT.name)?;
        Self::with_guard(path, guard, Others::None, now, patience)
    }

    /// Opens the database that another gateway has open, which has handed over its `guard`.
    ///
    /// # Errors
    /// As of [`File::open`].
    pub fn open_beside(path: &Path, guard: Guard) -> Result<Self, OpenError> {
        Self::with_guard(path, guard, Others::Predecessor, expiry::wall(), PATIENCE)
    }

    fn with_guard(path: &Path, guard: Guard, others: Others, now: Now, patience: Duration) -> Result<Self, OpenError> {
        let database = database::open(path, &FORMAT, others)?;
        let opened = database::version(&database.connection);
        let opened = opened.map_err(|error| OpenError::new(path, FORMAT.name, error.to_string()))?;
        let worker = Worker::start(database, Entries { now }, path, patience)?;
        Ok(Self { worker, opened, guard })
    }

    /// What keeps other gateways away.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }
}

impl Store for File {
    fn get<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(async move { self.worker.ask(Operation::Get(space, key.to_owned())).await.map(Answer::value) })
    }

    fn put<'a>(&'a self, space: Space, key: &'a str, value: Vec<u8>, expires: Option<SystemTime>) -> Pending<'a, ()> {
        Box::pin(async move {
            check(key, &value)?;
            let expires = expires.map(milliseconds);
            self.worker.ask(Operation::Put { space, key: key.to_owned(), value, expires }).await.map(|_| ())
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
            self.worker
                .ask(Operation::Insert { space, key: key.to_owned(), value, expires })
                .await
                .map(|answer| answer.done())
        })
    }

    fn replace<'a>(&'a self, space: Space, key: &'a str, expected: &'a [u8], value: Vec<u8>) -> Pending<'a, bool> {
        Box::pin(async move {
            check(key, &value)?;
            let expected = expected.to_owned();
            self.worker
                .ask(Operation::Replace { space, key: key.to_owned(), expected, value })
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
            self.worker
                .ask(Operation::Exchange { space, key: key.to_owned(), expected, value, expires })
                .await
                .map(|answer| answer.done())
        })
    }

    fn take<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(async move { self.worker.ask(Operation::Take(space, key.to_owned())).await.map(Answer::value) })
    }

    fn spend<'a>(&'a self, space: Space, key: &'a str, ask: Spend, expires: SystemTime) -> Pending<'a, Spent> {
        Box::pin(async move {
            check(key, &[])?;
            let expires = milliseconds(expires);
            let answer = self.worker.ask(Operation::Spend { space, key: key.to_owned(), ask, expires }).await?;
            if let Answer::Spent(spent) = answer { spent } else { Err(gone()) }
        })
    }

    fn give_back<'a>(&'a self, space: Space, key: &'a str, amount: u64) -> Pending<'a, ()> {
        Box::pin(async move {
            let answer = self.worker.ask(Operation::GiveBack { space, key: key.to_owned(), amount }).await?;
            if let Answer::Spent(spent) = answer { spent.map(|_| ()) } else { Err(gone()) }
        })
    }

    fn list<'a>(&'a self, space: Space, after: Option<&'a str>, limit: usize) -> Pending<'a, Vec<Entry>> {
        let after = after.map(str::to_owned);
        Box::pin(async move { self.worker.ask(Operation::List { space, after, limit }).await.map(Answer::entries) })
    }

    /// What a gateway wrote that hands over to this one, or that this one has handed over to. Otherwise nobody writes but this
    /// process, which knows what it wrote.
    fn changes<'a>(&'a self, _space: Space, since: &'a Mark) -> Pending<'a, Changes> {
        Box::pin(async move {
            let Answer::Version(version) = self.worker.ask(Operation::Version).await? else { return Err(gone()) };
            let known = since.0.parse().unwrap_or(self.opened);
            Ok(Changes { mark: Mark(version.to_string()), keys: (version == known).then(Vec::new) })
        })
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
    Version,
}

impl Operation {
    fn writes(&self) -> bool {
        !matches!(self, Self::Get(..) | Self::List { .. } | Self::Version)
    }
}

/// What came of it.
enum Answer {
    Value(Option<Vec<u8>>),
    Done(bool),
    Entries(Vec<Entry>),
    Spent(Result<Spent, StoreError>),
    Version(i64),
}

impl Answer {
    fn value(self) -> Option<Vec<u8>> {
        match self {
            Self::Value(value) => value,
            Self::Done(_) | Self::Entries(_) | Self::Spent(_) | Self::Version(_) => None,
        }
    }

    fn done(&self) -> bool {
        matches!(self, Self::Done(true))
    }

    fn entries(self) -> Vec<Entry> {
        match self {
            Self::Entries(entries) => entries,
            Self::Value(_) | Self::Done(_) | Self::Spent(_) | Self::Version(_) => Vec::new(),
        }
    }
}

/// The entries, and the time of day.
struct Entries {
    now: Now,
}

impl Work for Entries {
    type Operation = Operation;
    type Answer = Answer;

    const NAME: &'static str = FORMAT.name;

    fn together(&mut self, database: &mut Database, batch: &[Operation]) -> rusqlite::Result<Vec<Answer>> {
        let now = milliseconds((self.now)());
        let writes = batch.iter().any(Operation::writes);
        // At once for writing: what was read must not have been changed by another gateway that hands over, or takes over.
        let transaction = if writes {
            database.write()?
        } else {
            database.connection.transaction_with_behavior(TransactionBehavior::Deferred)?
        };
        if writes {
            statements::sweep(&transaction, now)?;
        }
        let answers: rusqlite::Result<Vec<Answer>> =
            batch.iter().map(|operation| statements::execute(&transaction, operation, now)).collect();
        let answers = answers?;
        transaction.commit()?;
        Ok(answers)
    }
}
