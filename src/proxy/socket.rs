//! The byte stream to a client: plain TCP, or TLS over it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{CertificateError, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::acme::{PROTOCOL, is_challenge};
use crate::caller::ClientCertificate;
use crate::stream::Stream;

/// A connection to a client.
pub type Socket = Stream<TlsStream<TcpStream>>;

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

#[cfg(test)]
mod tests;
