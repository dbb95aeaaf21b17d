mod faulty;
mod model;
mod waiting;

use super::*;
use crate::state::{Limits, Memory, Space};
use std::time::UNIX_EPOCH;

const SPACE: Space = Space("quota");

/// A store that ends nothing while a test runs.
fn memory() -> Arc<Memory> {
    Arc::new(Memory::new(Limits::default()))
}

fn quotas(store: &Arc<impl Store>) -> Arc<Quotas> {
    let quotas = Arc::new(Quotas::default());
    quotas.attach(Arc::clone(store) as Arc<dyn Store>);
    quotas
}

fn terms(unit: Unit, zone: &str, on_store_error: OnStoreError) -> Terms {
    Terms { calendar: Calendar::new(unit, zone).unwrap(), on_store_error }
}

/// A moment in a day that is still to come, so that no counter has ended by the clock of the store.
fn at(text: &str) -> Moment {
    Moment { wall: text.parse::<jiff::Timestamp>().unwrap().into(), now: clock::now() }
}

const NOON: &str = "2040-06-15T12:00:00Z";

/// Of so many requests for one unit, how many are admitted.
async fn admitted(quotas: &Quotas, terms: &Terms, who: &str, limit: u64, requests: u64, at: Moment) -> u64 {
    let bucket = quotas.bucket("b");
    let mut admitted = 0;
    for _ in 0..requests {
        let answer = bucket.spend(terms, who, Want { limit, cost: 1 }, at).await;
        admitted += u64::from(matches!(answer, Answer::Admitted(_)));
    }
    admitted
}

async fn counter(store: &dyn Store, key: &str) -> u64 {
    let value = store.get(SPACE, key).await.unwrap();
    value.map_or(0, |value| String::from_utf8(value).unwrap().parse().unwrap())
}

#[tokio::test]
async fn one_more_than_the_limit_is_refused_and_says_when_it_ends() {
    let (store, terms) = (memory(), terms(Unit::Month, "Europe/Berlin", OnStoreError::Local));
    let quotas = quotas(&store);
    assert_eq!(admitted(&quotas, &terms, "a", 1000, 1000, at(NOON)).await, 1000);
    let answer = quotas.bucket("b").spend(&terms, "a", Want { limit: 1000, cost: 1 }, at(NOON)).await;
    let ends = at("2040-06-30T22:00:00Z").wall;
    assert_eq!(
        answer,
        Answer::Refused(Figures { limit: 1000, used: 1000, ends, length: Duration::from_secs(30 * 86_400) })
    );
    assert_eq!(admitted(&quotas, &terms, "b", 1000, 1, at(NOON)).await, 1, "somebody else");
    assert_eq!(counter(&*store, "b/2040-06/a").await, 1000);
}

#[tokio::test]
async fn the_second_behind_midnight_of_the_zone_has_a_new_quota() {
    // Clocks are set forward in the night: the day before ends at 22:00, this one at 21:00 of the zone without summer time.
    let (store, terms) = (memory(), terms(Unit::Day, "Europe/Berlin", OnStoreError::Local));
    let quotas = quotas(&store);
    for (before, after) in
        [("2040-03-24T22:59:59Z", "2040-03-24T23:00:00Z"), ("2040-03-25T21:59:59Z", "2040-03-25T22:00:00Z")]
    {
        assert_eq!(admitted(&quotas, &terms, before, 7, 8, at(before)).await, 7);
        assert_eq!(admitted(&quotas, &terms, before, 7, 1, at(before)).await, 0);
        assert_eq!(admitted(&quotas, &terms, before, 7, 8, at(after)).await, 7, "{after}");
        assert_eq!(admitted(&quotas, &terms, before, 7, 1, at(before)).await, 0, "the clock is set back");
        assert_eq!(admitted(&quotas, &terms, before, 7, 1, at(after)).await, 0, "and goes on");
    }
}

#[tokio::test]
async fn a_changed_limit_keeps_what_is_used() {
    let (store, terms) = (memory(), terms(Unit::Day, "UTC", OnStoreError::Local));
    let quotas = quotas(&store);
    let mut at = at(NOON);
    for (limit, more) in [(1000, 400), (300, 0), (401, 1), (500, 99), (500, 0), (100, 0), (1000, 500)] {
        at.now += Duration::from_secs(2);
        let requests = if limit == 1000 && more == 400 { 400 } else { 600 };
        assert_eq!(admitted(&quotas, &terms, "a", limit, requests, at).await, more, "{limit}");
    }
    assert_eq!(counter(&*store, "b/2040-06-15/a").await, 1000);
}

