//! What a discovery finds.

use crate::upstream::spec::{TARGETS_MAX, WEIGHT_MAX};

/// Largest sum of weights of those that are no backups, and of those that are: what a rotation takes, with room for targets
/// that are written out.
const WEIGHTS_MAX: u64 = 50_000;

/// A target that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Those that are no backups come first.
    pub backup: bool,
    /// `10.0.0.5:9101`
    pub address: Box<str>,
    pub weight: u16,
    pub in_flight_max: Option<u32>,
}

impl Endpoint {
    pub fn new(address: impl Into<Box<str>>) -> Self {
        Self { backup: false, address: address.into(), weight: 1, in_flight_max: None }
    }
}

/// In one order, whatever order they were found in, each address once, and no more than an upstream takes; with weights that a
/// rotation takes.
pub fn settled(mut found: Vec<Endpoint>) -> Vec<Endpoint> {
    found.sort_unstable();
    let mut known = std::collections::HashSet::new();
    found.retain(|endpoint| known.insert(endpoint.address.clone()));
    found.truncate(TARGETS_MAX);
    for backup in [false, true] {
        let of_tier = |endpoint: &&mut Endpoint| endpoint.backup == backup;
        let weights = found.iter_mut().filter(of_tier).map(|endpoint| u64::from(endpoint.weight));
        let (sum, most) =
            weights.fold((0_u64, 0_u64), |(sum, most), weight| (sum.saturating_add(weight), most.max(weight)));
        // The largest one, as one that is written out; all of them together, as a rotation takes them.
        let (part, whole) = if sum.saturating_mul(WEIGHT_MAX.into()) > most.saturating_mul(WEIGHTS_MAX) {
            (WEIGHTS_MAX, sum)
        } else {
            (WEIGHT_MAX.into(), most)
        };
        if part >= whole {
            found.iter_mut().filter(of_tier).for_each(|endpoint| endpoint.weight = endpoint.weight.max(1));
            continue;
        }
        for endpoint in found.iter_mut().filter(of_tier) {
            let scaled = u64::from(endpoint.weight).saturating_mul(part).checked_div(whole).unwrap_or(1).max(1);
            endpoint.weight = u16::try_from(scaled).unwrap_or(WEIGHT_MAX);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(address: &str, weight: u16, backup: bool) -> Endpoint {
        Endpoint { weight, backup, ..Endpoint::new(address) }
    }

    #[test]
    fn each_address_is_there_once_and_in_order() {
        let found = vec![endpoint("b:1", 1, true), endpoint("b:1", 2, false), endpoint("a:1", 0, false)];
        assert_eq!(settled(found), [endpoint("a:1", 1, false), endpoint("b:1", 2, false)]);
    }

    #[test]
    fn large_weights_keep_their_shares() {
        let found =
            settled(vec![endpoint("a:1", 60_000, false), endpoint("b:1", 30_000, false), endpoint("c:1", 1, false)]);
        let weights: Vec<u16> = found.iter().map(|endpoint| endpoint.weight).collect();
        assert_eq!(weights, [1000, 500, 1]);
    }

    proptest! {
        #[test]
        fn any_weights_make_a_rotation(weights in proptest::collection::vec((0_u16.., any::<bool>()), 0..1100)) {
            let found = weights.iter().enumerate();
            let found = settled(found.map(|(index, (weight, backup))| endpoint(&index.to_string(), *weight, *backup)).collect());
            prop_assert!(found.len() <= TARGETS_MAX);
            for backup in [false, true] {
                let weights = found.iter().filter(|endpoint| endpoint.backup == backup).map(|endpoint| endpoint.weight);
                prop_assert!(weights.clone().all(|weight| (1..=WEIGHT_MAX).contains(&weight)));
                let sum: u64 = weights.map(u64::from).sum();
                prop_assert!(sum <= WEIGHTS_MAX + 1000);
            }
        }
    }
}
