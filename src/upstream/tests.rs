use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;
use crate::head::{HeaderName, HeaderValue, Headers as _, Method, RequestBuf};
use crate::observe::metrics::UpstreamError;
use crate::yaml::{Place, Sources, decode, parse};

const SECOND: Duration = Duration::from_secs(1);
const WAYS: [&str; 4] = ["round_robin", "least_connections", "random", "{ hash: path }"];

pub(super) fn try_compile(yaml: &str, previous: Option<&Arc<Upstream>>) -> Result<Arc<Upstream>, Vec<Problem>> {
    let mut sources = Sources::new();
    let file = sources.add("test.yaml", yaml);
    let written: config::Upstream = decode(&parse(&sources, file)?)?;
    Upstream::compile(
        &Located::new("main".into(), Place::UNKNOWN),
        &written,
        previous,
        &Metrics::new(1000),
        &Attached::new(),
    )
}

pub(super) fn compile(yaml: &str, previous: Option<&Arc<Upstream>>) -> Arc<Upstream> {
    try_compile(yaml, previous).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// Targets 10.0.0.0, 10.0.0.1, … with these weights.
fn with(weights: &[u16], keys: &str) -> Arc<Upstream> {
    compile(&yaml(weights, keys), None)
}

pub(super) fn yaml(weights: &[u16], keys: &str) -> String {
    let target = |(index, weight)| format!("{{ address: 10.0.0.{index}:80, weight: {weight} }}");
    let targets: Vec<String> = weights.iter().enumerate().map(target).collect();
    format!("{{ targets: [{}], {keys} }}", targets.join(", "))
}

pub(super) fn choose<'a>(upstream: &'a Upstream, path: &str, now: Instant) -> Choice<'a> {
    let head = RequestBuf::new(Method::GET, path);
    upstream.choose(&[], &Hints { head: &head, client: None, consumer: None }, now).unwrap()
}

/// How often each target is chosen, one request after the other.
pub(super) fn counts(upstream: &Upstream, requests: u32, now: Instant) -> Vec<u32> {
    let mut counts = vec![0; upstream.targets().len()];
    for number in 0..requests {
        counts[usize::from(choose(upstream, &format!("/{number}"), now).index)] += 1;
    }
    counts
}

/// Chi square against shares as the weights say.
fn chi_square(counts: &[u32], weights: &[u16]) -> f64 {
    let (all, sum) = (counts.iter().sum::<u32>(), weights.iter().copied().map(u32::from).sum::<u32>());
    let due = weights.iter().map(|weight| f64::from(all) * f64::from(*weight) / f64::from(sum));
    counts.iter().zip(due).map(|(count, due)| (f64::from(*count) - due).powi(2) / due).sum()
}

fn in_flight(upstream: &Upstream) -> Vec<u32> {
    upstream.targets().iter().map(|target| target.state.in_flight()).collect()
}

#[test]
fn idle_targets_share_by_weight_whatever_the_way() {
    let weights = [5, 3, 1, 1];
    for way in WAYS {
        fastrand::seed(7);
        let upstream = with(&weights, &format!("balance: {way}"));
        let counts = counts(&upstream, 20_000, clock::now());
        // Three degrees of freedom: 16.3 at one in a thousand.
        assert!(chi_square(&counts, &weights) < 16.3, "{way}: {counts:?}");
        assert_eq!(in_flight(&upstream), [0, 0, 0, 0], "{way}: nothing is left in flight");
    }
}

#[test]
fn the_least_connections_are_fair_by_weight() {
    let upstream = with(&[3, 2, 1], "balance: least_connections");
    let now = clock::now();
    let mut held: Vec<Choice<'_>> = (0..600).map(|_| choose(&upstream, "/", now)).collect();
    for (count, due) in in_flight(&upstream).iter().zip([300, 200, 100]) {
        assert!(count.abs_diff(due) <= 3, "{:?}", in_flight(&upstream));
    }
    // A target that is done with everything gets the next ones.
    held.retain(|choice| choice.index != 2);
    assert!((0..10).all(|_| choose(&upstream, "/", now).index == 2));
}

