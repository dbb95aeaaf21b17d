//! A client that sends exact bytes.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::net::TcpStream;

use super::wire::{Body, Broken, Framing, Head, Wire, invalid};
use super::within;

/// One connection to the gateway.
pub struct Client(pub Wire);

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
    pub framing: Framing,
    pub trailers: Vec<(String, Vec<u8>)>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self(Wire::new(
            within("a connection", TcpStream::connect(address)).await.expect("the gateway takes connections"),
        ))
    }

    pub fn over(stream: TcpStream) -> Self {
        Self(Wire::new(stream))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("room to send", self.0.send(bytes)).await
    }

    /// `GET path` and its answer.
    pub async fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        self.response().await
    }

    /// `POST path` with a body of known length, and its answer. All of it is sent at once: when it arrives in pieces, it is by
    /// luck which engine serves it.
    pub async fn post(&mut self, path: &str, body: &[u8]) -> Response {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n");
        self.send([head.as_bytes(), body].concat()).await;
        self.response().await
    }

    /// Sends a request and reads its answer.
    pub async fn ask(&mut self, request: &str) -> Response {
        self.send(request).await;
        self.response().await
    }

    /// The answer to a request that is no HEAD.
    pub async fn response(&mut self) -> Response {
        within("a response", self.try_response(false)).await.expect("a whole response")
    }

    /// The answer to a HEAD request.
    pub async fn response_to_head(&mut self) -> Response {
        within("a response", self.try_response(true)).await.expect("a whole response")
    }

    pub async fn try_response(&mut self, to_head: bool) -> Result<Response, Broken> {
        let (status, head) = self.response_head().await?;
        let framing = if to_head { Framing::None } else { framing(status, &head)? };
        let Body { bytes, trailers, .. } = self.0.body(framing).await?;
        Ok(Response { status, head, body: bytes, framing, trailers })
    }

    pub async fn response_head(&mut self) -> Result<(u16, Head), Broken> {
        let head = within("a response head", self.0.head()).await?.ok_or(Broken::Cut)?;
        let status = head.start.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        match status {
            Some(status) => Ok((status, head)),
            None => Err(invalid("a status line", head.start.as_bytes())),
        }
    }

    /// Everything until the gateway closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        within("the end of the connection", self.0.rest()).await
    }

    /// Waits until the gateway closes without another byte.
    pub async fn closed(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "more than expected: {}", String::from_utf8_lossy(&rest));
    }

    /// Whether the connection still serves requests.
    pub async fn is_usable(&mut self, path: &str) -> bool {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        within("a response or the end", self.try_response(false)).await.is_ok()
    }
}

fn framing(status: u16, head: &Head) -> Result<Framing, Broken> {
    if status < 200 || status == 204 || status == 304 {
        return Ok(Framing::None);
    }
    match (head.get("transfer-encoding"), head.get("content-length")) {
        (Some("chunked"), None) => Ok(Framing::Chunked),
        (None, Some(length)) => {
            Ok(Framing::Length(length.parse().map_err(|_| invalid("a length", length.as_bytes()))?))
        }
        (None, None) => Ok(Framing::Close),
        _ => Err(invalid("the framing", format!("{head:?}").as_bytes())),
    }
}

impl Response {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// Whether this is a refusal in the one shape.
    pub fn is_refusal(&self, code: &str) -> bool {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let id = self.head.get("x-request-id");
        json["error"]["code"] == code && id.is_some_and(|id| json["request_id"] == id)
    }

    /// Asserts that this is a refusal in the one shape.
    pub fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        let id = refusal(&self.body, code);
        assert_eq!(self.head.get("x-request-id"), Some(&*id), "body and field name one request");
        assert_eq!(self.head.get("content-type"), Some("application/json"));
        self
    }
}

/// Asserts that this is the body of a refusal in the one shape; gives the request id.
pub fn refusal(body: &[u8], code: &str) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(body)));
    let mut keys: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["error", "request_id", "timestamp"]);
    assert_eq!(json["error"]["code"], code, "{json}");
    assert!(json["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert!(json["error"]["details"].is_object());
    assert!(json["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
    json["request_id"].as_str().filter(|id| !id.is_empty()).expect("a request id").to_owned()
}
