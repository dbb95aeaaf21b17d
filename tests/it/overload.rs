//! More than the gateway can take on: what matters least is refused first, quickly, and everything comes back.

mod descriptors;
mod memory;

use std::sync::Arc;

use tokio::sync::watch;

use crate::harness::{Client, Gateway, Response, Upstream, answer, within};

/// A service that holds what it is asked under `/held` until it is let go, and breaks off under `/cut`.
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
                    match request.target.rsplit('/').next() {
                        Some("held") => drop(held.wait_for(|go| *go).await),
                        Some("cut") => return conn.reset(),
                        Some("upgrade") => {
                            let head =
                                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
                            conn.send(head).await;
                            return conn.closed().await;
                        }
                        _ => {}
                    }
                    conn.send(answer(200, b"served")).await;
                }
            }
        })
        .await;
        Self { upstream, letting_go }
    }

    /// Sends a request on its way, which has reached the service when this returns.
    async fn hold(&self, gateway: &Gateway, priority: &str) -> Client {
        let before = self.upstream.requests().len();
        let mut client = gateway.client().await;
        client.send(format!("GET /{priority}/held HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        self.upstream.received(before + 1).await;
        client
    }

    /// A gateway with a route for each priority, and one that is never shed.
    async fn gateway(&self, limits: &str) -> Gateway {
        let address = self.upstream.address;
        let routes = ["critical", "high", "normal", "low"].map(|priority| {
            format!(
                "  - {{ name: {priority}, match: \"/{priority}/{{*rest}}\", priority: {priority}, upstream: main }}\n"
            )
        });
        Gateway::start(&format!(
            "admin: {{ bind: 127.0.0.1:0 }}\nlimits: {{ {limits} }}\ndefaults: {{ filters: [security_headers] }}\n\
             upstreams:\n  main: {{ targets: [{{ address: \"{address}\" }}] }}\nroutes:\n\
             \x20 - {{ name: health, match: GET /health, health: {{}} }}\n\
             \x20 - {{ name: plain, match: GET /plain, upstream: main }}\n{}",
            routes.concat()
        ))
        .await
    }
}

/// The one shape, when to come again, and what the default filters say.
fn is_shed(response: &Response) {
    response.refused(503, "OVERLOADED");
    assert_eq!(response.head.get("retry-after"), Some("1"));
    assert_eq!(response.head.get("x-content-type-options"), Some("nosniff"), "as on any refusal");
    assert_ne!(response.head.get("connection"), Some("close"), "the connection stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_is_shed_first_and_all_of_it_comes_back() {
    let service = Service::start().await;
    let mut gateway = service.gateway("in_flight_max: 50").await;
    // One that is asked over and over: a refusal keeps its connection.
    let mut asking = gateway.client().await;
    let mut held = Vec::new();
    let parts = [("low", 35), ("normal", 45), ("high", 49), ("critical", 50)];
    for (at, (priority, part)) in parts.into_iter().enumerate() {
        while held.len() < part {
            held.push(service.hold(&gateway, priority).await);
        }
        for (lower, _) in &parts[..=at] {
            is_shed(&asking.get(&format!("/{lower}/x")).await);
        }
        if let Some((higher, _)) = parts.get(at + 1) {
            assert_eq!(asking.get(&format!("/{higher}/x")).await.status, 200, "{higher} at {part}");
        }
        assert_eq!(asking.get("/health").await.status, 200, "never shed");
    }
    is_shed(&asking.get("/plain").await);
    asking.post("/normal/x", &[b'x'; 100_000]).await.refused(503, "OVERLOADED");
    let mut asking = gateway.client().await;
    let h2 = gateway.h2().await;
    h2.get("/critical/x").await.refused(503, "OVERLOADED");
    let shed = |route| format!("tollgate_shed_total{{reason=\"in_flight_max\",route=\"{route}\"}}");
    gateway
        .counts(&[
            (&shed("low"), 4.0),
            (&shed("normal"), 4.0),
            (&shed("high"), 2.0),
            (&shed("critical"), 2.0),
            ("tollgate_shedding{reason=\"in_flight_max\"}", 1.0),
            ("tollgate_refused_total{code=\"OVERLOADED\",route=\"low\"}", 4.0),
        ])
        .await;
    gateway.logged("shedding requests").await;
    service.letting_go.send_replace(true);
    for client in &mut held {
        assert_eq!(client.response().await.text(), "served", "who is in stays in");
    }
    for (priority, _) in parts {
        assert_eq!(asking.get(&format!("/{priority}/x")).await.status, 200);
    }
    assert_eq!(h2.get("/low/x").await.status, 200);
    let line = gateway.logged("no longer shedding requests").await;
    for text in ["in_flight_max", "low", "normal", "high", "critical"] {
        assert!(line.contains(text), "{line}");
    }
    gateway.counts(&[("tollgate_shedding{reason=\"in_flight_max\"}", 0.0)]).await;
    let begins = gateway.lines().iter().filter(|line| line.contains("WARN") && line.contains("shedding")).count();
    assert_eq!(begins, 1, "one line for an episode");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_comes_back_however_its_request_ends() {
    let service = Service::start().await;
    let gateway = service.gateway("in_flight_max: 1, body_timeout: 300ms").await;
    let length = "Content-Length: 10\r\n";
    for (what, request) in [
        ("the service breaks off", "GET /critical/cut HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("an answer without a body", "HEAD /critical/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a body that does not come", format!("POST /critical/x HTTP/1.1\r\nHost: a\r\n{length}\r\n12345")),
        ("a client that leaves", format!("POST /critical/held HTTP/1.1\r\nHost: a\r\n{length}\r\n12345")),
        ("no route", "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("an answer of our own", "GET /health HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
    ] {
        let mut client = gateway.client().await;
        client.send(request).await;
        if what != "a client that leaves" {
            let to_head = what == "an answer without a body";
            within(what, client.try_response(to_head)).await.expect(what);
        }
        drop(client);
        let mut asking = gateway.client().await;
        within(what, async { while asking.get("/critical/x").await.status != 200 {} }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_no_request_in_flight() {
    let service = Service::start().await;
    let gateway = service.gateway("in_flight_max: 1").await;
    let mut sockets = Vec::new();
    for number in 0..3 {
        let mut client = gateway.client().await;
        client.send("GET /low/upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        assert_eq!(client.response_head().await.unwrap().0, 101, "upgrade {number}");
        sockets.push(client);
        assert_eq!(gateway.get("/low/x").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_limit_and_forgets_nobody() {
    let service = Service::start().await;
    let gateway = service.gateway("in_flight_max: 3").await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(service.hold(&gateway, "critical").await);
    }
    is_shed(&gateway.get("/critical/x").await);
    let yaml = std::fs::read_to_string(gateway.folder.path("gateway.yaml")).unwrap();
    let mut now = 3;
    for limit in [4, 2] {
        let next = yaml.replace("in_flight_max: 3", &format!("in_flight_max: {limit}"));
        std::fs::write(gateway.folder.path("gateway.yaml"), next).unwrap();
        gateway.reload_well().await;
        if limit > now {
            within("one more place", async { while gateway.get("/critical/x").await.status != 200 {} }).await;
            held.push(service.hold(&gateway, "critical").await);
        }
        is_shed(&gateway.get("/critical/x").await);
        now = limit;
    }
    service.letting_go.send_replace(true);
    for client in &mut held {
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(gateway.get("/critical/x").await.status, 200);
}

/// What a client sends at once must not cost it the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_gets_its_answer_whatever_it_sends() {
    let service = Service::start().await;
    let gateway = service.gateway("connections_max: 1").await;
    let mut only = gateway.client().await;
    assert_eq!(only.get("/plain").await.status, 200);
    for number in 0..50_usize {
        let mut late = gateway.client().await;
        late.send("POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").await;
        late.send(vec![b'x'; number * 1000]).await;
        let response = late.response().await;
        response.refused(503, "OVERLOADED");
        assert_eq!(response.head.get("connection"), Some("close"));
    }
    assert_eq!(only.get("/plain").await.status, 200);
}
