//! A connection to a target, whatever host a request names: plain, or TLS as its upstream says.

use std::error::Error;
use std::io;
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
use tokio::net::TcpStream;
use tower_service::Service;

use crate::config::Protocol;
use crate::observe::metrics::TargetMetrics;
use crate::upstream::{Line, Target, Upstream};

/// Connects to one address.
#[derive(Clone)]
pub struct To {
    address: SocketAddr,
    timeout: Duration,
    protocol: Protocol,
    tls: Option<Secured>,
    metrics: Arc<TargetMetrics>,
}

#[derive(Clone)]
struct Secured {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl To {
    /// `None` when it is to be secured and nobody knows whom to expect.
    pub fn new(upstream: &Upstream, target: &Target, address: SocketAddr) -> Option<Self> {
        let tls = match &upstream.tls {
            None => None,
            Some(tls) => Some(Secured { config: Arc::clone(&tls.client), name: target.name.as_ref()?.server_name()? }),
        };
        let (timeout, protocol) = (upstream.timeouts.connect, upstream.protocol);
        Some(Self { address, timeout, protocol, tls, metrics: Arc::clone(&target.metrics) })
    }

    async fn connect(self) -> io::Result<TokioIo<Line>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let line = match self.tls {
            None => Line::Plain(stream),
            Some(Secured { config, name }) => {
                let line = Line::secured(config, name, stream).await?;
                line.speaks_h2(self.protocol).map_err(io::Error::other)?;
                line
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
        if self.is_h2() { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}
