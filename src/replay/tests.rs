//! Who may pass, over every store: what a message goes through, in order and out of it.

mod faulty;
mod outages;

use super::*;
use crate::state::Redis;
use crate::state::tests::{Bench, Clock, for_each, server};

const WINDOW: Duration = Duration::from_secs(3600);
const MINUTE_MS: u64 = 60_000;

/// A gateway over this store.
fn gateway(store: &Arc<dyn Store>, clock: &Clock) -> Arc<Replay> {
    small_gateway(store, clock, local::LIMITS)
}

fn small_gateway(store: &Arc<dyn Store>, clock: &Clock, limits: crate::state::Limits) -> Arc<Replay> {
    let replay = Arc::new(Replay::with_clock(clock.now(), limits, Duration::from_millis(1)));
    replay.attach(Arc::clone(store));
    tokio::spawn(Arc::clone(&replay).keep());
    replay
}

impl Bench {
    /// One more gateway, which knows nothing yet.
    fn gateway(&self) -> Arc<Replay> {
        gateway(&self.store, &self.clock)
    }
}

impl Replay {
    async fn look(&self, delivery: &str, on_error: OnStoreError) -> Begun {
        self.begin(Message { scope: "route:hooks", route: "hooks", provider: "github", delivery }, WINDOW, on_error)
            .await
    }

    async fn first(&self, delivery: &str) -> Arc<dyn Once> {
        match self.look(delivery, OnStoreError::Local).await {
            Begun::First(once) => once,
            other => panic!("{other:?}"),
        }
    }

    /// What becomes of it; whoever comes first lets go again.
    async fn says(&self, delivery: &str) -> &'static str {
        let said = word(&self.look(delivery, OnStoreError::Local).await);
        self.flush().await;
        said
    }
}

fn word(begun: &Begun) -> &'static str {
    match begun {
        Begun::First(_) => "first",
        Begun::Delivered => "delivered",
        Begun::InProgress => "in progress",
        Begun::Unavailable => "unavailable",
    }
}

for_each!(
    { memory: Bench::memory(), redis: Bench::redis(), file: Bench::file() },
    [
        of_twenty_at_once_one_is_first,
        what_got_through_is_known_for_the_window,
        what_did_not_get_through_may_come_again,
        a_gateway_that_dies_stands_in_the_way_for_a_minute,
        whoever_comes_late_leaves_the_next_one_alone,
        a_late_word_counts_where_nobody_took_over,
        a_clock_that_is_set_back_stops_no_message,
        a_clock_that_is_set_forward_lets_the_next_one_try,
        messages_of_others_are_others,
        whatever_happens_nobody_delivers_twice,
    ]
);

/// Begins twenty times at once, over these gateways.
async fn twenty(gateways: &[Arc<Replay>], delivery: &'static str) -> Vec<Begun> {
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let gateway = Arc::clone(&gateways[number % gateways.len()]);
            tokio::spawn(async move { gateway.look(delivery, OnStoreError::Deny).await })
        })
        .collect();
    let mut begun = Vec::new();
    for task in tasks {
        begun.push(task.await.unwrap());
    }
    begun
}

fn count(begun: &[Begun], what: &str) -> usize {
    begun.iter().filter(|begun| word(begun) == what).count()
}

async fn of_twenty_at_once_one_is_first(bench: Bench) {
    let gateways = [bench.gateway(), bench.gateway()];
    for delivery in ["a", "b", "c", "d", "e"] {
        let begun = twenty(&gateways, delivery).await;
        assert_eq!((count(&begun, "first"), count(&begun, "in progress")), (1, 19), "{begun:?}");
        for begun in &begun {
            if let Begun::First(once) = begun {
                once.delivered();
            }
        }
        drop(begun);
        for gateway in &gateways {
            gateway.flush().await;
        }
        again(&gateways, delivery).await;
    }
}

