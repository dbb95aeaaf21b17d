//! The queue in a file: an embedded SQLite database beside that of the state, so that neither writer waits for the other.
//!
//! What is acknowledged is on disk (`synchronous=FULL`, one flush for all operations that wait together). Only one gateway
//! has the file open, the one that holds the guard of the state file: whoever held a claim when it is opened is dead, so all
//! claims are free then, and the attempt that was under way counts. A gateway that takes over from another one opens it beside
//! that one, and lets its claims be. Then each counts anew what is there when the other has written. When the disk is almost full, nothing more is stored, so that what is stored can still be
//! claimed and settled; when it is full, nothing can, and that is an error until there is space. Space of messages that
//! are gone is used again; the file does not shrink, and grows as far as the bounds of the inboxes let it.

mod order;
mod read;
mod space;
mod tables;
mod write;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, OnceCell};
use tracing::error;

use super::{Bounds, Claimed, Claims, Counts, Entry, Message, Outcome, Pending, Put, Queue, Standing};
use crate::state::StoreError;
use crate::state::database::{self, Database, Format, OpenError, Others, PATIENCE, Work, Worker, gone};
use crate::state::expiry::milliseconds;
use space::Space;
pub(super) use tables::SCHEMA;
use tables::{Tables, Tallies};

/// Largest file, in pages of 4 KiB: 64 GiB. Bounds of inboxes are below that.
pub(super) const PAGES_MAX: i64 = 16_777_216;

const NAME: &str = "inbox";

/// Keeps messages in a file.
pub struct File {
    path: PathBuf,
    /// Absent while there is no file.
    worker: OnceCell<Worker<Messages>>,
    changed: Arc<Notify>,
}

impl File {
    /// Where the messages are that belong to a state file: `data/tollgate-inbox.db` beside `data/tollgate.db`.
    pub fn beside(state: &Path) -> PathBuf {
        let mut name = state.file_stem().map(OsString::from).unwrap_or_default();
        name.push("-inbox");
        if let Some(extension) = state.extension() {
            name.push(".");
            name.push(extension);
        }
        state.with_file_name(name)
    }

    /// Opens the database if it is there; otherwise the first message makes it, so that who has no inbox has no such file.
    /// Who does so holds the guard of the state file.
    ///
    /// # Errors
    /// The path cannot be used, or it is not a sound database of this gateway.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::if_there(path, Others::None)
    }

    /// The same, beside a gateway that hands over to this one and has it open.
    ///
    /// # Errors
    /// As of [`File::open`].
    pub fn open_beside(path: &Path) -> Result<Self, OpenError> {
        Self::if_there(path, Others::Predecessor)
    }

    fn if_there(path: &Path, others: Others) -> Result<Self, OpenError> {
        if let Err(error) = path.symlink_metadata()
            && error.kind() == ErrorKind::NotFound
        {
            return Ok(Self { path: path.to_owned(), worker: OnceCell::new(), changed: Arc::default() });
        }
        Self::made_with(path, others, PAGES_MAX, PATIENCE)
    }

    #[cfg(test)]
    pub(super) fn with_pages(path: &Path, pages_max: i64, patience: Duration) -> Result<Self, OpenError> {
        Self::made_with(path, Others::None, pages_max, patience)
    }

    /// Opens the database, or makes a new one, with so many pages at most.
    fn made_with(path: &Path, others: Others, pages_max: i64, patience: Duration) -> Result<Self, OpenError> {
        let changed = Arc::default();
        let worker = start(path, others, pages_max, patience, &changed)?;
        Ok(Self { path: path.to_owned(), worker: OnceCell::new_with(Some(worker)), changed })
    }

    /// What works on the file, which is made where there is none.
    async fn made(&self) -> Result<&Worker<Messages>, StoreError> {
        let make = async || {
            let (path, changed) = (self.path.clone(), Arc::clone(&self.changed));
            // The other gateway of a handover may make it at this moment too.
            let make = move || start(&path, Others::Predecessor, PAGES_MAX, PATIENCE, &changed);
            let made = tokio::task::spawn_blocking(make).await;
            made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        };
        self.worker.get_or_try_init(make).await.map_err(|error| {
            error!(%error, "the {NAME} failed");
            StoreError(error)
        })
    }

    async fn ask(&self, operation: Operation) -> Result<Answer, StoreError> {
        match self.worker.get() {
            Some(worker) => worker.ask(operation).await,
            None => Ok(operation.of_nothing()),
        }
    }

    async fn done(&self, operation: Operation) -> Result<bool, StoreError> {
        let Answer::Done(done) = self.ask(operation).await? else { return Err(gone()) };
        Ok(done)
    }
}

