//! How it stands with inboxes, for the metrics: asked now and then, not by who reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::inbox::{Counts, Queue};
use crate::observe::metrics::InboxSample;

/// How often the queue is asked.
const EVERY: Duration = Duration::from_secs(5);

/// How it stands with inboxes.
#[derive(Default)]
pub struct Board(Mutex<Shown>);

#[derive(Default)]
struct Shown {
    counts: BTreeMap<String, Counts>,
    paused: BTreeSet<Arc<str>>,
}

impl Board {
    pub fn samples(&self) -> Vec<InboxSample> {
        let (shown, now) = (self.shown(), clock::wall());
        let sample = |(inbox, counts): (&String, &Counts)| InboxSample {
            inbox: inbox.clone(),
            messages: vec![
                ("ready", counts.ready),
                ("delayed", counts.delayed),
                ("claimed", counts.claimed),
                ("dead", counts.dead),
            ],
            bytes: counts.bytes,
            oldest: counts.oldest.map(|oldest| now.duration_since(oldest).unwrap_or_default()),
            is_paused: shown.paused.contains(inbox.as_str()),
        };
        shown.counts.iter().map(sample).collect()
    }

    pub fn pause(&self, inbox: &Arc<str>, paused: bool) {
        let mut shown = self.shown();
        if paused {
            shown.paused.insert(Arc::clone(inbox));
        } else {
            shown.paused.remove(inbox);
        }
    }

    /// Asks again and again how many messages there are. `configured` names the inboxes of the snapshot in use; others are
    /// shown while they hold something.
    pub async fn keep(&self, queue: &dyn Queue, configured: impl Fn() -> Vec<Arc<str>>) {
        loop {
            self.look(queue, configured()).await;
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn look(&self, queue: &dyn Queue, configured: Vec<Arc<str>>) {
        // While the store is away, what was known last stays.
        let Ok(filled) = queue.inboxes().await else { return };
        let names: BTreeSet<String> = configured.iter().map(ToString::to_string).chain(filled).collect();
        let mut counts = BTreeMap::new();
        for name in names {
            let Ok(found) = queue.counts(&name, clock::wall()).await else { return };
            counts.insert(name, found);
        }
        self.shown().counts = counts;
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