#[test]
fn two_choices_spread_requests_that_stay() {
    fastrand::seed(7);
    let upstream = with(&[1; 10], "balance: random");
    let now = clock::now();
    let held: Vec<Choice<'_>> = (0..1000).map(|_| choose(&upstream, "/", now)).collect();
    // Drawn once each they would be 20 and more apart.
    assert!(in_flight(&upstream).iter().all(|count| count.abs_diff(100) <= 5), "{:?}", in_flight(&upstream));
    drop(held);
    assert_eq!(in_flight(&upstream), [0; 10]);
}

#[test]
fn a_target_that_fails_or_is_slow_is_left_alone_for_a_while() {
    fastrand::seed(7);
    let upstream = with(&[1, 1], "balance: random");
    let now = clock::now();
    upstream.responded(0, 200, Duration::from_millis(10), now);
    upstream.responded(1, 200, Duration::from_millis(5), now);
    assert_eq!(counts(&upstream, 100, now), [0, 100], "the faster one of two");
    // Its errors come faster still, and do not count as fast.
    for _ in 0..50 {
        upstream.responded(1, 503, Duration::from_millis(1), now);
    }
    assert_eq!(upstream.targets()[1].state.latency(now), Some(5000.0));
    upstream.failed(1, Some(UpstreamError::Connect), now);
    assert_eq!(counts(&upstream, 100, now), [100, 0]);
    // Without answers the average fades: then it is tried again.
    let later = now + SECOND * 300;
    upstream.responded(0, 200, Duration::from_millis(10), later);
    assert_eq!(counts(&upstream, 100, later), [0, 100]);
}

#[test]
fn a_new_target_is_not_flooded_to_find_out_how_fast_it_is() {
    fastrand::seed(7);
    let upstream = with(&[1, 1], "balance: random");
    let now = clock::now();
    upstream.responded(0, 200, Duration::from_secs(9), now);
    let _held: Vec<Choice<'_>> = (0..100).map(|_| choose(&upstream, "/", now)).collect();
    assert_eq!(in_flight(&upstream), [50, 50]);
}

proptest! {
    #[test]
    fn the_better_one_of_two_is_taken(
        weights in proptest::array::uniform2(1_u16..10),
        loads in proptest::array::uniform2(0_u32..20),
        millis in proptest::array::uniform2(1_u64..500),
    ) {
        let upstream = with(&weights, "balance: random");
        let now = clock::now();
        for (index, target) in upstream.targets().iter().enumerate() {
            (0..loads[index]).for_each(|_| assert!(target.state.enter(None)));
            target.state.sample(Duration::from_millis(millis[index]), now);
        }
        let cost = |index: usize| {
            f64::from(millis[index] as u32) * (f64::from(loads[index]) / f64::from(weights[index]) + 1.0)
        };
        let chosen = usize::from(choose(&upstream, "/", now).index);
        prop_assert!(cost(chosen) <= cost(1 - chosen) * 1.0001);
    }

    #[test]
    fn a_tried_target_is_not_taken_while_another_is_left(
        way in 0_usize..4,
        count in 1_u16..6,
        backup in 0_u16..6,
        tried in proptest::collection::vec(0_u16..6, 0..6),
        path in "/[a-z]{1,8}",
    ) {
        let is_backup = |index: u16| index == backup && count > 1;
        let targets: Vec<String> = (0..count)
            .map(|index| format!("{{ address: 10.0.0.{index}:80, backup: {} }}", is_backup(index))).collect();
        let upstream = compile(&format!("{{ targets: [{}], balance: {} }}", targets.join(", "), WAYS[way]), None);
        let head = RequestBuf::new(Method::GET, &path);
        let hints = Hints { head: &head, client: None, consumer: None };
        let chosen = upstream.choose(&tried, &hints, clock::now()).unwrap().index;
        let left: Vec<u16> = (0..count).filter(|index| !tried.contains(index)).collect();
        prop_assert!(left.is_empty() || left.contains(&chosen));
        // A backup only when no other target is left.
        prop_assert!(!is_backup(chosen) || left.iter().all(|index| is_backup(*index)));
    }
}

