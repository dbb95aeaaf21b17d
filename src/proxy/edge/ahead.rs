//! What is read before its turn, and looked at again.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead as _, ReadBuf};

use super::closing::Ending;
use super::{EdgeStream, Stage};

impl EdgeStream {
    /// Has these bytes read again, before anything else.
    pub fn rewind(&mut self, mut bytes: BytesMut) {
        bytes.unsplit(mem::take(&mut self.rewound));
        self.rewound = bytes;
    }

    /// Reads what was rewound. Within an exchange what has come since goes with it: a body in one piece more is one write more to
    /// the service.
    pub(super) fn read_again(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let again = self.rewound.split_to(self.rewound.len().min(buf.remaining()));
        buf.put_slice(&again);
        self.allow(&again)?;
        let connection = &self.connection;
        let reads_on = self.rewound.is_empty() && connection.stage() == Stage::Exchange && !connection.is_h2();
        if reads_on && buf.remaining() > 0 && connection.ending() == Ending::Open {
            let before = buf.filled().len();
            // The end of the stream, and what went wrong with it, is seen by who reads next.
            if Pin::new(&mut self.io).poll_read(cx, buf).is_ready() {
                self.received(buf.filled().len().saturating_sub(before));
            }
        }
        Ok(())
    }

    /// Reads what a client sends ahead of its turn. It is no part of the exchange, and no progress of it.
    pub fn poll_read_ahead(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Pending => self.poll_waiting(cx),
            read @ Poll::Ready(_) => read,
        }
    }

    /// What was read ahead is the beginning of the next request.
    pub fn goes_on_with(&mut self, bytes: usize) {
        if self.connection.stage() == Stage::Idle {
            self.received(bytes);
        }
    }

    /// Ready when the stage has lasted too long, also while nothing is read.
    pub fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let error = ready!(self.poll_deadline(cx));
        if self.connection.stage() == Stage::Exchange {
            self.connection.expired.store(true, Ordering::Relaxed);
        }
        Poll::Ready(error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::context::Scheme;
    use crate::proxy::edge::{Connection, EdgeLimits};
    use crate::proxy::socket::Socket;

    const LONG: Duration = Duration::from_secs(60);

    /// A stream that its client has written `first` to.
    async fn connected(first: &[u8]) -> (TcpStream, EdgeStream, Arc<Connection>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        client.write_all(first).await.unwrap();
        accepted.readable().await.unwrap();
        let limits = EdgeLimits { header_bytes_max: 1000, header_timeout: LONG, idle_timeout: LONG };
        let connection = Arc::new(Connection::new(peer, limits, Scheme::Http));
        let io = Socket::Plain(accepted);
        let stream = EdgeStream::new(io, Arc::clone(&connection), Arc::new(|_| Vec::new())).unwrap();
        (client, stream, connection)
    }

    async fn read(stream: &mut EdgeStream, most: usize) -> Vec<u8> {
        let mut buf = vec![0; most];
        let read = stream.read(&mut buf).await.unwrap();
        buf.truncate(read);
        buf
    }

    #[tokio::test]
    async fn within_an_exchange_what_has_come_since_is_read_with_what_is_read_again() {
        let (client, mut stream, connection) = connected(b"first").await;
        // A head: what is behind it is nobody's yet.
        stream.rewind(BytesMut::from("head"));
        assert_eq!(read(&mut stream, 100).await, b"head");
        connection.begin();
        stream.rewind(BytesMut::from("again "));
        assert_eq!(read(&mut stream, 4).await, b"agai");
        assert_eq!(read(&mut stream, 100).await, b"n first");
        // The end of the stream is told by itself.
        drop(client);
        stream.rewind(BytesMut::from("last"));
        assert_eq!(read(&mut stream, 100).await, b"last");
        assert_eq!(read(&mut stream, 100).await, b"");
    }

    #[tokio::test]
    async fn what_is_rewound_later_is_read_first() {
        let (_client, mut stream, _) = connected(b"later").await;
        stream.rewind(BytesMut::from("two"));
        stream.rewind(BytesMut::from("one "));
        assert_eq!(read(&mut stream, 100).await, b"one two");
    }
}
