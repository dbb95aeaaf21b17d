//! What a breaker decides, as a function of what happened and when. Nothing here reads a clock or logs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::tally::Tally;

/// How long to stay away from a half-open breaker that has no probe to give.
const PROBES_WAIT: Duration = Duration::from_secs(1);
/// A probe whose answer began well and takes longer than this to be over has succeeded: streams would keep its place for hours.
pub const PROVEN_AFTER: Duration = Duration::from_secs(5);

/// When a breaker opens and closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// So many failures within the window open it.
    pub failures: Option<u32>,
    /// Or such a share of the requests.
    pub share: Option<Share>,
    pub window: Duration,
    /// An answer whose head takes longer is a failure.
    pub slow: Option<Duration>,
    pub open_for: Duration,
    /// Probes at once, and how many of them have to succeed.
    pub half_open_requests: u32,
    /// Statuses that are failures.
    pub on: Vec<u16>,
}

/// A share of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Of a million.
    pub millionths: u32,
    /// It is not looked at with fewer requests than this in the window.
    pub requests_min: u32,
}

/// Whether requests pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    HalfOpen,
    Open,
}

/// The right to ask. It counts for the time between two changes of state only: what began before says nothing about now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub generation: u64,
    pub probe: bool,
}

/// What was counted within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub failures: u64,
    /// All requests; only where a share of them counts.
    pub requests: Option<u64>,
}

/// The state of one breaker.
pub struct Machine {
    rules: Rules,
    phase: Phase,
    /// Grows with every change of state.
    generation: u64,
    since: Instant,
    /// The latest moment that was heard of: two threads may tell theirs in another order than they read it.
    latest: Instant,
    /// The latest failures, no more than open it. Exact, where a ring of counts would not be.
    failures: VecDeque<Instant>,
    /// Failures, for the share.
    failed: Tally,
    /// What opened it last.
    opened_by: Counts,
}

enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen(Probes),
}

#[derive(Default)]
struct Probes {
    /// Begun, and neither ended nor proven.
    running: u32,
    succeeded: u32,
    /// When the answers of running ones began.
    answered: Vec<Instant>,
}

/// How many may ask now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    All,
    Probes(u32),
    Until(Instant),
}

