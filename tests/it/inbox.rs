//! Inboxes from outside: what is acknowledged is delivered, whatever happens to the service and to the gateway.

mod ends;

use std::net::SocketAddr;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Gateway, Request, Response, Upstream, answer, noise};

/// A state file that outlives gateways.
struct Site {
    folder: TempDir,
    upstream: SocketAddr,
}

impl Site {
    fn new(upstream: SocketAddr) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), upstream }
    }

    /// `settings` are those of the inbox: `, attempts: 3`.
    async fn start(&self, settings: &str) -> Gateway {
        let (file, address) = (self.folder.path().join("tollgate.db"), self.upstream);
        let (file, log) = (file.display(), self.folder.path().join("webhooks.log"));
        let log = log.display();
        Gateway::start(&format!(
            "state: {{ file: {file} }}\ndrain_timeout: 2s\nadmin: {{ bind: 127.0.0.1:0 }}\nwebhook_log: {{ to: {log} }}\n\
             upstreams:\n  main: {{ targets: [{{ address: \"{address}\" }}] }}\n\
             routes:\n  - {{ name: hooks, match: \"POST /hooks/{{*rest}}\", inbox: {{ upstream: main{settings} }} }}\n  \
             - {{ name: direct, match: \"/direct\", upstream: main }}\n"
        ))
        .await
    }
}

fn accepted(response: &Response) -> String {
    assert_eq!((response.status, response.body.len()), (202, 0), "{response:?}");
    response.head.get("x-message-id").expect("an id").to_owned()
}

