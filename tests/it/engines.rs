//! Requests that one engine serves and requests that the other one serves, on the same connections.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::harness::{Gateway, Upstream, answer, noise, within};

fn yaml(service: &Upstream, limits: &str, upstream: &str) -> String {
    let address = service.address;
    format!(
        "limits: {{ {limits} }}\nupstreams:\n  main: {{ targets: [{{ address: \"{address}\" }}], {upstream} }}\nroutes:\n\
         \x20 - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n\
         \x20 - {{ name: checked, match: \"/checked/{{*rest}}\", filters: [{{ validate: {{ body_max: 1MiB }} }}], upstream: main }}\n\
         \x20 - {{ name: own, match: GET /own, respond: {{ body: ours }} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_changes_engines_with_every_request() {
    let service = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&service, "", "")).await;
    let mut client = gateway.client().await;
    for turn in 0..10 {
        assert_eq!(client.get("/x").await.status, 200);
        assert_eq!(client.get("/own").await.text(), "ours");
        let body = noise(1000 * turn + 1);
        assert!(client.post("/x", &body).await.body == body, "{turn}");
        // Its route is found by the one engine, and it is served by the other.
        assert_eq!(client.get("/checked/x").await.status, 200);
        let asked = client.ask("GET /x HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n").await;
        assert_eq!(asked.status, 200);
        let chunked = "PUT /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(client.ask(chunked).await.text(), "abc");
    }
    let targets: Vec<String> = service.requests().iter().map(|request| request.target.clone()).collect();
    assert_eq!(targets, ["/x", "/x", "/checked/x", "/x", "/x"].repeat(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_was_begun_ahead_has_its_time() {
    let service = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&service, "header_timeout: 500ms, idle_timeout: 100s", "")).await;
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\nGET /y HTTP/1.1\r\nHost: a").await;
    assert_eq!(client.response().await.status, 200);
    client.response().await.refused(408, "REQUEST_TIMEOUT");
    client.closed().await;
    assert_eq!(service.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_far_ahead_waits_in_its_socket() {
    let service = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&service, "", "")).await;
    let mut client = gateway.client().await;
    const COUNT: usize = 2000;
    let request = format!("GET /x HTTP/1.1\r\nHost: a.test\r\nX-Padding: {}\r\n\r\n", "x".repeat(100));
    let all = request.repeat(COUNT);
    client.send(&all).await;
    for turn in 0..COUNT {
        assert_eq!(client.response().await.status, 200, "{turn}");
    }
    assert_eq!(service.requests().len(), COUNT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_service_closed_is_let_go_of() {
    let ended = Arc::new(Notify::new());
    let counts = Arc::clone(&ended);
    let service = Upstream::scripted(move |mut conn| {
        let ended = Arc::clone(&counts);
        async move {
            conn.request().await;
            conn.send(answer(200, b"last")).await;
            let mut stream = conn.into_stream();
            stream.shutdown().await.unwrap();
            // Until the gateway has closed its side too.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            ended.notify_one();
        }
    })
    .await;
    let gateway = Gateway::start(&yaml(&service, "", "")).await;
    assert_eq!(gateway.get("/x").await.text(), "last");
    // Without another request.
    within("an end of the unused connection", ended.notified()).await;
    assert_eq!(gateway.get("/x").await.text(), "last");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unused_connection_is_kept_for_its_time() {
    let service = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&service, "", "timeouts: { keepalive: 1s }")).await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    let before = service.connections();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(client.get("/x").await.status, 200);
    assert!(service.connections() > before, "{before}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_wait_for_what_was_sent_behind_its_request() {
    let service = Upstream::echo().await;
    let held = "\x20 - { name: held, match: GET /held, filters: [{ fault: { delay: 5m } }], upstream: main }\n";
    let gateway = Gateway::start(&[&*yaml(&service, "", ""), held].concat()).await;
    let mut client = gateway.client().await;
    client.send(["/x", "/held"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).concat()).await;
    assert_eq!(client.response().await.status, 200);
}
