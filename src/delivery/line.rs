//! A connection to a target, whatever host a request names: plain, or TLS as its upstream says.

use std::error::Error;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::observe::metrics::TargetMetrics;
use crate::upstream::{Target, Upstream};

/// Connects to one address.
#[derive(Clone)]
pub struct To {
    address: SocketAddr,
    timeout: Duration,
    tls: Option<Secured>,
    metrics: Arc<TargetMetrics>,
}

#[derive(Clone)]
struct Secured {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// The byte stream.
pub enum Line {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl To {
    /// `None` when it is to be secured and nobody knows whom to expect.
    pub fn new(upstream: &Upstream, target: &Target, address: SocketAddr) -> Option<Self> {
        let tls = match &upstream.tls {
            None => None,
            Some(tls) => {
                let name = target.name.as_ref()?.server_name.to_string();
                Some(Secured { config: Arc::clone(&tls.client), name: ServerName::try_from(name).ok()? })
            }
        };
        let timeout = upstream.timeouts.connect;
        Some(Self { address, timeout, tls, metrics: Arc::clone(&target.metrics) })
    }

    async fn connect(self) -> io::Result<TokioIo<Line>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let line = match self.tls {
            None => Line::Plain(stream),
            Some(Secured { config, name }) => {
                let h2_alone = config.alpn_protocols == [b"h2"];
                let stream = TlsConnector::from(config).connect(name, stream).await?;
                if h2_alone && stream.get_ref().1.alpn_protocol().is_none() {
                    return Err(io::Error::other("the target did not agree on HTTP/2 (ALPN)"));
                }
                Line::Tls(Box::new(stream))
            }
        };
        Ok(TokioIo::new(line))
    }
}

impl Service<Uri> for To {
    type Response = TokioIo<Line>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let to = self.clone();
        Box::pin(async move {
            let (timeout, metrics) = (to.timeout, Arc::clone(&to.metrics));
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it took too long");
            let line = tokio::time::timeout(timeout, to.connect()).await.map_err(late)??;
            metrics.connected(false);
            Ok(line)
        })
    }
}

/// Whether an exchange failed because TLS was not agreed on.
pub fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if error.is::<rustls::Error>() || matches!(inner, Some(inner) if inner.is::<rustls::Error>()) {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Connection for Line {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => Connected::new().negotiated_h2(),
            Self::Plain(_) | Self::Tls(_) => Connected::new(),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
