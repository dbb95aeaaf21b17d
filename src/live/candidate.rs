//! Which of the changed files can be used.
//!
//! First all files are taken as they are on disk. While that fails, the changed files that the problems lie in fall back to
//! the text they last ran with, or are left out when they never ran. When the problems lie only in files that did not change
//! (one removed what another needs), all changed files fall back. At last, files that were perhaps blamed for the mistake of
//! another are tried again one by one. A test that fails refuses everything: which file is to blame nobody can tell.
//!
//! Every text is read once: all tries see the same files, however these change meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Running;
use super::build::{Build, Failed, Made, Stage};
use super::contents::{Contents, Scope};
use super::report::Note;
use crate::config::load::{Overrides, ReadFile};
use crate::gateway::Gateway;
use crate::yaml::{FileId, Problem};

/// Tries until all changed files fall back.
const ROUNDS_MAX: u32 = 8;
/// Files that are tried again one by one.
const RETRIED_MAX: usize = 8;

/// What the search came to.
pub struct Found {
    /// `None`: nothing on disk can be used.
    pub made: Option<Made>,
    pub scope: Scope,
    pub contents: Contents,
    /// Files whose content on disk is not used.
    pub held: BTreeSet<PathBuf>,
    pub notes: Vec<Note>,
}

/// Finds the best snapshot that the files allow. `before` is what they held before they are read here.
pub fn search(build: &Build, current: &Gateway, running: &Running, before: &Contents) -> Found {
    let search = Search {
        build,
        current,
        running,
        disk: BTreeMap::new(),
        attached: BTreeSet::new(),
        held: BTreeSet::new(),
        hopeless: BTreeSet::new(),
        notes: Vec::new(),
    };
    search.run(before)
}

/// What a file holds.
enum Disk {
    Text(String),
    Unreadable,
}

struct Search<'a> {
    build: &'a Build,
    current: &'a Gateway,
    running: &'a Running,
    disk: BTreeMap<PathBuf, Disk>,
    /// Certificates and keys that some try has asked for.
    attached: BTreeSet<PathBuf>,
    held: BTreeSet<PathBuf>,
    /// Held files that are wrong in themselves, whatever the others hold.
    hopeless: BTreeSet<PathBuf>,
    notes: Vec<Note>,
}

