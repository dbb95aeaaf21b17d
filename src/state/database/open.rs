//! Opening the database, and saying why that cannot be.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::Database;
use super::turns::{Turns, look_again};

/// Which database it is.
pub struct Format {
    /// What it is to operators.
    pub name: &'static str,
    /// Marks a file as one of this kind.
    pub application_id: i32,
    /// Of the tables.
    pub version: i32,
    /// The tables, in SQL.
    pub schema: &'static str,
    /// Largest file, in pages of 4 KiB.
    pub pages_max: i64,
}

/// Where the write-ahead log is cut off after a transaction that was larger.
const LOG_BYTES_KEPT: i64 = 16 * 1024 * 1024;
const PAGE_BYTES: u64 = 4096;
/// The latter is SQLite's own.
const LOG_PAGES_MIN: i64 = 16;
const LOG_PAGES_MAX: i64 = 1000;

/// Why a file cannot be such a database, with what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{path}` as the {name}: {why}")]
pub struct OpenError {
    path: PathBuf,
    name: &'static str,
    why: String,
}

impl OpenError {
    pub fn new(path: &Path, name: &'static str, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), name, why: why.into() }
    }
}

/// Who has the database open at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    None,
    /// The gateway that this one takes over from. What it works on stays as it is.
    Predecessor,
}

/// Opens the database, or makes a new one. Who does so holds the [`Guard`](super::Guard) of the state.
///
/// # Errors
/// The path cannot be used, or it is not a sound database of this kind.
pub fn open(path: &Path, format: &Format, others: Others) -> Result<Database, OpenError> {
    let refused = |why| OpenError::new(path, format.name, why);
    prepare(path, format.name)?;
    let turns = Turns::open(path).map_err(|error| refused(format!("the file beside it cannot be opened: {error}")))?;
    let opened = connect(path, format).and_then(|connection| {
        let mut database = Database { connection, turns };
        look(&mut database, format, others)?;
        Ok(database)
    });
    opened.map_err(|error| refused(explain(&error)))
}

/// Sees to it that the file is there and that nobody but its owner can read it.
///
/// # Errors
/// The path cannot be used.
pub fn prepare(path: &Path, name: &'static str) -> Result<(), OpenError> {
    private(path).map_err(|why| OpenError::new(path, name, why))
}

fn private(path: &Path) -> Result<(), String> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        // Only the last folder: a longer path that is not there is more likely a mistake, or a volume that is missing.
        let made = DirBuilder::new().mode(0o700).create(folder);
        made.map_err(|error| format!("the folder `{}` cannot be made: {error}", folder.display()))?;
    }
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = opened.map_err(|error| match fs::metadata(path) {
        Ok(found) if found.is_dir() => "it is a folder; name a file in it".to_owned(),
        _ => error.to_string(),
    })?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        let narrowed = file.set_permissions(Permissions::from_mode(0o600));
        narrowed
            .map_err(|error| format!("others can read it, and that cannot be changed: {error}; chmod it to 0600"))?;
    }
    Ok(())
}

fn connect(path: &Path, format: &Format) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(look_again))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "max_page_count", format.pages_max)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    connection.pragma_update(None, "wal_autocheckpoint", log_pages(path))?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Sees whether it is a sound database of this kind, and makes it one where it is new.
fn look(database: &mut Database, format: &Format, others: Others) -> rusqlite::Result<()> {
    let transaction = database.write()?;
    let application: i32 = transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, version, tables) {
        (0, 0, 0) => {
            transaction.execute_batch(format.schema)?;
            transaction.pragma_update(None, "application_id", format.application_id)?;
            transaction.pragma_update(None, "user_version", format.version)?;
        }
        (id, known, _) if (id, known) == (format.application_id, format.version) => {
            // It is checked once, not while another gateway waits to write: that one has checked it.
            let check = || transaction.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
            let sound: String = if others == Others::None { check()? } else { "ok".to_owned() };
            if sound != "ok" {
                return Err(refusal(format!("it is damaged ({sound}); put a backup in its place or remove it")));
            }
        }
        (id, ..) if id == format.application_id => {
            let message = format!("it has version {version} of the format, and this gateway knows {}", format.version);
            return Err(refusal(message));
        }
        _ => return Err(refusal("it is the database of another program".to_owned())),
    }
    transaction.commit()
}

/// A number that changes whenever another process has written, and not when this one has.
///
/// # Errors
/// The database cannot be read.
pub fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// How long the write-ahead log gets, in pages, before what is in it goes to its place: a 64th of a small disk. There the
/// usual length would be more than what is kept free for it.
fn log_pages(path: &Path) -> i64 {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(folder).map_or(u64::MAX, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
    i64::try_from(disk / 64 / PAGE_BYTES).unwrap_or(i64::MAX).clamp(LOG_PAGES_MIN, LOG_PAGES_MAX)
}

fn refusal(message: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR), Some(message))
}

fn explain(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds it; only a gateway may write to it".to_owned()
        }
        Some(ErrorCode::NotADatabase) => "it is not a database; name another file".to_owned(),
        Some(ErrorCode::DatabaseCorrupt) => {
            format!("it is damaged ({error}); put a backup in its place or remove it")
        }
        _ => error.to_string(),
    }
}