/// Where each of so many keys leads.
fn led(upstream: &Upstream, keys: u32) -> BTreeMap<u32, Arc<str>> {
    let now = clock::now();
    (0..keys).map(|key| (key, Arc::clone(&choose(upstream, &format!("/{key}"), now).target.label))).collect()
}

#[test]
fn a_key_stays_when_targets_come_and_go() {
    const KEYS: u32 = 5_000;
    for count in [3_usize, 10, 50] {
        let few = with(&vec![1; count], "balance: { hash: path }");
        let more = compile(&yaml(&vec![1; count + 1], "balance: { hash: path }"), Some(&few));
        let (before, after) = (led(&few, KEYS), led(&more, KEYS));
        assert_eq!(before, led(&few, KEYS), "the same key, the same target");
        let moved = before.iter().filter(|(key, target)| after[*key] != **target).count();
        let due = f64::from(KEYS) / (count as f64 + 1.0);
        assert!((moved as f64) > due * 0.7 && (moved as f64) < due * 1.6, "{moved} of {KEYS} to one of {count} more");
    }
}

#[test]
fn the_keys_of_a_target_that_is_left_out_are_spread_and_come_back() {
    let upstream = with(&[1, 1, 1, 1], "balance: { hash: path }");
    let now = clock::now();
    let mut others = [0_u32; 4];
    for key in 0..2_000 {
        let head = RequestBuf::new(Method::GET, &format!("/{key}"));
        let hints = Hints { head: &head, client: None, consumer: None };
        let own = upstream.choose(&[], &hints, now).unwrap().index;
        let other = upstream.choose(&[0], &hints, now).unwrap().index;
        assert_eq!(other, upstream.choose(&[0], &hints, now).unwrap().index);
        assert!(own == 0 || own == other, "only the keys of that target move");
        others[usize::from(other)] += u32::from(own == 0);
    }
    assert!(others[0] == 0 && chi_square(&others[1..], &[1, 1, 1]) < 13.8, "{others:?}");
}

#[test]
fn no_target_has_much_more_in_flight_than_its_share() {
    for weights in [[1, 1, 1, 1], [4, 2, 1, 1]] {
        let upstream = with(&weights, "balance: { hash: path }");
        let (now, sum) = (clock::now(), f64::from(weights.iter().sum::<u16>()));
        let mut held = Vec::new();
        for number in 1..=400 {
            let choice = choose(&upstream, "/everybody", now);
            let due = f64::from(number) * f64::from(weights[usize::from(choice.index)]) / sum;
            let has = choice.target.state.in_flight();
            assert!(f64::from(has) <= f64::max(8.0, (due * 1.25).ceil()), "{has} of {number}, {due} due");
            held.push(choice);
        }
        let own = held[0].index;
        // Eight stay together, and when the others are done the key is back where it was.
        assert!(held[..8].iter().all(|choice| choice.index == own) && held[8].index != own);
        drop(held);
        assert_eq!(choose(&upstream, "/everybody", now).index, own);
        assert_eq!((in_flight(&upstream), upstream.total.in_flight()), (vec![0; 4], 0));
    }
}

