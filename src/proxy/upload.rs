//! A request body on its way to an upstream.
//!
//! A session of ours takes the place of the client's: everything goes through to that one, but the body comes at a pace
//! ([`paced`]), and one that was gathered comes out of memory, from its beginning at each attempt: Pingora replays what was
//! read before only as far as its own buffer goes, 64 KiB. Pingora then does with it what it does with a body that is just
//! arriving. The client's session has to be back when the exchange ends: only that one can be kept for another request.

mod lookout;
mod paced;
mod stall;

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::header::{CONTENT_LENGTH, TE};
use http::{HeaderMap, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::authority::validate_request_authority;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy::Session;
use pingora::{Error, Result};
use tokio::sync::mpsc::Sender;

use super::answer::is_final;
use super::exchange::Exchange;
use crate::config::Protocol;
use lookout::{Asked, Lookout};
use paced::Pace;
pub use paced::in_place_of;
use stall::Stall;

/// What of a gathered body is handed on at once, in bytes: as much as Pingora reads at once. The bounds on writes hold for
/// each such piece.
const PIECE: usize = 64 * 1024;

/// The way back to the client's own session.
pub struct Upload {
    slot: Arc<Slot>,
    is_gathered: bool,
    lookout: Option<Arc<Lookout>>,
}

/// Where the client's session is put when nobody else has it.
type Slot = Mutex<Option<ServerSession>>;

/// Has the exchange send the body that was gathered, or the one that the client is about to send. Where there is none, the
/// client's session stays. So it does for a body that streams from HTTP/2 to HTTP/1: there Pingora's timers keep the deadlines.
pub fn begin(session: &mut Session, x: &mut Exchange, gathered: Option<Bytes>) -> Result<()> {
    let Some(forward) = &x.forward else { return Ok(()) };
    let source = match gathered {
        Some(body) if body.is_empty() => return Ok(()),
        Some(body) => Source::Memory { length: body.len(), body, sent: 0 },
        None if session.is_body_done() => return Ok(()),
        None if session.is_http2() && forward.upstream.protocol == Protocol::Http1 => return Ok(()),
        None => Source::Client,
    };
    // Pingora hears no answer while it writes: after the bound on a write there has to be time for one.
    let longest = forward.upstream.timeouts.idle.saturating_mul(2);
    let stall = Stall::new(x.connection.as_ref(), longest, forward.deadline);
    let lookout = Lookout::over(x, forward);
    x.upload = Some(stand_in(session, source, stall, lookout)?);
    Ok(())
}

fn stand_in(session: &mut Session, source: Source, stall: Stall, lookout: Option<Arc<Lookout>>) -> Result<Upload> {
    // For sessions of others Pingora leaves this out.
    validate_request_authority(session.req_header()).map_err(Error::into_in)?;
    let slot = Arc::new(Slot::default());
    let is_gathered = matches!(source, Source::Memory { .. });
    let inner = mem::replace(&mut *session.downstream_session, vacant());
    let sending =
        Sending { inner, source, pace: Arc::default(), stall, lookout: lookout.clone(), slot: Arc::clone(&slot) };
    *session.downstream_session = ServerSession::new_custom(Box::new(sending));
    Ok(Upload { slot, is_gathered, lookout })
}

impl Upload {
    /// Whether the body was read before: whole, measured, and there for every attempt.
    pub fn is_gathered(&self) -> bool {
        self.is_gathered
    }

    /// Whether the waits are bounded here, whatever they are for.
    pub fn is_watched(&self) -> bool {
        self.lookout.is_some()
    }

    /// An attempt begins that may be given messages beside HTTP.
    pub fn watch(&self, messages: Sender<Bytes>) {
        if let Some(lookout) = &self.lookout {
            lookout.begin(messages);
        }
    }

    /// Something of an answer has come.
    pub fn heard(&self) {
        self.lookout.iter().for_each(|lookout| lookout.heard());
    }

    /// Puts the client's own session back. The body is let go of.
    pub fn end(self, session: &mut Session) {
        drop(mem::replace(&mut *session.downstream_session, vacant()));
        // There is one: only `stand_in` makes an `Upload`, and what it put there has just been dropped.
        if let Some(inner) = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take() {
            *session.downstream_session = inner;
        }
    }
}

/// Pingora removes `TE` from requests of sessions that are not its own; over HTTP/2 it is what asks for trailers (RFC 9113
/// §8.2.2), and gRPC needs it.
pub fn keep_te(session: &Session, request: &mut RequestHeader) -> Result<()> {
    let head = session.req_header();
    match head.headers.get(TE) {
        Some(te) if te == "trailers" && head.version == Version::HTTP_2 && request.version == Version::HTTP_2 => {
            request.insert_header(TE, te)
        }
        _ => Ok(()),
    }
}

/// Stands where no session is, for as long as it takes to put one there: it answers nothing.
pub fn vacant() -> ServerSession {
    ServerSession::new_custom(Box::new(()))
}

struct Sending {
    inner: ServerSession,
    source: Source,
    pace: Arc<Pace>,
    stall: Stall,
    lookout: Option<Arc<Lookout>>,
    slot: Arc<Slot>,
}

/// Where the body comes from.
enum Source {
    /// The client, piece by piece. What Pingora keeps of it for another attempt the client's session keeps.
    Client,
    /// It was gathered.
    Memory {
        body: Bytes,
        /// Of the body, also when it is gone.
        length: usize,
        /// How much of it this attempt was given.
        sent: usize,
    },
}

impl Source {
    /// The next piece out of memory.
    fn next(&mut self) -> Option<Bytes> {
        let Self::Memory { body, sent, .. } = self else { return None };
        let end = sent.saturating_add(PIECE).min(body.len());
        let piece = (*sent < end).then(|| body.slice(*sent..end));
        *sent = end.max(*sent);
        piece
    }
}

impl Sending {
    /// The next piece of a body that was gathered.
    fn next(&mut self) -> Option<Bytes> {
        let piece = self.source.next()?;
        self.let_go();
        Some(self.pace.follow(piece))
    }

    fn is_sent(&mut self) -> bool {
        match &self.source {
            Source::Client => self.inner.is_body_done(),
            Source::Memory { length, sent, .. } => sent >= length,
        }
    }

    /// Lets go of a body that nobody can need again: an exchange that was answered is not tried again, however long the
    /// answer takes.
    fn let_go(&mut self) {
        if let Source::Memory { body, length, sent } = &mut self.source
            && *sent >= *length
            && self.inner.response_written().is_some_and(is_final)
        {
            *body = Bytes::new();
        }
    }

    /// Waits until another piece may go. Nothing is read meanwhile: whoever stops waiting has lost nothing.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.pace.poll_room(cx).is_ready() {
            self.stall.end();
            return Poll::Ready(Ok(()));
        }
        self.stall.poll(cx).map(Err)
    }

    /// Pingora looks at the client. What it was given before is written: where that was the end, the wait for the answer
    /// begins now, however long the service took to take it.
    fn look(&mut self) {
        if self.lookout.as_ref().is_some_and(|lookout| lookout.looks())
            && self.is_sent()
            && !self.inner.response_written().is_some_and(is_final)
            && let Some(lookout) = &self.lookout
        {
            lookout.expect_answer();
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        match self.source {
            Source::Client => {
                poll_fn(|cx| self.poll_room(cx)).await?;
                let piece = self.inner.read_request_body().await?;
                Ok(piece.map(|piece| self.pace.follow(piece)))
            }
            Source::Memory { .. } => {
                let Self { inner, pace, stall, .. } = self;
                let left = {
                    let mut leaves = pin!(inner.read_body_or_idle(true));
                    poll_fn(|cx| {
                        if pace.poll_room(cx).is_ready() {
                            stall.end();
                            return Poll::Ready(None);
                        }
                        if let Poll::Ready(error) = stall.poll(cx) {
                            return Poll::Ready(Some(Err(error)));
                        }
                        leaves.as_mut().poll(cx).map(Some)
                    })
                    .await
                };
                match left {
                    Some(left) => left,
                    None => Ok(self.next()),
                }
            }
        }
    }

    /// RFC 9112 §6.3: what tells a client of HTTP/1.0 its end by no length ends with the connection. Asking for that later
    /// would not reach the client's session.
    fn close_behind(&mut self, task: &HttpTask) {
        if let HttpTask::Header(head, _) = task
            && self.inner.req_header().version == Version::HTTP_10
            && is_final(head)
            && !head.headers.contains_key(CONTENT_LENGTH)
        {
            self.inner.set_keepalive(None);
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let inner = mem::replace(&mut self.inner, vacant());
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(inner);
    }
}

/// What differs from the client's session stands first.
#[async_trait]
impl CustomSession for Sending {
    /// Called at the beginning of each attempt.
    fn enable_retry_buffering(&mut self) {
        // What is left of the last attempt is nobody's concern.
        self.pace = Arc::default();
        self.stall.end();
        match &mut self.source {
            Source::Client => self.inner.enable_retry_buffering(),
            Source::Memory { body, length, sent } if body.len() == *length => *sent = 0,
            Source::Memory { .. } => {}
        }
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        match self.source {
            Source::Client => self.inner.get_retry_buffer(),
            Source::Memory { .. } => None,
        }
    }

    fn retry_buffer_truncated(&self) -> bool {
        match self.source {
            Source::Client => self.inner.retry_buffer_truncated(),
            Source::Memory { .. } => false,
        }
    }

    fn is_body_done(&mut self) -> bool {
        if self.inner.was_upgraded() { self.inner.is_body_done() } else { self.is_sent() }
    }

    fn is_body_empty(&mut self) -> bool {
        match self.source {
            Source::Client => self.inner.is_body_empty(),
            Source::Memory { .. } => false,
        }
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        match self.source {
            Source::Client => self.inner.read_request_body().await,
            Source::Memory { .. } => Ok(self.next()),
        }
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        self.look();
        if self.inner.was_upgraded() {
            return self.inner.read_body_or_idle(no_body_expected).await;
        }
        if no_body_expected || self.is_sent() {
            // Only a client that leaves, or a deadline, ends this.
            return self.inner.read_body_or_idle(true).await;
        }
        let piece = self.read().await;
        self.lookout.iter().for_each(|lookout| lookout.writes());
        piece
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        tasks.iter().for_each(|task| self.close_behind(task));
        self.stall.end();
        self.lookout.iter().for_each(|lookout| lookout.heard());
        let written = self.inner.response_duplex_vec(tasks).await;
        self.let_go();
        if let (Ok(true), Some(lookout)) = (&written, &self.lookout) {
            lookout.end();
        }
        written
    }

    async fn write_proxy_tasks(&mut self) -> Result<bool> {
        let written = self.inner.write_downstream_proxy_tasks().await;
        self.let_go();
        written
    }

    fn req_header(&self) -> &RequestHeader {
        self.inner.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner.req_header_mut()
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.inner.drain_request_body().await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, _: bool) -> Result<()> {
        self.inner.write_response_header(head).await
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, _: bool) -> Result<()> {
        self.inner.write_response_header_ref(head).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.inner.write_response_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner.write_response_trailers(trailers).await
    }

    fn proxy_tasks_enabled(&self) -> bool {
        self.inner.supports_proxy_task_api()
    }

    fn set_proxy_tasks_enabled(&mut self, enabled: bool) {
        self.inner.set_proxy_tasks_enabled(enabled);
    }

    fn send_proxy_task(&mut self, task: HttpTask) {
        self.close_behind(&task);
        self.inner.send_downstream_proxy_task(task);
    }

    fn has_pending_proxy_tasks(&self) -> bool {
        self.inner.has_pending_downstream_proxy_tasks()
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.inner.get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.inner.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.inner.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner.response_written()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.inner.shutdown().await;
    }

    /// What Pingora calls when an answer has ended.
    async fn finish(&mut self) -> Result<()> {
        self.inner.finish_body().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.inner.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.inner.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.inner.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner.to_h1_raw()
    }

    fn is_upgrade_req(&self) -> bool {
        self.inner.is_upgrade_req()
    }

    fn was_upgraded(&self) -> bool {
        self.inner.was_upgraded()
    }

    /// Messages beside HTTP: those that ask whether the client is looked at, if any.
    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        Some(Box::new(stream::empty()))
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        Some(Box::new(Asked(Arc::clone(self.lookout.as_ref()?))))
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
