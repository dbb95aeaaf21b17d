//! Circuit breakers from outside: who fails too often is left alone, then asked with exactly the probes.

mod kinds;
mod others;
mod stale;
mod strangers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::harness::{Gateway, Response, Upstream, answer, within};

/// Long enough never to pass within a test. Where it has to pass, it is seconds: what is asserted of the time before has to come
/// in time on a busy machine, too.
const LONG: &str = "open_for: 1h";

/// A service that answers each request with the status its path names, `/503/x`; `/held/x` once it is let go, with 200.
struct Service {
    upstream: Upstream,
    letting_go: watch::Sender<bool>,
}

impl Service {
    async fn start() -> Self {
        let (letting_go, held) = watch::channel(false);
        let held = Arc::new(held);
        let upstream = Upstream::scripted(move |mut conn| {
            let mut held = (*held).clone();
            async move {
                while let Some(request) = conn.request().await {
                    let status = match request.target.split('/').nth(1) {
                        Some("held") => {
                            let _ = held.wait_for(|go| *go).await;
                            200
                        }
                        Some("held-503") => {
                            let _ = held.wait_for(|go| *go).await;
                            503
                        }
                        Some("cut") => {
                            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
                            return conn.reset();
                        }
                        Some(status) => status.parse().unwrap_or(200),
                        None => 200,
                    };
                    conn.send(answer(status, b"served")).await;
                }
            }
        })
        .await;
        Self { upstream, letting_go }
    }

    /// How many requests have reached it.
    fn asked(&self) -> usize {
        self.upstream.requests().len()
    }

    fn let_go(&self) {
        self.letting_go.send_replace(true);
    }
}

fn config(targets: &[SocketAddr], breaker: &str) -> String {
    let targets: Vec<String> = targets.iter().map(|address| format!("{{ address: \"{address}\" }}")).collect();
    format!(
        "admin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n  main:\n    targets: [{}]\n    circuit_breaker: {breaker}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n",
        targets.join(", ")
    )
}

async fn gateway(service: &Service, breaker: &str) -> Gateway {
    Gateway::start(&config(&[service.upstream.address], breaker)).await
}

/// Refused by the breaker. Gives the value of `Retry-After`.
fn refused(response: &Response) -> u64 {
    response.refused(503, "CIRCUIT_OPEN");
    response.head.get("retry-after").expect("a time").parse().unwrap()
}

/// `circuit_breaker` of the upstream on `/status`.
async fn shown(gateway: &Gateway) -> serde_json::Value {
    gateway.ask_admin("GET /status").await.json()["upstreams"][0]["circuit_breaker"].take()
}

async fn state(gateway: &Gateway) -> String {
    shown(gateway).await["state"].as_str().expect("a state").to_owned()
}

async fn becomes(gateway: &Gateway, wanted: &str) {
    within(wanted, async { while state(gateway).await != wanted {} }).await;
}

