//! The snapshot in use, and how it is replaced: load, compile, check, swap.
//!
//! [`Live::current`] is what a request asks for, once. [`Live::reload`] looks at the files and swaps a new snapshot in
//! whole, or says why not; [`Live::watch`] calls it when something changes. A file that is wrong keeps the content it last
//! ran with while the others apply: `candidate` says which file that is.
//!
//! Two reloads never run at once. A request never waits for one.

mod build;
mod candidate;
mod contents;
mod report;
mod watching;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync;
use tracing::{error, info, warn};

use crate::clock;
use crate::config::load::{Environment, Overrides};
use crate::gateway::{Gateway, Services};
use crate::upstream::{self, discovery::Discovery};
use crate::yaml::Problem;

use build::{Build, Made};
use candidate::Found;
use contents::{Contents, Scope};
use report::Report;
pub use report::{FileStatus, ProblemStatus, Runs, Status};

/// How long a new snapshot waits for the names of its new upstreams and the keys of its new issuers.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(2);

/// What must hold of a snapshot before it is used: the problems it finds.
pub type Check = fn(&Gateway) -> Vec<Problem>;

/// The snapshot in use.
pub struct Live {
    current: ArcSwap<Gateway>,
    build: Build,
    /// Locked from the beginning of a reload to its end.
    running: sync::Mutex<Arc<Running>>,
    generation: sync::watch::Sender<u64>,
    report: sync::watch::Sender<Report>,
    /// Snapshots that requests may still hold, so that none of these has to tear one down.
    retired: Mutex<Vec<Arc<Gateway>>>,
}

/// The files behind the snapshot in use.
#[derive(Clone)]
struct Running {
    /// Their texts: what a file falls back to.
    texts: HashMap<PathBuf, String>,
    /// The folders of `include`.
    folders: BTreeSet<PathBuf>,
    /// Certificates and keys.
    attached: Vec<PathBuf>,
    /// What was looked at by the last reload, whether or not it was applied.
    scope: Scope,
    contents: Contents,
}

/// Why a reload is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The system told of a change.
    Watch,
    /// The regular look at all files.
    Poll,
    /// SIGHUP
    Signal,
    /// `POST /reload`
    Api,
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub effect: Effect,
    /// Hash of the configuration that is in use now.
    pub hash: String,
    pub generation: u64,
    pub milliseconds: u64,
    /// The files whose content on disk is not in use.
    pub files: Vec<FileStatus>,
}

/// What a reload changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// There was nothing to do.
    Unchanged,
    /// All files are in use as they are on disk.
    Applied,
    /// Some files are in use as they are on disk; those in [`Outcome::files`] are not.
    Partly,
    /// Nothing changed.
    Refused,
}

