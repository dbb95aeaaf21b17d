//! A service that speaks TLS, made with rustls alone.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Authority, Pair, Upstream};

/// HTTP/1.1 is passed on to an upstream in plain text; HTTP/2 is answered with `h2`, the scheme and the authority.
pub struct TlsService {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Handshake>>>,
}

/// What a handshake that came about was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    pub name: Option<String>,
    pub alpn: Option<String>,
    pub client: Option<CertificateDer<'static>>,
}

/// What a service shows and asks for.
#[derive(Clone)]
pub struct Shows {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Vec<u8>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    pub alpn: Vec<&'static str>,
    /// Clients have to have a certificate of this authority.
    pub client_ca: Option<CertificateDer<'static>>,
}

impl Shows {
    pub fn pair(pair: &Pair) -> Self {
        Self {
            chain: vec![pair.certificate.der().clone()],
            key: pair.key.serialize_der(),
            versions: rustls::ALL_VERSIONS.to_vec(),
            alpn: vec!["h2", "http/1.1"],
            client_ca: None,
        }
    }

    pub fn asking(mut self, authority: &Authority) -> Self {
        self.client_ca = Some(authority.certificate.der().clone());
        self
    }

    pub fn versions(mut self, versions: &[&'static SupportedProtocolVersion]) -> Self {
        self.versions = versions.to_vec();
        self
    }

    pub fn alpn(mut self, alpn: &[&'static str]) -> Self {
        self.alpn = alpn.to_vec();
        self
    }

    fn config(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&self.versions).unwrap();
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::Pkcs8(self.key.clone().into());
        // A service may show nothing at all.
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let certified = CertifiedKey::new(self.chain.clone(), key);
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = self.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }
}

impl TlsService {
    pub async fn start(shows: Shows, behind: &Upstream) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), shows, behind).await
    }

    pub async fn start_at(address: SocketAddr, shows: Shows, behind: &Upstream) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, seen) = (TlsAcceptor::from(Arc::new(shows.config())), Arc::new(Mutex::new(Vec::new())));
        let (told, behind) = (Arc::clone(&seen), behind.address);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, told) = (acceptor.clone(), Arc::clone(&told));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let handshake = Handshake::of(&stream);
                    told.lock().unwrap().push(handshake.clone());
                    if handshake.alpn.as_deref() == Some("h2") {
                        answer_h2(stream).await;
                    } else {
                        pass_on(stream, behind).await;
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// Every handshake that came about.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.seen.lock().unwrap().clone()
    }
}

impl Handshake {
    fn of(stream: &TlsStream<TcpStream>) -> Self {
        let (_, session) = stream.get_ref();
        Self {
            name: session.server_name().map(str::to_owned),
            alpn: session.alpn_protocol().map(|protocol| String::from_utf8(protocol.to_vec()).unwrap()),
            client: session.peer_certificates().map(|chain| chain[0].clone().into_owned()),
        }
    }
}

async fn pass_on(mut stream: TlsStream<TcpStream>, to: SocketAddr) {
    let Ok(mut plain) = TcpStream::connect(to).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
}

async fn answer_h2(stream: TlsStream<TcpStream>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let uri = request.uri();
        let text = format!("h2 {} {}", uri.scheme_str().unwrap_or("-"), uri.authority().map_or("-", |it| it.as_str()));
        let Ok(mut body) = respond.send_response(Response::new(()), false) else { return };
        let _ = body.send_data(Bytes::from(text), true);
    }
}
