//! Who gets in, in which order, and that nothing is left behind.

mod model;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

use super::*;

fn at_most(max: u32) -> NonZeroU32 {
    NonZeroU32::new(max).unwrap()
}

impl Permits {
    /// Entries in the table.
    fn entries(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.lock().slots.len()).sum()
    }

    /// Held and waited for, in the bucket of this name.
    fn counts(&self, bucket: &str) -> (u64, u64) {
        let samples = self.samples();
        samples.iter().find(|sample| *sample.bucket == *bucket).map_or((0, 0), |it| (it.in_flight, it.waiting))
    }
}

impl Entrance {
    fn admitted(self) -> Permit {
        match self {
            Self::Admitted(permit) => permit,
            Self::Queued(_) => panic!("queued"),
            Self::Full => panic!("full"),
        }
    }

    fn queued(self) -> Waiting {
        match self {
            Self::Queued(waiting) => waiting,
            Self::Admitted(_) => panic!("admitted"),
            Self::Full => panic!("full"),
        }
    }

    fn is_full(&self) -> bool {
        matches!(self, Self::Full)
    }
}

fn is_ready<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[test]
fn the_limit_is_let_in_and_one_more_is_not() {
    let permits = Permits::default();
    let bucket = permits.bucket("api");
    let mut held: Vec<Permit> = (0..3).map(|_| bucket.enter("a", at_most(3), 0).admitted()).collect();
    assert!(bucket.enter("a", at_most(3), 0).is_full());
    let other = bucket.enter("b", at_most(3), 0).admitted();
    assert_eq!(permits.counts("api"), (4, 0));
    held.pop();
    held.push(bucket.enter("a", at_most(3), 0).admitted());
    assert!(bucket.enter("a", at_most(3), 0).is_full());
    drop((held, other));
    assert_eq!((permits.entries(), permits.counts("api")), (0, (0, 0)));
}

#[test]
fn the_line_has_a_bound_too() {
    let permits = Permits::default();
    let bucket = permits.bucket("api");
    let permit = bucket.enter("a", at_most(1), 2).admitted();
    let line = [0, 1].map(|_| bucket.enter("a", at_most(1), 2).queued());
    assert!(bucket.enter("a", at_most(1), 2).is_full());
    assert_eq!(permits.counts("api"), (1, 2));
    drop((permit, line));
    assert_eq!(permits.entries(), 0);
}

#[tokio::test]
async fn first_come_first_served_and_nobody_overtakes() {
    let permits = Permits::default();
    let bucket = permits.bucket("api");
    let permit = bucket.enter("a", at_most(1), 2).admitted();
    let first = bucket.enter("a", at_most(1), 2).queued();
    let mut second = Box::pin(bucket.enter("a", at_most(1), 2).queued().within(Duration::from_secs(60)));
    drop(permit);
    assert!(bucket.enter("a", at_most(1), 1).is_full(), "it belongs to the first in the line");
    assert!(is_ready(second.as_mut()).is_none());
    drop(first.within(Duration::from_secs(60)).await.unwrap());
    assert!(second.await.is_some());
    assert_eq!(permits.entries(), 0);
}

#[tokio::test]
async fn a_wait_has_an_end() {
    let permits = Permits::default();
    let bucket = permits.bucket("api");
    let permit = bucket.enter("a", at_most(1), 1).admitted();
    let since = clock::now();
    assert!(bucket.enter("a", at_most(1), 1).queued().within(Duration::from_millis(30)).await.is_none());
    assert!(clock::now() - since >= Duration::from_millis(30));
    assert_eq!(permits.counts("api"), (1, 0));
    drop(permit);
    assert_eq!(permits.entries(), 0);
}

#[tokio::test]
async fn who_leaves_passes_on_what_was_on_its_way() {
    let permits = Permits::default();
    let bucket = permits.bucket("api");
    let permit = bucket.enter("a", at_most(1), 3).admitted();
    let [first, second, third] = [0, 1, 2].map(|_| bucket.enter("a", at_most(1), 3).queued());
    // Out of the middle of the line.
    drop(second);
    assert_eq!(permits.counts("api"), (1, 2));
    drop(permit);
    assert_eq!(permits.counts("api"), (1, 1), "the first has it, and does not know yet");
    drop(first);
    drop(third.within(Duration::ZERO).await.expect("a permit that is there counts, whatever the time"));
    assert_eq!(permits.entries(), 0);
}

#[tokio::test]
async fn a_changed_limit_resets_nothing() {
    let permits = Permits::default();
    let bucket = permits.bucket("api");
    let mut held: Vec<Permit> = (0..3).map(|_| bucket.enter("a", at_most(3), 0).admitted()).collect();
    // Lowered: two have to come back before anybody gets in.
    let lowered = bucket.enter("a", at_most(2), 9).queued();
    held.pop();
    assert_eq!(permits.counts("api"), (2, 1));
    let mut lowered = Box::pin(lowered.within(Duration::from_secs(60)));
    assert!(is_ready(lowered.as_mut()).is_none());
    held.pop();
    let lowered = lowered.await.unwrap();
    // Raised: those that wait come first, then who brought the news.
    let waits = bucket.enter("a", at_most(2), 9).queued();
    let raised = bucket.enter("a", at_most(4), 9).admitted();
    let waited = waits.within(Duration::from_secs(60)).await.unwrap();
    assert_eq!(permits.counts("api"), (4, 0));
    assert!(bucket.enter("a", at_most(4), 0).is_full());
    drop((held, lowered, raised, waited));
    assert_eq!(permits.entries(), 0);
}

