//! An answer on its way past filters that may hold it, or that see trailers.
//!
//! Pingora's filters for bodies wait for nothing, and hand trailers on before what came before them is written. So a session
//! of ours takes the place of the client's: everything goes through to that one, except that what is written passes the
//! filters first, in order, and waits where one of them holds it. The client's session has to be back when the exchange ends.

mod passing;

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
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

use super::exchange::Exchange;
use super::upload::vacant;
use crate::chain::Instead;
use crate::config::Protocol;
use passing::Passing;

/// The way back to the client's own session.
pub struct Accompanied(Arc<Mutex<Left>>);

/// What is left when the session ends.
#[derive(Default)]
struct Left {
    inner: Option<ServerSession>,
    /// What a filter answers in place of the service.
    instead: Option<Instead>,
}

/// Has the answer pass the filters on its way to the client, where one of them may hold it or is to see its trailers.
pub fn accompany(session: &mut Session, x: &mut Exchange) -> Result<()> {
    let (Some(route), Some(context), Some(forward)) = (&x.route, &x.context, &x.forward) else { return Ok(()) };
    let trailers = forward.upstream.protocol != Protocol::Http1;
    if !route.chain.accompanies()
        || session.is_upgrade_req()
        || !route.chain.may_hold_response_body(x.reached, trailers, context)
    {
        return Ok(());
    }
    // For sessions of others Pingora leaves this out.
    validate_request_authority(session.req_header()).map_err(Error::into_in)?;
    if session.req_header().version == Version::HTTP_10 {
        // The end of the answer may have to be told by the end of the connection, which cannot be asked for later.
        session.set_keepalive(None);
    }
    let left = Arc::new(Mutex::new(Left::default()));
    let passing = Passing::new(session.req_header().clone(), Arc::clone(route), context.clone(), x);
    let inner = mem::replace(&mut *session.downstream_session, vacant());
    let session_of_ours = Through { inner, passing, left: Arc::clone(&left) };
    *session.downstream_session = ServerSession::new_custom(Box::new(session_of_ours));
    x.accompanied = Some(Accompanied(left));
    Ok(())
}

impl Accompanied {
    /// Puts the client's own session back, and gives what a filter answers in place of the service.
    pub fn end(self, session: &mut Session) -> Option<Instead> {
        drop(mem::replace(&mut *session.downstream_session, vacant()));
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // There is one: only `accompany` makes an `Accompanied`, and what it put there has just been dropped.
        if let Some(inner) = left.inner.take() {
            *session.downstream_session = inner;
        }
        left.instead.take()
    }
}

struct Through {
    inner: ServerSession,
    passing: Passing,
    left: Arc<Mutex<Left>>,
}

impl Drop for Through {
    fn drop(&mut self) {
        let inner = mem::replace(&mut self.inner, vacant());
        self.left.lock().unwrap_or_else(PoisonError::into_inner).inner = Some(inner);
    }
}

/// What differs from the client's session stands first.
#[async_trait]
impl CustomSession for Through {
    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let passed = match self.passing.pass_all(tasks, &mut self.inner).await {
            Ok(passed) => passed,
            Err(passing::Ended::Left(error)) => return Err(error),
            Err(passing::Ended::Instead(instead)) => {
                self.left.lock().unwrap_or_else(PoisonError::into_inner).instead = Some(instead);
                return Err(super::accompany::ended());
            }
        };
        // Nothing to write is no end.
        if passed.is_empty() { Ok(false) } else { self.inner.response_duplex_vec(passed).await }
    }

    fn enable_retry_buffering(&mut self) {
        self.inner.enable_retry_buffering();
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.inner.get_retry_buffer()
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.inner.retry_buffer_truncated()
    }

    fn is_body_done(&mut self) -> bool {
        self.inner.is_body_done()
    }

    fn is_body_empty(&mut self) -> bool {
        self.inner.is_body_empty()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.inner.read_request_body().await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        self.inner.read_body_or_idle(no_body_expected).await
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

    /// Messages beside HTTP: those of an upload, if any.
    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        self.inner.as_custom_mut()?.take_custom_message_reader()
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        self.inner.as_custom_mut()?.take_custom_message_writer()
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
