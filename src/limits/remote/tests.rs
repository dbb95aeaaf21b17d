use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::buckets::{LimiterError, Pending, Seen};
use crate::clock;
use crate::types;

mod model;

const KEY: Key<'_> = Key { bucket: "api", who: "consumer=a" };
const BOUND: Duration = Duration::from_millis(50);

fn per_second(count: u64) -> Rates {
    Rates::new([types::Rate { count, per: Duration::from_secs(1) }], None).unwrap()
}

fn per_hour(count: u64) -> Rates {
    Rates::new([types::Rate { count, per: Duration::from_secs(3600) }], None).unwrap()
}

fn terms(on_error: OnStoreError) -> Terms {
    Terms { on_error, lease: None }
}

fn leased(tokens: u32) -> Terms {
    Terms { on_error: OnStoreError::Deny, lease: Some(Lease { tokens, lifetime: Duration::from_secs(1) }) }
}

/// A limiter that does as it is told, with one bucket.
#[derive(Default)]
struct Double {
    used: Mutex<f64>,
    asked: AtomicU64,
    delay: Mutex<Duration>,
    fails: AtomicBool,
    hangs: AtomicBool,
}

impl Double {
    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }
}

impl Limiter for Double {
    fn draw<'a>(&'a self, key: Key<'a>, rates: &'a Rates, ask: Ask) -> Pending<'a, Drawn> {
        Box::pin(async move {
            if key != PROBE_KEY {
                self.asked.fetch_add(1, Ordering::Relaxed);
            }
            let delay = *self.delay.lock().unwrap();
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            if self.hangs.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            if self.fails.load(Ordering::Relaxed) {
                return Err(LimiterError("as it was told".into()));
            }
            let mut used = self.used.lock().unwrap();
            if key == PROBE_KEY {
                return Ok(model::draw(&mut 0.0, rates, ask));
            }
            Ok(model::draw(&mut used, rates, ask))
        })
    }

    fn show<'a>(&'a self, _: Key<'a>) -> Pending<'a, Option<Seen>> {
        Box::pin(async { Ok(None) })
    }

    fn reset<'a>(&'a self, _: Key<'a>) -> Pending<'a, bool> {
        Box::pin(async { Ok(std::mem::take(&mut *self.used.lock().unwrap()) > 0.0) })
    }

    fn top<'a>(&'a self, _: &'a str, _: usize) -> Pending<'a, Vec<Seen>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// A gateway with a limiter that can be told what to do, and a clock that stands still.
struct Bench {
    now: Cell<Instant>,
    double: Arc<Double>,
    remote: Arc<Remote>,
    local: Local,
}

impl Bench {
    fn new() -> Self {
        let double = Arc::new(Double::default());
        let limiter: Arc<Double> = Arc::clone(&double);
        let now = Cell::new(clock::now());
        Self { now, remote: Arc::new(Remote::new(limiter, BOUND)), double, local: Local::default() }
    }

    async fn draw(&self, rates: &Rates, terms: &Terms) -> Outcome {
        self.remote.draw(&self.local, KEY, rates, Ask::exactly(1.0), terms, self.now.get()).await
    }

    fn advance(&self, millis: u64) {
        self.now.set(self.now.get() + Duration::from_millis(millis));
    }

    async fn is_admitted(&self, rates: &Rates, terms: &Terms) -> bool {
        match self.draw(rates, terms).await {
            Outcome::Drawn(drawn) => drawn.admitted,
            other => panic!("not asked: {other:?}"),
        }
    }

    /// Waits until the store is as it is said to be, looked after by [`Remote::keep`].
    async fn becomes(&self, is_up: bool) {
        let kept = async {
            while self.remote.sample().is_up != is_up {
                tokio::time::sleep(BOUND / 10).await;
            }
        };
        tokio::select! {
            () = kept => {}
            () = self.remote.keep() => unreachable!("it never ends"),
        }
    }
}

#[tokio::test]
async fn each_policy_decides_by_itself_while_the_store_fails() {
    let (bench, rates) = (Bench::new(), per_hour(1));
    bench.double.fail(true);
    assert!(matches!(bench.draw(&rates, &terms(OnStoreError::Local)).await, Outcome::Drawn(_)));
    assert_eq!(bench.draw(&rates, &terms(OnStoreError::Allow)).await, Outcome::Allowed);
    assert_eq!(bench.draw(&rates, &terms(OnStoreError::Allow)).await, Outcome::Allowed);
    assert_eq!(bench.draw(&rates, &terms(OnStoreError::Deny)).await, Outcome::Denied);
    let without = [("local", 1), ("allow", 2), ("deny", 1)];
    assert_eq!(bench.remote.sample(), StoreSample { is_up: false, errors: 1, without });
}

#[tokio::test]
async fn a_dead_store_is_waited_for_once() {
    let (bench, rates) = (Bench::new(), per_hour(1));
    bench.double.hang(true);
    let began = clock::now();
    for _ in 0..1000 {
        assert_eq!(bench.draw(&rates, &terms(OnStoreError::Deny)).await, Outcome::Denied);
    }
    assert!(clock::now() - began >= BOUND, "the first one waits");
    assert_eq!(bench.double.asked(), 1, "nobody does after the first");
}

#[tokio::test]
async fn the_store_is_asked_again_when_it_answers() {
    let (bench, rates) = (Bench::new(), per_hour(1));
    assert!(bench.is_admitted(&rates, &terms(OnStoreError::Deny)).await);
    bench.double.fail(true);
    assert_eq!(bench.draw(&rates, &terms(OnStoreError::Deny)).await, Outcome::Denied);
    let never = tokio::time::timeout(6 * BOUND, bench.becomes(true)).await;
    assert!(never.is_err(), "as long as it fails it is not asked");
    bench.double.fail(false);
    bench.becomes(true).await;
    assert!(!bench.is_admitted(&rates, &terms(OnStoreError::Deny)).await, "it remembers what it gave before");
}