#[test]
fn a_bucket_outlives_those_who_name_it_as_long_as_somebody_is_in_it() {
    let permits = Permits::default();
    let permit = permits.bucket("api").enter("", at_most(1), 0).admitted();
    assert!(permits.bucket("api").enter("", at_most(1), 0).is_full());
    assert!(!permits.bucket("other").enter("", at_most(1), 0).is_full());
    drop(permit);
    assert!(!permits.bucket("api").enter("", at_most(1), 0).is_full());
    assert!(permits.0.names().by_name.is_empty() && permits.samples().is_empty());
}

#[test]
fn a_panic_frees_what_was_held() {
    let permits = Permits::default();
    let bucket = permits.bucket("api");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _permit = bucket.enter("a", at_most(1), 0).admitted();
        assert_eq!(permits.counts("api"), (1, 0));
        panic!("in a request");
    }));
    assert!(panicked.is_err());
    assert_eq!(permits.entries(), 0);
}

#[test]
fn a_flood_leaves_no_room_behind() {
    let permits = Permits::default();
    let bucket = permits.bucket("api");
    let held: Vec<Permit> =
        (0..100_000).map(|who| bucket.enter(&format!("ip={who}"), at_most(1), 0).admitted()).collect();
    assert_eq!(permits.entries(), held.len());
    drop(held);
    let room: usize = permits.0.shards.iter().map(|shard| shard.lock().slots.capacity()).sum();
    assert!(room <= SHARDS * KEPT_ENTRIES_MAX, "{room}");
}

#[test]
fn threads_never_exceed_the_limit() {
    const MAX: u32 = 3;
    let permits = Permits::default();
    let inside = [const { AtomicU32::new(0) }; 2];
    let most = AtomicU32::new(0);
    thread::scope(|scope| {
        for number in 0..8 {
            let (permits, inside, most) = (&permits, &inside, &most);
            scope.spawn(move || {
                let bucket = permits.bucket("api");
                for turn in 0..5_000_usize {
                    let who = (turn + number) % inside.len();
                    let Entrance::Admitted(permit) = bucket.enter(&who.to_string(), at_most(MAX), 0) else {
                        thread::yield_now();
                        continue;
                    };
                    let now = inside[who].fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    assert!(now <= MAX, "{now} at once");
                    inside[who].fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                }
            });
        }
    });
    assert!(most.into_inner() >= 1);
    assert_eq!(permits.entries(), 0);
}

/// Leaving, the end of the time and a permit that comes meet each other on several threads: no permit is lost, none is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn waits_that_end_in_every_way_at_once_lose_no_permit() {
    const MAX: u32 = 2;
    let permits = Permits::default();
    let inside = Arc::new(AtomicU32::new(0));
    let tasks = (0..32).map(|seed| {
        let (bucket, inside) = (permits.bucket("api"), Arc::clone(&inside));
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut admitted = 0;
            for _ in 0..300 {
                let permit = match bucket.enter("a", at_most(MAX), 64) {
                    Entrance::Admitted(permit) => Some(permit),
                    Entrance::Full => None,
                    Entrance::Queued(waiting) => match random.u8(..4) {
                        0 => {
                            tokio::task::yield_now().await;
                            drop(waiting);
                            None
                        }
                        1 => waiting.within(Duration::from_micros(random.u64(..1500))).await,
                        2 => {
                            let within = waiting.within(Duration::from_secs(60));
                            let cut = Duration::from_micros(random.u64(..1500));
                            tokio::time::timeout(cut, within).await.unwrap_or_default()
                        }
                        _ => Some(waiting.within(Duration::from_secs(60)).await.expect("others leave")),
                    },
                };
                if let Some(permit) = permit {
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < MAX);
                    admitted += 1;
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                }
            }
            admitted
        })
    });
    let mut admitted = 0;
    for task in tasks.collect::<Vec<_>>() {
        admitted += task.await.unwrap();
    }
    assert!(admitted > 1_000, "{admitted}");
    assert_eq!(permits.entries(), 0);
}

#[tokio::test]
async fn waits_and_refusals_are_counted() {
    let metrics = crate::observe::metrics::Metrics::new(10);
    let permits = Permits::default();
    let bucket = permits.bucket("api");
    metrics.show_concurrency({
        let permits = permits.clone();
        move || permits.samples()
    });
    let permit = bucket.enter("a", at_most(1), 2).admitted();
    let left = bucket.enter("a", at_most(1), 2).queued();
    let waits = bucket.enter("a", at_most(1), 2).queued();
    assert!(bucket.enter("a", at_most(1), 2).is_full());
    let has = |line: &str| {
        let text = metrics.render();
        assert!(text.lines().any(|seen| seen == line), "no {line} in:\n{text}");
    };
    has("tollgate_concurrency_in_flight{bucket=\"api\"} 1");
    has("tollgate_concurrency_waiting{bucket=\"api\"} 2");
    drop(left);
    assert!(waits.within(Duration::ZERO).await.is_none());
    drop(permit);
    has("tollgate_concurrency_in_flight{bucket=\"api\"} 0");
    has("tollgate_concurrency_waiting{bucket=\"api\"} 0");
    has("tollgate_concurrency_refused_total{bucket=\"api\",reason=\"full\"} 1");
    has("tollgate_concurrency_refused_total{bucket=\"api\",reason=\"timeout\"} 1");
    has("tollgate_concurrency_wait_seconds_count{bucket=\"api\"} 2");
    drop(bucket);
    assert!(!metrics.render().contains("api"));
}
