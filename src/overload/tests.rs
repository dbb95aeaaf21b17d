use super::*;

#[test]
fn the_least_is_shed_first_and_comes_back_last() {
    assert_eq!(
        [0, 700, 701, 900, 901, 980, 981, 1000, 1001].map(|used| level(used, 1000, 0)),
        [0, 0, 1, 1, 2, 2, 3, 3, 4]
    );
    // What is shed is let in again when a twentieth is free.
    assert_eq!(
        [1001, 951, 950, 931, 930, 851, 850, 651, 650].map(|used| level(used, 1000, 4)),
        [4, 4, 3, 3, 2, 2, 1, 1, 0]
    );
    assert_eq!(level(720, 1000, 1), 1);
    assert_eq!(level(0, 0, 0), 0);
}

#[test]
fn memory_sheds_by_priority_and_ends() {
    let overload = Overload::new(1);
    let worker = overload.worker(0);
    let now = memory::resident_bytes().unwrap();
    let memory = |memory_bytes_max| overload.follow(&Bounds { memory_bytes_max, ..Bounds::default() });
    // What there is now is some 80 % of the limit: low goes.
    memory(Some(now / 80 * 100));
    assert_eq!(worker.admit(Priority::Low).err(), Some(Reason::Memory));
    assert!(worker.admit(Priority::Normal).is_ok());
    memory(Some(1));
    assert_eq!(worker.admit(Priority::Critical).err(), Some(Reason::Memory));
    memory(Some(1 << 50));
    assert!(worker.admit(Priority::Low).is_ok());
    memory(Some(1));
    memory(None);
    assert!(worker.admit(Priority::Low).is_ok());
    assert_eq!(overload.shed(), [[0; 4], [1, 0, 0, 1], [0; 4]]);
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a worker that does nothing else")]
async fn a_worker_that_is_late_again_and_again_sheds() {
    let overload = Overload::new(2);
    let (late, other) = (overload.worker(0), overload.worker(1));
    overload.follow(&Bounds { lag_max: Some(Duration::from_millis(20)), ..Bounds::default() });
    let measuring = Arc::clone(&late);
    let measuring = tokio::spawn(async move { measuring.measure_lag().await });
    let shed = async {
        while late.admit(Priority::Critical).is_ok() {
            // Longer than the pause between two looks: each of them is late.
            std::thread::sleep(Duration::from_millis(300));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), shed).await.unwrap();
    assert_eq!(late.admit(Priority::Critical).err(), Some(Reason::Lag));
    assert!(other.admit(Priority::Low).is_ok(), "the other one is not late");
    let over = async {
        while late.admit(Priority::Critical).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), over).await.unwrap();
    measuring.abort();
}
