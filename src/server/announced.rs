//! Connections that come through a proxy, which says in a header whose they are: the PROXY protocol.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tracing::warn;

use crate::proxy_protocol::{self, Ends, Malformed, START, V1_BYTES_MAX, V1_START, V2_FIXED, V2_START};

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Whoever connects may not say whose connection it is.
    Untrusted,
    Malformed(Malformed),
    /// The header did not arrive in time.
    TimedOut,
    /// It was closed in the middle of the header.
    Cut,
    /// It was closed without a byte, as those do who only look whether somebody listens.
    Left,
}

impl Failure {
    /// The reason as it is counted. `None`: nothing was refused.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Untrusted => Some("proxy_protocol_untrusted"),
            Self::Malformed(_) => Some("proxy_protocol_malformed"),
            Self::TimedOut => Some("proxy_protocol_timeout"),
            Self::Cut => Some("proxy_protocol_cut"),
            Self::Left => None,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Untrusted => "it is in none of the networks of `proxy_protocol`",
            Self::Malformed(Malformed(why)) => why,
            Self::TimedOut => "the header did not arrive within `limits.header_timeout`",
            Self::Cut | Self::Left => "it was closed before the end of the header",
        }
    }
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Cut
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Reads the header and not a byte more: what follows may be a TLS handshake. `None`: the proxy speaks for itself.
pub async fn header(stream: &mut TcpStream, within: Duration) -> Result<Option<Ends>, Failure> {
    tokio::time::timeout(within, read(stream)).await.unwrap_or(Err(Failure::TimedOut))
}

async fn read(stream: &mut TcpStream) -> Result<Option<Ends>, Failure> {
    let mut start = [0; START];
    let mut length = 0;
    while let Some(free) = start.get_mut(length..).filter(|free| !free.is_empty()) {
        let read = stream.read(free).await?;
        length = length.saturating_add(read);
        let seen = start.get(..length).unwrap_or_default();
        if read == 0 {
            return Err(if length == 0 { Failure::Left } else { Failure::Cut });
        }
        // Who sends something else is not waited for.
        if !V2_START.starts_with(seen) && !seen.iter().zip(V1_START).all(|(seen, wanted)| seen == wanted) {
            return Err(Malformed("it begins with no header of the PROXY protocol").into());
        }
    }
    if start == *V2_START { rest_of_v2(stream, &start).await } else { rest_of_v1(stream, &start).await }
}

async fn rest_of_v2(stream: &mut TcpStream, start: &[u8; START]) -> Result<Option<Ends>, Failure> {
    let mut fixed = [0; V2_FIXED];
    let (begin, end) = fixed.split_at_mut(START);
    begin.copy_from_slice(start);
    stream.read_exact(end).await?;
    let mut header = fixed.to_vec();
    header.resize(V2_FIXED.saturating_add(proxy_protocol::v2_rest(&fixed)?), 0);
    stream.read_exact(header.get_mut(V2_FIXED..).unwrap_or_default()).await?;
    Ok(proxy_protocol::v2(&header)?)
}

/// Where a line ends is not known before: what has come is looked at first, and taken up to the end of the line.
async fn rest_of_v1(stream: &mut TcpStream, start: &[u8; START]) -> Result<Option<Ends>, Failure> {
    let mut line = start.to_vec();
    while !line.ends_with(b"\n") {
        let mut seen = [0; V1_BYTES_MAX];
        let room = V1_BYTES_MAX.saturating_sub(line.len());
        if room == 0 {
            return Err(Malformed("the line is longer than 107 bytes").into());
        }
        let count = stream.peek(seen.get_mut(..room).unwrap_or_default()).await?;
        let peeked = seen.get(..count).unwrap_or_default();
        let take = peeked.iter().position(|byte| *byte == b'\n').map_or(count, |at| at.saturating_add(1));
        let taken = seen.get_mut(..take).filter(|taken| !taken.is_empty()).ok_or(Failure::Cut)?;
        stream.read_exact(taken).await?;
        line.extend_from_slice(taken);
    }
    Ok(proxy_protocol::v1(&line)?)
}

/// How long none may come for the next one to be told of again.
const QUIET: Duration = Duration::from_secs(60);

