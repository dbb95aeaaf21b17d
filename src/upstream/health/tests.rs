use super::compile::Check;
use super::*;
use crate::head::{HeaderName, HeaderValue, Headers as _, Method, RequestBuf};
use crate::upstream::tests::{choose, compile, counts, try_compile};
use crate::upstream::{Hints, NoTarget};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const WAYS: [&str; 4] = ["round_robin", "least_connections", "random", "{ hash: path }"];

fn with(targets: usize, keys: &str) -> Arc<Upstream> {
    compile(&yaml(targets, keys), None)
}

fn yaml(targets: usize, keys: &str) -> String {
    let targets: Vec<String> = (0..targets).map(|index| format!("{{ address: 10.0.0.{index}:80 }}")).collect();
    format!("{{ targets: [{}], {keys} }}", targets.join(", "))
}

fn check_of(upstream: &Upstream) -> &Arc<Check> {
    upstream.health.as_ref().unwrap().rules.check.as_ref().unwrap()
}

/// Hears of a check of this target.
fn hear(upstream: &Upstream, index: usize, good: bool, now: Instant) {
    let check = check_of(upstream);
    let checked = upstream.targets[index].health.as_ref().unwrap().checked.as_ref().unwrap();
    checked.due(check, now);
    checked.hear(check, if good { Ok(()) } else { Err("it is not well".into()) }, now, now, 0.5);
}

fn is_in(upstream: &Upstream, now: Instant) -> Vec<bool> {
    upstream.targets.iter().map(|target| target.health.as_ref().unwrap().is_in(now)).collect()
}

fn none(upstream: &Upstream, now: Instant) -> NoTarget {
    let head = RequestBuf::new(Method::GET, "/");
    let hints = Hints { head: &head, client: None, consumer: None };
    upstream.choose(&[], &hints, now).err().unwrap()
}

/// An exchange with this target that ends well.
fn well(upstream: &Upstream, index: u16, took: Duration, now: Instant) {
    assert!(upstream.responded(index, 200, took, now));
    upstream.succeeded(index, now);
}

#[test]
fn an_unhealthy_target_is_left_out_whatever_the_way() {
    for way in WAYS {
        let upstream = with(3, &format!("balance: {way}, health: {{ tcp: true }}"));
        let now = clock::now();
        assert!(counts(&upstream, 300, now).iter().all(|count| *count > 50), "{way}: healthy before the first check");
        hear(&upstream, 1, false, now);
        let some = counts(&upstream, 300, now);
        assert!(some[1] == 0 && some[0] > 50 && some[2] > 50, "{way}: {some:?}");
        hear(&upstream, 1, true, now);
        hear(&upstream, 1, true, now);
        assert!(counts(&upstream, 300, now).iter().all(|count| *count > 50), "{way}: back");
    }
}

#[test]
fn sticky_clients_of_an_unhealthy_target_move() {
    let upstream = with(2, "sticky: { cookie: lb }, health: { tcp: true }");
    let now = clock::now();
    let mut head = RequestBuf::new(Method::GET, "/");
    let cookie = upstream.cookie(1, false).unwrap();
    let pair = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
    head.append(&HeaderName::from_static("cookie"), HeaderValue::try_from(pair).unwrap());
    let chosen = |now| {
        let choice = upstream.choose(&[], &Hints { head: &head, client: None, consumer: None }, now).ok().unwrap();
        (choice.index, choice.sets_cookie)
    };
    assert_eq!(chosen(now), (1, false));
    hear(&upstream, 1, false, now);
    assert_eq!(chosen(now), (0, true));
}

#[test]
fn backups_come_in_for_unhealthy_targets() {
    let yaml =
        "{ targets: [{ address: 10.0.0.0:80 }, { address: 10.0.0.1:80 }, { address: 10.0.0.2:80, backup: true }],
        health: { tcp: true, panic_threshold: 60% } }";
    let upstream = compile(yaml, None);
    let now = clock::now();
    assert_eq!(counts(&upstream, 100, now), [50, 50, 0]);
    // Half is less than 60%: what is left of the first is spared.
    hear(&upstream, 0, false, now);
    assert_eq!(counts(&upstream, 100, now), [0, 0, 100]);
    hear(&upstream, 2, false, now);
    assert_eq!(counts(&upstream, 100, now), [50, 50, 0], "ignored: there are not enough of either kind");
    assert_eq!(upstream.standing(now).unwrap().name(), "ignored");
}

