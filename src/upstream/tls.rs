//! TLS to the targets of an upstream: what is written, checked and ready to be used.

mod line;
mod verifier;

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::caller::ClientCertificate;
use crate::config::load::Attached;
use crate::config::pem::Pem;
use crate::config::{self, Protocol, TlsVersion, UpstreamTlsSettings, Verify};
use crate::yaml::{Located, Problem};
pub use line::{Line, NO_H2};
use verifier::verifier;

/// How connections to the targets of an upstream are secured. Two are equal when everything is that went into them, the
/// contents of files included.
pub struct Tls {
    pub verify: Verify,
    pub min_version: TlsVersion,
    /// Trusted authorities. `None`: those of the system.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    /// What the gateway shows of itself.
    pub identity: Option<Identity>,
    /// For whom makes the handshake with rustls.
    pub client: Arc<ClientConfig>,
    server_name: Option<Arc<str>>,
    digest: [u8; 32],
    /// What an engine has made of this for itself.
    prepared: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// A certificate, those that lead to its authority, and its key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// The name of the certificate's file.
    pub file: Box<str>,
    pub not_after: SystemTime,
}

/// Who a target has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetName {
    /// The name in the certificate, a DNS name or an IP address, never empty.
    pub server_name: Arc<str>,
    /// The same with the port, as `Host`.
    pub host: Arc<str>,
}

impl TargetName {
    /// As rustls takes it.
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(self.server_name.to_string()).ok()
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("verify", &self.verify).finish_non_exhaustive()
    }
}

impl Tls {
    /// Compiles `tls` of an upstream. `None` without it, and after a mistake.
    pub fn check(written: &config::Upstream, files: &Attached, problems: &mut Vec<Problem>) -> Option<Arc<Self>> {
        let tls = written.tls.as_ref().map(|tls| (tls.place(), tls.settings()));
        let (place, settings) = match tls {
            Some((place, Ok(Some(settings)))) => (place, settings),
            Some((_, Err(found))) => {
                problems.extend(found);
                return None;
            }
            None | Some((_, Ok(None))) => {
                refuse_without(written, problems);
                return None;
            }
        };
        let before = problems.len();
        if written.protocol == Protocol::H2c {
            let problem = Problem::new(place, "`protocol: h2c` is HTTP/2 without TLS");
            problems.push(problem.with_hint("write `protocol: h2`, or `auto`"));
        }
        let name = settings.server_name.as_ref();
        if let Some(name) = name.filter(|name| !is_server_name(&name.value)) {
            let message = format!("`{}` is neither a DNS name nor an IP address", name.value);
            problems.push(Problem::new(name.place, message).with_hint("write it without a port, such as api.internal"));
        }
        if name.is_none() {
            check_targets(&written.targets, problems);
        }
        let verify = settings.verify.as_ref().map_or_else(Verify::default, |verify| verify.value);
        if let (Verify::Ca, None, Some(asked)) = (verify, &settings.ca, &settings.verify) {
            let problem = Problem::new(asked.place, "`verify: ca` needs a `ca`");
            let hint =
                "everybody can have a certificate of the authorities that systems trust; name the file of your own";
            problems.push(problem.with_hint(hint));
        }
        let made = Self::build(written, &settings, verify, files, problems);
        made.filter(|_| problems.len() == before).map(Arc::new)
    }

    fn build(
        written: &config::Upstream,
        settings: &UpstreamTlsSettings,
        verify: Verify,
        files: &Attached,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut pem = Pem { files, problems };
        let authorities = settings.ca.as_ref().map(|ca| {
            let (chain, roots) = (pem.chain(ca)?, pem.authorities(ca)?);
            readable(&mut pem, ca, chain).zip(Some(roots))
        });
        let identity = settings.client_cert.as_ref().map(|pair| identity(&mut pem, pair, &provider));
        // `None` after a mistake, which was told.
        let (authorities, identity) = (transpose(authorities)?, transpose(identity)?);
        let (authorities, roots) = match authorities {
            Some((authorities, roots)) => (Some(authorities), Arc::new(roots)),
            None => (None, system()),
        };
        let versions: &[_] = if settings.min_version == TlsVersion::V13 { &[&TLS13] } else { &[&TLS12, &TLS13] };
        let client =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).ok()?;
        let client = match verify {
            Verify::Full => client.with_root_certificates(roots),
            Verify::Ca | Verify::Off => {
                client.dangerous().with_custom_certificate_verifier(verifier(verify, &roots, &provider)?)
            }
        };
        let mut client = match &identity {
            None => client.with_no_client_auth(),
            Some(Identity { chain, key, .. }) => client.with_client_auth_cert(chain.clone(), key.clone_key()).ok()?,
        };
        client.alpn_protocols = match written.protocol {
            Protocol::Http1 | Protocol::H2c => vec![b"http/1.1".to_vec()],
            Protocol::H2 => vec![b"h2".to_vec()],
            Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        Some(Self {
            verify,
            min_version: settings.min_version,
            digest: digest(written, settings, authorities.as_deref(), identity.as_ref()),
            authorities,
            identity,
            client: Arc::new(client),
            server_name: settings.server_name.as_ref().map(|name| Arc::from(name.value.as_str())),
            prepared: OnceLock::new(),
        })
    }

    /// Whether each target is verified by the host of its own address.
    pub fn goes_by_address(written: &config::Upstream) -> bool {
        let settings = written.tls.as_ref().and_then(|tls| tls.settings().ok().flatten());
        settings.is_some_and(|settings| settings.server_name.is_none())
    }

