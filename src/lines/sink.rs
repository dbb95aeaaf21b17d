//! Where lines end up: standard output, or a file that is rotated by size and reopened when it was moved away.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Log lines hold addresses of people: not for everybody on the machine.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

pub(super) struct Sink {
    /// What the log is called.
    name: &'static str,
    target: Target,
    /// The first error of an episode was told; cleared by the next success.
    failing: bool,
    rotation_failing: bool,
    lost_in_episode: u64,
    /// The last write stopped inside a line: the next one starts on a new line.
    torn: bool,
}

enum Target {
    /// Never rotated nor reopened.
    Stream(File),
    File(RotatedFile),
}

struct RotatedFile {
    path: PathBuf,
    rotate_bytes: u64,
    keep: usize,
    open: Option<OpenFile>,
}

struct OpenFile {
    file: File,
    size: u64,
    /// Device and inode: tells whether the path still leads here.
    identity: (u64, u64),
    /// A device or a pipe is never rotated.
    regular: bool,
}

impl Sink {
    /// Writes to a descriptor of its own: the buffer of [`io::stdout`] would hide how much of a line got out.
    pub(super) fn stdout(name: &'static str) -> io::Result<Self> {
        let own = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::new(name, Target::Stream(File::from(own))))
    }

    /// Opens the file for appending, its folder made if need be.
    pub(super) fn file(name: &'static str, path: PathBuf, rotate_bytes: u64, keep: usize) -> io::Result<Self> {
        let open = Some(OpenFile::open(&path)?);
        Ok(Self::new(name, Target::File(RotatedFile { path, rotate_bytes, keep, open })))
    }

    fn new(name: &'static str, target: Target) -> Self {
        Self { name, target, failing: false, rotation_failing: false, lost_in_episode: 0, torn: false }
    }

    /// Opens the path anew. When that fails the file that is open stays in use, so no line is lost.
    pub(super) fn reopen(&mut self) {
        let Target::File(file) = &mut self.target else { return };
        match OpenFile::open(&file.path) {
            Ok(open) => {
                file.open = Some(open);
                self.torn = false;
            }
            Err(error) => tracing::warn!("{} {}: cannot reopen: {error}", self.name, file.path.display()),
        }
    }

    /// Writes whole lines; gives back how many of them were lost.
    pub(super) fn write(&mut self, mut lines: &[u8]) -> u64 {
        if lines.is_empty() {
            return 0;
        }
        if let Target::File(file) = &self.target
            && file.moved_away()
        {
            self.reopen();
        }
        while !lines.is_empty() {
            let room = self.room(lines);
            let (now, later) = lines.split_at_checked(room).unwrap_or((lines, b""));
            if let Err((written, error)) = self.put(now) {
                let unwritten = lines.get(written..).unwrap_or_default();
                let lost = unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.failed(&error, lost);
                return lost;
            }
            lines = later;
        }
        if self.failing {
            self.failing = false;
            tracing::info!("{} is written again, {} lines were lost", self.name, self.lost_in_episode);
            self.lost_in_episode = 0;
        }
        0
    }

    fn failed(&mut self, error: &io::Error, lost: u64) {
        self.lost_in_episode = self.lost_in_episode.saturating_add(lost);
        if !self.failing {
            self.failing = true;
            tracing::warn!("{} cannot be written, lines are dropped until it can: {error}", self.name);
        }
    }

    /// How many bytes, whole lines, go to the file that is open; rotates first when none would fit.
    fn room(&mut self, lines: &[u8]) -> usize {
        let Target::File(file) = &mut self.target else { return lines.len() };
        if let Some(room) = file.whole_lines(lines) {
            return room;
        }
        match file.rotate() {
            Ok(()) => {
                self.rotation_failing = false;
                self.torn = false;
                file.whole_lines(lines).unwrap_or(lines.len())
            }
            Err(error) => {
                if !self.rotation_failing {
                    self.rotation_failing = true;
                    tracing::warn!("{} {}: cannot rotate: {error}", self.name, file.path.display());
                }
                lines.len()
            }
        }
    }

    /// Writes all of it, or tells how many bytes of it were written.
    fn put(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.torn {
            self.put_once(b"\n").map_err(|error| (0, error))?;
            self.torn = false;
        }
        let mut written = 0_usize;
        while let Some(rest) = bytes.get(written..)
            && !rest.is_empty()
        {
            match self.put_once(rest) {
                Ok(count) => written = written.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let last = written.checked_sub(1).and_then(|at| bytes.get(at));
                    self.torn = last.is_some_and(|byte| *byte != b'\n');
                    return Err((written, error));
                }
            }
        }
        Ok(())
    }

    fn put_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match &mut self.target {
            Target::Stream(stream) => stream.write(bytes)?,
            Target::File(file) => {
                let open = match &mut file.open {
                    Some(open) => open,
                    none => none.insert(OpenFile::open(&file.path)?),
                };
                let count = open.file.write(bytes)?;
                open.size = open.size.saturating_add(count as u64);
                count
            }
        };
        if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) }
    }
}