#[tokio::test]
async fn idle_accounts_give_back_and_are_forgotten() {
    let (store, terms) = (memory(), terms(Unit::Day, "UTC", OnStoreError::Local));
    let quotas = quotas(&store);
    let at = at(NOON);
    assert_eq!(admitted(&quotas, &terms, "a", 100_000, 3, at).await, 3);
    assert_eq!(counter(&*store, "b/2040-06-15/a").await, 1000);
    let sweep = |seconds| (0..4).for_each(|_| quotas.sweep(at.now + Duration::from_secs(seconds)));
    sweep(9);
    assert_eq!(counter(&*store, "b/2040-06-15/a").await, 1000, "it may come back at once");
    sweep(10);
    assert_eq!(counter(&*store, "b/2040-06-15/a").await, 3);
    assert!(!quotas.bucket("b").is_empty());
    sweep(20);
    assert!(quotas.buckets.lock().unwrap().is_empty(), "the account and its bucket");
    let other = quotas.bucket("b");
    sweep(30);
    assert!(Arc::ptr_eq(&other, &quotas.bucket("b")), "it is in use");
}

#[tokio::test]
async fn a_graceful_end_leaves_exactly_what_was_used() {
    let (store, terms) = (memory(), terms(Unit::Day, "UTC", OnStoreError::Local));
    for (round, who) in ["a", "b", "c", "a", "b", "a"].into_iter().enumerate() {
        let quotas = quotas(&store);
        assert_eq!(admitted(&quotas, &terms, who, 100_000, 5, at(NOON)).await, 5, "{round}");
        quotas.flush().await;
    }
    let used = [counter(&*store, "b/2040-06-15/a").await, counter(&*store, "b/2040-06-15/b").await];
    assert_eq!(used, [15, 10]);
}

#[tokio::test]
async fn a_key_that_is_too_long_is_hashed_and_stays_apart_from_others() {
    let (store, terms) = (memory(), terms(Unit::Day, "UTC", OnStoreError::Deny));
    let quotas = quotas(&store);
    let long = |last: &str| ["x".repeat(600).as_str(), last].concat();
    assert_eq!(admitted(&quotas, &terms, &long("a"), 2, 3, at(NOON)).await, 2);
    assert_eq!(admitted(&quotas, &terms, &long("b"), 2, 3, at(NOON)).await, 2);
    let entries = store.list(SPACE, None, 10).await.unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry.key.len() < 100 && entry.key.starts_with("2040-06-15/sha256:")));
}

#[tokio::test]
async fn a_flood_of_callers_takes_bounded_room_and_loses_nothing_that_was_used() {
    let (store, terms) = (memory(), terms(Unit::Day, "UTC", OnStoreError::Deny));
    let quotas = quotas(&store);
    let bucket = quotas.bucket("b");
    let at = at(NOON);
    let known = Want { limit: 1000, cost: 1 };
    for _ in 0..5 {
        bucket.spend(&terms, "known", known, at).await;
    }
    for number in 0..140_000 {
        let later = Moment { now: at.now + Duration::from_millis(number), ..at };
        let answer = bucket.spend(&terms, &number.to_string(), Want { limit: 200, cost: 1 }, later).await;
        assert!(matches!(answer, Answer::Admitted(_)), "{number}");
    }
    assert!(bucket.len() <= 131_072, "{}", bucket.len());
    let Answer::Admitted(figures) = bucket.spend(&terms, "known", known, at).await else { panic!("refused") };
    assert!((6..=16).contains(&figures.used), "{figures:?}");
    quotas.flush().await;
    assert_eq!(counter(&*store, "b/2040-06-15/known").await, 6);
    assert_eq!(counter(&*store, "b/2040-06-15/0").await, 1);
}

