//! Which of several targets is proposed for a request.
//!
//! Nothing here waits, locks or allocates: a choice reads what the snapshot compiled (orders, tables) and a few counts of the
//! targets it looks at. Counts may be a moment old when several threads choose at once; bounds are kept by who enters.

use std::net::IpAddr;
use std::time::Instant;

use super::Upstream;
use super::ring::{Ring, hash, mix};
use super::rotation::Rotation;
use super::spec::field_name;
use super::sticky::{cookies, is_cookie_name};
use crate::config::{Balance, HashBy};
use crate::head::{HeaderName, RequestHead};
use crate::yaml::Problem;

/// How often a random target is drawn before the next one in turn is taken: enough where most targets can be used.
const DRAWS_MAX: u32 = 8;
/// How many targets a key is tried on before the one with the least to do gets it.
const KEY_TRIES_MAX: u64 = 32;
/// With so little in flight no target has too much of it: keys stay where they are while there is nothing to balance.
const BOUND_MIN: u64 = 8;
/// A target has at most 5/4 of its share in flight (Mirrokni, Thorup and Zadimoghaddam 2016, with ε = 1/4).
const BOUND: (u64, u64) = (5, 4);

/// What of a request may decide where it goes.
#[derive(Clone, Copy)]
pub struct Hints<'a> {
    pub head: &'a dyn RequestHead,
    pub client: Option<IpAddr>,
    pub consumer: Option<&'a str>,
}

/// How the next target is chosen.
#[derive(Clone, PartialEq, Eq)]
pub enum Way {
    RoundRobin,
    LeastConnections,
    Random,
    Hash(Key),
}

/// What the key of a request is.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    Header(HeaderName),
    Cookie(Box<str>),
    Client,
    Consumer,
    Path,
}

/// Targets that stand for each other: all that are no backups, or all that are.
pub struct Tier {
    /// Index and weight.
    members: Box<[(u16, u16)]>,
    weights: u64,
    rotation: Rotation,
    ring: Option<Ring>,
}

impl Way {
    pub fn check(written: &Balance, problems: &mut Vec<Problem>) -> Self {
        match written {
            Balance::RoundRobin => Self::RoundRobin,
            Balance::LeastConnections => Self::LeastConnections,
            Balance::Random => Self::Random,
            Balance::Hash(by) => Self::Hash(Key::check(by, problems)),
        }
    }

    /// Whether it looks at what is in flight.
    pub fn counts(&self) -> bool {
        !matches!(self, Self::RoundRobin)
    }
}

impl Key {
    pub(super) fn check(written: &HashBy, problems: &mut Vec<Problem>) -> Self {
        match written {
            HashBy::Header(name) => {
                if let Some(name) = field_name(name, problems) {
                    return Self::Header(name);
                }
            }
            HashBy::Cookie(name) if is_cookie_name(&name.value) => return Self::Cookie(name.value.as_str().into()),
            HashBy::Cookie(name) => {
                problems.push(Problem::new(name.place, format!("`{}` is no name of a cookie", name.value)));
            }
            HashBy::Ip => return Self::Client,
            HashBy::Consumer => return Self::Consumer,
            HashBy::Path => {}
        }
        Self::Path
    }

    /// The number of a request's key; `None` when it has none.
    pub(super) fn number(&self, hints: &Hints<'_>) -> Option<u64> {
        match self {
            Self::Header(name) => hints.head.get(name).map(hash),
            Self::Cookie(name) => {
                let mut found = None;
                cookies(hints.head, name, &mut |value| found = found.or(Some(hash(value))));
                found
            }
            Self::Client => hints.client.map(|client| match client {
                IpAddr::V4(address) => hash(&address.octets()),
                IpAddr::V6(address) => hash(&address.octets()),
            }),
            Self::Consumer => hints.consumer.map(|name| hash(name.as_bytes())),
            Self::Path => Some(hash(hints.head.path().as_bytes())),
        }
    }
}

impl Tier {
    /// Of targets by index, label and weight; each weight at least 1.
    pub fn new(targets: &[(u16, &str, u16)], way: &Way) -> Result<Self, String> {
        let members: Box<[(u16, u16)]> = targets.iter().map(|(index, _, weight)| (*index, *weight)).collect();
        let (indices, weights): (Vec<u16>, Vec<u16>) = members.iter().copied().unzip();
        Ok(Self {
            weights: weights.iter().copied().map(u64::from).sum(),
            rotation: Rotation::new(&weights)?.naming(&indices),
            ring: matches!(way, Way::Hash(_)).then(|| Ring::new(targets)),
            members,
        })
    }

    /// Its targets, by index and weight.
    pub fn members(&self) -> &[(u16, u16)] {
        &self.members
    }

    /// Its targets as their turns come, each at least once. Every one that is passed over takes a turn: what it would have got
    /// is shared by all others, and not left to the one behind it. Where weights are large and nothing can be used the order is
    /// long: so much of it has every target, as a rule, and all of them come at the end.
    fn turns(&self) -> impl Iterator<Item = u16> + '_ {
        let most = self.members.len().saturating_mul(4);
        let turns = (0..most).map_while(|_| self.rotation.turn());
        turns.chain(self.members.iter().map(|(index, _)| *index))
    }
}

