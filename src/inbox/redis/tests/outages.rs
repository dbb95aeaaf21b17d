//! A server that is killed, hangs, is full, or does not allow everything.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::clock;

/// Well above what an error at once takes on a slow machine, well below the bounds.
const AT_ONCE: Duration = Duration::from_millis(1800);

/// Claims and delivers all there is; how often each was there.
async fn drain(queue: &RedisQueue) -> Vec<String> {
    let mut seen = Vec::new();
    while queue.counts("orders", clock::wall()).await.unwrap() != Counts::default() {
        for claimed in claim(queue, 100, LONG, clock::wall()).await {
            assert!(queue.settle(&claimed, Outcome::Delivered, clock::wall()).await.unwrap());
            seen.push(claimed.message.id);
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_outlives_a_kill_of_the_server_under_load() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let settings = server.settings();
    let queue = Arc::new(open(&settings).await);
    let mut stored = BTreeSet::new();
    for round in 0..3 {
        let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let senders: Vec<_> = (0..16)
            .map(|sender| {
                let (queue, told) = (Arc::clone(&queue), told.clone());
                tokio::spawn(async move {
                    for number in 0.. {
                        let id = format!("{round}-{sender:02}-{number:05}");
                        // A third is in one of four orders.
                        let order = (number % 3 == 0).then(|| (number % 4).to_string());
                        match queue.put(message(&id, order.as_deref()), PLENTY).await {
                            Ok(put) => assert_eq!(put, Put::Stored),
                            Err(_) => return,
                        }
                        told.send(id).unwrap();
                    }
                })
            })
            .collect();
        drop(told);
        for _ in 0..300 {
            stored.insert(hears.recv().await.unwrap());
        }
        server.kill();
        for sender in senders {
            sender.await.unwrap();
        }
        while let Some(id) = hears.recv().await {
            stored.insert(id);
        }
        server.run();
        works(&queue).await;
    }
    let delivered = drain(&queue).await;
    let unique = BTreeSet::from_iter(delivered.iter().cloned());
    assert_eq!(unique.len(), delivered.len(), "none twice");
    let lost: Vec<_> = stored.difference(&unique).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), stored.len());
    assert_eq!(keys(&server, &settings), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_all_else_outlive_a_kill_of_the_server() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let settings = server.settings();
    let queue = timeless(&settings).await;
    put(&queue, &["a", "b", "c"], None).await;
    put(&queue, &["d", "e"], Some("o")).await;
    let claimed = claim(&queue, 3, LONG, at(0)).await;
    let retry = Outcome::Retry { due: at(50), why: "502".to_owned() };
    assert!(queue.settle(&claimed[0], retry, at(0)).await.unwrap());
    assert!(queue.settle(&claimed[1], Outcome::Dead { why: "410".to_owned() }, at(0)).await.unwrap());
    let before = queue.list("orders", None, None, 9, at(0)).await.unwrap();
    server.kill();
    server.run();
    works(&queue).await;
    assert_eq!(queue.list("orders", None, None, 9, at(0)).await.unwrap(), before);
    assert!(queue.settle(&claimed[2], Outcome::Delivered, at(0)).await.unwrap(), "the claim is still its own");
    assert_eq!(ids(&claim(&queue, 9, LONG, at(50)).await), ["a", "d"]);
}

async fn fails_within(queue: &RedisQueue, bound: Duration) {
    let began = clock::now();
    let put = queue.put(message("x", None), PLENTY).await;
    let took = clock::now().duration_since(began);
    assert!(put.is_err() && took < bound, "{put:?} after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_an_error_at_once_and_found_again() {
    let mut server = Server::own();
    let queue = open(&server.settings()).await;
    put(&queue, &["a"], None).await;
    server.kill();
    let mut up = queue.link.connectivity();
    tokio::time::timeout(TEST_PATIENCE, up.wait_for(|up| !up)).await.unwrap().unwrap();
    for _ in 0..3 {
        fails_within(&queue, AT_ONCE).await;
        let began = clock::now();
        assert!(queue.claim("orders", 1, LONG, at(0)).await.is_err());
        assert!(queue.inboxes().await.is_err());
        assert!(clock::now().duration_since(began) < AT_ONCE);
    }
    server.run();
    works(&queue).await;
    put(&queue, &["b"], None).await;
    assert_eq!(ids(&claim(&queue, 9, LONG, at(0)).await), ["b"], "without appendonly, the server forgets");
}

/// The answer comes too late, and the message is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_an_error_in_bounded_time_and_loses_nothing() {
    let server = Server::own();
    let queue = open(&server.settings()).await;
    put(&queue, &["w"], None).await;
    server.signal("-STOP");
    fails_within(&queue, PUT_PATIENCE + AT_ONCE).await;
    for _ in 0..3 {
        fails_within(&queue, AT_ONCE).await;
    }
    server.signal("-CONT");
    works(&queue).await;
    put(&queue, &["y"], None).await;
    // It is the sender that sends it again: under another id, with the same key.
    assert_eq!(ids(&claim(&queue, 9, LONG, at(0)).await), ["w", "x", "y"]);
    put(&queue, &["x"], None).await;
    assert_eq!(claim(&queue, 9, LONG, at(0)).await, [], "one that is there is not stored twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_memory_stores_nothing_and_goes_on_delivering() {
    let server = Server::own();
    let settings = server.settings();
    let queue = open(&settings).await;
    let mut raw = server.raw();
    put(&queue, &["a", "b", "c", "d"], None).await;
    put(&queue, &["e", "f"], Some("o")).await;
    let before = keys(&server, &settings);
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec(&mut raw).unwrap();
    for order in [None, Some("o"), Some("p")] {
        let refused = queue.put(message("x", order), PLENTY).await.unwrap_err().to_string();
        assert!(refused.contains("OOM"), "{refused}");
        assert_eq!(keys(&server, &settings), before, "nothing is half stored");
        works(&queue).await;
    }
    let large = Message { body: vec![0; INLINE_BYTES_MAX + 1].into(), ..message("x", None) };
    assert!(queue.put(large, PLENTY).await.is_err());
    assert_eq!(keys(&server, &settings), before);
    works(&queue).await;
    let now = clock::wall();
    let claimed = claim(&queue, 9, LONG, now).await;
    assert_eq!(ids(&claimed), ["a", "b", "c", "d", "e"]);
    let retry = Outcome::Retry { due: now, why: "502".to_owned() };
    for (claimed, outcome) in claimed.iter().zip([Outcome::Returned, retry, Outcome::Dead { why: String::new() }]) {
        assert!(queue.settle(claimed, outcome, now).await.unwrap());
    }
    assert!(queue.renew(&claimed[3], LONG, now).await.unwrap());
    assert!(queue.replay("orders", "c", now).await.unwrap());
    assert!(queue.settle(&claimed[4], Outcome::Delivered, now).await.unwrap());
    assert!(queue.settle(&claimed[3], Outcome::Delivered, now).await.unwrap());
    assert_eq!(drain(&queue).await, ["a", "b", "c", "f"]);
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).exec(&mut raw).unwrap();
    put(&queue, &["x"], None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_are_documented_are_enough() {
    let page = include_str!("../../redis.rs");
    let rights = page.split("**Rights.**").nth(1).unwrap().split('`').nth(3).unwrap();
    let rights: Vec<String> = rights.replace("//!", " ").split_whitespace().map(|right| format!("+{right}")).collect();
    assert!(rights.len() > 20, "{rights:?}");
    let mut arguments = vec!["--user", "ann", "on", ">secret", "~t*", "-@all"];
    arguments.extend(rights.iter().map(String::as_str));
    let server = Server::start(&arguments);
    let queue = timeless(&server::settings(&server.yaml("user: ann, password: secret"))).await;
    put(&queue, &["a", "b"], Some("o")).await;
    put(&queue, &["c", "d", "e"], None).await;
    let claimed = claim(&queue, 3, LONG, at(0)).await;
    assert!(queue.renew(&claimed[0], LONG, at(0)).await.unwrap());
    assert!(queue.settle(&claimed[0], Outcome::Delivered, at(0)).await.unwrap());
    assert!(queue.settle(&claimed[1], Outcome::Dead { why: String::new() }, at(0)).await.unwrap());
    let retry = Outcome::Retry { due: at(1), why: String::new() };
    assert!(queue.settle(&claimed[2], retry, at(0)).await.unwrap());
    assert!(queue.replay("orders", "c", at(0)).await.unwrap());
    assert!(queue.discard("orders", "e", at(0)).await.unwrap());
    assert_eq!(queue.list("orders", None, Some("a"), 9, at(0)).await.unwrap().len(), 3);
    assert_eq!(queue.show("orders", "d", at(0)).await.unwrap().unwrap().standing, Standing::Delayed);
    assert_eq!(queue.inboxes().await.unwrap(), ["orders"]);
    assert_eq!(queue.counts("orders", at(0)).await.unwrap().ready, 2);
    let queue = RedisQueue { leases_by_now: false, ..queue };
    assert_eq!(ids(&claim(&queue, 9, LONG, at(1)).await), ["b", "c", "d"]);
    let large = Message { body: vec![0; INLINE_BYTES_MAX + 1].into(), ..message("l", None) };
    assert_eq!(queue.put(large.clone(), PLENTY).await.unwrap(), Put::Stored);
    let claimed = claim(&queue, 9, LONG, at(1)).await;
    assert_eq!(claimed[0].message, large);
    assert!(queue.settle(&claimed[0], Outcome::Delivered, at(1)).await.unwrap());
    assert!(warnings::log(&queue.link).await.is_ok());
}