impl Live {
    /// Loads the configuration for the first time. Blocks; see [`Live::resolve_names`] for what is left to do.
    ///
    /// # Errors
    /// Every problem of every file, rendered for people.
    pub fn start(
        path: PathBuf,
        environment: Environment,
        services: Services,
        check: Check,
    ) -> Result<Arc<Self>, Vec<String>> {
        let build = Build { path, environment, services, check };
        let made = build.make(&Overrides::new(), None).map_err(|failed| failed.rendered())?;
        let mut scope = Scope::of(&build.path, made.texts(), made.folders.clone());
        scope.values.extend(made.attached.iter().cloned());
        let contents = Contents::read(&scope).with_texts(made.texts());
        let (gateway, running) = made.into_running(scope, contents);
        let report = Report::started(&gateway, &running, &build.path, &build.services.metrics);
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(gateway),
            build,
            running: sync::Mutex::new(Arc::new(running)),
            generation: sync::watch::Sender::new(1),
            report: sync::watch::Sender::new(report),
            retired: Mutex::default(),
        }))
    }

    /// The snapshot in use. Ask once for each request, and keep it to its end.
    pub fn current(&self) -> Arc<Gateway> {
        self.current.load_full()
    }

    /// Where targets are found.
    pub fn discovery(&self) -> &Arc<Discovery> {
        &self.build.services.discovery
    }

    /// The number of the snapshot in use, from 1 on; tells whenever a new one is swapped in.
    pub fn subscribe(&self) -> sync::watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// What runs, and what is wrong with what does not.
    pub fn status(&self) -> Status {
        self.report.borrow().status(&self.current(), *self.generation.borrow())
    }

    /// Begins to look for targets, and resolves the names of those that have no address yet; waits for the first answers for at
    /// most two seconds each. To be called once after
    /// [`Live::start`]; every reload does it by itself.
    pub async fn resolve_names(&self) {
        let discovery = &self.build.services.discovery;
        tokio::spawn(Arc::clone(discovery).keep());
        discovery.tried(RESOLVE_PATIENCE).await;
        upstream::catch_up(self.current().slots()).await;
        upstream::resolve_new(self.current().upstreams().into_iter(), RESOLVE_PATIENCE).await;
    }

    /// Resolves the names of all targets in use again and again, for as long as there is this `Live`.
    pub async fn keep_resolving(self: Arc<Self>) {
        let live = Arc::downgrade(&self);
        drop(self);
        upstream::keep_resolving(move || live.upgrade().map(|live| live.current().upstreams())).await;
    }

    /// Checks the targets of all upstreams in use again and again, for as long as there is this `Live`.
    pub async fn keep_checking(self: Arc<Self>) {
        let (changed, live) = (self.subscribe(), Arc::downgrade(&self));
        drop(self);
        upstream::keep_checking(changed, move || live.upgrade().map(|live| live.current().upstreams())).await;
    }

    /// Looks at the files and applies what changed. When none did, [`Cause::Watch`] and [`Cause::Poll`] do nothing; the
    /// other two load everything again.
    ///
    /// Reads and compiles on the blocking threads of the runtime. When this future is dropped, nothing has changed.
    pub async fn reload(self: &Arc<Self>, cause: Cause) -> Outcome {
        let mut running = self.running.lock().await;
        let started = clock::now();
        let (live, known) = (Arc::clone(self), Arc::clone(&running));
        let found = tokio::task::spawn_blocking(move || live.search(&known, cause)).await;
        self.bury();
        let found = match found {
            Ok(Some(found)) => found,
            Ok(None) => return self.outcome(Effect::Unchanged, started),
            Err(error) => {
                error!(%error, "the reload broke off; the configuration in use stays");
                self.build.services.metrics.reloaded(false);
                return self.outcome(Effect::Refused, started);
            }
        };
        let effect = self.apply(&mut running, found, cause, started).await;
        self.bury();
        self.outcome(effect, started)
    }

    /// The candidate; `None` when no file changed and nobody asked.
    fn search(&self, running: &Running, cause: Cause) -> Option<Found> {
        let before = Contents::read(&running.scope);
        let asked = matches!(cause, Cause::Signal | Cause::Api);
        if !asked && before == running.contents {
            return None;
        }
        Some(candidate::search(&self.build, &self.current(), running, &before))
    }

    async fn apply(&self, running: &mut Arc<Running>, found: Found, cause: Cause, started: Instant) -> Effect {
        let Found { made, scope, contents, held, notes } = found;
        let current = self.current();
        // What falls back to the files in use in every respect is not worth a swap.
        let made = made.filter(|made| held.is_empty() || made.gateway.hash != current.hash);
        let asked = matches!(cause, Cause::Signal | Cause::Api);
        let effect = match &made {
            None => Effect::Refused,
            Some(_) if !held.is_empty() => Effect::Partly,
            Some(made) => {
                let same = made.gateway.hash == current.hash
                    && !contents.differ_in_values(&running.contents, &scope)
                    && self.report.borrow().is_clean();
                if same && !asked { Effect::Unchanged } else { Effect::Applied }
            }
        };
        match made.filter(|_| effect != Effect::Unchanged) {
            Some(made) => self.swap(running, made, scope, contents).await,
            None => {
                *running = Arc::new(Running { scope, contents, ..Running::clone(running) });
            }
        }
        if effect == Effect::Unchanged {
            return effect;
        }
        for note in &notes {
            warn!(at = note.at(), cause = cause.as_str(), "{}", note.text);
        }
        self.build.services.metrics.reloaded(effect == Effect::Applied);
        let last = Last { at: clock::wall(), cause, effect };
        self.report.send_modify(|report| report.reloaded(running, &held, &notes, last));
        self.report.borrow().tell(&self.build.services.metrics);
        self.log(effect, cause, started);
        effect
    }

    /// Puts `made` in the place of the snapshot in use. Nothing is changed before the last `await`.
    async fn swap(&self, running: &mut Arc<Running>, made: Made, scope: Scope, contents: Contents) {
        let names = upstream::resolve_new(made.gateway.upstreams().into_iter(), RESOLVE_PATIENCE);
        let keys = self.build.services.identity.key_sets.tried(RESOLVE_PATIENCE);
        tokio::join!(names, keys, self.build.services.discovery.tried(RESOLVE_PATIENCE));
        upstream::catch_up(made.gateway.slots()).await;
        let (gateway, files) = made.into_running(scope, contents);
        self.build.services.metrics.config_loaded(&gateway.hash, gateway.loaded_at);
        let old = self.current.swap(Arc::new(gateway));
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(old);
        *running = Arc::new(files);
        self.generation.send_modify(|generation| *generation = generation.saturating_add(1));
    }

    /// Lets go of the old snapshots that no request holds any more, away from the threads that serve requests.
    fn bury(&self) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        // A count of one is ours, and nobody can take another from it.
        let dead: Vec<_> = retired.extract_if(.., |snapshot| Arc::strong_count(snapshot) == 1).collect();
        drop(retired);
        if !dead.is_empty() {
            tokio::task::spawn_blocking(move || drop(dead));
        }
    }

    fn log(&self, effect: Effect, cause: Cause, started: Instant) {
        let current = self.current();
        let (hash, cause, ms) = (&*current.hash, cause.as_str(), milliseconds(started));
        let (routes, upstreams) = (current.routes().len(), current.upstreams().len());
        match effect {
            Effect::Unchanged => {}
            Effect::Applied => info!(hash, routes, upstreams, ms, cause, "configuration reloaded"),
            Effect::Partly => warn!(hash, routes, upstreams, ms, cause, "configuration reloaded in part"),
            Effect::Refused => warn!(hash, ms, cause, "reload refused; the configuration in use stays"),
        }
    }

    fn outcome(&self, effect: Effect, started: Instant) -> Outcome {
        Outcome {
            effect,
            hash: self.current().hash.clone(),
            generation: *self.generation.borrow(),
            milliseconds: milliseconds(started),
            files: self.report.borrow().not_in_use(),
        }
    }
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Poll => "poll",
            Self::Signal => "signal",
            Self::Api => "api",
        }
    }
}

/// What happened last.
#[derive(Clone, Copy, Debug)]
struct Last {
    at: SystemTime,
    cause: Cause,
    effect: Effect,
}

fn milliseconds(started: Instant) -> u64 {
    u64::try_from(clock::now().saturating_duration_since(started).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
