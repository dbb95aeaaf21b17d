//! A client that speaks HTTP/2 with prior knowledge.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use http::{HeaderMap, Request, StatusCode};
use tokio::net::TcpStream;

use super::client::refusal;
use super::within;

/// One connection; clones share it.
#[derive(Clone)]
pub struct H2Client(pub SendRequest<Bytes>);

#[derive(Debug)]
pub struct H2Response {
    pub status: StatusCode,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl H2Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.expect("the gateway takes connections");
        // As every client of HTTP/2 does: a window is waited for, and the end of what fills it must not wait with it.
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = within("a handshake", handshake(stream)).await.expect("a handshake");
        // Ends with the last sender; its errors are those of the streams.
        tokio::spawn(async move { drop(connection.await) });
        Self(sender)
    }

    pub async fn get(&self, path: &str) -> H2Response {
        let request = Request::get(format!("http://a.test{path}")).body(()).unwrap();
        self.ask(request, Vec::new()).await.expect("a response")
    }

    pub async fn post(&self, path: &str, body: Vec<u8>) -> H2Response {
        let request = Request::post(format!("http://a.test{path}")).body(()).unwrap();
        self.ask(request, body).await.expect("a response")
    }

    /// Sends a request and reads its answer; the body as fast as the gateway takes it.
    pub async fn ask(&self, request: Request<()>, body: Vec<u8>) -> Result<H2Response, h2::Error> {
        let mut sender = within("a free stream", self.0.clone().ready()).await?;
        let (response, stream) = sender.send_request(request, body.is_empty())?;
        let sending = async {
            if !body.is_empty() {
                send(stream, body).await;
            }
        };
        let receiving = async {
            let (head, mut stream) = response.await?.into_parts();
            let mut body = Vec::new();
            while let Some(data) = stream.data().await {
                let data = data?;
                stream.flow_control().release_capacity(data.len())?;
                body.extend_from_slice(&data);
            }
            let trailers = stream.trailers().await?;
            Ok(H2Response { status: head.status, fields: head.headers, body, trailers })
        };
        let both = async { tokio::join!(sending, receiving).1 };
        within("an HTTP/2 response", both).await
    }
}

/// Sends a whole body, or as much as the peer wants.
pub async fn send(mut stream: h2::SendStream<Bytes>, body: Vec<u8>) {
    let mut body = Bytes::from(body);
    while !body.is_empty() {
        stream.reserve_capacity(body.len().min(64 * 1024));
        match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(room)) => {
                let piece = body.split_to(room.min(body.len()));
                if stream.send_data(piece, body.is_empty()).is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

impl H2Response {
    /// Asserts that this is a refusal in the one shape.
    pub fn refused(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        let id = refusal(&self.body, code);
        assert_eq!(self.fields["x-request-id"], *id);
    }
}
