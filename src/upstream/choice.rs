//! The choice of a target for one try: made, held while the request is in flight, and told how it went.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::balance::{Hints, Key, Tier, Way};
use super::breaker::Permit;
use super::{Target, Tried, Upstream};
use crate::head::HeaderValue;
use crate::observe::metrics::UpstreamError;

/// What an attempt that failed counts for the average of latencies: a target that refuses at once is not a fast one.
const FAILED: Duration = Duration::from_secs(1);

/// What was chosen for one try. The request counts as in flight to the target until this is dropped.
pub struct Choice<'a> {
    pub index: u16,
    pub target: &'a Target,
    pub address: SocketAddr,
    /// The right to ask it, of its breaker.
    pub permit: Option<Permit>,
    /// The client should get the cookie that leads back here.
    pub sets_cookie: bool,
    upstream: &'a Upstream,
}

/// Why no target was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTarget {
    /// None has an address, or none that has one is healthy and requests are refused then.
    Unavailable,
    /// Those that can be asked have as much in flight as they may have.
    Full,
    /// The breakers of all that have an address let nothing through, for so long.
    Open(Duration),
}

impl Upstream {
    /// The target for a request: the one that its cookie names, or else the one that the balancing says. Targets in `tried` are
    /// left out while there are others, backups while there is a target that is none; targets whose name has not been resolved,
    /// whose breaker lets nothing through, or that have as much in flight as they may have, are left out always.
    pub fn choose(&self, tried: &[u16], hints: &Hints<'_>, now: Instant) -> Result<Choice<'_>, NoTarget> {
        let Some(sticky) = &self.sticky else { return self.balanced(tried, hints, now) };
        let is_in = |index| self.target(index).is_some_and(|target| self.is_in(target, now));
        let known = sticky.target(hints.head).filter(|index| !tried.contains(index) && is_in(*index));
        if let Some(choice) = known.and_then(|index| self.enter(index, now)) {
            return Ok(choice);
        }
        let mut choice = self.balanced(tried, hints, now)?;
        choice.sets_cookie = true;
        Ok(choice)
    }

    /// Whether the head of a request has a say in the choice.
    pub fn looks_at_head(&self) -> bool {
        self.sticky.is_some() || matches!(self.way, Way::Hash(Key::Header(_) | Key::Cookie(_) | Key::Path))
    }

    /// The `Set-Cookie` that leads back to a target.
    pub fn cookie(&self, index: u16, https: bool) -> Option<HeaderValue> {
        self.sticky.as_ref().and_then(|sticky| sticky.field(index, https))
    }

    /// The head of an answer of this target arrived. `true`: when all of it has, [`succeeded`](Self::succeeded) is to be called.
    pub fn responded(&self, index: u16, status: u16, to_head: Duration, now: Instant) -> bool {
        if self.way == Way::Random {
            self.sample(index, status, to_head, now);
        }
        self.health.is_some() && self.health_responded(index, status, to_head, now)
    }

    fn sample(&self, index: u16, status: u16, to_head: Duration, now: Instant) {
        let Some(target) = self.target(index) else { return };
        // An error is no sign of a fast target, however fast it comes.
        let average = target.state.latency(now).filter(|_| status >= 500);
        let micros = average.map_or(0.0, |micros| micros / 1e6);
        target.state.sample(to_head.max(Duration::from_secs_f32(micros)), now);
    }

    /// An attempt at this target failed. `kind` is how, unless it was a failure already when its answer began.
    pub fn failed(&self, index: u16, kind: Option<UpstreamError>, now: Instant) {
        if let (Some(_), Some(kind)) = (&self.health, kind) {
            self.health_failed(index, kind, now);
        }
        if let Some(target) = self.target(index).filter(|_| self.way == Way::Random) {
            target.state.sample(FAILED, now);
        }
    }

    /// A request is not in flight to this target any more.
    pub fn leave(&self, index: u16) {
        if let Some(target) = self.target(index).filter(|_| self.counts) {
            target.state.leave();
            if self.counts_all() {
                self.total.leave();
            }
        }
    }

    fn balanced(&self, tried: &[u16], hints: &Hints<'_>, now: Instant) -> Result<Choice<'_>, NoTarget> {
        let first = self.first(tried, hints, now);
        let found = first.or_else(|| if tried.is_empty() { None } else { self.first(&[], hints, now) });
        found.ok_or_else(|| self.no_target(now))
    }

    /// From the first tier that has a target for it; those with too few healthy ones come last.
    fn first(&self, tried: &[u16], hints: &Hints<'_>, now: Instant) -> Option<Choice<'_>> {
        let mut last = self.passed_over(now);
        let found =
            self.tiers.iter().zip(0..).find_map(|(tier, place)| {
                if last >> place & 1 == 0 { self.pick(tier, tried, hints, now) } else { None }
            });
        if found.is_some() || last == 0 {
            return found;
        }
        self.tiers.iter().find_map(|tier| {
            let is_left = last & 1 == 1;
            last >>= 1;
            if is_left { self.pick(tier, tried, hints, now) } else { None }
        })
    }

    fn pick(&self, tier: &Tier, tried: &[u16], hints: &Hints<'_>, now: Instant) -> Option<Choice<'_>> {
        // Those that let nobody in when it came to entering, although they would have a moment before.
        let mut shut = Tried::new();
        loop {
            let open = |index| !tried.contains(&index) && !shut.contains(&index) && self.has_room(index, now);
            let index = self.propose(tier, open, hints, now)?;
            if let Some(choice) = self.enter(index, now) {
                return Some(choice);
            }
            shut.push(index);
        }
    }

    pub(super) fn target(&self, index: u16) -> Option<&Target> {
        self.targets.get(usize::from(index))
    }

    /// Whether a target can be sent one more.
    fn has_room(&self, index: u16, now: Instant) -> bool {
        self.target(index).is_some_and(|target| self.is_in(target, now) && target.is_usable(now) && !target.is_full())
    }

    /// Counts a request in flight to a target, unless it is full or its breaker lets nothing through.
    fn enter(&self, index: u16, now: Instant) -> Option<Choice<'_>> {
        let target = self.target(index)?;
        let address = target.address()?;
        if self.counts {
            if !target.state.enter(target.in_flight_max) {
                return None;
            }
            if self.counts_all() {
                self.total.enter(None);
            }
        }
        let mut choice = Choice { index, target, address, permit: None, sets_cookie: false, upstream: self };
        if let Some(breaker) = &target.breaker {
            // Last: a probe that it gives is to be sent. Refused, the choice gives its place back.
            choice.permit = Some(breaker.admit(now).ok()?);
        }
        Some(choice)
    }

    /// Whether it has to be known what is in flight to all targets together.
    fn counts_all(&self) -> bool {
        matches!(self.way, Way::Hash(_))
    }
}

impl Choice<'_> {
    /// Keeps the request in flight: [`Upstream::leave`] has to be called. The permit gives itself back.
    pub fn keep(mut self) -> (u16, Option<Permit>) {
        let permit = self.permit.take();
        (std::mem::ManuallyDrop::new(self).index, permit)
    }
}

impl Drop for Choice<'_> {
    fn drop(&mut self) {
        self.upstream.leave(self.index);
    }
}

impl Target {
    /// Whether it can be asked anything: it has an address, and its breaker lets somebody through.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        self.has_address() && self.breaker.as_ref().is_none_or(|breaker| breaker.has_room(now))
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_flight_max.is_some_and(|max| self.state.in_flight() >= max)
    }
}
