//! The bounds of the store in memory.

use super::super::{Limits, Memory, Space, Spend, Store};
use super::{Clock, SPACE};

fn small(entries_max: usize, bytes_max: usize) -> (Memory, Clock) {
    let clock = Clock::new();
    (Memory::with_clock(Limits { entries_max, bytes_max }, clock.now()), clock)
}

#[tokio::test]
async fn a_full_memory_refuses_and_keeps_what_it_has() {
    let (store, _) = small(3, usize::MAX);
    for key in ["a", "b", "c"] {
        store.put(SPACE, key, b"1".to_vec(), None).await.unwrap();
    }
    let error = store.put(SPACE, "d", b"1".to_vec(), None).await.unwrap_err();
    assert!(error.to_string().contains("full (3 entries"), "{error}");
    assert!(store.insert(SPACE, "d", b"1".to_vec(), None).await.is_err());
    store.put(SPACE, "a", b"2".to_vec(), None).await.unwrap();
    assert_eq!(store.list(SPACE, None, 10).await.unwrap().len(), 3);
    store.take(SPACE, "b").await.unwrap();
    store.put(SPACE, "d", b"1".to_vec(), None).await.unwrap();
}

#[tokio::test]
async fn bytes_are_counted_and_given_back() {
    let (store, _) = small(usize::MAX, 1000);
    store.put(SPACE, "a", vec![0; 800], None).await.unwrap();
    assert!(store.put(SPACE, "b", vec![0; 100], None).await.is_err());
    assert_eq!(store.len(), 1, "the refused one takes no place");
    assert!(store.put(SPACE, "a", vec![0; 900], None).await.is_err());
    assert_eq!(store.get(SPACE, "a").await.unwrap().map(|value| value.len()), Some(800), "the old one stays");
    store.put(SPACE, "a", vec![0; 100], None).await.unwrap();
    store.put(SPACE, "b", vec![0; 100], None).await.unwrap();
    store.take(SPACE, "a").await.unwrap();
    store.take(SPACE, "b").await.unwrap();
    assert!(store.is_empty());
    store.put(SPACE, "a", vec![0; 838], None).await.unwrap();
    assert!(store.put(SPACE, "a", vec![0; 839], None).await.is_err(), "limit and limit + 1");
}

#[tokio::test]
async fn what_has_ended_makes_room() {
    let (store, clock) = small(100, usize::MAX);
    for number in 0..100 {
        store.put(SPACE, &number.to_string(), Vec::new(), clock.later(10)).await.unwrap();
    }
    assert!(store.put(SPACE, "new", Vec::new(), None).await.is_err());
    clock.forward(10);
    store.put(SPACE, "new", Vec::new(), None).await.unwrap();
    for number in 0..99 {
        store.put(SPACE, &number.to_string(), Vec::new(), None).await.unwrap();
    }
    assert_eq!(store.len(), 100);
}

#[tokio::test]
async fn a_flood_of_counters_leaves_room_for_a_revocation() {
    let (store, clock) = small(100, usize::MAX);
    let (one, end) = (Spend { least: 1, most: 1, limit: 9 }, clock.later(10).unwrap());
    for number in 0..75 {
        store.spend(Space("quota"), &number.to_string(), one, end).await.unwrap();
    }
    assert!(store.spend(Space("quota"), "75", one, end).await.is_err());
    assert_eq!(store.spend(Space("quota"), "7", one, end).await.unwrap().used, 2, "one that is there goes on");
    for number in 0..25 {
        store.put(SPACE, &number.to_string(), Vec::new(), None).await.unwrap();
    }
    assert!(store.put(SPACE, "25", Vec::new(), None).await.is_err());
}
