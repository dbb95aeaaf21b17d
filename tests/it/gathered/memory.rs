//! The memory that all gathered bodies may take.

use std::time::Duration;

use super::{MAX, hash, head, settled, to};
use crate::harness::{Client, Gateway, Response, Upstream, noise};

const UPLOADS: usize = 200;

async fn bounded(upstream: &Upstream, max: &str) -> Gateway {
    Gateway::start(&format!("limits: {{ body_memory_max: {max}, body_timeout: 1m }}\n{}", to(upstream))).await
}

/// Begins as many uploads at once; each has sent `sent` bytes of a megabyte and stays.
async fn begin(gateway: &Gateway, body: &[u8], sent: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..UPLOADS {
        let mut client = gateway.client().await;
        client.send([head("/x", &format!("Content-Length: {MAX}")).as_bytes(), &body[..sent]].concat()).await;
        clients.push(client);
    }
    clients
}

fn overloaded(response: &Response) {
    response.refused(503, "OVERLOADED");
    assert_eq!(response.head.get("retry-after"), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_bound_bodies_are_refused_and_others_are_not() {
    let upstream = Upstream::echo().await;
    let gateway = bounded(&upstream, "16MiB").await;
    let body = noise(MAX);
    let before = gateway.memory_kib("VmRSS");
    let mut clients = begin(&gateway, &body, 300_000).await;
    // Those that have no room are told at once, those that have are waited for.
    let told = "tollgate_refused_total{code=\"OVERLOADED\",route=\"all\"}";
    let refused = loop {
        let refused = gateway.scrape().await.get(told).unwrap_or_default() as usize;
        // A body of 300,000 bytes takes up to twice that.
        if UPLOADS - refused <= 16 * MAX / 300_000 {
            break refused;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let held = UPLOADS - refused;
    let shown = gateway.scrape().await.get("tollgate_body_memory_bytes").unwrap();
    assert!(shown >= (held * 300_000) as f64 && shown <= (16 * MAX) as f64, "{shown} bytes of {held}");
    assert!(held >= 16 * MAX / 600_000 / 2, "{held} are held");
    // Whoever needs no such memory is served.
    for _ in 0..20 {
        assert_eq!(gateway.post("/plain", b"plain").await.body, b"plain");
        assert_eq!(gateway.get("/x").await.status, 200);
    }
    let after = gateway.memory_kib("VmHWM");
    eprintln!("{UPLOADS} uploads, {held} held: {before} KiB before, {after} KiB at most");
    assert!(after - before < 16 * 1024 + 80 * 1024, "{before} KiB before, {after} KiB at most");
    // When the bodies are gone there is room again.
    clients.clear();
    settled(&gateway, "all").await;
    assert_eq!(gateway.scrape().await.get("tollgate_body_memory_bytes"), Some(0.0));
    for _ in 0..3 {
        assert_eq!(hash(&gateway.post("/x", &body).await.body), hash(&body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_completes_while_the_rest_is_refused() {
    let upstream = Upstream::echo().await;
    let gateway = bounded(&upstream, "8MiB").await;
    let body = noise(MAX);
    let mut uploads = Vec::new();
    for client in begin(&gateway, &body, MAX / 2).await {
        let rest = body[MAX / 2..].to_vec();
        uploads.push(tokio::spawn(async move {
            let mut client = client;
            client.send(&rest).await;
            client.response().await
        }));
    }
    let mut passed = 0;
    for upload in uploads {
        let response = upload.await.unwrap();
        if response.status == 200 {
            assert_eq!(hash(&response.body), hash(&body));
            passed += 1;
        } else {
            overloaded(&response);
        }
    }
    assert!(passed > 0);
    assert_eq!(upstream.requests().len(), passed);
    assert!(upstream.requests().iter().all(|request| hash(&request.body) == hash(&body)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_alone_takes_no_memory() {
    let upstream = Upstream::echo().await;
    let gateway = bounded(&upstream, "1MiB").await;
    let body = noise(MAX);
    // 200 MiB are announced, 2,000 bytes are there.
    let clients = begin(&gateway, &body, 10).await;
    gateway.counts(&[("tollgate_requests_in_flight{route=\"all\"}", UPLOADS as f64)]).await;
    let most = noise(MAX - 10 * UPLOADS);
    let response = gateway.post("/x", &most[..MAX / 2]).await;
    assert_eq!(hash(&response.body), hash(&most[..MAX / 2]));
    drop(clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_let_go_of_when_the_answer_has_begun() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if request.target == "/stream" {
                conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
                conn.closed().await;
                return;
            }
            conn.send(crate::harness::answer(200, &request.body)).await;
        }
    })
    .await;
    let gateway = bounded(&upstream, "1MiB").await;
    let body = noise(MAX);
    let mut listening = Vec::new();
    let mut refused = 0;
    while listening.len() < 3 {
        let mut client = gateway.client().await;
        client.send([head("/stream", &format!("Content-Length: {MAX}")).as_bytes(), &body].concat()).await;
        if client.response_head().await.unwrap().0 == 200 {
            assert_eq!(client.0.chunk().await.unwrap(), b"abc");
            listening.push(client);
        } else {
            // It is let go of right behind the beginning of the answer, which may have been here before.
            refused += 1;
            assert!(refused < 1000, "{} are listening", listening.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_more_than_the_memory_there_is_is_refused() {
    let upstream = Upstream::echo().await;
    let yaml = to(&upstream).replace("body_max: 2MiB", "body_max: 4MiB").replace("body_max: 1MiB", "body_max: 4MiB");
    let gateway = Gateway::start(&format!("limits: {{ body_memory_max: 1MiB }}\n{yaml}")).await;
    let mut client = gateway.client().await;
    let body = noise(MAX + 1);
    let response = client.post("/x", &body[..MAX]).await;
    assert_eq!(hash(&response.body), hash(&body[..MAX]));
    overloaded(&client.post("/x", &body).await);
    let mut client = gateway.client().await;
    overloaded(&client.post("/x", &noise(4 * MAX)).await);
    client.closed().await;
}

/// Bodies grow side by side, which is the worst: what one of them does not need any more fits none of the others.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_grow_together_keep_to_the_bound() {
    const BOUND_MIB: usize = 32;
    const PIECE: usize = 16 * 1024;
    let (open, opened) = tokio::sync::watch::channel(false);
    let upstream = Upstream::scripted(move |mut conn| {
        let mut opened = opened.clone();
        async move {
            while conn.request().await.is_some() && opened.wait_for(|open| *open).await.is_ok() {
                conn.send(crate::harness::answer(200, b"")).await;
            }
        }
    })
    .await;
    let gateway = bounded(&upstream, &format!("{BOUND_MIB}MiB")).await;
    let body = noise(MAX);
    let mut clients = begin(&gateway, &body, 0).await;
    gateway.counts(&[("tollgate_requests_in_flight{route=\"all\"}", UPLOADS as f64)]).await;
    let before = gateway.memory_kib("VmRSS");
    for piece in body[..MAX - 1].chunks(PIECE) {
        for client in &mut clients {
            // Of those that are refused some are closed by now.
            client.send(piece).await;
        }
    }
    let told = "tollgate_refused_total{code=\"OVERLOADED\",route=\"all\"}";
    while gateway.scrape().await.get(told).unwrap_or_default() < (UPLOADS - BOUND_MIB) as f64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let most = gateway.memory_kib("VmHWM");
    eprintln!("memory: {UPLOADS} uploads: {before} KiB before, {most} KiB at most");
    // What the allocator keeps and what the connections take differs from run to run; 200 MiB is what it would be.
    let bound = BOUND_MIB as u64 * 1024;
    assert!(most - before < bound * 2, "{before} KiB before, {most} KiB at most");
    // The last byte of each: those that are whole are put together and sent on, to a service that takes its time.
    for client in &mut clients {
        client.send(&body[MAX - 1..]).await;
    }
    let refused = loop {
        let refused = gateway.scrape().await.get(told).unwrap_or_default() as usize;
        if refused + upstream.requests().len() == UPLOADS {
            break refused;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let whole = gateway.memory_kib("VmHWM");
    eprintln!("memory: {refused} refused, {whole} KiB at most with all others whole");
    assert!(whole - before < bound * 4, "{before} KiB before, {whole} KiB at most");
    assert!(upstream.requests().iter().all(|request| hash(&request.body) == hash(&body)));
    open.send_replace(true);
    let mut passed = 0;
    for client in &mut clients {
        passed += usize::from(client.try_response(false).await.is_ok_and(|response| response.status == 200));
    }
    assert_eq!(passed, UPLOADS - refused);
    assert!(passed > 0 && passed <= BOUND_MIB);
}
