//! Files that a gateway reads and writes.

use std::path::PathBuf;

use tempfile::TempDir;

/// A folder that is gone with its gateway.
pub struct Folder(TempDir);

impl Folder {
    /// With these files, and a folder `routes.d`.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.path("routes.d")).unwrap();
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Renamed into place: nobody ever sees a half of it.
    pub fn write(&self, name: &str, text: &str) {
        let (path, draft) = (self.path(name), self.path(".draft"));
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, path).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    /// What a file holds; nothing while it is not there.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}
