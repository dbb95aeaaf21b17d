//! The client's side of a plain exchange: what it has sent, and what it is sent.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::proxy::edge::EdgeStream;

/// What is read at once, in bytes.
pub const READ: usize = 64 * 1024;
/// What a client may send ahead of its next turn, in bytes. More waits in its socket.
const AHEAD_MAX: usize = 16 * 1024;
/// How long the end of a connection may take to be told.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

thread_local! {
    /// Where sockets are read into before it is known what becomes of the bytes: an idle connection holds no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// Reads once and gives what came to `take`; nothing is the end of the stream.
pub fn poll_read<T>(
    cx: &mut Context<'_>,
    most: usize,
    read: impl FnOnce(&mut Context<'_>, &mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    take: impl FnOnce(&mut Context<'_>, &[u8]) -> T,
) -> Poll<io::Result<T>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let scratch = scratch.get_mut(..most.min(READ)).unwrap_or_default();
        let mut buf = ReadBuf::new(scratch);
        ready!(read(cx, &mut buf))?;
        Poll::Ready(Ok(take(cx, buf.filled())))
    })
}

/// A client between and within its requests.
pub struct Client {
    pub stream: EdgeStream,
    /// What it has sent that no request has taken.
    pub buffer: BytesMut,
    /// How much of that was searched for the end of a head.
    pub scanned: usize,
}

impl Client {
    pub fn new(stream: EdgeStream) -> Self {
        Self { stream, buffer: BytesMut::new(), scanned: 0 }
    }

    /// The stream, to be read from the beginning of what no request has taken.
    pub fn into_stream(mut self) -> EdgeStream {
        self.stream.rewind(self.buffer);
        self.stream
    }

    /// Puts a head back in front of what follows it.
    pub fn give_back(&mut self, head: &Bytes) {
        let mut whole = BytesMut::with_capacity(head.len().saturating_add(self.buffer.len()));
        whole.extend_from_slice(head);
        whole.extend_from_slice(&self.buffer);
        self.buffer = whole;
        self.scanned = 0;
    }

    /// Reads some more of a head; 0 bytes are the end.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { stream, buffer, .. } = self;
        poll_read(cx, AHEAD_MAX, |cx, buf| Pin::new(stream).poll_read(cx, buf), |_, new| append(buffer, new))
    }

    /// Ready when nobody waits for the answer any more: the client left, or its deadline passed.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        let error = loop {
            if self.buffer.len() >= AHEAD_MAX {
                break ready!(self.stream.poll_late(cx));
            }
            let Self { stream, buffer, .. } = self;
            let read =
                poll_read(cx, AHEAD_MAX, |cx, buf| stream.poll_read_ahead(cx, buf), |_, new| append(buffer, new));
            match ready!(read) {
                Ok(0) => return Poll::Ready(Error::new_down(ErrorType::ConnectionClosed)),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        let kind = if error.kind() == io::ErrorKind::TimedOut { ErrorType::ReadTimedout } else { ErrorType::ReadError };
        Poll::Ready(Error::because(kind, "waiting with the client", error).into_down())
    }

    pub async fn gone(&mut self) -> Box<Error> {
        poll_fn(|cx| self.poll_gone(cx)).await
    }

    /// Waits for something for as long as the client is there. `begins`: called when it has to be waited for.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn while_there<T>(
        &mut self,
        begins: impl FnOnce(),
        awaited: impl Future<Output = T>,
    ) -> Result<T, Box<Error>> {
        tokio::select! {
            // First: what waits for nothing costs no look at the connection.
            biased;
            done = awaited => Ok(done),
            left = async { begins(); self.gone().await } => Err(left),
        }
    }

    /// Writes what it takes of `out` from `sent` on.
    ///
    /// # Errors
    /// The client is gone.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, out: &[u8], sent: &mut usize) -> Poll<Result<(), Box<Error>>> {
        while let Some(rest) = out.get(*sent..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest)).map_err(lost)?;
            *sent = sent.saturating_add(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what was written.
    ///
    /// # Errors
    /// As [`Self::poll_write`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<Error>>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(lost)
    }

    /// Writes and sends all of it. The deadline of the connection holds.
    ///
    /// # Errors
    /// As [`Self::poll_write`].
    pub async fn send(&mut self, out: &[u8]) -> Result<(), Box<Error>> {
        let mut sent = 0;
        poll_fn(|cx| {
            let written = match self.poll_write(cx, out, &mut sent) {
                Poll::Ready(Ok(())) => self.poll_flush(cx),
                other => other,
            };
            if written.is_ready() {
                return written;
            }
            let late = ready!(self.stream.poll_late(cx));
            Poll::Ready(Err(lost(late)))
        })
        .await
    }

    /// Tells the client that nothing more comes.
    pub async fn close(mut self) {
        // Gone or not, this is the end.
        let _ = tokio::time::timeout(CLOSE_WAIT, self.stream.shutdown()).await;
    }
}

/// How much there is to append.
pub fn append(buffer: &mut BytesMut, new: &[u8]) -> usize {
    buffer.extend_from_slice(new);
    new.len()
}

fn lost(error: io::Error) -> Box<Error> {
    let timed_out = error.kind() == io::ErrorKind::TimedOut;
    let kind = if timed_out { ErrorType::WriteTimedout } else { ErrorType::WriteError };
    Error::because(kind, "writing to the client", error).into_down()
}
