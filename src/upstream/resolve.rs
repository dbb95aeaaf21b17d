//! Names of targets, resolved beside the request path.
//!
//! The last good answer is kept: a resolver that is down costs nothing but freshness.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Upstream;
use crate::clock;

/// How often names are resolved again.
const EVERY: Duration = Duration::from_secs(5);
/// How long one look-up may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// Most addresses of one name that are used.
const ADDRESSES_MAX: usize = 64;

/// A name and the addresses it had when last asked for.
pub struct Resolved {
    host: String,
    port: u16,
    addresses: ArcSwap<Vec<SocketAddr>>,
    next: AtomicUsize,
    failing: AtomicBool,
}

impl Resolved {
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            addresses: ArcSwap::default(),
            next: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
        }
    }

    /// Begins with the addresses that another one of the same name has.
    pub fn take_over(&self, before: &Self) {
        self.addresses.store(before.addresses.load_full());
        self.failing.store(before.failing.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub fn next(&self) -> Option<SocketAddr> {
        let addresses = self.addresses.load();
        let turn = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(addresses.len())?;
        addresses.get(turn).copied()
    }

    pub fn is_known(&self) -> bool {
        !self.addresses.load().is_empty()
    }

    pub fn all(&self) -> Vec<SocketAddr> {
        self.addresses.load().to_vec()
    }

    async fn refresh(&self, upstream: &str) {
        let found = match timeout(LOOKUP_TIMEOUT, lookup_host((self.host.as_str(), self.port))).await {
            Ok(Ok(found)) => Ok(found.take(ADDRESSES_MAX).collect::<Vec<_>>()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {LOOKUP_TIMEOUT:?}")),
        };
        match found {
            Ok(mut found) if !found.is_empty() => {
                found.sort_unstable();
                found.dedup();
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!(upstream, host = self.host, "the name resolves again");
                }
                if **self.addresses.load() != found {
                    self.addresses.store(Arc::new(found));
                }
            }
            other => {
                let error = other.err().unwrap_or_else(|| "no address".to_owned());
                if !self.failing.swap(true, Ordering::Relaxed) {
                    warn!(
                        upstream,
                        host = self.host,
                        error,
                        "cannot resolve the name; the last known addresses stay in use"
                    );
                }
            }
        }
    }
}

/// Resolves the names that have no address yet, all at once, for at most `patience`. What takes longer is left to
/// [`keep_resolving`].
pub async fn resolve_new(upstreams: impl Iterator<Item = Arc<Upstream>>, patience: Duration) {
    let _ = timeout(patience, refresh(upstreams, |resolved| !resolved.is_known(), false)).await;
}

/// Resolves all names of the upstreams that `current` gives, again and again, until it gives `None`.
pub async fn keep_resolving(current: impl Fn() -> Option<Vec<Arc<Upstream>>>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(upstreams) = current() else { return };
        refresh(upstreams.into_iter(), |_| true, true).await;
    }
}

/// `late`: requests are being served, and a target that gets its first address now is new among the others.
async fn refresh(upstreams: impl Iterator<Item = Arc<Upstream>>, wanted: impl Fn(&Resolved) -> bool, late: bool) {
    let mut lookups = JoinSet::new();
    for upstream in upstreams {
        for (index, target) in upstream.targets().iter().enumerate() {
            if target.resolved().is_some_and(&wanted) {
                let upstream = Arc::clone(&upstream);
                lookups.spawn(async move {
                    let Some(target) = upstream.targets().get(index) else { return };
                    let Some(resolved) = target.resolved() else { return };
                    let was_known = resolved.is_known();
                    resolved.refresh(&upstream.name).await;
                    if late && !was_known && resolved.is_known() {
                        target.state.warm_up(clock::now());
                    }
                });
            }
        }
    }
    lookups.join_all().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_gets_addresses_and_keeps_them_when_the_resolver_fails() {
        let resolved = Resolved::new("localhost", 80);
        assert_eq!(resolved.next(), None);
        resolved.refresh("u").await;
        let before = resolved.all();
        assert!(!before.is_empty());
        let broken = Resolved { host: "no-such-host.invalid".into(), ..resolved };
        broken.refresh("u").await;
        assert_eq!(broken.all(), before);
        assert!(broken.failing.load(Ordering::Relaxed));
    }
}
