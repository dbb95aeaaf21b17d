//! What an inbox in a file acknowledges, durably, while its messages are claimed and settled: puts a second, and how long
//! one takes. `cargo bench --profile quick --bench inbox`; with `-- 10`, ten seconds for each line; with a folder behind
//! it, there.
#![allow(clippy::expect_used, reason = "a benchmark that cannot set up must stop")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use tempfile::TempDir;
use tollgate::clock;
use tollgate::inbox::{Bounds, File, Message, Outcome, Put, Queue};

const CALLERS: [usize; 4] = [1, 16, 64, 256];
const BODY_BYTES: [usize; 2] = [1024, 16 * 1024];
/// Messages of a claim; they are settled together, as a worker does that delivers so many at once.
const CLAIMED_AT_ONCE: usize = 64;
const WORKERS: usize = 4;
const INBOX: &str = "bench";

fn main() {
    let numbers: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let seconds = numbers.first().and_then(|seconds| seconds.parse().ok()).unwrap_or(2);
    let folder = numbers.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    println!("callers   body     puts/s  settled/s   p50 ms   p99 ms   max ms   left");
    for bytes in BODY_BYTES {
        for callers in CALLERS {
            let folder = TempDir::new_in(&folder).expect("a temporary folder");
            runtime.block_on(measure(&folder, callers, bytes, Duration::from_secs(seconds)));
        }
    }
}

/// What the tasks share.
struct Run {
    queue: File,
    number: AtomicU64,
    settled: AtomicU64,
    ended: AtomicBool,
}

async fn measure(folder: &TempDir, callers: usize, bytes: usize, time: Duration) {
    let queue = File::open(&folder.path().join("inbox.db")).expect("an inbox");
    let run =
        Arc::new(Run { queue, number: AtomicU64::new(0), settled: AtomicU64::new(0), ended: AtomicBool::new(false) });
    let body = Bytes::from(vec![b'x'; bytes]);
    let began = clock::now();
    let workers: Vec<_> = (0..WORKERS).map(|_| tokio::spawn(deliver(Arc::clone(&run)))).collect();
    let callers: Vec<_> =
        (0..callers).map(|_| tokio::spawn(store(Arc::clone(&run), body.clone(), began, time))).collect();
    let count = callers.len();
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await.expect("no panic"));
    }
    let seconds = began.elapsed().as_secs_f64();
    let settled = run.settled.load(Ordering::Relaxed);
    run.ended.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.expect("no panic");
    }
    took.sort_unstable();
    let of = |share: usize| {
        let place = took.len().saturating_mul(share) / 1000;
        took.get(place.min(took.len().saturating_sub(1))).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    };
    let (puts, left) = (took.len(), run.number.load(Ordering::Relaxed).saturating_sub(settled));
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    let (puts, settled) = (puts as f64 / seconds, settled as f64 / seconds);
    println!(
        "{count:>7} {bytes:>6} {puts:>10.0} {settled:>10.0} {:>8.2} {:>8.2} {:>8.2} {left:>6}",
        of(500),
        of(990),
        of(1000)
    );
}

/// Stores one message after the other, and gives how long each took.
async fn store(run: Arc<Run>, body: Bytes, began: Instant, time: Duration) -> Vec<Duration> {
    let bounds = Bounds { messages_max: 1_000_000, bytes_max: 8 * 1024 * 1024 * 1024 };
    let mut took = Vec::new();
    while began.elapsed() < time {
        let number = run.number.fetch_add(1, Ordering::Relaxed);
        let message = message(number, body.clone());
        let asked = clock::now();
        assert_eq!(run.queue.put(message, bounds).await.expect("space"), Put::Stored);
        took.push(asked.elapsed());
    }
    took
}

/// Claims and settles as much as it can.
async fn deliver(run: Arc<Run>) {
    while !run.ended.load(Ordering::Relaxed) {
        let claims = run.queue.claim(INBOX, CLAIMED_AT_ONCE, Duration::from_secs(60), clock::wall());
        let claims = claims.await.expect("a claim").messages;
        if claims.is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(50), run.queue.changed()).await;
        }
        let settled = join_all(claims.iter().map(|one| run.queue.settle(one, Outcome::Delivered, clock::wall()))).await;
        for done in settled {
            assert!(done.expect("settled"), "nobody else has it");
            run.settled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A webhook as providers send it.
fn message(number: u64, body: Bytes) -> Message {
    let fields = [
        ("host", "hooks.example.com"),
        ("content-type", "application/json"),
        ("user-agent", "GitHub-Hookshot/044aadd"),
        ("x-github-event", "push"),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("x-hub-signature-256", "sha256=d57c68ca6f92289e6987922ff26938930f6e66a2d161ef06abdf1859230aa23c"),
    ];
    Message {
        id: format!("{number:026}"),
        inbox: INBOX.into(),
        delivery: format!("{number:032x}"),
        order: None,
        received: clock::wall(),
        request_id: format!("{number:032x}"),
        route: "hooks".to_owned(),
        provider: Some("github".to_owned()),
        method: "POST".to_owned(),
        target: "/webhooks/github".to_owned(),
        fields: fields.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into(),
        body,
    }
}
