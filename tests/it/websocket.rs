//! WebSockets through the gateway.

mod load;
mod refused;

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::harness::{Gateway, Upstream, all_to, answer, noise, within};

pub type Socket = WebSocketStream<TcpStream>;

/// Sends back every message.
pub async fn echo() -> Upstream {
    Upstream::scripted(|conn| async move {
        let Ok(mut socket) = accept_async(conn.into_stream()).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

pub async fn connect(gateway: &Gateway, path: &str) -> Result<Socket, Error> {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let url = format!("ws://a.test{path}");
    within("a handshake", client_async(url, stream)).await.map(|(socket, _)| socket)
}

pub async fn next(socket: &mut Socket) -> Message {
    within("a message", socket.next()).await.expect("a message").expect("a message")
}

/// What the gateway says when it ends a socket because of its caller.
pub fn closed(reason: &str) -> Message {
    Message::Close(Some(CloseFrame { code: 1008.into(), reason: reason.to_owned().into() }))
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_both_ways() {
    let upstream = echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut socket = connect(&gateway, "/chat").await.unwrap();
    for message in [
        Message::text("hello"),
        Message::text(""),
        Message::binary(noise(1)),
        Message::binary(noise(125)),
        Message::binary(noise(126)),
        Message::binary(noise(65_536)),
        Message::binary(noise(1_000_000)),
    ] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut socket).await, message);
    }
    let fragment =
        |text: &str, code: Data, last| Message::Frame(Frame::message(text.to_owned(), OpCode::Data(code), last));
    socket.send(fragment("frag", Data::Text, false)).await.unwrap();
    socket.send(fragment("men", Data::Continue, false)).await.unwrap();
    socket.send(fragment("ted", Data::Continue, true)).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("fragmented"));
    socket.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong("p".into()));
    let close = CloseFrame { code: 4000.into(), reason: "enough".into() };
    socket.close(Some(close.clone())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Close(Some(close)));
    assert!(within("the end", socket.next()).await.is_none());
    drop(socket);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once() {
    let upstream = echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut sockets = Vec::new();
    for _ in 0..100 {
        sockets.push(connect(&gateway, "/chat").await.unwrap());
    }
    for turn in 0..3 {
        for (number, socket) in sockets.iter_mut().enumerate() {
            socket.send(Message::text(format!("{number}/{turn}"))).await.unwrap();
        }
        for (number, socket) in sockets.iter_mut().enumerate() {
            assert_eq!(next(socket).await, Message::text(format!("{number}/{turn}")));
        }
    }
}

/// The first message right behind the handshake: some engines lose it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_with_the_handshake_is_not_lost() {
    let upstream = Upstream::scripted(|conn| async move {
        let Ok(mut socket) = accept_async(conn.into_stream()).await else { return };
        let _ = socket.send(Message::text("welcome")).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    for _ in 0..100 {
        let mut socket = connect(&gateway, "/chat").await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::text("welcome"));
        assert_eq!(next(&mut socket).await, Message::text("hello"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_allowed_longer_than_for_requests() {
    let upstream = echo().await;
    let limits =
        "limits: { idle_timeout: 200ms, body_timeout: 200ms, header_timeout: 200ms, upgrade_idle_timeout: 60s }\n";
    let yaml = crate::harness::routed(&upstream, "timeouts: { idle: 200ms, first_byte: 200ms }");
    let gateway = Gateway::start(&[limits, &yaml].concat()).await;
    let mut socket = connect(&gateway, "/chat").await.unwrap();
    // Longer than every other timeout.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    socket.send(Message::text("still there")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("still there"));
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_has_an_end() {
    let upstream = echo().await;
    let gateway = Gateway::start(&format!("limits: {{ upgrade_idle_timeout: 300ms }}\n{}", all_to(&upstream))).await;
    let mut socket = connect(&gateway, "/chat").await.unwrap();
    let end = within("the end", socket.next()).await;
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_passes_the_chain_like_any_request() {
    let upstream = echo().await;
    let yaml = all_to(&upstream)
        .replace("/{*rest}", "GET /chat")
        .replace(", upstream: main", ", filters: [{ allow_ips: { deny: [127.0.0.1] } }], upstream: main");
    let gateway = Gateway::start(&yaml).await;
    for (path, status) in [("/chat", 403), ("/nothing", 404)] {
        match connect(&gateway, path).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), status),
            other => panic!("{other:?}"),
        }
    }
    // What follows a refused upgrade is not answered as a request, nor forwarded.
    let mut client = gateway.client().await;
    client
        .send(
            "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n\x01\x02garbage\r\n\r\n",
        )
        .await;
    client.response().await.refused(403, "FORBIDDEN");
    let rest = client.rest().await;
    assert!(!String::from_utf8_lossy(&rest).contains("200"), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_refused_is_an_ordinary_answer() {
    let upstream = Upstream::answering(answer(426, b"not here")).await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    match connect(&gateway, "/chat").await {
        Err(Error::Http(response)) => {
            assert_eq!(response.status(), 426);
        }
        other => panic!("{other:?}"),
    }
    let head = upstream.only().head;
    assert_eq!(head.get("upgrade"), Some("websocket"));
    assert_eq!(head.get("sec-websocket-version"), Some("13"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_websockets_are_tunnelled() {
    let upstream =
        Upstream::answering("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n").await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let response = gateway.ask("GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n").await;
    response.refused(502, "BAD_GATEWAY");
    assert!(!upstream.only().head.has("upgrade"));
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_may_leave() {
    let upstream = Upstream::scripted(|conn| async move {
        let Ok(mut socket) = accept_async(conn.into_stream()).await else { return };
        let _ = socket.send(Message::text("bye")).await;
        // Dropped without a closing handshake.
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut socket = connect(&gateway, "/chat").await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("bye"));
    let end = within("the end", socket.next()).await;
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    drop(socket);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_socket_lives_until_drain_timeout() {
    let upstream = echo().await;
    let mut gateway = Gateway::start(&format!("drain_timeout: 1s\n{}", all_to(&upstream))).await;
    let mut socket = connect(&gateway, "/chat").await.unwrap();
    gateway.signal("TERM");
    gateway.logged("draining").await;
    socket.send(Message::text("still there")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("still there"));
    assert!(gateway.ended().await.success());
    let end = within("the end", socket.next()).await;
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
}
