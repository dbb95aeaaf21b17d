//! The client's side of a connection: a stream that keeps the deadlines Pingora does not.
//!
//! Pingora's own timers restart with every read, and a connection that is kept alive has none. So the stream itself knows
//! in which [`Stage`] the connection is and until when: a read that would wait beyond that fails instead. The proxy moves
//! the stage along through the shared [`Connection`].
//!
//! A request that Pingora cannot parse never reaches the proxy; Pingora answers it with a bare status. The stream replaces
//! that answer by one in the gateway's error shape.

mod ahead;
mod asked;
mod closing;
mod flood;
mod frames;
mod malformed;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::alarm::Alarm;
use super::held::Held;
use super::socket::Socket;
use crate::caller::ClientCertificate;
use crate::client::PeerText;
use crate::clock;
use crate::context::Scheme;
use closing::Farewell;
pub use closing::{Closer, Ending};
use flood::Flood;
pub use malformed::{Malformed, MalformedKind};

/// What an HTTP/2 connection with prior knowledge starts with (RFC 9113 §3.4).
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Requests at once on one connection of HTTP/2.
pub const H2_STREAMS_MAX: u32 = 100;

/// Bounds on a connection, from `limits`.
#[derive(Clone, Copy, Debug)]
pub struct EdgeLimits {
    pub header_bytes_max: u64,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
}

/// What the proxy and the stream know together about one client connection.
///
/// Times are milliseconds after `opened`. Only the task that drives the connection changes them, so no order between them
/// has to be kept.
pub struct Connection {
    pub peer: SocketAddr,
    /// The peer's address as upstreams are told.
    pub peer_text: PeerText,
    /// The address that the client connected to.
    pub reached: Option<SocketAddr>,
    pub scheme: Scheme,
    /// The port of HTTPS, where plain HTTP is redirected to it.
    pub https_port: Option<u16>,
    /// What the client has proved in the handshake.
    pub certificate: Option<Arc<ClientCertificate>>,
    limits: EdgeLimits,
    opened: Instant,
    stage: AtomicU8,
    /// Until when the stage may last; 0: no end.
    deadline_ms: AtomicU64,
    /// While a response streams: how long it may make no progress; 0: it does not stream.
    idle_ms: AtomicU64,
    /// When the exchange has to be over; `u64::MAX`: never.
    end_ms: AtomicU64,
    /// Requests in flight: more than one only with HTTP/2.
    active: AtomicU32,
    h2: AtomicBool,
    /// The deadline passed while a request was in flight.
    expired: AtomicBool,
    /// Ends an upgraded connection, when somebody may have to.
    closer: OnceLock<Arc<Closer>>,
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// Nothing of a request has come.
    Idle = 0,
    /// A part of a request head has come.
    Head = 1,
    /// The proxy has the request.
    Exchange = 2,
}

impl Connection {
    pub fn new(peer: SocketAddr, limits: EdgeLimits, scheme: Scheme) -> Self {
        let opened = clock::now();
        Self {
            peer,
            peer_text: PeerText::new(peer.ip()),
            reached: None,
            scheme,
            https_port: None,
            certificate: None,
            limits,
            opened,
            stage: AtomicU8::new(Stage::Idle as u8),
            // The first request has to come at once: a new connection gets no idle time.
            deadline_ms: AtomicU64::new(millis(limits.header_timeout).max(1)),
            idle_ms: AtomicU64::new(0),
            end_ms: AtomicU64::new(u64::MAX),
            active: AtomicU32::new(0),
            h2: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            closer: OnceLock::new(),
        }
    }

