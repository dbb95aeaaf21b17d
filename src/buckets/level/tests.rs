use super::*;
use crate::types;

mod oracles;

fn rates(written: &[&str], burst: Option<u64>) -> Rates {
    Rates::new(written.iter().map(|rate| rate.parse::<types::Rate>().unwrap()), burst).unwrap()
}

const START: Duration = Duration::from_secs(100_000_000);
const INTERVAL: Duration = Duration::from_millis(600);

fn one() -> Ask {
    Ask::exactly(1.0)
}

/// A bucket of which so many tokens are in use.
fn used(rates: &Rates, tokens: f64) -> Level {
    let mut level = Level::full(rates, START);
    assert!(level.draw(rates, Ask::exactly(tokens), START).admitted);
    level
}

fn left(level: &mut Level, rates: &Rates, now: Duration) -> f64 {
    level.draw(rates, Ask::exactly(0.0), now).remaining
}

#[test]
fn the_hundredth_passes_and_the_next_one_after_an_interval() {
    let rates = rates(&["100/min"], None);
    let mut level = Level::full(&rates, START);
    for number in 1..=100 {
        let drawn = level.draw(&rates, one(), START);
        let expected = Drawn {
            got: 1.0,
            admitted: true,
            limit: 100.0,
            remaining: f64::from(100 - number),
            full_in: INTERVAL * number,
            retry_in: Duration::ZERO,
        };
        assert_eq!(drawn, expected);
    }
    let refused = Drawn {
        got: 0.0,
        admitted: false,
        limit: 100.0,
        remaining: 0.0,
        full_in: Duration::from_secs(60),
        retry_in: INTERVAL,
    };
    assert_eq!(level.draw(&rates, one(), START), refused);
    assert!(!level.draw(&rates, one(), START + INTERVAL - Duration::from_millis(1)).admitted);
    assert!(level.draw(&rates, one(), START + INTERVAL).admitted);
    assert!(!level.draw(&rates, one(), START + INTERVAL).admitted);
}

#[test]
fn a_burst_is_the_capacity_of_the_shortest_period_only() {
    let rates = rates(&["1000/hour", "60/min"], Some(5));
    let mut level = used(&rates, 5.0);
    let refused = level.draw(&rates, one(), START);
    assert_eq!((refused.admitted, refused.limit, refused.retry_in), (false, 5.0, Duration::from_secs(1)));
    assert_eq!(level.used(START).collect::<Vec<_>>(), [5.0, 5.0]);
}

#[test]
fn a_refusal_by_one_rate_charges_none_and_slows_nothing() {
    let rates = rates(&["10/s", "20/min"], None);
    let mut level = Level::full(&rates, START);
    let later = START + Duration::from_secs(1);
    assert!(level.draw(&rates, Ask::exactly(10.0), START).admitted);
    assert!(level.draw(&rates, Ask::exactly(10.0), later).admitted);
    // A third of a token has flown back to the second rate.
    let now = later + Duration::from_secs(1);
    let before: Vec<f64> = level.used(now).collect();
    for _ in 0..1_000 {
        let refused = level.draw(&rates, one(), now);
        assert_eq!((refused.admitted, refused.limit), (false, 20.0));
    }
    assert_eq!(level.used(now).collect::<Vec<_>>(), before);
    assert_eq!(before[0], 0.0);
    // Being asked a million times a second for a second makes no difference, though each time next to nothing flows back.
    let mut patient = level.clone();
    let refused = patient.draw(&rates, one(), now);
    for microsecond in 0..100_000 {
        level.draw(&rates, one(), now + Duration::from_micros(microsecond));
    }
    assert!(level.draw(&rates, one(), now + refused.retry_in).admitted);
}

