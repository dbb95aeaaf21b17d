//! One try at making a snapshot: load, compile, check.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::contents::{Contents, Scope};
use super::{Check, Running};
use crate::clock;
use crate::config::load::{Config, Environment, Overrides, ReadFile, load};
use crate::gateway::{self, Gateway, Services};
use crate::yaml::{self, FileId, Kind, Node, Problem, Sources};

/// What a snapshot is made with.
pub struct Build {
    pub path: PathBuf,
    pub environment: Environment,
    pub services: Services,
    pub check: Check,
}

/// A snapshot, and the files it was made of.
pub struct Made {
    pub gateway: Gateway,
    pub files: Vec<ReadFile>,
    /// The folders of `include`.
    pub folders: BTreeSet<PathBuf>,
    /// Certificates and keys.
    pub attached: Vec<PathBuf>,
}

/// How far it came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Load,
    Compile,
    Check,
}

/// Why there is no snapshot.
pub struct Failed {
    pub stage: Stage,
    pub files: Vec<ReadFile>,
    pub attached: Vec<PathBuf>,
    pub sources: Arc<Sources>,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl Build {
    /// Makes a snapshot of the files as they are, or as `overrides` says.
    pub fn make(&self, overrides: &Overrides, previous: Option<&Gateway>) -> Result<Made, Failed> {
        let loaded = load(&self.path, &self.environment, overrides);
        let (files, attached) = (loaded.files, loaded.attached);
        let config = match loaded.config {
            Ok(config) => config,
            Err(problems) => {
                return Err(Failed {
                    stage: Stage::Load,
                    files,
                    attached,
                    sources: Arc::new(loaded.sources),
                    problems,
                });
            }
        };
        let folders = self.folders(&config);
        match gateway::compile(&config, loaded.sources, loaded.hash, previous, &self.services) {
            Err((sources, problems)) => {
                Err(Failed { stage: Stage::Compile, files, attached, sources: Arc::new(sources), problems })
            }
            Ok(gateway) => {
                let problems = (self.check)(&gateway);
                if problems.is_empty() {
                    // Not before: buckets that had to go for a candidate that is refused would not come back.
                    let buckets = &self.services.limits.local;
                    buckets.set_max(gateway.settings.limits.buckets_max, clock::now());
                    return Ok(Made { gateway, files, folders, attached });
                }
                let sources = Arc::clone(&gateway.sources);
                Err(Failed { stage: Stage::Check, files, attached, sources, problems })
            }
        }
    }

    /// The files and folders that a root file of this text asks for, however wrong the rest of it is. A pattern that
    /// holds a reference to the environment is passed over.
    pub fn wanted(&self, root: &str) -> Scope {
        let mut scope = Scope::default();
        let mut sources = Sources::new();
        let id = sources.add("", root);
        let Ok(node) = yaml::parse(&sources, id) else { return scope };
        let Kind::Map(entries) = &node.kind else { return scope };
        for entry in entries.iter().filter(|entry| &*entry.key.text == "include") {
            let Kind::Seq(patterns) = &entry.value.kind else { continue };
            for pattern in patterns.iter().filter_map(Node::as_str) {
                match self.folder(pattern) {
                    Some(folder) => scope.folders.insert(folder),
                    None => scope.files.insert(self.base().join(pattern)),
                };
            }
        }
        scope
    }

    fn folders(&self, config: &Config) -> BTreeSet<PathBuf> {
        config.root.include.iter().filter_map(|pattern| self.folder(&pattern.value)).collect()
    }

    /// The folder of a pattern. A file that is named as a whole is looked at itself.
    fn folder(&self, pattern: &str) -> Option<PathBuf> {
        let folder = || self.base().join(pattern).parent().map(Path::to_owned);
        pattern.contains(['*', '?']).then(folder).flatten()
    }

    fn base(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

impl Made {
    pub fn texts(&self) -> impl Iterator<Item = (&PathBuf, &str)> + Clone {
        self.files.iter().map(|file| (&file.path, file.text.as_str()))
    }

    /// Takes it apart: what serves requests, and what the next reload has to know.
    pub fn into_running(self, scope: Scope, contents: Contents) -> (Gateway, Running) {
        let texts: HashMap<_, _> = self.files.into_iter().map(|file| (file.path, file.text)).collect();
        (self.gateway, Running { texts, folders: self.folders, attached: self.attached, scope, contents })
    }
}

impl Failed {
    /// All problems, for people.
    pub fn rendered(&self) -> Vec<String> {
        self.problems.iter().map(|problem| self.sources.render(problem)).collect()
    }

    pub fn path(&self, id: FileId) -> Option<&PathBuf> {
        self.files.iter().find(|file| file.id == id).map(|file| &file.path)
    }

    /// The files that could not be read: their problem has no line.
    pub fn unreadable(&self) -> HashSet<FileId> {
        let whole = self.problems.iter().filter(|problem| self.stage == Stage::Load && problem.place.line == 0);
        whole.map(|problem| problem.place.file).collect()
    }
}
