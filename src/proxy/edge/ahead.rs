//! What is read before its turn, and looked at again.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, ReadBuf};

use super::{EdgeStream, Stage};

impl EdgeStream {
    /// Has these bytes read again, before anything else.
    pub fn rewind(&mut self, bytes: &[u8]) {
        self.rewound.splice(..0, bytes.iter().copied());
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
