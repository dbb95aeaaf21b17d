//! The plugins of `plugins/`, as they are committed.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};

use super::{ask, start};
use crate::harness::{Gateway, Upstream, answer, chunked, within};

fn file(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    std::fs::read(folder.join(name).with_extension("wasm")).unwrap()
}

async fn with(upstream: &Upstream, name: &str, config: &str) -> Gateway {
    start(upstream, &[(name, file(name), &format!(", config: {config}"))]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn countries_on_the_list_get_in() {
    let upstream = Upstream::echo().await;
    let gateway = with(&upstream, "country", "{ allow: [DE, AT] }").await;
    let mut client = gateway.client().await;
    for (fields, status) in [
        ("CF-IPCountry: DE\r\n", 200),
        ("CF-IPCountry: at\r\n", 200),
        ("CF-IPCountry: FR\r\n", 403),
        ("CF-IPCountry: DEU\r\n", 403),
        ("CF-IPCountry: XX\r\n", 403),
        ("CF-IPCountry: T1\r\n", 403),
        ("CF-IPCountry: \r\n", 403),
        ("", 403),
    ] {
        let response = ask(&mut client, fields).await;
        assert_eq!(response.status, status, "{fields}");
        if status == 403 {
            assert_eq!(response.head.all("content-type"), ["application/json"], "{fields}");
            assert_eq!(response.json()["error"]["code"], "COUNTRY_DENIED", "{fields}");
        }
    }
    assert_eq!(upstream.requests().len(), 2);
    for (name, count) in [("country_allowed", 2.0), ("country_denied", 6.0), ("country_unknown", 5.0)] {
        assert_eq!(counted(&gateway, "country", name).await, Some(count), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_sees_heads_of_requests_only_is_free_while_the_service_answers() {
    const ONE: &str = ", limits: { instances: 1 }, config: { allow: [DE] }";
    let asking = "GET /x HTTP/1.1\r\nHost: a.test\r\nCF-IPCountry: DE\r\n\r\n";
    for (name, module, is_free) in [("country", file("country"), true), ("mark", super::guests::marks_nothing(), false)]
    {
        let go = Arc::new(Semaphore::new(0));
        let goes = Arc::clone(&go);
        let upstream = Upstream::scripted(move |mut conn| {
            let goes = Arc::clone(&goes);
            async move {
                conn.request().await;
                let _go = goes.acquire().await;
                conn.send(answer(200, b"ok")).await;
            }
        })
        .await;
        let gateway = start(&upstream, &[(name, module, ONE)]).await;
        let mut waiting = gateway.client().await;
        waiting.send(asking).await;
        upstream.received(1).await;
        let mut second = gateway.client().await;
        second.send(asking).await;
        if is_free {
            upstream.received(2).await;
            go.add_permits(2);
            assert_eq!(second.response().await.status, 200);
        } else {
            second.response().await.refused(503, "PLUGIN_FAILED");
            go.add_permits(2);
        }
        assert_eq!(waiting.response().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn countries_and_regions_can_be_kept_out() {
    let upstream = Upstream::echo().await;
    let config = "{ deny: [FR, US-CA], header: x-country, region_header: x-region, unknown: allow }";
    let gateway = with(&upstream, "country", config).await;
    let mut client = gateway.client().await;
    for (country, region, status) in [
        ("DE", "", 200),
        ("FR", "", 403),
        ("FR", "IDF", 403),
        ("US", "NY", 200),
        ("US", "ca", 403),
        // Nobody knows where.
        ("US", "", 200),
        ("", "", 200),
    ] {
        let response = ask(&mut client, &format!("X-Country: {country}\r\nX-Region: {region}\r\n")).await;
        assert_eq!(response.status, status, "{country} {region}");
    }
    let gateway = with(&upstream, "country", &config.replace(", unknown: allow", "")).await;
    assert_eq!(ask(&mut gateway.client().await, "X-Country: US\r\n").await.status, 403);
}

fn json(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nAccept-Ranges: bytes\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_personal_is_masked() {
    let body = r#"{"card":"4111 1111 1111 1111","n":4111111111111111,"to":["jo@example.com","DE89370400440532013000"],"id":"EMP-0815"}"#;
    let upstream = Upstream::answering(json(body)).await;
    let config = "{ patterns: [{ name: staff, like: \"EMP-####\" }] }";
    let gateway = with(&upstream, "mask-pii", config).await;
    let mut client = gateway.client().await;
    for _ in 0..2 {
        let response = ask(&mut client, "Accept-Encoding: gzip, br\r\nRange: bytes=1-\r\n").await;
        let expected = r#"{"card":"[card]","n":0,"to":["[email]","[iban]"],"id":"[staff]"}"#;
        assert_eq!((response.status, response.text()), (200, expected));
        assert_eq!(response.head.all("x-masked"), ["card, email, iban, staff"]);
        assert!(response.head.all("accept-ranges").is_empty());
    }
    let sent = upstream.last();
    assert_eq!((sent.head.all("accept-encoding"), sent.head.all("range").len()), (vec!["identity"], 0));
    for (name, count) in [("card", 4.0), ("email", 2.0), ("iban", 2.0), ("staff", 2.0)] {
        assert_eq!(counted(&gateway, "mask-pii", &format!("pii_masked_{name}")).await, Some(count), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_types_pass_and_what_cannot_be_read_does_not() {
    let of =
        |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 16\r\n\r\n4111111111111111").into_bytes();
    for (fields, expected) in [
        ("Content-Type: image/png\r\n", Some("4111111111111111")),
        ("", Some("4111111111111111")),
        ("Content-Type: text/plain\r\n", Some("[card]")),
        ("Content-Type: application/problem+json\r\n", Some("0")),
        ("Content-Type: text/plain\r\nContent-Encoding: identity\r\n", Some("[card]")),
        ("Content-Type: text/plain\r\nContent-Encoding: gzip\r\n", None),
        ("Content-Type: text/plain\r\nContent-Range: bytes 0-15/30\r\n", None),
    ] {
        let upstream = Upstream::answering(of(fields)).await;
        let gateway = with(&upstream, "mask-pii", "{}").await;
        let response = gateway.get("/x").await;
        match expected {
            Some(body) => assert_eq!((response.status, response.text()), (200, body), "{fields}"),
            None => assert!(response.status == 502 && !response.text().contains("4111"), "{fields}"),
        }
    }
}

/// Nothing waits for the end, and nothing is too long.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_masked_on_their_way() {
    let gone = Arc::new(Notify::new());
    let upstream = Upstream::scripted({
        let gone = Arc::clone(&gone);
        move |mut conn| {
            let gone = Arc::clone(&gone);
            async move {
                while conn.request().await.is_some() {
                    let head =
                        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                    conn.send(format!("{head}1c\r\ndata: hello\n\ndata: 4111 1111\r\n")).await;
                    gone.notified().await;
                    conn.send("b\r\n 1111 1111\n\r\n0\r\n\r\n").await;
                }
            }
        }
    })
    .await;
    let gateway = with(&upstream, "mask-pii", "{}").await;
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response_head().await.unwrap().0, 200);
    let mut text = Vec::new();
    while text.len() < "data: hello\n\ndata: ".len() {
        text.extend(within("what is complete", client.0.chunk()).await.unwrap());
    }
    assert_eq!(String::from_utf8_lossy(&text), "data: hello\n\ndata: ", "the service has not sent the rest yet");
    gone.notify_one();
    loop {
        let chunk = within("the rest", client.0.chunk()).await.unwrap();
        if chunk.is_empty() {
            break;
        }
        text.extend(chunk);
    }
    assert_eq!(String::from_utf8_lossy(&text), "data: hello\n\ndata: [card]\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_is_too_long() {
    let line = "card 4111-1111-1111-1111 of jo@example.com\n";
    let long = line.repeat(100_000);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
    let upstream = Upstream::answering([head.as_bytes(), &chunked(long.as_bytes(), 777)].concat()).await;
    let gateway = start(&upstream, &[("mask-pii", file("mask-pii"), ", limits: { time: 1s }")]).await;
    let response = gateway.get("/x").await;
    assert!(response.body == "card [card] of [email]\n".repeat(100_000).as_bytes(), "{}", response.body.len());
    let upstream = Upstream::answering(answer(204, b"")).await;
    let gateway = with(&upstream, "mask-pii", "{}").await;
    assert_eq!(gateway.get("/x").await.status, 204);
}

/// What a plugin counted.
async fn counted(gateway: &Gateway, plugin: &str, name: &str) -> Option<f64> {
    let series = format!("tollgate_plugin_counter_total{{name=\"{name}\",plugin=\"{plugin}\"}}");
    gateway.scrape().await.get(&series)
}
