//! Who may have the files of the state open: one gateway, and the one that it hands over to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::OpenError;

/// How long another process may take to let go: the one that this one takes over from.
const PATIENCE: Duration = Duration::from_secs(2);

/// A lock on a file beside the state file. It belongs to what is open, not to a process: a gateway hands it over by passing
/// the descriptor on, and it is free when the last of them is closed, by `kill -9` too.
pub struct Guard(File);

impl Guard {
    /// Waits for it, not for long.
    ///
    /// # Errors
    /// Another gateway has it, or the file beside `state` cannot be opened.
    pub fn take(state: &Path, name: &'static str) -> Result<Self, OpenError> {
        let refused = |why: String| OpenError::new(state, name, why);
        let path = beside(state);
        let file = open(&path).map_err(|error| refused(format!("`{}` cannot be opened: {error}", path.display())))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(Self(file));
        }
        let (locked, is_locked) = mpsc::channel();
        // Where this comes too late, nobody takes what it sends: the lock is let go of.
        let waits = thread::Builder::new().name("state lock".to_owned()).spawn(move || {
            let _ = locked.send(flock(&file, FlockOperation::LockExclusive).map(|()| file));
        });
        waits.map_err(|error| refused(format!("no thread can be started: {error}")))?;
        match is_locked.recv_timeout(PATIENCE) {
            Ok(Ok(file)) => Ok(Self(file)),
            Ok(Err(error)) => Err(refused(format!("`{}` cannot be locked: {error}", path.display()))),
            Err(_) => Err(refused("another process has it open; only one gateway can use a file at a time".to_owned())),
        }
    }

    /// The lock that another gateway has handed over, where it is the one of this state file.
    pub fn adopt(state: &Path, handed: OwnedFd) -> Option<Self> {
        let (handed, own) = (File::from(handed), beside(state).metadata().ok()?);
        let same = handed.metadata().is_ok_and(|handed| (handed.dev(), handed.ino()) == (own.dev(), own.ino()));
        same.then_some(Self(handed))
    }

    /// What to hand over.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }
}

/// `data/tollgate.db-lock` for `data/tollgate.db`. Not that file itself: SQLite loses its own locks when it is closed.
fn beside(state: &Path) -> PathBuf {
    let mut name = state.as_os_str().to_owned();
    name.push("-lock");
    name.into()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_held_as_long_as_one_of_them_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let first = Guard::take(&path, "state store").unwrap();
        let second = Guard::adopt(&path, first.share().unwrap()).unwrap();
        let refused = |path| Guard::take(path, "state store").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused(&path).contains("another process has it open"));
        drop(first);
        assert!(refused(&path).contains("another process has it open"), "it was handed over");
        drop(second);
        assert_eq!(refused(&path), "");
    }

    #[test]
    fn the_lock_of_another_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let guards = ["a.db", "b.db"].map(|name| Guard::take(&folder.path().join(name), "state store").unwrap());
        assert!(Guard::adopt(&folder.path().join("b.db"), guards[0].share().unwrap()).is_none());
        assert!(Guard::adopt(&folder.path().join("c.db"), guards[0].share().unwrap()).is_none());
    }
}
