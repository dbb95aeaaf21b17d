//! The same tests for every queue.

mod standing;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::{Bounds, Claims, Message, Outcome, Put, Queue, Standing};
use super::{Bench, INBOX, LEASE, OTHER, at, dead, message, names, retry};
use crate::state::tests::for_each;
use standing::*;

for_each!(
    { file: Bench::file(), redis: Bench::redis().await },
    [
        what_is_put_is_claimed_as_it_was,
        the_same_message_is_stored_once,
        claims_are_in_the_order_of_storing,
        inboxes_do_not_meet,
        a_claim_is_a_workers_until_it_runs_out,
        a_claim_that_ran_out_can_be_settled_while_nobody_else_has_it,
        a_renewed_claim_is_kept,
        a_claim_is_settled_once,
        a_retry_waits_for_its_time,
        a_dead_message_stays_until_it_is_replayed,
        what_was_returned_was_no_attempt,
        a_full_inbox_takes_nothing,
        dead_messages_count_for_the_bounds,
        next_tells_when_to_ask_again,
        one_order_goes_one_after_the_other,
        a_delayed_message_holds_up_its_order,
        a_dead_message_lets_the_next_go,
        a_replayed_message_is_the_first_of_its_order_again,
        a_discarded_message_lets_the_next_go,
        of_many_workers_one_gets_each,
        many_orders_keep_theirs_under_many_workers,
        large_bodies_survive,
        counts_follow_every_step,
        a_list_shows_heads_in_order,
        a_list_is_filtered_by_standing,
        a_list_goes_on_behind_a_name,
        one_message_is_shown_with_its_body,
        who_waits_is_told,
        what_a_worker_has_is_left_alone,
    ]
);

async fn what_is_put_is_claimed_as_it_was(bench: Bench) {
    let full = message("a", Some("customer 7"));
    let empty = Message {
        delivery: String::new(),
        order: None,
        provider: None,
        fields: Vec::new(),
        body: Bytes::new(),
        target: "/".to_owned(),
        ..message("b", None)
    };
    // Text that would mean something in SQL or in a pattern.
    let odd = Message { target: "'; DROP TABLE messages; --".to_owned(), ..message("ü % * \0", Some("a:b\n")) };
    for message in [&full, &empty, &odd] {
        bench.put(message.clone()).await;
    }
    let claims = bench.claim(10, 0).await;
    let claimed: Vec<_> = claims.messages.into_iter().map(|claimed| (claimed.message, claimed.attempt)).collect();
    assert_eq!(claimed, [(full, 1), (empty, 1), (odd, 1)]);
}

async fn the_same_message_is_stored_once(bench: Bench) {
    bench.put(message("a", None)).await;
    let other = Message { body: Bytes::from_static(b"something else"), ..message("a", Some("order")) };
    bench.put(other.clone()).await;
    assert_eq!(bench.standing(0).await, [1, 0, 0, 0]);
    let full = Bounds { messages_max: 1, bytes_max: 1 };
    assert_eq!(bench.queue.put(other, full).await.unwrap(), Put::Stored, "it is kept, however full it is");
    let claimed = bench.one(0).await;
    assert_eq!(claimed.message, message("a", None));
    bench.put(message("a", None)).await;
    assert_eq!(bench.standing(0).await, [0, 0, 1, 0]);
}

async fn claims_are_in_the_order_of_storing(bench: Bench) {
    bench.put_all(&[("c", None), ("a", None), ("d", Some("x")), ("b", None)]).await;
    assert!(bench.claim(0, 0).await.messages.is_empty());
    assert_eq!(names(&bench.claim(1, 0).await.messages), ["c"]);
    assert_eq!(names(&bench.claim(2, 0).await.messages), ["a", "d"]);
    assert_eq!(names(&bench.claim(2, 0).await.messages), ["b"]);
    assert!(bench.claim(2, 0).await.messages.is_empty());
    // Those that come back are as old as before.
    bench.put(message("e", None)).await;
    assert_eq!(bench.names(1000).await, ["c", "a", "d", "b", "e"]);
}

