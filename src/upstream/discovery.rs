//! Targets that come and go without a reload.
//!
//! A [`Source`] is one place where targets are found: a name in the DNS, a file, a service in Consul or one whose instances
//! register themselves. It is kept by its settings and shared by all snapshots that have these, so a reload forgets nothing;
//! a task of its own asks again and again for as long as somebody holds it, and tells the slots that follow it. What was
//! found last stays in use while there is no answer.

mod consul;
mod dns;
mod endpoint;
mod file;
mod follow;
pub mod registry;
mod settings;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::Slot;
use crate::clock;
use crate::observe::metrics::DiscoverySample;
use crate::sources::{self, Progress, Sources};
use crate::state::Store;
use crate::yaml::Problem;

pub use endpoint::Endpoint;
pub use settings::Settings;

/// All sources that some snapshot needs.
#[derive(Default)]
pub struct Discovery {
    sources: Sources<Settings, Source>,
    store: OnceLock<Arc<dyn Store>>,
    /// Counts what was registered here: it is not waited for.
    registered: watch::Sender<u64>,
}

/// Where targets are found, and how that goes.
pub struct Source {
    settings: Settings,
    found: Mutex<Found>,
    slots: Mutex<Vec<Weak<Slot>>>,
    progress: Progress,
    /// Notified when nobody needs it any more.
    gone: Arc<Notify>,
    ok: AtomicU64,
    failed: AtomicU64,
}

#[derive(Default)]
struct Found {
    /// `None`: there was no answer yet.
    endpoints: Option<Arc<[Endpoint]>>,
    /// When the last good answer came.
    answered: Option<(Instant, SystemTime)>,
    /// Why there is none now.
    error: Option<String>,
}

/// How it goes with a [`Source`].
#[derive(Clone, Debug)]
pub struct Status {
    /// `dns`, `file`, `consul`, `registry`
    pub kind: &'static str,
    /// Whether the last look brought an answer.
    pub is_up: bool,
    pub endpoints: usize,
    /// When the last good answer came, and how long ago that is.
    pub answered: Option<(SystemTime, Duration)>,
    /// Why the last look brought none.
    pub error: Option<String>,
}

impl Discovery {
    /// Hands in the state store, once it is open. The first one stays.
    pub fn attach(&self, store: Arc<dyn Store>) {
        let _ = self.store.set(store);
    }

    /// The source with these settings. Nothing is asked before [`Discovery::keep`] runs; a file is read now, so that one
    /// that is wrong from the beginning is a mistake like any other.
    pub fn source(&self, settings: Settings, problems: &mut Vec<Problem>) -> Option<Arc<Source>> {
        let make = |settings: &Settings| {
            let found = match settings {
                Settings::File(settings) => settings.first()?.map(Arc::from),
                _ => None,
            };
            let answered = found.is_some().then(|| (clock::now(), clock::wall()));
            Ok(Source {
                settings: settings.clone(),
                found: Mutex::new(Found { endpoints: found, answered, error: None }),
                slots: Mutex::default(),
                progress: Progress::default(),
                gone: Arc::default(),
                ok: AtomicU64::new(0),
                failed: AtomicU64::new(0),
            })
        };
        self.sources.get_or_add(settings, make).map_err(|problem| problems.push(problem)).ok()
    }

    /// Asks all sources again and again, those that are added later too. Runs until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        self.sources.keep(|source| follow::follow(source, Arc::clone(&self))).await;
    }

    /// Waits until each source was asked once, for at most `patience`.
    pub async fn tried(&self, patience: Duration) {
        self.sources.tried(patience).await;
    }
}

impl sources::Source for Source {
    fn progress(&self) -> &Progress {
        &self.progress
    }
}

impl Source {
    /// What was found last. `None`: there was no answer yet.
    pub fn endpoints(&self) -> Option<Arc<[Endpoint]>> {
        self.found().endpoints.clone()
    }

