//! Drives client connections through Pingora: one engine for each worker thread, with its own pool of upstream connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::ALLOW;
use pingora::apps::{HttpServerApp, HttpServerOptions, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::edge::{Connection, EdgeLimits, EdgeStream, Malformed, MalformedKind};
use super::phases::App;
use crate::clock;
use crate::context::RequestId;
use crate::live::Live;
use crate::observe::access::AccessLog;
use crate::observe::metrics::Metrics;
use crate::reply::{Code, Rejection};

/// Idle upstream connections kept by each worker.
const POOL_SIZE: usize = 512;

/// How long the first byte of a client that is connected already may take when the gateway stops.
const FIRST_BYTE_GRACE: Duration = Duration::from_secs(1);

/// What an engine is made of.
pub struct EngineOptions {
    pub live: Arc<Live>,
    pub metrics: Arc<Metrics>,
    pub access_log: Option<Arc<AccessLog>>,
}

/// Speaks HTTP with the clients of one worker thread.
pub struct Engine {
    proxy: Arc<HttpProxy<App>>,
    live: Arc<Live>,
    malformed: Malformed,
    shutdown: watch::Sender<bool>,
}

impl Engine {
    pub fn new(options: EngineOptions) -> Self {
        let EngineOptions { live, metrics, access_log } = options;
        let conf = ServerConf {
            threads: 1,
            work_stealing: false,
            upstream_keepalive_pool_size: POOL_SIZE,
            ..ServerConf::default()
        };
        let app = App { live: Arc::clone(&live), access_log };
        let mut proxy = http_proxy(&Arc::new(conf), app);
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        proxy.server_options = Some(options);
        let malformed: Malformed = {
            let live = Arc::clone(&live);
            Arc::new(move |kind| answer_malformed(kind, &live, &metrics))
        };
        Self { proxy: Arc::new(proxy), live, malformed, shutdown: watch::Sender::new(false) }
    }

    /// Serves one client until it leaves, or until it is idle while the engine drains.
    pub async fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        let limits = &self.live.current().settings.limits;
        let limits = EdgeLimits {
            header_bytes_max: limits.header_bytes_max,
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
        };
        let connection = Connection::new(peer, limits);
        let Ok(mut stream) = EdgeStream::new(stream, connection, Arc::clone(&self.malformed)) else { return };
        let mut shutdown = self.shutdown.subscribe();
        let h2 = tokio::select! {
            biased;
            h2 = stream.starts_with_h2() => h2,
            () = too_late(&mut shutdown) => return,
        };
        match h2 {
            Ok(true) => {
                ServerApp::process_new(&self.proxy, Box::new(stream), &shutdown).await;
            }
            Ok(false) => self.serve_http1(stream, &shutdown).await,
            // It left, or it was too slow.
            Err(_) => {}
        }
    }

    async fn serve_http1(&self, stream: EdgeStream, shutdown: &watch::Receiver<bool>) {
        let mut session = ServerSession::new_http1(Box::new(stream));
        // The stream keeps the deadlines; 0 switches Pingora's own timer off.
        session.set_keepalive(Some(0));
        loop {
            let Some(reused) = self.proxy.process_new_http(session, shutdown).await else { return };
            let (stream, settings) = reused.consume();
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
        }
    }

    /// Ends idle connections now and all others after their current exchange.
    pub async fn drain(&self) {
        self.shutdown.send_replace(true);
        self.proxy.http_cleanup().await;
    }
}

/// When a client that has not sent a byte yet is no longer waited for. Who was let in has a request on its way, more often
/// than not, and cannot know that it is safe to send it again.
async fn too_late(shutdown: &mut watch::Receiver<bool>) {
    // The sender is the engine's own: it is there as long as this is asked.
    let _ = shutdown.wait_for(|draining| *draining).await;
    tokio::time::sleep(FIRST_BYTE_GRACE).await;
}

/// The whole response to a request that could not be read.
fn answer_malformed(kind: MalformedKind, live: &Live, metrics: &Metrics) -> Vec<u8> {
    let (reason, code, message) = match kind {
        MalformedKind::Syntax => ("syntax", Code::BAD_REQUEST, "the request is not valid HTTP"),
        MalformedKind::HeadTooLarge => ("head_too_large", Code::HEADERS_TOO_LARGE, "the request head is too large"),
        MalformedKind::HeadTooSlow => {
            ("head_too_slow", Code::REQUEST_TIMEOUT, "the request head did not arrive in time")
        }
        MalformedKind::Connect => ("connect", Code::METHOD_NOT_ALLOWED, "CONNECT is not offered"),
    };
    metrics.malformed(reason);
    let mut rejection = Rejection::new(code, message);
    if code == Code::METHOD_NOT_ALLOWED {
        // RFC 9110 §15.5.6: a 405 names the methods there are; for CONNECT there is none.
        rejection = rejection.with_field(ALLOW, HeaderValue::from_static(""));
    }
    unread_reply(rejection, live)
}

/// A refusal of a request that was never read.
pub fn unread_reply(rejection: Rejection, live: &Live) -> Vec<u8> {
    let request_id = RequestId::from_bits(fastrand::u128(..));
    let now = clock::rfc3339(clock::wall());
    rejection.into_reply(live.current().settings.errors, &request_id, &now).into_http1(&request_id)
}
