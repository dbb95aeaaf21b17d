//! Who checks when: one task for each upstream that has checks, beside the request path.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::ask::ask;
use super::checked::Checked;
use super::compile::Check;
use crate::clock;
use crate::upstream::Upstream;

/// Most checks at once, of all upstreams together.
const AT_ONCE: usize = 256;
/// How often it is looked for targets that have come or gone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How soon a target is looked at again whose name has no address yet.
const UNRESOLVED: Duration = Duration::from_secs(1);

/// Checks the targets of the upstreams that `current` gives, and looks again whenever `changed` tells; until there is nothing
/// to look at any more. What is gone is not checked any more, and a check of it that is under way is dropped.
pub async fn keep_checking(mut changed: watch::Receiver<u64>, current: impl Fn() -> Option<Vec<Arc<Upstream>>>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut rounds = Rounds::default();
    loop {
        changed.borrow_and_update();
        let Some(upstreams) = current() else { return };
        rounds.follow(upstreams, &places);
        // A discovery changes targets without a reload.
        if let Ok(Err(_)) = timeout(LOOK_AGAIN, changed.changed()).await {
            return;
        }
    }
}

/// The upstreams that are being checked. Dropped, it stops all checks.
#[derive(Default)]
struct Rounds {
    /// By where they are in memory: an upstream that changed is another one.
    running: HashMap<usize, (Arc<Upstream>, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Rounds {
    fn follow(&mut self, upstreams: Vec<Arc<Upstream>>, places: &Arc<Semaphore>) {
        let is_checked = |upstream: &Arc<Upstream>| check_of(upstream).is_some();
        let mut before = std::mem::take(&mut self.running);
        let mut begin = Vec::new();
        for upstream in upstreams.into_iter().filter(is_checked) {
            let key = Arc::as_ptr(&upstream) as usize;
            match before.remove(&key) {
                Some(known) => drop(self.running.insert(key, known)),
                None => begin.push((key, upstream)),
            }
        }
        // First: who takes over finds nobody else at it.
        before.into_values().for_each(|(_, task)| task.abort());
        for (key, upstream) in begin {
            let task = self.tasks.spawn(round(Arc::clone(&upstream), Arc::clone(places)));
            self.running.insert(key, (upstream, task));
        }
        while self.tasks.try_join_next().is_some() {}
    }
}

fn check_of(upstream: &Upstream) -> Option<&Arc<Check>> {
    upstream.health.as_ref()?.rules.check.as_ref()
}

/// Checks all targets of an upstream, each at its own pace.
async fn round(upstream: Arc<Upstream>, places: Arc<Semaphore>) {
    let mut targets = JoinSet::new();
    for index in 0..upstream.targets.len() {
        targets.spawn(attend(Arc::clone(&upstream), index, Arc::clone(&places)));
    }
    targets.join_all().await;
}

/// Checks one target again and again.
async fn attend(upstream: Arc<Upstream>, index: usize, places: Arc<Semaphore>) {
    let Some((target, check)) = upstream.targets.get(index).zip(check_of(&upstream)) else { return };
    let Some(checked) = target.health.as_ref().and_then(|health| health.checked.as_ref()) else { return };
    loop {
        let now = clock::now();
        sleep(checked.due(check, now).saturating_duration_since(now)).await;
        let Ok(_place) = places.acquire().await else { return };
        let addresses = target.addresses();
        // Of a name with several addresses one after the other: each of them gets requests.
        let Some(address) = turn(checked, addresses.len()).and_then(|turn| addresses.get(turn)) else {
            checked.postpone(UNRESOLVED, clock::now());
            continue;
        };
        let started = clock::now();
        let result = ask(check, &upstream, target, *address).await;
        let now = clock::now();
        checked.hear(check, result, started, now, fastrand::f32());
        // Tells when that leaves too few targets.
        upstream.standing(now);
    }
}

fn turn(checked: &Checked, addresses: usize) -> Option<usize> {
    let (good, bad) = checked.counts();
    usize::try_from(good.wrapping_add(bad)).unwrap_or_default().checked_rem(addresses)
}
