//! The worker of one inbox: claims messages and sends couriers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{error, info};

use super::Phase;
use super::board::Board;
use super::courier::{Courier, lease};
use super::pause::{Allowance, Pause};
use super::post::Post;
use crate::clock;
use crate::gateway::Inbox;
use crate::inbox::{Claimed, Queue};
use crate::state::StoreError;
use crate::upstream::breaker::Room;

/// The least pause between two looks at an inbox that gave nothing though it said something would be due.
const LOOK_LEAST: Duration = Duration::from_millis(20);
/// Pauses while the store is away.
const AWAY_FIRST: Duration = Duration::from_millis(250);
const AWAY_LONGEST: Duration = Duration::from_secs(10);
/// How soon it is told that a pause is over, where no message waits.
const SHOWN_AGAIN: Duration = Duration::from_secs(1);
/// Stands for never.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// The worker of one inbox.
pub struct Worker {
    queue: Arc<dyn Queue>,
    settings: watch::Receiver<Arc<Inbox>>,
    wake: Arc<Notify>,
    phase: watch::Receiver<Phase>,
    inbox: Arc<Inbox>,
    post: Arc<Post>,
    pause: Arc<Mutex<Pause>>,
    board: Arc<Board>,
    /// What the board says.
    shown_paused: bool,
    under_way: JoinSet<()>,
    /// There may be something to claim.
    hungry: bool,
    /// When there is something to claim next, as far as is known.
    next: Option<Instant>,
    /// While the store is away: how long it is left alone, and until when.
    away: Option<(Duration, Instant)>,
}

impl Worker {
    /// Ends when the sender of `settings` is dropped, or with the phase.
    pub fn new(
        queue: &Arc<dyn Queue>,
        settings: watch::Receiver<Arc<Inbox>>,
        wake: Arc<Notify>,
        phase: watch::Receiver<Phase>,
        board: &Arc<Board>,
    ) -> Self {
        let inbox = Arc::clone(&settings.borrow());
        Self {
            queue: Arc::clone(queue),
            wake,
            phase,
            post: Arc::new(Post::new(inbox.upstream.load())),
            inbox,
            settings,
            pause: Arc::default(),
            board: Arc::clone(board),
            shown_paused: false,
            under_way: JoinSet::new(),
            hungry: true,
            next: None,
            away: None,
        }
    }

    pub async fn run(mut self) {
        while self.goes_on() {
            self.follow_settings();
            self.follow_targets();
            let now = clock::now();
            if self.hungry && self.away.is_none_or(|(_, until)| now >= until) {
                while self.claim(now).await {}
            }
            self.show();
            self.wait().await;
        }
        // Each of them sees by itself when it is cut off.
        while self.under_way.join_next().await.is_some() {}
        self.board.pause(&self.inbox.name, false);
    }

    fn goes_on(&mut self) -> bool {
        *self.phase.borrow_and_update() == Phase::Run
            && self.phase.has_changed().is_ok()
            && self.settings.has_changed().is_ok()
    }

    fn follow_settings(&mut self) {
        if !self.settings.has_changed().unwrap_or_default() {
            return;
        }
        let inbox = Arc::clone(&self.settings.borrow_and_update());
        let before = std::mem::replace(&mut self.inbox, inbox);
        self.hungry = true;
        if !Arc::ptr_eq(&before.upstream, &self.inbox.upstream) {
            // Another upstream, or the same with other settings: what is known of the old one does not count.
            self.pause = Arc::default();
        }
    }

    /// What is sent from now on goes to the targets that the upstream has now.
    fn follow_targets(&mut self) {
        let upstream = self.inbox.upstream.load();
        if !self.post.leads_to(&upstream) {
            self.post = Arc::new(Post::new(upstream));
        }
    }

    /// Tells whether deliveries pause, when that is news.
    fn show(&mut self) {
        let paused = self.pause().is_paused() || !matches!(self.room(clock::now()), Room::All);
        if self.shown_paused != paused {
            self.shown_paused = paused;
            self.board.pause(&self.inbox.name, paused);
        }
    }