fn start(
    path: &Path,
    others: Others,
    pages_max: i64,
    patience: Duration,
    changed: &Arc<Notify>,
) -> Result<Worker<Messages>, OpenError> {
    let format = Format {
        name: NAME,
        // `TOLI`
        application_id: 0x544f_4c49,
        version: 1,
        schema: SCHEMA,
        pages_max,
    };
    let mut database = database::open(path, &format, others)?;
    let refused = |error: rusqlite::Error| OpenError::new(path, NAME, error.to_string());
    // First: what another one writes after this is looked at again.
    let version = database::version(&database.connection).map_err(refused)?;
    let tallies = match others {
        Others::None => tables::load(&mut database.connection),
        Others::Predecessor => tables::tallies(&database.connection),
    };
    let tallies = tallies.map_err(refused)?;
    let messages = Messages { tallies, version, space: Space::of(path), changed: Arc::clone(changed) };
    Worker::start(database, messages, path, patience)
}

impl Queue for File {
    fn put(&self, message: Message, bounds: Bounds) -> Pending<'_, Put> {
        Box::pin(async move {
            let Answer::Put(put) = self.made().await?.ask(Operation::Put(Box::new(message), bounds)).await? else {
                return Err(gone());
            };
            put
        })
    }

    fn claim<'a>(&'a self, inbox: &'a str, most: usize, lease: Duration, now: SystemTime) -> Pending<'a, Claims> {
        Box::pin(async move {
            let operation =
                Operation::Claim { inbox: inbox.into(), most, until: later(now, lease), now: milliseconds(now) };
            let Answer::Claims(claims) = self.ask(operation).await? else { return Err(gone()) };
            Ok(claims)
        })
    }

    fn renew<'a>(&'a self, claimed: &'a Claimed, lease: Duration, now: SystemTime) -> Pending<'a, bool> {
        Box::pin(self.done(Operation::Renew { claim: Claim::of(claimed), until: later(now, lease) }))
    }

    fn settle<'a>(&'a self, claimed: &'a Claimed, outcome: Outcome, _now: SystemTime) -> Pending<'a, bool> {
        Box::pin(self.done(Operation::Settle { claim: Claim::of(claimed), outcome }))
    }

    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        // Made now, not when it is awaited: from here on it takes note.
        Box::pin(self.changed.notified())
    }

    fn counts<'a>(&'a self, inbox: &'a str, now: SystemTime) -> Pending<'a, Counts> {
        Box::pin(async move {
            let operation = Operation::Counts { inbox: inbox.into(), now: milliseconds(now) };
            let Answer::Counts(counts) = self.ask(operation).await? else { return Err(gone()) };
            Ok(counts)
        })
    }

    fn inboxes(&self) -> Pending<'_, Vec<String>> {
        Box::pin(async move {
            if self.worker.get().is_none() && self.path.exists() {
                // The other gateway of a handover has made it.
                self.made().await?;
                self.changed.notify_waiters();
                self.changed.notify_one();
            }
            let Answer::Inboxes(names) = self.ask(Operation::Inboxes).await? else { return Err(gone()) };
            Ok(names)
        })
    }

    fn list<'a>(
        &'a self,
        inbox: &'a str,
        standing: Option<Standing>,
        after: Option<&'a str>,
        limit: usize,
        now: SystemTime,
    ) -> Pending<'a, Vec<Entry>> {
        let after = after.map(str::to_owned);
        Box::pin(async move {
            let operation = Operation::List { inbox: inbox.into(), standing, after, limit, now: milliseconds(now) };
            let Answer::List(entries) = self.ask(operation).await? else { return Err(gone()) };
            Ok(entries)
        })
    }

    fn show<'a>(&'a self, inbox: &'a str, id: &'a str, now: SystemTime) -> Pending<'a, Option<Entry>> {
        Box::pin(async move {
            let operation = Operation::Show { inbox: inbox.into(), id: id.to_owned(), now: milliseconds(now) };
            let Answer::Show(entry) = self.ask(operation).await? else { return Err(gone()) };
            Ok(entry.map(|entry| *entry))
        })
    }

    fn replay<'a>(&'a self, inbox: &'a str, id: &'a str, now: SystemTime) -> Pending<'a, bool> {
        Box::pin(self.done(Operation::Replay { inbox: inbox.into(), id: id.to_owned(), now: milliseconds(now) }))
    }

    fn discard<'a>(&'a self, inbox: &'a str, id: &'a str, now: SystemTime) -> Pending<'a, bool> {
        Box::pin(self.done(Operation::Discard { inbox: inbox.into(), id: id.to_owned(), now: milliseconds(now) }))
    }
}

fn later(now: SystemTime, lease: Duration) -> i64 {
    milliseconds(now).saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX))
}

/// Whose claim it is.
struct Claim {
    inbox: Arc<str>,
    id: String,
    attempt: u32,
}

impl Claim {
    fn of(claimed: &Claimed) -> Self {
        let message = &claimed.message;
        Self { inbox: Arc::clone(&message.inbox), id: message.id.clone(), attempt: claimed.attempt }
    }
}