#[test]
fn keys_are_what_the_settings_say() {
    let mut head = RequestBuf::new(Method::GET, "/a?b=1");
    head.append(&HeaderName::from_static("x-tenant"), HeaderValue::from_static("acme"));
    head.append(&HeaderName::from_static("cookie"), HeaderValue::from_static("a=b; sid=77"));
    let client = Some("192.0.2.7".parse().unwrap());
    let known = Hints { head: &head, client, consumer: Some("dashboard") };
    let blank = RequestBuf::new(Method::GET, "/a");
    let unknown = Hints { head: &blank, client: None, consumer: None };
    let now = clock::now();
    for by in ["{ header: X-Tenant }", "{ cookie: sid }", "ip", "consumer", "path"] {
        let upstream = with(&[1; 7], &format!("balance: {{ hash: {by} }}"));
        let first = upstream.choose(&[], &known, now).unwrap().index;
        assert!((0..20).all(|_| upstream.choose(&[], &known, now).unwrap().index == first), "{by}");
        let mut seen: Vec<u16> = (0..7).map(|_| upstream.choose(&[], &unknown, now).unwrap().index).collect();
        seen.sort_unstable();
        seen.dedup();
        // Without a key they take turns. There always is a path; the query is no part of it.
        assert_eq!(seen.len(), if by == "path" { 1 } else { 7 }, "{by}");
        assert!(by != "path" || seen == [first]);
    }
}

#[test]
fn a_new_target_works_up_to_its_share() {
    for way in WAYS {
        fastrand::seed(7);
        let keys = format!("balance: {way}, slow_start: 100s");
        let before = with(&[1, 1, 1], &keys);
        assert!(counts(&before, 900, clock::now()).iter().all(|count| *count > 200), "{way}: all new, none slow");
        let upstream = compile(&yaml(&[1, 1, 1, 1], &keys), Some(&before));
        let start = clock::now();
        let share = |seconds| f64::from(counts(&upstream, 8_000, start + SECOND * seconds)[3]) / 8_000.0;
        let shares = [share(5), share(50), share(90), share(101)];
        // A part of a quarter: of two drawn, or of turns, as of keys.
        let due = [0.025, 0.125, 0.225, 0.25];
        for (share, due) in shares.iter().zip(due) {
            assert!((share - due).abs() < 0.05, "{way}: {shares:?}");
        }
        assert!(shares[0] > 0.005 && shares[0] < shares[1] && shares[1] < shares[2], "{way}: {shares:?}");
    }
}

#[test]
fn with_the_least_connections_a_new_target_has_less_in_flight() {
    let keys = "balance: least_connections, slow_start: 100s";
    let before = with(&[1], keys);
    let upstream = compile(&yaml(&[1, 1], keys), Some(&before));
    let now = clock::now();
    let _held: Vec<Choice<'_>> = (0..300).map(|_| choose(&upstream, "/", now + SECOND * 50)).collect();
    assert!(in_flight(&upstream)[0].abs_diff(200) < 5, "{:?}", in_flight(&upstream));
}

#[test]
fn a_key_that_moved_to_a_new_target_stays_there() {
    let keys = "balance: { hash: path }, slow_start: 100s";
    let upstream = compile(&yaml(&[1, 1, 1], keys), Some(&with(&[1, 1], keys)));
    let start = clock::now();
    for key in 0..500 {
        let path = format!("/{key}");
        let led: Vec<u16> = (0..11).map(|tenth| choose(&upstream, &path, start + SECOND * 10 * tenth).index).collect();
        let moves = led.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(moves == 0 || moves == 1 && led[10] == 2, "{path}: {led:?}");
    }
}

#[test]
fn what_is_over_goes_to_others_and_then_nowhere() {
    for way in WAYS {
        let yaml = format!(
            "{{ targets: [{{ address: 10.0.0.1:80, in_flight_max: 1 }}, {{ address: 10.0.0.2:80 }}, \
             {{ address: 10.0.0.3:80, backup: true }}], target_in_flight_max: 2, balance: {way} }}"
        );
        let upstream = compile(&yaml, None);
        let now = clock::now();
        let held: Vec<Choice<'_>> = (0..5).map(|_| choose(&upstream, "/", now)).collect();
        assert_eq!(in_flight(&upstream), [1, 2, 2], "{way}");
        assert!(held[..3].iter().all(|choice| choice.index != 2), "{way}: the backup comes last");
        let head = RequestBuf::new(Method::GET, "/");
        let hints = Hints { head: &head, client: None, consumer: None };
        assert_eq!(upstream.choose(&[], &hints, now).err(), Some(NoTarget::Full), "{way}");
        assert_eq!(upstream.choose(&[0, 1, 2], &hints, now).err(), Some(NoTarget::Full), "{way}");
        drop(held);
        assert_eq!(in_flight(&upstream), [0, 0, 0], "{way}");
    }
}