#[test]
fn when_a_backup_is_full_what_is_left_of_the_others_is_used() {
    let yaml = "{ targets: [{ address: 10.0.0.0:80 }, { address: 10.0.0.1:80 },
        { address: 10.0.0.2:80, backup: true, in_flight_max: 1 }], health: { tcp: true, panic_threshold: 60% } }";
    let upstream = compile(yaml, None);
    let now = clock::now();
    hear(&upstream, 0, false, now);
    let held = choose(&upstream, "/", now);
    assert_eq!(held.index, 2);
    assert_eq!(counts(&upstream, 10, now), [0, 10, 0]);
}

#[test]
fn below_the_panic_threshold_health_is_ignored() {
    let upstream = with(4, "health: { tcp: true, panic_threshold: 50% }");
    let now = clock::now();
    hear(&upstream, 0, false, now);
    hear(&upstream, 1, false, now);
    assert_eq!(counts(&upstream, 100, now), [0, 0, 50, 50], "half is not less than half");
    hear(&upstream, 2, false, now);
    assert_eq!(counts(&upstream, 100, now), [25; 4]);
    hear(&upstream, 2, true, now);
    hear(&upstream, 2, true, now);
    assert_eq!(counts(&upstream, 100, now), [0, 0, 50, 50]);
}

#[test]
fn without_a_healthy_target_all_are_used_or_none() {
    let now = clock::now();
    for (keys, refuses) in [("", false), (", all_unhealthy: use_all", false), (", all_unhealthy: refuse", true)] {
        let upstream = with(2, &format!("health: {{ tcp: true{keys} }}"));
        hear(&upstream, 0, false, now);
        assert_eq!(counts(&upstream, 10, now), [0, 10]);
        hear(&upstream, 1, false, now);
        if refuses {
            assert_eq!(none(&upstream, now), NoTarget::Unavailable);
            assert!(matches!(upstream.room(now), crate::upstream::breaker::Room::Until(until) if until > now));
        } else {
            assert_eq!(counts(&upstream, 10, now), [5, 5]);
        }
        hear(&upstream, 1, true, now);
        hear(&upstream, 1, true, now);
        assert_eq!(counts(&upstream, 10, now), [0, 10]);
        assert_eq!(upstream.room(now), crate::upstream::breaker::Room::All);
    }
}

#[test]
fn a_target_that_comes_back_warms_up() {
    let upstream = with(2, "slow_start: 10s, health: { tcp: true }");
    let now = clock::now();
    hear(&upstream, 0, false, now);
    hear(&upstream, 0, true, now);
    hear(&upstream, 0, true, now);
    assert!(upstream.targets[0].state.share(SECOND * 10, now) < 0.2);
    assert_eq!(upstream.targets[1].state.share(SECOND * 10, now), 1.0);
}

#[test]
fn a_reload_keeps_what_is_known() {
    let keys = "health: { path: /health, unhealthy_after: 3, outliers: { failures: 2 } }";
    let upstream = with(4, keys);
    let now = clock::now();
    hear(&upstream, 0, false, now);
    (0..2).for_each(|_| upstream.failed(1, Some(UpstreamError::Connect), now));
    assert_eq!(is_in(&upstream, now), [false, false, true, true]);
    // Another upstream, and one target more: everybody is as before, and who is told by one is told by both.
    let other = compile(&yaml(5, &format!("{keys}, slow_start: 1s")), Some(&upstream));
    assert_eq!(is_in(&other, now), [false, false, true, true, true]);
    hear(&other, 2, false, now);
    assert_eq!(is_in(&upstream, now), [false, false, false, true]);
    assert_eq!(counts(&upstream, 10, now), [0, 0, 0, 10]);
    // Another pace is the same question; another question changes nothing before it is answered.
    let checked =
        |upstream: &Upstream| Arc::clone(upstream.targets[0].health.as_ref().unwrap().checked.as_ref().unwrap());
    let paced = compile(&yaml(5, &keys.replace("3,", "4, interval: 1s,")), Some(&other));
    assert!(checked(&paced).due(check_of(&paced), now) > now);
    let asked = compile(&yaml(5, &keys.replace("/health", "/healthz")), Some(&paced));
    assert_eq!(is_in(&asked, now), [false, false, false, true, true]);
    assert_eq!(checked(&asked).due(check_of(&asked), now), now, "at once");
    hear(&asked, 0, true, now);
    assert!(checked(&asked).is_healthy(), "the first answer decides alone");
    // What came of the old question is not listened to any more.
    checked(&asked).hear(check_of(&paced), Err("late".into()), now, now, 0.5);
    assert_eq!(checked(&asked).view().against, 0);
    // Without checks nobody is unhealthy; ejections stay.
    let passive = compile(&yaml(5, "health: { outliers: { failures: 2 } }"), Some(&asked));
    assert_eq!(is_in(&passive, now), [true, false, true, true, true]);
    let other_rules = compile(&yaml(5, "health: { outliers: { failures: 3 } }"), Some(&passive));
    assert_eq!(is_in(&other_rules, now), [true; 5]);
    assert!(compile(&yaml(5, ""), Some(&passive)).targets[1].health.is_none());
}

