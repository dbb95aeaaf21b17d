//! Several upstreams that share the requests of a route: by weight, or by a key that leads the same client the same way.

use std::sync::Arc;
use std::time::Duration;

use super::Slot;
use super::balance::{Hints, Key};
use super::ring::mix;
use super::rotation::Rotation;
use super::spec::{WEIGHT_MAX, field_name};
use crate::config;
use crate::head::{HeaderName, HeaderValue};
use crate::yaml::{Located, Problem};

const PARTS_MAX: usize = 100;
/// Keys lead elsewhere here than among the targets of an upstream: who is on one side is to be found at each of its targets.
const OWN: u64 = 0x6a09_e667_f3bc_c908;

/// The parts of a route's requests.
pub struct Split {
    parts: Box<[Part]>,
    /// Over the parts that have a weight.
    rotation: Rotation,
    weights: u64,
    key: Option<Key>,
}

pub struct Part {
    pub upstream: Arc<Slot>,
    pub weight: u16,
    /// Requests with this field and value go here in any case.
    when: Option<(HeaderName, HeaderValue)>,
}

impl Split {
    /// `upstream` finds one by its name.
    pub fn compile(
        written: &config::Split,
        mut upstream: impl FnMut(&Located<String>) -> Option<Arc<Slot>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let before = problems.len();
        let list = &written.split;
        if list.is_empty() || list.len() > PARTS_MAX {
            let message = format!("a split has 1 to {PARTS_MAX} parts, not {}", list.len());
            problems.push(Problem::new(list.place, message));
        }
        let mut parts: Vec<Part> = Vec::with_capacity(list.len());
        for part in &list.value {
            let weight = part.weight.within("weight", 0..=WEIGHT_MAX, problems);
            if parts.iter().any(|known| *known.upstream.name == *part.upstream.value) {
                let message = format!("upstream `{}` stands here twice", part.upstream.value);
                problems.push(Problem::new(part.upstream.place, message).with_hint("add the weights up"));
            }
            let when = part.when.as_ref().and_then(|when| field(when, problems));
            if let Some(upstream) = upstream(&part.upstream) {
                parts.push(Part { upstream, weight, when });
            }
        }
        if !list.is_empty() && list.iter().all(|part| part.weight.value == 0) {
            let problem = Problem::new(list.place, "no part of this split has a weight");
            problems.push(problem.with_hint("give one of them `weight: 100`"));
        }
        let key = written.by.as_ref().map(|by| Key::check(by, problems));
        if parts.len() < list.len() || problems.len() > before {
            return None;
        }
        let weighted = parts.iter().zip(0..).filter(|(part, _)| part.weight > 0);
        let (weights, indices): (Vec<u16>, Vec<u16>) = weighted.map(|(part, index)| (part.weight, index)).unzip();
        let rotation = Rotation::new(&weights).map_err(|message| problems.push(Problem::new(list.place, message)));
        Some(Self {
            rotation: rotation.ok()?.naming(&indices),
            weights: weights.iter().copied().map(u64::from).sum(),
            parts: parts.into(),
            key,
        })
    }

    /// The upstream of a request.
    pub fn choose(&self, hints: &Hints<'_>) -> Option<&Arc<Slot>> {
        self.settled(hints).or_else(|| {
            let index = self.rotation.turn()?;
            Some(&self.parts.get(usize::from(index))?.upstream)
        })
    }

    /// The upstream that a request has to go to; none, when the turn decides.
    pub fn settled(&self, hints: &Hints<'_>) -> Option<&Arc<Slot>> {
        let meant = |part: &&Part| {
            let when = part.when.as_ref();
            when.is_some_and(|(name, value)| hints.head.get(name).is_some_and(|got| got == value.as_bytes()))
        };
        if let Some(part) = self.parts.iter().find(meant) {
            return Some(&part.upstream);
        }
        let number = mix(self.key.as_ref()?.number(hints)? ^ OWN);
        // Of two parts one grows at the expense of the other: nobody changes sides but those who make the difference.
        let mut place = u128::from(number).saturating_mul(u128::from(self.weights)) >> u64::BITS;
        for part in &self.parts {
            if place < u128::from(part.weight) {
                return Some(&part.upstream);
            }
            place = place.saturating_sub(u128::from(part.weight));
        }
        None
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The longest time that one of them gives its targets to begin an answer.
    pub fn first_byte(&self) -> Option<Duration> {
        self.parts.iter().filter_map(|part| part.upstream.load().timeouts.first_byte).max()
    }
}

fn field(when: &config::SplitWhen, problems: &mut Vec<Problem>) -> Option<(HeaderName, HeaderValue)> {
    let name = field_name(&when.header, problems);
    let value = HeaderValue::from_str(&when.value.value);
    if value.is_err() {
        problems.push(Problem::new(when.value.place, "this is no value of a field"));
    }
    Some((name?, value.ok()?))
}

#[cfg(test)]
mod tests;
