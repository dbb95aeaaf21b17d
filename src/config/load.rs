//! From `gateway.yaml` and what it includes to a [`Config`].
//!
//! `run`, `check`, `test` and every reload come through here. Whatever is wrong is reported, all of it, each with its place.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::panic::resume_unwind;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{Fragment, Root, Tls, UpstreamTls};
use crate::types::hex;
use crate::yaml::{FileId, Kind, Lookup, Node, Place, Problem, Sources, decode, interpolate, parse};

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Largest certificate or key file that is read, in bytes.
const PEM_BYTES_MAX: u64 = 1024 * 1024;
/// Largest file of a plugin, in bytes.
pub const PLUGIN_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most files that are included.
const FILES_MAX: usize = 10_000;
/// The version of the format that this gateway reads.
const VERSION: u32 = 1;
/// The keys a fragment may carry.
const FRAGMENT_KEYS: [&str; 6] = ["consumers", "users", "chains", "upstreams", "routes", "tests"];

/// A configuration as it is written, and the files it came from.
#[derive(Debug)]
pub struct Config {
    pub root: Root,
    pub fragments: Vec<Fragment>,
    /// The folder of `gateway.yaml`: paths in it are relative to that.
    pub base: PathBuf,
    /// The certificates and keys of listeners and upstreams, and plugins.
    pub attached: Arc<Attached>,
}

/// What the files hold that `tls` and `plugin` name, by their names as written; or why they cannot be read.
pub type Attached = BTreeMap<String, Result<Vec<u8>, String>>;

/// What came out of reading.
pub struct Loaded {
    pub sources: Sources,
    /// Every file that belongs to the configuration, in the order of [`Sources`].
    pub files: Vec<ReadFile>,
    /// Where the files of [`Attached`] are.
    pub attached: Vec<PathBuf>,
    /// SHA-256 over names and texts, the first 16 hexadecimal digits.
    pub hash: String,
    /// `Err` holds at least one problem.
    pub config: Result<Config, Vec<Problem>>,
}

/// A file and the text it had.
#[derive(Clone)]
pub struct ReadFile {
    pub path: PathBuf,
    pub id: FileId,
    pub text: String,
}

/// Texts to take in place of what a file holds now; `None`: leave the file out.
pub type Overrides = HashMap<PathBuf, Option<String>>;

/// Where `${NAME}` finds its value.
#[derive(Clone, Debug, Default)]
pub enum Environment {
    /// The environment of this process.
    #[default]
    Process,
    /// These variables and no others, for tests.
    Fixed(HashMap<String, String>),
}

impl Environment {
    #[allow(clippy::disallowed_methods, reason = "this is where the environment is read")]
    pub fn get(&self, name: &str) -> Option<String> {
        match self {
            Self::Process => std::env::var(name).ok(),
            Self::Fixed(variables) => variables.get(name).cloned(),
        }
    }
}

/// Reads `path` and the files it includes.
pub fn load(path: &Path, environment: &Environment, overrides: &Overrides) -> Loaded {
    let mut reading = Reading {
        base: path.parent().map(Path::to_owned).unwrap_or_default(),
        environment,
        overrides,
        sources: Sources::new(),
        files: Vec::new(),
        problems: Vec::new(),
    };
    let root = reading.root(path);
    let fragments = root.as_ref().map(|root| reading.fragments(root)).unwrap_or_default();
    let hash = hash(&reading.files);
    let contents = root.as_ref().map(|root| reading.attached(root, &fragments)).unwrap_or_default();
    let attached = contents.keys().map(|name| reading.base.join(name)).collect();
    let config = match root {
        Some(root) if reading.problems.is_empty() => {
            Ok(Config { root, fragments, base: reading.base.clone(), attached: Arc::new(contents) })
        }
        _ => Err(reading.problems),
    };
    Loaded { sources: reading.sources, files: reading.files, attached, hash, config }
}

