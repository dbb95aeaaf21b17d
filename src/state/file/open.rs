//! Opening the database, and saying why that cannot be.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::statements::SCHEMA;

/// Marks a database as one of this gateway: `TOLL`.
const APPLICATION_ID: i32 = 0x544f_4c4c;
/// Version of the tables.
const VERSION: i32 = 1;
/// How long another process may take to let go of the file: the one that this one takes over from.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest file, in pages of 4 KiB: 1 GiB.
const PAGES_MAX: i64 = 262_144;

/// Why a file cannot be the state store, with what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{path}` as the state store: {why}")]
pub struct OpenError {
    path: PathBuf,
    why: String,
}

impl OpenError {
    pub(super) fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into() }
    }
}

pub fn open(path: &Path) -> Result<Connection, OpenError> {
    prepare(path).map_err(|why| OpenError::new(path, why))?;
    connect(path).map_err(|error| OpenError::new(path, explain(&error)))
}

/// Sees to it that the file is there and that nobody but its owner can read it.
fn prepare(path: &Path) -> Result<(), String> {
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

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Before WAL: then the file is locked for as long as it is open, and no other gateway can take it.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "max_page_count", PAGES_MAX)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
    let application: i32 = transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, version, tables) {
        (0, 0, 0) => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        (APPLICATION_ID, VERSION, _) => {
            let sound: String = transaction.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if sound != "ok" {
                return Err(refusal(format!("it is damaged ({sound}); put a backup in its place or remove it")));
            }
        }
        (APPLICATION_ID, ..) => {
            let message = format!("it has version {version} of the format, and this gateway knows {VERSION}");
            return Err(refusal(message));
        }
        _ => return Err(refusal("it is the database of another program".to_owned())),
    }
    transaction.commit()?;
    Ok(connection)
}

fn refusal(message: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR), Some(message))
}

fn explain(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process has it open; only one gateway can use a file at a time".to_owned()
        }
        Some(ErrorCode::NotADatabase) => "it is not a database; name another file".to_owned(),
        Some(ErrorCode::DatabaseCorrupt) => {
            format!("it is damaged ({error}); put a backup in its place or remove it")
        }
        _ => error.to_string(),
    }
}
