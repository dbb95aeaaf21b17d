//! The same tests for every backend.

use std::sync::Arc;

use super::super::{Entry, KEY_BYTES_MAX, Spend, Spent, VALUE_BYTES_MAX};
use super::{Bench, OTHER, SPACE, for_each, keys};

for_each!(
    { memory: Bench::memory(), redis: Bench::redis(), file: Bench::file() },
    [
        what_is_put_is_got,
        spaces_do_not_meet,
        insert_takes_only_a_free_place,
        replace_wants_what_was_expected,
        take_removes,
        entries_end_to_the_millisecond,
        a_replaced_value_ends_when_the_old_one_would_have,
        a_list_is_ordered_and_goes_on_behind_a_key,
        what_is_too_large_is_refused,
        exchange_wants_what_was_expected_and_sets_another_end,
        of_a_hundred_inserts_one_wins,
        of_a_hundred_exchanges_one_wins,
        of_a_hundred_takes_one_wins,
        of_a_hundred_replacements_one_wins,
        a_counter_takes_what_fits,
        a_counter_keeps_the_end_it_began_with,
        what_is_given_back_can_be_spent_again,
        what_is_no_counter_is_not_counted_on,
        of_a_hundred_spenders_none_exceeds_the_limit,
        a_list_goes_on_over_many_pages,
    ]
);

