//! Services behind the gateway: they record what they are sent, read it strictly, and answer as they are told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::wire::{Body, Broken, Framing, Head, Wire, invalid, is_token};
use super::within;

/// A service. What is not one strict request after the other fails the test when this is dropped.
pub struct Upstream {
    pub address: SocketAddr,
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    connections: usize,
    requests: Vec<Request>,
    violations: Vec<String>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// Number of the connection, from 1.
    pub connection: usize,
    pub method: String,
    pub target: String,
    pub head: Head,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
}

/// A connection from the gateway.
pub struct Conn {
    pub wire: Wire,
    /// Number of the connection, from 1.
    pub number: usize,
    seen: Arc<watch::Sender<Seen>>,
}

impl Upstream {
    /// Runs `script` for every connection.
    pub async fn scripted<F, Fut>(script: F) -> Self
    where
        F: Fn(Conn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::scripted_at(SocketAddr::from(([127, 0, 0, 1], 0)), script).await
    }

    /// The same, at an address that was dead before.
    pub async fn scripted_at<F, Fut>(address: SocketAddr, script: F) -> Self
    where
        F: Fn(Conn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = watch::channel(Seen::default());
        let sender = Arc::new(sender);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                sender.send_modify(|seen| seen.connections += 1);
                let number = sender.borrow().connections;
                tokio::spawn(script(Conn { wire: Wire::new(stream), number, seen: Arc::clone(&sender) }));
            }
        });
        Self { address, seen, task }
    }

    /// Answers every request with its body.
    pub async fn echo() -> Self {
        Self::scripted(|mut conn| async move {
            while let Some(request) = conn.request().await {
                conn.send(answer(200, &request.body)).await;
            }
        })
        .await
    }

    /// Answers every request, once it is there, with these bytes.
    pub async fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = Arc::new(bytes.into());
        Self::scripted(move |mut conn| {
            let bytes = Arc::clone(&bytes);
            async move {
                while conn.request().await.is_some() {
                    conn.send(&*bytes).await;
                }
            }
        })
        .await
    }

    /// Answers with these bytes and closes.
    pub async fn answering_once(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = Arc::new(bytes.into());
        Self::scripted(move |mut conn| {
            let bytes = Arc::clone(&bytes);
            async move {
                if conn.request().await.is_some() {
                    conn.send(&*bytes).await;
                }
            }
        })
        .await
    }

    /// Reads requests and never answers.
    pub async fn silent() -> Self {
        Self::scripted(|mut conn| async move { while conn.request().await.is_some() {} }).await
    }

    /// An address where nothing listens.
    ///
    /// At an address of its own (the loopback network has 16 million): on 127.0.0.1 a service of another test may get the
    /// port meanwhile, and what is meant for the one that comes back.
    pub async fn dead_address() -> SocketAddr {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let [.., process] = std::process::id().to_be_bytes();
        TcpListener::bind((Ipv4Addr::new(127, process | 1, high, low), 0)).await.unwrap().local_addr().unwrap()
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.borrow().requests.clone()
    }

    pub fn connections(&self) -> usize {
        self.seen.borrow().connections
    }

    /// The only request so far.
    pub fn only(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "exactly one request: {requests:#?}");
        requests.into_iter().next().unwrap()
    }

    /// The latest request.
    pub fn last(&self) -> Request {
        self.requests().pop().expect("a request")
    }

    /// Waits until this many requests have arrived whole.
    pub async fn received(&self, count: usize) -> Vec<Request> {
        let mut seen = self.seen.clone();
        within("a request at the upstream", seen.wait_for(|seen| seen.requests.len() >= count)).await.unwrap();
        self.requests()
    }

    /// What arrived that was not strict; taken, so that it does not fail the test.
    pub fn violations(&self) -> Vec<String> {
        self.seen.borrow().violations.clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
        let violations = self.violations();
        if !violations.is_empty() && std::thread::panicking() {
            eprintln!("the upstream was sent what is not strict HTTP/1.1: {violations:#?}");
        } else if !violations.is_empty() {
            panic!("the upstream was sent what is not strict HTTP/1.1: {violations:#?}");
        }
    }
}