/// Tells of connections that were closed: of the first one, and then of none until there was a quiet minute.
#[derive(Default)]
pub struct Episodes(Mutex<HashMap<(SocketAddr, &'static str), Instant>>);

impl Episodes {
    /// One more, for this reason.
    pub fn tell(&self, listener: SocketAddr, peer: SocketAddr, failure: Failure, now: Instant) {
        let Some(reason) = failure.reason() else { return };
        if self.begins(listener, reason, now) {
            let why = failure.words();
            warn!(%listener, %peer, reason, "a connection was closed for its PROXY protocol header: {why}; others like it are only counted");
        }
    }

    fn begins(&self, listener: SocketAddr, reason: &'static str, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.insert((listener, reason), now);
        before.is_none_or(|before| now.saturating_duration_since(before) > QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::proxy_protocol::Version;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    const LONG: Duration = Duration::from_secs(120);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    /// What becomes of a header that is sent in pieces of this size, and what is left on the connection.
    async fn sent(start: &[u8], piece: usize, then: &[u8]) -> (Result<Option<Ends>, Failure>, Vec<u8>) {
        let (mut client, mut server) = pair().await;
        let bytes = [start, then].concat();
        let sending = tokio::spawn(async move {
            for piece in bytes.chunks(piece) {
                if client.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        let read = header(&mut server, LONG).await;
        let mut rest = Vec::new();
        // Of one that is refused nothing more is wanted.
        if read.is_ok() {
            server.read_to_end(&mut rest).await.unwrap();
        }
        sending.await.unwrap();
        (read, rest)
    }

    #[tokio::test]
    async fn not_a_byte_more_than_the_header_is_taken_however_it_comes() {
        let told = Ends { source: "192.0.2.7:5".parse().unwrap(), destination: "198.51.100.1:443".parse().unwrap() };
        for version in [Version::V1, Version::V2] {
            let written = proxy_protocol::write(version, &told);
            for piece in [1, 2, 3, 11, 12, 13, 16, 17, 4096] {
                // What follows looks like the end of a line, and like a header.
                for then in [&b"\n\r\nPROXY "[..], b"GET / HTTP/1.1\r\n\r\n", b""] {
                    let (read, rest) = sent(&written, piece, then).await;
                    assert_eq!(read, Ok(Some(told)), "{version:?} in pieces of {piece}");
                    assert_eq!(rest, then, "{version:?} in pieces of {piece}");
                }
            }
        }
        assert_eq!(sent(b"PROXY UNKNOWN\r\n", 4096, b"x").await, (Ok(None), b"x".to_vec()));
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
        for bytes in [&b"G"[..], b"PROXI", b"\r\n\r\n\0\r\nQUIX", b"\x16\x03\x01"] {
            let (mut client, mut server) = pair().await;
            client.write_all(bytes).await.unwrap();
            // The client stays; nothing more is waited for.
            let read = header(&mut server, LONG).await;
            assert!(matches!(read, Err(Failure::Malformed(_))), "{bytes:?}: {read:?}");
        }
        let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16)).into_bytes();
        assert_eq!(sent(&line(107), 5, b"").await.0, Ok(None));
        assert!(matches!(sent(&line(108), 5, b"").await.0, Err(Failure::Malformed(_))));
        let mut endless = V2_START.to_vec();
        endless.extend([0x21, 0x11, 0xff, 0xff]);
        let (mut client, mut server) = pair().await;
        client.write_all(&endless).await.unwrap();
        assert!(matches!(header(&mut server, LONG).await, Err(Failure::Malformed(_))));
    }

    #[tokio::test]
    async fn who_is_too_slow_or_leaves_is_closed() {
        assert_eq!(sent(b"", 1, b"").await.0, Err(Failure::Left));
        assert_eq!(sent(b"PROXY TCP4 192.0.2.7 ", 3, b"").await.0, Err(Failure::Cut));
        assert_eq!(sent(V2_START, 5, b"").await.0, Err(Failure::Cut));
        let (mut client, mut server) = pair().await;
        client.write_all(b"PROXY TCP4 1").await.unwrap();
        assert_eq!(header(&mut server, Duration::from_millis(50)).await, Err(Failure::TimedOut));
    }

    #[test]
    fn an_episode_is_told_of_once() {
        let (episodes, now) = (Episodes::default(), clock::now());
        let (listener, reason) = ("127.0.0.1:1".parse().unwrap(), "proxy_protocol_cut");
        assert!(episodes.begins(listener, reason, now));
        assert!(!episodes.begins(listener, reason, now + QUIET));
        assert!(!episodes.begins(listener, reason, now + QUIET * 2), "it goes on as long as there is no quiet minute");
        assert!(episodes.begins(listener, "proxy_protocol_untrusted", now));
        assert!(episodes.begins(listener, reason, now + QUIET * 4));
    }
}
