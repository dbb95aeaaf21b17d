//! What is so of Redis alone: several gateways, takeover, a server that is away.

mod model;
mod outages;
mod work;

use bytes::Bytes;

use super::*;
use crate::state::tests::server::{self, PATIENCE as TEST_PATIENCE, Server};

const PLENTY: Bounds = Bounds { messages_max: 1_000_000, bytes_max: 1 << 40 };
/// Nobody waits for this one to run out.
const LONG: Duration = Duration::from_secs(600);

/// A queue whose leases go by the server's clock, as in earnest.
async fn open(settings: &Settings) -> RedisQueue {
    let queue = RedisQueue::open(settings).unwrap();
    assert!(queue.ready(TEST_PATIENCE).await);
    works(&queue).await;
    queue
}

/// A queue for which there is no time but `now`, and no other gateway.
pub async fn timeless(settings: &Settings) -> RedisQueue {
    RedisQueue { look_again: None, leases_by_now: true, ..open(settings).await }
}

/// Waits until both connections are there.
async fn works(queue: &RedisQueue) {
    let again = async {
        while !queue.ready(TEST_PATIENCE).await || queue.counts("none", at(0)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TEST_PATIENCE, again).await.expect("it does not recover");
}

/// A time of day, in milliseconds after one.
fn at(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_767_268_800_000 + milliseconds)
}

fn message(id: &str, order: Option<&str>) -> Message {
    Message {
        id: id.to_owned(),
        inbox: "orders".into(),
        delivery: format!("d-{id}"),
        order: order.map(str::to_owned),
        received: at(0),
        request_id: "r".to_owned(),
        route: "webhooks".to_owned(),
        provider: Some("github".to_owned()),
        method: "POST".to_owned(),
        target: "/webhooks?a=b".to_owned(),
        fields: vec![("x-odd".to_owned(), vec![0x80, 0xff, b'a'])],
        body: Bytes::from_static(b"{}"),
    }
}

async fn put(queue: &RedisQueue, ids: &[&str], order: Option<&str>) {
    for id in ids {
        assert_eq!(queue.put(message(id, order), PLENTY).await.unwrap(), Put::Stored);
    }
}

async fn claim(queue: &RedisQueue, most: usize, lease: Duration, now: SystemTime) -> Vec<Claimed> {
    queue.claim("orders", most, lease, now).await.unwrap().messages
}

fn ids(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|claimed| claimed.message.id.as_str()).collect()
}

/// The keys that are on the server under the prefix of these settings, but for the mark of a probe.
fn keys(server: &Server, settings: &Settings) -> Vec<String> {
    let mut keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("{}*", settings.prefix)).query(&mut server.raw()).unwrap();
    keys.retain(|key| !key.ends_with(":probe"));
    keys.sort();
    keys
}