#[test]
fn an_ask_takes_whole_tokens_as_far_as_there_are_any() {
    let rates = rates(&["10/min"], None);
    let mut level = used(&rates, 6.5);
    let drawn = |level: &Level, least, most| level.clone().draw(&rates, Ask { least, most }, START);
    assert_eq!(drawn(&level, 1.0, 100.0).got, 3.0);
    assert_eq!(drawn(&level, 1.0, 2.0).got, 2.0);
    assert_eq!(drawn(&level, 3.5, 3.5).got, 3.5);
    assert_eq!(drawn(&level, 3.25, 8.0).got, 3.25);
    assert_eq!(drawn(&level, 1.0, f64::INFINITY).got, 3.0);
    let refused = drawn(&level, 4.0, 100.0);
    assert_eq!((refused.admitted, refused.got, refused.retry_in), (false, 0.0, Duration::from_secs(3)));
    // 0 only looks, and looking is always allowed.
    let before = level.used(START).collect::<Vec<_>>();
    let looked = level.draw(&rates, Ask::exactly(0.0), START);
    assert_eq!((looked.admitted, looked.got, looked.remaining), (true, 0.0, 3.5));
    assert_eq!(level.used(START).collect::<Vec<_>>(), before);
    // At least nothing, at most what there is.
    assert_eq!(drawn(&level, 0.0, 2.0).got, 2.0);
    let empty = used(&rates, 10.0);
    assert_eq!((drawn(&empty, 0.0, 2.0).got, drawn(&empty, 0.0, 2.0).admitted), (0.0, true));
}

#[test]
fn more_than_the_capacity_never_passes() {
    let rates = rates(&["10/min", "5/hour"], None);
    let mut level = Level::full(&rates, START);
    let refused = level.draw(&rates, Ask::exactly(6.0), START);
    assert_eq!((refused.admitted, refused.limit, refused.retry_in), (false, 5.0, Duration::MAX));
    let refused = level.draw(&rates, Ask::exactly(11.0), START);
    assert_eq!((refused.limit, refused.retry_in), (5.0, Duration::MAX));
    for odd in [f64::INFINITY, 1e300] {
        assert!(!level.draw(&rates, Ask::exactly(odd), START).admitted);
    }
    // What is no number or less than nothing takes nothing and gives nothing back.
    for odd in [f64::NAN, -1.0, f64::NEG_INFINITY] {
        assert_eq!(level.draw(&rates, Ask::exactly(odd), START).got, 0.0);
    }
    assert_eq!(level.share(START), 0.0);
    assert!(level.draw(&rates, Ask::exactly(5.0), START).admitted);
}

#[test]
fn a_clock_that_stands_still_or_jumps_gives_nothing_away() {
    let rates = rates(&["100/min"], None);
    let mut level = used(&rates, 100.0);
    assert!((0..1_000).all(|_| !level.draw(&rates, one(), START).admitted));

    // A year later it is full, and not fuller.
    let year = START + Duration::from_hours(24 * 365);
    assert_eq!(level.share(year), 0.0);
    assert_eq!(level.draw(&rates, Ask { least: 1.0, most: 1e9 }, year).got, 100.0);

    // Back by the year: nothing flows back for what did not pass, and time counts again from there on.
    assert!(!level.draw(&rates, one(), START).admitted);
    assert!(!level.draw(&rates, one(), START + INTERVAL / 2).admitted);
    assert!(level.draw(&rates, one(), START + INTERVAL).admitted);
    assert!(!level.draw(&rates, one(), START + INTERVAL).admitted);
}

#[test]
fn who_read_the_clock_earlier_does_not_count_time_twice() {
    let rates = rates(&["1000/s"], None);
    let mut level = used(&rates, 1_000.0);
    let mut admitted = 0;
    // Two that take turns, the one always half a second behind.
    for millisecond in 500..1_500 {
        let now = START + Duration::from_millis(millisecond);
        admitted += u32::from(level.draw(&rates, one(), now).admitted);
        admitted += u32::from(level.draw(&rates, one(), now - Duration::from_millis(500)).admitted);
    }
    assert_eq!(admitted, 1_499);
}

