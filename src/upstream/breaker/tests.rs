use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;

use super::machine::{PROVEN_AFTER, Share};
use super::*;

fn breaker(half_open_requests: u32) -> Arc<Breaker> {
    let rules = Rules {
        failures: Some(3),
        share: None,
        window: Duration::from_secs(60),
        slow: Some(Duration::from_secs(2)),
        open_for: Duration::from_secs(15),
        half_open_requests,
        on: vec![503],
    };
    Breaker::new(rules, Arc::from("u"), None, clock::now())
}

fn open(breaker: &Arc<Breaker>, now: Instant) {
    for _ in 0..3 {
        breaker.admit(now).ok().unwrap().failed(now);
    }
    assert_eq!(breaker.view(now).state, State::Open);
}

const QUICK: Duration = Duration::from_millis(1);

#[test]
fn what_counts_as_a_failure() {
    let (breaker, now) = (breaker(1), clock::now());
    let counts = || breaker.view(now).counts.failures;
    let ask = || breaker.admit(now).ok().unwrap();
    for (status, took) in [(200, QUICK), (404, QUICK), (500, QUICK), (200, Duration::from_secs(2))] {
        ask().answered(status, took, now);
        assert_eq!(counts(), 0, "{status} after {took:?}");
    }
    drop(ask());
    assert_eq!(counts(), 0, "a client that left");
    ask().answered(503, QUICK, now);
    assert_eq!(counts(), 1);
    ask().answered(200, Duration::from_millis(2001), now);
    assert_eq!(counts(), 2);
    let mut permit = ask();
    permit.answered(200, QUICK, now);
    // In mid-response; and one request is one failure.
    permit.failed(now);
    permit.failed(now);
    assert_eq!(breaker.view(now).state, State::Open);
    assert_eq!(breaker.transitions(), [0, 0, 1]);
}

#[test]
fn many_threads_get_exactly_the_probes() {
    for probes in [1, 2, 7] {
        let (breaker, now) = (breaker(probes), clock::now());
        open(&breaker, now);
        let later = now + Duration::from_secs(15);
        for _ in 0..20 {
            let (through, barrier) = (AtomicUsize::new(0), Barrier::new(8));
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        barrier.wait();
                        let permits: Vec<Permit> = (0..50).filter_map(|_| breaker.admit(later).ok()).collect();
                        through.fetch_add(permits.len(), Ordering::Relaxed);
                        barrier.wait();
                        // All of them left: their places are free again.
                        drop(permits);
                    });
                }
            });
            assert_eq!(through.into_inner(), probes as usize);
        }
        assert_eq!(breaker.room(later), Room::Probes(probes));
        assert_eq!(breaker.transitions(), [0, 1, 1], "once each");
    }
}

#[test]
fn threads_open_it_with_exactly_the_failures_that_were_let_through() {
    let (breaker, now) = (breaker(1), clock::now());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Ok(mut permit) = breaker.admit(now) {
                    permit.failed(now);
                }
            });
        }
    });
    assert_eq!(breaker.transitions(), [0, 0, 1]);
    assert_eq!(breaker.view(now).counts.failures, 3);
}

#[test]
fn a_probe_that_ends_well_closes_it_and_a_second_one_is_not_asked() {
    let (breaker, now) = (breaker(1), clock::now());
    open(&breaker, now);
    assert_eq!(breaker.room(now), Room::Until(now + Duration::from_secs(15)));
    let later = now + Duration::from_secs(15);
    let mut probe = breaker.admit(later).ok().unwrap();
    assert!(breaker.admit(later).is_err());
    probe.answered(200, QUICK, later);
    assert!(breaker.admit(later).is_err(), "it is not over yet");
    drop(probe);
    assert_eq!((breaker.view(later).state, breaker.room(later)), (State::Closed, Room::All));
    assert_eq!(breaker.transitions(), [1, 1, 1]);
}

#[test]
fn a_probe_that_breaks_off_opens_it_again() {
    let (breaker, now) = (breaker(1), clock::now());
    open(&breaker, now);
    let later = now + Duration::from_secs(15);
    let mut probe = breaker.admit(later).ok().unwrap();
    probe.answered(200, QUICK, later);
    probe.failed(later);
    drop(probe);
    assert_eq!(breaker.view(later).until, Some(later + Duration::from_secs(15)));
    // Not so a stream that went on for long.
    let later = later + Duration::from_secs(15);
    let mut stream = breaker.admit(later).ok().unwrap();
    stream.answered(200, QUICK, later);
    let later = later + PROVEN_AFTER;
    drop(breaker.admit(later));
    stream.failed(later);
    assert_eq!(breaker.view(later).state, State::Closed);
}

#[test]
fn successes_count_where_a_share_of_the_requests_does() {
    let share = Some(Share { millionths: 500_000, requests_min: 2 });
    let rules = Rules { failures: None, share, ..breaker(1).rules.clone() };
    let now = clock::now();
    let breaker = Breaker::new(rules, Arc::from("u"), None, now);
    for _ in 0..3 {
        breaker.admit(now).ok().unwrap().answered(200, QUICK, now);
    }
    assert_eq!(breaker.view(now).counts, Counts { failures: 0, requests: Some(3) });
    for failures in 1..=3 {
        assert_eq!(breaker.view(now).state, State::Closed, "{failures}");
        breaker.admit(now).ok().unwrap().failed(now);
    }
    assert_eq!(breaker.view(now).counts, Counts { failures: 3, requests: Some(6) });
    assert_eq!(breaker.view(now).state, State::Open);
}

#[test]
fn a_target_whose_breaker_closes_warms_up() {
    let now = clock::now();
    let state = Arc::new(crate::upstream::State::new(now));
    let of = Of { label: Arc::from("t:1"), state: Arc::clone(&state) };
    let breaker = Breaker::new(breaker(1).rules.clone(), Arc::from("u"), Some(of), now);
    open(&breaker, now);
    let later = now + Duration::from_secs(15);
    let share = || state.share(Duration::from_secs(10), later);
    let mut probe = breaker.admit(later).ok().unwrap();
    assert_eq!(share(), 1.0, "it is only asked");
    probe.answered(200, QUICK, later);
    drop(probe);
    assert_eq!(breaker.view(later).state, State::Closed);
    assert!(share() < 1.0);
}
