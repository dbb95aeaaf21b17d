//! Delivers what inboxes hold, beside the requests.
//!
//! One thread for all inboxes, with a worker task for each inbox of the snapshot in use. A worker claims messages when there are
//! some, and sends each to the upstream of its inbox; nothing here is asked again and again whether there is something to do.
//! What a delivery came to is written to the queue before the message is forgotten: whoever is killed in between leaves a
//! claim that runs out, and the message is delivered once more.

mod board;
#[cfg(feature = "plugins")]
mod calls;
mod courier;
mod line;
mod mirror;
mod pause;
mod post;
mod verdict;
mod worker;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::clock;
use crate::gateway::Inbox;
use crate::inbox::Queue;
use crate::live::Live;
use crate::observe::metrics::Metrics;
use board::Board;
#[cfg(feature = "plugins")]
pub use calls::Calls;
pub use mirror::{Copied, Mirrors};
pub use verdict::retry_after;
use worker::Worker;

/// Messages that come within this time wake the workers once.
const GATHER: Duration = Duration::from_millis(1);
/// Pause before a worker that panicked is replaced.
const RESTART: Duration = Duration::from_secs(1);
/// How long what became of deliveries that are cut off may take to be written.
const CUT_TIMEOUT: Duration = Duration::from_secs(3);

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Run,
    /// Nothing is claimed any more; what is under way goes on.
    Finish,
    /// What is under way is given back.
    Cut,
}

/// The thread that delivers.
pub struct Delivery {
    phase: watch::Sender<Phase>,
    /// Closed when the thread has ended.
    alive: watch::Receiver<()>,
}

impl Delivery {
    /// Starts to deliver what the inboxes of the snapshot in use hold.
    ///
    /// # Errors
    /// The system gives no thread or no runtime.
    pub fn start(live: Arc<Live>, queue: Arc<dyn Queue>, metrics: &Metrics) -> std::io::Result<Self> {
        let (phase, followed) = watch::channel(Phase::Run);
        let (life, alive) = watch::channel(());
        let board = Arc::new(Board::default());
        let shown = Arc::clone(&board);
        metrics.show_inboxes(move || shown.samples());
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("delivery".to_owned()).spawn(move || {
            runtime.block_on(follow(&live, &queue, &board, followed));
            drop(life);
        })?;
        Ok(Self { phase, alive })
    }

    /// Claims nothing any more, and waits until the deliveries under way have ended.
    pub async fn finish(&self) {
        self.phase.send_if_modified(|phase| {
            let first = *phase < Phase::Finish;
            *phase = (*phase).max(Phase::Finish);
            first
        });
        self.ended().await;
    }

    /// Cuts off the deliveries under way. Their messages are ready for the next start, as delivered perhaps.
    pub async fn cut(&self) {
        self.phase.send_replace(Phase::Cut);
        if tokio::time::timeout(CUT_TIMEOUT, self.ended()).await.is_err() {
            warn!("deliveries could not be given back in time; they are repeated when their claims run out");
        }
    }

    async fn ended(&self) {
        let mut alive = self.alive.clone();
        // Nothing is ever sent: it ends with the sender.
        while alive.changed().await.is_ok() {}
    }
}

/// A worker at work.
struct Running {
    settings: watch::Sender<Arc<Inbox>>,
    wake: Arc<Notify>,
}

/// Keeps a worker for each inbox of the snapshot in use, until the end.
async fn follow(live: &Arc<Live>, queue: &Arc<dyn Queue>, board: &Arc<Board>, mut phase: watch::Receiver<Phase>) {
    let mut swapped = live.subscribe();
    let mut workers: HashMap<Arc<str>, Running> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut stranded = BTreeSet::new();
    tokio::spawn(keep_board(live, queue, board));
    let mut reloaded = true;
    // Made before the workers look: nothing that comes after is missed.
    let mut changed = queue.changed();
    while *phase.borrow_and_update() == Phase::Run {
        if std::mem::take(&mut reloaded) {
            let current = live.current();
            reconcile(current.inboxes(), &mut workers, |inbox, wake| {
                tasks.spawn(Worker::new(queue, inbox, wake, phase.clone(), board).run());
            });
            tell_stranded(queue, current.inboxes(), &mut stranded).await;
        }
        tokio::select! {
            () = &mut changed => {
                tokio::time::sleep(GATHER).await;
                changed = queue.changed();
                workers.values().for_each(|worker| worker.wake.notify_one());
            }
            told = swapped.changed() => match told {
                Ok(()) => reloaded = true,
                Err(_) => break,
            },
            // An error: whoever started it has let go of it.
            told = phase.changed() => if told.is_err() {
                break;
            },
            Some(ended) = tasks.join_next() => if ended.is_err() {
                // It panicked, which the log says: another one takes its place, but not over and over at once.
                tokio::time::sleep(RESTART).await;
                workers.retain(|_, worker| !worker.settings.is_closed());
                reloaded = true;
            }
        }
    }
    // Each worker sees the end by itself.
    while tasks.join_next().await.is_some() {}
}

/// Keeps the board for as long as there is a snapshot in use.
fn keep_board(live: &Arc<Live>, queue: &Arc<dyn Queue>, board: &Arc<Board>) -> impl Future<Output = ()> + Send + use<> {
    let (live, queue, board) = (Arc::clone(live), Arc::clone(queue), Arc::clone(board));
    async move {
        let configured = || live.current().inboxes().iter().map(|inbox| Arc::clone(&inbox.name)).collect();
        board.keep(queue.as_ref(), configured).await;
    }
}

/// Starts workers for new inboxes, tells the others their settings, and lets go of those whose inbox has left.
fn reconcile(
    inboxes: &[Arc<Inbox>],
    workers: &mut HashMap<Arc<str>, Running>,
    mut start: impl FnMut(watch::Receiver<Arc<Inbox>>, Arc<Notify>),
) {
    // A worker whose settings are dropped ends.
    workers.retain(|name, _| inboxes.iter().any(|inbox| inbox.name == *name));
    for inbox in inboxes {
        if let Some(worker) = workers.get(&inbox.name) {
            worker.settings.send_replace(Arc::clone(inbox));
            continue;
        }
        let wake = Arc::new(Notify::new());
        let (settings, followed) = watch::channel(Arc::clone(inbox));
        start(followed, Arc::clone(&wake));
        workers.insert(Arc::clone(&inbox.name), Running { settings, wake });
    }
}

/// Says which inboxes hold messages that nobody delivers, once for each. They are kept until the inbox is there again.
async fn tell_stranded(queue: &Arc<dyn Queue>, inboxes: &[Arc<Inbox>], told: &mut BTreeSet<String>) {
    // A store that is away is told of by the workers; the next reload looks again.
    let Ok(names) = queue.inboxes().await else { return };
    let stranded: BTreeSet<String> =
        names.into_iter().filter(|name| !inboxes.iter().any(|inbox| *inbox.name == **name)).collect();
    for inbox in stranded.difference(told) {
        if let Ok(counts) = queue.counts(inbox, clock::wall()).await {
            let waiting = counts.ready.saturating_add(counts.delayed).saturating_add(counts.claimed);
            let dead = counts.dead;
            warn!(
                inbox,
                waiting, dead, "the configuration has no such inbox any more; its messages are kept, not delivered"
            );
        }
    }
    for inbox in told.difference(&stranded) {
        info!(inbox, "no message of this inbox is left behind any more");
    }
    *told = stranded;
}

#[cfg(test)]
mod tests;
