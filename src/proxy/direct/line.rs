//! Connections to targets in plain text, kept for the next request.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pingora::{Error, ErrorType};
use rustix::net::sockopt;
use tokio::io::{AsyncRead as _, AsyncWrite as _};
use tokio::net::TcpStream;

use super::client::{READ, append, poll_read};
use crate::proxy::peer::TCP_KEEPALIVE;

/// A connection to a target.
pub struct Line {
    pub stream: TcpStream,
    /// What the target has sent that was not taken yet.
    pub buffer: BytesMut,
    /// How much of that was searched for the end of a head.
    pub scanned: usize,
}

impl Line {
    /// Connects.
    ///
    /// # Errors
    /// As Pingora names them.
    pub async fn connect(address: SocketAddr, within: Duration) -> Result<Self, Box<Error>> {
        let stream = match tokio::time::timeout(within, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let kind = match error.kind() {
                    io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                    io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
                    io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
                    _ => ErrorType::ConnectError,
                };
                return Err(Error::because(kind, format!("connecting to {address}"), error).into_up());
            }
            Err(_) => {
                return Err(Error::explain(ErrorType::ConnectTimedout, format!("connecting to {address}")).into_up());
            }
        };
        // Without these it serves all the same.
        let _ = stream.set_nodelay(true);
        let _ = keep_alive(&stream);
        Ok(Self { stream, buffer: BytesMut::new(), scanned: 0 })
    }

    /// Reads some more into the buffer; 0 bytes are the end.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { stream, buffer, .. } = self;
        poll_read(cx, READ, |cx, buf| Pin::new(stream).poll_read(cx, buf), |_, new| append(buffer, new))
    }

    /// Writes what the target takes of `out` from `sent` on.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, out: &[u8], sent: &mut usize) -> Poll<io::Result<()>> {
        while let Some(rest) = out.get(*sent..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *sent = sent.saturating_add(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the target neither closed it nor sent what nobody asked for. Costs a system call only when something arrived.
    fn is_quiet(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, TCP_KEEPALIVE.idle)?;
    sockopt::set_tcp_keepintvl(stream, TCP_KEEPALIVE.interval)?;
    sockopt::set_tcp_keepcnt(stream, u32::try_from(TCP_KEEPALIVE.count).unwrap_or(u32::MAX))
}

/// Unused connections, by address. Of one worker thread: the lock is never waited for.
pub struct Pool {
    kept: Mutex<Kept>,
    /// How many there are at most.
    size: usize,
}

#[derive(Default)]
struct Kept {
    lines: HashMap<SocketAddr, Vec<Unused>>,
    count: usize,
}

struct Unused {
    line: Line,
    /// How long it may be used again.
    until: Option<Instant>,
}

impl Pool {
    pub fn new(size: usize) -> Self {
        Self { kept: Mutex::default(), size }
    }

    /// The connection that was used last. Those found dead on the way are let go.
    pub fn take(&self, address: SocketAddr, now: Instant) -> Option<Line> {
        let mut kept = self.kept();
        let Kept { lines, count } = &mut *kept;
        let lines = lines.get_mut(&address)?;
        while let Some(unused) = lines.pop() {
            *count = count.saturating_sub(1);
            if unused.is_good(now) {
                return Some(unused.line);
            }
        }
        None
    }

    /// Keeps a connection for `keepalive` at most, if there is room.
    pub fn put(&self, address: SocketAddr, line: Line, keepalive: Option<Duration>, now: Instant) {
        let mut kept = self.kept();
        if kept.count < self.size {
            kept.count = kept.count.saturating_add(1);
            let until = keepalive.and_then(|keepalive| now.checked_add(keepalive));
            kept.lines.entry(address).or_default().push(Unused { line, until });
        }
    }

    /// Lets go of those that are of no use any more.
    pub fn sweep(&self, now: Instant) {
        let mut kept = self.kept();
        kept.lines.retain(|_, lines| {
            lines.retain(|unused| unused.is_good(now));
            !lines.is_empty()
        });
        kept.count = kept.lines.values().map(Vec::len).sum();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unused {
    fn is_good(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until) && self.line.is_quiet()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    const SOON: Duration = Duration::from_secs(10);

    /// A line, and the other end of it.
    async fn line(listener: &TcpListener) -> (Line, TcpStream) {
        let address = listener.local_addr().unwrap();
        let (line, accepted) = tokio::join!(Line::connect(address, SOON), listener.accept());
        (line.unwrap_or_else(|error| panic!("{error}")), accepted.unwrap().0)
    }

    fn port(line: &Line) -> u16 {
        line.stream.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn the_last_one_that_was_used_is_used_again_and_there_is_a_bound() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (pool, now) = (Pool::new(2), clock::now());
        let mut ends = Vec::new();
        let mut ports = Vec::new();
        for _ in 0..3 {
            let (line, end) = line(&listener).await;
            ports.push(port(&line));
            pool.put(address, line, None, now);
            ends.push(end);
        }
        let kept: Vec<u16> = std::iter::from_fn(|| pool.take(address, now)).map(|line| port(&line)).collect();
        assert_eq!(kept, [ports[1], ports[0]], "the third had no room");
        assert!(pool.take("127.0.0.1:1".parse().unwrap(), now).is_none());
        let (line, _end) = line(&listener).await;
        pool.put(address, line, None, now);
        assert!(pool.take(address, now).is_some(), "those that are taken leave room");
    }

    #[tokio::test]
    async fn an_unused_one_is_kept_for_its_time_and_no_longer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (pool, now) = (Pool::new(9), clock::now());
        for (after, is_kept) in [(SOON - Duration::from_millis(1), true), (SOON, false)] {
            let (line, _end) = line(&listener).await;
            pool.put(address, line, Some(SOON), now);
            assert_eq!(pool.take(address, now + after).is_some(), is_kept, "{after:?}");
        }
    }

    #[tokio::test]
    async fn one_that_was_closed_or_that_speaks_unasked_is_not_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (pool, now) = (Pool::new(9), clock::now());
        for speaks in [false, true] {
            let (line, mut end) = line(&listener).await;
            if speaks {
                end.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            }
            drop(end);
            line.stream.readable().await.unwrap();
            pool.put(address, line, None, now);
            pool.sweep(now);
            {
                let Kept { lines, count } = &*pool.kept();
                assert_eq!((lines.len(), *count), (0, 0));
            }
            assert!(pool.take(address, now).is_none());
        }
    }
}
