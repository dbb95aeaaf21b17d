//! Targets from a file that is watched.
//!
//! Its folder is watched, so that a file which is replaced by renaming is seen at once, and the file is looked at every second
//! whatever the system tells. What is wrong changes nothing.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::Endpoint;
use super::endpoint::settled;
use super::follow::Looked;
use crate::config::{Target, TargetsFile};
use crate::upstream::Address;
use crate::upstream::spec::{TARGETS_MAX, WEIGHT_MAX};
use crate::yaml::{Located, Place, Problem, Sources, decode, parse};

/// Largest file, in bytes.
const BYTES_MAX: u64 = 1024 * 1024;
/// How often it is looked at, whatever the system tells.
const EVERY: Duration = Duration::from_secs(1);
/// So long it must not change before it is taken for finished.
const QUIET: Duration = Duration::from_millis(50);
/// How often that is waited for.
const QUIET_TRIES: u32 = 10;

/// Which file.
#[derive(Clone, Debug)]
pub struct Settings {
    path: PathBuf,
    /// As it is written.
    name: Located<String>,
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for Settings {}

impl std::hash::Hash for Settings {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.path.hash(state);
    }
}

impl Settings {
    pub fn check(name: &Located<String>, base: &Path, problems: &mut Vec<Problem>) -> Self {
        if name.value.is_empty() {
            problems.push(Problem::new(name.place, "the name of the file is empty"));
        }
        Self { path: base.join(&name.value), name: name.clone() }
    }

    pub fn name(&self) -> &str {
        &self.name.value
    }

    /// What the file holds when it is first heard of. One that is not there yet may come.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn first(&self) -> Result<Option<Vec<Endpoint>>, Problem> {
        let unusable = |why: String| Problem::new(self.name.place, why);
        match read(&self.path) {
            Ok(text) => targets(&self.name.value, &text).map(Some).map_err(unusable),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(format!("cannot read `{}`: {error}", self.name.value))),
        }
    }
}

/// The file, looked at again and again.
pub struct File {
    settings: Settings,
    changed: Arc<Notify>,
    /// Kept for what it tells.
    _watcher: Option<RecommendedWatcher>,
    /// What it held last, and what that came to: the same again is not read again.
    seen: Option<(String, Result<Vec<Endpoint>, String>)>,
}

impl File {
    pub fn new(settings: &Settings) -> Self {
        let changed: Arc<Notify> = Arc::default();
        let watcher = watch(&settings.path, &changed).ok();
        Self { settings: settings.clone(), changed, _watcher: watcher, seen: None }
    }

    pub async fn look(&mut self) -> Result<Looked, String> {
        let text = self.at_rest().await.map_err(|error| format!("cannot read `{}`: {error}", self.settings.name()))?;
        let known = self.seen.take().filter(|(seen, _)| *seen == text);
        let (text, found) = known.unwrap_or_else(|| {
            let found = targets(self.settings.name(), &text);
            (text, found)
        });
        self.seen = Some((text, found.clone()));
        found.map(|endpoints| Looked { endpoints, lacking: None, pause: EVERY })
    }

    /// Waits until the system tells of something in the folder.
    pub async fn woken(&self) {
        self.changed.notified().await;
    }

    /// What it holds, once that does not change any more: half a list may be a right one.
    async fn at_rest(&self) -> std::io::Result<String> {
        let look = || {
            let path = self.settings.path.clone();
            async move { tokio::task::spawn_blocking(move || read(&path)).await.unwrap_or_else(|error| Err(error.into())) }
        };
        let mut text = look().await?;
        if self.seen.as_ref().is_some_and(|(seen, _)| *seen == text) {
            return Ok(text);
        }
        for _ in 0..QUIET_TRIES {
            sleep(QUIET).await;
            let again = look().await?;
            if again == text {
                break;
            }
            text = again;
        }
        Ok(text)
    }
}