#[test]
fn checks_that_began_together_do_not_stay_together() {
    let upstream = with(1, "health: { tcp: true, interval: 10s }");
    let check = check_of(&upstream);
    let checked = upstream.targets[0].health.as_ref().unwrap().checked.as_ref().unwrap();
    let now = clock::now();
    assert_eq!(checked.due(check, now), now, "the first one at once");
    checked.hear(check, Ok(()), now, now, 0.25);
    assert_eq!(checked.due(check, now), now + Duration::from_millis(2500));
    for (jitter, due) in [(0.0, 9_000), (1.0, 11_000)] {
        checked.hear(check, Ok(()), now, now, jitter);
        let at = checked.due(check, now + SECOND * 5).saturating_duration_since(now).as_millis();
        assert!(at.abs_diff(due) <= 1, "{at}");
    }
}

#[test]
fn so_many_failures_in_a_row_eject() {
    let upstream = with(3, "health: { outliers: { failures: 3, eject_for: 10s, eject_for_max: 15s } }");
    let now = clock::now();
    let fail = |count: usize, now| assert!((0..count).all(|_| !upstream.responded(0, 503, MILLISECOND, now)));
    fail(2, now);
    well(&upstream, 0, MILLISECOND, now);
    fail(2, now);
    assert_eq!(is_in(&upstream, now), [true; 3]);
    upstream.failed(0, Some(UpstreamError::Timeout), now);
    assert_eq!(is_in(&upstream, now), [false, true, true]);
    assert_eq!(counts(&upstream, 10, now), [0, 5, 5]);
    let view = upstream.targets[0].health.as_ref().unwrap().outlier.as_ref().unwrap().view(now).unwrap();
    assert_eq!((view.until, view.reason, view.times), (now + SECOND * 10, Reason::Failures, 1));
    // What began before and fails now says nothing new.
    fail(5, now + SECOND);
    let back = now + SECOND * 10 + MILLISECOND;
    assert_eq!(is_in(&upstream, back - MILLISECOND * 2), [false, true, true]);
    assert_eq!(is_in(&upstream, back), [true; 3]);
    assert!(upstream.targets[0].state.share(SECOND * 10, back) < 0.2, "it warms up");
    fail(3, back);
    let view = upstream.targets[0].health.as_ref().unwrap().outlier.as_ref().unwrap().view(back).unwrap();
    assert_eq!((view.until, view.times), (back + SECOND * 15, 2));
}

#[test]
fn only_what_is_named_is_a_failure() {
    let upstream = with(2, "health: { outliers: { failures: 1, on: [connect, 500], eject_for: 10s } }");
    let now = clock::now();
    upstream.failed(0, Some(UpstreamError::Timeout), now);
    upstream.failed(0, Some(UpstreamError::Reset), now);
    upstream.responded(0, 503, MILLISECOND, now);
    assert_eq!(is_in(&upstream, now), [true, true]);
    upstream.failed(0, Some(UpstreamError::Connect), now);
    assert_eq!(is_in(&upstream, now), [false, true]);
    let upstream = with(2, "health: { outliers: { failures: 1, on: [connect, 500], eject_for: 10s } }");
    upstream.responded(1, 500, MILLISECOND, now);
    assert_eq!(is_in(&upstream, now), [true, false]);
}

#[test]
fn a_share_of_failures_ejects_once_there_are_enough_requests() {
    let upstream = with(2, "health: { outliers: { rate: 50%, requests_min: 10, window: 10s } }");
    let now = clock::now();
    for _ in 0..4 {
        upstream.failed(0, Some(UpstreamError::Reset), now);
        well(&upstream, 0, MILLISECOND, now);
    }
    well(&upstream, 0, MILLISECOND, now);
    assert_eq!(is_in(&upstream, now), [true, true], "nine requests");
    // Four of ten are not half of them, five of eleven neither, six of twelve are.
    well(&upstream, 0, MILLISECOND, now);
    upstream.failed(0, Some(UpstreamError::Reset), now);
    assert_eq!(is_in(&upstream, now), [true, true]);
    upstream.failed(0, Some(UpstreamError::Reset), now);
    assert_eq!(is_in(&upstream, now), [false, true]);
}