struct Reading<'a> {
    base: PathBuf,
    environment: &'a Environment,
    overrides: &'a Overrides,
    sources: Sources,
    files: Vec<ReadFile>,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn root(&mut self, path: &Path) -> Option<Root> {
        let root: Root = self.file(path, |_, _| {})?;
        if root.version.value != VERSION {
            let message = format!("this gateway reads version {VERSION} of the format, not {}", root.version.value);
            self.problems.push(Problem::new(root.version.place, message));
        }
        Some(root)
    }

    /// Reads one file. `inspect` may add problems that the type cannot tell.
    fn file<T: DeserializeOwned>(&mut self, path: &Path, inspect: Inspect) -> Option<T> {
        let id = self.open(path)?;
        let understood = understand(&self.sources, id, &self.values(path), inspect);
        self.take(understood)
    }

    /// Reads the included files. They are understood on all cores at once: with 100,000 keys that is what a start consists of.
    fn fragments(&mut self, root: &Root) -> Vec<Fragment> {
        let paths = self.included(root);
        let opened: Vec<(FileId, PathBuf)> =
            paths.into_iter().filter_map(|path| Some((self.open(&path)?, path))).collect();
        let understood = in_parallel(&opened, |(id, path)| {
            understand::<Fragment>(&self.sources, *id, &self.values(path), fragment_keys)
        });
        understood.into_iter().filter_map(|understood| self.take(understood)).collect()
    }

    /// Reads the text of a file.
    fn open(&mut self, path: &Path) -> Option<FileId> {
        let name = self.display(path);
        let text = match self.overrides.get(path) {
            Some(Some(text)) => Ok(text.clone()),
            Some(None) => return None,
            None => read(path),
        };
        let (text, unreadable) = match text {
            Ok(text) => (text, None),
            Err(message) => (String::new(), Some(message)),
        };
        let id = self.sources.add(name, text.clone());
        self.files.push(ReadFile { path: path.to_owned(), id, text });
        let Some(message) = unreadable else { return Some(id) };
        let message = format!("cannot read this file: {message}");
        self.problems.push(Problem::new(Place { file: id, line: 0, column: 0 }, message));
        None
    }

    fn values<'p>(&'p self, path: &'p Path) -> Values<'p> {
        Values { environment: self.environment, base: path.parent().unwrap_or(Path::new("")) }
    }

    /// Keeps what was found wrong, and what must not be shown.
    fn take<T>(&mut self, understood: Understood<T>) -> Option<T> {
        if let Some(node) = &understood.node {
            self.sources.hide(node);
        }
        understood.decoded.map_err(|problems| self.problems.extend(problems)).ok()
    }

    /// The files that `include` names, sorted, each once.
    fn included(&mut self, root: &Root) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for pattern in &root.include {
            match expand(&self.base, &pattern.value) {
                Ok(found) => paths.extend(found),
                Err(message) => self.problems.push(Problem::new(pattern.place, message)),
            }
        }
        paths.sort();
        paths.dedup();
        if let Some(pattern) = root.include.first().filter(|_| paths.len() > FILES_MAX) {
            let message = format!("{} files are included; at most {FILES_MAX} are read", paths.len());
            self.problems.push(Problem::new(pattern.place, message));
            paths.truncate(FILES_MAX);
        }
        paths
    }

    /// Reads certificates and keys. What cannot be read is told when they are compiled, at their place.
    fn attached(&self, root: &Root, fragments: &[Fragment]) -> Attached {
        let tls = root.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let acme = root.acme.iter().filter_map(|acme| acme.ca.as_ref());
        let names = tls.flat_map(Tls::files).chain(acme).map(|name| name.value.clone());
        let upstreams = fragments.iter().flat_map(|fragment| fragment.upstreams.iter()).chain(root.upstreams.iter());
        let of_upstreams = upstreams.filter_map(|(_, upstream)| upstream.tls.as_ref());
        let names = names.chain(of_upstreams.flat_map(UpstreamTls::files).map(|name| name.value));
        let read = |name: String, bytes_max| {
            let bytes = read_bytes(&self.base.join(&name), bytes_max);
            (name, bytes)
        };
        let plugins = plugins(root, fragments).map(|name| read(name, PLUGIN_BYTES_MAX));
        names.map(|name| read(name, PEM_BYTES_MAX)).chain(plugins).collect()
    }

    /// The path as messages show it: relative to the folder of `gateway.yaml`.
    fn display(&self, path: &Path) -> String {
        path.strip_prefix(&self.base).unwrap_or(path).display().to_string()
    }
}

