//! Key sets that are fetched, beside the request path.
//!
//! A [`Source`] is kept by its URL and shared by all snapshots that name it, so a reload forgets no key. A request only looks
//! at what is there; when that does not do it says so with [`Source::want`], and the next one may find more. Keys stay in
//! use while their provider is away or sends something else than a key set.

mod fetch;
mod follow;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use reqwest::Url;
use tokio::sync::{Notify, watch};

use super::keyset::KeySet;
use crate::sources::{self, Progress, Sources};

/// Largest key set, in bytes.
pub const SET_BYTES_MAX: usize = 1024 * 1024;

/// When key sets are fetched.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two fetches, whoever asks: a new key is there within five seconds of its first token.
    pub cooldown: Duration,
    /// Between two fetches when nobody asks and the provider does not say.
    pub refresh: Duration,
    /// What a provider may say with `Cache-Control: max-age`.
    pub refresh_min: Duration,
    pub refresh_max: Duration,
    /// Longest pause after failures; it doubles from the cooldown on.
    pub retry_max: Duration,
    /// For one fetch in all.
    pub timeout: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            cooldown: Duration::from_secs(4),
            refresh: Duration::from_secs(5 * 60),
            refresh_min: Duration::from_secs(60),
            refresh_max: Duration::from_secs(60 * 60),
            retry_max: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
        }
    }
}

/// All key sets that some snapshot needs.
#[derive(Default)]
pub struct KeySets {
    sources: Sources<Url, Source>,
    pace: Pace,
}

/// One key set, where it comes from and how that goes.
pub struct Source {
    url: Url,
    keys: ArcSwapOption<KeySet>,
    /// Notified when the keys do not do, and when the source is gone.
    wanted: Arc<Notify>,
    progress: Progress,
    changed: watch::Sender<u64>,
    state: Mutex<State>,
    ok: AtomicU64,
    failed: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// SHA-256 of the body the keys came from.
    digest: Option<[u8; 32]>,
    loaded: Option<SystemTime>,
    error: Option<String>,
}

/// How it goes with a [`Source`].
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// Without its query.
    pub url: String,
    /// `None`: none were ever fetched.
    pub keys: Option<usize>,
    /// When the keys in use were last found to be the provider's.
    pub loaded: Option<SystemTime>,
    /// Why the last fetch failed, if it did.
    pub error: Option<String>,
    /// Fetches that brought a key set, since the source is there.
    pub ok: u64,
    /// Those that did not.
    pub failed: u64,
}

impl KeySets {
    pub fn with_pace(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    /// The key set at this address. Nothing is fetched before [`KeySets::keep_fetching`] runs.
    /// `changed` counts its changes.
    pub fn source(&self, url: &Url, changed: &watch::Sender<u64>) -> Arc<Source> {
        let make = |url: &Url| {
            Ok::<_, Infallible>(Source {
                url: url.clone(),
                keys: ArcSwapOption::empty(),
                wanted: Arc::default(),
                progress: Progress::default(),
                changed: changed.clone(),
                state: Mutex::default(),
                ok: AtomicU64::new(0),
                failed: AtomicU64::new(0),
            })
        };
        let Ok(source) = self.sources.get_or_add(url.clone(), make);
        source
    }

    /// Fetches all key sets again and again, those that are added later too. Runs until it is dropped.
    pub async fn keep_fetching(&self) {
        self.sources.keep(|source| follow::follow(source, self.pace)).await;
    }

    /// Waits until each key set was tried to be fetched once, for at most `patience`.
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
    /// The keys as they were last fetched.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    /// Says that the keys there are do not do. They are fetched again, unless that was just done; nobody waits for it.
    pub fn want(&self) {
        self.wanted.notify_one();
    }

    pub fn status(&self) -> SourceStatus {
        let State { loaded, error, .. } = self.state().clone();
        SourceStatus {
            url: shown(&self.url),
            keys: self.keys.load().as_ref().map(|keys| keys.len()),
            loaded,
            error,
            ok: self.ok.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
}

/// The address without its query, which may hold a credential.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests;
