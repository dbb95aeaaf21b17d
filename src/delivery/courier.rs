//! One delivery, from the claim to the note of what it came to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::Phase;
use super::pause::Pause;
use super::post::Post;
use super::verdict::Answer;
use crate::clock;
use crate::gateway::Inbox;
use crate::inbox::{Claimed, Fate, Outcome, Queue, Service};

/// How much longer a claim lasts than a delivery.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// Longer deliveries renew their claims: what a dead gateway had is not to wait for longer.
const LEASE_MAX: Duration = Duration::from_secs(60);
/// How often a claim is renewed, at least, before it runs out.
const RENEWALS: u32 = 3;
/// Pauses between attempts to write down what a delivery came to.
const NOTE_FIRST: Duration = Duration::from_millis(100);
const NOTE_LONGEST: Duration = Duration::from_secs(2);

/// How long a message is claimed for.
pub fn lease(inbox: &Inbox) -> Duration {
    inbox.terms.timeout.saturating_add(LEASE_MARGIN).min(LEASE_MAX)
}

/// What a delivery needs. One for each message.
pub struct Courier {
    pub queue: Arc<dyn Queue>,
    pub inbox: Arc<Inbox>,
    pub post: Arc<Post>,
    pub pause: Arc<Mutex<Pause>>,
    pub phase: watch::Receiver<Phase>,
    /// It is sent to see whether the upstream is back.
    pub probe: bool,
}

/// How the sending ended.
enum Sent {
    Answered(Answer),
    /// Somebody else may have the message by now.
    Lost,
    /// There is no time for an answer any more.
    Cut,
}

impl Courier {
    /// Delivers a message that was claimed just now.
    pub async fn carry(self, claimed: Claimed) {
        let mut service = Service::default();
        let sent = self.send(&claimed, &mut service.target).await;
        let answer = match sent {
            Sent::Answered(answer) => answer,
            Sent::Lost => {
                self.told_nothing();
                let id = &*claimed.message.id;
                warn!(inbox = &*self.inbox.name, id, "the claim of a message ran out while it was delivered");
                return;
            }
            Sent::Cut => {
                // It may have arrived: the next one is another attempt.
                let why = "the gateway was stopped during the delivery".to_owned();
                self.end(&claimed, Outcome::Retry { due: clock::wall(), why }, service).await;
                return;
            }
        };
        // Before the message can be claimed again.
        self.judge(&answer);
        service.status = match &answer {
            Answer::Status(status, _) => Some(status.as_u16()),
            Answer::Broken(_) | Answer::Unreachable(_) | Answer::Refused | Answer::Damaged => None,
        };
        let outcome = answer.outcome(claimed.attempt, &self.inbox.terms, clock::wall(), fastrand::f64());
        self.end(&claimed, outcome, service).await;
    }

    /// Writes down what became of the message, and tells it.
    async fn end(&self, claimed: &Claimed, outcome: Outcome, service: Service) {
        if !self.note(claimed, &outcome).await {
            return;
        }
        let (inbox, id, attempt) = (&*self.inbox.name, &*claimed.message.id, claimed.attempt);
        let fate = match &outcome {
            Outcome::Delivered => Fate::Delivered,
            Outcome::Retry { due, why } => Fate::Retry(*due, why),
            Outcome::Dead { why } => {
                warn!(inbox, id, attempt, why, "a message is dead: its last attempt failed");
                Fate::Dead(why)
            }
            Outcome::Returned => return,
        };
        self.inbox.account.ended(claimed, fate, service, clock::wall());
    }

    /// Sends it; `target` becomes the address that was tried last.
    async fn send(&self, claimed: &Claimed, target: &mut Option<SocketAddr>) -> Sent {
        let mut phase = self.phase.clone();
        tokio::select! {
            answer = self.post.deliver(claimed, self.inbox.terms.timeout, target) => Sent::Answered(answer),
            () = self.hold(claimed) => Sent::Lost,
            _ = phase.wait_for(|phase| *phase == Phase::Cut) => Sent::Cut,
        }
    }

    /// Renews the claim until it is lost.
    async fn hold(&self, claimed: &Claimed) {
        let lease = lease(&self.inbox);
        let every = lease.checked_div(RENEWALS).unwrap_or(lease);
        loop {
            tokio::time::sleep(every).await;
            match self.queue.renew(claimed, lease, clock::wall()).await {
                Ok(true) => {}
                Ok(false) => return,
                // Whether it is lost is seen when the store is there again.
                Err(error) => debug!(inbox = &*self.inbox.name, %error, "a claim could not be renewed"),
            }
        }
    }

    /// What the answer says about the upstream.
    fn judge(&self, answer: &Answer) {
        let (inbox, upstream, now) = (&*self.inbox.name, &*self.inbox.upstream.name, clock::now());
        let begins = match answer {
            Answer::Unreachable(_) => self.pause().unreachable(self.probe, now),
            Answer::Refused | Answer::Damaged => return self.told_nothing(),
            answer if answer.is_trouble() => self.pause().troubled(self.probe, now),
            _ => {
                if self.pause().answered() {
                    info!(inbox, upstream, "the upstream answers again; deliveries go on");
                }
                return;
            }
        };
        if begins {
            warn!(inbox, upstream, why = reason(answer), "deliveries pause; one message at a time is tried");
        }
    }

    /// Writes down what the delivery came to; whether that counts. Not forever: a claim that runs out brings the message back.
    async fn note(&self, claimed: &Claimed, outcome: &Outcome) -> bool {
        let (inbox, id) = (&*self.inbox.name, &*claimed.message.id);
        let mut phase = self.phase.clone();
        let mut pause = NOTE_FIRST;
        let until = clock::now().checked_add(lease(&self.inbox));
        loop {
            match self.queue.settle(claimed, outcome.clone(), clock::wall()).await {
                Ok(true) => return true,
                Ok(false) => {
                    warn!(inbox, id, "a delivery took longer than its claim; the message may be delivered again");
                    return false;
                }
                Err(error) if until.is_some_and(|until| clock::now() >= until) => {
                    warn!(inbox, id, %error, "what a delivery came to could not be written; it is repeated");
                    return false;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = pause.saturating_mul(2).min(NOTE_LONGEST),
                _ = phase.wait_for(|phase| *phase == Phase::Cut) => return false,
            }
        }
    }

    fn told_nothing(&self) {
        if self.probe {
            self.pause().probe_ends();
        }
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason(answer: &Answer) -> String {
    match answer {
        Answer::Status(status, _) => format!("the service answered {}", status.as_u16()),
        Answer::Broken(why) | Answer::Unreachable(why) => why.clone(),
        Answer::Refused | Answer::Damaged => String::new(),
    }
}
