//! Under load, over and over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::SinkExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;

use super::{Line, install};
use crate::harness::{Client, H2Client, Upstream, answer, within};
use crate::websocket;

const UPGRADES: usize = 6;

/// Answers `/slow` in two halves, the second one when told to.
async fn halves() -> (Upstream, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let upstream = Upstream::scripted(move |mut conn| {
        let told = Arc::clone(&told);
        async move {
            while let Some(request) = conn.request().await {
                if request.target == "/slow" {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
                    told.notified().await;
                    conn.send("half").await;
                } else {
                    conn.send(answer(200, &request.body)).await;
                }
            }
        }
    })
    .await;
    (upstream, go)
}

/// What clients came to.
#[derive(Default)]
struct Tally {
    done: AtomicUsize,
    /// Connections that ended while they were idle: the request was sent again, as RFC 9112 §9.3.1 has it.
    again: AtomicUsize,
    over: AtomicBool,
}

impl Tally {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn one_more(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// One connection for each request.
async fn come_anew(address: SocketAddr, tally: Arc<Tally>) {
    while !tally.is_over() {
        let mut client = Client::connect(address).await;
        client.send("POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody").await;
        assert_eq!(client.response().await.text(), "body");
        tally.one_more();
    }
}

/// One connection for as long as the gateway keeps it. What it has announced to close is not used again.
async fn stay(address: SocketAddr, tally: Arc<Tally>) {
    while !tally.is_over() {
        let mut client = Client::connect(address).await;
        for number in 0.. {
            let sent = client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
            match client.try_response(false).await {
                Ok(response) => {
                    assert_eq!(response.status, 200);
                    tally.one_more();
                    if tally.is_over() || response.head.get("connection") == Some("close") {
                        break;
                    }
                }
                Err(error) => {
                    assert!(number > 0, "the first request of a connection: {error:?}, {sent}");
                    tally.again.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
    }
}

/// A message every now and then, on one connection of HTTP/2 after the other.
async fn stay_with_h2(address: SocketAddr, tally: Arc<Tally>) {
    while !tally.is_over() {
        let client = H2Client::connect(address).await;
        for number in 0.. {
            match client.ask(http::Request::get("http://a.test/x").body(()).unwrap(), Vec::new()).await {
                Ok(response) => {
                    assert_eq!(response.status, 200);
                    tally.one_more();
                }
                // Told to go: what was not taken may be sent again (RFC 9113 §6.8).
                Err(error) => {
                    assert!(number > 0, "the first request of a connection: {error:?}");
                    tally.again.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
            if tally.is_over() {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_upgrades() {
    let (upstream, go) = halves().await;
    let sockets = websocket::echo().await;
    let (main, chat) = (upstream.address, sockets.address);
    let mut line = Line::start(&format!(
        "upstreams:\n  main: {{ targets: [{{ address: \"{main}\" }}] }}\n  chat: {{ targets: [{{ address: \"{chat}\" }}] }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n  - {{ name: chat, match: /chat, upstream: chat }}\n"
    ))
    .await;
    let address = line.gateway.address;
    let tally = Arc::new(Tally::default());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..3 {
        clients.spawn(come_anew(address, Arc::clone(&tally)));
        clients.spawn(stay(address, Arc::clone(&tally)));
    }
    clients.spawn(stay_with_h2(address, Arc::clone(&tally)));
    for round in 1..=UPGRADES {
        let mut upload = Client::connect(address).await;
        upload.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf").await;
        let mut slow = Client::connect(address).await;
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(slow.response_head().await.unwrap().0, 200);
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) =
            within("a handshake", tokio_tungstenite::client_async("ws://a.test/chat", stream)).await.unwrap();
        let before = tally.done.load(Ordering::Relaxed);
        install(&line.program);
        line.upgrade().await;
        // What the old one has begun it ends.
        upload.send("half").await;
        assert_eq!(upload.response().await.text(), "halfhalf");
        go.notify_one();
        assert_eq!(within("the body", slow.0.exactly(8)).await.unwrap(), b"halfhalf");
        socket.send(Message::text("still there")).await.unwrap();
        assert_eq!(websocket::next(&mut socket).await, Message::text("still there"));
        drop(socket);
        within("the load goes on", async {
            while tally.done.load(Ordering::Relaxed) < before + 50 {
                assert!(clients.try_join_next().is_none(), "a client has ended");
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(line.gateway.scrape().await.get("tollgate_generation"), Some(round as f64));
    }
    tally.over.store(true, Ordering::Relaxed);
    while let Some(client) = within("the clients", clients.join_next()).await {
        client.unwrap();
    }
    let (done, again) = (tally.done.load(Ordering::Relaxed), tally.again.load(Ordering::Relaxed));
    println!("{done} requests over {UPGRADES} upgrades: 0 failed, {again} sent again on a connection that was idle");
    assert!(done > 50 * UPGRADES);
    assert!(again <= UPGRADES, "only the client of HTTP/2, whose connection is told to go: {again}");
    line.stop().await;
}
