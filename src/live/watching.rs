//! Notices that a file changed.
//!
//! Folders are watched, not files: a file that is replaced by renaming, deleted and written anew, or swapped by way of a
//! symbolic link to a folder (Kubernetes) is another file, and its watch would stay with the old one. For the same reason the
//! folder above each is watched too. Events only say that it is time to look; what changed, the contents tell.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tracing::warn;

use super::contents::{Contents, Scope};
use super::{Cause, Live};

/// So long nothing may happen before a change is taken for finished.
const QUIET: Duration = Duration::from_millis(50);
/// So long a change is waited for that does not end.
const QUIET_WAIT_MAX: Duration = Duration::from_millis(500);
/// How often all files are looked at, whatever the system tells.
const POLL: Duration = Duration::from_secs(5);
/// The same when the system tells nothing.
const POLL_ALONE: Duration = Duration::from_secs(1);
/// Most folders that are watched; the poll sees to the others.
const FOLDERS_MAX: usize = 1024;

impl Live {
    /// Reloads whenever a file of the configuration changes. Runs until it is dropped.
    pub async fn watch(self: Arc<Self>) {
        let changed = Arc::new(Notify::new());
        let folders = match Folders::new(Arc::clone(&changed)) {
            Ok(folders) => Some(folders),
            Err(error) => {
                warn!(%error, "the system does not tell of changed files; they are looked at every second");
                None
            }
        };
        let poll = if folders.is_some() { POLL } else { POLL_ALONE };
        self.follow_changes(folders, &changed, poll).await;
    }

