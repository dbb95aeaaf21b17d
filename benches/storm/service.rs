//! The services behind the gateway: one for HTTP, one for WebSockets. They say what they received, so that a client can
//! tell whether anything was lost, doubled or given to somebody else.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::{get, post};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// What `GET /jobs/NUMBER` is answered with.
pub fn work(number: u64) -> String {
    format!("work {number}")
}

/// What an upload is answered with.
pub fn received(sum: Sum) -> String {
    format!("received {} bytes, sum {:016x}", sum.bytes, sum.hash)
}

/// What a message over a WebSocket is answered with.
pub fn echo(message: &str) -> String {
    format!("echo {message}")
}

/// Length and FNV-1a of a body.
#[derive(Clone, Copy)]
pub struct Sum {
    bytes: u64,
    hash: u64,
}

impl Sum {
    pub fn new() -> Self {
        Self { bytes: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

pub async fn http() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/jobs/{number}", get(|Path(number): Path<u64>| async move { work(number) }))
        .route("/upload", post(upload));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn upload(body: Body) -> String {
    let mut sum = Sum::new();
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => sum.add(&piece),
            Err(error) => return format!("the body broke off: {error}"),
        }
    }
    received(sum)
}

pub async fn sockets() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream));
        }
    });
    Ok(address)
}

async fn talk(stream: TcpStream) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        if let Message::Text(text) = message? {
            socket.send(Message::text(echo(&text))).await?;
        }
    }
    Ok(())
}