impl Conn {
    /// The next request, whole and recorded; `None` when the gateway has closed, or has sent what is not strict.
    pub async fn request(&mut self) -> Option<Request> {
        let mut request = self.head().await?;
        let body = self.body(request.framing).await?;
        request.body = body.bytes;
        request.trailers = body.trailers;
        self.record(&request);
        Some(request)
    }

    /// The head of the next request; nothing is recorded until [`Conn::record`].
    pub async fn head(&mut self) -> Option<Request> {
        match self.read_head().await {
            Ok(head) => head,
            Err(broken) => {
                self.violated(broken);
                None
            }
        }
    }

    async fn read_head(&mut self) -> Result<Option<Request>, Broken> {
        if !self.wire.buffer.is_empty() {
            return Err(invalid("bytes after a request and before its answer", &self.wire.buffer));
        }
        let Some(head) = self.wire.head().await? else { return Ok(None) };
        strict(head, self.number).map(Some)
    }

    /// A body that has to come whole.
    pub async fn body(&mut self, framing: Framing) -> Option<Body> {
        match self.wire.body(framing).await {
            Ok(body) => {
                if !self.wire.buffer.is_empty() && framing != Framing::Close {
                    let surplus = invalid("bytes after a request and before its answer", &self.wire.buffer);
                    self.violated(surplus);
                    return None;
                }
                Some(body)
            }
            Err(broken) => {
                self.violated(broken);
                None
            }
        }
    }

    pub fn record(&self, request: &Request) {
        self.seen.send_modify(|seen| seen.requests.push(request.clone()));
    }

    /// A request that is cut off is no violation: the gateway has closed the connection, so nothing can follow.
    fn violated(&self, broken: Broken) {
        if let Broken::Invalid(what) = broken {
            self.seen.send_modify(|seen| seen.violations.push(what));
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.send(bytes).await
    }

    /// Waits until the gateway closes.
    pub async fn closed(&mut self) {
        while self.wire.fill().await {
            self.wire.buffer.clear();
        }
    }

    pub fn reset(self) {
        self.wire.reset();
    }

    pub fn into_stream(self) -> TcpStream {
        assert!(self.wire.buffer.is_empty());
        self.wire.stream
    }
}

/// Whether the head has one reading only, and is what a gateway may send.
fn strict(head: Head, connection: usize) -> Result<Request, Broken> {
    let start = head.start.clone();
    let refused = |what: &str| Err(invalid(what, format!("{start:?} {:?}", head.fields).as_bytes()));
    let parts: Vec<&str> = start.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts.as_slice() else { return refused("a request line") };
    if method.is_empty() || !method.bytes().all(is_token) {
        return refused("a method");
    }
    let path = target.split('?').next().unwrap_or_default();
    let lower = path.to_ascii_lowercase();
    let ambiguous = ["%2f", "%5c", "%00", "//", "\\", "/../", "/./", "#"].iter().any(|bad| lower.contains(bad));
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) || ambiguous {
        return refused("a target");
    }
    if head.all("host").len() != 1 {
        return refused("not one Host");
    }
    let framing = match (head.all("transfer-encoding").as_slice(), head.all("content-length").as_slice()) {
        ([], []) => Framing::None,
        (["chunked"], []) => Framing::Chunked,
        ([], [length]) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            Framing::Length(length.parse().map_err(|_| invalid("a length", length.as_bytes()))?)
        }
        _ => return refused("the framing"),
    };
    let (method, target) = ((*method).to_owned(), (*target).to_owned());
    Ok(Request { connection, method, target, head, framing, body: Vec::new(), trailers: Vec::new() })
}

/// An answer of known length.
pub fn answer(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