/// What the thread is asked to do.
enum Operation {
    Put(Box<Message>, Bounds),
    Claim { inbox: Arc<str>, most: usize, until: i64, now: i64 },
    Renew { claim: Claim, until: i64 },
    Settle { claim: Claim, outcome: Outcome },
    Counts { inbox: Arc<str>, now: i64 },
    Inboxes,
    List { inbox: Arc<str>, standing: Option<Standing>, after: Option<String>, limit: usize, now: i64 },
    Show { inbox: Arc<str>, id: String, now: i64 },
    Replay { inbox: Arc<str>, id: String, now: i64 },
    Discard { inbox: Arc<str>, id: String, now: i64 },
}

impl Operation {
    /// What comes of it where there is no message.
    fn of_nothing(&self) -> Answer {
        match self {
            Self::Put(..) => Answer::Put(Err(gone())),
            Self::Claim { .. } => Answer::Claims(Claims::default()),
            Self::Renew { .. } | Self::Settle { .. } | Self::Replay { .. } | Self::Discard { .. } => {
                Answer::Done(false)
            }
            Self::Counts { .. } => Answer::Counts(Counts::default()),
            Self::Inboxes => Answer::Inboxes(Vec::new()),
            Self::List { .. } => Answer::List(Vec::new()),
            Self::Show { .. } => Answer::Show(None),
        }
    }
}

/// What came of it.
enum Answer {
    Put(Result<Put, StoreError>),
    Claims(Claims),
    Done(bool),
    Counts(Counts),
    Inboxes(Vec<String>),
    List(Vec<Entry>),
    Show(Option<Box<Entry>>),
}

/// The messages, how many there are, and who is told when there are more.
struct Messages {
    tallies: Tallies,
    /// Of the database, when that was so.
    version: i64,
    space: Space,
    changed: Arc<Notify>,
}

impl Work for Messages {
    type Operation = Operation;
    type Answer = Answer;

    const NAME: &'static str = NAME;

    fn weight(operation: &Operation) -> usize {
        match operation {
            Operation::Put(message, _) => message.body.len(),
            _ => 0,
        }
    }

    fn together(&mut self, database: &mut Database, batch: &[Operation]) -> rusqlite::Result<Vec<Answer>> {
        let space = match batch.iter().map(put_bytes).fold(0, u64::saturating_add) {
            0 => Ok(()),
            bytes => self.space.check(&database.connection, bytes),
        };
        let transaction = database.write()?;
        let version = database::version(&transaction)?;
        let others_wrote = version != self.version;
        let tallies = if others_wrote { tables::tallies(&transaction)? } else { self.tallies.clone() };
        let mut tables = Tables::new(&transaction, tallies);
        let answers: rusqlite::Result<Vec<Answer>> = batch
            .iter()
            .map(|operation| match (&space, operation) {
                (Err(full), Operation::Put(..)) => Ok(Answer::Put(Err(full.clone()))),
                _ => execute(&mut tables, operation),
            })
            .collect();
        let answers = answers?;
        let (tallies, changed) = tables.finish();
        transaction.commit()?;
        (self.tallies, self.version) = (tallies, version);
        if changed || others_wrote {
            // Those who wait now, and whoever asks next.
            self.changed.notify_waiters();
            self.changed.notify_one();
        }
        Ok(answers)
    }
}

/// What it stores.
fn put_bytes(operation: &Operation) -> u64 {
    if let Operation::Put(message, _) = operation { message.bytes() } else { 0 }
}

fn execute(tables: &mut Tables<'_>, operation: &Operation) -> rusqlite::Result<Answer> {
    match operation {
        Operation::Put(message, bounds) => write::put(tables, message, *bounds).map(|put| Answer::Put(Ok(put))),
        Operation::Claim { inbox, most, until, now } => {
            write::claim(tables, inbox, *most, *until, *now).map(Answer::Claims)
        }
        Operation::Renew { claim, until } => write::renew(tables, claim, *until).map(Answer::Done),
        Operation::Settle { claim, outcome } => write::settle(tables, claim, outcome).map(Answer::Done),
        Operation::Replay { inbox, id, now } => write::replay(tables, inbox, id, *now).map(Answer::Done),
        Operation::Discard { inbox, id, now } => write::discard(tables, inbox, id, *now).map(Answer::Done),
        Operation::Counts { inbox, now } => read::counts(tables, inbox, *now).map(Answer::Counts),
        Operation::Inboxes => Ok(Answer::Inboxes(tables.inboxes())),
        Operation::List { inbox, standing, after, limit, now } => {
            let after = after.as_deref();
            read::list(tables, inbox, *standing, after, *limit, *now).map(Answer::List)
        }
        Operation::Show { inbox, id, now } => {
            read::show(tables, inbox, id, *now).map(|entry| Answer::Show(entry.map(Box::new)))
        }
    }
}
