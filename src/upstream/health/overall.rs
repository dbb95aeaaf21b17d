//! What the health of its targets comes to for an upstream.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::{info, warn};

use super::Rules;
use crate::config::AllUnhealthy;
use crate::upstream::{Target, Upstream};

/// Bits of a [`Standing`].
const IGNORED: u8 = 1;
const REFUSING: u8 = 2;
/// Where the bits of tiers begin.
const TIERS: u32 = 2;
/// The lower bits of [`Overall::known`] are a standing, the others say as of when.
const STANDING_BITS: u32 = 8;

/// Of one snapshot.
pub struct Overall {
    pub rules: Arc<Rules>,
    name: Arc<str>,
    shared: Arc<Shared>,
    /// The standing as of so many changes: both in one word, so that no standing outlives what it was worked out from.
    known: AtomicU64,
}

/// Of all snapshots with this upstream.
#[derive(Default)]
pub struct Shared {
    /// Grows whenever a target goes out or comes back.
    changes: AtomicU64,
    /// Held while a target is ejected, so that no more are than may be.
    ejecting: Mutex<()>,
    /// Outliers that stayed because enough others were out.
    spared: AtomicU64,
    /// What was logged last, without the bits of tiers.
    told: AtomicU8,
}

/// How requests are to take the health of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing(u8);

impl Standing {
    /// By its tiers: how many targets are healthy, of how many.
    fn of(tiers: &[(usize, usize)], rules: &Rules) -> Self {
        if tiers.is_empty() {
            // No target has been found yet: that is no matter of health.
            return Self(0);
        }
        let is_enough = |(healthy, all): &(usize, usize)| {
            let needed = u128::from(rules.panic.unwrap_or_default()).saturating_mul(*all as u128);
            *healthy > 0 && (*healthy as u128).saturating_mul(1_000_000) >= needed
        };
        if tiers.iter().any(is_enough) {
            let few = tiers.iter().zip(TIERS..).filter(|(tier, _)| !is_enough(tier));
            return Self(few.fold(0, |bits, (_, bit)| bits | 1_u8.checked_shl(bit).unwrap_or_default()));
        }
        let nobody = tiers.iter().all(|(healthy, _)| *healthy == 0);
        let refused = nobody && rules.all_unhealthy == AllUnhealthy::Refuse;
        Self(if refused { REFUSING } else { IGNORED })
    }

    /// Health counts for nothing: too few targets are healthy.
    pub fn is_ignored(self) -> bool {
        self.0 & IGNORED != 0
    }

    /// No target is healthy, and requests are refused.
    pub fn is_refusing(self) -> bool {
        self.0 & REFUSING != 0
    }

    /// The tiers, by bits, with too few healthy targets while another has enough.
    pub fn passed_over(self) -> u8 {
        self.0 >> TIERS
    }

    pub fn name(self) -> &'static str {
        match (self.is_ignored(), self.is_refusing()) {
            (true, _) => "ignored",
            (_, true) => "refusing",
            (false, false) => "heeded",
        }
    }
}

