//! Drives client connections through Pingora: one engine for each worker thread, with its own pool of upstream connections.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use http::header::ALLOW;
use pingora::apps::{HttpServerApp, HttpServerOptions, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::direct::{Client, Direct, Next};
use super::edge::{Connection, EdgeLimits, EdgeStream, Ending, H2_STREAMS_MAX, Malformed, MalformedKind};
use super::phases::App;
use super::roots;
use super::socket::{Socket, VALIDATED, handshake};
use crate::clock;
use crate::context::{RequestId, Scheme};
use crate::gateway::Tls;
use crate::live::Live;
use crate::observe::access::AccessLog;
use crate::observe::metrics::{ListenerMetrics, Metrics};
use crate::observe::webhooks::WebhookLog;
use crate::overload;
use crate::proxy_protocol::Ends;
use crate::reply::{Code, Rejection};

/// Idle upstream connections kept by each worker.
const POOL_SIZE: usize = 512;

/// Streams of a connection that may end because the client broke a rule: each is work for nothing (CVE-2025-8671).
const H2_ERRORS_MAX: usize = 200;

/// How long the first byte of a client that is connected already may take when the gateway stops.
const FIRST_BYTE_GRACE: Duration = Duration::from_secs(1);

/// What an engine is made of.
pub struct EngineOptions {
    pub live: Arc<Live>,
    pub metrics: Arc<Metrics>,
    pub access_log: Option<Arc<AccessLog>>,
    pub webhook_log: Option<Arc<WebhookLog>>,
    pub overload: Arc<overload::Worker>,
}

/// Where a connection came from, and where it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub peer: SocketAddr,
    /// The address the client connected to, where a proxy says so.
    told: Option<SocketAddr>,
}

impl Arrival {
    pub fn direct(peer: SocketAddr) -> Self {
        Self { peer, told: None }
    }

    /// As the header of a proxy says; without addresses the connection is the proxy's own.
    pub fn announced(peer: SocketAddr, ends: Option<Ends>) -> Self {
        ends.map_or(Self::direct(peer), |ends| Self { peer: ends.source, told: Some(ends.destination) })
    }

    fn reached(&self, stream: &TcpStream) -> Option<SocketAddr> {
        self.told.or_else(|| stream.local_addr().ok())
    }
}

/// Speaks HTTP with the clients of one worker thread. To be made within the runtime of that.
pub struct Engine {
    proxy: Arc<HttpProxy<App>>,
    direct: Direct,
    live: Arc<Live>,
    malformed: Malformed,
    /// Connections end after their next exchange.
    shutdown: watch::Sender<bool>,
    /// Idle ones end now.
    draining: watch::Sender<bool>,
}

impl Engine {
    pub fn new(options: EngineOptions) -> Self {
        let EngineOptions { live, metrics, access_log, webhook_log, overload } = options;
        let conf = ServerConf {
            threads: 1,
            work_stealing: false,
            upstream_keepalive_pool_size: POOL_SIZE,
            ca_file: roots::file(),
            ..ServerConf::default()
        };
        let app = App {
            live: Arc::clone(&live),
            metrics: Arc::clone(&metrics),
            access_log,
            webhook_log,
            mirrors: Arc::default(),
            overload,
        };
        let direct = Direct::new(app.clone(), POOL_SIZE);
        let mut proxy = http_proxy(&Arc::new(conf), app);
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        proxy.server_options = Some(options);
        // From those that have bounds: the engine's others have none.
        let mut h2 = default_h2_options();
        h2.max_concurrent_streams(H2_STREAMS_MAX).max_local_error_reset_streams(Some(H2_ERRORS_MAX));
        proxy.h2_options = Some(h2);
        let malformed: Malformed = {
            let live = Arc::clone(&live);
            Arc::new(move |kind| answer_malformed(kind, &live, &metrics))
        };
        Self {
            proxy: Arc::new(proxy),
            direct,
            live,
            malformed,
            shutdown: watch::Sender::new(false),
            draining: watch::Sender::new(false),
        }
    }

    /// Serves one client until it leaves, or until it is idle while the engine drains.
    /// With `https_port` requests are redirected there.
    pub async fn serve(&self, stream: TcpStream, arrival: Arrival, https_port: Option<u16>) {
        let mut connection = Connection::new(arrival.peer, self.limits(), Scheme::Http);
        connection.reached = arrival.reached(&stream);
        connection.https_port = https_port;
        let connection = Arc::new(connection);
        let Some(mut stream) = self.stream(Socket::Plain(stream), &connection) else { return };
        let mut shutdown = self.shutdown.subscribe();
        let h2 = tokio::select! {
            biased;
            h2 = stream.starts_with_h2() => h2,
            () = too_late(&mut shutdown) => return,
        };
        // On an error it left, or it was too slow.
        if let Ok(h2) = h2 {
            self.serve_http(stream, &connection, h2, &shutdown).await;
        }
    }

