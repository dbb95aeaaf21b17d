//! What is written to a client but not sent yet.
//!
//! Head and body of a response come one after the other; each system call costs more than copying a few kilobytes. So
//! they are held until somebody flushes, and what is too large to be held leaves together with what is.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Most that is held, in bytes.
const HELD_BYTES_MAX: usize = 16 * 1024;
/// Largest piece that is copied to be held, in bytes. Beyond, a copy and the memory for it cost about as much as a system
/// call: measured with a body of 10 KiB, which leaves in one call together with its head.
const PIECE_BYTES_MAX: usize = 4 * 1024;
/// An idle connection keeps no larger buffer than this, in bytes.
const KEPT_BYTES_MAX: usize = 2 * 1024;

/// Bytes on their way to a client.
#[derive(Default)]
pub struct Held {
    bytes: Vec<u8>,
    /// How many of them are sent by now.
    sent: usize,
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// Takes `buf` in, or sends it along with what is held when it is too large.
    pub fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.takes(buf.len()) {
            self.bytes.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        while !self.is_empty() {
            let both = [IoSlice::new(self.rest()), IoSlice::new(buf)];
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &both))?;
            let of_buf = written.saturating_sub(self.rest().len());
            self.advance(written)?;
            if of_buf > 0 {
                return Poll::Ready(Ok(of_buf));
            }
        }
        Pin::new(io).poll_write(cx, buf)
    }

    /// The same for several pieces.
    pub fn poll_write_vectored<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().fold(0, |sum: usize, buf| sum.saturating_add(buf.len()));
        if self.takes(length) {
            bufs.iter().for_each(|buf| self.bytes.extend_from_slice(buf));
            return Poll::Ready(Ok(length));
        }
        ready!(self.poll_flush(io, cx))?;
        Pin::new(io).poll_write_vectored(cx, bufs)
    }

    /// Sends everything that is held.
    pub fn poll_flush<W: AsyncWrite + Unpin>(&mut self, io: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, self.rest()))?;
            self.advance(written)?;
        }
        // Nothing to do for plain TCP; TLS may have taken bytes that it could not send yet.
        Pin::new(io).poll_flush(cx)
    }

    fn takes(&self, length: usize) -> bool {
        length <= PIECE_BYTES_MAX && self.bytes.len().saturating_add(length) <= HELD_BYTES_MAX
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    fn advance(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.sent = self.sent.saturating_add(written);
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES_MAX);
            self.sent = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::future::poll_fn;
    use tokio::io::AsyncReadExt as _;

    /// Writes all of `pieces` through a pipe of `capacity` bytes, flushing after those that say so; gives what came out.
    async fn through(pieces: Vec<(Vec<u8>, bool)>, capacity: usize) -> Vec<u8> {
        let (mut near, mut far) = tokio::io::duplex(capacity);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        let mut held = Held::default();
        for (piece, flush) in pieces {
            let mut rest = piece.as_slice();
            while !rest.is_empty() {
                let written = poll_fn(|cx| held.poll_write(&mut near, cx, rest)).await.unwrap();
                rest = &rest[written..];
            }
            if flush {
                poll_fn(|cx| held.poll_flush(&mut near, cx)).await.unwrap();
            }
        }
        poll_fn(|cx| held.poll_flush(&mut near, cx)).await.unwrap();
        assert!(held.is_empty() && held.bytes.capacity() <= HELD_BYTES_MAX);
        drop(near);
        reader.await.unwrap()
    }

    #[tokio::test]
    async fn what_fits_is_held_and_one_byte_more_is_not() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        let mut held = Held::default();
        let piece = vec![b'a'; PIECE_BYTES_MAX];
        for so_far in 1..=HELD_BYTES_MAX / PIECE_BYTES_MAX {
            assert_eq!(poll_fn(|cx| held.poll_write(&mut near, cx, &piece)).await.unwrap(), PIECE_BYTES_MAX);
            assert_eq!(held.rest().len(), so_far * PIECE_BYTES_MAX);
        }
        // The pipe writes one piece at a time, so the held ones go first, then the new one by itself.
        assert_eq!(poll_fn(|cx| held.poll_write(&mut near, cx, b"b")).await.unwrap(), 1);
        assert!(held.is_empty());
        let mut got = vec![0; HELD_BYTES_MAX + 1];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(got.last(), Some(&b'b'));
    }

    #[tokio::test]
    async fn a_large_piece_leaves_at_once_with_what_is_held() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        let mut held = Held::default();
        assert_eq!(poll_fn(|cx| held.poll_write(&mut near, cx, b"head")).await.unwrap(), 4);
        let piece = vec![b'a'; PIECE_BYTES_MAX + 1];
        assert_eq!(poll_fn(|cx| held.poll_write(&mut near, cx, &piece)).await.unwrap(), piece.len());
        assert!(held.is_empty());
        let mut got = vec![0; 4 + piece.len()];
        far.read_exact(&mut got).await.unwrap();
        assert!(got.starts_with(b"heada"));
    }

    #[tokio::test]
    async fn a_closed_connection_is_an_error() {
        let (mut near, far) = tokio::io::duplex(16);
        drop(far);
        let mut held = Held::default();
        poll_fn(|cx| held.poll_write(&mut near, cx, b"a")).await.unwrap();
        assert!(poll_fn(|cx| held.poll_flush(&mut near, cx)).await.is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn bytes_arrive_once_and_in_order(
            sizes in proptest::collection::vec((0_usize..40_000, any::<bool>()), 0..12),
            capacity in 1_usize..20_000,
        ) {
            let mut next = 0_u8;
            let pieces: Vec<(Vec<u8>, bool)> = sizes
                .into_iter()
                .map(|(size, flush)| ((0..size).map(|_| { next = next.wrapping_add(1); next }).collect(), flush))
                .collect();
            let sent: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.clone()).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(through(pieces, capacity)), sent);
        }
    }
}