    async fn follow_changes(self: Arc<Self>, mut folders: Option<Folders>, changed: &Notify, poll: Duration) {
        self.report.send_modify(|report| report.set_watching(folders.is_some()));
        folders = self.follow(folders).await;
        let mut poll = interval(poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once: what changed since the start is not missed.
        loop {
            let cause = tokio::select! {
                () = changed.notified() => {
                    quiet(changed).await;
                    Cause::Watch
                }
                _ = poll.tick() => Cause::Poll,
            };
            // Before, so that a folder that was made anew is watched while its files are read; after, for new folders.
            folders = self.follow(folders).await;
            if cause == Cause::Watch || self.has_lasting_change().await {
                self.reload(cause).await;
            }
            folders = self.follow(folders).await;
        }
    }

    /// Whether something changed and is at rest. A poll can hit the moment between emptying a file and writing it, and an
    /// empty file is a right one.
    async fn has_lasting_change(&self) -> bool {
        let running = Arc::clone(&*self.running.lock().await);
        let scope = Arc::new(running.scope.clone());
        let look = || {
            let scope = Arc::clone(&scope);
            tokio::task::spawn_blocking(move || Contents::read(&scope))
        };
        let Ok(mut seen) = look().await else { return false };
        let give_up = Instant::now() + QUIET_WAIT_MAX;
        while seen != running.contents {
            sleep(QUIET).await;
            let Ok(again) = look().await else { return false };
            if again == seen || Instant::now() >= give_up {
                return true;
            }
            seen = again;
        }
        self.bury();
        false
    }

    /// Watches the folders that the configuration is in by now. A new one may have changed before: it is looked at again.
    async fn follow(&self, folders: Option<Folders>) -> Option<Folders> {
        let mut folders = folders?;
        let running = Arc::clone(&*self.running.lock().await);
        // Stats some folders: not for a thread that serves requests.
        let followed = tokio::task::spawn_blocking(move || {
            folders.follow(&running.scope);
            folders
        });
        match followed.await {
            Ok(folders) => Some(folders),
            Err(error) => {
                warn!(%error, "changed files are not watched any more; they are looked at every few seconds");
                self.report.send_modify(|report| report.set_watching(false));
                None
            }
        }
    }
}

/// Waits for the end of a burst of changes, but not for ever.
async fn quiet(changed: &Notify) {
    let give_up = Instant::now() + QUIET_WAIT_MAX;
    while Instant::now() < give_up {
        let end = (Instant::now() + QUIET).min(give_up);
        if timeout_at(end, changed.notified()).await.is_err() {
            return;
        }
    }
}

/// The folders that are watched.
struct Folders {
    watcher: RecommendedWatcher,
    /// By what the file system knows them by: two paths may lead to one folder, which can be watched once only.
    watched: BTreeMap<Identity, PathBuf>,
    interest: Arc<Mutex<Interest>>,
    changed: Arc<Notify>,
    complained: bool,
}

/// Device and inode.
type Identity = (u64, u64);

/// Which events say that it is time to look.
#[derive(Default)]
struct Interest {
    /// Anything that happens in these folders.
    within: BTreeSet<PathBuf>,
    /// Those of them that were removed or renamed: what stands there now needs a new watch.
    stale: BTreeSet<PathBuf>,
}

impl Interest {
    fn takes(&mut self, event: &Event) -> bool {
        // Our own reading is an event too.
        let read = matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
        if read && !event.need_rescan() {
            return false;
        }
        let mut taken = event.need_rescan();
        for path in &event.paths {
            if self.within.contains(path) {
                self.stale.insert(path.clone());
                taken = true;
            }
            taken |= path.parent().is_some_and(|folder| self.within.contains(folder));
        }
        taken
    }
}

impl Folders {
    fn new(changed: Arc<Notify>) -> notify::Result<Self> {
        let interest: Arc<Mutex<Interest>> = Arc::default();
        let (wanted, tell) = (Arc::clone(&interest), Arc::clone(&changed));
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error means that events may be lost.
            if event.map_or(true, |event| lock(&wanted).takes(&event)) {
                tell.notify_one();
            }
        })?;
        Ok(Self { watcher, watched: BTreeMap::new(), interest, changed, complained: false })
    }

    /// Watches what `scope` needs and nothing else.
    fn follow(&mut self, scope: &Scope) {
        let within = folders(scope);
        let mut wanted: BTreeMap<Identity, PathBuf> = BTreeMap::new();
        let above = within.iter().filter_map(|folder| folder.parent()).map(visible);
        // Those that matter first: there may be too many.
        for folder in within.iter().cloned().chain(above).take(FOLDERS_MAX) {
            // One that is missing is seen to come from the folder above.
            if let Ok(metadata) = std::fs::metadata(&folder) {
                wanted.entry((metadata.dev(), metadata.ino())).or_insert(folder);
            }
        }
        let stale = {
            let mut interest = lock(&self.interest);
            interest.within = within;
            std::mem::take(&mut interest.stale)
        };
        let gone = |identity: &Identity, path: &PathBuf| wanted.get(identity) != Some(path) || stale.contains(path);
        for (_, path) in self.watched.extract_if(.., |identity, path| gone(identity, path)) {
            // It is no longer there in most cases, and its watch neither.
            let _ = self.watcher.unwatch(&path);
        }
        for (identity, path) in wanted {
            if !self.watched.contains_key(&identity) {
                self.add(identity, path);
            }
        }
    }

    fn add(&mut self, identity: Identity, path: PathBuf) {
        match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(identity, path);
                // What happened there before nobody told.
                self.changed.notify_one();
            }
            Err(error) if !self.complained => {
                self.complained = true;
                warn!(%error, folder = %path.display(), "cannot watch a folder; its files are looked at every few seconds");
            }
            Err(_) => {}
        }
    }
}

/// The folders in which something may happen to the files of `scope`, under all the names they have.
fn folders(scope: &Scope) -> BTreeSet<PathBuf> {
    let mut folders: BTreeSet<PathBuf> = scope.folders.iter().map(|folder| visible(folder)).collect();
    for file in scope.files.iter().chain(&scope.values) {
        folders.extend(file.parent().map(visible));
        // A link may lead to a file elsewhere, which can change in its place.
        let target = std::fs::canonicalize(file).ok();
        folders.extend(target.as_deref().and_then(Path::parent).map(Path::to_owned));
    }
    let targets: Vec<PathBuf> = folders.iter().filter_map(|folder| std::fs::canonicalize(folder).ok()).collect();
    folders.extend(targets);
    folders
}

/// A folder that can be opened: the empty path is the working directory.
fn visible(folder: &Path) -> PathBuf {
    if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() }
}

fn lock(interest: &Mutex<Interest>) -> std::sync::MutexGuard<'_, Interest> {
    interest.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