impl Machine {
    pub fn new(rules: Rules, now: Instant) -> Self {
        Self {
            failed: Tally::new(rules.window, now),
            rules,
            phase: Phase::Closed,
            generation: 0,
            since: now,
            latest: now,
            failures: VecDeque::new(),
            opened_by: Counts::default(),
        }
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen(_) => State::HalfOpen,
        }
    }

    pub fn since(&self) -> Instant {
        self.since
    }

    /// When an open one lets the first probe through.
    pub fn until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open { until } => Some(until),
            Phase::Closed | Phase::HalfOpen(_) => None,
        }
    }

    /// What counts now; once it opened, what opened it.
    pub fn counts(&mut self, now: Instant, succeeded: &Tally) -> Counts {
        match self.phase {
            Phase::Closed => {
                let now = self.hear(now);
                self.count(now, succeeded)
            }
            Phase::Open { .. } | Phase::HalfOpen(_) => self.opened_by,
        }
    }

    /// Asks to pass. Otherwise: how long to stay away.
    pub fn admit(&mut self, now: Instant) -> Result<Ticket, Duration> {
        let now = self.hear(now);
        if matches!(self.phase, Phase::Open { until } if now >= until) {
            self.turn(Phase::HalfOpen(Probes::default()), now);
        }
        self.settle(now);
        let half_open_requests = self.rules.half_open_requests;
        let probe = match &mut self.phase {
            Phase::Closed => false,
            Phase::Open { until } => return Err(until.saturating_duration_since(now)),
            Phase::HalfOpen(probes) if probes.free(half_open_requests) == 0 => return Err(PROBES_WAIT),
            Phase::HalfOpen(probes) => {
                probes.running = probes.running.saturating_add(1);
                true
            }
        };
        Ok(Ticket { generation: self.generation, probe })
    }

    /// How many may pass, without asking to.
    pub fn room(&self, now: Instant) -> Room {
        match &self.phase {
            Phase::Closed => Room::All,
            Phase::Open { until } if now < *until => Room::Until(*until),
            Phase::Open { .. } => Room::Probes(self.rules.half_open_requests),
            Phase::HalfOpen(probes) => {
                let proven = probes.answered.iter().filter(|at| is_proven(**at, now)).count();
                // The last one that is missing may be proven by now: then the next to ask closes it.
                if proven > 0 { Room::Probes(1) } else { Room::Probes(probes.free(self.rules.half_open_requests)) }
            }
        }
    }

    /// The answer to a probe began, and began well.
    pub fn probe_answered(&mut self, ticket: Ticket, now: Instant) {
        if let Some(probes) = self.probes(ticket) {
            probes.answered.push(now);
        }
    }

    /// A probe is over that did not fail. `answered` is when its answer began; none: it told nothing, its place is free again.
    pub fn probe_ended(&mut self, ticket: Ticket, answered: Option<Instant>, now: Instant) {
        let now = self.hear(now);
        let Some(probes) = self.probes(ticket) else { return };
        let Some(answered) = answered else {
            probes.running = probes.running.saturating_sub(1);
            return;
        };
        // Otherwise it was proven before.
        if let Some(place) = probes.answered.iter().position(|at| *at == answered) {
            probes.answered.swap_remove(place);
            probes.succeed(1);
        }
        self.close_when_proven(now);
    }

    /// What was let through with `ticket` failed.
    pub fn failed(&mut self, ticket: Ticket, now: Instant, succeeded: &Tally) {
        let now = self.hear(now);
        if ticket.generation != self.generation {
            return;
        }
        match self.phase {
            Phase::Open { .. } => {}
            Phase::HalfOpen(_) => {
                self.opened_by = Counts { failures: 1, requests: None };
                self.open(now);
            }
            Phase::Closed => {
                self.note_failure(now);
                let counts = self.count(now, succeeded);
                if self.is_too_much(counts) {
                    self.opened_by = counts;
                    self.open(now);
                }
            }
        }
    }

    fn note_failure(&mut self, now: Instant) {
        if let Some(max) = self.rules.failures {
            self.failures.push_back(now);
            while self.failures.len() > usize::try_from(max).unwrap_or(usize::MAX) {
                self.failures.pop_front();
            }
        }
        if self.rules.share.is_some() {
            self.failed.add(now);
        }
    }

    fn count(&mut self, now: Instant, succeeded: &Tally) -> Counts {
        let window = self.rules.window;
        while self.failures.front().is_some_and(|at| now.saturating_duration_since(*at) >= window) {
            self.failures.pop_front();
        }
        let latest = u64::try_from(self.failures.len()).unwrap_or(u64::MAX);
        if self.rules.share.is_none() {
            return Counts { failures: latest, requests: None };
        }
        let failed = self.failed.sum(now);
        let requests = failed.saturating_add(succeeded.sum(now));
        Counts { failures: failed, requests: Some(requests) }
    }

    fn is_too_much(&self, counts: Counts) -> bool {
        let latest = u32::try_from(self.failures.len()).unwrap_or(u32::MAX);
        let by_count = self.rules.failures.is_some_and(|max| latest >= max);
        let by_share = self.rules.share.zip(counts.requests).is_some_and(|(share, requests)| {
            let of_million = u128::from(counts.failures).saturating_mul(1_000_000);
            requests >= u64::from(share.requests_min)
                && of_million >= u128::from(requests).saturating_mul(share.millionths.into())
        });
        by_count || by_share
    }

    fn open(&mut self, now: Instant) {
        self.turn(Phase::Open { until: now.checked_add(self.rules.open_for).unwrap_or(now) }, now);
    }

    /// Probes that have been under way for long count as succeeded.
    fn settle(&mut self, now: Instant) {
        if let Phase::HalfOpen(probes) = &mut self.phase {
            let before = probes.answered.len();
            probes.answered.retain(|at| !is_proven(*at, now));
            let proven = before.saturating_sub(probes.answered.len());
            probes.succeed(u32::try_from(proven).unwrap_or(u32::MAX));
            self.close_when_proven(now);
        }
    }

    fn close_when_proven(&mut self, now: Instant) {
        let needed = self.rules.half_open_requests;
        if matches!(&self.phase, Phase::HalfOpen(probes) if probes.succeeded >= needed) {
            self.turn(Phase::Closed, now);
        }
    }

    fn turn(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
        self.generation = self.generation.wrapping_add(1);
        self.failures.clear();
        self.failed.clear();
    }

    fn probes(&mut self, ticket: Ticket) -> Option<&mut Probes> {
        match &mut self.phase {
            Phase::HalfOpen(probes) if ticket.generation == self.generation => Some(probes),
            _ => None,
        }
    }

    fn hear(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }
}

impl Probes {
    /// No more are let through than have to succeed.
    fn free(&self, max: u32) -> u32 {
        max.saturating_sub(self.running).saturating_sub(self.succeeded)
    }

    fn succeed(&mut self, count: u32) {
        self.running = self.running.saturating_sub(count);
        self.succeeded = self.succeeded.saturating_add(count);
    }
}

fn is_proven(answered: Instant, now: Instant) -> bool {
    now.saturating_duration_since(answered) >= PROVEN_AFTER
}

#[cfg(test)]
mod tests;
