//! What every queue has to do, and what each does in its own way.

mod contract;
mod file;
mod model;
mod packed;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::redis::tests as redis;
use super::{Bounds, Claimed, Claims, Counts, File, Message, Outcome, Put, Queue};
use crate::state::tests::server;

const INBOX: &str = "orders";
const OTHER: &str = "builds";
const WIDE: Bounds = Bounds { messages_max: u64::MAX, bytes_max: u64::MAX };
const LEASE: Duration = Duration::from_millis(1000);

/// A time of day by its milliseconds.
fn at(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_767_268_800_000 + milliseconds)
}

/// A queue to be tested. It reads no clock: every operation is told the time.
struct Bench {
    queue: Arc<dyn Queue>,
    folder: Option<tempfile::TempDir>,
}

impl Bench {
    fn file() -> Self {
        Self::file_in(tempfile::tempdir().unwrap())
    }

    fn file_in(folder: tempfile::TempDir) -> Self {
        let queue = open(&folder.path().join("inbox.db"));
        Self { queue: Arc::new(queue), folder: Some(folder) }
    }

    async fn redis() -> Self {
        let queue = redis::timeless(&server::shared().settings()).await;
        Self { queue: Arc::new(queue), folder: None }
    }

    async fn put(&self, message: Message) {
        assert_eq!(self.queue.put(message, WIDE).await.unwrap(), Put::Stored);
    }

    async fn put_all(&self, messages: &[(&str, Option<&str>)]) {
        for (id, order) in messages {
            self.put(message(id, *order)).await;
        }
    }

    async fn claim(&self, most: usize, now: u64) -> Claims {
        self.queue.claim(INBOX, most, LEASE, at(now)).await.unwrap()
    }

    /// Claims as much as there is, and gives the names.
    async fn names(&self, now: u64) -> Vec<String> {
        names(&self.claim(100, now).await.messages)
    }

    /// Claims the one message that can be claimed.
    async fn one(&self, now: u64) -> Claimed {
        let mut claims = self.claim(100, now).await;
        assert_eq!(claims.messages.len(), 1, "{claims:?}");
        claims.messages.remove(0)
    }

    async fn settle(&self, claimed: &Claimed, outcome: Outcome, now: u64) -> bool {
        self.queue.settle(claimed, outcome, at(now)).await.unwrap()
    }

    async fn counts(&self, now: u64) -> Counts {
        self.queue.counts(INBOX, at(now)).await.unwrap()
    }

    /// How many are ready, delayed, claimed and dead.
    async fn standing(&self, now: u64) -> [u64; 4] {
        let counts = self.counts(now).await;
        [counts.ready, counts.delayed, counts.claimed, counts.dead]
    }
}

fn open(path: &Path) -> File {
    File::with_pages(path, super::file::PAGES_MAX, Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error}"))
}

fn names(claimed: &[Claimed]) -> Vec<String> {
    claimed.iter().map(|claimed| claimed.message.id.clone()).collect()
}

fn retry(due: u64) -> Outcome {
    Outcome::Retry { due: at(due), why: "the upstream answered 503".to_owned() }
}

fn dead() -> Outcome {
    Outcome::Dead { why: "the upstream answered 400".to_owned() }
}

/// A message of [`INBOX`] with everything that one can have.
fn message(id: &str, order: Option<&str>) -> Message {
    Message {
        id: id.to_owned(),
        inbox: INBOX.into(),
        delivery: format!("delivery-{id}"),
        order: order.map(str::to_owned),
        received: at(7),
        request_id: "0190-request".to_owned(),
        route: "hooks".to_owned(),
        provider: Some("stripe".to_owned()),
        method: "POST".to_owned(),
        target: "/hooks/stripe?a=b&c=%20".to_owned(),
        fields: vec![
            ("content-type".to_owned(), b"application/json".to_vec()),
            ("x-odd".to_owned(), vec![0x80, 0xff]),
            ("x-odd".to_owned(), Vec::new()),
        ],
        body: Bytes::from(format!("{{\"id\":\"{id}\"}}\0\u{fc}")),
    }
}
