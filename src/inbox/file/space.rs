//! Space on the disk that is kept for what is stored already: a message cannot be delivered where nothing can be written.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tracing::{info, warn};

use crate::state::StoreError;
use crate::state::database::make_room;

/// What is kept free at least, in bytes; of a small disk, an eighth.
const KEPT_FREE_MAX: u64 = 32 * 1024 * 1024;
const PAGE_BYTES: u64 = 4096;

/// The disk of a file.
pub struct Space {
    folder: PathBuf,
    /// The write-ahead log, which is on it too.
    log: PathBuf,
    short: bool,
}

impl Space {
    pub fn of(path: &Path) -> Self {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Self { folder: folder.to_owned(), log: log.into(), short: false }
    }

    /// Whether so many bytes may be stored. Outside of a transaction.
    ///
    /// # Errors
    /// They would take what is kept free.
    pub fn check(&mut self, connection: &Connection, bytes: u64) -> Result<(), StoreError> {
        // Where that cannot be known, writing tells.
        let Some(mut left) = self.left() else { return Ok(()) };
        if !self.short && left.is_short(connection, bytes) {
            // What is in the log goes to its place now: later there may be none.
            make_room(connection);
            left = self.left().unwrap_or(left);
        }
        let short = left.is_short(connection, bytes);
        let (folder, Left { free, kept, .. }) = (self.folder.display(), left);
        match (self.short, short) {
            (false, true) => warn!(%folder, free, kept, "the disk is almost full: inboxes take nothing more"),
            (true, false) => info!(%folder, free, kept, "there is space on the disk again: inboxes take messages"),
            (false, false) | (true, true) => {}
        }
        self.short = short;
        if !short {
            return Ok(());
        }
        let free = free / 1024;
        Err(StoreError(format!("the disk of `{folder}` is almost full: {free} KiB are left; make space on it")))
    }

    fn left(&self) -> Option<Left> {
        let disk = rustix::fs::statvfs(&self.folder).ok()?;
        Some(Left {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            kept: (disk.f_blocks.saturating_mul(disk.f_frsize) / 8).min(KEPT_FREE_MAX),
            log: fs::metadata(&self.log).map_or(0, |log| log.len()),
        })
    }
}

/// What is left of a disk, in bytes.
#[derive(Clone, Copy)]
struct Left {
    free: u64,
    kept: u64,
    /// What the write-ahead log takes.
    log: u64,
}

impl Left {
    fn is_short(self, connection: &Connection, bytes: u64) -> bool {
        let Self { free, kept, log } = self;
        // Once in the log, once in its place; what is in the log now may still have to be brought to its place as well.
        let wanted = kept.saturating_add(log).saturating_add(bytes.saturating_mul(2));
        // What has gone leaves its space in the file; but the log needs some of the disk in any case.
        free < wanted && (free < kept / 2 || free.saturating_add(reusable(connection)) < wanted)
    }
}

/// Bytes of the file that hold nothing.
fn reusable(connection: &Connection) -> u64 {
    let pages: rusqlite::Result<i64> = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0));
    pages.map_or(0, |pages| pages.unsigned_abs().saturating_mul(PAGE_BYTES))
}
