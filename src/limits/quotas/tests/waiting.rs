//! Requests that wait for the store, and a store that does not answer.

use std::sync::atomic::Ordering;

use super::faulty::{Fault, Faulty};
use super::*;

#[tokio::test]
async fn requests_that_wait_share_the_answers_of_the_store() {
    let store = Arc::new(Faulty::new(memory()));
    store.set(Fault::Hangs);
    let quotas = quotas(&store);
    let terms = Arc::new(terms(Unit::Day, "UTC", OnStoreError::Deny));
    let at = at(NOON);
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..60 {
        let (bucket, terms, ended) = (quotas.bucket("b"), Arc::clone(&terms), ended.clone());
        tokio::spawn(async move {
            let _ = ended.send(bucket.spend(&terms, "a", Want { limit: 50, cost: 1 }, at).await);
        });
    }
    // All of them have asked, and the store has begun to answer the first one.
    while store.asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    store.set(Fault::None);
    store.release();
    let mut admitted = 0;
    for _ in 0..60 {
        admitted += u64::from(matches!(ends.recv().await.unwrap(), Answer::Admitted(_)));
    }
    assert_eq!(admitted, 50);
    assert!(store.asked.load(Ordering::SeqCst) <= 4, "{:?}", store.asked);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_no_units_with_it() {
    let store = Arc::new(Faulty::new(memory()));
    store.set(Fault::Hangs);
    let quotas = quotas(&store);
    let (bucket, terms, at) = (quotas.bucket("b"), terms(Unit::Day, "UTC", OnStoreError::Deny), at(NOON));
    let one = Want { limit: 50, cost: 1 };
    {
        let mut gone = Box::pin(bucket.spend(&terms, "a", one, at));
        assert!(futures_util::poll!(gone.as_mut()).is_pending());
    }
    store.set(Fault::None);
    store.release();
    assert!(matches!(bucket.spend(&terms, "a", one, at).await, Answer::Admitted(_)));
    quotas.flush().await;
    assert_eq!(counter(&*store, "b/2040-06-15/a").await, 1);
}

/// Takes as long as a request waits at most.
#[tokio::test]
async fn a_store_that_does_not_answer_is_waited_for_once() {
    let store = Arc::new(Faulty::new(memory()));
    store.set(Fault::Hangs);
    let quotas = quotas(&store);
    let (bucket, terms, at) = (quotas.bucket("b"), terms(Unit::Day, "UTC", OnStoreError::Local), at(NOON));
    let one = Want { limit: 5, cost: 1 };
    assert!(matches!(bucket.spend(&terms, "a", one, at).await, Answer::Admitted(_)));
    // From here on nobody waits, whoever asks.
    for who in ["a", "b", "c", "d"] {
        let answer = bucket.try_spend(&terms, who, one, Moment { now: clock::now(), ..at });
        assert!(matches!(answer, Outcome::Known(Answer::Admitted(_))), "{who}");
    }
    let known =
        (0..10).filter(|_| matches!(bucket.try_spend(&terms, "a", one, at), Outcome::Known(Answer::Admitted(_))));
    assert_eq!(known.count(), 3, "two of five were used");
    let asked = store.asked.load(Ordering::SeqCst);
    assert!(asked <= 3, "the first, and now and then one that finds out whether it is back: {asked}");
    store.set(Fault::None);
    (0..asked).for_each(|_| store.release());
    quotas.flush().await;
    // The first one was slow, so that what it brought is no sign of health; what was used is paid.
    assert_eq!(counter(&*store, "b/2040-06-15/a").await, 5);
}