async fn inboxes_do_not_meet(bench: Bench) {
    assert!(bench.queue.inboxes().await.unwrap().is_empty());
    bench.put(message("a", Some("x"))).await;
    bench.put(Message { inbox: OTHER.into(), ..message("b", Some("x")) }).await;
    assert_eq!(bench.queue.inboxes().await.unwrap(), [OTHER, INBOX]);
    let ours = bench.one(0).await;
    let theirs = bench.queue.claim(OTHER, 10, LEASE, at(0)).await.unwrap();
    assert_eq!((ours.message.id.as_str(), names(&theirs.messages)), ("a", vec!["b".to_owned()]));
    assert!(bench.queue.show(OTHER, "a", at(0)).await.unwrap().is_none());
    assert!(bench.queue.list("none", None, None, 10, at(0)).await.unwrap().is_empty());
    assert!(bench.settle(&ours, Outcome::Delivered, 0).await);
    assert_eq!(bench.queue.inboxes().await.unwrap(), [OTHER]);
    assert!(!bench.queue.discard(INBOX, "b", at(2000)).await.unwrap());
    assert!(bench.queue.discard(OTHER, "b", at(2000)).await.unwrap());
    assert!(bench.queue.inboxes().await.unwrap().is_empty());
}

async fn a_claim_is_a_workers_until_it_runs_out(bench: Bench) {
    bench.put(message("a", None)).await;
    let first = bench.one(0).await;
    assert!(bench.names(999).await.is_empty());
    let second = bench.one(1000).await;
    assert_eq!((first.attempt, second.attempt), (1, 2));
    for outcome in [Outcome::Delivered, retry(0), dead(), Outcome::Returned] {
        assert!(!bench.settle(&first, outcome, 1000).await, "somebody else has it");
    }
    assert!(!bench.queue.renew(&first, LEASE, at(1000)).await.unwrap());
    assert_eq!(bench.standing(1000).await, [0, 0, 1, 0]);
    assert!(bench.settle(&second, Outcome::Delivered, 1000).await);
    assert_eq!(bench.standing(1000).await, [0, 0, 0, 0]);
}

async fn a_claim_that_ran_out_can_be_settled_while_nobody_else_has_it(bench: Bench) {
    bench.put_all(&[("a", None), ("b", None)]).await;
    let claims = bench.claim(2, 0).await.messages;
    assert!(bench.settle(&claims[0], Outcome::Delivered, 5000).await);
    assert_eq!(bench.standing(5000).await, [1, 0, 0, 0]);
    assert!(bench.queue.renew(&claims[1], LEASE, at(5000)).await.unwrap());
    assert_eq!(bench.standing(5000).await, [0, 0, 1, 0]);
    // Somebody has asked since then, and did not get it.
    assert!(bench.claim(0, 7000).await.messages.is_empty());
    assert!(bench.settle(&claims[1], retry(9000), 7000).await);
    assert_eq!(bench.standing(7000).await, [0, 1, 0, 0]);
}

async fn a_renewed_claim_is_kept(bench: Bench) {
    bench.put(message("a", None)).await;
    let claimed = bench.one(0).await;
    assert!(bench.queue.renew(&claimed, Duration::from_millis(5000), at(500)).await.unwrap());
    assert!(bench.names(5499).await.is_empty());
    assert!(bench.settle(&claimed, Outcome::Delivered, 5499).await);
    assert!(!bench.queue.renew(&claimed, LEASE, at(5499)).await.unwrap(), "it is gone");
}

async fn a_claim_is_settled_once(bench: Bench) {
    for (number, outcome) in [Outcome::Delivered, retry(10), dead(), Outcome::Returned].into_iter().enumerate() {
        let name = number.to_string();
        bench.put(message(&name, None)).await;
        let claimed = bench.one(0).await;
        assert!(bench.settle(&claimed, outcome, 0).await);
        let before = bench.queue.show(INBOX, &name, at(0)).await.unwrap();
        for outcome in [Outcome::Delivered, retry(20), dead(), Outcome::Returned] {
            assert!(!bench.settle(&claimed, outcome, 0).await);
        }
        assert!(!bench.queue.renew(&claimed, LEASE, at(0)).await.unwrap());
        assert_eq!(bench.queue.show(INBOX, &name, at(0)).await.unwrap(), before);
        if before.is_some() {
            assert!(bench.queue.discard(INBOX, &name, at(0)).await.unwrap());
        }
    }
}