impl Upstream {
    /// The target for a request among those of a tier that are `open` to it.
    pub(super) fn propose(
        &self,
        tier: &Tier,
        open: impl Fn(u16) -> bool,
        hints: &Hints<'_>,
        now: Instant,
    ) -> Option<u16> {
        match &self.way {
            Way::RoundRobin => self.in_turn(tier, open, now),
            Way::LeastConnections => self.least(tier, self.in_turn(tier, &open, now)?, open, now),
            Way::Random => self.one_of_two(tier, open, now),
            Way::Hash(key) => match (key.number(hints), &tier.ring) {
                (Some(key), Some(ring)) => self.by_key(tier, ring, key, open, now),
                _ => self.in_turn(tier, open, now),
            },
        }
    }

    /// The one whose turn it is. A target that warms up lets most of its turns pass.
    fn in_turn(&self, tier: &Tier, open: impl Fn(u16) -> bool, now: Instant) -> Option<u16> {
        if self.slow_start.is_some() {
            let chance = fastrand::f32();
            let warm = |index: &u16| open(*index) && self.share(*index, now) > chance;
            if let Some(index) = tier.turns().find(warm) {
                return Some(index);
            }
        }
        tier.turns().find(|index| open(*index))
    }

    /// The one with the least in flight for its weight; `first` if no other has less.
    fn least(&self, tier: &Tier, first: u16, open: impl Fn(u16) -> bool, now: Instant) -> Option<u16> {
        let mut least = (self.load(first, now), first);
        for (index, _) in &tier.members {
            if least.0 <= 0.0 {
                break;
            }
            let load = self.load(*index, now);
            if load < least.0 && open(*index) {
                least = (load, *index);
            }
        }
        Some(least.1)
    }

    /// The better one of two that are drawn by weight.
    fn one_of_two(&self, tier: &Tier, open: impl Fn(u16) -> bool, now: Instant) -> Option<u16> {
        let one = self.draw(tier, &open, now)?;
        match self.draw(tier, |index| index != one && open(index), now) {
            Some(other) => Some(self.better(one, other, now)),
            None => Some(one),
        }
    }

    fn draw(&self, tier: &Tier, open: impl Fn(u16) -> bool, now: Instant) -> Option<u16> {
        for _ in 0..DRAWS_MAX {
            let index = tier.rotation.draw(fastrand::usize(..))?;
            if open(index) && (self.slow_start.is_none() || self.share(index, now) > fastrand::f32()) {
                return Some(index);
            }
        }
        self.in_turn(tier, open, now)
    }

    /// The one where the next request is answered sooner, as far as one can tell; of equals, `one`.
    pub(super) fn better(&self, one: u16, other: u16, now: Instant) -> u16 {
        let latency = |index| self.target(index).and_then(|target| target.state.latency(now));
        let (load, other_load) = (self.load(one, now), self.load(other, now));
        let is_better = match (latency(one), latency(other)) {
            (Some(latency), Some(other_latency)) => other_latency * (other_load + 1.0) < latency * (load + 1.0),
            // Of a new target nobody knows how fast it is: it is not flooded to find out.
            _ => other_load < load,
        };
        if is_better { other } else { one }
    }

    /// The one that the key leads to and that has not too much to do; when most have, the one with the least.
    fn by_key(&self, tier: &Tier, ring: &Ring, key: u64, open: impl Fn(u16) -> bool, now: Instant) -> Option<u16> {
        let fits = |index: u16| open(index) && self.is_within_bound(tier, index) && self.warms_to(index, key, now);
        let found = (0..KEY_TRIES_MAX).filter_map(|attempt| ring.at(key, attempt)).find(|index| fits(*index));
        found.or_else(|| self.least(tier, self.in_turn(tier, &open, now)?, open, now))
    }

    /// Whether one more is no more than this target may have of what is in flight to all.
    pub(super) fn is_within_bound(&self, tier: &Tier, index: u16) -> bool {
        let Some(target) = self.target(index) else { return false };
        let in_flight = u64::from(target.state.in_flight());
        if in_flight < BOUND_MIN {
            return true;
        }
        let all = u64::from(self.total.in_flight()).saturating_add(1);
        let due = all.saturating_mul(u64::from(target.weight)).saturating_mul(BOUND.0);
        in_flight.saturating_mul(tier.weights).saturating_mul(BOUND.1) < due
    }

    /// Whether a target that warms up takes this key already. It takes one after the other, each for good.
    fn warms_to(&self, index: u16, key: u64, now: Instant) -> bool {
        if self.slow_start.is_none() {
            return true;
        }
        let share = self.share(index, now);
        // The upper bits of another number of the same key, as a fraction.
        let chance = (mix(!key) >> 40) as f32 / (1_u64 << 24) as f32;
        share > chance
    }

    /// What a target has in flight, for its weight.
    fn load(&self, index: u16, now: Instant) -> f32 {
        let Some(target) = self.target(index) else { return f32::INFINITY };
        let in_flight = target.state.in_flight();
        if in_flight == 0 { 0.0 } else { in_flight as f32 / (f32::from(target.weight) * self.share(index, now)) }
    }

    /// The part of its share that a target gets now.
    fn share(&self, index: u16, now: Instant) -> f32 {
        match (self.slow_start, self.target(index)) {
            (Some(slow_start), Some(target)) => target.state.share(slow_start, now),
            _ => 1.0,
        }
    }
}
