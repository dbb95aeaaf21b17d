//! What counts as a failure.

use super::*;

/// A breaker that opens with the second failure: one is provoked, then another one.
async fn opens_by(targets: &[SocketAddr], keys: &str, path: &str, status: u16) -> Gateway {
    let yaml = config(targets, &format!("{{ failures: 2, window: 1m, {LONG} }}"));
    let yaml = yaml.replace("    circuit_breaker", &format!("    {keys}\n    circuit_breaker"));
    let gateway = Gateway::start(&yaml).await;
    for failures in 0..2 {
        assert_eq!(shown(&gateway).await["failures"], failures);
        assert_eq!(gateway.get(path).await.status, status);
    }
    refused(&gateway.get(path).await);
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_cannot_be_made() {
    opens_by(&[Upstream::dead_address().await], "timeouts: {}", "/x", 502).await;
    // Two attempts of one request are one failure of the upstream.
    let dead = [Upstream::dead_address().await, Upstream::dead_address().await];
    opens_by(&dead, "timeouts: {}", "/x", 502).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_do_not_come() {
    let silent = Upstream::silent().await;
    opens_by(&[silent.address], "timeouts: { first_byte: 100ms }", "/x", 504).await;
    assert_eq!(silent.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_and_what_is_no_http() {
    let reset = Upstream::scripted(|mut conn| async move {
        if conn.request().await.is_some() {
            conn.reset();
        }
    })
    .await;
    opens_by(&[reset.address], "timeouts: {}", "/x", 502).await;
    let garbage = Upstream::answering_once("this is no HTTP\r\n\r\n").await;
    opens_by(&[garbage.address], "timeouts: {}", "/x", 502).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_in_mid_response() {
    let service = Service::start().await;
    let gateway = gateway(&service, &format!("{{ failures: 2, window: 1m, {LONG} }}")).await;
    for _ in 0..2 {
        let mut client = gateway.client().await;
        client.send("GET /cut/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.response_head().await.unwrap().0, 200);
        client.rest().await;
    }
    becomes(&gateway, "open").await;
    refused(&gateway.get("/200/x").await);
    assert_eq!(service.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_answers_and_not_quick_ones() {
    let service = Service::start().await;
    let gateway = gateway(&service, &format!("{{ failures: 2, window: 1m, slow: 200ms, {LONG} }}")).await;
    assert_eq!(gateway.get("/200/x").await.status, 200);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = gateway.client().await;
        client.send("GET /held/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        held.push(client);
    }
    service.upstream.received(3).await;
    // Longer than `slow`.
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(shown(&gateway).await["failures"], 0);
    service.let_go();
    for mut client in held {
        assert_eq!(client.response().await.status, 200, "it is passed on all the same");
    }
    refused(&gateway.get("/200/x").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_that_leaves_and_no_refusal_of_our_own() {
    let service = Service::start().await;
    let gateway = gateway(&service, &format!("{{ failures: 1, window: 1m, {LONG} }}")).await;
    for number in 1..=3 {
        let mut client = gateway.client().await;
        client.send("GET /held/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        service.upstream.received(number).await;
    }
    gateway.counts(&[("tollgate_requests_in_flight{route=\"all\"}", 0.0)]).await;
    gateway.post("/200/x", &vec![b'x'; 2_000_000]).await.refused(413, "BODY_TOO_LARGE");
    assert!(takes_a_place(&gateway).await.is_some());
    assert_eq!((state(&gateway).await, shown(&gateway).await["failures"].clone()), ("closed".into(), 0.into()));
    assert_eq!(gateway.get("/200/x").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_upgrades_has_succeeded_at_once() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if request.head.get("upgrade").is_none() {
                conn.send(answer(500, b"")).await;
                continue;
            }
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
            return conn.closed().await;
        }
    })
    .await;
    let gateway = Gateway::start(&config(&[upstream.address], "{ failures: 1, window: 1m, open_for: 100ms }")).await;
    assert_eq!(gateway.get("/x").await.status, 500);
    open_for(Duration::from_millis(150)).await;
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(client.response_head().await.unwrap().0, 101);
    assert_eq!(state(&gateway).await, "closed");
}
