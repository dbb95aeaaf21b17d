use std::sync::Barrier;
use std::thread;

use super::*;
use crate::types;

/// Room that an empty table keeps: 64 buckets a shard, and what a table is rounded up to.
const EMPTY_CAPACITY: usize = SHARDS * 128;

fn rates(written: &[&str]) -> Rates {
    Rates::new(written.iter().map(|rate| rate.parse::<types::Rate>().unwrap()), None).unwrap()
}

fn key(who: &str) -> Key<'_> {
    Key { bucket: "chain:api", who }
}

fn one() -> Ask {
    Ask::exactly(1.0)
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

fn drain(local: &Local, who: &str, rates: &Rates, now: Instant) {
    let all = Ask { least: 1.0, most: f64::INFINITY };
    assert!(local.draw(key(who), rates, all, now).admitted);
    assert!(!local.draw(key(who), rates, one(), now).admitted);
}

#[test]
fn a_flood_of_a_million_lets_no_abuser_out_and_refuses_no_newcomer() {
    const MAX: usize = 20_000;
    let (local, rates, start) = (Local::default(), rates(&["100/min"]), clock::now());
    local.set_max(MAX, start);
    drain(&local, "ip=203.0.113.77", &rates, start);
    for number in 0..1_000_000 {
        let who = format!("ip=2001:db8::{number:x}");
        assert_eq!(local.draw(key(&who), &rates, one(), start).remaining, 99.0);
        if number % 1_000 == 0 {
            assert!(!local.draw(key("ip=203.0.113.77"), &rates, one(), start).admitted, "after {number}");
            assert!(local.len() <= MAX);
        }
    }
    assert_eq!(local.len(), MAX);
    assert_eq!(local.len(), local.shards.iter().map(|shard| locked(shard).len()).sum::<usize>());
    let flooded = local.capacity();
    assert!(flooded < MAX * 3, "room for {flooded}");

    // The flood is over after one interval, the abuser after its period.
    assert_eq!(local.sweep(start + Duration::from_secs(1)), MAX - 1);
    assert!(local.show(key("ip=203.0.113.77"), start + Duration::from_secs(59)).is_some());
    assert_eq!(local.sweep(start + minutes(1)), 1);
    assert!(local.is_empty());
    assert!(local.capacity() <= EMPTY_CAPACITY && local.capacity() < flooded, "room for {}", local.capacity());
}

#[test]
fn who_is_there_sweeps_what_is_left_of_a_flood() {
    let (local, rates, start) = (Local::default(), rates(&["100/min"]), clock::now());
    for number in 0..50_000 {
        local.draw(key(&number.to_string()), &rates, one(), start);
    }
    assert_eq!(local.len(), 50_000);
    let (later, asked): (_, Vec<String>) = (start + minutes(1), (0..2_000).map(|number| number.to_string()).collect());
    for _ in 0..150 {
        for who in &asked {
            local.draw(key(who), &rates, Ask::exactly(0.001), later);
        }
    }
    assert!(local.len() < 3_000, "{} are left", local.len());
    assert!(local.capacity() <= EMPTY_CAPACITY, "room for {}", local.capacity());
}

#[test]
fn those_of_which_the_most_is_in_use_stay_when_there_is_less_room() {
    let (local, rates, start) = (Local::default(), rates(&["100/min"]), clock::now());
    for number in 0..20_000 {
        let who = number.to_string();
        // One in ten is drained.
        let tokens = if number % 10 == 0 { 100.0 } else { 1.0 };
        local.draw(key(&who), &rates, Ask::exactly(tokens), start);
    }
    local.set_max(5_000, start);
    assert_eq!(local.len(), 5_000);
    let drained = local.top("chain:api", 20_000, start).into_iter().filter(|seen| seen.used == [100.0]).count();
    assert!(drained >= 1_990, "{drained} of 2000 are left");
    // No room at all is room for one.
    local.set_max(0, start);
    assert_eq!(local.len(), 1);
    drain(&local, "somebody", &rates, start);
    assert!(local.draw(key("somebody else"), &rates, one(), start).admitted);
    assert_eq!(local.len(), 1);
}

#[test]
fn nothing_is_kept_for_looks_and_refusals() {
    let (local, rates, start) = (Local::default(), rates(&["100/min"]), clock::now());
    assert_eq!(local.draw(key("a"), &rates, Ask::exactly(0.0), start).remaining, 100.0);
    assert!(!local.draw(key("a"), &rates, Ask::exactly(101.0), start).admitted);
    assert!(local.is_empty());
}

#[test]
fn a_bucket_is_shown_and_reset() {
    let (local, rates, start) = (Local::default(), rates(&["100/min", "1000/hour"]), clock::now());
    assert_eq!(local.show(key("a"), start), None);
    assert!(!local.reset(key("a"), start));
    local.draw(key("a"), &rates, Ask::exactly(40.0), start);
    let shown = local.show(key("a"), start + Duration::from_secs(15)).unwrap();
    assert_eq!((&*shown.bucket, &*shown.who, &*shown.rates), ("chain:api", "a", rates.as_slice()));
    assert_eq!(shown.used[0], 15.0);
    assert!((shown.used[1] - (40.0 - 25.0 / 6.0)).abs() < 1e-9);
    assert_eq!([local.len_of("chain:api"), local.len_of("chain:ap")], [1, 0]);
    // The same who of another limit has a bucket of its own, and so has nobody the beginning of whose name it is.
    assert_eq!(local.show(Key { bucket: "chain:other", who: "a" }, start), None);
    assert_eq!(local.show(Key { bucket: "chain:ap", who: "ia" }, start), None);
    assert!(local.reset(key("a"), start));
    assert_eq!((local.show(key("a"), start), local.len(), local.len_of("chain:api")), (None, 0, 0));
    // As good as new: there is nothing to show or reset.
    local.draw(key("a"), &rates, one(), start);
    assert_eq!(local.show(key("a"), start + minutes(60)), None);
    assert!(!local.reset(key("a"), start + minutes(60)));
}

#[test]
fn a_long_who_takes_little_room_and_is_found_by_what_is_shown() {
    let (local, rates, start) = (Local::default(), rates(&["100/min"]), clock::now());
    let long = "x".repeat(8_000);
    drain(&local, &long, &rates, start);
    assert!(local.draw(key(&format!("{long}x")), &rates, one(), start).admitted);
    let shown = local.top("chain:api", 1, start).remove(0).who;
    assert!(shown.len() <= super::super::WHO_BYTES_MAX);
    assert!(local.reset(key(&shown), start));
    assert!(local.draw(key(&long), &rates, one(), start).admitted);
}

#[test]
fn the_top_is_by_share_and_of_one_limit() {
    let (local, start) = (Local::default(), clock::now());
    let (hundred, ten) = (rates(&["100/min"]), rates(&["10/min"]));
    for number in 0..2_000_u32 {
        let tokens = f64::from(number % 90 + 1);
        local.draw(key(&format!("{number:04}")), &hundred, Ask::exactly(tokens), start);
        local.draw(Key { bucket: "chain:other", who: &number.to_string() }, &hundred, Ask::exactly(99.0), start);
    }
    local.draw(key("ten"), &ten, Ask::exactly(9.5), start);
    let top = local.top("chain:api", 3, start);
    assert_eq!(top.iter().map(|seen| seen.used[0]).collect::<Vec<_>>(), [9.5, 90.0, 90.0]);
    assert_eq!((&*top[0].who, &*top[0].bucket), ("ten", "chain:api"));
    assert_eq!(local.top("chain:api", 5_000, start).len(), 2_001);
    assert_eq!(local.top("chain:api", 0, start), []);
    assert_eq!(local.top("chain:nothing", 3, start), []);
}

#[test]
fn names_that_no_bucket_has_are_forgotten() {
    let (local, rates, start) = (Local::default(), rates(&["1/s"]), clock::now());
    for number in 0..10_000_u64 {
        let bucket = number.to_string();
        let now = start + Duration::from_secs(2 * number);
        local.draw(Key { bucket: &bucket, who: "" }, &rates, one(), now);
        if number % 100 == 0 {
            local.sweep(now);
        }
    }
    assert!(local.names.read().unwrap().known.len() <= NAMES_KEPT + 1);
}

#[test]
fn threads_together_get_what_one_would() {
    const THREADS: usize = 8;
    let (local, rates, start) = (Local::default(), rates(&["1000/s", "100000/day"]), clock::now());
    let ready = Barrier::new(THREADS);
    let admitted_at = |now: Instant| {
        let hammer = || {
            ready.wait();
            (0..1_000).filter(|_| local.draw(key("all"), &rates, one(), now).admitted).count()
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(hammer)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        })
    };
    assert_eq!(admitted_at(start), 1_000);
    assert_eq!(admitted_at(start), 0);
    assert_eq!(admitted_at(start + Duration::from_millis(500)), 500);
    assert_eq!(local.len(), 1);
}

