//! The same tests for every limiter.

use std::sync::Arc;
use std::time::Duration;

use super::super::Redis;
use super::{for_each, server};
use crate::buckets::{Key, Limiter, Local, WHO_BYTES_MAX};
use crate::rates::{Ask, Rates};
use crate::types::{self, Period};

fn redis() -> Arc<dyn Limiter> {
    Arc::new(server::up(Redis::open(&server::shared().settings()).unwrap()))
}

fn local() -> Arc<dyn Limiter> {
    Arc::new(Local::default())
}

// None of them waits for a bucket to fill: the rates are slow.
for_each!(
    { in_redis: redis(), in_memory: local() },
    [
        a_bucket_gives_its_capacity_and_no_more,
        all_rates_must_pass_and_a_refusal_charges_none,
        as_many_as_there_are_between_least_and_most,
        to_look_takes_nothing,
        buckets_do_not_meet,
        a_changed_rate_keeps_what_is_used_up,
        what_can_never_be_had_is_said_so,
        a_bucket_is_shown_and_reset,
        the_busiest_come_first,
        whoever_asks_may_have_any_name,
        of_many_at_once_the_capacity_is_admitted,
        tokens_flow_back,
    ]
);

fn rates(texts: &[&str]) -> Rates {
    let rate = |text: &&str| {
        let (count, per) = text.split_once('/').unwrap();
        types::Rate { count: count.parse().unwrap(), per: per.parse::<Period>().unwrap().0 }
    };
    Rates::new(texts.iter().map(rate), None).unwrap()
}

fn key<'a>(bucket: &'a str, who: &'a str) -> Key<'a> {
    Key { bucket, who }
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.01
}

async fn a_bucket_gives_its_capacity_and_no_more(limiter: Arc<dyn Limiter>) {
    let rates = rates(&["3/24h"]);
    for left in [2.0, 1.0, 0.0] {
        let drawn = limiter.draw(key("a", "x"), &rates, Ask::exactly(1.0)).await.unwrap();
        assert!(drawn.admitted && drawn.got == 1.0 && drawn.limit == 3.0 && near(drawn.remaining, left), "{drawn:?}");
        assert_eq!(drawn.retry_in, Duration::ZERO);
    }
    let drawn = limiter.draw(key("a", "x"), &rates, Ask::exactly(1.0)).await.unwrap();
    assert!(!drawn.admitted && drawn.got == 0.0 && near(drawn.remaining, 0.0), "{drawn:?}");
    let hours = |time: Duration| time.as_secs_f64() / 3600.0;
    assert!(near(hours(drawn.retry_in), 8.0) && near(hours(drawn.full_in), 24.0), "{drawn:?}");
}

async fn all_rates_must_pass_and_a_refusal_charges_none(limiter: Arc<dyn Limiter>) {
    let rates = rates(&["10/24h", "4/1h"]);
    for _ in 0..2 {
        assert!(limiter.draw(key("a", "x"), &rates, Ask::exactly(2.0)).await.unwrap().admitted);
        assert!(!limiter.draw(key("a", "x"), &rates, Ask::exactly(5.0)).await.unwrap().admitted);
    }
    let drawn = limiter.draw(key("a", "x"), &rates, Ask::exactly(1.0)).await.unwrap();
    assert!(!drawn.admitted && drawn.limit == 4.0, "{drawn:?}");
    let used = limiter.show(key("a", "x")).await.unwrap().unwrap().used;
    assert!(near(used[0], 4.0) && near(used[1], 4.0), "the shortest period first: {used:?}");
}

async fn as_many_as_there_are_between_least_and_most(limiter: Arc<dyn Limiter>) {
    let rates = rates(&["10/24h"]);
    let ask = |least, most| Ask { least, most };
    assert_eq!(limiter.draw(key("a", "x"), &rates, ask(1.0, 4.0)).await.unwrap().got, 4.0);
    assert_eq!(limiter.draw(key("a", "x"), &rates, ask(7.0, 9.0)).await.unwrap().got, 0.0);
    assert_eq!(limiter.draw(key("a", "x"), &rates, ask(1.0, 9.0)).await.unwrap().got, 6.0);
    let drawn = limiter.draw(key("a", "x"), &rates, ask(0.0, 9.0)).await.unwrap();
    assert!(drawn.admitted && drawn.got == 0.0, "{drawn:?}");
    // Parts of tokens are kept apart.
    let half = limiter.draw(key("a", "y"), &rates, Ask::exactly(0.5)).await.unwrap();
    assert!(half.got == 0.5 && near(half.remaining, 9.5), "{half:?}");
    assert_eq!(limiter.draw(key("a", "y"), &rates, ask(1.0, 20.0)).await.unwrap().got, 9.0, "whole ones");
}