async fn what_is_put_is_got(bench: Bench) {
    let store = &bench.store;
    assert_eq!(store.get(SPACE, "a").await.unwrap(), None);
    store.put(SPACE, "a", b"1".to_vec(), None).await.unwrap();
    store.put(SPACE, "", vec![0, 255], None).await.unwrap();
    assert_eq!(store.get(SPACE, "a").await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(store.get(SPACE, "").await.unwrap(), Some(vec![0, 255]));
    store.put(SPACE, "a", Vec::new(), None).await.unwrap();
    assert_eq!(store.get(SPACE, "a").await.unwrap(), Some(Vec::new()));
    assert_eq!(store.get(SPACE, "A").await.unwrap(), None);
    // Text that would mean something in SQL or in a pattern.
    for odd in ["'; DROP TABLE entries; --", "%", "_", "a\0b", "ü"] {
        store.put(SPACE, odd, odd.as_bytes().to_vec(), None).await.unwrap();
        assert_eq!(store.get(SPACE, odd).await.unwrap().as_deref(), Some(odd.as_bytes()));
    }
}

async fn spaces_do_not_meet(bench: Bench) {
    let store = &bench.store;
    store.put(SPACE, "a", b"1".to_vec(), None).await.unwrap();
    assert_eq!(store.get(OTHER, "a").await.unwrap(), None);
    assert!(store.insert(OTHER, "a", b"2".to_vec(), None).await.unwrap());
    assert_eq!(store.take(OTHER, "a").await.unwrap(), Some(b"2".to_vec()));
    assert_eq!(store.get(SPACE, "a").await.unwrap(), Some(b"1".to_vec()));
    assert!(store.list(OTHER, None, 10).await.unwrap().is_empty());
}

async fn insert_takes_only_a_free_place(bench: Bench) {
    let store = &bench.store;
    assert!(store.insert(SPACE, "a", b"1".to_vec(), bench.clock.later(10)).await.unwrap());
    assert!(!store.insert(SPACE, "a", b"2".to_vec(), None).await.unwrap());
    assert_eq!(store.get(SPACE, "a").await.unwrap(), Some(b"1".to_vec()));
    bench.clock.forward(10);
    assert!(store.insert(SPACE, "a", b"3".to_vec(), None).await.unwrap(), "it has ended");
    bench.clock.forward(1_000_000);
    assert_eq!(store.get(SPACE, "a").await.unwrap(), Some(b"3".to_vec()), "the new one has no end");
}

async fn replace_wants_what_was_expected(bench: Bench) {
    let store = &bench.store;
    assert!(!store.replace(SPACE, "a", b"", b"1".to_vec()).await.unwrap(), "there is none");
    store.put(SPACE, "a", b"1".to_vec(), None).await.unwrap();
    assert!(!store.replace(SPACE, "a", b"2", b"3".to_vec()).await.unwrap());
    assert!(store.replace(SPACE, "a", b"1", b"2".to_vec()).await.unwrap());
    assert!(store.replace(SPACE, "a", b"2", b"2".to_vec()).await.unwrap(), "by the same");
    assert_eq!(store.get(SPACE, "a").await.unwrap(), Some(b"2".to_vec()));
}

async fn take_removes(bench: Bench) {
    let store = &bench.store;
    assert_eq!(store.take(SPACE, "a").await.unwrap(), None);
    store.put(SPACE, "a", b"1".to_vec(), bench.clock.later(10)).await.unwrap();
    assert_eq!(store.take(SPACE, "a").await.unwrap(), Some(b"1".to_vec()));
    assert_eq!(store.take(SPACE, "a").await.unwrap(), None);
    assert_eq!(store.get(SPACE, "a").await.unwrap(), None);
}

async fn entries_end_to_the_millisecond(bench: Bench) {
    let store = &bench.store;
    store.put(SPACE, "a", b"1".to_vec(), bench.clock.later(1000)).await.unwrap();
    store.put(SPACE, "b", b"1".to_vec(), bench.clock.later(0)).await.unwrap();
    assert_eq!(store.get(SPACE, "b").await.unwrap(), None, "it ended as it began");
    bench.clock.forward(999);
    assert!(store.get(SPACE, "a").await.unwrap().is_some());
    assert_eq!(keys(&**store, None, 10).await, ["a"]);
    bench.clock.forward(1);
    assert_eq!(store.get(SPACE, "a").await.unwrap(), None);
    assert!(keys(&**store, None, 10).await.is_empty());
    assert!(!store.replace(SPACE, "a", b"1", b"2".to_vec()).await.unwrap());
    assert_eq!(store.take(SPACE, "a").await.unwrap(), None);
    store.put(SPACE, "a", b"1".to_vec(), bench.clock.later(5)).await.unwrap();
    store.put(SPACE, "a", b"2".to_vec(), None).await.unwrap();
    bench.clock.forward(5);
    assert_eq!(store.get(SPACE, "a").await.unwrap(), Some(b"2".to_vec()), "the end went with the old value");
}

async fn a_replaced_value_ends_when_the_old_one_would_have(bench: Bench) {
    let store = &bench.store;
    store.put(SPACE, "a", b"1".to_vec(), bench.clock.later(10)).await.unwrap();
    assert!(store.replace(SPACE, "a", b"1", b"2".to_vec()).await.unwrap());
    bench.clock.forward(9);
    assert_eq!(store.get(SPACE, "a").await.unwrap(), Some(b"2".to_vec()));
    bench.clock.forward(1);
    assert_eq!(store.get(SPACE, "a").await.unwrap(), None);
}

async fn exchange_wants_what_was_expected_and_sets_another_end(bench: Bench) {
    let (store, clock) = (&bench.store, &bench.clock);
    assert!(!store.exchange(SPACE, "a", b"", b"1".to_vec(), None).await.unwrap(), "there is none");
    store.put(SPACE, "a", b"1".to_vec(), clock.later(10)).await.unwrap();
    assert!(!store.exchange(SPACE, "a", b"2", b"3".to_vec(), None).await.unwrap());
    assert!(store.exchange(SPACE, "a", b"1", b"2".to_vec(), clock.later(20)).await.unwrap());
    clock.forward(19);
    assert_eq!(store.get(SPACE, "a").await.unwrap(), Some(b"2".to_vec()), "longer than the old one");
    assert!(store.exchange(SPACE, "a", b"2", b"2".to_vec(), clock.later(1)).await.unwrap(), "by the same");
    assert!(store.exchange(SPACE, "a", b"2", b"3".to_vec(), None).await.unwrap());
    clock.forward(1_000_000);
    assert!(store.exchange(SPACE, "a", b"3", b"4".to_vec(), clock.later(1)).await.unwrap(), "it had no end");
    clock.forward(1);
    assert_eq!(store.get(SPACE, "a").await.unwrap(), None);
    assert!(!store.exchange(SPACE, "a", b"4", b"5".to_vec(), None).await.unwrap(), "it has ended");
    // What ends in the past is gone, and its place is free.
    store.put(SPACE, "a", b"1".to_vec(), None).await.unwrap();
    assert!(store.exchange(SPACE, "a", b"1", b"2".to_vec(), Some(std::time::UNIX_EPOCH)).await.unwrap());
    assert_eq!(store.get(SPACE, "a").await.unwrap(), None);
    assert!(keys(&**store, None, 10).await.is_empty());
    assert!(store.insert(SPACE, "a", b"3".to_vec(), None).await.unwrap());
    assert!(store.exchange(SPACE, "a", b"3", vec![7; VALUE_BYTES_MAX + 1], None).await.is_err());
    assert_eq!(store.get(SPACE, "a").await.unwrap(), Some(b"3".to_vec()));
}

async fn of_a_hundred_exchanges_one_wins(bench: Bench) {
    bench.store.put(SPACE, "a", b"free".to_vec(), None).await.unwrap();
    let end = bench.clock.later(1000);
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let store = Arc::clone(&bench.store);
            tokio::spawn(async move {
                let value = number.to_string().into_bytes();
                store.exchange(SPACE, "a", b"free", value, end).await.unwrap().then_some(number)
            })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        winners.extend(task.await.unwrap());
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(bench.store.get(SPACE, "a").await.unwrap(), Some(winners[0].to_string().into_bytes()));
}

async fn a_list_is_ordered_and_goes_on_behind_a_key(bench: Bench) {
    let store = &bench.store;
    for number in (0..50).rev() {
        store.put(SPACE, &format!("{number:02}"), vec![number], None).await.unwrap();
    }
    let first = store.list(SPACE, None, 2).await.unwrap();
    assert_eq!(first, [Entry { key: "00".to_owned(), value: vec![0] }, Entry { key: "01".to_owned(), value: vec![1] }]);
    assert_eq!(keys(&**store, Some("01"), 2).await, ["02", "03"]);
    assert_eq!(keys(&**store, Some("01x"), 1).await, ["02"], "behind a key that is not there");
    assert_eq!(keys(&**store, Some("48"), 10).await, ["49"]);
    assert!(keys(&**store, Some("49"), 10).await.is_empty());
    assert_eq!(keys(&**store, None, usize::MAX).await.len(), 50);
    assert!(keys(&**store, None, 0).await.is_empty());
}

async fn what_is_too_large_is_refused(bench: Bench) {
    let store = &bench.store;
    let key = "k".repeat(KEY_BYTES_MAX);
    store.put(SPACE, &key, vec![7; VALUE_BYTES_MAX], None).await.unwrap();
    assert_eq!(store.get(SPACE, &key).await.unwrap().map(|value| value.len()), Some(VALUE_BYTES_MAX));
    let long = format!("{key}k");
    assert!(store.put(SPACE, &long, Vec::new(), None).await.is_err());
    assert!(store.insert(SPACE, &long, Vec::new(), None).await.is_err());
    for refused in [
        store.put(SPACE, "a", vec![7; VALUE_BYTES_MAX + 1], None).await,
        store.insert(SPACE, "a", vec![7; VALUE_BYTES_MAX + 1], None).await.map(|_| ()),
        store.replace(SPACE, "a", b"", vec![7; VALUE_BYTES_MAX + 1]).await.map(|_| ()),
    ] {
        assert!(refused.unwrap_err().to_string().contains("at most"));
    }
    assert_eq!(store.get(SPACE, "a").await.unwrap(), None);
}

const AT_ONCE: u8 = 100;

async fn of_a_hundred_inserts_one_wins(bench: Bench) {
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let store = Arc::clone(&bench.store);
            tokio::spawn(async move { (number, store.insert(SPACE, "a", vec![number], None).await.unwrap()) })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        let (number, won) = task.await.unwrap();
        winners.extend(won.then_some(number));
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(bench.store.get(SPACE, "a").await.unwrap(), Some(winners));
}

async fn of_a_hundred_takes_one_wins(bench: Bench) {
    bench.store.put(SPACE, "a", b"1".to_vec(), None).await.unwrap();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let store = Arc::clone(&bench.store);
            tokio::spawn(async move { store.take(SPACE, "a").await.unwrap() })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += u32::from(task.await.unwrap().is_some());
    }
    assert_eq!(won, 1);
}

