//! However a webhook comes: in chunks, byte by byte, when it is asked for, over HTTP/2, slowly, or not to its end.

use std::time::Duration;

use http::Request;

use super::*;
use crate::harness::{Client, chunked};

/// The most that the filter takes.
const MAX: usize = 200 * 1024;
/// What the engine could send on by itself.
const OWN: usize = 64 * 1024;
const SIZES: [usize; 5] = [2, OWN - 1, OWN, OWN + 1, MAX];

/// A body that no other number has: the same one would be known.
fn body(size: usize, number: u8) -> Vec<u8> {
    noise(size).into_iter().map(|byte| byte.wrapping_add(number)).collect()
}

fn head(lines: &str) -> String {
    format!("POST /hooks/github HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n")
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn arrived(response: &Response, upstream: &Upstream, body: &[u8], what: &str) {
    assert_eq!((response.status, response.body == body), (200, true), "{what}: {}", response.status);
    assert!(upstream.last().body == body, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_chunks_of_any_size() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let mut client = gateway.client().await;
    for size in SIZES {
        for (number, piece) in [(1, 1000), (2, OWN), (3, MAX)] {
            let body = body(size, number);
            let head = head(&(by_github(&body) + CHUNKED));
            client.send([head.as_bytes(), &chunked(&body, piece)].concat()).await;
            arrived(&client.response().await, &upstream, &body, &format!("{size} in chunks of {piece}"));
        }
    }
    let before = upstream.requests().len();
    let mut forged = body(MAX, 4);
    let genuine = by_github(&forged);
    forged[MAX - 1] ^= 1;
    client.send([head(&(genuine + CHUNKED)).as_bytes(), &chunked(&forged, 10_000)].concat()).await;
    client.response().await.refused(401, "SIGNATURE_INVALID");
    let large = body(MAX + 1, 5);
    client.send([head(&(by_github(&large) + CHUNKED)).as_bytes(), &chunked(&large, 10_000)].concat()).await;
    client.response().await.refused(413, "BODY_TOO_LARGE");
    assert_eq!(upstream.requests().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn byte_by_byte() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let body = body(200, 0);
    let mut forged = body.clone();
    forged[199] ^= 1;
    for framing in ["Content-Length: 200\r\n", CHUNKED] {
        for (sent, status) in [(&forged, 401), (&body, 200)] {
            let mut client = gateway.client().await;
            client.send(head(&(by_github(&body) + framing))).await;
            let bytes = if framing == CHUNKED { chunked(sent, 7) } else { sent.clone() };
            for byte in bytes {
                client.send([byte]).await;
            }
            assert_eq!(client.response().await.status, status, "{framing}");
        }
    }
    assert!(upstream.only().body == body, "the second time it is known");
}

/// Whoever asks before sending is not asked for what would be refused anyway.
#[tokio::test(flavor = "multi_thread")]
async fn when_it_is_asked_for() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    for (number, size) in SIZES.into_iter().enumerate() {
        let body = body(size, u8::try_from(number).unwrap());
        let mut client = gateway.client().await;
        let lines = format!("{}Content-Length: {size}\r\nExpect: 100-continue\r\n", by_github(&body));
        client.send(head(&lines)).await;
        assert_eq!(client.try_response(false).await.unwrap().status, 100, "{size}");
        client.send(&body).await;
        arrived(&client.response().await, &upstream, &body, &size.to_string());
        assert!(!upstream.last().head.has("expect"), "{size}");
    }
    let before = upstream.requests().len();
    let length = format!("Content-Length: {MAX}\r\nExpect: 100-continue\r\n");
    let mut client = gateway.client().await;
    client.send(head(&length)).await;
    client.response().await.refused(401, "SIGNATURE_MISSING");
    let large = format!("{}Content-Length: {}\r\nExpect: 100-continue\r\n", by_github(b"x"), MAX + 1);
    let mut client = gateway.client().await;
    client.send(head(&large)).await;
    client.response().await.refused(413, "BODY_TOO_LARGE");
    // Asked for, and then another one than was signed.
    let mut client = gateway.client().await;
    client.send(head(&(by_github(b"x") + &length))).await;
    assert_eq!(client.try_response(false).await.unwrap().status, 100);
    client.send(body(MAX, 9)).await;
    client.response().await.refused(401, "SIGNATURE_INVALID");
    assert_eq!(upstream.requests().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_2() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let client = gateway.h2().await;
    let request = |signed: &[u8], length: Option<usize>| {
        let signature = format!("sha256={}", super::signed(SECRET, &[signed]));
        let request = Request::post("http://a.test/hooks/github").header("x-hub-signature-256", signature);
        let request = length.into_iter().fold(request, |request, length| request.header("content-length", length));
        request.body(()).unwrap()
    };
    for size in SIZES {
        for (number, length) in [(1, None), (2, Some(size))] {
            let body = body(size, number);
            let response = client.ask(request(&body, length), body.clone()).await.unwrap();
            assert_eq!((response.status.as_u16(), response.body == body), (200, true), "{size} {length:?}");
            assert!(upstream.last().body == body, "{size} {length:?}");
        }
    }
    let before = upstream.requests().len();
    for size in SIZES {
        let body = body(size, 3);
        let mut forged = body.clone();
        forged[size / 2] ^= 0x10;
        client.ask(request(&body, None), forged).await.unwrap().refused(401, "SIGNATURE_INVALID");
    }
    let large = body(MAX + 1, 4);
    client.ask(request(&large, None), large.clone()).await.unwrap().refused(413, "BODY_TOO_LARGE");
    let bare = Request::post("http://a.test/hooks/github").body(()).unwrap();
    client.ask(bare, body(OWN, 5)).await.unwrap().refused(401, "SIGNATURE_MISSING");
    assert_eq!(upstream.requests().len(), before);
}

/// Of half a message nothing arrives, and it is not known afterwards: whole, it passes.
#[tokio::test(flavor = "multi_thread")]
async fn not_to_its_end() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let body = body(MAX, 0);
    let length = format!("Content-Length: {MAX}\r\n");
    for sent in [0, 1, OWN + 1, MAX - 1] {
        for (framing, bytes) in [(&*length, body.clone()), (CHUNKED, chunked(&body, 10_000))] {
            for reset in [false, true] {
                let mut client = gateway.client().await;
                client.send(head(&(by_github(&body) + framing))).await;
                client.send(&bytes[..sent]).await;
                if reset { client.0.reset() } else { drop(client) }
            }
        }
    }
    gateway.counts(&[("tollgate_requests_in_flight{route=\"hooks\"}", 0.0)]).await;
    assert_eq!(upstream.connections(), 0);
    let response = post(&gateway, "github", &by_github(&body), &body).await;
    arrived(&response, &upstream, &body, "whole");
}

/// Strangers who write a signature of the right form and never end their body take no more than there is to take.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_that_are_slow_take_bounded_memory() {
    const UPLOADS: usize = 200;
    const SENT: usize = 100_000;
    const BOUND_MIB: usize = 8;
    let upstream = Upstream::echo().await;
    let limits = format!("limits: {{ body_memory_max: {BOUND_MIB}MiB, body_timeout: 10m }}\n");
    let gateway = gateway_with(&upstream, &limits).await;
    let stranger = head(&format!("{}Content-Length: {MAX}\r\n", by_github(b"something else")));
    let bytes = [stranger.as_bytes(), &body(SENT, 0)].concat();
    let before = gateway.memory_kib("VmRSS");
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..UPLOADS {
        let mut client = gateway.client().await;
        client.send(&bytes).await;
        clients.push(client);
    }
    // Those that have no room are told at once; those that have are waited for.
    let refused = async {
        loop {
            let told = "tollgate_refused_total{code=\"OVERLOADED\",route=\"hooks\"}";
            let refused = gateway.scrape().await.get(told).unwrap_or_default() as usize;
            if UPLOADS - refused <= BOUND_MIB * 1024 * 1024 / SENT {
                break refused;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let held = UPLOADS - crate::harness::within("refusals", refused).await;
    let most = gateway.memory_kib("VmHWM");
    eprintln!("{UPLOADS} slow webhooks, {held} held: {before} KiB before, {most} KiB at most");
    assert!(held > 0 && most - before < (BOUND_MIB as u64 + 80) * 1024, "{held} held, {before} before, {most} at most");
    assert_eq!(upstream.connections(), 0);
    clients.clear();
    gateway.counts(&[("tollgate_body_memory_bytes", 0.0)]).await;
    let body = body(MAX, 1);
    let response = post(&gateway, "github", &by_github(&body), &body).await;
    arrived(&response, &upstream, &body, "afterwards");
}