    /// Whether a certificate can be for the host of this address.
    pub fn can_be_at(address: &str) -> bool {
        is_server_name(&split(address).0)
    }

    /// Who the target at `address`, as it is written, has to be.
    pub fn name_of(&self, address: &str) -> TargetName {
        let (own, port) = split(address);
        let server_name = self.server_name.clone().unwrap_or_else(|| Arc::from(own));
        let shown = if server_name.contains(':') { format!("[{server_name}]") } else { server_name.to_string() };
        let host = if port == "443" { shown } else { format!("{shown}:{port}") };
        TargetName { server_name, host: host.into() }
    }

    /// Different for all settings that differ: connections must not be shared.
    pub fn key(&self) -> u64 {
        self.digest.first_chunk().map_or(1, |first| u64::from_le_bytes(*first))
    }

    /// What `make` makes of this, made once. `None` when it is of another type than the first time.
    pub fn prepared<T: Any + Send + Sync>(&self, make: impl FnOnce(&Self) -> T) -> Option<&T> {
        self.prepared.get_or_init(|| Box::new(make(self))).downcast_ref()
    }
}

/// What only makes sense with TLS.
fn refuse_without(written: &config::Upstream, problems: &mut Vec<Problem>) {
    let word = match written.protocol {
        Protocol::Http1 | Protocol::H2c => return,
        Protocol::H2 => "h2",
        Protocol::Auto => "auto",
    };
    let problem = Problem::new(written.targets.place, format!("`protocol: {word}` needs `tls`"));
    problems.push(problem.with_hint("write `tls: true`, or `protocol: h2c` for HTTP/2 without TLS"));
}

fn check_targets(targets: &Located<Vec<config::Target>>, problems: &mut Vec<Problem>) {
    for target in &targets.value {
        let (host, _) = split(&target.address.value);
        if !is_server_name(&host) {
            let message = format!("no certificate can be for `{host}`");
            let problem = Problem::new(target.address.place, message);
            problems.push(problem.with_hint("write the name in the certificate as `server_name` of `tls`"));
        }
    }
}

/// Host and port of an address as it is written; what is none is told elsewhere.
fn split(address: &str) -> (String, &str) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let known: Option<SocketAddr> = address.parse().ok();
    let host = known.map_or_else(|| host.trim_end_matches('.').to_ascii_lowercase(), |known| known.ip().to_string());
    (host, port)
}

/// Whether it can stand in a certificate. An underscore cannot, and the engine would ask for another name in its place.
fn is_server_name(name: &str) -> bool {
    let is_name = ServerName::try_from(name).is_ok() && !name.contains('_') && !name.ends_with('.');
    is_name || name.parse::<IpAddr>().is_ok()
}

fn identity(pem: &mut Pem<'_>, pair: &config::ClientCert, provider: &CryptoProvider) -> Option<Identity> {
    let certified = pem.pair(&pair.cert, &pair.key, provider)?;
    let key = pem.key(&pair.key)?;
    // The engine finds out once more what kind of key it is.
    if PrivateKeyDer::try_from(key.secret_der()).is_err() {
        let message = format!("`{}` holds a key of an unknown kind", pair.key.value);
        pem.problems.push(Problem::new(pair.key.place, message).with_hint("openssl pkey prints it as PKCS#8"));
        return None;
    }
    let chain = readable(pem, &pair.cert, certified.cert)?;
    // When it ends only serves a warning.
    let not_after = chain.first().and_then(|leaf| ClientCertificate::parse(leaf)).map(|leaf| leaf.not_after);
    let not_after = not_after.unwrap_or(SystemTime::UNIX_EPOCH);
    Some(Identity { chain, key, file: pair.cert.value.as_str().into(), not_after })
}

/// The certificates, if all can be read: the engine reads them once more, and must not fail then.
fn readable(
    pem: &mut Pem<'_>,
    name: &Located<String>,
    certificates: Vec<CertificateDer<'static>>,
) -> Option<Vec<CertificateDer<'static>>> {
    if certificates.iter().all(|certificate| X509Certificate::from_der(certificate).is_ok()) {
        return Some(certificates);
    }
    let message = format!("`{}` holds a certificate that cannot be read", name.value);
    pem.problems.push(Problem::new(name.place, message));
    None
}

/// From "not written, or a mistake, or made" to "a mistake, or not written, or made".
#[allow(clippy::option_option, reason = "that is the question")]
fn transpose<T>(made: Option<Option<T>>) -> Option<Option<T>> {
    match made {
        None => Some(None),
        Some(made) => made.map(Some),
    }
}

/// The authorities that the system trusts, read once. Without any, no certificate is taken.
fn system() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    Arc::clone(ROOTS.get_or_init(read))
}

/// Over settings and the contents of files.
fn digest(
    written: &config::Upstream,
    settings: &UpstreamTlsSettings,
    authorities: Option<&[CertificateDer<'_>]>,
    identity: Option<&Identity>,
) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut add = |part: &[u8]| {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    let verify = settings.verify.as_ref().map(|verify| verify.value).unwrap_or_default();
    let name = settings.server_name.as_ref().map(|name| &name.value);
    add(format!("{:?} {verify:?} {name:?} {:?}", written.protocol, settings.min_version).as_bytes());
    add(&[u8::from(authorities.is_some())]);
    authorities.unwrap_or_default().iter().for_each(|authority| add(authority));
    add(&[u8::from(identity.is_some())]);
    if let Some(identity) = identity {
        identity.chain.iter().for_each(|certificate| add(certificate));
        add(identity.key.secret_der());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests;
