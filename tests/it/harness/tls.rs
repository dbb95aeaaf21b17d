//! Authorities, certificates, and a client's side of TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    RevocationReason, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::within;

/// An authority of certificates.
pub struct Authority {
    pub certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Pair {
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A certificate for these DNS names, of this subject.
    pub fn issue(&self, names: &[&str], common_name: &str) -> Pair {
        self.issue_until(names, common_name, 4000)
    }

    /// The same, valid until the beginning of a year.
    pub fn issue_until(&self, names: &[&str], common_name: &str, year: i32) -> Pair {
        self.issue_with(names, common_name, |params| params.not_after = rcgen::date_time_ymd(year, 1, 1))
    }

    /// The same, with what `change` makes of it.
    pub fn issue_with(&self, names: &[&str], common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = params(names, common_name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Pair { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    /// The list of the certificates of these serial numbers, revoked, up to date from the beginning of 2020 to that of a year.
    pub fn revokes(&self, serials: &[u64], year: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A certificate that has signed itself.
pub fn self_signed(names: &[&str]) -> Pair {
    let key = KeyPair::generate().unwrap();
    Pair { certificate: params(names, "self").self_signed(&key).unwrap(), key }
}

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_after = rcgen::date_time_ymd(4000, 1, 1);
    params
}

/// A client that trusts one authority.
#[derive(Clone)]
pub struct TlsClient(ClientConfig);

impl TlsClient {
    pub fn trusting(authority: &Authority) -> Self {
        Self::build(authority.certificate.der().clone(), None)
    }

    pub fn with_certificate(authority: &Authority, pair: &Pair) -> Self {
        Self::build(authority.certificate.der().clone(), Some(pair))
    }

    /// One that trusts an authority of which there is only the certificate.
    pub fn trusting_root(root: CertificateDer<'static>, pair: Option<&Pair>) -> Self {
        Self::build(root, pair)
    }

    /// Offers HTTP/2 alone.
    pub fn h2(mut self) -> Self {
        self.0.alpn_protocols = vec![b"h2".to_vec()];
        self
    }

    fn build(root: CertificateDer<'static>, pair: Option<&Pair>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        Self(match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::Pkcs8(pair.key.serialize_der().into());
                builder.with_client_auth_cert(vec![pair.certificate.der().clone()], key).unwrap()
            }
        })
    }

    pub async fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(address).await?, name).await
    }

    /// The same on a connection that is there already.
    pub async fn over(&self, stream: TcpStream, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(self.0.clone()));
        within("a TLS handshake", connector.connect(name, stream)).await
    }

    /// The certificate it is shown for a name.
    pub async fn shown(&self, address: SocketAddr, name: &str) -> CertificateDer<'static> {
        let stream = self.connect(address, name).await.expect("a handshake");
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// An address where plain connections become TLS ones to `address`: for clients that know TCP only.
    pub async fn tunnel(&self, address: SocketAddr, name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bound = listener.local_addr().unwrap();
        let client = self.clone();
        tokio::spawn(async move {
            while let Ok((mut plain, _)) = listener.accept().await {
                let client = client.clone();
                tokio::spawn(async move {
                    // A failed handshake shows as a connection that is closed.
                    let Ok(mut stream) = client.connect(address, name).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut plain, &mut stream).await;
                });
            }
        });
        bound
    }
}

/// An address where one plain connection becomes this one: for clients that know TCP only.
pub async fn plain(mut stream: TlsStream<TcpStream>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bound = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let Ok((mut plain, _)) = listener.accept().await else { return };
        let _ = tokio::io::copy_bidirectional(&mut plain, &mut stream).await;
    });
    bound
}