#[test]
fn a_name_without_an_address_is_no_target() {
    let upstream = compile("{ targets: [{ address: a.invalid:80 }], balance: least_connections }", None);
    let head = RequestBuf::new(Method::GET, "/");
    let hints = Hints { head: &head, client: None, consumer: None };
    assert_eq!(upstream.choose(&[], &hints, clock::now()).err(), Some(NoTarget::Unavailable));
}

#[test]
fn a_bound_holds_when_many_threads_choose_at_once() {
    let upstream = with(&[1, 1], "balance: random, target_in_flight_max: 3");
    let inside = [AtomicU32::new(0), AtomicU32::new(0)];
    let refused = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let head = RequestBuf::new(Method::GET, "/");
                let hints = Hints { head: &head, client: None, consumer: None };
                for _ in 0..5_000 {
                    match upstream.choose(&[], &hints, clock::now()) {
                        Ok(choice) => {
                            let inside = &inside[usize::from(choice.index)];
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                        Err(_) => _ = refused.fetch_add(1, Ordering::Relaxed),
                    }
                }
            });
        }
    });
    assert_eq!(in_flight(&upstream), [0, 0]);
    assert!(refused.into_inner() > 0, "eight at once are more than six");
}

#[test]
fn a_cookie_leads_back_while_its_target_is_usable() {
    for way in WAYS {
        let upstream = with(&[1, 1, 1], &format!("balance: {way}, sticky: {{ cookie: lb }}"));
        let now = clock::now();
        let first = choose(&upstream, "/", now);
        assert!(first.sets_cookie);
        let field = upstream.cookie(first.index, false).unwrap();
        let mut head = RequestBuf::new(Method::GET, "/elsewhere");
        let pair = field.to_str().unwrap().split(';').next().unwrap();
        head.append(&HeaderName::from_static("cookie"), HeaderValue::from_str(pair).unwrap());
        let hints = Hints { head: &head, client: None, consumer: None };
        for _ in 0..10 {
            let again = upstream.choose(&[], &hints, now).unwrap();
            assert!(again.index == first.index && !again.sets_cookie, "{way}");
        }
        let other = upstream.choose(&[first.index], &hints, now).unwrap();
        assert!(other.index != first.index && other.sets_cookie, "{way}: it moves, and the client is told");
    }
}

#[test]
fn what_is_in_flight_survives_every_change_but_that_of_the_address() {
    let now = clock::now();
    let first = with(&[1, 1], "balance: least_connections");
    let held: Vec<Choice<'_>> = (0..6).map(|_| choose(&first, "/", now)).collect();
    first.targets()[0].state.sample(SECOND, now);
    let second = compile(&yaml(&[5, 1, 1], "balance: { hash: path }, retry: { attempts: 3 }"), Some(&first));
    assert_eq!(in_flight(&second), [3, 3, 0]);
    assert!(second.targets()[0].state.latency(now).is_some());
    // A snapshot that counts nothing hands on what others count, and counts nothing down.
    let third = compile(&yaml(&[1, 1, 1], ""), Some(&second));
    drop(choose(&third, "/", now));
    let fourth = compile(&yaml(&[1, 1], "balance: random"), Some(&third));
    assert_eq!(in_flight(&fourth), [3, 3]);
    drop(held);
    assert_eq!(in_flight(&fourth), [0, 0]);
    assert!(Arc::ptr_eq(&fourth, &compile(&yaml(&[1, 1], "balance: random"), Some(&fourth))));
}

