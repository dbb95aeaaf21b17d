//! Sources that a task each asks again and again: shared by all who name the same, for as long as somebody holds them.

use std::collections::HashMap;
use std::error::Error;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// All sources that somebody holds, by what makes them the same.
pub struct Sources<K, S> {
    by_key: Mutex<HashMap<K, Weak<S>>>,
    added: Notify,
}

/// Something that is asked.
pub trait Source {
    fn progress(&self) -> &Progress;
}

/// How far it is with a source.
#[derive(Default)]
pub struct Progress {
    followed: AtomicBool,
    tried: watch::Sender<bool>,
}

/// Why a source could not be asked, without its address. The words are for one that took too long, one that took no connection, and
/// anything else.
pub fn failure(error: &reqwest::Error, [slow, unreachable, other]: [&str; 3]) -> String {
    let what = if error.is_timeout() {
        slow
    } else if error.is_connect() {
        unreachable
    } else {
        other
    };
    with_cause(what, error)
}

/// What went wrong, and where an error came from in the first place: that says most, and holds no address.
pub fn with_cause(what: &str, error: &dyn Error) -> String {
    let mut root = error.source();
    while let Some(cause) = root.and_then(Error::source) {
        root = Some(cause);
    }
    root.map_or_else(|| what.to_owned(), |cause| format!("{what}: {cause}"))
}

impl<K, S> Default for Sources<K, S> {
    fn default() -> Self {
        Self { by_key: Mutex::default(), added: Notify::new() }
    }
}

impl<K: Eq + Hash, S: Source> Sources<K, S> {
    /// The source with this key; when there is none, the one that `make` makes. Nothing is asked before [`Sources::keep`] runs.
    pub fn get_or_add<E>(&self, key: K, make: impl FnOnce(&K) -> Result<S, E>) -> Result<Arc<S>, E> {
        let mut sources = self.lock();
        if let Some(source) = sources.get(&key).and_then(Weak::upgrade) {
            return Ok(source);
        }
        let source = Arc::new(make(&key)?);
        sources.retain(|_, source| source.strong_count() > 0);
        sources.insert(key, Arc::downgrade(&source));
        drop(sources);
        self.added.notify_one();
        Ok(source)
    }

    /// Has a task follow each source, those that are added later too. Runs until it is dropped.
    pub async fn keep<F: Future<Output = ()> + Send + 'static>(&self, follow: impl Fn(Weak<S>) -> F) {
        loop {
            for source in self.all().into_iter().filter(|it| !it.progress().followed.swap(true, Ordering::AcqRel)) {
                tokio::spawn(follow(Arc::downgrade(&source)));
            }
            self.added.notified().await;
        }
    }

    /// Waits until each source was asked once, for at most `patience`.
    pub async fn tried(&self, patience: Duration) {
        let all = self.all();
        let tried = all.iter().map(|source| async {
            let _ = source.progress().tried.subscribe().wait_for(|tried| *tried).await;
        });
        let _ = tokio::time::timeout(patience, futures_util::future::join_all(tried)).await;
    }

    pub fn all(&self) -> Vec<Arc<S>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Weak<S>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// The first time it was asked is over.
    pub fn tried(&self) {
        self.tried.send_replace(true);
    }
}
