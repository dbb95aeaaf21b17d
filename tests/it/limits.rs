//! Bounds on what clients may do.

mod exactness;
mod rate_limit;

use std::time::{Duration, Instant};

use crate::harness::{Client, Gateway, Upstream, all_to, within};

async fn limited(limits: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&format!("limits: {{ {limits} }}\n{}", all_to(&upstream))).await;
    (gateway, upstream)
}

/// Connections that are certainly counted: each has had an answer.
async fn open(gateway: &Gateway, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = gateway.client().await;
        assert_eq!(client.get("/x").await.status, 200);
        clients.push(client);
    }
    clients
}

async fn one_more_is_refused(limits: &str) {
    let (gateway, _upstream) = limited(limits).await;
    let mut clients = open(&gateway, 3).await;
    for _ in 0..3 {
        let mut late = gateway.client().await;
        let response = late.response().await;
        response.refused(503, "OVERLOADED");
        assert_eq!(response.head.get("connection"), Some("close"));
        assert!(response.head.has("retry-after"));
        late.closed().await;
    }
    for client in &mut clients {
        assert_eq!(client.get("/x").await.status, 200, "who is in stays in");
    }
    drop(clients.pop());
    // The place is free when the gateway has seen the end of the connection.
    within("a free place", async {
        loop {
            let mut client = gateway.client().await;
            client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
            if client.try_response(false).await.is_ok_and(|response| response.status == 200) {
                break;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_in_all_are_bounded() {
    one_more_is_refused("connections_max: 3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_address_are_bounded() {
    one_more_is_refused("connections_per_address_max: 3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed() {
    let (gateway, _upstream) = limited("idle_timeout: 300ms").await;
    let mut client = gateway.client().await;
    for _ in 0..2 {
        client.get("/x").await;
    }
    let start = Instant::now();
    client.closed().await;
    // Without the setting it is 75 seconds.
    assert!(start.elapsed() >= Duration::from_millis(250) && start.elapsed() < Duration::from_secs(45));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_closed() {
    let ((gateway, _upstream), (patient, _)) =
        (limited("header_timeout: 300ms").await, limited("header_timeout: 10m").await);
    let mut waits = patient.client().await;
    let start = Instant::now();
    let mut ends = gateway.client().await;
    // Not how soon, which is up to the machine: before one whose time is longer.
    tokio::select! {
        () = ends.closed() => {}
        _ = waits.rest() => panic!("the time of this one is longer"),
    }
    assert!(start.elapsed() >= Duration::from_millis(250));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_to_come_in_time_however_busy_the_client() {
    let (gateway, upstream) = limited("header_timeout: 500ms").await;
    let mut good = gateway.client().await;
    good.get("/x").await;
    let mut slow = gateway.client().await;
    let mut second = gateway.client().await;
    second.get("/x").await;
    let start = Instant::now();
    let mut head = "GET /slow HTTP/1.1\r\nHost: a.test\r\n".bytes().chain(std::iter::repeat(b'x'));
    // One byte each 50 ms: every read gets something, and the head is never whole.
    let answer = loop {
        let byte = head.next().unwrap();
        slow.send([byte]).await;
        second.send([byte]).await;
        assert_eq!(good.get("/good").await.status, 200);
        match tokio::time::timeout(Duration::from_millis(50), slow.try_response(false)).await {
            Ok(answer) => break answer.expect("a refusal"),
            Err(_) => assert!(start.elapsed() < Duration::from_secs(60), "nobody stops it"),
        }
    };
    answer.refused(408, "REQUEST_TIMEOUT");
    slow.closed().await;
    second.response().await.refused(408, "REQUEST_TIMEOUT");
    assert!(start.elapsed() >= Duration::from_millis(450));
    assert!(upstream.requests().iter().all(|request| request.target != "/slow"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_is_408() {
    let (gateway, upstream) = limited("body_timeout: 300ms").await;
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut client = gateway.client().await;
        client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n5\r\nhello\r\n")).await;
        let start = Instant::now();
        client.response().await.refused(408, "REQUEST_TIMEOUT");
        client.closed().await;
        assert!(start.elapsed() >= Duration::from_millis(250) && start.elapsed() < Duration::from_secs(25));
    }
    assert_eq!(upstream.requests().len(), 0, "no whole request arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_that_never_comes_holds_nobody_for_long() {
    let upstream = Upstream::echo().await;
    let yaml = all_to(&upstream).replace("/{*rest}", "GET /only");
    let gateway = Gateway::start(&format!("limits: {{ body_timeout: 300ms }}\n{yaml}")).await;
    let mut client = gateway.client().await;
    client.send("POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello").await;
    let start = Instant::now();
    client.response().await.refused(404, "NOT_FOUND");
    client.closed().await;
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
}