#[test]
fn threads_in_real_time_get_the_capacity_and_what_flows_back() {
    const THREADS: usize = 4;
    let (local, rates) = (Local::default(), rates(&["1000/s"]));
    let start = clock::now();
    // From here on it is not full, however late the threads begin.
    assert!(local.draw(key("all"), &rates, Ask::exactly(500.0), start).admitted);
    let hammer = || {
        let mut admitted = 0_u32;
        loop {
            let now = clock::now();
            admitted += u32::from(local.draw(key("all"), &rates, one(), now).admitted);
            if now > start + Duration::from_millis(300) {
                return admitted;
            }
        }
    };
    let mut admitted: u32 = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(hammer)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>() + 500
    });
    let end = clock::now();
    while local.draw(key("all"), &rates, one(), end).admitted {
        admitted += 1;
    }
    // A thousand, and one for each millisecond; a bucket that was never full again loses nothing.
    let expected = 1_000.0 + (end - start).as_secs_f64() * 1_000.0;
    assert!((f64::from(admitted) - expected).abs() <= 1.0, "{admitted} instead of {expected}");
}

#[test]
fn threads_with_keys_of_their_own_never_exceed_the_bound() {
    const THREADS: u32 = 4;
    const MAX: usize = 1_000;
    let (local, rates, start) = (Local::default(), rates(&["100/min"]), clock::now());
    local.set_max(MAX, start);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (local, rates) = (&local, &rates);
            scope.spawn(move || {
                for number in 0..20_000 {
                    assert!(local.draw(key(&format!("{thread}-{number}")), rates, one(), start).admitted);
                    assert!(local.len() <= MAX);
                }
            });
        }
    });
    assert_eq!(local.shards.iter().map(|shard| locked(shard).len()).sum::<usize>(), local.len());
}

