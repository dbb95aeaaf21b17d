//! The access log: one line for each request, written beside the request path by [`Lines`].

mod line;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use self::line::redact::{Hidden, REDACTED, redact_query};
pub use self::line::{AccessFormat, Entry};

use crate::lines::{Lines, Opening, Target};

/// Where lines go, and how they look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessSettings {
    pub format: AccessFormat,
    pub target: Target,
    /// Size in bytes at which a file is rotated; 0: never.
    pub rotate_bytes: u64,
    /// How many rotated files are kept as `file.1`, `file.2`, …; 0: a full file is deleted.
    pub keep: usize,
}

/// A log that is open. Dropping it writes what is held back.
pub struct AccessLog {
    lines: Lines,
    format: AccessFormat,
}

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// See [`Lines::open`].
    pub fn open(settings: &AccessSettings, home: Option<&Path>) -> io::Result<Arc<Self>> {
        let AccessSettings { format, target, rotate_bytes, keep } = settings;
        let opening = Opening { name: "access log", target, rotate_bytes: *rotate_bytes, keep: *keep, home };
        Ok(Arc::new(Self { lines: Lines::open(opening)?, format: *format }))
    }

    /// Appends one line to the buffer of this thread.
    pub fn record(&self, entry: &Entry<'_>) {
        self.lines.append(|out, stamp| line::write(self.format, out, stamp, entry));
    }

    /// Opens the file anew, soon: for a SIGUSR1. A file that was renamed away is noticed without it.
    pub fn reopen(&self) {
        self.lines.reopen();
    }

    /// See [`Lines::flush`].
    pub fn flush(&self, bound: Duration) -> bool {
        self.lines.flush(bound)
    }

    /// How many lines were lost since the start: to full buffers, or to a target that could not be written.
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }
}

#[cfg(test)]
mod tests;
