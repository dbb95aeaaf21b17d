//! The end of an upgraded connection that the gateway decides on.
//!
//! Somebody calls [`Closer::close`]; the stream then ends the frame that is on its way to the client, sends a close frame,
//! says that it sends no more, and drops what the client still sends until that has heard (closing at once could destroy
//! the close frame on its way: a reset overtakes it). [`Closer::cut`] ends all patience.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::frames::Frames;
use super::{Connection, EdgeStream};

/// Ends one upgraded connection, from another task.
#[derive(Default)]
pub struct Closer {
    state: AtomicU8,
    /// The close frame.
    frame: OnceLock<Bytes>,
    /// The task that drives the connection.
    driver: AtomicWaker,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    Open = 0,
    Closing = 1,
    Cut = 2,
}

impl Closer {
    /// Asks for the end, told to the client by this close frame. The first frame counts.
    pub fn close(&self, frame: Bytes) {
        let _ = self.frame.set(frame);
        self.advance(Ending::Closing);
    }

    /// Ends it now, whatever is on its way.
    pub fn cut(&self) {
        self.advance(Ending::Cut);
    }

    pub fn ending(&self) -> Ending {
        match self.state.load(Ordering::Acquire) {
            0 => Ending::Open,
            1 => Ending::Closing,
            _ => Ending::Cut,
        }
    }

    pub fn register(&self, driver: &Waker) {
        self.driver.register(driver);
    }

    fn advance(&self, ending: Ending) {
        self.state.fetch_max(ending as u8, Ordering::AcqRel);
        self.driver.wake();
    }
}

impl Connection {
    /// What ends this connection after an upgrade. To be asked for before the head of the 101 is sent, and only then: from now
    /// on the frames to the client are followed.
    pub fn closer(&self) -> &Arc<Closer> {
        self.closer.get_or_init(Arc::default)
    }

    /// The same, when somebody has asked for it.
    pub fn known_closer(&self) -> Option<&Arc<Closer>> {
        self.closer.get()
    }

    pub(super) fn ending(&self) -> Ending {
        self.closer.get().map_or(Ending::Open, |closer| closer.ending())
    }
}

/// What the stream knows of its end.
#[derive(Default)]
pub struct Farewell {
    frames: Frames,
    /// How much of the close frame is written.
    written: usize,
    done: bool,
}

impl EdgeStream {
    /// Writes to a client whose connection may have to end: only whole frames when it has.
    pub(super) fn poll_write_frames(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let farewell = self.farewell.get_or_insert_default();
        let mut wanted = buf;
        match self.connection.ending() {
            Ending::Open => {}
            Ending::Closing if farewell.frames.is_between() => {
                let _ = self.poll_farewell(cx)?;
                return Poll::Ready(Ok(buf.len()));
            }
            Ending::Closing => {
                let of_frame = farewell.frames.clone().finish(buf);
                wanted = buf.get(..of_frame).unwrap_or(buf);
            }
            Ending::Cut => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
        let written = ready!(self.held.poll_write(&mut self.io, cx, wanted))?;
        farewell.frames.take(wanted.get(..written).unwrap_or(wanted));
        self.sent();
        Poll::Ready(Ok(written))
    }

    /// Flushes when the connection has to end. The rest of a frame may never come: it is not waited for here.
    pub(super) fn poll_flush_frames(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.ending() == Ending::Cut {
            return Poll::Ready(Ok(()));
        }
        if self.farewell.get_or_insert_default().frames.is_between() {
            return self.poll_farewell(cx);
        }
        self.held.poll_flush(&mut self.io, cx)
    }

    /// What a read does when the connection has to end: nothing of the client goes on, and the last read fails.
    pub(super) fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.ending() == Ending::Cut {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(self.poll_farewell(cx))?;
        let mut scratch = [0_u8; 1024];
        loop {
            let mut dropped = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut dropped))?;
            if dropped.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
    }

    /// Sends the close frame, once the frame before it has ended; then says that nothing more comes.
    pub(super) fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let farewell = self.farewell.get_or_insert_default();
        if farewell.done {
            return Poll::Ready(Ok(()));
        }
        if !farewell.frames.is_between() {
            // More of the frame comes through a write, or the connection is cut: both wake the task.
            ready!(self.held.poll_flush(&mut self.io, cx))?;
            return Poll::Pending;
        }
        let frame = self.connection.closer.get().and_then(|closer| closer.frame.get());
        if let Some(frame) = frame.filter(|_| !farewell.frames.said_close()) {
            while let Some(rest) = frame.get(farewell.written..).filter(|rest| !rest.is_empty()) {
                let written = ready!(self.held.poll_write(&mut self.io, cx, rest))?;
                farewell.written = farewell.written.saturating_add(written);
            }
        }
        ready!(self.held.poll_flush(&mut self.io, cx))?;
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        farewell.done = true;
        Poll::Ready(Ok(()))
    }
}
