//! What operators see, and what workers are told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::super::{Counts, LIST_MAX, Message, Outcome, Standing};
use super::super::{Bench, INBOX, WIDE, at, dead, message, retry};

pub async fn counts_follow_every_step(bench: Bench) {
    assert_eq!(bench.counts(0).await, Counts::default());
    for (number, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let received = at(u64::try_from(number).unwrap());
        bench.put(Message { received, ..message(name, Some("x").filter(|_| number > 1)) }).await;
    }
    let bytes = message("a", None).bytes() * 2 + message("a", Some("x")).bytes() * 2;
    let counts = Counts { ready: 4, delayed: 0, claimed: 0, dead: 0, bytes, oldest: Some(at(0)) };
    assert_eq!(bench.counts(0).await, counts);
    let claims = bench.claim(10, 0).await.messages;
    assert_eq!(bench.counts(0).await, Counts { ready: 1, claimed: 3, ..counts });
    assert_eq!(bench.counts(999).await, Counts { ready: 1, claimed: 3, ..counts });
    assert_eq!(bench.counts(1000).await, counts, "they have run out");
    assert!(bench.settle(&claims[0], dead(), 0).await);
    let counts = Counts { oldest: Some(at(1)), ..counts };
    assert_eq!(bench.counts(0).await, Counts { ready: 1, claimed: 2, dead: 1, ..counts });
    assert!(bench.settle(&claims[1], retry(50), 0).await);
    assert!(bench.settle(&claims[2], Outcome::Returned, 0).await);
    assert_eq!(bench.counts(49).await, Counts { ready: 2, delayed: 1, dead: 1, ..counts });
    assert_eq!(bench.counts(50).await, Counts { ready: 3, dead: 1, ..counts });
    assert!(bench.queue.discard(INBOX, "b", at(0)).await.unwrap());
    assert!(bench.queue.discard(INBOX, "a", at(0)).await.unwrap());
    let bytes = message("a", Some("x")).bytes() * 2;
    assert_eq!(bench.counts(0).await, Counts { ready: 2, bytes, oldest: Some(at(2)), ..Counts::default() });
    for _ in 0..2 {
        let claimed = bench.one(0).await;
        assert!(bench.settle(&claimed, Outcome::Delivered, 0).await);
    }
    assert_eq!(bench.counts(0).await, Counts::default());
}

pub async fn a_list_shows_heads_in_order(bench: Bench) {
    bench.put_all(&[("c", None), ("a", Some("x")), ("b", Some("x"))]).await;
    let entries = bench.queue.list(INBOX, None, None, 10, at(0)).await.unwrap();
    let headless = |message: Message| Message { body: Bytes::new(), ..message };
    let expected = [message("c", None), message("a", Some("x")), message("b", Some("x"))].map(headless);
    let (messages, standings): (Vec<_>, BTreeSet<_>) =
        entries.into_iter().map(|entry| (entry.message, format!("{:?}", entry.standing))).unzip();
    assert_eq!(messages, expected);
    assert_eq!(standings, BTreeSet::from(["Ready".to_owned()]));
}

/// The names of what is listed.
async fn listed(bench: &Bench, standing: Option<Standing>, after: Option<&str>, limit: usize, now: u64) -> String {
    let entries = bench.queue.list(INBOX, standing, after, limit, at(now)).await.unwrap();
    assert!(standing.is_none_or(|standing| entries.iter().all(|entry| entry.standing == standing)), "{entries:?}");
    entries.into_iter().map(|entry| entry.message.id).collect()
}

pub async fn a_list_is_filtered_by_standing(bench: Bench) {
    let orders = [("a", None), ("b", None), ("c", Some("x")), ("d", None), ("e", Some("x")), ("f", None)];
    bench.put_all(&orders).await;
    let claims = bench.claim(4, 0).await.messages;
    assert!(bench.settle(&claims[0], dead(), 0).await);
    assert!(bench.settle(&claims[1], retry(500), 0).await);
    let all = [None, Some(Standing::Ready), Some(Standing::Delayed), Some(Standing::Claimed), Some(Standing::Dead)];
    for (now, expected) in [
        (0, ["abcdef", "ef", "b", "cd", "a"]),
        (499, ["abcdef", "ef", "b", "cd", "a"]),
        (500, ["abcdef", "bef", "", "cd", "a"]),
        (1000, ["abcdef", "bcdef", "", "", "a"]),
    ] {
        for (standing, expected) in all.into_iter().zip(expected) {
            assert_eq!(listed(&bench, standing, None, 10, now).await, expected, "{standing:?} at {now}");
        }
    }
    assert_eq!(listed(&bench, Some(Standing::Ready), Some("b"), 2, 1000).await, "cd");
    let entries = bench.queue.list(INBOX, Some(Standing::Claimed), None, 1, at(0)).await.unwrap();
    assert_eq!((entries[0].attempts, entries[0].due), (1, Some(at(1000))), "and when it runs out");
}

