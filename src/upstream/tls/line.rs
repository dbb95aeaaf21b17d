//! Connections to targets that are made with rustls.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Protocol;
use crate::stream::Stream;

/// Why a target is refused that HTTP/2 was not agreed on with where nothing else is spoken.
pub const NO_H2: &str = "the target did not agree on HTTP/2 (ALPN)";

/// A connection to a target.
pub type Line = Stream<TlsStream<TcpStream>>;

impl Line {
    /// Makes the handshake with a target that has to be `name`.
    pub async fn secured(config: Arc<ClientConfig>, name: ServerName<'static>, stream: TcpStream) -> io::Result<Self> {
        Ok(Self::Tls(Box::new(TlsConnector::from(config).connect(name, stream).await?)))
    }

    /// Whether HTTP/2 was agreed on.
    pub fn is_h2(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2"))
    }

    /// Whether HTTP/2 is spoken. An error where it has to be and is not.
    pub fn speaks_h2(&self, protocol: Protocol) -> Result<bool, &'static str> {
        match protocol {
            Protocol::Http1 => Ok(false),
            Protocol::H2c => Ok(true),
            Protocol::H2 if !self.is_h2() => Err(NO_H2),
            Protocol::H2 | Protocol::Auto => Ok(self.is_h2()),
        }
    }
}