/// The files that filters called `plugin` name, wherever they stand.
fn plugins<'a>(root: &'a Root, fragments: &'a [Fragment]) -> impl Iterator<Item = String> + 'a {
    let chains = fragments.iter().flat_map(|fragment| fragment.chains.iter()).chain(root.chains.iter());
    let routes = fragments.iter().flat_map(|fragment| fragment.routes.iter()).chain(root.routes.iter());
    let lists = chains.map(|(_, filters)| &**filters).chain(routes.map(|route| &*route.filters));
    let filters = lists.chain([&*root.defaults.filters]).flatten();
    let settings = filters.flat_map(Node::entries).filter(|entry| &*entry.key.text == "plugin");
    let named = settings.flat_map(|entry| entry.value.entries()).filter(|entry| &*entry.key.text == "file");
    named.filter_map(|entry| entry.value.as_str().map(str::to_owned))
}

/// Says which keys only `gateway.yaml` may carry.
fn fragment_keys(node: &Node, problems: &mut Vec<Problem>) {
    let Kind::Map(entries) = &node.kind else { return };
    for entry in entries.iter().filter(|entry| ROOT_KEYS.contains(&&*entry.key.text)) {
        problems.push(
            Problem::new(entry.key.place, format!("only gateway.yaml may carry `{}`", entry.key.text))
                .with_hint(format!("an included file may carry {}", FRAGMENT_KEYS.join(", "))),
        );
    }
}

/// The keys of [`Root`] that a fragment may not carry.
const ROOT_KEYS: [&str; 20] = [
    "version",
    "threads",
    "listeners",
    "admin",
    "include",
    "acme",
    "trusted_proxies",
    "defaults",
    "limits",
    "errors",
    "log",
    "access_log",
    "audit_log",
    "webhook_log",
    "metrics",
    "drain_timeout",
    "state",
    "issuers",
    "token_services",
    "roles",
];

/// Reads a regular file of bounded size as UTF-8.
fn read(path: &Path) -> Result<String, String> {
    String::from_utf8(read_bytes(path, FILE_BYTES_MAX)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("it is not UTF-8: the byte at offset {at} is not valid")
    })
}

/// Reads a regular file of at most `bytes_max` bytes.
fn read_bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| why(&error);
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells that there is more; the size in the metadata may change while we read.
    let bound = bytes_max.saturating_add(1);
    File::open(path).map_err(cannot)?.take(bound).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it is larger than {bytes_max} bytes"));
    }
    Ok(bytes)
}

/// An error of the file system in words.
fn why(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// The files a pattern names. `*` and `?` may stand in the last component; without them the file must exist.
fn expand(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let path = base.join(pattern);
    let name = match path.components().next_back() {
        Some(Component::Normal(name)) => name.to_string_lossy().into_owned(),
        _ => return Err(format!("`{pattern}` names no file")),
    };
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    if folder.to_string_lossy().contains(['*', '?']) {
        return Err(format!("`{pattern}`: a wildcard may stand only in the last part"));
    }
    if !name.contains(['*', '?']) {
        return match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => {
                let pattern = pattern.trim_end_matches('/');
                Err(format!("cannot include `{pattern}`: it is a folder; write `{pattern}/*.yaml`"))
            }
            Ok(_) => Ok(vec![path]),
            Err(error) => Err(format!("cannot include `{pattern}`: {}", why(&error))),
        };
    }
    let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
    let entries = std::fs::read_dir(shown).map_err(|error| format!("cannot include `{pattern}`: {}", why(&error)))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("cannot include `{pattern}`: {error}"))?;
        let file = entry.file_name().to_string_lossy().into_owned();
        // Hidden files are editors' and Kubernetes' own.
        if !file.starts_with('.') && wildcard(name.as_bytes(), file.as_bytes()) {
            found.push(folder.join(file));
        }
    }
    Ok(found)
}

