//! A request whose body was gathered, on its way to an upstream.
//!
//! Pingora replays what was read before only as far as its own buffer goes: 64 KiB. So a session of ours takes the place of
//! the client's: everything goes through to that one, except that the body comes out of memory, from its beginning at each
//! attempt. Pingora then does with it what it does with a body that is just arriving. The client's session has to be back
//! when the exchange ends: only that one can be kept for another request.

mod paced;

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use http::header::TE;
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

use super::answer::is_final;
use paced::Pace;

/// What is handed on at once, in bytes: as much as Pingora reads at once. The bounds on writes hold for each such piece.
const PIECE: usize = 64 * 1024;

/// The way back to the client's own session.
pub struct Replayed(Arc<Slot>);

/// Where the client's session is put when nobody else has it.
type Slot = Mutex<Option<ServerSession>>;

/// Has the exchange send this body, which was read from the client before.
pub fn replay(session: &mut Session, body: Bytes) -> Result<Replayed> {
    // For sessions of others Pingora leaves this out.
    validate_request_authority(session.req_header()).map_err(Error::into_in)?;
    if session.req_header().version == Version::HTTP_10 {
        // The end of the answer may have to be told by the end of the connection, which cannot be asked for later.
        session.set_keepalive(None);
    }
    let slot = Arc::new(Slot::default());
    let inner = mem::replace(&mut *session.downstream_session, vacant());
    let (length, slot_of_replay) = (body.len(), Arc::clone(&slot));
    let replay = Replay { inner, body, length, sent: 0, pace: Arc::default(), slot: slot_of_replay };
    *session.downstream_session = ServerSession::new_custom(Box::new(replay));
    Ok(Replayed(slot))
}

impl Replayed {
    /// Puts the client's own session back. The body is let go of.
    pub fn end(self, session: &mut Session) {
        drop(mem::replace(&mut *session.downstream_session, vacant()));
        // There is one: only `replay` makes a `Replayed`, and what it put there has just been dropped.
        if let Some(inner) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
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
fn vacant() -> ServerSession {
    ServerSession::new_custom(Box::new(()))
}

struct Replay {
    inner: ServerSession,
    body: Bytes,
    /// Of the body, also when it is gone.
    length: usize,
    /// How much of it this attempt was given.
    sent: usize,
    pace: Arc<Pace>,
    slot: Arc<Slot>,
}

impl Replay {
    /// The next piece of the body.
    fn next(&mut self) -> Option<Bytes> {
        let end = self.sent.saturating_add(PIECE).min(self.body.len());
        if self.sent >= end {
            return None;
        }
        let piece = self.body.slice(self.sent..end);
        self.sent = end;
        self.let_go();
        Some(self.pace.follow(piece))
    }

    fn is_sent(&self) -> bool {
        self.sent >= self.length
    }

    /// Lets go of a body that nobody can need again: an exchange that was answered is not tried again, however long the
    /// answer takes.
    fn let_go(&mut self) {
        if self.is_sent() && self.inner.response_written().is_some_and(is_final) {
            self.body = Bytes::new();
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let inner = mem::replace(&mut self.inner, vacant());
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(inner);
    }
}

/// What differs from the client's session stands first.
#[async_trait]
impl CustomSession for Replay {
    /// Called at the beginning of each attempt.
    fn enable_retry_buffering(&mut self) {
        if self.body.len() == self.length {
            self.sent = 0;
            // What is left of the last attempt is nobody's concern.
            self.pace = Arc::default();
        }
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        None
    }

    fn retry_buffer_truncated(&self) -> bool {
        false
    }

    fn is_body_done(&mut self) -> bool {
        if self.inner.was_upgraded() { self.inner.is_body_done() } else { self.is_sent() }
    }

    fn is_body_empty(&mut self) -> bool {
        false
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        Ok(self.next())
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if self.inner.was_upgraded() {
            return self.inner.read_body_or_idle(no_body_expected).await;
        }
        if no_body_expected || self.is_sent() {
            // Only a client that leaves ends this.
            return self.inner.read_body_or_idle(true).await;
        }
        let left = {
            let mut leaves = pin!(self.inner.read_body_or_idle(true));
            poll_fn(|cx| match self.pace.poll_room(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => leaves.as_mut().poll(cx).map(Some),
            })
            .await
        };
        match left {
            Some(left) => left,
            None => Ok(self.next()),
        }
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let written = self.inner.response_duplex_vec(tasks).await;
        self.let_go();
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

    /// Messages beside HTTP: there are none.
    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
