//! The byte stream to a client: plain TCP, or TLS over it.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{CertificateError, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::acme::{PROTOCOL, is_challenge};
use crate::caller::ClientCertificate;

/// A connection to a client. One match for each call, no box and no table of functions on the plain path.
pub enum Socket {
    Plain(TcpStream),
    /// Boxed: it holds the state of TLS, and the size of the enum is that of the larger one.
    Tls(Box<TlsStream<TcpStream>>),
}

/// What came out of a handshake.
pub struct Secured {
    pub socket: Socket,
    /// ALPN ([RFC 7301](https://www.rfc-editor.org/rfc/rfc7301)) chose HTTP/2.
    pub h2: bool,
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A handshake that was no client's: an authority has seen what it came for.
pub const VALIDATED: &str = "validated";

/// Makes the handshake; the error is the reason as it is counted.
pub async fn handshake(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    challenge: Option<&Arc<ServerConfig>>,
    within: Duration,
) -> Result<Secured, &'static str> {
    let accepting = async {
        match challenge {
            None => TlsAcceptor::from(Arc::clone(config)).accept(stream).await,
            Some(challenge) => accept_either(stream, config, challenge).await,
        }
    };
    let stream = match tokio::time::timeout(within, accepting).await {
        Err(_) => return Err("timeout"),
        Ok(Err(error)) => return Err(reason(&error)),
        Ok(Ok(stream)) => stream,
    };
    let (_, session) = stream.get_ref();
    if challenge.is_some() && session.alpn_protocol() == Some(PROTOCOL) {
        // RFC 8737 §3: nothing is exchanged on such a connection.
        return Err(VALIDATED);
    }
    let h2 = session.alpn_protocol() == Some(b"h2");
    let certificate = match session.peer_certificates().and_then(<[_]>::first) {
        None => None,
        // What cannot be read names nobody, and must not pass for no certificate at all.
        Some(leaf) => Some(Arc::new(ClientCertificate::parse(leaf).ok_or("certificate_invalid")?)),
    };
    Ok(Secured { socket: Socket::Tls(Box::new(stream)), h2, certificate })
}

/// Makes the handshake of an authority that validates a name, or that of a client.
async fn accept_either(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    challenge: &Arc<ServerConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let config = if is_challenge(&begun.client_hello()) { challenge } else { config };
    begun.into_stream(Arc::clone(config)).await
}

fn reason(error: &io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else { return "closed" };
    match error {
        rustls::Error::NoCertificatesPresented => "certificate_missing",
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "certificate_expired"
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => "certificate_unknown_issuer",
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => "certificate_revoked",
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. },
        )
        | rustls::Error::InvalidCertRevocationList(_) => "revocation_unknown",
        rustls::Error::InvalidCertificate(_) => "certificate_invalid",
        rustls::Error::AlertReceived(_) => "alert",
        rustls::Error::PeerIncompatible(_) => "incompatible",
        rustls::Error::NoApplicationProtocol => "alpn",
        _ => "protocol",
    }
}

impl Socket {
    /// Whether what was written may still wait to be sent although it was taken.
    pub fn buffers(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Plain(stream) => stream.as_raw_fd(),
            Self::Tls(stream) => stream.as_raw_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
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

#[cfg(test)]
mod tests;
