//! What streams: events as they happen, and bodies larger than the memory they may take.

use std::sync::Arc;

use http::Request;
use tokio::sync::{Notify, mpsc};

use crate::harness::{Gateway, Upstream, all_to, answer, within};

/// Far less than the bodies here, far more than buffers: an unoptimised build, and an allocator that gives little back.
const MORE_KIB_MAX: u64 = 64 * 1024;
const MIB: usize = 1024 * 1024;
const LARGE: usize = 256 * MIB;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A service of events: each is sent only when the test has said so, which it does when it has read the last one. Says when
/// its client has left.
async fn events(left: Arc<Notify>) -> (Upstream, mpsc::Sender<()>) {
    let (next, asked) = mpsc::channel(1);
    let asked = Arc::new(tokio::sync::Mutex::new(asked));
    let upstream = Upstream::scripted(move |mut conn| {
        let (asked, left) = (Arc::clone(&asked), Arc::clone(&left));
        async move {
            if conn.request().await.is_none() {
                return;
            }
            conn.send(HEAD).await;
            let mut asked = asked.lock().await;
            for number in 0_u32.. {
                tokio::select! {
                    Some(()) = asked.recv() => {}
                    () = conn.closed() => break,
                }
                let event = format!("id: {number}\ndata: x\n\n");
                conn.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
            }
            left.notify_one();
        }
    })
    .await;
    (upstream, next)
}

/// Through filters that look at answers.
fn filtered(upstream: &Upstream) -> String {
    let filters =
        "filters: [{ cors: { origins: [\"*\"] } }, security_headers, { headers: { response: { set: { X-A: b } } } }]";
    all_to(upstream).replace(", upstream: main", &format!(", {filters}, upstream: main"))
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one_and_a_client_that_leaves_is_noticed() {
    let left = Arc::new(Notify::new());
    let (upstream, next) = events(Arc::clone(&left)).await;
    let gateway = Gateway::start(&filtered(&upstream)).await;
    let mut client = gateway.client().await;
    client.send("GET /events HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\n\r\n").await;
    let (status, head) = client.response_head().await.unwrap();
    assert_eq!((status, head.get("x-a"), head.get("content-length")), (200, Some("b"), None));
    for number in 0..50 {
        next.send(()).await.unwrap();
        let event = within("an event", client.0.chunk()).await.unwrap();
        assert_eq!(event, format!("id: {number}\ndata: x\n\n").as_bytes());
    }
    drop(client);
    within("the service to notice", left.notified()).await;
    let h2 = gateway.h2().await;
    let request = Request::get("http://a.test/events").body(()).unwrap();
    let (response, _) = h2.0.clone().ready().await.unwrap().send_request(request, true).unwrap();
    let response = within("a head", response).await.unwrap();
    assert_eq!(response.headers()["x-a"], "b");
    let mut body = response.into_body();
    for number in 0..50 {
        next.send(()).await.unwrap();
        let event = within("an event", body.data()).await.unwrap().unwrap();
        body.flow_control().release_capacity(event.len()).unwrap();
        assert_eq!(event, format!("id: {number}\ndata: x\n\n"));
    }
    drop(body);
    within("the service to notice", left.notified()).await;
    assert_eq!(upstream.connections(), 2);
}

/// Events with more time between them than `idle` end; with less they do not.
#[tokio::test(flavor = "multi_thread")]
async fn silence_between_events_ends_them() {
    let (upstream, next) = events(Arc::new(Notify::new())).await;
    let yaml = crate::harness::routed(&upstream, "timeouts: { idle: 500ms }");
    let gateway = Gateway::start(&yaml).await;
    let mut client = gateway.client().await;
    client.send("GET /events HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response_head().await.unwrap().0, 200);
    next.send(()).await.unwrap();
    assert!(!within("an event", client.0.chunk()).await.unwrap().is_empty());
    assert!(within("the end", client.0.chunk()).await.is_err(), "cut off, so that nobody takes it for the whole");
}

/// Sends so many bytes as the body of an answer.
async fn sending() -> Upstream {
    Upstream::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
            let piece = vec![b'd'; MIB];
            for _ in 0..LARGE / MIB {
                if !conn.send(&piece).await {
                    return;
                }
            }
        }
    })
    .await
}

/// Counts the body of a request without keeping it, and answers with its length.
async fn counting() -> Upstream {
    Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.head().await {
            let mut count = 0;
            match request.framing {
                crate::harness::Framing::Length(length) => {
                    while count < length {
                        if conn.wire.buffer.is_empty() && !conn.wire.fill().await {
                            return;
                        }
                        count += conn.wire.buffer.split().len();
                    }
                }
                _ => loop {
                    let Ok(chunk) = conn.wire.chunk().await else { return };
                    count += chunk.len();
                    if chunk.is_empty() {
                        let _ = conn.wire.fields().await;
                        break;
                    }
                },
            }
            conn.send(answer(200, count.to_string().as_bytes())).await;
        }
    })
    .await
}

async fn start(upstream: &Upstream) -> (Gateway, u64) {
    let yaml = all_to(upstream).replace(", upstream: main", ", body_max: 1GiB, upstream: main");
    let gateway = Gateway::start(&yaml).await;
    let before = gateway.memory_kib("VmHWM");
    (gateway, before)
}

fn stays_small(gateway: &Gateway, before: u64) {
    let more = gateway.memory_kib("VmHWM").saturating_sub(before);
    eprintln!("{more} KiB more");
    assert!(more < MORE_KIB_MAX, "{more} KiB more for 256 MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_downloads_take_constant_memory() {
    let upstream = sending().await;
    let (gateway, before) = start(&upstream).await;
    let mut client = gateway.client().await;
    client.send("GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response_head().await.unwrap().0, 200);
    let mut count = 0;
    while count < LARGE {
        if client.0.buffer.is_empty() {
            assert!(within("more", client.0.fill()).await, "cut off after {count}");
        }
        count += client.0.buffer.split().len();
    }
    assert_eq!(count, LARGE);
    let mut ready = gateway.h2().await.0.ready().await.unwrap();
    let request = Request::get("http://a.test/large").body(()).unwrap();
    let mut body = within("a head", ready.send_request(request, true).unwrap().0).await.unwrap().into_body();
    let mut count = 0;
    while let Some(data) = within("more", body.data()).await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        count += data.len();
    }
    assert_eq!(count, LARGE);
    stays_small(&gateway, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_uploads_take_constant_memory() {
    let upstream = counting().await;
    let (gateway, before) = start(&upstream).await;
    let mut client = gateway.client().await;
    client.send(format!("POST /large HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LARGE}\r\n\r\n")).await;
    let piece = vec![b'u'; MIB];
    for _ in 0..LARGE / MIB {
        assert!(client.send(&piece).await);
    }
    assert_eq!(client.response().await.text(), LARGE.to_string());
    let response = gateway.h2().await.post("/large", vec![b'u'; LARGE]).await;
    assert_eq!(String::from_utf8(response.body).unwrap(), LARGE.to_string());
    stays_small(&gateway, before);
}

/// Clients that ask for much and read nothing: the service is held back, not the memory filled.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_fills_no_memory() {
    let upstream = sending().await;
    let (gateway, before) = start(&upstream).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = gateway.client().await;
        client.send("GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        clients.push(client);
    }
    upstream.received(20).await;
    for client in &mut clients {
        assert_eq!(client.response_head().await.unwrap().0, 200);
    }
    // What can be on its way by now is.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    stays_small(&gateway, before);
}
