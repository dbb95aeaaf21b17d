//! A service running in the test, and just enough of an HTTP client to talk to it.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Service;
use super::database::Database;

/// A service on a free port, over an empty database in memory.
pub struct Running {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<anyhow::Result<()>>,
}

pub struct Answer {
    pub status: u16,
    pub body: Value,
    head: String,
}

impl Running {
    pub async fn start(service: &'static Service) -> Self {
        let (database, _) = Database::open(Path::new(":memory:"), service.schema).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { stopped.await.unwrap_or(()) };
        let serving = tokio::spawn(async move { service.serve(listener, database, stopped).await });
        Self { address, stop, serving }
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.send("GET", target, "", "").await
    }

    pub async fn json(&self, method: &str, target: &str, body: &Value) -> Answer {
        self.send(method, target, "Content-Type: application/json\r\n", &body.to_string()).await
    }

    /// `fields` are header lines, each with its line end.
    pub async fn send(&self, method: &str, target: &str, fields: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{fields}");
        let request = format!("{head}Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, body: serde_json::from_str(body).unwrap_or(Value::Null), head: head.to_owned() }
    }

    /// Ends when the service has.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap().unwrap();
        assert!(TcpStream::connect(self.address).await.is_err());
    }
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}