    /// The proxy has read the head of a request. It may take its time until a deadline is set.
    pub fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.expired.store(false, Ordering::Relaxed);
        self.idle_ms.store(0, Ordering::Relaxed);
        self.stage.store(Stage::Exchange as u8, Ordering::Relaxed);
        self.deadline_ms.store(0, Ordering::Relaxed);
    }

    /// The exchange is over; the connection may wait for the next request.
    pub fn end(&self, now: Instant) {
        if self.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle_ms.store(0, Ordering::Relaxed);
            self.stage.store(Stage::Idle as u8, Ordering::Relaxed);
            self.set_deadline(now, self.limits.idle_timeout);
        }
    }

    /// Bounds what comes next in the exchange. Only over HTTP/1: streams of HTTP/2 share a connection.
    pub fn expect_within(&self, now: Instant, after: Duration) {
        if !self.is_h2() {
            self.set_deadline(now, after);
        }
    }

    /// The response has begun: from now on some byte, either way, has to move within `idle`, and all within `remaining`.
    pub fn stream(&self, now: Instant, idle: Duration, remaining: Option<Duration>) {
        if !self.is_h2() {
            let end = remaining.map_or(u64::MAX, |remaining| self.ms(now).saturating_add(millis(remaining)));
            self.end_ms.store(end, Ordering::Relaxed);
            self.idle_ms.store(millis(idle).max(1), Ordering::Relaxed);
            self.progressed(now);
        }
    }

    /// The request is sent once more. No deadline runs until one is set.
    pub fn begin_again(&self) {
        if !self.is_h2() {
            self.expired.store(false, Ordering::Relaxed);
            self.deadline_ms.store(0, Ordering::Relaxed);
        }
    }

    /// The exchange has taken longer than it may.
    pub fn expire(&self) {
        self.expired.store(true, Ordering::Relaxed);
    }

    /// Whether the deadline of the exchange has passed.
    pub fn expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// Whether more requests are in flight than a client that keeps to the settings can have begun: over HTTP/2 those that
    /// it has reset are off its list at once, and not off ours.
    pub fn is_crowded(&self) -> bool {
        self.active.load(Ordering::Relaxed) > H2_STREAMS_MAX.saturating_mul(2)
    }

    pub fn set_h2(&self, h2: bool) {
        self.h2.store(h2, Ordering::Relaxed);
    }

    pub fn is_h2(&self) -> bool {
        self.h2.load(Ordering::Relaxed)
    }

    /// A byte has moved while a response streams.
    fn progressed(&self, now: Instant) {
        let until = self.ms(now).saturating_add(self.idle_ms.load(Ordering::Relaxed));
        self.deadline_ms.store(until.min(self.end_ms.load(Ordering::Relaxed)).max(1), Ordering::Relaxed);
    }

    fn streams(&self) -> bool {
        self.idle_ms.load(Ordering::Relaxed) != 0
    }

    fn set_deadline(&self, now: Instant, after: Duration) {
        self.deadline_ms.store(self.ms(now).saturating_add(millis(after)).max(1), Ordering::Relaxed);
    }

    fn ms(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.opened))
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Idle,
            1 => Stage::Head,
            _ => Stage::Exchange,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The stream that is given to Pingora.
pub struct EdgeStream {
    io: Socket,
    held: Held,
    connection: Arc<Connection>,
    shared: Arc<ProxyDigest>,
    malformed: Malformed,
    /// Bytes read to tell the protocol, to be read again.
    rewound: BytesMut,
    head_bytes: u64,
    /// The head that is being read has been waited for.
    head_waits: bool,
    alarm: Alarm,
    answer: Answer,
    /// Over HTTP/2.
    flood: Option<Box<Flood>>,
    /// What is known of the end of an upgraded connection that may have to end.
    farewell: Option<Box<Farewell>>,
}

/// What becomes of an answer that the proxy did not author.
enum Answer {
    None,
    /// These bytes are being sent instead, from the offset on.
    Sending(Vec<u8>, usize),
    /// They are sent; the rest of Pingora's answer is swallowed.
    Sent,
}

impl EdgeStream {
    pub fn new(io: Socket, connection: Arc<Connection>, malformed: Malformed) -> pingora::Result<Self> {
        let flood = connection.is_h2().then(|| Box::new(Flood::new()));
        let response = ResponseHeader::build(200, None)?;
        let shared = ProxyDigest::new(Box::new(response), Some(Box::new(Arc::clone(&connection))));
        Ok(Self {
            io,
            held: Held::default(),
            connection,
            shared: Arc::new(shared),
            malformed,
            rewound: BytesMut::new(),
            head_bytes: 0,
            head_waits: false,
            alarm: Alarm::default(),
            answer: Answer::None,
            flood,
            farewell: None,
        })
    }

    /// Waits for the first bytes and says whether they begin an HTTP/2 connection.
    pub async fn starts_with_h2(&mut self) -> io::Result<bool> {
        let mut start = [0_u8; H2_PREFACE.len()];
        let mut length = 0;
        while let Some(free) = start.get_mut(length..) {
            let read = self.read(free).await?;
            length = length.saturating_add(read);
            let got = start.get(..length).unwrap_or_default();
            if read == 0 || !H2_PREFACE.starts_with(got) || length == H2_PREFACE.len() {
                self.rewound = BytesMut::from(got);
                break;
            }
        }
        let h2 = start == *H2_PREFACE;
        self.connection.set_h2(h2);
        if h2 {
            // The preface is read again.
            self.flood = Some(Box::new(Flood::new()));
        }
        Ok(h2)
    }

