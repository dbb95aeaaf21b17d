//! How many requests are in flight at once, and that none stays so longer than it is.

mod ends;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

use crate::harness::{Client, Folder, Gateway, Upstream, answer, within};

const ROOT: &str = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nadmin: { bind: 127.0.0.1:0 }\nthreads: 2\n\
                    access_log: { to: none }\ninclude: [routes.d/*.yaml]\n";
const IN_FLIGHT: &str = "tollgate_concurrency_in_flight{bucket=\"c\"}";
const WAITING: &str = "tollgate_concurrency_waiting{bucket=\"c\"}";

/// A route that counts in the bucket `c`; all it does is in `more`.
fn fragment(address: SocketAddr, settings: &str, more: &str) -> String {
    format!(
        "upstreams:\n  main: {{ targets: [{{ address: \"{address}\" }}] }}\n\
         routes:\n  - name: all\n    match: \"/{{*rest}}\"\n    filters:\n      - concurrency: {{ bucket: c, {settings} }}\n\
         {more}    upstream: main\n"
    )
}

async fn gateway(address: SocketAddr, settings: &str) -> Gateway {
    gateway_with(address, settings, "").await
}

async fn gateway_with(address: SocketAddr, settings: &str, more: &str) -> Gateway {
    let fragment = fragment(address, settings, more);
    Gateway::start_in(Folder::with(&[("gateway.yaml", ROOT), ("routes.d/main.yaml", &fragment)])).await
}

/// A service that answers when it is told to.
struct Slow {
    upstream: Upstream,
    answers: Arc<Semaphore>,
    begun: Arc<Notify>,
}

impl Slow {
    async fn start() -> Self {
        let (answers, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
        let (permits, tell) = (Arc::clone(&answers), Arc::clone(&begun));
        let upstream = Upstream::scripted(move |mut conn| {
            let (permits, tell) = (Arc::clone(&permits), Arc::clone(&tell));
            async move {
                while conn.request().await.is_some() {
                    tell.notify_one();
                    // A gateway that gives up closes the connection.
                    tokio::select! {
                        permit = permits.acquire() => permit.unwrap().forget(),
                        () = conn.closed() => return,
                    }
                    conn.send(answer(200, b"done")).await;
                }
            }
        })
        .await;
        Self { upstream, answers, begun }
    }

    fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    fn answer(&self, count: usize) {
        self.answers.add_permits(count);
    }

    /// As many requests, each certainly at the service.
    async fn busy(&self, gateway: &Gateway, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(ask(gateway).await);
            within("a request at the service", self.begun.notified()).await;
        }
        clients
    }
}

/// A request whose answer nobody has read yet.
async fn ask(gateway: &Gateway) -> Client {
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_gets_in_and_one_more_is_refused() {
    let slow = Slow::start().await;
    let gateway = gateway(slow.address(), "max: 3").await;
    let clients = slow.busy(&gateway, 3).await;
    gateway.counts(&[(IN_FLIGHT, 3.0)]).await;
    let response = gateway.get("/x").await;
    response.refused(503, "OVERLOADED");
    assert_eq!(response.head.get("retry-after"), Some("1"));
    assert_eq!(response.json()["error"]["details"]["max"], 3);
    slow.answer(3);
    for mut client in clients {
        assert_eq!(client.response().await.status, 200);
    }
    gateway.counts(&[(IN_FLIGHT, 0.0)]).await;
    slow.answer(1);
    assert_eq!(gateway.get("/x").await.status, 200);
    gateway.counts(&[("tollgate_concurrency_refused_total{bucket=\"c\",reason=\"full\"}", 1.0)]).await;
    gateway.counts(&[("tollgate_refused_total{code=\"OVERLOADED\",route=\"all\"}", 1.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_has_a_count_of_its_own() {
    let slow = Slow::start().await;
    let gateway = gateway(slow.address(), "max: 1, per: { header: X-Tenant }").await;
    let of = |tenant: &str| format!("GET /x HTTP/1.1\r\nHost: a.test\r\nX-Tenant: {tenant}\r\n\r\n");
    let mut clients = [gateway.client().await, gateway.client().await];
    clients[0].send(of("a")).await;
    clients[1].send(of("b")).await;
    slow.upstream.received(2).await;
    gateway.ask(&of("a")).await.refused(429, "CONCURRENCY_LIMITED");
    slow.answer(2);
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_served_and_one_more_is_refused() {
    let slow = Slow::start().await;
    let gateway = gateway(slow.address(), "max: 1, queue: 2, wait: 60s").await;
    let mut clients = slow.busy(&gateway, 1).await;
    for waiting in 1..=2_u32 {
        clients.push(ask(&gateway).await);
        gateway.counts(&[(IN_FLIGHT, 1.0), (WAITING, waiting.into())]).await;
    }
    gateway.get("/x").await.refused(503, "OVERLOADED");
    // In their order, and never two at once.
    for (number, client) in clients.iter_mut().enumerate() {
        slow.upstream.received(number + 1).await;
        assert_eq!(slow.upstream.requests().len(), number + 1);
        slow.answer(1);
        assert_eq!(client.response().await.status, 200);
    }
    gateway.counts(&[(IN_FLIGHT, 0.0), (WAITING, 0.0)]).await;
    gateway.counts(&[("tollgate_concurrency_wait_seconds_count{bucket=\"c\"}", 2.0)]).await;
}

/// Measures a deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_over_is_refused() {
    let slow = Slow::start().await;
    let gateway = gateway(slow.address(), "max: 1, queue: 1, wait: 300ms").await;
    let _busy = slow.busy(&gateway, 1).await;
    let since = Instant::now();
    let mut client = gateway.client().await;
    client.get("/x").await.refused(503, "OVERLOADED");
    assert!(since.elapsed() >= Duration::from_millis(300));
    gateway.counts(&[(IN_FLIGHT, 1.0), (WAITING, 0.0)]).await;
    gateway.counts(&[("tollgate_concurrency_refused_total{bucket=\"c\",reason=\"timeout\"}", 1.0)]).await;
    slow.answer(1);
    gateway.counts(&[(IN_FLIGHT, 0.0)]).await;
    slow.answer(1);
    assert_eq!(client.get("/x").await.status, 200, "the connection is as good as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_resets_nothing_and_a_changed_limit_is_obeyed() {
    let slow = Slow::start().await;
    let gateway = gateway(slow.address(), "max: 2, queue: 1, wait: 60s").await;
    let changed = async |settings: &str| {
        gateway.folder.write("routes.d/main.yaml", &fragment(slow.address(), settings, ""));
        gateway.reload_well().await;
    };
    let mut busy = slow.busy(&gateway, 2).await;
    let mut waits = ask(&gateway).await;
    gateway.counts(&[(IN_FLIGHT, 2.0), (WAITING, 1.0)]).await;
    changed("max: 1, queue: 1, wait: 60s").await;
    gateway.counts(&[(IN_FLIGHT, 2.0), (WAITING, 1.0)]).await;
    gateway.get("/x").await.refused(503, "OVERLOADED");
    // One of two has ended: still as many as there may be.
    slow.answer(1);
    gateway.counts(&[(IN_FLIGHT, 1.0), (WAITING, 1.0)]).await;
    gateway.get("/x").await.refused(503, "OVERLOADED");
    // Raised: who waits gets in with the next one that comes.
    changed("max: 3").await;
    let mut more = ask(&gateway).await;
    slow.upstream.received(4).await;
    gateway.counts(&[(IN_FLIGHT, 3.0), (WAITING, 0.0)]).await;
    gateway.get("/x").await.refused(503, "OVERLOADED");
    slow.answer(3);
    for client in busy.iter_mut().chain([&mut waits, &mut more]) {
        assert_eq!(client.response().await.status, 200);
    }
    gateway.counts(&[(IN_FLIGHT, 0.0), (WAITING, 0.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_of_a_reload_are_not_in_anybodys_way() {
    let slow = Slow::start().await;
    let gateway = gateway(slow.address(), "max: 1").await;
    let mut busy = slow.busy(&gateway, 1).await;
    let tested = format!(
        "{}tests: [{{ request: GET /x, expect: {{ upstream: main }} }}]\n",
        fragment(slow.address(), "max: 1", "")
    );
    gateway.folder.write("routes.d/main.yaml", &tested);
    gateway.reload_well().await;
    gateway.counts(&[(IN_FLIGHT, 1.0)]).await;
    slow.answer(1);
    assert_eq!(busy[0].response().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_served_while_the_gateway_drains() {
    let slow = Slow::start().await;
    let mut gateway = gateway(slow.address(), "max: 1, queue: 1, wait: 60s").await;
    let mut clients = slow.busy(&gateway, 1).await;
    clients.push(ask(&gateway).await);
    gateway.counts(&[(WAITING, 1.0)]).await;
    gateway.signal("TERM");
    gateway.logged("draining").await;
    slow.answer(2);
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
    }
    assert!(gateway.ended().await.success());
}
