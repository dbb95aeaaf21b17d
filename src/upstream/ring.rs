//! Consistent hashing by a table, as Maglev does it (Eisenbud et al., NSDI 2016, §3.4).
//!
//! Each target fills the places of the table in an order of its own, in turn, as often as its weight says. So every target gets
//! its share almost exactly, the same targets give the same table in every gateway whatever order they are written in, and a
//! target that comes or goes moves little more than its own places. A key is then found by one look.

/// Places of a table: a prime, some hundred times as many as targets are to be expected.
const PLACES: u64 = 65_537;
/// Makes a second, independent order of the same bytes.
const OTHER: u64 = 0x5851_f42d_4c95_7f2d;

pub struct Ring(Box<[u16]>);

impl Ring {
    /// The table of targets by index, label and weight; each weight at least 1.
    pub fn new(targets: &[(u16, &str, u16)]) -> Self {
        const EMPTY: u16 = u16::MAX;
        let heaviest = targets.iter().map(|(.., weight)| *weight).max().unwrap_or(1);
        let mut fillers: Vec<Filler> = targets.iter().map(Filler::new).collect();
        fillers.sort_unstable_by_key(|filler| filler.order);
        let mut table = vec![EMPTY; usize::try_from(PLACES).unwrap_or(usize::MAX)];
        let mut left = if targets.is_empty() { 0 } else { table.len() };
        while left > 0 {
            for filler in &mut fillers {
                filler.credit = filler.credit.saturating_add(filler.weight);
                if filler.credit < heaviest || left == 0 {
                    continue;
                }
                filler.credit = filler.credit.saturating_sub(heaviest);
                loop {
                    let place = filler.next();
                    if let Some(place) = table.get_mut(place).filter(|place| **place == EMPTY) {
                        *place = filler.index;
                        left = left.saturating_sub(1);
                        break;
                    }
                }
            }
        }
        Self(table.into())
    }

    /// Where a key leads at the first, second, … try.
    pub fn at(&self, key: u64, attempt: u64) -> Option<u16> {
        let key = if attempt == 0 { key } else { mix(key.wrapping_add(attempt)) };
        self.0.get(usize::try_from(key % PLACES).ok()?).copied()
    }
}

/// A target while the table is filled.
struct Filler {
    index: u16,
    weight: u16,
    credit: u16,
    /// Where it stands in the round: as its label says, not as it is written.
    order: u64,
    place: u64,
    skip: u64,
}

impl Filler {
    fn new((index, label, weight): &(u16, &str, u16)) -> Self {
        let order = hash(label.as_bytes());
        let skip = mix(order ^ OTHER).checked_rem(PLACES.saturating_sub(1)).unwrap_or_default().saturating_add(1);
        Self { index: *index, weight: *weight, credit: 0, order, place: order % PLACES, skip }
    }

    /// The next place in its order: as the number of places is a prime, it comes to each of them.
    fn next(&mut self) -> usize {
        let place = self.place;
        self.place = place.saturating_add(self.skip) % PLACES;
        usize::try_from(place).unwrap_or_default()
    }
}

/// The same number for the same bytes, in every process: FNV-1a, then mixed. It keeps nobody from choosing keys of the same
/// number: what they could do with it is what the bound on load is for.
pub fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// Spreads every bit over all others, as SplitMix64 does at its end.
pub fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(targets: &[(u16, String, u16)]) -> Ring {
        Ring::new(&targets.iter().map(|(index, label, weight)| (*index, label.as_str(), *weight)).collect::<Vec<_>>())
    }

    fn targets(count: u16, weight: impl Fn(u16) -> u16) -> Vec<(u16, String, u16)> {
        (0..count).map(|index| (index, format!("10.0.0.{index}:8080"), weight(index))).collect()
    }

    #[test]
    fn each_target_has_its_share_of_the_places() {
        for count in [1, 2, 3, 10, 100] {
            for weight in [|_| 1, |index| 1 + index % 3] {
                let targets = targets(count, weight);
                let ring = ring(&targets);
                let sum: f64 = targets.iter().map(|(.., weight)| f64::from(*weight)).sum();
                for (index, _, weight) in &targets {
                    let share = ring.0.iter().filter(|place| *place == index).count() as f64 / PLACES as f64;
                    let due = f64::from(*weight) / sum;
                    assert!((share - due).abs() < 0.02 * due, "{index} of {count}: {share} for {due}");
                }
            }
        }
    }

    #[test]
    fn a_target_that_goes_moves_little_more_than_its_own_places() {
        for count in [2_u16, 3, 10, 100] {
            for gone in [0, count / 2, count - 1] {
                let all = targets(count, |_| 1);
                let fewer: Vec<_> = all.iter().filter(|(index, ..)| *index != gone).cloned().collect();
                let (all, fewer) = (ring(&all), ring(&fewer));
                let moved = all.0.iter().zip(&fewer.0).filter(|(before, after)| before != after).count();
                let share = moved as f64 / PLACES as f64;
                let due = 1.0 / f64::from(count);
                assert!(share >= due * 0.95 && share < due * 1.5 + 0.02, "{gone} of {count}: {share} for {due}");
            }
        }
    }

    #[test]
    fn the_order_of_targets_does_not_matter() {
        let mut some = targets(7, |index| 1 + index);
        let before = ring(&some);
        some.reverse();
        assert!(before.0 == ring(&some).0);
    }

    #[test]
    fn keys_and_their_further_tries_are_spread() {
        let ring = ring(&targets(10, |_| 1));
        for attempt in [0, 1, 7] {
            let mut counts = [0_i32; 10];
            for key in 0..10_000 {
                counts[usize::from(ring.at(hash(format!("user-{key}").as_bytes()), attempt).unwrap())] += 1;
            }
            // Chi square with 9 degrees of freedom: 27.9 at one in a thousand.
            let chi: f64 = counts.iter().map(|count| f64::from(count - 1000).powi(2) / 1000.0).sum();
            assert!(chi < 27.9, "{counts:?}");
        }
        assert_eq!(Ring::new(&[]).at(7, 0), Some(u16::MAX));
    }
}