/// Tells of everything that happens in the folder of a file, but of being read.
fn watch(path: &Path, changed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let tell = Arc::clone(changed);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let read =
            |kind: &EventKind| matches!(kind, EventKind::Access(kind) if *kind != AccessKind::Close(AccessMode::Write));
        if event.map_or(true, |event| !read(&event.kind)) {
            tell.notify_one();
        }
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn read(path: &Path) -> std::io::Result<String> {
    // A named pipe would keep us waiting.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut text = String::new();
    let size = std::fs::File::open(path)?.take(BYTES_MAX.saturating_add(1)).read_to_string(&mut text)?;
    if size as u64 > BYTES_MAX {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// The targets that a file holds.
///
/// # Errors
/// What is wrong with it first, with its place, and how much more is.
fn targets(name: &str, text: &str) -> Result<Vec<Endpoint>, String> {
    let mut sources = Sources::new();
    let file = sources.add(name, text);
    let decoded = parse(&sources, file).and_then(|node| decode::<TargetsFile>(&node));
    let found = decoded.and_then(|written| {
        let mut problems = Vec::new();
        let endpoints = check(&written.targets, &mut problems);
        if problems.is_empty() { Ok(endpoints) } else { Err(problems) }
    });
    found.map(settled).map_err(|problems| match problems.as_slice() {
        [] => format!("{name} cannot be used"),
        [first, rest @ ..] => {
            let hint = first.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            format!("{}: {}{hint}{more}", sources.locate(first.place), first.message)
        }
    })
}

fn check(written: &Located<Vec<Target>>, problems: &mut Vec<Problem>) -> Vec<Endpoint> {
    if written.len() > TARGETS_MAX {
        let message = format!("an upstream has at most {TARGETS_MAX} targets, not {}", written.len());
        problems.push(Problem::new(written.place, message));
        return Vec::new();
    }
    let mut known = HashSet::new();
    let mut endpoint = |target: &Target| {
        let Target { address, weight, backup, in_flight_max } = target;
        let mut wrong = |place: Place, message: String| problems.push(Problem::new(place, message));
        if let Err(message) = Address::parse(&address.value) {
            wrong(address.place, format!("{message}; write host:port, such as 127.0.0.1:9101"));
        }
        if !known.insert(address.value.clone()) {
            wrong(address.place, format!("target `{}` stands here twice", address.value));
        }
        if let Some(max) = in_flight_max.filter(|max| max.value == 0) {
            wrong(max.place, "a target must be allowed at least 1 in flight".to_owned());
        }
        Endpoint {
            backup: *backup,
            address: address.value.as_str().into(),
            weight: weight.map_or(1, |weight| weight.within("weight", 1..=WEIGHT_MAX, problems)),
            in_flight_max: in_flight_max.map(|max| max.value),
        }
    };
    written.value.iter().map(&mut endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_yaml_hold_the_same() {
        let json = r#"{ "targets": [{ "address": "10.0.0.2:80", "weight": 3 }, { "address": "10.0.0.1:80", "backup": true }] }"#;
        let yaml = "targets:\n  - { address: 10.0.0.1:80, backup: true }\n  - address: 10.0.0.2:80\n    weight: 3\n";
        let found = targets("t.json", json).unwrap();
        assert_eq!(found, targets("t.yaml", yaml).unwrap());
        assert_eq!(
            found.iter().map(|it| (&*it.address, it.weight)).collect::<Vec<_>>(),
            [("10.0.0.2:80", 3), ("10.0.0.1:80", 1)]
        );
        assert_eq!(targets("t.json", r#"{"targets": []}"#), Ok(Vec::new()), "none is an answer");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let wrong = |text: &str| targets("t.yaml", text).unwrap_err();
        assert_eq!(
            wrong("targets:\n  - { address: 10.0.0.1:80, weight: 0 }\n  - { address: nowhere }\n"),
            "t.yaml:2:37: `weight` must be 1 to 1000, not 0 (and 1 more)"
        );
        assert!(wrong("").starts_with("t.yaml:1:1: "), "an empty file is one that is being written");
        assert!(wrong("targets: [{ adress: a:80 }]").contains("did you mean `address`?"));
        assert!(wrong(r#"{"targets": [{"address": "a:80"#).starts_with("t.yaml:"));
        let twice = "targets: [{ address: a:80 }, { address: a:80 }]";
        assert_eq!(wrong(twice), "t.yaml:1:41: target `a:80` stands here twice");
        let many = |count: usize| {
            let targets: Vec<String> = (0..count).map(|number| format!("{{ address: a{number}:80 }}")).collect();
            format!("targets: [{}]", targets.join(", "))
        };
        assert_eq!(targets("t.yaml", &many(1000)).unwrap().len(), 1000);
        assert!(wrong(&many(1001)).contains("at most 1000 targets, not 1001"));
    }
}