/// Whether `text` matches `pattern`, in which `*` stands for any run of bytes and `?` for one.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0_usize, 0_usize);
    // Where to go on when what follows the last `*` does not fit: it takes one byte more.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(from) {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at, from));
                at = at.saturating_add(1);
            }
            Some(wanted) if wanted == byte || *wanted == b'?' => {
                at = at.saturating_add(1);
                from = from.saturating_add(1);
            }
            _ => match retry {
                Some((star, taken)) => {
                    at = star.saturating_add(1);
                    from = taken.saturating_add(1);
                    retry = Some((star, from));
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

fn hash(files: &[ReadFile]) -> String {
    let mut hasher = Sha256::new();
    for file in files {
        for part in [file.path.as_os_str().as_encoded_bytes(), file.text.as_bytes()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hex(hasher.finalize().get(..8).unwrap_or_default())
}

/// Values for `${…}` in one file.
/// Adds problems that a type cannot tell.
type Inspect = fn(&Node, &mut Vec<Problem>);

/// What became of one text.
struct Understood<T> {
    /// With everything put in; none where that failed.
    node: Option<Node>,
    decoded: Result<T, Vec<Problem>>,
}

/// Parses, interpolates and decodes one text.
fn understand<T: DeserializeOwned>(
    sources: &Sources,
    id: FileId,
    values: &Values<'_>,
    inspect: Inspect,
) -> Understood<T> {
    let node = match parse(sources, id).and_then(|node| interpolate(&node, values)) {
        Ok(node) => node,
        Err(problems) => return Understood { node: None, decoded: Err(problems) },
    };
    let empty = node.is_null().then(|| Node::empty_map(node.place));
    let whole = empty.as_ref().unwrap_or(&node);
    let mut problems = Vec::new();
    inspect(whole, &mut problems);
    let decoded = match decode::<T>(whole) {
        Ok(decoded) if problems.is_empty() => Ok(decoded),
        Ok(_) => Err(problems),
        Err(found) => {
            // What `inspect` has said of a place needs no second, vaguer message.
            let said: Vec<Place> = problems.iter().map(|problem| problem.place).collect();
            problems.extend(found.into_iter().filter(|problem| !said.contains(&problem.place)));
            Err(problems)
        }
    };
    Understood { node: Some(node), decoded }
}

/// Does the work for each item, on as many threads as there are cores; the results are in the order of the items.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores == 1 || items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let turns = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        turns.map_while(|index| items.get(index).map(|item| (index, work(item)))).collect::<Vec<_>>()
    };
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores.min(items.len())).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.flatten().collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// 256 bits in hexadecimal digits, from a seed that never leaves this process. The name keeps secrets of different purposes
/// apart.
fn made_up(name: &str) -> Result<String, String> {
    static SEED: OnceLock<[u8; 32]> = OnceLock::new();
    let seed = match SEED.get() {
        Some(seed) => seed,
        None => {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
            SEED.get_or_init(|| seed)
        }
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(seed).map_err(|error| error.to_string())?;
    mac.update(name.as_bytes());
    Ok(hex(&mac.finalize().into_bytes()))
}

struct Values<'a> {
    environment: &'a Environment,
    base: &'a Path,
}

impl Lookup for Values<'_> {
    fn env(&self, name: &str) -> Option<String> {
        self.environment.get(name)
    }

    fn file(&self, path: &str, _: FileId) -> Result<String, String> {
        read(&self.base.join(path))
    }

    fn random(&self, name: &str) -> Result<String, String> {
        made_up(name)
    }
}

#[cfg(test)]
mod tests;
