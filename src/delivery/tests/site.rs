//! A configuration with one inbox, its queue, and services that record what they are sent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::clock;
use crate::config::load::Environment;
use crate::delivery::Delivery;
use crate::gateway::Services;
use crate::inbox::{Bounds, Counts, Entry, File, Message, Put, Queue};
use crate::live::{Cause, Effect, Live};
use crate::observe::metrics::Metrics;

/// How long an event may take that has to come.
const PATIENCE: Duration = Duration::from_secs(120);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

pub struct Site {
    folder: TempDir,
    pub live: Arc<Live>,
    pub queue: Arc<File>,
    pub delivery: Delivery,
    metrics: Arc<Metrics>,
}

impl Site {
    /// `terms` are settings of the inbox `hooks`: `attempts: 3, schedule: [50ms]`.
    pub fn start(address: SocketAddr, terms: &str) -> Self {
        Self::start_with(address, terms, "")
    }

    /// `keys` are more keys of the upstream.
    pub fn start_with(address: SocketAddr, terms: &str, keys: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        std::fs::write(&path, yaml(address, terms, keys)).unwrap();
        let metrics = Metrics::new(100);
        let services = Services::new(Arc::clone(&metrics));
        let live = Live::start(path, Environment::Fixed(HashMap::new()), services, |_| Vec::new());
        let live = live.unwrap_or_else(|problems| panic!("{problems:#?}"));
        let queue = Arc::new(File::open(&folder.path().join("inbox.db")).unwrap());
        let delivery = Delivery::start(Arc::clone(&live), Arc::clone(&queue) as Arc<dyn Queue>, &metrics).unwrap();
        Self { folder, live, queue, delivery, metrics }
    }

    pub async fn reload(&self, text: &str) {
        std::fs::write(self.folder.path().join("gateway.yaml"), text).unwrap();
        let outcome = self.live.reload(Cause::Api).await;
        assert_eq!(outcome.effect, Effect::Applied, "{outcome:?}");
    }

    /// Stores a message with this body.
    pub async fn put(&self, body: &str, order: Option<&str>) -> Message {
        let message = message(body, order);
        let bounds = Bounds { messages_max: 1000, bytes_max: 1 << 30 };
        assert_eq!(self.queue.put(message.clone(), bounds).await.unwrap(), Put::Stored);
        message
    }

    /// Waits until the inbox stands so.
    pub async fn until(&self, what: &str, fits: impl Fn(&Counts) -> bool) -> Counts {
        within(what, async {
            loop {
                let counts = self.queue.counts("hooks", clock::wall()).await.unwrap();
                if fits(&counts) {
                    return counts;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    pub async fn until_empty(&self) {
        self.until("an empty inbox", |counts| counts.ready + counts.delayed + counts.claimed + counts.dead == 0).await;
    }

    /// Waits until deliveries pause, or do no more.
    pub async fn until_paused(&self, paused: bool) {
        within("a pause, or its end", async {
            while !self.metrics.inbox_samples().iter().any(|inbox| inbox.is_paused == paused) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    pub async fn entry(&self, message: &Message) -> Entry {
        self.queue.show("hooks", &message.id, clock::wall()).await.unwrap().expect("it is kept")
    }
}

pub fn yaml(address: SocketAddr, terms: &str, keys: &str) -> String {
    format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:8000 }}]\nstate: {{ file: state.db }}\nupstreams:\n  \
         tasks: {{ targets: [{{ address: \"{address}\" }}]{}{keys} }}\nroutes:\n  - name: hooks\n    match: POST /hooks\n    \
         inbox: {{ upstream: tasks{}{terms} }}\n",
        if keys.is_empty() { "" } else { ", " },
        if terms.is_empty() { "" } else { ", " },
    )
}

pub fn message(body: &str, order: Option<&str>) -> Message {
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let id = format!("{now:012x}{:020x}", fastrand::u64(..));
    Message {
        inbox: Arc::from("hooks"),
        delivery: format!("delivery-of-{body}"),
        order: order.map(str::to_owned),
        received: UNIX_EPOCH + Duration::from_millis(now as u64),
        request_id: "r".to_owned(),
        route: "hooks".to_owned(),
        provider: None,
        method: "POST".to_owned(),
        target: "/hooks/a%20b?q='x'&p=%2f".to_owned(),
        fields: vec![
            ("host".to_owned(), b"api.example.com".to_vec()),
            ("x-custom".to_owned(), b"1".to_vec()),
            ("x-custom".to_owned(), b"\xff2".to_vec()),
        ],
        body: body.to_owned().into(),
        id,
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub start: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: String,
    pub at: Instant,
}

impl Seen {
    pub fn field(&self, name: &str) -> &str {
        let mut values = self.fields.iter().filter(|(known, _)| known == name);
        let value = values.next().map(|(_, value)| std::str::from_utf8(value).unwrap());
        assert!(values.next().is_none(), "{name} once");
        value.unwrap_or_else(|| panic!("{name}: {self:?}"))
    }

    pub fn attempt(&self) -> u32 {
        self.field("x-delivery-attempt").parse().unwrap()
    }
}

/// What a service does with a request.
pub enum Act {
    /// Sends these bytes.
    Say(Vec<u8>),
    /// Sends these bytes and closes.
    End(Vec<u8>),
    /// Sends these bytes over and over.
    Flood(Vec<u8>),
    /// Says nothing for so long, then 200.
    Wait(Duration),
}

pub fn status(status: u16) -> Act {
    Act::Say(format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n").into())
}

/// A service that records.
pub struct Service {
    pub address: SocketAddr,
    seen: watch::Receiver<Vec<Seen>>,
}

impl Service {
    /// `script` is given a request and the number of requests before it.
    pub async fn start(script: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub async fn start_at(address: SocketAddr, script: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = watch::channel(Vec::new());
        let shared = Arc::new((sender, script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { serve(stream, &shared.0, &shared.1).await });
            }
        });
        Self { address, seen }
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    pub async fn received(&self, count: usize) -> Vec<Seen> {
        let mut seen = self.seen.clone();
        within("a request", seen.wait_for(|seen| seen.len() >= count)).await.unwrap();
        self.requests()
    }
}

/// An address where nobody listens.
pub async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn serve(mut stream: TcpStream, seen: &watch::Sender<Vec<Seen>>, script: &(impl Fn(&Seen, usize) -> Act + Sync)) {
    while let Some(request) = read(&mut stream).await {
        let before = seen.borrow().len();
        let act = script(&request, before);
        seen.send_modify(|seen| seen.push(request));
        let sent = match act {
            Act::Say(bytes) => stream.write_all(&bytes).await,
            Act::End(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Act::Flood(bytes) => loop {
                if let Err(error) = stream.write_all(&bytes).await {
                    break Err(error);
                }
            },
            Act::Wait(pause) => {
                tokio::time::sleep(pause).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        bytes.push(stream.read_u8().await.ok()?);
    };
    let mut lines = bytes[..end].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let start = String::from_utf8(lines.next()?.to_vec()).unwrap();
    let fields: Vec<(String, Vec<u8>)> = lines
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap();
            let name = String::from_utf8(line[..colon].to_ascii_lowercase()).unwrap();
            (name, line[colon + 1..].trim_ascii().to_vec())
        })
        .collect();
    let length = fields.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| std::str::from_utf8(value).unwrap().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { start, fields, body: String::from_utf8(body).unwrap(), at: clock::now() })
}
