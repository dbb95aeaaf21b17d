//! What the breakers of an upstream and of its targets say together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::breaker::{Breaker, Breakers, Permit, Room, STATES};
use super::health::Standing;
use super::stale::Stale;
use super::{NoTarget, Target, Upstream};
use crate::clock;
use crate::observe::metrics::{BreakerSample, BreakersSample};

/// How long to stay away from targets when none of them says it.
const NEXT_PROBE: Duration = Duration::from_secs(1);

/// The breaker of an upstream as a whole, and what its breakers refused.
pub struct Circuit {
    own: Option<Arc<Breaker>>,
    stale: Option<Arc<Stale>>,
    rejected: Arc<AtomicU64>,
}

impl Circuit {
    /// Takes over from `previous` what did not change.
    pub fn compile(breakers: &Breakers, previous: Option<&Self>, name: &Arc<str>, now: Instant) -> Self {
        let known = previous.and_then(|previous| previous.own.as_ref());
        Self {
            own: Breaker::compile(breakers.upstream.as_ref(), known, name, None, now),
            stale: Stale::compile(breakers.stale.as_ref(), previous.and_then(|previous| previous.stale.as_ref())),
            rejected: previous.map(|previous| Arc::clone(&previous.rejected)).unwrap_or_default(),
        }
    }
}

/// How it stands with the breakers of these upstreams; nothing of those that have none.
pub fn breaker_samples(upstreams: &[Arc<Upstream>]) -> Vec<BreakersSample> {
    let now = clock::now();
    let breaker = |target: Option<&Arc<str>>, breaker: &Arc<Breaker>| BreakerSample {
        target: target.cloned(),
        state: breaker.view(now).state as u8,
        transitions: STATES.iter().map(|state| state.name()).zip(breaker.transitions()).collect(),
    };
    let sample = |upstream: &Arc<Upstream>| {
        let rejected = upstream.rejected_count()?;
        let own = upstream.breaker().map(|own| breaker(None, own));
        let of_targets = upstream.targets.iter();
        let of_targets = of_targets.filter_map(|target| Some(breaker(Some(&target.label), target.breaker.as_ref()?)));
        let breakers = own.into_iter().chain(of_targets).collect();
        let stale = upstream.stale().map(|stale| stale.usage());
        Some(BreakersSample { upstream: Arc::clone(&upstream.name), rejected, stale, breakers })
    };
    upstreams.iter().filter_map(sample).collect()
}

impl Upstream {
    /// Asks the breaker of the upstream to pass, if it has one. Otherwise: how long to stay away.
    pub fn admit(&self, now: Instant) -> Result<Option<Permit>, Duration> {
        self.circuit.own.as_ref().map(|breaker| breaker.admit(now)).transpose()
    }

    /// A request was refused, or answered in another way, because of the breakers.
    pub fn rejected(&self) {
        self.circuit.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were; none where there is no breaker.
    pub fn rejected_count(&self) -> Option<u64> {
        let has_any = self.circuit.own.is_some() || self.targets.iter().any(|target| target.breaker.is_some());
        has_any.then(|| self.circuit.rejected.load(Ordering::Relaxed))
    }

    /// The answers that are kept for the time when the breakers let nothing through.
    pub fn stale(&self) -> Option<&Arc<Stale>> {
        self.circuit.stale.as_ref()
    }

    /// The breaker of the upstream as a whole.
    pub fn breaker(&self) -> Option<&Arc<Breaker>> {
        self.circuit.own.as_ref()
    }

    /// How many requests its breakers and the health of its targets would let through now. Nothing is taken.
    pub fn room(&self, now: Instant) -> Room {
        if self.standing(now).is_some_and(Standing::is_refusing) {
            return Room::Until(now.checked_add(NEXT_PROBE).unwrap_or(now));
        }
        let own = self.breaker().map_or(Room::All, |breaker| breaker.room(now));
        match (own, self.room_of_targets(now)) {
            (Room::Until(one), Room::Until(other)) => Room::Until(one.max(other)),
            (Room::Until(until), _) | (_, Room::Until(until)) => Room::Until(until),
            (Room::Probes(one), Room::Probes(other)) => Room::Probes(one.min(other)),
            (Room::Probes(probes), Room::All) | (Room::All, Room::Probes(probes)) => Room::Probes(probes),
            (Room::All, Room::All) => Room::All,
        }
    }

    /// Whether a target has an address, and its health lets it be asked.
    fn may_be_asked(&self, target: &Target, now: Instant) -> bool {
        target.has_address() && self.is_in(target, now)
    }

    pub(super) fn breaker_of(&self, label: &str) -> Option<&Arc<Breaker>> {
        self.targets.iter().find(|target| *target.label == *label)?.breaker.as_ref()
    }

    /// Why there is no target for a request.
    pub(super) fn no_target(&self, now: Instant) -> NoTarget {
        if !self.targets.iter().any(|target| self.may_be_asked(target, now)) {
            return NoTarget::Unavailable;
        }
        let is_full = |target: &Target| target.in_flight_max.is_some() && target.is_usable(now);
        if self.targets.iter().any(|target| self.is_in(target, now) && is_full(target)) {
            return NoTarget::Full;
        }
        match self.room_of_targets(now) {
            Room::Until(until) => NoTarget::Open(until.saturating_duration_since(now)),
            // Another request was faster.
            Room::Probes(_) | Room::All => NoTarget::Open(NEXT_PROBE),
        }
    }

    /// The best that one of them offers.
    fn room_of_targets(&self, now: Instant) -> Room {
        let mut best: Option<Room> = None;
        for target in self.targets.iter().filter(|target| self.may_be_asked(target, now)) {
            let Some(breaker) = &target.breaker else { return Room::All };
            best = Some(match (best, breaker.room(now)) {
                (_, Room::All) => return Room::All,
                (None, room) => room,
                (Some(Room::Probes(one)), Room::Probes(other)) => Room::Probes(one.saturating_add(other)),
                (Some(Room::Until(one)), Room::Until(other)) => Room::Until(one.min(other)),
                (Some(Room::Probes(probes)), _) | (_, Room::Probes(probes)) => Room::Probes(probes),
                (Some(Room::All), _) => return Room::All,
            });
        }
        // What has no address fails for that reason.
        best.unwrap_or(Room::All)
    }
}
