//! Smooth weighted round robin without a lock.
//!
//! The order is worked out once: at every step each target's credit grows by its weight, the one with the most credit is
//! next and pays the sum of all weights. So three targets of weights 5, 1, 1 come as `a a b a c a a`, not `a a a a a b c`.
//! A request then takes the next place of that order by one atomic addition.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Longest order that is kept, in places.
const PLACES_MAX: u32 = 65_536;

pub struct Rotation {
    order: Box<[u16]>,
    next: AtomicUsize,
}

impl Rotation {
    /// `weights` of the targets 0, 1, …; each at least 1.
    pub fn new(weights: &[u16]) -> Result<Self, String> {
        let divisor = weights.iter().fold(0, |divisor, weight| gcd(divisor, u32::from(*weight))).max(1);
        let weights: Vec<i64> = weights.iter().map(|weight| i64::from(u32::from(*weight) / divisor)).collect();
        let sum: i64 = weights.iter().sum();
        if sum > i64::from(PLACES_MAX) {
            return Err(format!("the weights add up to {sum}, more than {PLACES_MAX}; make them smaller"));
        }
        let mut credit = vec![0_i64; weights.len()];
        let mut order = Vec::new();
        for _ in 0..sum {
            for (credit, weight) in credit.iter_mut().zip(&weights) {
                *credit = credit.saturating_add(*weight);
            }
            // The first of those with the most credit.
            let most = credit.iter().copied().max().unwrap_or_default();
            if let Some((index, credit)) = credit.iter_mut().enumerate().find(|(_, credit)| **credit == most) {
                *credit = credit.saturating_sub(sum);
                order.push(u16::try_from(index).unwrap_or(u16::MAX));
            }
        }
        Ok(Self { order: order.into(), next: AtomicUsize::new(0) })
    }

    /// The same order, of targets that are not called 0, 1, … but as `members` says.
    pub fn naming(mut self, members: &[u16]) -> Self {
        for place in &mut self.order {
            *place = members.get(usize::from(*place)).copied().unwrap_or(u16::MAX);
        }
        self
    }

    /// Takes the next turn: the target whose turn it is.
    pub fn turn(&self) -> Option<u16> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(self.order.len())?;
        self.order.get(turn).copied()
    }

    /// A target for a random number: each as often as its weight says.
    pub fn draw(&self, number: usize) -> Option<u16> {
        self.order.get(number.checked_rem(self.order.len())?).copied()
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a.checked_rem(b).unwrap_or_default()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first(rotation: &Rotation, count: usize) -> Vec<u16> {
        (0..count).map(|_| rotation.turn().unwrap()).collect()
    }

    #[test]
    fn heavy_targets_are_spread_out() {
        let rotation = Rotation::new(&[5, 1, 1]).unwrap();
        assert_eq!(first(&rotation, 8), [0, 0, 1, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn equal_weights_alternate_whatever_their_size() {
        let rotation = Rotation::new(&[1000, 1000]).unwrap();
        assert_eq!(rotation.order.len(), 2);
        assert_eq!(first(&rotation, 4), [0, 1, 0, 1]);
    }

    #[test]
    fn no_target_is_no_turn() {
        let none = Rotation::new(&[]).unwrap();
        assert_eq!((none.turn(), none.draw(7)), (None, None));
    }

    #[test]
    fn too_long_an_order_is_refused() {
        assert!(Rotation::new(&[1000; 65]).is_ok());
        let weights: Vec<u16> = (0..70).map(|index| 1000 - index).collect();
        assert!(Rotation::new(&weights).is_err());
    }

    proptest! {
        #[test]
        fn every_target_gets_its_share(weights in proptest::collection::vec(1_u16..20, 1..8)) {
            let rotation = Rotation::new(&weights).unwrap();
            let sum: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            let turns = first(&rotation, sum);
            for (index, weight) in weights.iter().enumerate() {
                let got = turns.iter().filter(|turn| usize::from(**turn) == index).count();
                prop_assert_eq!(got, usize::from(*weight));
            }
        }
    }
}
