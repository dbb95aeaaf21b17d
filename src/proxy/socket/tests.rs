use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;
use crate::caller::SubjectName;
use crate::config::load::{Environment, Overrides, load};
use crate::gateway::{Gateway, Services, compile};
use crate::observe::metrics::Metrics;

const PATIENCE: Duration = Duration::from_secs(30);

/// An authority of certificates.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A chain and its key, as a client sends them.
type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A certificate of this authority, changed so.
    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(["site.test".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn client(&self, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let (certificate, key) = self.issue(change);
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }
}

/// A gateway with one TLS listener that asks clients for certificates of `authority`.
fn gateway(authority: &Authority, client_auth: &str) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.issue(|_| {});
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("site.pem", &certificate.pem());
    write("site.key", &key.serialize_pem());
    write("ca.pem", &authority.certificate.pem());
    let tls =
        format!("certificates: [{{ cert: site.pem, key: site.key }}], client_ca: ca.pem, client_auth: {client_auth}");
    write("gateway.yaml", &format!("version: 1\nlisteners: [{{ bind: 127.0.0.1:0, tls: {{ {tls} }} }}]\n"));
    let loaded = load(&folder.path().join("gateway.yaml"), &Environment::default(), &Overrides::new());
    let services = Services::new(Metrics::new(10));
    let compiled = compile(&loaded.config.unwrap(), loaded.sources, loaded.hash, None, &services);
    compiled.map_err(|(sources, problems)| problems.iter().map(|p| sources.render(p)).collect::<String>()).unwrap()
}

/// What a handshake of such a client comes to, on the side of the gateway.
async fn meet(
    gateway: &Gateway,
    trusted: &Authority,
    client: Option<Pair>,
    alpn: &[&[u8]],
) -> Result<Secured, &'static str> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match client {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("site.test").unwrap();
        if let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await {
            // With TLS 1.3 the client is through before the server has seen its certificate.
            let _ = stream.read_u8().await;
        }
    });
    let (stream, _) = listener.accept().await.unwrap();
    let tls = gateway.settings.listeners[0].tls.as_ref().unwrap();
    handshake(stream, &tls.config, None, PATIENCE).await
}

fn named(params: &mut CertificateParams) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Acme");
    params.distinguished_name.push(DnType::CommonName, "svc-a");
    params.subject_alt_names = vec![SanType::URI("spiffe://acme.test/svc-a".try_into().unwrap())];
}

#[tokio::test]
async fn a_certificate_of_the_authority_is_known_by_all_its_names() {
    let authority = Authority::new("ours");
    for policy in ["required", "optional"] {
        let gateway = gateway(&authority, policy);
        let pair = authority.client(named);
        let leaf = pair.0[0].clone();
        let secured = meet(&gateway, &authority, Some(pair), &[]).await.unwrap();
        let known = secured.certificate.unwrap();
        assert_eq!(&*known.subject, "CN=svc-a,O=Acme");
        assert_eq!(*known.names, [SubjectName::written("spiffe://acme.test/svc-a")]);
        assert_eq!(*known, ClientCertificate::parse(&leaf).unwrap());
    }
}

#[tokio::test]
async fn a_certificate_of_somebody_else_ends_the_handshake_whatever_it_says() {
    // The same name, another key.
    let (ours, theirs) = (Authority::new("ours"), Authority::new("ours"));
    for policy in ["required", "optional"] {
        let gateway = gateway(&ours, policy);
        let reason = meet(&gateway, &ours, Some(theirs.client(named)), &[]).await.err().unwrap();
        assert!(["certificate_unknown_issuer", "certificate_invalid"].contains(&reason), "{reason}");
        let expired = ours.client(|params| {
            named(params);
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        });
        assert_eq!(meet(&gateway, &ours, Some(expired), &[]).await.err(), Some("certificate_expired"));
        let early = ours.client(|params| {
            named(params);
            params.not_before = rcgen::date_time_ymd(3020, 1, 1);
            params.not_after = rcgen::date_time_ymd(3021, 1, 1);
        });
        assert_eq!(meet(&gateway, &ours, Some(early), &[]).await.err(), Some("certificate_invalid"));
    }
}

#[tokio::test]
async fn no_certificate_is_enough_only_where_it_is_optional() {
    let authority = Authority::new("ours");
    let required = meet(&gateway(&authority, "required"), &authority, None, &[]).await;
    assert_eq!(required.err(), Some("certificate_missing"));
    let optional = meet(&gateway(&authority, "optional"), &authority, None, &[]).await.unwrap();
    assert_eq!(optional.certificate, None);
    // One that nobody asked for is not sent.
    let none = meet(&gateway(&authority, "none"), &authority, Some(authority.client(named)), &[]).await.unwrap();
    assert_eq!(none.certificate, None);
}

#[tokio::test]
async fn the_protocol_is_agreed_on_and_not_guessed() {
    let authority = Authority::new("ours");
    let gateway = gateway(&authority, "none");
    for (offered, h2) in [(&[&b"h2"[..], b"http/1.1"][..], true), (&[b"http/1.1"], false), (&[], false)] {
        assert_eq!(meet(&gateway, &authority, None, offered).await.unwrap().h2, h2, "{offered:?}");
    }
    assert_eq!(meet(&gateway, &authority, None, &[b"spdy/1"]).await.err(), Some("alpn"));
}

#[tokio::test]
async fn a_handshake_has_an_end() {
    let authority = Authority::new("ours");
    let gateway = gateway(&authority, "none");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let tls = gateway.settings.listeners[0].tls.as_ref().unwrap();
    let ended = handshake(stream, &tls.config, None, Duration::from_millis(50)).await;
    assert_eq!(ended.err(), Some("timeout"));
    drop(silent);
}