impl Search<'_> {
    fn run(mut self, before: &Contents) -> Found {
        let mut made = self.settle();
        if let Some(first) = made.take() {
            made = Some(self.release(first));
        }
        let (scope, contents) = self.seen(made.as_ref(), before);
        if made.is_none() {
            let removed = self.running.texts.keys().filter(|path| !self.vanished() && !self.disk.contains_key(*path));
            let changed = self.disk.keys().filter(|path| self.changed(path));
            self.held = changed.chain(removed).cloned().collect();
        } else {
            for note in &mut self.notes {
                note.blamed.retain(|path| self.held.contains(path));
            }
            self.notes.retain(|note| !note.blamed.is_empty());
        }
        Found { made, scope, contents, held: self.held, notes: self.notes }
    }

    /// Lets files fall back until the rest can be used.
    fn settle(&mut self) -> Option<Made> {
        for round in 0..=ROUNDS_MAX {
            match self.attempt() {
                Ok(made) => return Some(made),
                Err(failed) => {
                    let blamed = self.blame(&failed, round == ROUNDS_MAX);
                    if blamed.is_empty() {
                        return None;
                    }
                    if failed.stage == Stage::Load {
                        self.hopeless.extend(blamed.iter().cloned());
                    }
                    self.held.extend(blamed);
                }
            }
        }
        self.attempt().ok()
    }

    /// Tries files again that may have been blamed for another's mistake.
    fn release(&mut self, mut made: Made) -> Made {
        let suspects: Vec<PathBuf> = self.held.difference(&self.hopeless).cloned().collect();
        // A single one has had its try with just the others held.
        if !(2..=RETRIED_MAX).contains(&suspects.len()) {
            return made;
        }
        for path in suspects {
            self.held.remove(&path);
            match self.attempt() {
                Ok(better) => made = better,
                Err(_) => {
                    self.held.insert(path);
                }
            }
        }
        made
    }

    fn attempt(&mut self) -> Result<Made, Failed> {
        let mut overrides = Overrides::with_capacity(self.disk.len());
        for (path, disk) in &self.disk {
            match disk {
                _ if self.held.contains(path) => {
                    overrides.insert(path.clone(), self.running.texts.get(path).cloned());
                }
                Disk::Text(text) => {
                    overrides.insert(path.clone(), Some(text.clone()));
                }
                Disk::Unreadable => {}
            }
        }
        let result = self.build.make(&overrides, Some(self.current));
        match &result {
            Ok(made) => {
                self.attached.extend(made.attached.iter().cloned());
                self.learn(&made.files, |_| false);
            }
            Err(failed) => {
                self.attached.extend(failed.attached.iter().cloned());
                let unreadable = failed.unreadable();
                self.learn(&failed.files, |file| unreadable.contains(&file));
            }
        }
        result
    }

    /// Keeps what was read for the next try.
    fn learn(&mut self, files: &[ReadFile], unreadable: impl Fn(FileId) -> bool) {
        for file in files.iter().filter(|file| !self.held.contains(&file.path)) {
            self.disk
                .entry(file.path.clone())
                .or_insert_with(|| if unreadable(file.id) { Disk::Unreadable } else { Disk::Text(file.text.clone()) });
        }
    }

    /// Notes the problems, and names the files that shall fall back because of them. None: everything is refused.
    fn blame(&mut self, failed: &Failed, all: bool) -> BTreeSet<PathBuf> {
        if failed.stage == Stage::Check || self.vanished() {
            self.note(failed, &failed.problems.iter().collect::<Vec<_>>(), None);
            return BTreeSet::new();
        }
        let (own, orphans): (Vec<_>, Vec<_>) =
            failed.problems.iter().partition(|problem| self.culprit(failed, problem).is_some());
        let mut blamed: BTreeSet<PathBuf> = own.iter().filter_map(|problem| self.culprit(failed, problem)).collect();
        if blamed.is_empty() || all {
            blamed = self.disk.keys().filter(|path| self.open(path)).cloned().collect();
            self.note(failed, &orphans, Some(&blamed));
        }
        self.note(failed, &own, None);
        blamed
    }

    fn note(&mut self, failed: &Failed, problems: &[&Problem], blamed: Option<&BTreeSet<PathBuf>>) {
        for problem in problems {
            let place = failed.path(problem.place.file).unwrap_or(&self.build.path).clone();
            let blamed = match blamed {
                Some(blamed) => blamed.clone(),
                None => self.culprit(failed, problem).into_iter().collect(),
            };
            let note = Note::new(place, blamed, problem, &failed.sources);
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    /// The changed file that a problem lies in, or the changed file that its second place lies in.
    fn culprit(&self, failed: &Failed, problem: &Problem) -> Option<PathBuf> {
        let related = problem.related.as_ref().map(|related| related.place);
        let places = std::iter::once(problem.place).chain(related);
        places.filter_map(|place| failed.path(place.file)).find(|path| self.open(path)).cloned()
    }

    /// Whether a file may still fall back.
    fn open(&self, path: &Path) -> bool {
        self.changed(path) && !self.held.contains(path)
    }

    fn changed(&self, path: &Path) -> bool {
        match self.disk.get(path) {
            Some(Disk::Text(text)) => self.running.texts.get(path) != Some(text),
            Some(Disk::Unreadable) => true,
            None => false,
        }
    }

    /// Without its root file nothing says what belongs to the configuration.
    fn vanished(&self) -> bool {
        let path = &self.build.path;
        matches!(self.disk.get(path), Some(Disk::Unreadable)) && std::fs::metadata(path).is_err()
    }

    /// Where changes can come from now, and what is there.
    fn seen(&self, made: Option<&Made>, before: &Contents) -> (Scope, Contents) {
        let texts = self.disk.iter().filter_map(|(path, disk)| match disk {
            Disk::Text(text) => Some((path, text.as_str())),
            Disk::Unreadable => None,
        });
        let root = &self.build.path;
        let folders = made.map(|made| made.folders.clone()).unwrap_or_default();
        let mut scope = Scope::of(root, texts.clone(), folders);
        scope.files.extend(self.disk.keys().cloned());
        scope.values.extend(self.attached.iter().cloned());
        if made.is_none() || !self.held.is_empty() {
            // What runs is what a file falls back to: it may come back.
            let running = self.running.texts.iter().map(|(path, text)| (path, text.as_str()));
            scope.extend(Scope::of(root, running, self.running.folders.clone()));
            scope.values.extend(self.running.attached.iter().cloned());
            // What the root file on disk wants may be missing still.
            if let Some(Disk::Text(text)) = self.disk.get(root) {
                scope.extend(self.build.wanted(text));
            }
        }
        let mut contents = before.clone();
        contents.add(&scope);
        contents.retain(&scope);
        (scope, contents.with_texts(texts))
    }
}