/// The body, and the number of the attempt.
fn told(request: &Request) -> (String, u32) {
    let attempt = request.head.get("x-delivery-attempt").expect("an attempt").parse().unwrap();
    (String::from_utf8(request.body.clone()).unwrap(), attempt)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_arrives_byte_for_byte() {
    let upstream = Upstream::echo().await;
    let site = Site::new(upstream.address);
    let gateway = site.start("").await;
    let body = noise(300_000);
    let mut client = gateway.client().await;
    client
        .send(format!(
            "POST /hooks/a%20b?q='x'&p=%2f HTTP/1.1\r\nHost: api.example.com\r\nContent-Type: application/json\r\n\
             Expect: 100-continue\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-Forwarded-For: 203.0.113.9\r\n\
             Idempotency-Key: mine\r\nX-Delivery-Id: mine\r\nX_Delivery_Attempt: 7\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ))
        .await;
    assert_eq!(client.response_head().await.unwrap().0, 100);
    client.send(&body).await;
    let id = accepted(&client.response().await);
    let request = upstream.received(1).await.remove(0);
    assert_eq!((&*request.method, &*request.target), ("POST", "/hooks/a%20b?q='x'&p=%2f"));
    assert!(request.body == body, "{} of {} bytes", request.body.len(), body.len());
    for (name, value) in [
        ("host", "api.example.com"),
        ("content-type", "application/json"),
        ("content-length", "300000"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "api.example.com"),
        ("x-forwarded-proto", "http"),
        ("x-delivery-id", &id),
        ("x-delivery-attempt", "1"),
        ("idempotency-key", &id),
    ] {
        assert_eq!(request.head.all(name), [value], "{name}");
    }
    for name in ["x-hop", "connection", "expect", "x_delivery_attempt"] {
        assert!(request.head.all(name).is_empty(), "{name}");
    }
    // Nobody else can say so either.
    let direct =
        "GET /direct HTTP/1.1\r\nHost: a\r\nX-Delivery-Attempt: 2\r\nX-Delivery_Id: 3\r\nIdempotency-Key: 4\r\n\r\n";
    assert_eq!(gateway.ask(direct).await.status, 200);
    let head = upstream.received(2).await.remove(1).head;
    assert!(head.all("x-delivery-attempt").is_empty() && head.all("x-delivery_id").is_empty());
    assert_eq!(head.all("idempotency-key"), ["4"], "a field of everybody");
    gateway
        .counts(&[
            ("tollgate_inbox_stored_total{inbox=\"hooks\"}", 1.0),
            ("tollgate_inbox_delivered_total{inbox=\"hooks\"}", 1.0),
            ("tollgate_inbox_paused{inbox=\"hooks\"}", 0.0),
        ])
        .await;
    let status = gateway.ask_admin("GET /status").await.json();
    assert_eq!((&status["inboxes"][0]["name"], &status["inboxes"][0]["paused"]), (&"hooks".into(), &false.into()));
    assert_eq!(status["inboxes"][0]["messages"]["dead"], 0);
    gateway.stop().await;
    let log = std::fs::read_to_string(site.folder.path().join("webhooks.log")).unwrap();
    let mut lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["event"].to_string());
    let events: Vec<(&str, &str)> =
        lines.iter().map(|line| (line["event"].as_str().unwrap(), line["id"].as_str().unwrap())).collect();
    assert_eq!(events, [("delivered", &*id), ("stored", &*id)]);
    assert_eq!(
        (&lines[0]["attempt"], &lines[0]["status"], &lines[0]["delivery"]),
        (&1.into(), &200.into(), &id.into())
    );
    assert_eq!(lines[0]["target"], upstream.address.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_gets_all_when_it_is_back_in_order() {
    let address = Upstream::dead_address().await;
    let site = Site::new(address);
    let mut gateway = site.start(", attempts: 1, order_by: { member: /of }").await;
    let mut client = gateway.client().await;
    let bodies: Vec<String> = (0..20).map(|number| format!("{{\"of\":\"one\",\"n\":{number}}}")).collect();
    for body in &bodies {
        accepted(&client.post("/hooks/x", body.as_bytes()).await);
    }
    gateway.logged("deliveries pause").await;
    let upstream = Upstream::scripted_at(address, |mut conn| async move {
        while conn.request().await.is_some() {
            conn.send(answer(200, b"")).await;
        }
    })
    .await;
    let arrived: Vec<(String, u32)> = upstream.received(20).await.iter().map(told).collect();
    assert_eq!(arrived, bodies.into_iter().map(|body| (body, 1)).collect::<Vec<_>>());
    gateway.logged("deliveries go on").await;
    let pauses = gateway.lines().iter().filter(|line| line.contains("deliveries pause")).count();
    assert_eq!(pauses, 1, "once an episode");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_inbox_says_so_and_loses_nothing() {
    let address = Upstream::dead_address().await;
    let site = Site::new(address);
    let mut gateway = site.start(", messages_max: 3").await;
    let mut client = gateway.client().await;
    for body in ["1", "2", "3"] {
        accepted(&client.post("/hooks/x", body.as_bytes()).await);
    }
    gateway.logged("deliveries pause").await;
    gateway.counts(&[("tollgate_inbox_paused{inbox=\"hooks\"}", 1.0)]).await;
    let full = client.post("/hooks/x", b"4").await;
    full.refused(503, "INBOX_FULL");
    assert_eq!(full.head.get("retry-after"), Some("30"));
    gateway.counts(&[("tollgate_inbox_refused_total{inbox=\"hooks\",reason=\"full\"}", 1.0)]).await;
    let upstream = Upstream::scripted_at(address, |mut conn| async move {
        while conn.request().await.is_some() {
            conn.send(answer(204, b"")).await;
        }
    })
    .await;
    let mut arrived: Vec<String> = upstream.received(3).await.iter().map(|request| told(request).0).collect();
    arrived.sort_unstable();
    assert_eq!(arrived, ["1", "2", "3"]);
    gateway.stop().await;
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_its_bound() {
    let upstream = Upstream::echo().await;
    let site = Site::new(upstream.address);
    let gateway = site.start(", bytes_max: 128KiB").await;
    accepted(&gateway.post("/hooks/x", &noise(100 * 1024)).await);
    gateway.post("/hooks/x", &noise(128 * 1024 + 1)).await.refused(413, "BODY_TOO_LARGE");
    upstream.received(1).await;
    gateway.stop().await;
}
