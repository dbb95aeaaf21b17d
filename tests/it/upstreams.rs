//! Services that are away, slow, broken, or several.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::harness::{Broken, Gateway, Response, Upstream, all_to, answer, noise, routed, within};

fn targets(targets: &[(SocketAddr, u32)], keys: &str) -> String {
    let targets: Vec<String> =
        targets.iter().map(|(address, weight)| format!("{{ address: \"{address}\", weight: {weight} }}")).collect();
    format!(
        "upstreams:\n  main: {{ targets: [{}]{}{keys} }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n",
        targets.join(", "),
        if keys.is_empty() { "" } else { ", " }
    )
}

/// An error of ours never says where the service is.
fn tells_nothing(response: &Response, address: SocketAddr) {
    let text = format!("{:?} {}", response.head, String::from_utf8_lossy(&response.body));
    let port = address.port().to_string();
    assert!(!text.contains(&port) && !text.contains("os error") && !text.contains("refused"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_is_502() {
    let address = Upstream::dead_address().await;
    let gateway = Gateway::start(&targets(&[(address, 1)], "")).await;
    let mut client = gateway.client().await;
    let response = client.get("/x").await;
    response.refused(502, "BAD_GATEWAY");
    tells_nothing(&response, address);
    // Nothing of the request is left on the way: the connection serves the next one.
    assert_eq!(response.head.get("connection"), None);
    let response = client.post("/x", &noise(20_000)).await;
    response.refused(502, "BAD_GATEWAY");
    // Something of a body that streams may be.
    assert_eq!(response.head.get("connection"), Some("close"));
    client.closed().await;
    gateway.h2().await.get("/x").await.refused(502, "BAD_GATEWAY");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_service_is_504() {
    let upstream = Upstream::silent().await;
    let gateway = Gateway::start(&routed(&upstream, "timeouts: { first_byte: 300ms, idle: 20s }")).await;
    let mut client = gateway.client().await;
    let start = Instant::now();
    let response = client.get("/x").await;
    response.refused(504, "GATEWAY_TIMEOUT");
    tells_nothing(&response, upstream.address);
    assert!(start.elapsed() >= Duration::from_millis(290) && start.elapsed() < Duration::from_secs(15));
    gateway.post("/x", b"body").await.refused(504, "GATEWAY_TIMEOUT");
    assert_eq!(upstream.requests().len(), 2, "a request that was sent is not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_the_larger_of_two_timeouts_bounds_the_wait() {
    let upstream = Upstream::silent().await;
    // One timer serves the head and the pauses of a body: streams of HTTP/2 share the connection that keeps the stricter one.
    let gateway = Gateway::start(&routed(&upstream, "timeouts: { first_byte: 300ms, idle: 200ms }")).await;
    let client = gateway.h2().await;
    let start = Instant::now();
    client.get("/x").await.refused(504, "GATEWAY_TIMEOUT");
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_for_an_answer_begins_with_the_end_of_the_request() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&routed(&upstream, "timeouts: { first_byte: 500ms }")).await;
    let mut client = gateway.client().await;
    client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\n").await;
    for byte in ["b", "o", "d", "y"] {
        // The client's own pace, longer in sum than the service may take.
        tokio::time::sleep(Duration::from_millis(250)).await;
        client.send(byte).await;
    }
    assert_eq!(client.response().await.text(), "body");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_target_of_two_fails_nobody() {
    let upstream = Upstream::echo().await;
    let dead = Upstream::dead_address().await;
    let gateway = Gateway::start(&targets(&[(dead, 1), (upstream.address, 1)], "")).await;
    for number in 0..20 {
        assert_eq!(gateway.get("/x").await.status, 200, "GET {number}");
        // Nothing was sent to the dead one: a POST may go to the other.
        assert_eq!(gateway.post("/x", b"body").await.text(), "body", "POST {number}");
    }
    assert_eq!(upstream.requests().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_bounded() {
    let upstream = Upstream::echo().await;
    let mut all: Vec<(SocketAddr, u32)> = Vec::new();
    for _ in 0..4 {
        all.push((Upstream::dead_address().await, 1));
    }
    all.push((upstream.address, 1));
    // The living one is last in turn; the rotation goes on with every attempt.
    let gateway = Gateway::start(&targets(&all, "retry: { attempts: 4 }")).await;
    gateway.get("/x").await.refused(502, "BAD_GATEWAY");
    assert_eq!(upstream.connections(), 0);
    let gateway = Gateway::start(&targets(&all, "retry: { attempts: 5 }")).await;
    assert_eq!(gateway.get("/x").await.status, 200);
    let gateway = Gateway::start(&targets(&all, "retry: { attempts: 10, on: [] }")).await;
    gateway.get("/x").await.refused(502, "BAD_GATEWAY");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_kept() {
    let heavy = Upstream::echo().await;
    let light = Upstream::echo().await;
    let gateway = Gateway::start(&targets(&[(heavy.address, 3), (light.address, 1)], "")).await;
    let mut client = gateway.client().await;
    for _ in 0..40 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    assert_eq!((heavy.requests().len(), light.requests().len()), (30, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_survives_a_connection_that_was_closed_while_idle() {
    let upstream = Upstream::scripted(|mut conn| async move {
        // One answer, which says that the connection stays, and then it does not.
        if let Some(request) = conn.request().await {
            conn.send(answer(200, &request.body)).await;
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut client = gateway.client().await;
    for number in 1..=20 {
        assert_eq!(client.get("/x").await.status, 200, "request {number}");
    }
    assert_eq!(upstream.requests().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_not_sent_twice() {
    // The second request on a connection is read whole, and then the connection breaks: was it done or not?
    let upstream = Upstream::scripted(|mut conn| async move {
        if conn.request().await.is_some() {
            conn.send(answer(200, b"first")).await;
        }
        conn.request().await;
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut client = gateway.client().await;
    assert_eq!(client.post("/x", b"1").await.text(), "first");
    client.post("/x", b"2").await.refused(502, "BAD_GATEWAY");
    let bodies: Vec<Vec<u8>> = upstream.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, [b"1", b"2"]);
    // A GET may be repeated, and is.
    let mut client = gateway.client().await;
    assert_eq!(client.get("/x").await.text(), "first");
    assert_eq!(client.get("/y").await.text(), "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_answers_are_502() {
    for (what, bytes) in [
        ("nothing", ""),
        ("garbage", "garbage\r\n\r\n"),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Le"),
        ("a status that is none", "HTTP/1.1 2000 OK\r\n\r\n"),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody"),
        ("a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: four\r\n\r\nbody"),
        ("a field with a NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
        (
            "an upgrade nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        ),
        ("only an interim one", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    ] {
        let upstream = Upstream::answering_once(bytes).await;
        let gateway = Gateway::start(&all_to(&upstream)).await;
        let mut client = gateway.client().await;
        client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n").await;
        let mut response = client.response().await;
        if response.status == 103 {
            response = client.response().await;
        }
        assert_eq!(response.status, 502, "{what}: {}", String::from_utf8_lossy(&response.body));
        response.refused(502, "BAD_GATEWAY");
        tells_nothing(&response, upstream.address);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_502_before_the_head_and_a_cut_after_it() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            match request.target.as_str() {
                "/before" => return conn.reset(),
                "/after" => {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
                    conn.wire.fill().await;
                }
                "/middle" => {
                    conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n").await;
                    return conn.reset();
                }
                _ => {
                    conn.send(answer(200, b"healthy")).await;
                }
            }
        }
    })
    .await;
    let gateway = Gateway::start(&routed(&upstream, "timeouts: { idle: 300ms, first_byte: 5s }")).await;
    for _ in 0..3 {
        gateway.get("/before").await.refused(502, "BAD_GATEWAY");
        let mut client = gateway.client().await;
        client.send("GET /middle HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let response = within("the end", client.try_response(false)).await;
        // The reset may overtake the head: then the gateway can still say so.
        match response {
            Err(Broken::Cut) => {}
            Ok(response) => drop(response.refused(502, "BAD_GATEWAY")),
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(gateway.get("/healthy").await.text(), "healthy");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_within_a_body_ends_at_the_idle_timeout() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthe beginning").await;
        }
    })
    .await;
    let gateway = Gateway::start(&routed(&upstream, "timeouts: { idle: 300ms, first_byte: 300ms }")).await;
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let start = Instant::now();
    assert_eq!(client.response_head().await.unwrap().0, 200);
    assert_eq!(client.rest().await, b"the beginning");
    assert!(start.elapsed() < Duration::from_secs(25));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_ends_at_the_total_timeout_however_busy() {
    let upstream = Upstream::scripted(|mut conn| async move {
        if conn.request().await.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            // A trickle: never silent, never done.
            while conn.send("1\r\nx\r\n").await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    })
    .await;
    let gateway = Gateway::start(&routed(&upstream, "timeouts: { total: 700ms }")).await;
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let start = Instant::now();
    let response = within("the end", client.try_response(false)).await;
    assert!(matches!(response, Err(Broken::Cut)), "{response:?}");
    assert!(start.elapsed() > Duration::from_millis(600) && start.elapsed() < Duration::from_secs(60));
    let h2 = gateway.h2().await;
    let request = http::Request::get("http://a.test/x").body(()).unwrap();
    assert!(h2.ask(request, Vec::new()).await.is_err(), "the stream is reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_service_ends_at_the_total_timeout() {
    let upstream = Upstream::silent().await;
    let gateway = Gateway::start(&routed(&upstream, "timeouts: { total: 300ms }")).await;
    gateway.get("/x").await.refused(504, "GATEWAY_TIMEOUT");
    gateway.h2().await.get("/x").await.refused(504, "GATEWAY_TIMEOUT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_is_503() {
    let yaml = "upstreams:\n  main: { targets: [{ address: \"no-such-host.invalid:80\" }] }\n\
                routes:\n  - { name: all, match: \"/{*rest}\", upstream: main }\n";
    let gateway = Gateway::start(yaml).await;
    let response = gateway.get("/x").await;
    response.refused(503, "UPSTREAM_UNAVAILABLE");
    assert!(!response.text().contains("no-such-host"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unused_connection_is_kept_no_longer_than_it_may() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&routed(&upstream, "timeouts: { keepalive: 200ms }")).await;
    let mut client = gateway.client().await;
    client.get("/x").await;
    // Longer than the connection may be kept.
    tokio::time::sleep(Duration::from_millis(600)).await;
    client.get("/y").await;
    assert_eq!(upstream.connections(), 2);
}