async fn of_a_hundred_replacements_one_wins(bench: Bench) {
    bench.store.put(SPACE, "a", b"old".to_vec(), None).await.unwrap();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let store = Arc::clone(&bench.store);
            tokio::spawn(async move { store.replace(SPACE, "a", b"old", vec![number]).await.unwrap() })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += u32::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
}

fn spend(least: u64, most: u64, limit: u64) -> Spend {
    Spend { least, most, limit }
}

async fn a_counter_takes_what_fits(bench: Bench) {
    let (store, end) = (&bench.store, bench.clock.later(1000).unwrap());
    for (ask, got, used) in [
        (spend(0, 0, 10), 0, 0),
        (spend(11, 11, 10), 0, 0),
        (spend(3, 3, 10), 3, 3),
        (spend(0, 0, 10), 0, 3),
        (spend(7, 7, 10), 7, 10),
        (spend(1, 1, 10), 0, 10),
        (spend(1, 5, 12), 2, 12),
        (spend(4, 9, 15), 0, 12),
        (spend(0, 9, 15), 3, 15),
        // A limit that was lowered takes nothing away.
        (spend(0, 9, 5), 0, 15),
        (spend(1, 1_000_000_000_000_000, 4_000_000_000_000_000), 1_000_000_000_000_000, 1_000_000_000_000_015),
    ] {
        assert_eq!(store.spend(SPACE, "a", ask, end).await.unwrap(), Spent { got, used }, "{ask:?}");
    }
    assert_eq!(store.get(SPACE, "a").await.unwrap().as_deref(), Some(&b"1000000000000015"[..]));
    assert_eq!(store.get(OTHER, "a").await.unwrap(), None);
    store.spend(SPACE, "none", spend(0, 0, 10), end).await.unwrap();
    assert_eq!(keys(&**store, None, 10).await, ["a"], "what only looks makes none");
}