    /// Claims as many messages as may be sent, and sends them. `true`: there are more that may be.
    async fn claim(&mut self, now: Instant) -> bool {
        let allowance = self.pause().allowance(self.room(now), now);
        let room = match allowance {
            Allowance::All => self.inbox.terms.concurrency.saturating_sub(self.under_way.len()),
            Allowance::AtMost(probes) => self.inbox.terms.concurrency.min(probes).saturating_sub(self.under_way.len()),
            Allowance::Probe => 1,
            Allowance::Until(_) | Allowance::AfterProbe => 0,
        };
        if room == 0 {
            return false;
        }
        let (queue, inbox) = (Arc::clone(&self.queue), Arc::clone(&self.inbox));
        match queue.claim(&inbox.name, room, lease(&inbox), clock::wall()).await {
            Ok(claims) => {
                self.is_there();
                self.hungry = claims.messages.len() >= room;
                self.next = claims.next.map(until);
                // Large bodies come a few at a time.
                let more = !claims.messages.is_empty() && !self.hungry && self.next.is_some_and(|next| next <= now);
                for claimed in claims.messages {
                    self.send(claimed, allowance == Allowance::Probe);
                }
                more
            }
            Err(error) => {
                self.is_away(&error);
                false
            }
        }
    }

    fn send(&mut self, claimed: Claimed, probe: bool) {
        if probe {
            self.pause().probe_begins();
        }
        let courier = Courier {
            queue: Arc::clone(&self.queue),
            inbox: Arc::clone(&self.inbox),
            post: Arc::clone(&self.post),
            pause: Arc::clone(&self.pause),
            phase: self.phase.clone(),
            probe,
        };
        self.under_way.spawn(courier.carry(claimed));
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        let now = clock::now();
        let due = self.due(now);
        tokio::select! {
            Some(ended) = self.under_way.join_next() => {
                if ended.is_err() {
                    // It panicked: its claim runs out, and so must its say about the upstream.
                    self.pause().probe_ends();
                }
                self.hungry = true;
            }
            () = self.wake.notified() => self.hungry = true,
            () = tokio::time::sleep_until(due.into()) => self.hungry = true,
            // An error: the inbox has left the configuration.
            _ = self.settings.changed() => self.settings.mark_changed(),
            _ = self.phase.changed() => {}
        }
    }

    /// When to look again, if nothing happens before.
    fn due(&self, now: Instant) -> Instant {
        let after = |pause| now.checked_add(pause).unwrap_or(now);
        if let Some((_, until)) = self.away {
            return until;
        }
        match self.pause().allowance(self.room(now), now) {
            Allowance::Until(until) if self.hungry || self.next.is_some() => return until,
            Allowance::AfterProbe => return after(FAR),
            // All couriers are busy.
            Allowance::All if self.hungry => return after(FAR),
            Allowance::AtMost(_) if self.hungry && !self.under_way.is_empty() => return after(FAR),
            Allowance::All | Allowance::AtMost(_) | Allowance::Probe | Allowance::Until(_) => {}
        }
        // What ends a breaker's pause does not wake who waits for nothing.
        let idle = if self.shown_paused { after(SHOWN_AGAIN) } else { after(FAR) };
        self.next.map_or(idle, |next| next.max(after(LOOK_LEAST)))
    }

    fn is_away(&mut self, error: &StoreError) {
        let pause = match self.away {
            None => {
                error!(inbox = &*self.inbox.name, %error, "the store is away; nothing is delivered until it is there again");
                AWAY_FIRST
            }
            Some((pause, _)) => pause.saturating_mul(2).min(AWAY_LONGEST),
        };
        let now = clock::now();
        self.away = Some((pause, now.checked_add(pause).unwrap_or(now)));
    }

    fn is_there(&mut self) {
        if self.away.take().is_some() {
            info!(inbox = &*self.inbox.name, "the store is there again; deliveries go on");
        }
    }

    /// What the circuit breakers of the upstream would let through.
    fn room(&self, now: Instant) -> Room {
        self.inbox.upstream.load().room(now)
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The moment of a time of day.
fn until(due: SystemTime) -> Instant {
    let now = clock::now();
    let pause = due.duration_since(clock::wall()).unwrap_or_default().min(FAR);
    now.checked_add(pause).unwrap_or(now)
}