#[test]
fn a_choice_that_is_kept_is_given_back_by_hand() {
    let upstream = with(&[1], "balance: { hash: path }");
    let (index, _) = choose(&upstream, "/", clock::now()).keep();
    assert_eq!((in_flight(&upstream), upstream.total.in_flight()), (vec![1], 1));
    upstream.leave(index);
    assert_eq!((in_flight(&upstream), upstream.total.in_flight()), (vec![0], 0));
}

/// Opens the breaker of a target that opens with one failure.
fn open(upstream: &Upstream, index: usize, now: Instant) {
    upstream.targets()[index].breaker.as_ref().unwrap().admit(now).unwrap().failed(now);
}

#[test]
fn a_target_whose_breaker_is_open_is_left_out_whatever_the_balancing() {
    for way in WAYS {
        let yaml = format!(
            "{{ targets: [{{ address: 10.0.0.1:80 }}, {{ address: 10.0.0.2:80 }}, {{ address: 10.0.0.3:80, backup: true }}], \
             balance: {way}, sticky: {{ cookie: lb }}, target_in_flight_max: 9, \
             circuit_breaker: {{ per: target, failures: 1, open_for: 5s, half_open_requests: 1 }} }}"
        );
        let (upstream, now) = (compile(&yaml, None), clock::now());
        let mut head = RequestBuf::new(Method::GET, "/");
        let pair = upstream.cookie(0, false).unwrap().to_str().unwrap().split(';').next().unwrap().to_owned();
        head.append(&HeaderName::from_static("cookie"), HeaderValue::from_str(&pair).unwrap());
        let hints = Hints { head: &head, client: None, consumer: None };
        open(&upstream, 0, now);
        assert_eq!(counts(&upstream, 50, now), [0, 50, 0], "{way}");
        let moved = upstream.choose(&[], &hints, now).unwrap();
        assert!(moved.index == 1 && moved.sets_cookie, "{way}: a cookie does not lead to it");
        drop(moved);
        open(&upstream, 1, now);
        assert_eq!(counts(&upstream, 50, now), [0, 0, 50], "{way}: the backup comes in");
        open(&upstream, 2, now);
        assert_eq!(upstream.choose(&[], &hints, now).err(), Some(NoTarget::Open(SECOND * 5)), "{way}");
        assert_eq!(in_flight(&upstream), [0, 0, 0], "{way}");
        // Now each gives one probe, and no more while it is held.
        let later = now + SECOND * 5;
        let held: Vec<Choice<'_>> = (0..3).map(|_| upstream.choose(&[], &hints, later).unwrap()).collect();
        assert_eq!(in_flight(&upstream), [1, 1, 1], "{way}");
        assert_eq!(upstream.choose(&[], &hints, later).err(), Some(NoTarget::Open(SECOND)), "{way}");
        drop(held);
        assert_eq!((in_flight(&upstream), upstream.total.in_flight()), (vec![0; 3], 0), "{way}");
        let (index, permit) = upstream.choose(&[], &hints, later).unwrap().keep();
        assert_eq!((index, permit.is_some(), in_flight(&upstream)), (0, true, vec![1, 0, 0]), "{way}");
    }
}

#[test]
fn a_full_target_beside_an_open_one_is_full() {
    let keys = "target_in_flight_max: 1, circuit_breaker: { per: target, failures: 1, open_for: 5s }";
    let (upstream, now) = (with(&[1, 1], keys), clock::now());
    open(&upstream, 0, now);
    let _held = choose(&upstream, "/", now);
    let head = RequestBuf::new(Method::GET, "/");
    let hints = Hints { head: &head, client: None, consumer: None };
    assert_eq!(upstream.choose(&[], &hints, now).err(), Some(NoTarget::Full));
    open(&upstream, 1, now);
    assert_eq!(upstream.choose(&[], &hints, now).err(), Some(NoTarget::Open(SECOND * 5)));
}