async fn to_look_takes_nothing(limiter: Arc<dyn Limiter>) {
    let rates = rates(&["2/24h"]);
    for _ in 0..5 {
        let drawn = limiter.draw(key("a", "x"), &rates, Ask::exactly(0.0)).await.unwrap();
        assert!(drawn.admitted && drawn.got == 0.0 && near(drawn.remaining, 2.0), "{drawn:?}");
    }
    assert_eq!(limiter.show(key("a", "x")).await.unwrap(), None);
    assert!(limiter.draw(key("a", "x"), &rates, Ask::exactly(2.0)).await.unwrap().admitted);
    assert!(limiter.draw(key("a", "x"), &rates, Ask::exactly(0.0)).await.unwrap().admitted);
}

async fn buckets_do_not_meet(limiter: Arc<dyn Limiter>) {
    let rates = rates(&["1/24h"]);
    for (bucket, who) in [
        ("a", "x"),
        ("a", ""),
        ("b", "x"),
        ("a", "x|y"),
        ("a|x", "y"),
        ("a:x", ""),
        ("a", ":x"),
        ("", "a:x"),
        ("a*", "x"),
    ] {
        assert!(limiter.draw(key(bucket, who), &rates, Ask::exactly(1.0)).await.unwrap().admitted, "{bucket} {who}");
        assert!(!limiter.draw(key(bucket, who), &rates, Ask::exactly(1.0)).await.unwrap().admitted, "{bucket} {who}");
    }
    assert_eq!(limiter.top("a*", 10).await.unwrap().len(), 1, "a name is no pattern");
    assert_eq!(limiter.top("a", 10).await.unwrap().len(), 4);
}

async fn a_changed_rate_keeps_what_is_used_up(limiter: Arc<dyn Limiter>) {
    let (few, many) = (rates(&["10/24h"]), rates(&["15/24h"]));
    limiter.draw(key("a", "x"), &few, Ask::exactly(8.0)).await.unwrap();
    let drawn = limiter.draw(key("a", "x"), &many, Ask::exactly(0.0)).await.unwrap();
    assert!(near(drawn.remaining, 7.0), "{drawn:?}");
    limiter.draw(key("a", "x"), &many, Ask::exactly(7.0)).await.unwrap();
    let drawn = limiter.draw(key("a", "x"), &few, Ask::exactly(1.0)).await.unwrap();
    assert!(!drawn.admitted && drawn.remaining == 0.0, "{drawn:?}");
    // A longer one that is new begins with what the shorter one has in use.
    let drawn = limiter.draw(key("a", "x"), &rates(&["15/24h", "100/48h"]), Ask::exactly(0.0)).await.unwrap();
    assert!(near(drawn.remaining, 0.0), "{drawn:?}");
    limiter.draw(key("a", "y"), &few, Ask::exactly(8.0)).await.unwrap();
    let drawn = limiter.draw(key("a", "y"), &rates(&["5/1h"]), Ask::exactly(1.0)).await.unwrap();
    assert!(!drawn.admitted, "of a shorter one at most its capacity is in use: {drawn:?}");
    assert!(drawn.retry_in <= Duration::from_secs(720), "{drawn:?}");
}

async fn what_can_never_be_had_is_said_so(limiter: Arc<dyn Limiter>) {
    let rates = rates(&["5/24h"]);
    for tokens in [5.1, 1e300, f64::INFINITY] {
        let drawn = limiter.draw(key("a", "x"), &rates, Ask::exactly(tokens)).await.unwrap();
        assert!(!drawn.admitted && drawn.retry_in == Duration::MAX, "{tokens}: {drawn:?}");
    }
    assert!(limiter.draw(key("a", "x"), &rates, Ask::exactly(5.0)).await.unwrap().admitted, "limit and limit + 1");
}