#[test]
fn a_changed_rate_keeps_what_is_in_use() {
    let old = rates(&["100/min"], None);
    let level = used(&old, 80.0);
    for (new, remaining) in [("200/min", 120.0), ("100/min", 20.0), ("81/min", 1.0), ("50/min", 0.0)] {
        assert_eq!(left(&mut level.clone(), &rates(&[new], None), START), remaining, "{new}");
    }
    // More is in use than there may be: it flows back as fast as it would have before, not slower.
    let less = rates(&["10/min"], None);
    let mut lowered = level.clone();
    let enough = START + Duration::from_secs(43);
    assert!(!lowered.draw(&less, one(), enough - Duration::from_secs(1)).admitted);
    assert!(lowered.draw(&less, one(), enough).admitted);
    // By turns with both, as a caller with two roles may: nothing is forgotten.
    let mut turns = used(&old, 80.0);
    assert!(!turns.draw(&less, one(), START).admitted);
    assert!((0..20).all(|_| turns.draw(&old, one(), START).admitted));
    assert!(!turns.draw(&old, one(), START).admitted && !turns.draw(&less, one(), START).admitted);
}

#[test]
fn a_rate_of_another_period_begins_with_what_is_known() {
    let minute_and_hour = rates(&["60/min", "1000/hour"], None);
    let mut level = used(&minute_and_hour, 50.0);
    let carried = |new: &[&str]| -> Vec<f64> {
        rates(new, None).as_slice().iter().map(|rate| level.carried_over(rate, Duration::ZERO)).collect()
    };
    // A longer one: the tokens of the next shorter are in use there too.
    assert_eq!(carried(&["60/min", "1000/hour", "5000/day"]), [50.0, 50.0, 50.0]);
    // A shorter one: at most all it has.
    assert_eq!(carried(&["10/s", "60/min", "1000/hour"]), [10.0, 50.0, 50.0]);
    assert_eq!(carried(&["100/s"]), [50.0]);
    // Which is back after its own time.
    let second = rates(&["10/s"], None);
    assert!(!level.draw(&second, one(), START).admitted);
    assert!(level.draw(&second, one(), START + Duration::from_millis(100)).admitted);
}

#[test]
fn the_tightest_rate_is_the_one_that_is_told() {
    let rates = rates(&["10/s", "15/min"], None);
    let mut level = Level::full(&rates, START);
    let drawn = level.draw(&rates, one(), START);
    assert_eq!((drawn.limit, drawn.remaining, drawn.full_in), (10.0, 9.0, Duration::from_millis(100)));
    level.draw(&rates, Ask::exactly(9.0), START);
    let drawn = level.draw(&rates, one(), START + Duration::from_secs(1));
    assert_eq!((drawn.limit, drawn.remaining), (15.0, 4.25));
    // Of those that refuse, the one that takes longest.
    let drawn = level.draw(&rates, Ask::exactly(10.0), START + Duration::from_secs(1));
    assert_eq!((drawn.limit, drawn.retry_in), (15.0, Duration::from_secs(23)));
}

#[test]
fn a_billion_and_a_share_of_one_work_alike() {
    let most = rates(&["1000000000/s"], None);
    let mut level = used(&most, 1e9);
    let refused = level.draw(&most, one(), START);
    assert_eq!(refused.retry_in, Duration::from_nanos(1));
    assert!(level.draw(&most, one(), START + refused.retry_in).admitted);
    assert!(!level.draw(&most, one(), START + refused.retry_in).admitted);

    let slow = rates(&["1/day"], Some(1_000_000_000));
    let mut level = used(&slow, 1e9);
    let refused = level.draw(&slow, Ask::exactly(1e9), START);
    assert!(refused.retry_in > Duration::from_hours(24 * 999_999_999) && refused.retry_in < Duration::MAX);

    let share = rates(&["3/min"], None).scaled(0.5);
    let mut level = Level::full(&share, START);
    assert!(level.draw(&share, one(), START).admitted);
    let refused = level.draw(&share, one(), START);
    assert_eq!((refused.limit, refused.remaining, refused.retry_in), (1.5, 0.5, Duration::from_secs(20)));
    assert!(level.draw(&share, one(), START + refused.retry_in).admitted);

    let nothing = rates(&["3/min"], None).scaled(0.0);
    let mut level = Level::full(&nothing, START);
    assert_eq!(level.draw(&nothing, one(), START).retry_in, Duration::MAX);
}