#[tokio::test]
async fn without_a_store_the_policy_decides() {
    let quotas = Quotas::default();
    for (policy, expected) in [(OnStoreError::Local, 3), (OnStoreError::Allow, 5), (OnStoreError::Deny, 0)] {
        let terms = terms(Unit::Day, "UTC", policy);
        assert_eq!(admitted(&quotas, &terms, &format!("{policy:?}"), 3, 5, at(NOON)).await, expected, "{policy:?}");
    }
    assert!(quotas.sample().errors > 0);
    let (bucket, terms) = (quotas.bucket("b"), terms(Unit::Day, "UTC", OnStoreError::Deny));
    let answer = bucket.spend(&terms, "x", Want { limit: 1, cost: 1 }, at(NOON)).await;
    assert_eq!(answer, Answer::Unavailable);
    assert_eq!(quotas.sample().without, [("local", 5), ("allow", 5), ("deny", 6)]);
}

#[tokio::test]
async fn a_flood_while_the_store_is_away_keeps_out_nobody_whom_the_policy_lets_in() {
    let (store, terms) = (memory(), terms(Unit::Day, "UTC", OnStoreError::Allow));
    let quotas = quotas(&store);
    let (bucket, at, want) = (quotas.bucket("b"), at(NOON), Want { limit: 3, cost: 1 });
    quotas.teller.lost_patience();
    for number in 0..140_000 {
        let answer = bucket.spend(&terms, &number.to_string(), want, at).await;
        assert!(matches!(answer, Answer::Admitted(_)), "{number}");
    }
    assert!(bucket.len() <= 131_072, "{}", bucket.len());
}

#[tokio::test]
async fn operators_see_what_was_used_and_give_it_back() {
    let (store, terms) = (memory(), terms(Unit::Day, "UTC", OnStoreError::Local));
    let (one, other) = (quotas(&store), quotas(&store));
    let at = at(NOON);
    assert_eq!(admitted(&one, &terms, "a", 1000, 30, at).await, 30);
    assert_eq!(admitted(&one, &terms, "", 10, 2, at).await, 2);
    assert_eq!(admitted(&other, &terms, "b", 1000, 50, at).await, 50);
    assert_eq!(admitted(&other, &terms, "a/b", 1000, 1, at).await, 1);
    other.flush().await;
    let (bucket, calendar) = (one.bucket("b"), &terms.calendar);
    let used = |found: &[Used]| -> Vec<(String, u64)> {
        found.iter().map(|used| (used.who.clone(), used.figures.used)).collect()
    };
    let found = bucket.top(calendar, 1000, 3, at.wall).await.unwrap();
    let expected = [("", 2), ("b", 50), ("a", 30)].map(|(who, used)| (who.to_owned(), used));
    assert_eq!(used(&found), expected, "by the share, without what is only held in advance");
    assert_eq!(bucket.accounts(), 2, "a look makes no accounts");
    let a = bucket.show(calendar, 5, "a", at.wall).await.unwrap().unwrap().figures;
    assert_eq!((a.limit, a.used, a.ends), (1000, 30, self::at("2040-06-16T00:00:00Z").wall));
    assert_eq!(bucket.show(calendar, 5, "nobody", at.wall).await.unwrap(), None);
    assert_eq!(bucket.show(calendar, 5, "a", self::at("2040-06-16T00:00:00Z").wall).await.unwrap(), None);
    for (who, was_used) in [("a", true), ("a", false), ("b", true), ("nobody", false)] {
        assert_eq!(bucket.reset(calendar, who, at.wall).await.unwrap(), was_used, "{who}");
        assert_eq!(bucket.show(calendar, 5, who, at.wall).await.unwrap(), None, "{who}");
    }
    assert_eq!(admitted(&one, &terms, "a", 1000, 1001, at).await, 1000, "all of it, and no more");
    assert!(Quotas::default().bucket("b").show(calendar, 5, "a", at.wall).await.is_err(), "there is no store");
}

#[test]
fn moments_before_1970_are_the_first_one() {
    let terms = terms(Unit::Day, "UTC", OnStoreError::Local);
    let early = Moment { wall: UNIX_EPOCH - Duration::from_secs(10), now: clock::now() };
    let quotas = Quotas::default();
    let bucket = quotas.bucket("b");
    // It neither panics nor turns in a circle.
    assert!(matches!(bucket.try_spend(&terms, "a", Want { limit: 1, cost: 1 }, early), Outcome::Waiting(_)));
}
