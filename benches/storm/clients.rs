//! The clients: what they do never stops for a reload, and whatever goes wrong for them is counted.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tollgate::clock;

use super::service::{Sum, echo, received, work};
use super::wire::{Answer, Wire};

/// Longer than anything here may take, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// An upload: this many pieces of this size, with a pause before each, so that it outlives several reloads.
const PIECES: u64 = 24;
const PIECE_BYTES: usize = 16 * 1024;
const PIECE_PAUSE: Duration = Duration::from_millis(10);
const PING_EVERY: Duration = Duration::from_secs(1);
/// The response field that tells which generation of the fragment a request ran through.
pub const GENERATION: &str = "x-generation";

/// What the clients saw.
#[derive(Default)]
pub struct Tally {
    pub requests: AtomicU64,
    pub uploads: AtomicU64,
    pub pings: AtomicU64,
    /// Connections and WebSockets that were closed on a client.
    pub closed: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<Vec<String>>,
    latencies_us: Mutex<Vec<u32>>,
    pub stop: AtomicBool,
}

impl Tally {
    /// Counts a failure; the first few keep their words.
    pub fn fail(&self, what: impl Into<String>) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < 20 {
            failures.push(what.into());
        }
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The latencies of all `GET` requests in microseconds, sorted.
    pub fn latencies_us(&self) -> Vec<u32> {
        let mut latencies = self.latencies_us.lock().unwrap_or_else(PoisonError::into_inner).clone();
        latencies.sort_unstable();
        latencies
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A connection that ended by itself: a failure, and a closed socket.
    fn lost(&self, who: &str, error: &io::Error) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        self.fail(format!("{who}: {error}"));
    }
}

/// What a client does over and over: one exchange on a connection that it keeps.
enum Work {
    Get,
    Upload,
}

pub async fn gets(address: SocketAddr, tally: Arc<Tally>) {
    keep(address, &tally, Work::Get).await;
}

pub async fn uploads(address: SocketAddr, tally: Arc<Tally>) {
    keep(address, &tally, Work::Upload).await;
}

/// Exchanges on one connection for as long as it lasts, and on the next one after it.
async fn keep(address: SocketAddr, tally: &Tally, work: Work) {
    let mut generation = 0;
    let mut number = 0;
    while !tally.stopped() {
        let mut wire = match Wire::connect(address).await {
            Ok(wire) => wire,
            Err(error) => {
                tally.lost("connecting", &error);
                sleep(PIECE_PAUSE).await;
                continue;
            }
        };
        while !tally.stopped() {
            number += 1;
            let exchange = async {
                match work {
                    Work::Get => get(&mut wire, number, tally).await,
                    Work::Upload => upload(&mut wire, number, tally).await,
                }
            };
            let answer = match timeout(PATIENCE, exchange).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => {
                    tally.lost("a request", &error);
                    break;
                }
                Err(_) => {
                    tally.fail(format!("no answer within {PATIENCE:?}"));
                    break;
                }
            };
            judge_generation(&answer, &mut generation, tally);
            if answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                tally.closed.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
    }
}

async fn get(wire: &mut Wire, number: u64, tally: &Tally) -> io::Result<Answer> {
    let started = clock::now();
    let answer = wire.ask("GET", &format!("/jobs/{number}")).await?;
    let latency = clock::now().saturating_duration_since(started).as_micros();
    tally.requests.fetch_add(1, Ordering::Relaxed);
    let mut latencies = tally.latencies_us.lock().unwrap_or_else(PoisonError::into_inner);
    latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
    expect(&answer, &work(number), tally);
    Ok(answer)
}

async fn upload(wire: &mut Wire, number: u64, tally: &Tally) -> io::Result<Answer> {
    wire.begin("POST", "/upload").await?;
    let mut sum = Sum::new();
    for piece in 0..PIECES {
        let byte = number.wrapping_mul(31).wrapping_add(piece).to_le_bytes()[0];
        let piece = vec![byte; PIECE_BYTES];
        sum.add(&piece);
        sleep(PIECE_PAUSE).await;
        wire.chunk(&piece).await?;
    }
    wire.chunk(&[]).await?;
    let answer = wire.answer().await?;
    tally.uploads.fetch_add(1, Ordering::Relaxed);
    expect(&answer, &received(sum), tally);
    Ok(answer)
}

fn expect(answer: &Answer, wanted: &str, tally: &Tally) {
    if answer.status != 200 || answer.body != wanted.as_bytes() {
        tally.fail(format!("status {}, body `{}` instead of `{wanted}`", answer.status, answer.text()));
    }
}

/// A connection never goes back to an older configuration.
fn judge_generation(answer: &Answer, newest: &mut u64, tally: &Tally) {
    match answer.field(GENERATION).and_then(|value| value.parse().ok()) {
        Some(generation) if generation >= *newest => *newest = generation,
        Some(generation) => tally.fail(format!("generation {generation} after {newest}")),
        None => tally.fail(format!("an answer without {GENERATION}")),
    }
}

/// A WebSocket that stays open to the end of the storm.
pub async fn socket(address: SocketAddr, tally: Arc<Tally>) {
    while !tally.stopped() {
        if let Err(what) = converse(address, &tally).await {
            tally.closed.fetch_add(1, Ordering::Relaxed);
            tally.fail(format!("a WebSocket: {what}"));
            sleep(PIECE_PAUSE).await;
        }
    }
}

async fn converse(address: SocketAddr, tally: &Tally) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let opened = tokio_tungstenite::client_async("ws://storm.localhost/socket", stream).await;
    let (mut socket, _) = opened.map_err(|error| error.to_string())?;
    let mut number = 0;
    while !tally.stopped() {
        number += 1;
        let text = number.to_string();
        socket.send(Message::text(text.clone())).await.map_err(|error| error.to_string())?;
        match timeout(PATIENCE, socket.next()).await {
            Ok(Some(Ok(Message::Text(heard)))) if heard.as_str() == echo(&text) => {}
            Ok(Some(Ok(other))) => return Err(format!("heard {other:?} after {text}")),
            Ok(Some(Err(error))) => return Err(error.to_string()),
            Ok(None) => return Err("closed".to_owned()),
            Err(_) => return Err(format!("no echo within {PATIENCE:?}")),
        }
        tally.pings.fetch_add(1, Ordering::Relaxed);
        sleep(PING_EVERY).await;
    }
    // An error here is none: both sides are done.
    let _ = socket.close(None).await;
    Ok(())
}
