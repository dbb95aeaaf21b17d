//! What the files hold, as digests: tells cheaply whether there is anything to do.
//!
//! Contents are compared, not times and sizes: a file system may be too coarse for the first and two edits alike in the
//! second. Reading a thousand files takes a few milliseconds every few seconds, beside the request path.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config::load::FILE_BYTES_MAX;

/// Where changes can come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Files of the configuration.
    pub files: BTreeSet<PathBuf>,
    /// Files whose content stands in a value, as in `${file:/run/secrets/x}`, or belongs to one, as a certificate or a key set
    /// (`jwks_file`) does.
    pub values: BTreeSet<PathBuf>,
    /// Folders in which a new file may belong to the configuration.
    pub folders: BTreeSet<PathBuf>,
}

impl Scope {
    /// The scope of files with these texts. `root` belongs to it in any case.
    pub fn of<'a>(
        root: &Path,
        texts: impl Iterator<Item = (&'a PathBuf, &'a str)>,
        folders: BTreeSet<PathBuf>,
    ) -> Self {
        let mut scope = Self { files: BTreeSet::from([root.to_owned()]), values: BTreeSet::new(), folders };
        for (path, text) in texts {
            let base = path.parent().unwrap_or(Path::new(""));
            scope.files.insert(path.clone());
            scope.values.extend(values(text).map(|value| base.join(value)));
        }
        scope
    }

    pub fn extend(&mut self, other: Self) {
        self.files.extend(other.files);
        self.values.extend(other.values);
        self.folders.extend(other.folders);
    }
}

/// The paths in `${file:path}` and behind `jwks_file:`. One too many, in a comment or after `$$`, costs a digest and no more;
/// a `jwks_file` that holds a reference to the environment is passed over.
fn values(text: &str) -> impl Iterator<Item = &str> {
    let named = text.split("${file:").skip(1).filter_map(|rest| rest.split_once('}')).map(|(path, _)| path);
    let key_sets = text.split("jwks_file:").skip(1).filter_map(|rest| {
        let line = rest.lines().next()?.trim_start();
        match line.chars().next()? {
            quote @ ('"' | '\'') => line.split(quote).nth(1),
            _ => line.split([',', '}', '#']).next().map(str::trim_end),
        }
    });
    named.chain(key_sets.filter(|path| !path.is_empty()))
}

type Sum = [u8; 32];

/// Digests of everything in a [`Scope`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents(BTreeMap<PathBuf, Sum>);

impl Contents {
    pub fn read(scope: &Scope) -> Self {
        let mut contents = Self::default();
        contents.add(scope);
        contents
    }

    /// Reads what is in `scope` and not here yet.
    pub fn add(&mut self, scope: &Scope) {
        for path in scope.files.iter().chain(&scope.values) {
            self.0.entry(path.clone()).or_insert_with(|| file(path));
        }
        for path in &scope.folders {
            self.0.entry(path.clone()).or_insert_with(|| folder(path));
        }
    }

    /// Takes the texts that were loaded for the contents of their files: a change made since then is still to be seen.
    #[must_use]
    pub fn with_texts<'a>(mut self, texts: impl Iterator<Item = (&'a PathBuf, &'a str)>) -> Self {
        for (path, text) in texts {
            self.0.insert(path.clone(), sum(|hasher| hasher.update(text.as_bytes())));
        }
        self
    }

    /// Forgets what is not in `scope`.
    pub fn retain(&mut self, scope: &Scope) {
        self.0.retain(|path, _| {
            scope.files.contains(path) || scope.values.contains(path) || scope.folders.contains(path)
        });
    }

    /// Whether a file that a value names holds something else than in `before`.
    pub fn differ_in_values(&self, before: &Self, scope: &Scope) -> bool {
        scope.values.iter().any(|path| self.0.get(path) != before.0.get(path))
    }
}

fn file(path: &Path) -> Sum {
    sum(|hasher| {
        if let Err(error) = feed(path, hasher) {
            failed(&error, hasher);
        }
    })
}

fn feed(path: &Path, hasher: &mut Sha256) -> io::Result<()> {
    // A named pipe would keep us waiting.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // As far as the loader reads: what is larger is an error there, whatever it holds.
    let mut file = File::open(path)?.take(FILE_BYTES_MAX.saturating_add(1));
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => hasher.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn folder(path: &Path) -> Sum {
    let shown = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    sum(|hasher| match std::fs::read_dir(shown) {
        Ok(entries) => {
            let mut names: Vec<OsString> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
            names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
            names.sort();
            for name in names {
                hasher.update(name.as_encoded_bytes());
                hasher.update([0]);
            }
        }
        Err(error) => failed(&error, hasher),
    })
}

/// An error is a content too, and no file holds it.
fn failed(error: &io::Error, hasher: &mut Sha256) {
    hasher.update(b"\xff\xfe error \0");
    hasher.update(error.kind().to_string().as_bytes());
}

fn sum(feed: impl FnOnce(&mut Sha256)) -> Sum {
    let mut hasher = Sha256::new();
    feed(&mut hasher);
    hasher.finalize().into()
}