    /// What was found here last, for a source of the same with other settings that has no answer yet.
    pub(super) fn passed_on_to(&self, other: &Self) -> Option<Arc<[Endpoint]>> {
        let same = |of: fn(&Settings) -> &str| of(&self.settings) == of(&other.settings);
        if same(Settings::kind) && same(Settings::shown) { self.endpoints() } else { None }
    }

    /// The service whose instances register themselves, if it is one.
    pub fn registered_service(&self) -> Option<&Arc<str>> {
        match &self.settings {
            Settings::Registry(service) => Some(service),
            Settings::Dns(_) | Settings::File(_) | Settings::Consul(_) => None,
        }
    }

    pub fn status(&self) -> Status {
        let found = self.found();
        let now = clock::now();
        Status {
            kind: self.settings.kind(),
            is_up: found.answered.is_some() && found.error.is_none(),
            endpoints: found.endpoints.as_ref().map_or(0, |endpoints| endpoints.len()),
            answered: found.answered.map(|(at, wall)| (wall, now.saturating_duration_since(at))),
            error: found.error.clone(),
        }
    }

    /// From now on the slot is told of changes, for as long as it is there.
    pub(super) fn tell(&self, slot: &Arc<Slot>) {
        let mut slots = self.slots();
        slots.retain(|slot| slot.strong_count() > 0);
        slots.push(Arc::downgrade(slot));
    }

    /// There is an answer; with `lacking`, one that had to be completed by what was known before.
    fn answered(&self, endpoints: Vec<Endpoint>, lacking: Option<String>) {
        let count = if lacking.is_none() { &self.ok } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        let mut found = self.found();
        if lacking.is_none() {
            found.answered = Some((clock::now(), clock::wall()));
        }
        self.turn(&mut found, lacking);
        let changed = found.endpoints.as_deref() != Some(&*endpoints);
        if changed {
            found.endpoints = Some(endpoints.into());
        }
    }

    /// There is no answer. What was found last stays in use, as long as it may.
    fn without_answer(&self, why: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut found = self.found();
        self.turn(&mut found, Some(why));
        let too_old = |max: &Duration| {
            let (Some(endpoints), Some((at, _))) = (&found.endpoints, found.answered) else { return false };
            !endpoints.is_empty() && clock::now().saturating_duration_since(at) >= *max
        };
        let too_old = self.settings.stale_max().filter(too_old);
        if let Some(max) = too_old {
            found.endpoints = Some(Arc::default());
            warn!(source = self.settings.shown(), stale_max = ?max, "the targets found last are too old to be used");
        }
    }

    /// Notes whether it goes well, and says so where that is news.
    fn turn(&self, found: &mut Found, error: Option<String>) {
        let (source, kind) = (self.settings.shown(), self.settings.kind());
        let known = found.endpoints.as_ref().map_or(0, |endpoints| endpoints.len());
        match (&found.error, &error) {
            (None, Some(why)) if known > 0 => {
                warn!(kind, source, why, known, "discovery fails; the targets found last stay in use");
            }
            (None, Some(why)) => warn!(kind, source, why, "discovery fails, and no target is known"),
            (Some(_), None) => info!(kind, source, "discovery works again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        found.error = error;
    }

    /// Also where nothing changed: a slot that was made while the last change came may have missed it.
    async fn tell_slots(&self) {
        let slots: Vec<Arc<Slot>> = self.slots().iter().filter_map(Weak::upgrade).collect();
        for slot in slots {
            slot.follow().await;
        }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Weak<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.gone.notify_one();
    }
}

/// How it goes with the sources of these upstreams; nothing of those that have none.
pub fn discovery_samples(slots: &[Arc<Slot>]) -> Vec<DiscoverySample> {
    let sample = |slot: &Arc<Slot>| {
        let source = slot.source()?;
        let status = source.status();
        Some(DiscoverySample {
            upstream: Arc::clone(&slot.name),
            kind: status.kind,
            is_up: status.is_up,
            endpoints: status.endpoints,
            age: status.answered.map(|(_, age)| age),
            ok: source.ok.load(Ordering::Relaxed),
            failed: source.failed.load(Ordering::Relaxed),
        })
    };
    slots.iter().filter_map(sample).collect()
}
