//! Gateways that share an inbox, while the server is well.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::*;
use crate::buckets::{Key, Limiter};
use crate::clock;
use crate::rates::{Ask, Rates};
use crate::state::Redis;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_claimed_is_what_was_stored() {
    let queue = timeless(&server::shared().settings()).await;
    put(&queue, &["a"], Some("o")).await;
    let claims = queue.claim("orders", 9, Duration::from_secs(1), at(5)).await.unwrap();
    assert_eq!(
        claims,
        Claims { messages: vec![Claimed { message: message("a", Some("o")), attempt: 1 }], next: Some(at(1005)) }
    );
    assert_eq!(
        queue.show("orders", "a", at(5)).await.unwrap().unwrap(),
        Entry {
            message: message("a", Some("o")),
            standing: Standing::Claimed,
            attempts: 1,
            due: Some(at(1005)),
            why: None,
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_claimed_by_one_of_many() {
    let settings = server::shared().settings();
    let queues = [open(&settings).await, open(&settings).await];
    let numbers: Vec<String> = (0..500).map(|number| format!("{number:03}")).collect();
    let (first, second) = numbers.split_at(250);
    let fill = async |queue: &RedisQueue, ids: &[String]| {
        for id in ids {
            queue.put(message(id, None), PLENTY).await.unwrap();
        }
    };
    // Not until there are none: while they come, there are none now and then.
    let settled = AtomicUsize::new(0);
    let drain = async |queue: &RedisQueue| {
        let mut seen = Vec::new();
        while settled.load(Ordering::Relaxed) < numbers.len() {
            for claimed in claim(queue, 7, LONG, clock::wall()).await {
                assert_eq!(claimed.attempt, 1);
                assert!(queue.settle(&claimed, Outcome::Delivered, clock::wall()).await.unwrap());
                settled.fetch_add(1, Ordering::Relaxed);
                seen.push(claimed.message.id);
            }
        }
        seen
    };
    let [one, other] = &queues;
    let work = async { tokio::join!(fill(one, first), fill(other, second), drain(one), drain(other), drain(one)) };
    let ((), (), a, b, c) = tokio::time::timeout(TEST_PATIENCE, work).await.unwrap();
    let all: Vec<String> = [a, b, c].concat();
    assert_eq!(all.len(), 500, "none twice");
    assert_eq!(BTreeSet::from_iter(all), BTreeSet::from_iter(numbers));
    assert_eq!(keys(server::shared(), &settings), Vec::<String>::new(), "nothing is left behind");
}

/// With leases by the server's clock.
#[tokio::test(flavor = "multi_thread")]
async fn who_died_is_inherited_and_who_is_late_is_told() {
    let settings = server::shared().settings();
    let (dead, heir) = (open(&settings).await, open(&settings).await);
    let lease = Duration::from_millis(400);
    put(&dead, &["a", "b"], None).await;
    let now = clock::wall();
    let began = clock::now();
    let held = claim(&dead, 1, LONG, now).await;
    let lost = claim(&dead, 1, lease, now).await;
    // Clocks of gateways have no say in this.
    for skew in [0, 3600] {
        let claims = heir.claim("orders", 9, lease, now + Duration::from_secs(skew)).await.unwrap();
        if clock::now().duration_since(began) < lease {
            assert_eq!(claims.messages, []);
            assert!(claims.next.unwrap() <= now + Duration::from_secs(skew) + LOOK_AGAIN, "others' messages are found");
        }
    }
    let inherited = loop {
        let claims = heir.claim("orders", 9, LONG, clock::wall()).await.unwrap();
        if let [inherited] = claims.messages.as_slice() {
            break inherited.clone();
        }
        let wait = claims.next.unwrap().duration_since(clock::wall()).unwrap_or_default();
        tokio::time::sleep(wait).await;
    };
    assert!(clock::now().duration_since(began) >= lease);
    assert_eq!((inherited.message.id.as_str(), inherited.attempt), ("b", 2));
    for outcome in [Outcome::Delivered, Outcome::Returned, Outcome::Dead { why: String::new() }] {
        assert!(!dead.settle(&lost[0], outcome, now).await.unwrap());
    }
    assert!(!dead.renew(&lost[0], LONG, now).await.unwrap());
    assert!(!heir.settle(&held[0], Outcome::Delivered, now).await.unwrap(), "a claim is of a gateway");
    assert!(heir.settle(&inherited, Outcome::Delivered, now).await.unwrap());
    assert!(dead.settle(&held[0], Outcome::Delivered, now).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_shows_who_has_what() {
    let settings = server::shared().settings();
    let (one, other) = (timeless(&settings).await, timeless(&settings).await);
    put(&one, &["a", "b", "c"], None).await;
    let lease = Duration::from_millis(10);
    assert_eq!(ids(&claim(&one, 2, lease, at(0)).await), ["a", "b"]);
    assert_eq!(ids(&claim(&other, 1, lease, at(10)).await), ["a"]);
    let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
        .arg(format!("{}inbox:orders/stream", settings.prefix))
        .arg(&["gateways", "-", "+", "9"])
        .query(&mut server::shared().raw())
        .unwrap();
    let pending: Vec<_> = pending.iter().map(|(_, gateway, _, attempts)| (gateway.as_str(), *attempts)).collect();
    assert_eq!(pending, [(other.gateway.as_str(), 2), (one.gateway.as_str(), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_stored_comes_first_whatever_it_went_through() {
    let queue = timeless(&server::shared().settings()).await;
    put(&queue, &["a", "b", "c", "d", "e"], None).await;
    let claimed = claim(&queue, 4, LONG, at(0)).await;
    let (due, why) = (at(10), "502".to_owned());
    assert!(queue.settle(&claimed[0], Outcome::Dead { why: why.clone() }, at(0)).await.unwrap());
    assert!(queue.settle(&claimed[1], Outcome::Retry { due, why }, at(0)).await.unwrap());
    assert!(queue.settle(&claimed[2], Outcome::Returned, at(0)).await.unwrap());
    assert!(queue.renew(&claimed[3], Duration::from_millis(10), at(0)).await.unwrap());
    put(&queue, &["f"], None).await;
    assert!(queue.replay("orders", "a", at(0)).await.unwrap());
    let claimed = claim(&queue, 9, LONG, at(10)).await;
    assert_eq!(ids(&claimed), ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(claimed.iter().map(|claimed| claimed.attempt).collect::<Vec<_>>(), [1, 2, 1, 2, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_an_order_is_under_way_at_a_time() {
    let queue = timeless(&server::shared().settings()).await;
    put(&queue, &["a", "b", "c"], Some("x")).await;
    put(&queue, &["d"], Some("")).await;
    let claimed = claim(&queue, 9, LONG, at(0)).await;
    assert_eq!(ids(&claimed), ["a", "d"]);
    queue.settle(&claimed[0], Outcome::Dead { why: String::new() }, at(0)).await.unwrap();
    let second = claim(&queue, 9, LONG, at(0)).await;
    assert_eq!(ids(&second), ["b"]);
    // What had been given up comes back before those behind it, but not beside the one that is under way.
    assert!(queue.replay("orders", "a", at(0)).await.unwrap());
    assert_eq!(claim(&queue, 9, LONG, at(0)).await, []);
    let retry = Outcome::Retry { due: at(5), why: String::new() };
    assert!(queue.settle(&second[0], retry, at(0)).await.unwrap());
    let first = claim(&queue, 9, LONG, at(9)).await;
    assert_eq!(ids(&first), ["a"]);
    assert!(queue.settle(&first[0], Outcome::Delivered, at(9)).await.unwrap());
    for id in ["b", "c"] {
        let claimed = claim(&queue, 9, LONG, at(9)).await;
        assert_eq!(ids(&claimed), [id]);
        assert!(queue.settle(&claimed[0], Outcome::Delivered, at(9)).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_behind_what_has_gone() {
    let queue = timeless(&server::shared().settings()).await;
    let names: Vec<String> = (0..700).map(|number| format!("{number:03}")).collect();
    for (number, id) in names.iter().enumerate() {
        put(&queue, &[id], (number % 2 == 0).then_some("o")).await;
    }
    let claimed = claim(&queue, 3, LONG, at(0)).await;
    queue.settle(&claimed[1], Outcome::Delivered, at(0)).await.unwrap();
    queue.settle(&claimed[2], Outcome::Dead { why: "no".to_owned() }, at(0)).await.unwrap();
    let list = async |standing, after, limit| {
        let entries = queue.list("orders", standing, after, limit, at(0)).await.unwrap();
        entries.into_iter().map(|entry| entry.message.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None, Some("000"), 3).await, names[2..5]);
    assert_eq!(list(None, Some("001"), 3).await, names[2..5], "it is gone");
    assert_eq!(list(None, None, 2000).await.len(), 699);
    assert_eq!(list(Some(Standing::Ready), Some("500"), 2000).await, names[501..]);
    assert_eq!(list(Some(Standing::Dead), None, 5).await, [&*names[3]]);
    assert_eq!(list(Some(Standing::Dead), Some("003"), 5).await, [""; 0]);
    assert_eq!(list(Some(Standing::Claimed), None, 5).await, [&*names[0]]);
    assert_eq!(list(None, None, 0).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_inboxes_never_meet() {
    let settings = server::shared().settings();
    let queue = timeless(&settings).await;
    let names = ["a", "a/m", "a%2fm", "ä", " "];
    for name in names {
        queue.put(Message { inbox: name.into(), ..message("x", None) }, PLENTY).await.unwrap();
    }
    let mut sorted = names.map(str::to_owned);
    sorted.sort();
    assert_eq!(queue.inboxes().await.unwrap(), sorted);
    for name in names {
        assert_eq!(queue.claim(name, 9, LONG, at(0)).await.unwrap().messages.len(), 1, "{name}");
        assert!(queue.discard(name, "x", at(600_000)).await.unwrap(), "nobody has it any more");
    }
    assert_eq!(keys(server::shared(), &settings), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_an_error() {
    let queue = timeless(&server::shared().settings()).await;
    let long = message(&"x".repeat(NAME_BYTES_MAX), None);
    assert_eq!(queue.put(long.clone(), PLENTY).await.unwrap(), Put::Stored);
    assert!(queue.put(Message { id: format!("{}x", long.id), ..long }, PLENTY).await.is_err());
    let large = Message { body: vec![0; MESSAGE_BYTES_MAX].into(), ..message("y", None) };
    assert!(queue.put(large, PLENTY).await.unwrap_err().to_string().contains("at most"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_is_there_with_its_message_or_not_at_all() {
    let settings = server::shared().settings();
    let queue = timeless(&settings).await;
    let large = |length| Message { body: vec![b'x'; length].into(), ..message("a", None) };
    for length in [INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1] {
        let full = Bounds { bytes_max: large(length).bytes() - 1, ..PLENTY };
        assert_eq!(queue.put(large(length), full).await.unwrap(), Put::Full);
        assert_eq!(keys(server::shared(), &settings), Vec::<String>::new());
        assert_eq!(queue.put(large(length), PLENTY).await.unwrap(), Put::Stored);
        let before = keys(server::shared(), &settings);
        assert_eq!(before.iter().any(|key| key.ends_with("/b/a")), length > INLINE_BYTES_MAX);
        let other = Message { body: vec![b'y'; length].into(), ..large(length) };
        assert_eq!(queue.put(other, PLENTY).await.unwrap(), Put::Stored, "it is there already");
        assert_eq!(keys(server::shared(), &settings), before);
        assert_eq!(queue.show("orders", "a", at(0)).await.unwrap().unwrap().message, large(length));
        let claimed = claim(&queue, 1, LONG, at(0)).await;
        assert_eq!(claimed[0].message, large(length));
        assert!(queue.settle(&claimed[0], Outcome::Delivered, at(0)).await.unwrap());
        assert_eq!(keys(server::shared(), &settings), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_broke_keeps_back_no_other() {
    let settings = server::shared().settings();
    let queue = timeless(&settings).await;
    put(&queue, &["a", "b", "c"], None).await;
    let large = Message { body: vec![0; INLINE_BYTES_MAX + 1].into(), ..message("d", None) };
    assert_eq!(queue.put(large, PLENTY).await.unwrap(), Put::Stored);
    let (mut raw, base) = (server::shared().raw(), queue.base("orders"));
    redis::cmd("HSET").arg(format!("{base}/m/a")).arg(&["head", "?"]).exec(&mut raw).unwrap();
    redis::cmd("DEL").arg(&[format!("{base}/m/b"), format!("{base}/b/d")]).exec(&mut raw).unwrap();
    let claimed = claim(&queue, 9, Duration::from_millis(5), at(0)).await;
    assert_eq!(ids(&claimed), ["c"]);
    assert!(queue.settle(&claimed[0], Outcome::Delivered, at(0)).await.unwrap());
    let lost = queue.show("orders", "d", at(0)).await.unwrap().unwrap();
    assert_eq!((lost.standing, lost.message.body.len()), (Standing::Dead, 0));
    assert!(lost.why.unwrap().contains("thrown out"));
    let broken = queue.claim("orders", 9, LONG, at(5)).await.unwrap_err();
    assert!(broken.to_string().contains("the message a"), "{broken}");
}

#[test]
fn what_is_being_stored_is_bounded() {
    let taken = AtomicUsize::new(0);
    let whole = Place::take(&taken, BYTES_IN_FLIGHT_MAX + 1);
    assert!(whole.is_some(), "one alone may be larger");
    assert!(Place::take(&taken, 1).is_none());
    drop(whole);
    let most = Place::take(&taken, BYTES_IN_FLIGHT_MAX - 1).unwrap();
    assert!(Place::take(&taken, 2).is_none());
    drop(Place::take(&taken, 1).unwrap());
    drop(most);
    assert_eq!(taken.into_inner(), 0);
}

/// How long decisions take while others do something.
async fn decisions(redis: &Redis, meanwhile: impl Future<Output = ()>) -> Vec<Duration> {
    let rates = Rates::new(["1000000/s".parse().unwrap()], None).unwrap();
    let mut took = Vec::new();
    let mut meanwhile = std::pin::pin!(meanwhile);
    loop {
        let began = clock::now();
        let decision = redis.draw(Key { bucket: "a", who: "x" }, &rates, Ask::exactly(1.0));
        assert!(decision.await.unwrap().admitted);
        took.push(clock::now().duration_since(began));
        tokio::select! {
            biased;
            () = &mut meanwhile => break,
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    }
    took.sort_unstable();
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_delay_no_decision() {
    let settings = server::shared().settings();
    let (queue, redis) = (open(&settings).await, server::up(Redis::open(&settings).unwrap()));
    let queue = Arc::new(queue);
    let body = Bytes::from(vec![b'x'; 1024 * 1024]);
    let work = tokio::spawn(async move {
        let ids: Vec<String> = (0..60).map(|number| number.to_string()).collect();
        let puts = ids.iter().map(|id| queue.put(Message { body: body.clone(), ..message(id, None) }, PLENTY));
        for stored in futures_util::future::join_all(puts).await {
            assert_eq!(stored.unwrap(), Put::Stored);
        }
        let mut left = 60;
        while left > 0 {
            for claimed in claim(&queue, 8, LONG, clock::wall()).await {
                assert_eq!(claimed.message.body, body);
                assert!(queue.settle(&claimed, Outcome::Delivered, clock::wall()).await.unwrap());
                left -= 1;
            }
        }
    });
    let began = clock::now();
    let took = decisions(&redis, async { work.await.unwrap() }).await;
    let all = clock::now().duration_since(began);
    let (median, most, worst) = (took[took.len() / 2], took[took.len() * 95 / 100], took[took.len() - 1]);
    println!("{} decisions beside 60 MiB: median {median:?}, 95% within {most:?}, worst {worst:?}", took.len());
    // Behind the bodies they would wait for a good part of all, whatever the machine.
    assert!(took.len() >= 20 && median < all / 20, "{} decisions in {all:?}, median {median:?}", took.len());
}