impl Overall {
    pub fn compile(rules: Option<&Arc<Rules>>, previous: Option<&Self>, name: &Arc<str>) -> Option<Self> {
        Some(Self {
            rules: Arc::clone(rules?),
            name: Arc::clone(name),
            shared: previous.map(|previous| Arc::clone(&previous.shared)).unwrap_or_default(),
            known: AtomicU64::new(u64::MAX),
        })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How many of so many targets may be ejected at once: of several at least one, or it would be for nothing.
    pub fn ejected_max(&self, targets: usize) -> usize {
        let share = self.rules.outliers.as_ref().map_or(0, |rules| rules.ejected_max);
        let max = (targets as u128).saturating_mul(share.into()) / 1_000_000;
        let least = usize::from(targets > 1 && share > 0);
        usize::try_from(max).unwrap_or(usize::MAX).max(least)
    }

    pub fn standing(&self, upstream: &Upstream, now: Instant) -> Standing {
        let changes = self.shared.changes.load(Ordering::Acquire);
        let known = self.known.load(Ordering::Relaxed);
        if known >> STANDING_BITS == changes & (u64::MAX >> STANDING_BITS) {
            return Standing(u8::try_from(known & u64::from(u8::MAX)).unwrap_or_default());
        }
        let is_in = |target: &Target| target.health.as_ref().is_none_or(|health| health.is_in(now));
        let tier = |tier: &[(u16, u16)]| {
            let targets = tier.iter().filter_map(|(index, _)| upstream.target(*index));
            targets.fold((0_usize, 0_usize), |(healthy, all), target| {
                (healthy.saturating_add(is_in(target).into()), all.saturating_add(1))
            })
        };
        let tiers: smallvec::SmallVec<[(usize, usize); 2]> =
            upstream.tiers.iter().map(|members| tier(members.members())).collect();
        let standing = Standing::of(&tiers, &self.rules);
        self.known.store(changes << STANDING_BITS | u64::from(standing.0), Ordering::Relaxed);
        self.tell(standing, &tiers);
        standing
    }

    fn tell(&self, standing: Standing, tiers: &[(usize, usize)]) {
        let told = standing.0 & (IGNORED | REFUSING);
        if self.shared.told.swap(told, Ordering::Relaxed) == told {
            return;
        }
        let (healthy, targets) = tiers
            .iter()
            .fold((0_usize, 0_usize), |sum, tier| (sum.0.saturating_add(tier.0), sum.1.saturating_add(tier.1)));
        let upstream = &*self.name;
        match standing.name() {
            "ignored" => warn!(
                upstream,
                healthy,
                targets,
                "too few targets are healthy: requests go to all; see whether it is the check that is wrong"
            ),
            "refusing" => warn!(upstream, targets, "no target is healthy: requests are refused until one is"),
            _ => info!(upstream, healthy, targets, "enough targets are healthy again"),
        }
    }
}

impl Shared {
    /// A target went out or came back.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// An outlier stays.
    pub fn spared(&self) {
        self.spared.fetch_add(1, Ordering::Relaxed);
    }

    pub fn spared_count(&self) -> u64 {
        self.spared.load(Ordering::Relaxed)
    }

    pub fn lock(&self) -> MutexGuard<'_, ()> {
        self.ejecting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(percent: Option<u32>, all_unhealthy: AllUnhealthy) -> Rules {
        Rules { panic: percent.map(|percent| percent * 10_000), all_unhealthy, ..Rules::default() }
    }

    #[test]
    fn below_the_threshold_health_is_ignored_and_at_it_it_is_not() {
        let half = rules(Some(50), AllUnhealthy::UseAll);
        assert!(!Standing::of(&[(2, 4)], &half).is_ignored());
        assert!(Standing::of(&[(1, 4)], &half).is_ignored());
        let none = rules(None, AllUnhealthy::UseAll);
        assert!(!Standing::of(&[(1, 1000)], &none).is_ignored());
        assert!(Standing::of(&[(0, 1000)], &none).is_ignored());
    }

    #[test]
    fn a_tier_with_too_few_makes_way_for_one_with_enough() {
        let half = rules(Some(50), AllUnhealthy::Refuse);
        let standing = Standing::of(&[(1, 4), (1, 1)], &half);
        assert_eq!((standing.is_ignored(), standing.passed_over()), (false, 0b01));
        assert_eq!(Standing::of(&[(4, 4), (0, 1)], &half).passed_over(), 0b10);
        assert!(Standing::of(&[(1, 4), (0, 1)], &half).is_ignored());
        assert!(Standing::of(&[(0, 4), (0, 1)], &half).is_refusing());
    }

    proptest! {
        #[test]
        fn it_is_one_of_three(
            healthy in proptest::array::uniform2(0_usize..5),
            out in proptest::array::uniform2(0_usize..5),
            percent in proptest::option::of(0_u32..=100),
            refuse in any::<bool>(),
        ) {
            let all = if refuse { AllUnhealthy::Refuse } else { AllUnhealthy::UseAll };
            let tiers = [(healthy[0], healthy[0] + out[0]), (healthy[1], healthy[1] + out[1])];
            let standing = Standing::of(&tiers, &rules(percent, all));
            let enough = |(healthy, all): (usize, usize)| {
                healthy > 0 && healthy as f64 * 100.0 >= f64::from(percent.unwrap_or(0)) * all as f64
            };
            let heeded = enough(tiers[0]) || enough(tiers[1]);
            let nobody = healthy == [0, 0];
            prop_assert_eq!(standing.name() == "heeded", heeded);
            prop_assert_eq!(standing.is_refusing(), nobody && refuse);
            for (place, tier) in tiers.into_iter().enumerate() {
                prop_assert_eq!(standing.passed_over() >> place & 1 == 1, heeded && !enough(tier));
            }
        }
    }
}
