//! A store that fails between any two steps.

use std::sync::atomic::Ordering;

use super::faulty::{Fault, Faulty};
use super::*;
use crate::state::{Limits, Memory};

struct Outage {
    faulty: Arc<Faulty>,
    store: Arc<dyn Store>,
    bench: Bench,
    gateway: Arc<Replay>,
}

impl Outage {
    fn new() -> Self {
        let bench = Bench::memory();
        let faulty = Faulty::new(Arc::clone(&bench.store));
        let store: Arc<dyn Store> = Arc::clone(&faulty) as Arc<dyn Store>;
        let gateway = gateway(&store, &bench.clock);
        Self { faulty, store, bench, gateway }
    }

    /// The store is well again, and was told everything.
    async fn over(&self) {
        self.faulty.set(Fault::None);
        self.gateway.inner.availability.up().await;
        self.gateway.flush().await;
    }

    /// The gateway knows that the store fails.
    async fn begins(&self, fault: Fault) {
        self.faulty.set(fault);
        let _ = self.gateway.look("(whatever)", OnStoreError::Deny).await;
        assert!(!self.gateway.sample().store.is_up);
    }

    /// What the store says, to one that knows nothing.
    async fn says(&self, delivery: &str) -> &'static str {
        self.bench.gateway().says(delivery).await
    }
}

const FAULTS: [Fault; 3] = [Fault::Fails, Fault::Lies, Fault::Hangs];