#[test]
fn a_limiter_reads_the_clock_itself() {
    let (local, rates) = (Local::default(), rates(&["2/day"]));
    let limiter: &dyn Limiter = &local;
    let now = |pending: Pending<'_, Drawn>| futures_util::FutureExt::now_or_never(pending).unwrap().unwrap();
    assert!(now(limiter.draw(key("a"), &rates, one())).admitted);
    assert!(now(limiter.draw(key("a"), &rates, one())).admitted);
    assert!(!now(limiter.draw(key("a"), &rates, one())).admitted);
    let top = futures_util::FutureExt::now_or_never(limiter.top("chain:api", 5)).unwrap().unwrap();
    assert_eq!(top.len(), 1);
    assert!(futures_util::FutureExt::now_or_never(limiter.reset(key("a"))).unwrap().unwrap());
    assert_eq!(futures_util::FutureExt::now_or_never(limiter.show(key("a"))).unwrap().unwrap(), None);
}

#[test]
fn who_waited_before_it_draws_gets_no_time_twice() {
    let (local, rates, start) = (Local::default(), rates(&["60/min"]), clock::now());
    // Requests that stood in line for a minute, each with the moment at which it came.
    let came = (0..60).map(|second| start + Duration::from_secs(second));
    let now = start + minutes(1);
    drain(&local, "consumer=a", &rates, now);
    for early in came {
        assert!(!local.draw(key("consumer=a"), &rates, one(), early).admitted);
        assert!(!local.draw(key("consumer=a"), &rates, one(), now).admitted);
    }
    assert!(local.draw(key("consumer=a"), &rates, one(), now + Duration::from_secs(1)).admitted);
}

#[test]
fn a_flood_of_one_limit_drives_out_no_bucket_of_another() {
    let (local, day, minute, start) = (Local::default(), rates(&["1/day"]), rates(&["5/min"]), clock::now());
    local.set_max(20_000, start);
    let login = Key { bucket: "login", who: "ip=203.0.113.77" };
    assert!(local.draw(login, &minute, Ask { least: 1.0, most: 5.0 }, start).admitted);
    // All of each is in use, and for longer than of the one that guards the login.
    for number in 0..200_000 {
        local.draw(key(&format!("header.x-tenant={number}")), &day, one(), start);
    }
    assert!(!local.draw(login, &minute, one(), start).admitted);
}
