//! Against a plain model in whole numbers, and against the crate governor.

use std::num::NonZeroU32;

use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;

const PERIODS: [u64; 4] = [1, 60, 3_600, 86_400];

/// A bucket in whole numbers: for each rate what is in use, in tokens times the nanoseconds of the period.
struct Model(Vec<Scaled>);

struct Scaled {
    count: i128,
    period: i128,
    capacity: i128,
    used: i128,
}

impl Model {
    fn new(rates: &Rates) -> Self {
        let scaled = |rate: &Rate| {
            let period = rate.period.as_nanos() as i128;
            Scaled { count: rate.count as i128, period, capacity: rate.capacity as i128 * period, used: 0 }
        };
        Self(rates.as_slice().iter().map(scaled).collect())
    }

    fn pass(&mut self, nanos: u64) {
        for rate in &mut self.0 {
            rate.used = (rate.used - i128::from(nanos) * rate.count).max(0);
        }
    }

    /// Whole tokens that there are, and whether one more is there but for what counts as nothing.
    fn there(&self) -> (i128, bool) {
        let whole = |rate: &Scaled| (rate.capacity - rate.used).div_euclid(rate.period);
        let with_a_little = |rate: &Scaled| (rate.capacity - rate.used + rate.period / 500_000).div_euclid(rate.period);
        let there = self.0.iter().map(whole).min().unwrap();
        (there, self.0.iter().map(with_a_little).min().unwrap() > there)
    }

    fn take(&mut self, tokens: i128) {
        for rate in &mut self.0 {
            rate.used += tokens * rate.period;
        }
    }

    fn remaining(&self) -> f64 {
        let left = |rate: &Scaled| (rate.capacity - rate.used) as f64 / rate.period as f64;
        self.0.iter().map(left).fold(f64::INFINITY, f64::min).max(0.0)
    }
}

fn some_rates() -> impl Strategy<Value = Rates> {
    let periods = subsequence(PERIODS.to_vec(), 1..=4);
    (periods, prop::collection::vec(1_u64..1_000, 4), prop::option::of(1_u64..50), 0_u32..4).prop_map(
        |(periods, counts, burst, magnitude)| {
            let rate = |(period, count): (&u64, &u64)| types::Rate {
                count: count * 10_u64.pow(magnitude),
                per: Duration::from_secs(*period),
            };
            Rates::new(periods.iter().zip(&counts).map(rate), burst).unwrap()
        },
    )
}

/// Nanoseconds that pass, tokens that are asked for at least, and how many more.
fn some_steps() -> impl Strategy<Value = Vec<(u64, i128, i128)>> {
    let nanos = prop_oneof![3 => Just(0_u64), 2 => 1_u64..1_000_000, 3 => 1_000_000_u64..3_000_000_000, 1 => 0..200_000_000_000_000_u64];
    let most = prop_oneof![4 => Just(0_i128), 1 => 1_i128..2_000];
    prop::collection::vec((nanos, 0_i128..4, most), 1..200)
}

proptest! {
    #[test]
    fn decides_as_whole_numbers_do((rates, steps) in (some_rates(), some_steps())) {
        let (mut level, mut model, mut now) = (Level::full(&rates, START), Model::new(&rates), START);
        for (nanos, least, more) in steps {
            now += Duration::from_nanos(nanos);
            model.pass(nanos);
            let before = level.clone();
            let drawn = level.draw(&rates, Ask { least: least as f64, most: (least + more) as f64 }, now);
            let (there, nearly_one_more) = model.there();
            let expected = |there: i128| if there < least { 0 } else { there.max(0).min(least + more) };
            let got = drawn.got as i128;
            prop_assert!(
                got == expected(there) || (nearly_one_more && got == expected(there + 1)),
                "got {} where {} are there of {least} and {more}", got, there
            );
            prop_assert_eq!(drawn.got.fract(), 0.0);
            prop_assert!(drawn.admitted == (there >= least) || (nearly_one_more && drawn.admitted));
            model.take(got);
            if drawn.admitted {
                prop_assert!((drawn.remaining - model.remaining()).abs() < 1e-5, "{} {}", drawn.remaining, model.remaining());
                prop_assert_eq!(drawn.retry_in, Duration::ZERO);
            } else {
                prop_assert_eq!(level.used, before.used);
                prop_assert_eq!(level.since, before.since);
                retry_is_right(&level, &rates, least as f64, now, drawn)?;
            }
        }
    }

    /// Equal at whole intervals too, where the one that is exactly due passes.
    #[test]
    fn decides_as_governor_does(
        count in prop::sample::select(vec![1_u64, 2, 5, 10, 60, 100, 1_000]),
        period in prop::sample::select(PERIODS.to_vec()),
        burst in 1_u32..40,
        thousandths in prop::collection::vec(prop_oneof![Just(0_u32), 1_u32..3_000, Just(1_000_u32), 0_u32..50_000], 1..300),
    ) {
        let interval = Duration::from_secs(period) / u32::try_from(count).unwrap();
        let rates = Rates::new([types::Rate { count, per: Duration::from_secs(period) }], Some(burst.into())).unwrap();
        let mut level = Level::full(&rates, START);
        let clock = FakeRelativeClock::default();
        let quota = Quota::with_period(interval).unwrap().allow_burst(NonZeroU32::new(burst).unwrap());
        let governor = RateLimiter::direct_with_clock(quota, clock.clone());
        let mut now = START;
        for thousandths in thousandths {
            now += interval / 1_000 * thousandths;
            clock.advance(interval / 1_000 * thousandths);
            prop_assert_eq!(level.draw(&rates, one(), now).admitted, governor.check().is_ok());
        }
    }

    /// A change there and back again, with nothing in between, is none.
    #[test]
    fn a_change_that_is_taken_back_forgets_nothing((rates, steps) in (some_rates(), some_steps()), factor in 0.1_f64..10.0) {
        let (mut steady, mut now) = (Level::full(&rates, START), START);
        let other = rates.scaled(factor);
        let mut changed = steady.clone();
        for (nanos, least, more) in steps {
            now += Duration::from_nanos(nanos);
            let ask = Ask { least: least as f64, most: (least + more) as f64 };
            changed.draw(&other, Ask::exactly(0.0), now);
            prop_assert_eq!(steady.draw(&rates, ask, now), changed.draw(&rates, ask, now));
        }
    }
}

/// Who waits as long as it says is let in; who waits noticeably less is not.
fn retry_is_right(level: &Level, rates: &Rates, least: f64, now: Duration, drawn: Drawn) -> Result<(), TestCaseError> {
    if drawn.retry_in == Duration::MAX {
        prop_assert!(least > rates.capacity_min());
        return Ok(());
    }
    prop_assert!(level.clone().draw(rates, Ask::exactly(least), now + drawn.retry_in).admitted);
    let fastest = rates.as_slice().iter().map(|rate| rate.time_for(3.0 * TOLERANCE)).max().unwrap_or_default();
    let early = drawn.retry_in.saturating_sub(fastest + Duration::from_nanos(1));
    prop_assert!(early.is_zero() || !level.clone().draw(rates, Ask::exactly(least), now + early).admitted);
    Ok(())
}