#[tokio::test(flavor = "multi_thread")]
async fn local_tells_messages_by_what_the_gateway_knows() {
    for fault in FAULTS {
        let outage = Outage::new();
        outage.gateway.first("before").await.delivered();
        outage.gateway.flush().await;
        outage.faulty.set(fault);
        assert_eq!(outage.gateway.says("before").await, "delivered", "it got through a moment ago");
        let once = outage.gateway.first("a").await;
        assert_eq!(outage.gateway.says("a").await, "in progress");
        drop(once);
        let once = outage.gateway.first("a").await;
        once.delivered();
        assert_eq!(outage.gateway.says("a").await, "delivered");
        let window = u64::try_from(WINDOW.as_millis()).unwrap();
        outage.bench.clock.forward(window - 1);
        assert_eq!(outage.gateway.says("a").await, "delivered");
        outage.over().await;
        assert_eq!((outage.says("a").await, outage.gateway.sample().untold), ("delivered", 0), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn allow_lets_everything_pass() {
    for fault in FAULTS {
        let outage = Outage::new();
        outage.begins(fault).await;
        let one = outage.gateway.look("a", OnStoreError::Allow).await;
        let other = outage.gateway.look("a", OnStoreError::Allow).await;
        assert_eq!((word(&one), word(&other)), ("first", "first"));
        let Begun::First(once) = &one else { panic!("{one:?}") };
        once.delivered();
        assert_eq!(word(&outage.gateway.look("a", OnStoreError::Allow).await), "first", "the second time too");
        outage.over().await;
        assert_eq!((outage.says("a").await, outage.gateway.says("a").await), ("delivered", "delivered"), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deny_lets_nothing_pass_and_leaves_no_trace() {
    for fault in FAULTS {
        let outage = Outage::new();
        outage.gateway.first("before").await.delivered();
        outage.gateway.flush().await;
        outage.faulty.set(fault);
        for _ in 0..2 {
            assert_eq!(word(&outage.gateway.look("a", OnStoreError::Deny).await), "unavailable", "{fault:?}");
        }
        assert_eq!(word(&outage.gateway.look("before", OnStoreError::Deny).await), "delivered", "that is certain");
        outage.over().await;
        assert_eq!((outage.says("a").await, outage.gateway.says("a").await), ("first", "first"), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_waits_for_a_store_that_is_known_to_fail() {
    let outage = Outage::new();
    outage.begins(Fault::Hangs).await;
    // A probe hangs by now; nobody else asks.
    while outage.faulty.asked() < 2 {
        tokio::task::yield_now().await;
    }
    let asked = outage.faulty.asked();
    let began = crate::clock::now();
    for number in 0..1000 {
        outage.gateway.first(&number.to_string()).await.delivered();
    }
    assert!(crate::clock::now().duration_since(began) < CLAIM_PATIENCE);
    assert!(outage.faulty.asked() <= asked + 1, "at most the next probe");
    let sample = outage.gateway.sample();
    assert_eq!((sample.store.without[0], sample.store.without[2]), (("local", 1000), ("deny", 1)));
    outage.over().await;
    assert_eq!(outage.says("999").await, "delivered");
}

/// The store fails after each number of operations that a whole life has.
#[tokio::test(flavor = "multi_thread")]
async fn between_any_two_steps_nothing_is_lost_and_nothing_passes_twice() {
    for fault in FAULTS {
        for spared in 0..4 {
            for gets_through in [true, false] {
                let outage = Outage::new();
                // The first look at the store is over.
                while outage.faulty.asked() < 2 {
                    tokio::task::yield_now().await;
                }
                outage.faulty.set_after(spared, fault);
                let once = outage.gateway.first("a").await;
                assert_eq!(outage.gateway.says("a").await, "in progress");
                if gets_through {
                    once.delivered();
                }
                drop(once);
                let here = outage.gateway.says("a").await;
                outage.over().await;
                let expected = if gets_through { "delivered" } else { "first" };
                // The store is told beside the requests that a message did not get through.
                let is_on_its_way = !gets_through && here == "in progress";
                assert!(here == expected || is_on_its_way, "{fault:?} after {spared} operations: {here}");
                let said = (outage.gateway.says("a").await, outage.says("a").await);
                assert_eq!(said, (expected, expected), "{fault:?} after {spared} operations");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_waiting_lets_go_of_it() {
    let outage = Outage::new();
    outage.faulty.set(Fault::Hangs);
    let gateway = Arc::clone(&outage.gateway);
    let asked = outage.faulty.asked();
    let waiting = tokio::spawn(async move { gateway.first("a").await });
    while outage.faulty.asked() == asked {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    outage.over().await;
    assert_eq!((outage.gateway.says("a").await, outage.says("a").await), ("first", "first"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_one_that_fails() {
    let clock = Clock::new();
    let limits = Limits { entries_max: 4, bytes_max: usize::MAX };
    let store: Arc<dyn Store> = Arc::new(Memory::with_clock(limits, clock.now()));
    for key in ["1", "2", "3"] {
        store.put(crate::state::REPLAY, key, Vec::new(), None).await.unwrap();
    }
    assert!(store.put(crate::state::REPLAY, "4", Vec::new(), None).await.is_err());
    store.put(crate::state::Space("revoked"), "4", Vec::new(), None).await.unwrap();
    let gateway = gateway(&store, &clock);
    assert_eq!(word(&gateway.look("c", OnStoreError::Deny).await), "unavailable");
    assert_eq!(word(&gateway.look("c", OnStoreError::Allow).await), "first");
    let once = gateway.first("c").await;
    assert_eq!(gateway.says("c").await, "in progress");
    drop(once);
    assert_eq!(gateway.says("c").await, "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_in_memory_either_a_message_has_to_come_later() {
    let outage = Outage::new();
    let limits = Limits { entries_max: 8, bytes_max: usize::MAX };
    let gateway = small_gateway(&outage.store, &outage.bench.clock, limits);
    // What the store knows too leaves room.
    for number in 0..100 {
        gateway.first(&number.to_string()).await.delivered();
        gateway.flush().await;
    }
    assert_eq!(gateway.says("99").await, "delivered");
    assert!(gateway.inner.local.len() <= 5);
    outage.faulty.set(Fault::Fails);
    let mut held = Vec::new();
    let mut last = "first";
    for number in 200..210 {
        let begun = gateway.look(&number.to_string(), OnStoreError::Local).await;
        last = word(&begun);
        held.push(begun);
    }
    assert_eq!(last, "unavailable");
    assert_eq!(word(&gateway.look("x", OnStoreError::Allow).await), "first");
    assert!(count(&held, "first") >= 1);
    drop(held);
    assert_eq!(gateway.says("300").await, "first", "there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_never_learns_is_counted() {
    let outage = Outage::new();
    let inner = &outage.gateway.inner;
    outage.begins(Fault::Fails).await;
    let claim = || {
        let message = Message { scope: "", route: "", provider: "", delivery: "" };
        Arc::new(Claim::new(message, WINDOW, &inner.owners, (inner.now)()))
    };
    let what = settling::What::Delivered { ends: (inner.now)() };
    for _ in 0..settling::WAITING_MAX {
        inner.settling.push(settling::Job { claim: claim(), what });
    }
    let before = inner.settling.lost();
    inner.settling.push(settling::Job { claim: claim(), what });
    inner.settling.push(settling::Job { claim: claim(), what: settling::What::Released });
    assert!(inner.settling.lost() > before);
    assert!(outage.faulty.asked.load(Ordering::SeqCst) < settling::WAITING_MAX, "it is not asked for each of them");
}