    /// Fails when the stage has lasted too long; otherwise the task is woken when it will have.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let connection = &self.connection;
        // Most heads come in one piece: only one that does not needs a deadline of its own.
        if connection.stage() == Stage::Head && !std::mem::replace(&mut self.head_waits, true) {
            connection.set_deadline(clock::now(), connection.limits.header_timeout);
        }
        let deadline = connection.deadline_ms.load(Ordering::Relaxed);
        if deadline == 0 {
            return Poll::Pending;
        }
        ready!(self.alarm.poll(connection.opened, Duration::from_millis(deadline), cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Counts what came in while no request is in flight, and moves on from idle.
    fn received(&mut self, bytes: usize) {
        let connection = &self.connection;
        if bytes == 0 || connection.is_h2() {
            return;
        }
        match connection.stage() {
            Stage::Idle => {
                self.head_bytes = bytes as u64;
                self.head_waits = false;
                connection.stage.store(Stage::Head as u8, Ordering::Relaxed);
            }
            Stage::Head => self.head_bytes = self.head_bytes.saturating_add(bytes as u64),
            Stage::Exchange if connection.streams() => connection.progressed(clock::now()),
            Stage::Exchange => {}
        }
    }

    /// A client that reads slowly keeps a streaming response alive. What is held has not moved.
    fn sent(&self) {
        if self.held.is_empty() && self.connection.streams() {
            self.connection.progressed(clock::now());
        }
    }

    /// Fails when a client of HTTP/2 floods.
    fn allow(&mut self, new: &[u8]) -> io::Result<()> {
        let opened = self.connection.opened;
        if self.flood.as_mut().is_none_or(|flood| flood.received(new, opened, clock::now)) {
            return Ok(());
        }
        // Counted; there is no request to answer.
        drop((self.malformed)(MalformedKind::Flood));
        Err(io::ErrorKind::InvalidData.into())
    }

    fn wrote(&mut self, written: &io::Result<usize>) {
        if let (Some(flood), Ok(bytes)) = (&mut self.flood, written) {
            flood.sent(*bytes);
        }
    }

    /// Whether the answer that is being written is one the proxy did not author.
    fn answers_malformed(&self) -> bool {
        !self.connection.is_h2() && self.connection.stage() != Stage::Exchange
    }

    /// Begins to send our own answer, once.
    fn refuse(&mut self, kind: MalformedKind) {
        if matches!(self.answer, Answer::None) {
            self.answer = Answer::Sending((self.malformed)(kind), 0);
        }
    }

    /// Sends what is left of our own answer.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Answer::Sending(bytes, sent) = &mut self.answer {
            while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
                *sent = sent.saturating_add(ready!(self.held.poll_write(&mut self.io, cx, rest))?);
            }
            self.answer = Answer::Sent;
        }
        self.held.poll_flush(&mut self.io, cx)
    }

    /// What a read does that has to wait.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Who waits for the client has nothing to add now: what is written must not wait with it. Pingora flushes a body of
        // known length at its end only. An error shows with the next write.
        if !self.held.is_empty() || self.io.buffers() {
            let _ = self.held.poll_flush(&mut self.io, cx);
            self.sent();
        }
        let error = ready!(self.poll_deadline(cx));
        self.poll_expired(cx, error)
    }

    /// What a read does whose deadline has passed: a client that was sending a head is told so, others are just closed.
    fn poll_expired(&mut self, cx: &mut Context<'_>, error: io::Error) -> Poll<io::Result<()>> {
        match self.connection.stage() {
            Stage::Head if !self.connection.is_h2() => {
                self.refuse(MalformedKind::HeadTooSlow);
                ready!(self.poll_answer(cx))?;
            }
            Stage::Exchange => self.connection.expire(),
            Stage::Head | Stage::Idle => {}
        }
        Poll::Ready(Err(error))
    }
}

impl AsyncRead for EdgeStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.rewound.is_empty() {
            return Poll::Ready(self.read_again(cx, buf));
        }
        if self.connection.ending() != Ending::Open {
            return self.poll_leave(cx);
        }
        let reads_head = self.connection.stage() == Stage::Head && !self.connection.is_h2();
        if reads_head && self.head_bytes > self.connection.limits.header_bytes_max {
            self.refuse(MalformedKind::HeadTooLarge);
            ready!(self.poll_answer(cx))?;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(result) => {
                let after = buf.filled().len();
                self.received(after.saturating_sub(before));
                let new = buf.filled().get(before..).unwrap_or_default();
                Poll::Ready(result.and_then(|()| self.allow(new)))
            }
            Poll::Pending => self.poll_waiting(cx),
        }
    }
}

impl AsyncWrite for EdgeStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.answers_malformed() {
            let connect = buf.starts_with(b"HTTP/1.1 405");
            self.refuse(if connect { MalformedKind::Connect } else { MalformedKind::Syntax });
            ready!(self.poll_answer(cx))?;
            return Poll::Ready(Ok(buf.len()));
        }
        if self.connection.known_closer().is_some() {
            return self.poll_write_frames(cx, buf);
        }
        let this = &mut *self;
        let written = ready!(this.held.poll_write(&mut this.io, cx, buf));
        this.wrote(&written);
        this.sent();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.answers_malformed() || self.connection.known_closer().is_some() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return self.poll_write(cx, first);
        }
        let this = &mut *self;
        let written = ready!(this.held.poll_write_vectored(&mut this.io, cx, bufs));
        this.wrote(&written);
        this.sent();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.connection.ending() != Ending::Open {
            return this.poll_flush_frames(cx);
        }
        // TLS may hold bytes that plain TCP has sent.
        if this.held.is_empty() && !this.io.buffers() {
            return Poll::Ready(Ok(()));
        }
        ready!(this.held.poll_flush(&mut this.io, cx))?;
        this.sent();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        if self.connection.ending() == Ending::Cut {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The connection a Pingora session runs on.
pub fn connection_of(digest: Option<&pingora::protocols::Digest>) -> Option<Arc<Connection>> {
    let data = digest?.proxy_digest.as_ref()?.user_data.as_ref()?;
    data.downcast_ref::<Arc<Connection>>().cloned()
}
