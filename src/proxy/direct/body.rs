//! The body of a service's answer on its way to the client: as it is read, never more of it than one read.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead as _, ReadBuf};

use super::client::{Client, READ, poll_read};
use super::line::Line;
use crate::proxy::exchange::Exchange;
use crate::wire::{Chunked, Framing, LAST_CHUNK, Malformed, Piece, write_chunk};

/// The passage of one body.
pub struct Passage {
    rest: Rest,
    /// What the client has to be sent next; the head to begin with.
    out: Vec<u8>,
    /// How much of that is written.
    written: usize,
    /// How much of the body there was so far, in bytes.
    pub bytes: u64,
    /// Nothing came behind the end, and there was one that does not end the connection.
    pub is_clean: bool,
}

/// What is still to come.
pub enum Rest {
    Done,
    Length(u64),
    Chunked(Chunked),
    /// Until the service closes. The client gets it in chunks.
    Close,
}

impl Rest {
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunked::default()),
            Framing::Close => Self::Close,
        }
    }
}

impl Passage {
    pub fn new(framing: Framing, head: Vec<u8>) -> Self {
        let rest = Rest::new(framing);
        let is_clean = !matches!(rest, Rest::Close);
        Self { rest, out: head, written: 0, bytes: 0, is_clean }
    }

    /// Whether the service has nothing more to send.
    pub fn is_done(&self) -> bool {
        matches!(self.rest, Rest::Done)
    }

    /// Passes on what came with the head, and reads until the end of the body was sent.
    ///
    /// # Errors
    /// Either side broke off.
    pub async fn pass(&mut self, client: &mut Client, line: &mut Line, x: &mut Exchange) -> Result<(), Box<Error>> {
        poll_fn(|cx| self.poll(client, line, x, cx)).await
    }

    fn poll(
        &mut self,
        client: &mut Client,
        line: &mut Line,
        x: &mut Exchange,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Box<Error>>> {
        loop {
            match client.poll_write(cx, &self.out, &mut self.written) {
                Poll::Ready(written) => written?,
                Poll::Pending => return client.poll_gone(cx).map(Err),
            }
            self.out.clear();
            self.written = 0;
            if self.is_done() {
                self.is_clean &= line.buffer.is_empty();
                // What the client has sent ahead may wait in a filter, where nobody looks at what is held for it.
                return match client.poll_flush(cx) {
                    Poll::Pending => client.poll_gone(cx).map(Err),
                    flushed @ Poll::Ready(_) => flushed,
                };
            }
            let taken = if line.buffer.is_empty() {
                let Line { stream, buffer, .. } = &mut *line;
                let read = |cx: &mut Context<'_>, buf: &mut ReadBuf<'_>| Pin::new(stream).poll_read(cx, buf);
                match poll_read(cx, READ, read, |cx, new| self.take(new, buffer, client, x, cx)) {
                    Poll::Ready(Ok(taken)) => taken,
                    Poll::Ready(Err(error)) => {
                        Err(Error::because(ErrorType::ReadError, "reading an answer's body", error).into_up())
                    }
                    Poll::Pending => {
                        // What comes later must not hold up what is there.
                        if let Poll::Ready(flushed) = client.poll_flush(cx) {
                            flushed?;
                        }
                        return client.poll_gone(cx).map(Err);
                    }
                }
            } else {
                let new = line.buffer.split();
                self.take(&new, &mut line.buffer, client, x, cx)
            };
            taken?;
        }
    }

    /// Takes what the service has sent; nothing is the end of its stream.
    fn take(
        &mut self,
        new: &[u8],
        buffer: &mut BytesMut,
        client: &mut Client,
        x: &mut Exchange,
        cx: &mut Context<'_>,
    ) -> Result<(), Box<Error>> {
        match &mut self.rest {
            Rest::Done => {}
            Rest::Close if new.is_empty() => {
                self.out.extend_from_slice(LAST_CHUNK);
                self.end(x);
            }
            _ if new.is_empty() => return Err(Error::new_up(ErrorType::ConnectionClosed)),
            Rest::Close => {
                self.bytes = self.bytes.saturating_add(new.len() as u64);
                keep(x, new);
                write_chunk(&mut self.out, new);
            }
            Rest::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let (part, beyond) = new.split_at_checked(most).unwrap_or((new, &[]));
                *left = left.saturating_sub(part.len() as u64);
                let ends = *left == 0;
                self.bytes = self.bytes.saturating_add(part.len() as u64);
                self.is_clean &= beyond.is_empty();
                keep(x, part);
                if ends {
                    self.end(x);
                }
                self.hand_on(part, client, cx)?;
            }
            Rest::Chunked(_) => {
                buffer.extend_from_slice(new);
                self.take_chunks(buffer, x)?;
            }
        }
        Ok(())
    }

    /// Straight from where it was read to the client, as far as that takes it.
    fn hand_on(&mut self, part: &[u8], client: &mut Client, cx: &mut Context<'_>) -> Result<(), Box<Error>> {
        let mut written = 0;
        if let Poll::Ready(done) = client.poll_write(cx, part, &mut written) {
            done?;
        }
        self.out.extend_from_slice(part.get(written..).unwrap_or_default());
        Ok(())
    }

    fn take_chunks(&mut self, buffer: &mut BytesMut, x: &mut Exchange) -> Result<(), Box<Error>> {
        let Rest::Chunked(chunked) = &mut self.rest else { return Ok(()) };
        loop {
            match chunked.next(buffer) {
                Ok(Piece::More) => return Ok(()),
                Ok(Piece::Data(data)) => {
                    self.bytes = self.bytes.saturating_add(data.len() as u64);
                    keep(x, &data);
                    write_chunk(&mut self.out, &data);
                }
                Ok(Piece::End(_)) => {
                    self.out.extend_from_slice(LAST_CHUNK);
                    self.end(x);
                    return Ok(());
                }
                Err(Malformed) => return Err(Error::new_up(ErrorType::InvalidHTTPHeader)),
            }
        }
    }

    fn end(&mut self, x: &mut Exchange) {
        self.rest = Rest::Done;
        end(x);
    }
}

/// The service has done its part: before the client has all of it, what that asks next finds room, and a breaker that this
/// answer closed.
pub fn end(x: &mut Exchange) {
    if let Some(forward) = &mut x.forward {
        forward.keep(&[], true);
        forward.end();
    }
    x.place = None;
}

/// Keeps a piece of an answer that may be one to keep.
pub fn keep(x: &mut Exchange, piece: &[u8]) {
    if let Some(forward) = &mut x.forward
        && forward.keeping.is_some()
    {
        forward.keep(piece, false);
    }
}