async fn a_retry_waits_for_its_time(bench: Bench) {
    bench.put_all(&[("a", None), ("b", None)]).await;
    let first = bench.claim(1, 0).await.messages.remove(0);
    assert!(bench.settle(&first, retry(300), 10).await);
    let entry = bench.queue.show(INBOX, "a", at(299)).await.unwrap().unwrap();
    assert_eq!((entry.standing, entry.attempts, entry.due), (Standing::Delayed, 1, Some(at(300))));
    assert_eq!(entry.why.as_deref(), Some("the upstream answered 503"));
    assert_eq!(bench.names(299).await, ["b"], "others do not wait for it");
    let entry = bench.queue.show(INBOX, "a", at(300)).await.unwrap().unwrap();
    assert_eq!((entry.standing, entry.due), (Standing::Ready, None));
    let again = bench.one(300).await;
    assert_eq!((again.message.id.as_str(), again.attempt), ("a", 2));
}

async fn a_dead_message_stays_until_it_is_replayed(bench: Bench) {
    bench.put(message("a", None)).await;
    let claimed = bench.one(0).await;
    assert!(bench.settle(&claimed, dead(), 0).await);
    assert!(bench.names(1_000_000_000).await.is_empty());
    let entry = bench.queue.show(INBOX, "a", at(0)).await.unwrap().unwrap();
    assert_eq!((entry.standing, entry.attempts, entry.due), (Standing::Dead, 1, None));
    assert_eq!(entry.why.as_deref(), Some("the upstream answered 400"));
    assert!(bench.queue.replay(INBOX, "a", at(5)).await.unwrap());
    let claimed = bench.one(5).await;
    assert_eq!((claimed.message.clone(), claimed.attempt), (message("a", None), 1), "all attempts are before it");
    assert!(bench.settle(&claimed, retry(1000), 5).await);
    assert!(bench.queue.replay(INBOX, "a", at(6)).await.unwrap(), "one that is delayed, too");
    assert_eq!(bench.one(6).await.attempt, 1);
    assert!(!bench.queue.replay(INBOX, "none", at(6)).await.unwrap());
}

async fn what_was_returned_was_no_attempt(bench: Bench) {
    bench.put(message("a", None)).await;
    // What came back, and the attempt after it.
    for (attempt, outcome) in
        [(1, Outcome::Returned), (1, retry(0)), (2, Outcome::Returned), (2, retry(0)), (3, dead())]
    {
        let claimed = bench.one(0).await;
        assert_eq!(claimed.attempt, attempt);
        let counted = if outcome == Outcome::Returned { attempt - 1 } else { attempt };
        assert!(bench.settle(&claimed, outcome, 0).await);
        let entry = bench.queue.show(INBOX, "a", at(0)).await.unwrap().unwrap();
        assert_eq!(entry.attempts, counted);
    }
}

async fn a_full_inbox_takes_nothing(bench: Bench) {
    let bounds = Bounds { messages_max: 2, bytes_max: u64::MAX };
    assert_eq!(bench.queue.put(message("a", None), bounds).await.unwrap(), Put::Stored);
    assert_eq!(bench.queue.put(message("b", None), bounds).await.unwrap(), Put::Stored);
    assert_eq!(bench.queue.put(message("c", None), bounds).await.unwrap(), Put::Full);
    assert_eq!(bench.standing(0).await, [2, 0, 0, 0]);
    let claims = bench.claim(2, 0).await.messages;
    assert_eq!(bench.queue.put(message("c", None), bounds).await.unwrap(), Put::Full, "claimed ones count");
    assert!(bench.settle(&claims[0], Outcome::Delivered, 0).await);
    assert_eq!(bench.queue.put(message("c", None), bounds).await.unwrap(), Put::Stored);
    assert!(bench.settle(&claims[1], Outcome::Delivered, 0).await);
    let (bytes, used) = (message("d", None).bytes(), bench.counts(0).await.bytes);
    assert_eq!(used, message("c", None).bytes());
    let tight = |bytes_max| Bounds { messages_max: 100, bytes_max };
    assert_eq!(bench.queue.put(message("d", None), tight(used + bytes - 1)).await.unwrap(), Put::Full);
    assert_eq!(bench.queue.put(message("d", None), tight(used + bytes)).await.unwrap(), Put::Stored);
    assert_eq!(bench.counts(0).await.bytes, used + bytes);
    let other = Message { inbox: OTHER.into(), ..message("e", None) };
    assert_eq!(bench.queue.put(other, tight(bytes)).await.unwrap(), Put::Stored, "each inbox has its own bounds");
}