/// Waits until an open breaker would let a probe through, without sending one.
async fn open_for(period: Duration) {
    tokio::time::sleep(period).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_opens_on_the_nth_failure_and_not_before() {
    let service = Service::start().await;
    let mut gateway = gateway(&service, &format!("{{ failures: 3, window: 1m, {LONG} }}")).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/503/1").await.status, 503);
    assert_eq!(client.get("/500/2").await.status, 500);
    // Success in between is no excuse; what a client did wrong is no failure.
    for path in ["/200/x", "/404/x", "/429/x", "/501/x"] {
        client.get(path).await;
    }
    assert_eq!(state(&gateway).await, "closed");
    assert_eq!(shown(&gateway).await["failures"], 2);
    assert_eq!(client.get("/502/3").await.text(), "served");
    let asked = service.asked();
    assert_eq!(asked, 7);
    for _ in 0..3 {
        // The connection is kept: being refused costs next to nothing.
        assert!((3000..=3600).contains(&refused(&client.get("/200/x").await)));
    }
    refused(&gateway.post("/200/x", b"body").await);
    gateway.h2().await.get("/200/x").await.refused(503, "CIRCUIT_OPEN");
    assert_eq!(service.asked(), asked, "the service is not touched");
    let shown = shown(&gateway).await;
    assert_eq!((&shown["state"], &shown["failures"]), (&"open".into(), &3.into()), "{shown}");
    assert!(shown["until"].as_str() > shown["since"].as_str());
    gateway
        .counts(&[
            ("tollgate_circuit_breaker_state{upstream=\"main\"}", 2.0),
            ("tollgate_circuit_breaker_transitions_total{to=\"open\",upstream=\"main\"}", 1.0),
            ("tollgate_circuit_breaker_transitions_total{to=\"closed\",upstream=\"main\"}", 0.0),
            ("tollgate_circuit_breaker_rejected_total{upstream=\"main\"}", 5.0),
            ("tollgate_refused_total{code=\"CIRCUIT_OPEN\",route=\"all\"}", 5.0),
        ])
        .await;
    gateway.logged("the circuit breaker opens").await;
    let told = gateway.lines().iter().filter(|line| line.contains("circuit breaker")).count();
    assert_eq!(told, 1, "{:#?}", gateway.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_the_requests_opens_it() {
    let service = Service::start().await;
    let gateway = gateway(&service, &format!("{{ rate: 50%, requests_min: 4, window: 1m, {LONG} }}")).await;
    let mut client = gateway.client().await;
    for path in ["/200/1", "/200/2", "/500/3"] {
        client.get(path).await;
    }
    assert_eq!(state(&gateway).await, "closed");
    assert_eq!(shown(&gateway).await["requests"], 3);
    assert_eq!(client.get("/500/4").await.status, 500);
    refused(&client.get("/200/x").await);
    assert_eq!(service.asked(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_probes_reach_the_service_and_their_success_closes_it() {
    let service = Service::start().await;
    let mut gateway = gateway(&service, "{ failures: 1, window: 1m, open_for: 5s, half_open_requests: 2 }").await;
    assert_eq!(gateway.get("/500/x").await.status, 500);
    refused(&gateway.get("/200/x").await);
    open_for(Duration::from_millis(5050)).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = gateway.client().await;
        client.send("GET /held/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
    }
    service.upstream.received(3).await;
    // Four are refused while two wait.
    let mut answers = tokio::task::JoinSet::new();
    for mut client in clients {
        answers.spawn(async move { client.response().await });
    }
    for _ in 0..4 {
        let answer = within("a refusal", answers.join_next()).await.unwrap().unwrap();
        assert_eq!(refused(&answer), 1);
    }
    assert_eq!(state(&gateway).await, "half_open");
    assert_eq!(service.asked(), 3, "the failure and two probes");
    gateway.counts(&[("tollgate_circuit_breaker_state{upstream=\"main\"}", 1.0)]).await;
    service.let_go();
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    for _ in 0..3 {
        assert_eq!(gateway.get("/200/x").await.status, 200);
    }
    gateway.logged("the circuit breaker closes").await;
    let told = gateway.lines().iter().filter(|line| line.contains("circuit breaker")).count();
    assert_eq!(told, 3, "each change once: {:#?}", gateway.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_fails_opens_it_again() {
    let service = Service::start().await;
    let gateway = gateway(&service, "{ failures: 2, window: 1m, open_for: 3s }").await;
    gateway.get("/500/x").await;
    gateway.get("/500/x").await;
    for round in 1..=3 {
        refused(&gateway.get("/200/x").await);
        open_for(Duration::from_millis(3050)).await;
        assert_eq!(gateway.get("/500/x").await.status, 500, "the probe of round {round}");
        assert_eq!(service.asked(), 2 + round);
    }
    open_for(Duration::from_millis(3050)).await;
    // It is closed before the client has all of the answer: on whatever connection it comes next.
    assert_eq!(gateway.get("/200/x").await.status, 200);
    assert_eq!(gateway.get("/200/x").await.status, 200);
    assert_eq!(state(&gateway).await, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_body_ends_a_probe_at_once() {
    let service = Service::start().await;
    let gateway = gateway(&service, "{ failures: 1, window: 1m, open_for: 100ms, on: [500] }").await;
    for head in [true, false] {
        assert_eq!(gateway.get("/500/x").await.status, 500);
        open_for(Duration::from_millis(150)).await;
        let mut client = gateway.client().await;
        if head {
            client.send("HEAD /304/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.response_to_head().await.status, 304);
        } else {
            assert_eq!(client.get("/503/x").await.status, 503, "`on` does not name it");
        }
        assert_eq!(gateway.get("/200/x").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_gives_the_place_of_its_probe_back() {
    let service = Service::start().await;
    let gateway = gateway(&service, "{ failures: 1, window: 1m, open_for: 100ms }").await;
    gateway.get("/500/x").await;
    open_for(Duration::from_millis(150)).await;
    for round in 0..3 {
        let mut client = gateway.client().await;
        client.send("GET /held/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        service.upstream.received(2 + round).await;
        refused(&gateway.get("/held/x").await);
        drop(client);
        within("a place", async { while takes_a_place(&gateway).await.is_none() {} }).await;
    }
    assert_eq!(gateway.get("/200/y").await.status, 200);
    assert_eq!(state(&gateway).await, "closed");
    gateway.counts(&[("tollgate_circuit_breaker_transitions_total{to=\"open\",upstream=\"main\"}", 1.0)]).await;
}

/// Takes the place of a probe and gives it back without a word about the service; none while there is no place.
async fn takes_a_place(gateway: &Gateway) -> Option<()> {
    // 413 is the gateway's own word, said while the body comes: it tells nothing about the service.
    let mut client = gateway.client().await;
    client.send("POST /held/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send(format!("{:x}\r\n", 2_000_000)).await;
    client.send(vec![b'x'; 2_000_000]).await;
    let answer = client.response().await;
    (answer.status == 413).then_some(())
}