#[test]
fn a_target_that_is_slower_than_the_others_is_ejected() {
    let keys = "health: { outliers: { latency: { times: 3 }, requests_min: 10, window: 10s } }";
    let upstream = with(4, keys);
    let now = clock::now();
    for _ in 0..20 {
        (0..3).for_each(|index| well(&upstream, index, MILLISECOND * 10, now));
    }
    // As slow as may be.
    (0..20).for_each(|_| well(&upstream, 3, MILLISECOND * 29, now));
    assert_eq!(is_in(&upstream, now), [true; 4]);
    let later = now + SECOND * 20;
    (0..9).for_each(|_| well(&upstream, 3, MILLISECOND * 31, later));
    assert_eq!(is_in(&upstream, later), [true; 4], "nine are not enough");
    well(&upstream, 3, MILLISECOND * 31, later);
    assert_eq!(is_in(&upstream, later), [true, true, true, false]);
    // When all are slow none is an outlier.
    let upstream = with(4, keys);
    for _ in 0..100 {
        (0..4).for_each(|index| well(&upstream, index, SECOND, now));
    }
    assert_eq!(is_in(&upstream, now), [true; 4]);
}

#[test]
fn a_few_slow_answers_do_not_eject() {
    let upstream = with(2, "health: { outliers: { latency: { over: 100ms, share: 20% }, requests_min: 10 } }");
    let now = clock::now();
    for _ in 0..9 {
        well(&upstream, 0, MILLISECOND * 100, now);
    }
    well(&upstream, 0, SECOND * 30, now);
    assert_eq!(is_in(&upstream, now), [true, true], "one of ten");
    (0..2).for_each(|_| well(&upstream, 0, MILLISECOND * 101, now));
    assert_eq!(is_in(&upstream, now), [false, true], "three of twelve");
}

#[test]
fn no_more_are_ejected_than_may_be() {
    let now = clock::now();
    for (targets, max, due) in
        [(1, "50%", 0), (1, "100%", 1), (2, "10%", 1), (4, "50%", 2), (5, "50%", 2), (3, "100%", 3)]
    {
        let upstream = with(targets, &format!("health: {{ outliers: {{ failures: 1, ejected_max: {max} }} }}"));
        for index in 0..targets {
            upstream.failed(u16::try_from(index).unwrap(), Some(UpstreamError::Connect), now);
        }
        let out = is_in(&upstream, now).iter().filter(|is_in| !**is_in).count();
        assert_eq!(out, due, "{targets} at {max}");
        let spared = upstream.health.as_ref().unwrap().shared().spared_count();
        assert_eq!(usize::try_from(spared).unwrap(), targets - due);
    }
}

#[test]
fn threads_that_fail_at_once_eject_no_more_than_may_be() {
    let upstream = with(10, "health: { outliers: { failures: 2, ejected_max: 30% } }");
    let now = clock::now();
    std::thread::scope(|scope| {
        for index in 0..10 {
            let upstream = &upstream;
            scope.spawn(move || (0..100).for_each(|_| upstream.failed(index, Some(UpstreamError::Connect), now)));
        }
    });
    assert_eq!(is_in(&upstream, now).iter().filter(|is_in| !**is_in).count(), 3);
}

#[test]
fn health_and_breakers_are_independent() {
    let keys =
        "circuit_breaker: { per: target, failures: 1, open_for: 1h }, health: { tcp: true, all_unhealthy: refuse }";
    let upstream = with(2, keys);
    let now = clock::now();
    upstream.targets[0].breaker.as_ref().unwrap().admit(now).unwrap().failed(now);
    assert_eq!((counts(&upstream, 10, now), is_in(&upstream, now)), (vec![0, 10], vec![true, true]));
    hear(&upstream, 1, false, now);
    assert!(matches!(none(&upstream, now), NoTarget::Open(_)), "the healthy one is open");
    hear(&upstream, 0, false, now);
    assert_eq!(none(&upstream, now), NoTarget::Unavailable);
}

#[test]
fn what_makes_no_sense_is_reported() {
    for (keys, message) in [
        ("{}", "nothing says how targets are found to be unhealthy"),
        ("{ tcp: false }", "nothing says how targets are found to be unhealthy"),
        ("{ tcp: true, method: GET }", "`method` belongs to a check by `path`"),
        ("{ path: /x, body: { matches: \"(\" } }", "this is no regular expression"),
        ("{ path: /x, status: [] }", "no status would be that of a healthy target"),
    ] {
        let problems = try_compile(&yaml(1, &format!("health: {keys}")), None).err().unwrap();
        assert!(problems.iter().any(|problem| format!("{problem:?}").contains(message)), "{keys}: {problems:?}");
    }
}
