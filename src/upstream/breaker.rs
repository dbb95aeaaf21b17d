//! Circuit breakers: who fails too often is left alone for a while, then asked again with a few requests.
//!
//! A [`Breaker`] is shared by all threads, by the snapshots that keep its settings, and by the requests it let through. A request
//! that finds it closed reads one atomic, and one that succeeds adds to one where a share of the requests counts, otherwise
//! nothing. The lock is for failures, for probes, and for while it is not closed.

mod compile;
mod machine;
pub(super) mod tally;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::clock;

pub use compile::Breakers;
pub use machine::{Counts, Room, Rules, State};
use machine::{Machine, Ticket};
use tally::Tally;

/// Set in the gate while the breaker is closed.
const CLOSED: u64 = 1;

/// A circuit breaker.
pub struct Breaker {
    upstream: Arc<str>,
    /// Whose it is. None: that of the whole upstream.
    target: Option<Of>,
    rules: Rules,
    /// The generation, and whether it is closed: what a request has to know that it lets through.
    gate: AtomicU64,
    /// Requests that succeeded, for the share of those that did not.
    succeeded: Tally,
    machine: Mutex<Machine>,
    transitions: [AtomicU64; STATES.len()],
}

/// The target of a breaker.
#[derive(Clone)]
pub struct Of {
    pub label: Arc<str>,
    /// Told when the breaker closes: the target warms up.
    pub state: Arc<super::State>,
}

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub state: State,
    pub since: Instant,
    /// When an open one lets the first probe through.
    pub until: Option<Instant>,
    pub counts: Counts,
}

/// All states, in the order of their numbers in the metric.
pub const STATES: [State; 3] = [State::Closed, State::HalfOpen, State::Open];

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// The right to ask. Dropped, it gives back what it took: an exchange whose answer began well has succeeded, one that told
/// nothing about the service never counts.
#[must_use = "the exchange is over when this is dropped"]
pub struct Permit {
    breaker: Arc<Breaker>,
    ticket: Ticket,
    stage: Stage,
}

enum Stage {
    Asked,
    Answered(Instant),
    Failed,
}

impl Breaker {
    pub fn new(rules: Rules, upstream: Arc<str>, target: Option<Of>, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            upstream,
            target,
            gate: AtomicU64::new(CLOSED),
            succeeded: Tally::new(rules.window, now),
            machine: Mutex::new(Machine::new(rules.clone(), now)),
            rules,
            transitions: Default::default(),
        })
    }

    /// Asks to pass. Otherwise: how long to stay away.
    pub fn admit(self: &Arc<Self>, now: Instant) -> Result<Permit, Duration> {
        let gate = self.gate.load(Ordering::Acquire);
        let ticket = if gate & CLOSED != 0 {
            Ticket { generation: gate >> 1, probe: false }
        } else {
            self.with(|machine| machine.admit(now))?
        };
        Ok(Permit { breaker: Arc::clone(self), ticket, stage: Stage::Asked })
    }

    /// How many may pass, without asking to.
    pub fn room(&self, now: Instant) -> Room {
        if self.gate.load(Ordering::Acquire) & CLOSED != 0 { Room::All } else { self.lock().room(now) }
    }

    /// Whether one more may pass, without asking to.
    pub fn has_room(&self, now: Instant) -> bool {
        match self.room(now) {
            Room::All => true,
            Room::Probes(probes) => probes > 0,
            Room::Until(_) => false,
        }
    }

    pub fn view(&self, now: Instant) -> View {
        let mut machine = self.lock();
        let counts = machine.counts(now, &self.succeeded);
        View { state: machine.state(), since: machine.since(), until: machine.until(), counts }
    }

    /// How often it came into each of [`STATES`].
    pub fn transitions(&self) -> [u64; STATES.len()] {
        self.transitions.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Does something with the machine, and tells of a change of state.
    fn with<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = self.lock();
        let before = machine.generation();
        let done = act(&mut machine);
        if machine.generation() == before {
            return done;
        }
        let state = machine.state();
        if state == State::Closed {
            self.succeeded.clear();
            if let Some(target) = &self.target {
                target.state.warm_up(machine.since());
            }
        }
        let closed = if state == State::Closed { CLOSED } else { 0 };
        self.gate.store(machine.generation().wrapping_shl(1) | closed, Ordering::Release);
        if let Some(count) = self.transitions.get(state as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let since = machine.since();
        let counts = machine.counts(since, &self.succeeded);
        drop(machine);
        self.tell(state, counts);
        done
    }

    fn tell(&self, state: State, counts: Counts) {
        let (upstream, address) = (&*self.upstream, self.target.as_ref().map(|target| &*target.label));
        let Counts { failures, requests } = counts;
        match state {
            State::Open => warn!(
                upstream,
                // Not `target`: in JSON that is the module which speaks.
                address,
                failures,
                requests,
                open_for_ms = u64::try_from(self.rules.open_for.as_millis()).unwrap_or(u64::MAX),
                "the circuit breaker opens"
            ),
            State::HalfOpen => info!(upstream, address, "the circuit breaker is half-open: it lets probes through"),
            State::Closed => info!(upstream, address, "the circuit breaker closes: all requests pass"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The head of the answer is there, so long after the service was asked.
    pub fn answered(&mut self, status: u16, took: Duration, now: Instant) {
        let rules = &self.breaker.rules;
        if rules.on.contains(&status) || rules.slow.is_some_and(|slow| took > slow) {
            return self.failed(now);
        }
        if !matches!(self.stage, Stage::Asked) {
            return;
        }
        self.stage = Stage::Answered(now);
        if self.ticket.probe {
            self.breaker.with(|machine| machine.probe_answered(self.ticket, now));
        }
    }

    /// The service did not answer, or broke off. Counts once.
    pub fn failed(&mut self, now: Instant) {
        if !matches!(self.stage, Stage::Failed) {
            self.stage = Stage::Failed;
            let breaker = &self.breaker;
            breaker.with(|machine| machine.failed(self.ticket, now, &breaker.succeeded));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let answered = match self.stage {
            Stage::Failed => return,
            Stage::Asked => None,
            Stage::Answered(at) => Some(at),
        };
        if self.ticket.probe {
            self.breaker.with(|machine| machine.probe_ended(self.ticket, answered, clock::now()));
        } else if let Some(at) = answered.filter(|_| self.breaker.rules.share.is_some())
            && self.breaker.gate.load(Ordering::Relaxed) >> 1 == self.ticket.generation
        {
            self.breaker.succeeded.add(at);
        }
    }
}

#[cfg(test)]
mod tests;