#[tokio::test]
async fn a_store_that_is_away_at_the_start_is_known_before_the_first_request() {
    let bench = Bench::new();
    bench.double.hang(true);
    bench.becomes(false).await;
    assert_eq!(bench.draw(&per_hour(1), &terms(OnStoreError::Allow)).await, Outcome::Allowed);
    assert_eq!(bench.double.asked(), 0);
}

#[tokio::test]
async fn a_caller_in_a_hurry_is_served_from_a_lease() {
    let (bench, rates) = (Bench::new(), per_hour(1000));
    let mut admitted = 0;
    for _ in 0..1010 {
        admitted += u32::from(bench.is_admitted(&rates, &leased(10)).await);
        // The task that takes more tokens has its turn.
        tokio::task::yield_now().await;
        bench.advance(1);
    }
    assert_eq!(admitted, 1000);
    assert!(bench.double.asked() < 220, "{} questions", bench.double.asked());
}

#[tokio::test]
async fn a_caller_that_takes_its_time_is_charged_for_what_it_uses_alone() {
    let (bench, rates) = (Bench::new(), per_hour(1000));
    for _ in 0..1000 {
        assert!(bench.is_admitted(&rates, &leased(10)).await);
        bench.advance(200);
    }
    assert!(!bench.is_admitted(&rates, &leased(10)).await);
}

#[tokio::test]
async fn a_refused_caller_does_not_ask_again_and_again() {
    let (bench, rates) = (Bench::new(), per_hour(1));
    assert!(bench.is_admitted(&rates, &leased(10)).await);
    let mut last = Duration::MAX;
    for _ in 0..2000 {
        let Outcome::Drawn(drawn) = bench.draw(&rates, &leased(10)).await else { panic!("it was not asked") };
        assert!(!drawn.admitted && drawn.got == 0.0);
        last = drawn.retry_in;
        bench.advance(1);
    }
    assert_eq!(bench.double.asked(), 3, "one that was given, and one refusal a second");
    assert!(last < Duration::from_secs(3600), "a refusal from memory counts down");
}

#[tokio::test]
async fn tokens_taken_for_one_rate_are_not_spent_under_another() {
    let (bench, many, few) = (Bench::new(), per_hour(100), per_hour(20));
    for _ in 0..40 {
        assert!(bench.is_admitted(&many, &leased(10)).await);
        tokio::task::yield_now().await;
    }
    assert!(*bench.double.used.lock().unwrap() > 40.0, "some are held");
    assert!(!bench.is_admitted(&few, &leased(10)).await);
    assert!(bench.is_admitted(&many, &leased(10)).await);
}

#[tokio::test]
async fn what_is_held_is_spent_while_the_store_is_away_and_not_longer_than_it_lasts() {
    let (bench, rates) = (Bench::new(), per_hour(1000));
    for _ in 0..100 {
        assert!(bench.is_admitted(&rates, &leased(10)).await);
        tokio::task::yield_now().await;
    }
    bench.double.fail(true);
    let mut held = 0;
    while let Outcome::Drawn(drawn) = bench.draw(&rates, &leased(10)).await {
        assert!(drawn.admitted);
        held += 1;
        tokio::task::yield_now().await;
    }
    assert!((1..=10).contains(&held), "{held}");
}

#[tokio::test]
async fn a_lease_whose_time_is_over_is_thrown_away() {
    let (bench, rates) = (Bench::new(), per_hour(1000));
    for _ in 0..100 {
        assert!(bench.is_admitted(&rates, &leased(10)).await);
        tokio::task::yield_now().await;
    }
    bench.advance(1000);
    bench.double.fail(true);
    assert_eq!(bench.draw(&rates, &leased(10)).await, Outcome::Denied);
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_stop_the_lease() {
    let (bench, rates) = (Bench::new(), per_hour(1000));
    *bench.double.delay.lock().unwrap() = BOUND / 2;
    let gone = tokio::time::timeout(BOUND / 4, bench.draw(&rates, &leased(10))).await;
    assert!(gone.is_err());
    *bench.double.delay.lock().unwrap() = Duration::ZERO;
    for _ in 0..100 {
        assert!(bench.is_admitted(&rates, &leased(10)).await);
        tokio::task::yield_now().await;
    }
    assert!(bench.double.asked() < 30, "{}", bench.double.asked());
}

#[tokio::test]
async fn a_reset_ends_a_refusal_that_is_remembered() {
    let (bench, rates) = (Bench::new(), per_hour(1));
    assert!(bench.is_admitted(&rates, &leased(10)).await);
    assert!(!bench.is_admitted(&rates, &leased(10)).await);
    assert!(bench.remote.reset(KEY).await.unwrap());
    assert!(bench.is_admitted(&rates, &leased(10)).await);
}

#[tokio::test]
async fn more_callers_than_there_is_room_for_are_decided_one_by_one() {
    let leases = Leases::default();
    let (rates, lease, began) = (per_second(10), leased(10).lease.unwrap(), clock::now());
    let mut alone = 0_u32;
    for n in 0..2 * leases::HELD_MAX {
        let who = n.to_string();
        let key = Key { bucket: "api", who: &who };
        match leases.next(key, &rates, 1.0, &lease, began) {
            Next::Lead(asked) => drop(leases.leading(key, asked)),
            Next::Alone => alone += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(alone as usize, leases::HELD_MAX);
    let later = began + 2 * lease.lifetime;
    assert!(matches!(leases.next(KEY, &rates, 1.0, &lease, later), Next::Lead(_)), "the idle ones made room");
}