impl RotatedFile {
    /// Whether the path leads to another file than the one that is open, or to none.
    fn moved_away(&self) -> bool {
        self.open.as_ref().is_none_or(|open| {
            fs::metadata(&self.path).map_or(true, |found| (found.dev(), found.ino()) != open.identity)
        })
    }

    /// The length of the lines that still fit; `None` when the file must be rotated first.
    fn whole_lines(&self, lines: &[u8]) -> Option<usize> {
        let Some(open) = self.open.as_ref().filter(|open| open.regular && self.rotate_bytes > 0) else {
            return Some(lines.len());
        };
        let room = usize::try_from(self.rotate_bytes.saturating_sub(open.size)).unwrap_or(usize::MAX);
        let Some(fitting) = lines.get(..room) else { return Some(lines.len()) };
        let end = match fitting.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => Some(end),
            // A line longer than a whole file gets one to itself.
            None if open.size == 0 => lines.iter().position(|byte| *byte == b'\n'),
            None => None,
        };
        end.map(|end| end.saturating_add(1))
    }

    /// `file` becomes `file.1`, that `file.2`, and so on; the last one goes. Renames only: nothing is copied.
    fn rotate(&mut self) -> io::Result<()> {
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        } else {
            for number in (1..self.keep).rev() {
                match fs::rename(self.numbered(number), self.numbered(number.saturating_add(1))) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::rename(&self.path, self.numbered(1))?;
        }
        self.open = None;
        self.open = Some(OpenFile::open(&self.path)?);
        Ok(())
    }

    fn numbered(&self, number: usize) -> PathBuf {
        let mut name = OsString::from(self.path.as_os_str());
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

impl OpenFile {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)?;
        let found = file.metadata()?;
        Ok(Self { size: found.len(), identity: (found.dev(), found.ino()), regular: found.is_file(), file })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A reader that is full for a while: it takes a part of a line and refuses the rest.
    #[test]
    fn a_torn_line_does_not_spoil_the_next() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut sink = Sink::new("access log", Target::Stream(File::from(OwnedFd::from(ours))));
        let line = format!("{}\n", "x".repeat(999));
        let lines = line.repeat(10_000);
        let lost = sink.write(lines.as_bytes());
        assert!(lost > 0);
        let mut text = Vec::new();
        theirs.read_to_end(&mut text).unwrap_err();
        let torn = text.len() % line.len() != 0;
        assert_eq!(text.len() / line.len() + lost as usize, 10_000, "every line arrived whole or is counted");
        assert_eq!(sink.write(b"next\n"), 0);
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).unwrap_err();
        assert_eq!(rest, if torn { b"\nnext\n".as_slice() } else { b"next\n" });
    }
}