async fn dead_messages_count_for_the_bounds(bench: Bench) {
    let bounds = Bounds { messages_max: 1, bytes_max: u64::MAX };
    bench.put(message("a", None)).await;
    let claimed = bench.one(0).await;
    assert!(bench.settle(&claimed, dead(), 0).await);
    assert_eq!(bench.queue.put(message("b", None), bounds).await.unwrap(), Put::Full);
    assert!(bench.queue.discard(INBOX, "a", at(0)).await.unwrap());
    assert_eq!(bench.queue.put(message("b", None), bounds).await.unwrap(), Put::Stored);
}

async fn next_tells_when_to_ask_again(bench: Bench) {
    assert_eq!(bench.claim(10, 0).await, Claims::default());
    bench.put_all(&[("a", None), ("b", None)]).await;
    let claims = bench.claim(1, 0).await;
    assert_eq!(claims.next, Some(at(1000)), "when the claim runs out");
    assert!(bench.settle(&claims.messages[0], retry(300), 0).await);
    let claims = bench.claim(10, 100).await;
    assert_eq!((names(&claims.messages), claims.next), (vec!["b".to_owned()], Some(at(300))));
    assert!(bench.settle(&claims.messages[0], dead(), 100).await);
    let claims = bench.claim(10, 300).await;
    assert_eq!((names(&claims.messages), claims.next), (vec!["a".to_owned()], Some(at(1300))));
    assert!(bench.settle(&claims.messages[0], Outcome::Delivered, 300).await);
    assert_eq!(bench.claim(10, 300).await, Claims::default(), "a dead message is not waited for");
}

async fn one_order_goes_one_after_the_other(bench: Bench) {
    bench.put_all(&[("a", Some("x")), ("b", Some("x")), ("c", None), ("d", Some("y")), ("e", Some("x"))]).await;
    assert_eq!(bench.standing(0).await, [5, 0, 0, 0], "those that wait for another are ready");
    let claims = bench.claim(10, 0).await.messages;
    assert_eq!(names(&claims), ["a", "c", "d"]);
    assert!(bench.names(0).await.is_empty());
    assert!(bench.settle(&claims[0], Outcome::Delivered, 0).await);
    let second = bench.one(0).await;
    assert_eq!(second.message.id, "b");
    // What ran out is the first again.
    let claims = bench.claim(10, 1000).await.messages;
    assert_eq!(names(&claims), ["b", "c", "d"]);
    assert!(bench.settle(&claims[0], Outcome::Returned, 1000).await);
    let again = bench.one(1000).await;
    assert_eq!((again.message.id.as_str(), again.attempt), ("b", 2));
    assert!(bench.settle(&again, Outcome::Delivered, 1000).await);
    assert_eq!(bench.one(1000).await.message.id, "e");
}

async fn a_delayed_message_holds_up_its_order(bench: Bench) {
    bench.put_all(&[("a", Some("x")), ("b", Some("x")), ("c", Some("y"))]).await;
    let first = bench.claim(1, 0).await.messages.remove(0);
    assert!(bench.settle(&first, retry(500), 0).await);
    assert_eq!(bench.names(499).await, ["c"]);
    let again = bench.one(500).await;
    assert_eq!((again.message.id.as_str(), again.attempt), ("a", 2));
    assert!(bench.settle(&again, retry(501), 500).await);
    assert!(bench.queue.replay(INBOX, "a", at(500)).await.unwrap());
    assert_eq!(bench.names(500).await, ["a"]);
}

async fn a_dead_message_lets_the_next_go(bench: Bench) {
    bench.put_all(&[("a", Some("x")), ("b", Some("x"))]).await;
    let first = bench.one(0).await;
    assert!(bench.settle(&first, dead(), 0).await);
    assert_eq!(bench.one(0).await.message.id, "b");
}

