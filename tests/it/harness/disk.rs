//! A disk that is small.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A file system of its own in memory, unmounted when dropped.
pub struct Disk {
    /// Where it is mounted.
    folder: TempDir,
}

impl Disk {
    /// `None`, and a note, where this process may not mount one.
    pub fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        super::left_out("this process cannot mount a small disk; root can, or `unshare -mr cargo test`");
        None
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let full = std::fs::write(self.ballast(), vec![1; 64 * 1024 * 1024]);
        assert!(full.is_err(), "the disk is larger than that");
    }

    /// Takes away what filled it.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a gateway that is being killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
