//! Clients that make work and bring nothing: they are cut off, or bounded, and others notice nothing.

use std::collections::HashSet;
use std::time::Duration;

use super::frames::*;
use crate::harness::{Gateway, Upstream, all_to, within};

/// What a flood may leave behind in memory. In an unoptimised build with its allocator's slack, far below what unbounded ones take.
const MORE_KIB_MAX: u64 = 64 * 1024;

/// Sends `bytes` again and again, reading nothing, until it is cut off or has sent `most` times. Meanwhile another client is served.
async fn flood(gateway: &Gateway, begin: Vec<u8>, mut next: impl FnMut(u32) -> Vec<u8>, most: u32) -> Option<u32> {
    let other = gateway.h2().await;
    assert_eq!(other.get("/x").await.status, 200);
    let before = gateway.memory_kib("VmRSS");
    let mut raw = Raw::open(gateway).await;
    raw.send(begin).await;
    let (mut read, mut write) = raw.0.into_split();
    // A gateway that answers must not be stopped by answers nobody reads.
    let reading = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    let mut cut = None;
    for number in 0..most {
        let sent = within("room to send", tokio::io::AsyncWriteExt::write_all(&mut write, &next(number))).await;
        if sent.is_err() || reading.is_finished() {
            cut = Some(number);
            break;
        }
        if number % 1000 == 0 {
            assert_eq!(other.get("/x").await.status, 200, "another client is served meanwhile");
        }
    }
    assert_eq!(other.get("/x").await.status, 200);
    let more = gateway.memory_kib("VmRSS").saturating_sub(before);
    assert!(more < MORE_KIB_MAX, "{more} KiB more");
    assert_eq!(gateway.get("/x").await.status, 200);
    cut
}

async fn start() -> (Upstream, Gateway) {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&[&all_to(&upstream), "admin: { bind: 127.0.0.1:0 }\n"].concat()).await;
    (upstream, gateway)
}

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_are_cut_off() {
    // A service that never answers: the worst case.
    let upstream = Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if request.target != "/slow" {
                conn.send(crate::harness::answer(200, b"ok")).await;
            }
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    for path in ["/x", "/slow"] {
        let head =
            [field(":method", "GET"), field(":scheme", "http"), field(":path", path), field(":authority", "a.test")]
                .concat();
        let reset = |number: u32| {
            let stream = number * 2 + 1;
            [frame(HEADERS, 5, stream, &head), frame(RST_STREAM, 0, stream, [0, 0, 0, 8])].concat()
        };
        let cut = flood(&gateway, Vec::new(), reset, 200_000).await;
        assert!(cut.is_some(), "{path}: 200,000 requests were begun for nothing");
    }
}

/// CVE-2024-27316: a head without end.
#[tokio::test(flavor = "multi_thread")]
async fn endless_heads_are_cut_off() {
    let (_upstream, gateway) = start().await;
    let begin = frame(HEADERS, END_STREAM, 1, request("GET"));
    let with_fields = |_| frame(CONTINUATION, 0, 1, field("x-a", &"a".repeat(8000)));
    assert!(flood(&gateway, begin.clone(), with_fields, 100_000).await.is_some());
    assert!(flood(&gateway, begin, |_| frame(CONTINUATION, 0, 1, []), 1_000_000).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_bring_nothing_are_cut_off() {
    let (_upstream, gateway) = start().await;
    for (what, begin, bytes) in [
        ("SETTINGS", Vec::new(), frame(SETTINGS, 0, 0, [])),
        ("PING", Vec::new(), frame(PING, 0, 0, [1; 8])),
        ("PING, answers", Vec::new(), frame(PING, ACK, 0, [1; 8])),
        ("PRIORITY", Vec::new(), frame(PRIORITY, 0, 3, [0, 0, 0, 0, 9])),
        ("frames nobody knows", Vec::new(), frame(0x77, 0, 0, [])),
        ("WINDOW_UPDATE", Vec::new(), frame(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1])),
        ("empty DATA", post(1), frame(DATA, 0, 1, [])),
        ("padding", post(1), frame(DATA, PADDED, 1, [0])),
    ] {
        let many = bytes.repeat(20);
        let cut = flood(&gateway, begin, |_| many.clone(), 100_000).await;
        // Padding is part of a body: it is bounded as one, by its window and its time.
        assert!(cut.is_some() || what == "padding", "{what}: two million frames");
    }
    let metrics = gateway.ask_admin("GET /metrics").await;
    let counted = metrics.text().lines().find(|line| line.contains("h2_flood")).map(str::to_owned);
    assert!(counted.is_some_and(|line| !line.ends_with(" 0")), "{}", metrics.text());
}

/// CVE-2025-8671: the client has the server reset its streams.
#[tokio::test(flavor = "multi_thread")]
async fn resets_that_are_asked_for_by_breaking_rules_are_cut_off() {
    let (_upstream, gateway) = start().await;
    for (what, bad) in [
        (
            "a window of 0",
            Box::new(|stream| frame(WINDOW_UPDATE, 0, stream, [0; 4])) as Box<dyn Fn(u32) -> Vec<u8> + Send>,
        ),
        ("a window that is too large", Box::new(|stream| frame(WINDOW_UPDATE, 0, stream, [0x7f, 255, 255, 255]))),
        ("data behind the end", Box::new(|stream| frame(DATA, END_STREAM, stream, b"x"))),
    ] {
        let next = |number: u32| {
            let stream = number * 2 + 1;
            [get(stream), bad(stream)].concat()
        };
        assert!(flood(&gateway, Vec::new(), next, 100_000).await.is_some(), "{what}");
    }
}

/// A small block that becomes a large head: refused, and the next one too.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_swells_is_refused() {
    let (upstream, gateway) = start().await;
    let mut raw = Raw::open(&gateway).await;
    // Into the table (RFC 7541 §6.2.1), then 16,000 times out of it: 64 MB of fields from 20 KB.
    let large = [&[0x40, 3][..], b"x-a", &[0x7f, 0xa1, 0x1e], &[b'a'; 4000]].concat();
    let block = [request("GET"), large, vec![0xbe; 12_000]].concat();
    raw.send(frame(HEADERS, 5, 1, block)).await;
    let did = raw.did(1, false).await;
    assert!(!matches!(did, Did::Answered(0x88)), "{did:x?}");
    assert!(upstream.requests().is_empty());
    assert_eq!(gateway.get("/x").await.status, 200);
}

/// Answers that nobody takes: what is held of them is bounded, and ends.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_hold_little() {
    let upstream = Upstream::answering(crate::harness::answer(200, &vec![b'x'; 8 << 20])).await;
    let yaml = format!("limits: {{ body_timeout: 2s }}\n{}", all_to(&upstream));
    let gateway = Gateway::start(&yaml).await;
    let before = gateway.memory_kib("VmRSS");
    let mut raw = Raw::open(&gateway).await;
    // Windows of nothing.
    raw.send(frame(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0])).await;
    let mut held: HashSet<u32> = (1..100).step_by(2).collect();
    for stream in (1..100).step_by(2) {
        raw.send(get(stream)).await;
    }
    upstream.received(10).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let more = gateway.memory_kib("VmRSS").saturating_sub(before);
    assert!(more < MORE_KIB_MAX, "{more} KiB for 400 MiB of answers");
    // Each by itself after `body_timeout`; the connection goes on until it is idle for too long.
    while !held.is_empty() {
        let frame = raw.frame().await.expect("a connection");
        if frame.kind == RST_STREAM {
            held.remove(&frame.stream);
        }
    }
    assert_eq!(gateway.h2().await.get("/x").await.body.len(), 8 << 20);
}