/// Of a message that got through none passes, not even while it is looked for.
async fn again(gateways: &[Arc<Replay>], delivery: &'static str) {
    let begun = twenty(gateways, delivery).await;
    let (delivered, in_progress) = (count(&begun, "delivered"), count(&begun, "in progress"));
    assert!(delivered > 0 && delivered + in_progress == 20, "{begun:?}");
    for gateway in gateways {
        assert_eq!(gateway.says(delivery).await, "delivered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_with_connections_of_their_own_share_a_redis() {
    let settings = server::shared().settings();
    let store = || Arc::new(server::up(Redis::open(&settings).unwrap())) as Arc<dyn Store>;
    let replay = |store: Arc<dyn Store>| {
        let replay = Arc::new(Replay::default());
        replay.attach(store);
        tokio::spawn(Arc::clone(&replay).keep());
        replay
    };
    let gateways = [replay(store()), replay(store())];
    let begun = twenty(&gateways, "a").await;
    assert_eq!((count(&begun, "first"), count(&begun, "in progress")), (1, 19));
    begun.iter().for_each(|begun| {
        if let Begun::First(once) = begun {
            once.delivered();
        }
    });
    gateways[0].flush().await;
    gateways[1].flush().await;
    again(&gateways, "a").await;
}

async fn what_got_through_is_known_for_the_window(bench: Bench) {
    let gateway = bench.gateway();
    let once = gateway.first("a").await;
    assert_eq!(gateway.says("a").await, "in progress");
    once.delivered();
    assert_eq!(gateway.says("a").await, "delivered", "here at once");
    gateway.flush().await;
    // Said twice, and then dropped: it stays so.
    once.delivered();
    drop(once);
    gateway.flush().await;
    let window = u64::try_from(WINDOW.as_millis()).unwrap();
    bench.clock.forward(window - 1);
    assert_eq!((gateway.says("a").await, bench.gateway().says("a").await), ("delivered", "delivered"));
    bench.clock.forward(1);
    assert_eq!((gateway.says("a").await, bench.gateway().says("a").await), ("first", "first"));
}

async fn what_did_not_get_through_may_come_again(bench: Bench) {
    let (one, other) = (bench.gateway(), bench.gateway());
    for _ in 0..3 {
        let once = one.first("a").await;
        let again = Arc::clone(&once);
        assert_eq!((one.says("a").await, other.says("a").await), ("in progress", "in progress"));
        drop(once);
        one.flush().await;
        assert_eq!(other.says("a").await, "in progress", "somebody still has it");
        drop(again);
        one.flush().await;
        assert_eq!((one.says("a").await, other.says("a").await), ("first", "first"));
    }
}

async fn a_gateway_that_dies_stands_in_the_way_for_a_minute(bench: Bench) {
    let dead = bench.gateway();
    std::mem::forget(dead.first("a").await);
    let next = bench.gateway();
    bench.clock.forward(MINUTE_MS - 1);
    assert_eq!(next.says("a").await, "in progress");
    bench.clock.forward(1);
    next.first("a").await.delivered();
    next.flush().await;
    assert_eq!(bench.gateway().says("a").await, "delivered");
}

async fn whoever_comes_late_leaves_the_next_one_alone(bench: Bench) {
    let (slow, quick) = (bench.gateway(), bench.gateway());
    for says_so in [true, false] {
        let delivery = if says_so { "said" } else { "dropped" };
        let late = slow.first(delivery).await;
        bench.clock.forward(MINUTE_MS);
        let next = quick.first(delivery).await;
        if says_so {
            late.delivered();
        }
        drop(late);
        slow.flush().await;
        assert_eq!(bench.gateway().says(delivery).await, "in progress", "the next one still has it");
        assert_eq!(quick.says(delivery).await, "in progress");
        next.delivered();
        quick.flush().await;
        assert_eq!(bench.gateway().says(delivery).await, "delivered");
    }
    // The next one at the same gateway.
    let late = slow.first("here").await;
    bench.clock.forward(MINUTE_MS);
    let next = slow.first("here").await;
    drop(late);
    slow.flush().await;
    assert_eq!((slow.says("here").await, quick.says("here").await), ("in progress", "in progress"));
    drop(next);
}

async fn a_late_word_counts_where_nobody_took_over(bench: Bench) {
    let gateway = bench.gateway();
    let late = gateway.first("a").await;
    bench.clock.forward(5 * MINUTE_MS);
    late.delivered();
    gateway.flush().await;
    assert_eq!((gateway.says("a").await, bench.gateway().says("a").await), ("delivered", "delivered"));
}

async fn a_clock_that_is_set_back_stops_no_message(bench: Bench) {
    let dead = bench.gateway();
    std::mem::forget(dead.first("a").await);
    bench.clock.back(MINUTE_MS);
    assert_eq!(bench.gateway().says("a").await, "in progress", "clocks of gateways may differ by as much");
    bench.clock.back(1);
    assert_eq!((bench.gateway().says("a").await, dead.says("a").await), ("first", "first"));
    // What got through stays known.
    dead.first("b").await.delivered();
    dead.flush().await;
    bench.clock.back(100 * MINUTE_MS);
    assert_eq!((bench.gateway().says("b").await, dead.says("b").await), ("delivered", "delivered"));
}

async fn a_clock_that_is_set_forward_lets_the_next_one_try(bench: Bench) {
    let gateway = bench.gateway();
    let once = gateway.first("a").await;
    bench.clock.forward(1_000_000 * MINUTE_MS);
    let next = bench.gateway();
    next.first("a").await.delivered();
    next.flush().await;
    once.delivered();
    gateway.flush().await;
    bench.clock.back(1_000_000 * MINUTE_MS);
    assert_eq!(bench.gateway().says("a").await, "delivered");
}

async fn messages_of_others_are_others(bench: Bench) {
    let gateway = bench.gateway();
    let message = |route, provider, delivery| Message { scope: "chain:c", route, provider, delivery };
    let mut held = Vec::new();
    for message in [
        message("a", "b", "c"),
        message("ab", "", "c"),
        message("", "ab", "c"),
        message("a", "bc", ""),
        message("a", "", "bc"),
        message("", "", "abc"),
        message("a", "b", "C"),
    ] {
        let begun = gateway.begin(message, WINDOW, OnStoreError::Deny).await;
        assert_eq!(word(&begun), "first", "{message:?}");
        held.push(begun);
        assert_eq!(word(&gateway.begin(message, WINDOW, OnStoreError::Deny).await), "in progress");
    }
}

/// Gateways begin, deliver, fail and die at random; what one delivered, or still has, nobody else gets.
async fn whatever_happens_nobody_delivers_twice(bench: Bench) {
    let gateways = [bench.gateway(), bench.gateway(), bench.gateway()];
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let delivery = format!("message {seed}");
        let (mut owner, mut is_delivered): (Option<Arc<dyn Once>>, bool) = (None, false);
        for step in 0..12 {
            let gateway = random.choice(&gateways).unwrap();
            let begun = gateway.look(&delivery, OnStoreError::Deny).await;
            let expected = match (&owner, is_delivered) {
                (_, true) => "delivered",
                (Some(_), false) => "in progress",
                (None, false) => "first",
            };
            assert_eq!(word(&begun), expected, "seed {seed}, step {step}");
            if let Begun::First(once) = begun {
                owner = Some(once);
            }
            match random.u8(..4) {
                0 if !is_delivered => owner = None,
                1 => {
                    if let Some(once) = owner.take() {
                        once.delivered();
                        is_delivered = true;
                    }
                }
                2 if !is_delivered => {
                    if let Some(once) = owner.take() {
                        std::mem::forget(once);
                        bench.clock.forward(MINUTE_MS);
                    }
                }
                _ => {}
            }
            for gateway in &gateways {
                gateway.flush().await;
            }
        }
    }
}