async fn a_counter_keeps_the_end_it_began_with(bench: Bench) {
    let store = &bench.store;
    store.spend(SPACE, "a", spend(1, 1, 10), bench.clock.later(10).unwrap()).await.unwrap();
    bench.clock.forward(9);
    let spent = store.spend(SPACE, "a", spend(1, 1, 10), bench.clock.later(10).unwrap()).await.unwrap();
    assert_eq!(spent, Spent { got: 1, used: 2 });
    store.give_back(SPACE, "a", 1).await.unwrap();
    bench.clock.forward(1);
    store.give_back(SPACE, "a", 1).await.unwrap();
    assert_eq!(store.get(SPACE, "a").await.unwrap(), None, "it has ended and stays so");
    let spent = store.spend(SPACE, "a", spend(10, 10, 10), bench.clock.later(10).unwrap()).await.unwrap();
    assert_eq!(spent, Spent { got: 10, used: 10 }, "and begins again");
    bench.clock.forward(10);
    assert_eq!(store.spend(SPACE, "a", spend(0, 0, 1), bench.clock.later(1).unwrap()).await.unwrap().used, 0);
}

async fn what_is_given_back_can_be_spent_again(bench: Bench) {
    let (store, end) = (&bench.store, bench.clock.later(1000).unwrap());
    store.give_back(SPACE, "a", 5).await.unwrap();
    assert_eq!(store.get(SPACE, "a").await.unwrap(), None, "there is none");
    store.spend(SPACE, "a", spend(5, 5, 5), end).await.unwrap();
    store.give_back(SPACE, "a", 2).await.unwrap();
    assert_eq!(store.spend(SPACE, "a", spend(1, 9, 5), end).await.unwrap(), Spent { got: 2, used: 5 });
    store.give_back(SPACE, "a", 6).await.unwrap();
    assert_eq!(store.get(SPACE, "a").await.unwrap().as_deref(), Some(&b"0"[..]), "never below 0");
}

async fn what_is_no_counter_is_not_counted_on(bench: Bench) {
    let (store, end) = (&bench.store, bench.clock.later(1000).unwrap());
    for odd in ["", "x", "-1", "1.5", "0x10", " 1", "1e3"] {
        store.put(SPACE, "a", odd.as_bytes().to_vec(), None).await.unwrap();
        let error = store.spend(SPACE, "a", spend(1, 1, 10), end).await.unwrap_err();
        assert!(error.to_string().contains("an entry is no counter"), "{odd:?}: {error}");
        assert!(store.give_back(SPACE, "a", 1).await.is_err());
        assert_eq!(store.get(SPACE, "a").await.unwrap().as_deref(), Some(odd.as_bytes()));
    }
    store.put(SPACE, "a", b"7".to_vec(), None).await.unwrap();
    assert_eq!(store.spend(SPACE, "a", spend(1, 1, 10), end).await.unwrap(), Spent { got: 1, used: 8 });
    bench.clock.forward(1_000_000);
    assert_eq!(store.get(SPACE, "a").await.unwrap().as_deref(), Some(&b"8"[..]), "it had no end");
}

async fn of_a_hundred_spenders_none_exceeds_the_limit(bench: Bench) {
    let end = bench.clock.later(1000).unwrap();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let store = Arc::clone(&bench.store);
            let most = u64::from(number % 3) + 1;
            tokio::spawn(async move { store.spend(SPACE, "a", spend(1, most, 77), end).await.unwrap().got })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    assert_eq!(sum, 77);
    assert_eq!(bench.store.get(SPACE, "a").await.unwrap().as_deref(), Some(&b"77"[..]));
}

async fn a_list_goes_on_over_many_pages(bench: Bench) {
    let store = &bench.store;
    for number in 0..700 {
        let end = (number % 3 == 0).then(|| bench.clock.later(10).unwrap());
        store.put(SPACE, &format!("{number:03}"), vec![0; 4000], end).await.unwrap();
    }
    assert_eq!(keys(&**store, None, usize::MAX).await.len(), 700);
    bench.clock.forward(10);
    let left: Vec<String> = (0..700).filter(|number| number % 3 != 0).map(|number| format!("{number:03}")).collect();
    assert_eq!(keys(&**store, None, usize::MAX).await, left);
    assert_eq!(keys(&**store, Some("300"), 300).await, left.iter().skip(200).take(300).cloned().collect::<Vec<_>>());
}