async fn a_bucket_is_shown_and_reset(limiter: Arc<dyn Limiter>) {
    let rates = rates(&["5/24h"]);
    assert!(!limiter.reset(key("a", "x")).await.unwrap());
    limiter.draw(key("a", "x"), &rates, Ask::exactly(3.0)).await.unwrap();
    let seen = limiter.show(key("a", "x")).await.unwrap().unwrap();
    assert!((&*seen.bucket, &*seen.who) == ("a", "x") && near(seen.used[0], 3.0), "{seen:?}");
    assert_eq!(seen.rates, rates.as_slice(), "with the terms it was drawn by");
    assert!(limiter.reset(key("a", "x")).await.unwrap());
    assert_eq!(limiter.show(key("a", "x")).await.unwrap(), None);
    assert!(limiter.draw(key("a", "x"), &rates, Ask::exactly(5.0)).await.unwrap().admitted);
}

async fn the_busiest_come_first(limiter: Arc<dyn Limiter>) {
    let (few, many) = (rates(&["10/24h"]), rates(&["1000/24h"]));
    for number in 1..=9 {
        let who = format!("few={number}");
        limiter.draw(key("a", &who), &few, Ask::exactly(f64::from(number))).await.unwrap();
        limiter.draw(key("a", &format!("many={number}")), &many, Ask::exactly(10.0)).await.unwrap();
        limiter.draw(key("ab", &who), &few, Ask::exactly(10.0)).await.unwrap();
    }
    let top: Vec<String> = limiter.top("a", 3).await.unwrap().into_iter().map(|seen| seen.who).collect();
    assert_eq!(top, ["few=9", "few=8", "few=7"], "by the share of what they may have");
    assert_eq!(limiter.top("a", 100).await.unwrap().len(), 18);
    assert!(limiter.top("none", 3).await.unwrap().is_empty() && limiter.top("a", 0).await.unwrap().is_empty());
}

async fn whoever_asks_may_have_any_name(limiter: Arc<dyn Limiter>) {
    let rates = rates(&["1/24h"]);
    let longest = "k".repeat(WHO_BYTES_MAX);
    let (long, other) = ("k".repeat(100_000), format!("{}x", "k".repeat(99_999)));
    let names = ["", "}", "{x}", "a b\r\n*3\0", "h=[a-z]?*", "ü€", "%7d", &longest, &long, &other];
    for who in names {
        assert!(limiter.draw(key("a", who), &rates, Ask::exactly(1.0)).await.unwrap().admitted);
        assert!(!limiter.draw(key("a", who), &rates, Ask::exactly(1.0)).await.unwrap().admitted);
        assert!(limiter.show(key("a", who)).await.unwrap().is_some());
    }
    let top = limiter.top("a", 100).await.unwrap();
    assert_eq!(top.len(), names.len());
    for seen in top {
        assert!(seen.who.len() <= WHO_BYTES_MAX);
        assert!(limiter.reset(key("a", &seen.who)).await.unwrap(), "{} is a name to ask by", seen.who);
    }
    assert!(limiter.top("a", 100).await.unwrap().is_empty());
}

async fn of_many_at_once_the_capacity_is_admitted(limiter: Arc<dyn Limiter>) {
    let rates = rates(&["50/24h", "200/48h"]);
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let (limiter, rates) = (Arc::clone(&limiter), rates.clone());
            tokio::spawn(async move { limiter.draw(key("a", "x"), &rates, Ask::exactly(1.0)).await.unwrap().admitted })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += u32::from(task.await.unwrap());
    }
    assert_eq!(admitted, 50);
}

/// On the limiter's own clock: what it says one has to wait is enough, and not long before it is not.
async fn tokens_flow_back(limiter: Arc<dyn Limiter>) {
    let rates = rates(&["10/1s"]);
    assert!(limiter.draw(key("a", "x"), &rates, Ask::exactly(10.0)).await.unwrap().admitted);
    let refused = limiter.draw(key("a", "x"), &rates, Ask::exactly(10.0)).await.unwrap();
    assert!(!refused.admitted && refused.retry_in > Duration::from_millis(500), "{refused:?}");
    tokio::time::sleep(refused.retry_in).await;
    let drawn = limiter.draw(key("a", "x"), &rates, Ask::exactly(10.0)).await.unwrap();
    assert!(drawn.admitted, "{drawn:?}");
}
