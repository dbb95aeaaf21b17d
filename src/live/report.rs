//! What a reload has to tell: to `/status`, to the metrics and to the log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::{Cause, Effect, Last, Running};
use crate::clock;
use crate::gateway::Gateway;
use crate::observe::metrics::Metrics;
use crate::yaml::{self, Problem, Sources};

/// What runs, and what is wrong with what does not.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Hash of the configuration in use.
    pub hash: String,
    /// RFC 3339
    pub loaded_at: String,
    pub age_seconds: u64,
    /// Counts the snapshots, from 1 on.
    pub generation: u64,
    pub reloads_ok: u64,
    /// Refused reloads, and those of which a part was refused.
    pub reloads_failed: u64,
    pub last_reload: Option<LastReload>,
    /// When a reload failed last, RFC 3339.
    pub last_error_at: Option<String>,
    /// Whether the system tells of changes. If not, the files are looked at every second.
    pub watching: bool,
    /// Every file of the configuration, in use or on disk.
    pub files: Vec<FileStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastReload {
    /// RFC 3339
    pub at: String,
    pub cause: Cause,
    pub effect: Effect,
}

/// One file of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileStatus {
    /// Relative to the folder of the root file.
    pub file: String,
    /// Whether it is in use as it is on disk.
    pub ok: bool,
    pub runs: Runs,
    pub problems: Vec<ProblemStatus>,
}

/// Which content of a file is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Runs {
    /// The one on disk.
    Current,
    /// The last one that could be used.
    LastGood,
    /// None: it never could be used.
    LeftOut,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProblemStatus {
    #[serde(flatten)]
    pub report: yaml::Report,
    /// For people: several lines.
    pub text: String,
}

/// A problem, apart from the files it was found in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where it lies.
    place: PathBuf,
    /// The files that are not used because of it. None: nothing is used.
    pub blamed: BTreeSet<PathBuf>,
    report: yaml::Report,
    pub text: String,
}

impl Note {
    pub fn new(place: PathBuf, blamed: BTreeSet<PathBuf>, problem: &Problem, sources: &Sources) -> Self {
        Self { place, blamed, report: sources.report(problem), text: sources.render(problem) }
    }

    /// `file:line`
    pub fn at(&self) -> String {
        format!("{}:{}", self.report.file, self.report.line)
    }

    /// Whether it is shown with this file.
    fn belongs_to(&self, path: &Path) -> bool {
        if self.blamed.is_empty() || self.blamed.contains(&self.place) {
            return self.place == path;
        }
        self.blamed.contains(path)
    }
}

/// What there is to tell.
pub struct Report {
    files: Vec<FileStatus>,
    ok: u64,
    failed: u64,
    last: Option<Last>,
    last_error: Option<SystemTime>,
    watching: bool,
    base: PathBuf,
}

impl Report {
    pub fn started(gateway: &Gateway, running: &Running, root: &Path, metrics: &Metrics) -> Self {
        let mut report = Self {
            files: Vec::new(),
            ok: 0,
            failed: 0,
            last: None,
            last_error: None,
            watching: false,
            base: root.parent().map(Path::to_owned).unwrap_or_default(),
        };
        report.files = report.list(running, &BTreeSet::new(), &[]);
        metrics.config_loaded(&gateway.hash, gateway.loaded_at);
        report.tell(metrics);
        report
    }

    /// Takes in what became of a reload.
    pub fn reloaded(&mut self, running: &Running, held: &BTreeSet<PathBuf>, notes: &[Note], last: Last) {
        self.files = self.list(running, held, notes);
        match last.effect {
            Effect::Unchanged => {}
            Effect::Applied => self.ok = self.ok.saturating_add(1),
            Effect::Partly | Effect::Refused => {
                self.failed = self.failed.saturating_add(1);
                self.last_error = Some(last.at);
            }
        }
        self.last = Some(last);
    }

    /// Sets the metrics of the files.
    pub fn tell(&self, metrics: &Metrics) {
        let count = |file: &FileStatus| u64::try_from(file.problems.len()).unwrap_or(u64::MAX);
        metrics.config_file_errors(self.files.iter().map(|file| (file.file.as_str(), count(file))));
    }

    pub fn set_watching(&mut self, watching: bool) {
        self.watching = watching;
    }

    /// Whether everything on disk is in use.
    pub fn is_clean(&self) -> bool {
        self.files.iter().all(|file| file.ok)
    }

    /// The files whose content on disk is not in use.
    pub fn not_in_use(&self) -> Vec<FileStatus> {
        self.files.iter().filter(|file| !file.ok).cloned().collect()
    }

    pub fn status(&self, current: &Gateway, generation: u64) -> Status {
        let age = clock::wall().duration_since(current.loaded_at).unwrap_or_default();
        Status {
            hash: current.hash.clone(),
            loaded_at: clock::rfc3339(current.loaded_at),
            age_seconds: age.as_secs(),
            generation,
            reloads_ok: self.ok,
            reloads_failed: self.failed,
            last_reload: self.last.map(|last| LastReload {
                at: clock::rfc3339(last.at),
                cause: last.cause,
                effect: last.effect,
            }),
            last_error_at: self.last_error.map(clock::rfc3339),
            watching: self.watching,
            files: self.files.clone(),
        }
    }

    fn list(&self, running: &Running, held: &BTreeSet<PathBuf>, notes: &[Note]) -> Vec<FileStatus> {
        let places = notes.iter().map(|note| &note.place);
        let mut files: BTreeMap<&PathBuf, bool> = running.texts.keys().map(|path| (path, true)).collect();
        for path in held.iter().chain(places) {
            files.entry(path).or_insert(false);
        }
        let list = files.into_iter().map(|(path, runs)| {
            let of_file = notes.iter().filter(|note| note.belongs_to(path));
            let problems: Vec<_> =
                of_file.map(|note| ProblemStatus { report: note.report.clone(), text: note.text.clone() }).collect();
            let runs = match (held.contains(path), runs) {
                (false, _) => Runs::Current,
                (true, true) => Runs::LastGood,
                (true, false) => Runs::LeftOut,
            };
            let file = path.strip_prefix(&self.base).unwrap_or(path).display().to_string();
            FileStatus { file, ok: problems.is_empty() && runs == Runs::Current, runs, problems }
        });
        list.collect()
    }
}
