//! Space on the disk that is kept for what is stored already: a message cannot be delivered where nothing can be written.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tracing::{info, warn};

use crate::state::StoreError;

/// What is kept free at least, in bytes; of a small disk, an eighth.
const KEPT_FREE_MAX: u64 = 32 * 1024 * 1024;
const PAGE_BYTES: u64 = 4096;

/// The disk of a file.
pub struct Space {
    folder: PathBuf,
    short: bool,
}

impl Space {
    pub fn of(path: &Path) -> Self {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self { folder: folder.to_owned(), short: false }
    }

    /// Whether so many bytes may be stored.
    ///
    /// # Errors
    /// They would take what is kept free.
    pub fn check(&mut self, connection: &Connection, bytes: u64) -> Result<(), StoreError> {
        // Where that cannot be known, writing tells.
        let Ok(disk) = rustix::fs::statvfs(&self.folder) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let kept = (disk.f_blocks.saturating_mul(disk.f_frsize) / 8).min(KEPT_FREE_MAX);
        // Once in the write-ahead log, once in its place.
        let wanted = kept.saturating_add(bytes.saturating_mul(2));
        // What has gone leaves its space in the file; but the log needs some of the disk in any case.
        let short = free < wanted && (free < kept / 2 || free.saturating_add(reusable(connection)) < wanted);
        let folder = self.folder.display();
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
}

/// Bytes of the file that hold nothing.
fn reusable(connection: &Connection) -> u64 {
    let pages: rusqlite::Result<i64> = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0));
    pages.map_or(0, |pages| pages.unsigned_abs().saturating_mul(PAGE_BYTES))
}