pub async fn a_list_goes_on_behind_a_name(bench: Bench) {
    for name in 'a'..='e' {
        bench.put(message(&name.to_string(), None)).await;
    }
    assert_eq!(listed(&bench, None, None, 2, 0).await, "ab");
    assert_eq!(listed(&bench, None, Some("b"), 2, 0).await, "cd");
    assert!(bench.queue.discard(INBOX, "d", at(0)).await.unwrap());
    assert_eq!(listed(&bench, None, Some("d"), 2, 0).await, "e", "one that has gone since");
    assert_eq!(listed(&bench, None, Some("e"), 2, 0).await, "");
    assert_eq!(listed(&bench, None, None, 0, 0).await, "");
    let puts: Vec<_> = (0..LIST_MAX)
        .map(|number| {
            let queue = Arc::clone(&bench.queue);
            tokio::spawn(async move { queue.put(message(&format!("f{number:04}"), None), WIDE).await.unwrap() })
        })
        .collect();
    for put in puts {
        put.await.unwrap();
    }
    assert_eq!(bench.queue.list(INBOX, None, None, usize::MAX, at(0)).await.unwrap().len(), LIST_MAX);
}

pub async fn one_message_is_shown_with_its_body(bench: Bench) {
    bench.put(message("a", Some("x"))).await;
    let entry = bench.queue.show(INBOX, "a", at(0)).await.unwrap().unwrap();
    assert_eq!(entry.message, message("a", Some("x")));
    assert_eq!((entry.standing, entry.attempts, entry.due, entry.why), (Standing::Ready, 0, None, None));
    bench.one(0).await;
    let entry = bench.queue.show(INBOX, "a", at(999)).await.unwrap().unwrap();
    assert_eq!((entry.standing, entry.attempts, entry.due), (Standing::Claimed, 1, Some(at(1000))));
    assert!(bench.queue.show(INBOX, "b", at(0)).await.unwrap().is_none());
}

/// Whether `changed` resolves, now or soon.
async fn told(changed: impl Future<Output = ()>) -> bool {
    tokio::time::timeout(Duration::from_secs(20), changed).await.is_ok()
}

pub async fn who_waits_is_told(bench: Bench) {
    let queue = &bench.queue;
    let waiting = [queue.changed(), queue.changed(), queue.changed()];
    bench.put_all(&[("a", Some("x")), ("b", Some("x"))]).await;
    for changed in waiting {
        assert!(told(changed).await, "all that waited");
    }
    assert!(told(queue.changed()).await, "and one that comes later");
    let first = bench.one(0).await;
    let changed = queue.changed();
    assert!(bench.settle(&first, Outcome::Delivered, 0).await);
    assert!(told(changed).await, "the next is ready");
    let second = bench.one(0).await;
    let changed = queue.changed();
    assert!(bench.settle(&second, retry(70), 0).await);
    assert!(told(changed).await, "it is due at another time");
    let changed = queue.changed();
    assert!(queue.replay(INBOX, "b", at(0)).await.unwrap());
    assert!(told(changed).await, "it is ready");
}

pub async fn what_a_worker_has_is_left_alone(bench: Bench) {
    bench.put(message("a", None)).await;
    bench.one(0).await;
    assert!(!bench.queue.replay(INBOX, "a", at(999)).await.unwrap());
    assert!(!bench.queue.discard(INBOX, "a", at(999)).await.unwrap());
    assert_eq!(bench.standing(999).await, [0, 0, 1, 0]);
    assert!(bench.queue.replay(INBOX, "a", at(1000)).await.unwrap(), "it has run out");
    assert_eq!(bench.one(1000).await.attempt, 1);
    assert!(bench.queue.discard(INBOX, "a", at(2000)).await.unwrap());
    assert!(!bench.queue.discard(INBOX, "a", at(2000)).await.unwrap());
    assert!(!bench.queue.replay(INBOX, "a", at(2000)).await.unwrap());
}
