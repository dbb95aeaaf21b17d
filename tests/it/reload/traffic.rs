//! Traffic that is under way while the configuration changes.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, client_async};

use super::{forwards, gateway, says};
use crate::harness::{Upstream, answer, within};

/// Answers with the length of the body; says when a head has come.
async fn counting() -> (Upstream, Arc<Notify>) {
    let begun = Arc::new(Notify::new());
    let tell = Arc::clone(&begun);
    let upstream = Upstream::scripted(move |mut conn| {
        let tell = Arc::clone(&tell);
        async move {
            while let Some(mut request) = conn.head().await {
                tell.notify_one();
                let Some(body) = conn.body(request.framing).await else { return };
                request.body = body.bytes;
                conn.record(&request);
                conn.send(answer(200, request.body.len().to_string().as_bytes())).await;
            }
        }
    })
    .await;
    (upstream, begun)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_keeps_its_route_and_its_limit() {
    let (upstream, begun) = counting().await;
    let gateway =
        gateway(&forwards("a", upstream.address).replace("upstream: a }", "upstream: a, body_max: 100KiB }")).await;
    let mut client = gateway.client().await;
    for change in ["body_max", "removed"] {
        client.send("POST /a/upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n").await;
        client.send([b"x".repeat(1024), b"\r\n".to_vec()].concat()).await;
        within("the head at the upstream", begun.notified()).await;
        match change {
            "body_max" => {
                let small = forwards("a", upstream.address).replace("upstream: a }", "upstream: a, body_max: 1KiB }");
                gateway.folder.write("routes.d/main.yaml", &small);
            }
            _ => gateway.folder.write("routes.d/main.yaml", &says("other", "here")),
        }
        gateway.reload_well().await;
        match change {
            "body_max" => gateway.post("/a/upload", &[b'x'; 1025]).await.refused(413, "BODY_TOO_LARGE"),
            _ => gateway.post("/a/upload", b"x").await.refused(404, "NOT_FOUND"),
        };
        let rest = if change == "body_max" { 50 } else { 0 };
        for _ in 0..rest {
            client.send([b"400\r\n".to_vec(), b"x".repeat(1024), b"\r\n".to_vec()].concat()).await;
        }
        client.send("0\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, &*((1 + rest) * 1024).to_string()), "{change}");
    }
    client.get("/a/upload").await.refused(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_stays_open() {
    let upstream = Upstream::scripted(|conn| async move {
        let Ok(mut socket) = accept_async(conn.into_stream()).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await;
    let gateway = gateway(&forwards("a", upstream.address)).await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut socket, _) = within("a handshake", client_async("ws://a.test/a/chat", stream)).await.unwrap();
    for round in 0..5 {
        // At last even its route and its upstream go.
        let other = says("other", &round.to_string());
        let text = if round < 4 { forwards("a", upstream.address) } else { other.clone() };
        gateway.folder.write("routes.d/main.yaml", &text);
        gateway.folder.write("routes.d/more.yaml", if round < 4 { &other } else { "routes: []\n" });
        gateway.reload_well().await;
        let message = Message::text(format!("round {round}"));
        socket.send(message.clone()).await.unwrap();
        assert_eq!(within("an echo", socket.next()).await.unwrap().unwrap(), message);
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_did_not_change_keeps_its_connection() {
    let [same, old, new] = [Upstream::echo().await, Upstream::echo().await, Upstream::echo().await];
    let gateway = gateway(&forwards("same", same.address)).await;
    gateway.folder.write("routes.d/moving.yaml", &forwards("moving", old.address));
    gateway.reload_well().await;
    // One connection, so one worker with one pool.
    let mut client = gateway.client().await;
    for round in 1..=3 {
        assert_eq!(client.get("/same/x").await.status, 200);
        assert_eq!(client.get("/moving/x").await.status, 200);
        if round == 2 {
            gateway.folder.write("routes.d/moving.yaml", &forwards("moving", new.address));
        }
        gateway.reload_well().await;
    }
    assert_eq!((same.requests().len(), same.connections()), (3, 1));
    assert_eq!((old.requests().len(), old.connections()), (2, 1), "it is sent nothing after the change");
    assert_eq!((new.requests().len(), new.connections()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_ends_where_it_began() {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let old = Upstream::scripted(move |mut conn| {
        let told = Arc::clone(&told);
        async move {
            while conn.request().await.is_some() {
                told.notified().await;
                conn.send(answer(200, b"old")).await;
            }
        }
    })
    .await;
    let new = Upstream::answering(answer(200, b"new")).await;
    let gateway = gateway(&forwards("a", old.address)).await;
    let mut client = gateway.client().await;
    client.send("GET /a/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    old.received(1).await;
    gateway.folder.write("routes.d/main.yaml", &forwards("a", new.address));
    gateway.reload_well().await;
    assert_eq!(gateway.get("/a/x").await.text(), "new");
    go.notify_one();
    assert_eq!(client.response().await.text(), "old");
    assert_eq!(client.get("/a/x").await.text(), "new");
}