async fn a_replayed_message_is_the_first_of_its_order_again(bench: Bench) {
    bench.put_all(&[("a", Some("x")), ("b", Some("x")), ("c", Some("x"))]).await;
    let first = bench.one(0).await;
    assert!(bench.settle(&first, dead(), 0).await);
    let second = bench.one(0).await;
    assert!(bench.queue.replay(INBOX, "a", at(0)).await.unwrap());
    assert!(bench.names(0).await.is_empty(), "not while another one is delivered");
    assert!(bench.settle(&second, retry(0), 0).await);
    let claims = bench.claim(10, 0).await.messages;
    assert_eq!(names(&claims), ["a"]);
    assert!(bench.settle(&claims[0], dead(), 0).await);
    assert!(bench.queue.replay(INBOX, "a", at(0)).await.unwrap(), "before the next was claimed");
    let claims = bench.claim(10, 0).await.messages;
    assert_eq!(names(&claims), ["a"]);
    assert!(bench.settle(&claims[0], Outcome::Delivered, 0).await);
    for name in ["b", "c"] {
        let claimed = bench.one(0).await;
        assert_eq!(claimed.message.id, name);
        assert!(bench.settle(&claimed, Outcome::Delivered, 0).await);
    }
}

async fn a_discarded_message_lets_the_next_go(bench: Bench) {
    bench.put_all(&[("a", Some("x")), ("b", Some("x")), ("c", Some("x"))]).await;
    assert!(bench.queue.discard(INBOX, "b", at(0)).await.unwrap());
    assert!(bench.queue.discard(INBOX, "a", at(0)).await.unwrap());
    assert_eq!(bench.one(0).await.message.id, "c");
}

async fn of_many_workers_one_gets_each(bench: Bench) {
    for number in 0..60 {
        bench.put(message(&format!("{number:02}"), None)).await;
    }
    let workers: Vec<_> = (0..30)
        .map(|_| {
            let queue = Arc::clone(&bench.queue);
            tokio::spawn(async move { names(&queue.claim(INBOX, 3, LEASE, at(0)).await.unwrap().messages) })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    all.sort();
    assert_eq!(all, (0..60).map(|number| format!("{number:02}")).collect::<Vec<_>>());
}

async fn many_orders_keep_theirs_under_many_workers(bench: Bench) {
    const ORDERS: usize = 5;
    for number in 0..60 {
        bench.put(message(&format!("{number:02}"), Some(&format!("order-{}", number % ORDERS)))).await;
    }
    let delivered = Arc::new(std::sync::Mutex::new(Vec::new()));
    let workers: Vec<_> = (0..6)
        .map(|_| {
            let (queue, delivered) = (Arc::clone(&bench.queue), Arc::clone(&delivered));
            tokio::spawn(work(queue, delivered))
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let delivered = delivered.lock().unwrap();
    assert_eq!(delivered.len(), 60);
    for order in 0..ORDERS {
        let of: Vec<usize> = delivered.iter().copied().filter(|number| number % ORDERS == order).collect();
        assert!(of.is_sorted(), "{of:?}");
    }
}

/// Delivers until nothing is left.
async fn work(queue: Arc<dyn Queue>, delivered: Arc<std::sync::Mutex<Vec<usize>>>) {
    loop {
        let changed = queue.changed();
        let claims = queue.claim(INBOX, 2, LEASE, at(0)).await.unwrap();
        for claimed in &claims.messages {
            delivered.lock().unwrap().push(claimed.message.id.parse().unwrap());
            assert!(queue.settle(claimed, Outcome::Delivered, at(0)).await.unwrap());
        }
        if claims.messages.is_empty() {
            if queue.inboxes().await.unwrap().is_empty() {
                return;
            }
            // Whoever delivers the last one makes nothing ready, so nobody is told.
            let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
        }
    }
}

async fn large_bodies_survive(bench: Bench) {
    let large: Vec<u8> = (0..16 * 1024 * 1024 + 1_u32).map(|number| (number >> 3).to_le_bytes()[0]).collect();
    for name in ["a", "b", "c"] {
        bench.put(Message { body: large.clone().into(), ..message(name, None) }).await;
    }
    assert_eq!(bench.queue.list(INBOX, None, None, 10, at(0)).await.unwrap()[0].message.body, Bytes::new());
    let mut all = Vec::new();
    // Perhaps not all at once; then it says when.
    while all.len() < 3 {
        let claims = bench.claim(10, 0).await;
        assert!(!claims.messages.is_empty());
        assert!(claims.messages.len() + all.len() == 3 || claims.next.is_some_and(|next| next <= at(0)));
        all.extend(claims.messages);
    }
    for claimed in &all {
        assert!(claimed.message.body == large, "{} is another", claimed.message.id);
        assert!(bench.settle(claimed, Outcome::Delivered, 0).await);
    }
    assert_eq!(bench.counts(0).await.bytes, 0);
}