    /// The same over TLS. The handshake has as long as a request head.
    pub async fn serve_tls(&self, stream: TcpStream, arrival: Arrival, tls: &Tls, metrics: &ListenerMetrics) {
        let reached = arrival.reached(&stream);
        let limits = self.limits();
        let mut shutdown = self.shutdown.subscribe();
        let secured = tokio::select! {
            biased;
            secured = handshake(stream, &tls.config, tls.challenge.as_ref(), limits.header_timeout) => secured,
            () = too_late(&mut shutdown) => return,
        };
        let secured = match secured {
            Ok(secured) => secured,
            Err(VALIDATED) => return,
            Err(reason) => return metrics.handshake_failed(reason),
        };
        let mut connection = Connection::new(arrival.peer, limits, Scheme::Https);
        connection.reached = reached;
        connection.certificate = secured.certificate;
        connection.set_h2(secured.h2);
        let connection = Arc::new(connection);
        let Some(stream) = self.stream(secured.socket, &connection) else { return };
        self.serve_http(stream, &connection, secured.h2, &shutdown).await;
    }

    fn limits(&self) -> EdgeLimits {
        let limits = &self.live.current().settings.limits;
        EdgeLimits {
            header_bytes_max: limits.header_bytes_max,
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
        }
    }

    fn stream(&self, socket: Socket, connection: &Arc<Connection>) -> Option<EdgeStream> {
        EdgeStream::new(socket, Arc::clone(connection), Arc::clone(&self.malformed)).ok()
    }

    async fn serve_http(
        &self,
        stream: EdgeStream,
        connection: &Arc<Connection>,
        h2: bool,
        shutdown: &watch::Receiver<bool>,
    ) {
        if h2 {
            ServerApp::process_new(&self.proxy, Box::new(stream), shutdown).await;
        } else {
            self.serve_http1(stream, connection, shutdown).await;
        }
    }

    async fn serve_http1(&self, stream: EdgeStream, connection: &Arc<Connection>, shutdown: &watch::Receiver<bool>) {
        let mut draining = self.draining.subscribe();
        // The sender is the engine's own: it is there as long as this is asked.
        let mut drained = pin!(async move { drop(draining.wait_for(|draining| *draining).await) });
        let mut client = Client::new(stream);
        loop {
            match self.direct.serve(&mut client, connection, shutdown, drained.as_mut()).await {
                Next::Again => {}
                Next::Close => return client.close().await,
                Next::Other => match self.serve_other(client.into_stream(), connection, shutdown).await {
                    Some(stream) => client = Client::new(stream),
                    None => return,
                },
            }
        }
    }

    /// Serves one request in the general way. Gives the stream back when another one may follow.
    async fn serve_other(
        &self,
        stream: EdgeStream,
        connection: &Connection,
        shutdown: &watch::Receiver<bool>,
    ) -> Option<EdgeStream> {
        let mut session = ServerSession::new_http1(Box::new(stream));
        // The stream keeps the deadlines; 0 switches Pingora's own timer off.
        session.set_keepalive(Some(0));
        // Apart: what it needs of a future is no burden to connections that never come here.
        let served = Box::pin(unless_cut(connection, self.proxy.process_new_http(session, shutdown))).await?;
        let (stream, _) = served.consume();
        stream.into_any().downcast().ok().map(|stream: Box<EdgeStream>| *stream)
    }

    /// Ends connections after their next exchange, or the current one. Those that are idle may bring another one.
    pub fn leave(&self) {
        self.shutdown.send_replace(true);
    }

    /// Ends idle connections now and all others after their current exchange.
    pub async fn drain(&self) {
        self.shutdown.send_replace(true);
        self.draining.send_replace(true);
        self.proxy.http_cleanup().await;
    }
}

/// Drives an exchange until it is done, or until its connection is cut and even that does not end it: a proxy that waits for
/// the service looks at neither direction of the client's stream.
async fn unless_cut<T>(connection: &Connection, serving: impl Future<Output = Option<T>>) -> Option<T> {
    let mut serving = pin!(serving);
    poll_fn(|cx| {
        loop {
            let before = connection.known_closer().map(|closer| closer.ending());
            if let Poll::Ready(served) = serving.as_mut().poll(cx) {
                return Poll::Ready(served);
            }
            let Some(closer) = connection.known_closer() else { return Poll::Pending };
            closer.register(cx.waker());
            // What changed before the waker was known has woken nobody.
            match closer.ending() {
                ending if before != Some(ending) => {}
                Ending::Cut => return Poll::Ready(None),
                Ending::Open | Ending::Closing => return Poll::Pending,
            }
        }
    })
    .await
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
        MalformedKind::Flood => ("h2_flood", Code::OVERLOADED, "more frames than a connection may send"),
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
