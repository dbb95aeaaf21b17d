//! WebSockets that are large, many, silent, or closed in every way.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async};

use super::{Socket, connect, echo, next};
use crate::harness::{Gateway, Upstream, all_to, noise, within};

const MIB: usize = 1024 * 1024;

/// Sizes where lengths change their form, and those that people ask about.
const SIZES: [usize; 9] = [0, 125, 126, 65_535, 65_536, MIB, 4 * MIB, 16 * MIB - 1, 16 * MIB];

fn unbounded() -> WebSocketConfig {
    WebSocketConfig::default().max_frame_size(None).max_message_size(None)
}

async fn large_echo() -> Upstream {
    Upstream::scripted(|conn| async move {
        let Ok(mut socket) = accept_async_with_config(conn.into_stream(), Some(unbounded())).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_binary() && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn large_connect(gateway: &Gateway) -> Socket {
    let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let (socket, _) = within("a handshake", client_async("ws://a.test/chat", stream)).await.unwrap();
    WebSocketStream::from_raw_socket(socket.into_inner(), Role::Client, Some(unbounded())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_up_to_sixteen_mebibytes_pass_whole_and_in_fragments() {
    let upstream = large_echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut socket = large_connect(&gateway).await;
    for size in SIZES {
        let body = noise(size);
        let (mut sink, mut source) = socket.split();
        let message = Message::binary(body.clone());
        let (sent, got) =
            within("a message both ways", async { tokio::join!(sink.send(message), source.next()) }).await;
        sent.unwrap();
        assert_eq!(got.unwrap().unwrap().into_data(), body, "{size}");
        socket = sink.reunite(source).unwrap();
    }
    // The largest again in 1000 fragments, with pings between them.
    let body = noise(16 * MIB);
    let pieces: Vec<_> = body.chunks(body.len() / 999).collect();
    let (mut sink, mut source) = socket.split();
    let sending = async {
        for (number, piece) in pieces.iter().enumerate() {
            let code = if number == 0 { Data::Binary } else { Data::Continue };
            let frame = Frame::message(piece.to_vec(), OpCode::Data(code), number + 1 == pieces.len());
            sink.send(Message::Frame(frame)).await.unwrap();
            if number % 100 == 0 {
                sink.send(Message::Ping(vec![number as u8].into())).await.unwrap();
            }
        }
    };
    let receiving = async {
        loop {
            match source.next().await.unwrap().unwrap() {
                Message::Pong(_) => {}
                other => return other,
            }
        }
    };
    let (_, got) = within("the fragments", async { tokio::join!(sending, receiving) }).await;
    assert_eq!(got.into_data(), body);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_close_code_passes() {
    let upstream = echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let mut socket = connect(&gateway, "/chat").await.unwrap();
        let close = CloseFrame { code: code.into(), reason: "r".repeat(123).into() };
        socket.close(Some(close.clone())).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::Close(Some(close)), "{code}");
        assert!(within("the end", socket.next()).await.is_none(), "{code}");
    }
    let mut socket = connect(&gateway, "/chat").await.unwrap();
    socket.close(None).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Close(None));
}

/// A thousand messages on each of 200, all at once.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_stay_apart_under_load() {
    let upstream = echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let open = Arc::new(Semaphore::new(0));
    let mut sockets = Vec::new();
    for number in 0..200 {
        let mut socket = connect(&gateway, "/chat").await.unwrap();
        let open = Arc::clone(&open);
        sockets.push(tokio::spawn(async move {
            let _all = open.acquire().await.unwrap();
            for turn in 0..100 {
                let messages: Vec<_> = (0..10).map(|part| Message::text(format!("{number}/{turn}/{part}"))).collect();
                for message in &messages {
                    socket.send(message.clone()).await.unwrap();
                }
                for message in messages {
                    assert_eq!(next(&mut socket).await, message);
                }
            }
        }));
    }
    open.add_permits(200);
    for socket in sockets {
        within("a socket", socket).await.unwrap();
    }
    assert_eq!(upstream.connections(), 200);
}

/// One side speaks, the other never does: neither direction has a clock of its own.
#[tokio::test(flavor = "multi_thread")]
async fn pings_one_way_keep_a_socket_open() {
    let upstream = Upstream::scripted(|conn| async move {
        let Ok(mut socket) = tokio_tungstenite::accept_async(conn.into_stream()).await else { return };
        // Reads nothing, so that no pong is ever sent; speaks at the end.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let _ = socket.send(Message::text("still here")).await;
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    let limits = "limits: { upgrade_idle_timeout: 1s }\n";
    let gateway = Gateway::start(&[limits, &all_to(&upstream)].concat()).await;
    let mut socket = connect(&gateway, "/chat").await.unwrap();
    let mut pings = tokio::time::interval(Duration::from_millis(100));
    let heard = within("a word", async {
        loop {
            tokio::select! {
                _ = pings.tick() => socket.send(Message::Ping("p".into())).await.unwrap(),
                message = socket.next() => match message.unwrap().unwrap() {
                    Message::Pong(_) => {}
                    other => return other,
                },
            }
        }
    })
    .await;
    assert_eq!(heard, Message::text("still here"));
}
