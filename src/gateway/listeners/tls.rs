//! From certificates and keys to what a TLS handshake needs.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

use crate::acme::{Managed, Resolver};
use crate::caller::{ClientCertificate, SubjectName};
use crate::config::load::Attached;
use crate::config::{self, ClientAuth};
use crate::yaml::{Located, Problem};

/// Sessions that clients may resume instead of a whole handshake.
const SESSIONS_MAX: usize = 10_240;

/// TLS of a listener, ready to be used.
pub struct Tls {
    pub config: Arc<ServerConfig>,
    /// What answers an authority that validates a name in a handshake. `None`: none does.
    pub challenge: Option<Arc<ServerConfig>>,
    /// Each certificate by the name of its file, and when it ends.
    pub ends: Vec<(String, SystemTime)>,
    /// Over everything it was compiled from.
    digest: [u8; 32],
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Tls {
    /// Compiles what is written, or takes over `known` when it was compiled from the same.
    pub fn compile(
        written: &config::Tls,
        files: &Attached,
        acme: Vec<Arc<Managed>>,
        known: Option<&Arc<Self>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Self>> {
        let digest = digest(written, files, &acme);
        if let Some(known) = known.filter(|known| known.digest == digest) {
            return Some(Arc::clone(known));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut reading = Reading { files, provider: &provider, problems };
        let certificates = if written.certificates.value.is_empty() && !written.acme.is_empty() {
            Some(Certificates::new(Vec::new()))
        } else {
            reading.certificates(&written.certificates)
        };
        let verifier = reading.verifier(written);
        let (certificates, verifier) = (certificates?, verifier?);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = match builder {
            Ok(builder) => builder,
            Err(error) => {
                problems.push(Problem::new(written.certificates.place, format!("TLS is not available: {error}")));
                return None;
            }
        };
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let ends = certificates.all.iter().map(|known| (known.file.clone(), known.not_after)).collect();
        let challenge = acme.first().map(|managed| managed.challenge_config()).transpose();
        let challenge = challenge.ok().flatten();
        let mut config = builder.with_cert_resolver(Resolver::before(acme, Arc::new(certificates)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        Some(Arc::new(Self { config: Arc::new(config), challenge, ends, digest }))
    }
}

/// Over names, contents and settings.
fn digest(written: &config::Tls, files: &Attached, acme: &[Arc<Managed>]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut add = |part: &[u8]| {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    for name in written.files() {
        add(name.value.as_bytes());
        add(files.get(&name.value).and_then(|content| content.as_deref().ok()).unwrap_or_default());
    }
    add(format!("{:?} {}", written.client_auth.map(|auth| auth.value), written.client_ca.is_some()).as_bytes());
    // Those that come by ACME are what they are, whatever is in them now.
    acme.iter().for_each(|managed| add(managed.key().as_bytes()));
    hasher.finalize().into()
}

/// What a client must prove; the outer `Option` is `None` after a mistake.
type Verifier = Option<Arc<dyn ClientCertVerifier>>;

struct Reading<'a> {
    files: &'a Attached,
    provider: &'a Arc<CryptoProvider>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reading<'a> {
    fn certificates(&mut self, written: &Located<Vec<config::Certificate>>) -> Option<Certificates> {
        if written.value.is_empty() {
            let problem = Problem::new(written.place, "a listener with `tls` needs a certificate");
            self.problems.push(problem.with_hint("write `certificates: [{ cert: site.pem, key: site.key }]`"));
            return None;
        }
        let mut all = Vec::with_capacity(written.value.len());
        for pair in &written.value {
            // Every pair is looked at: all mistakes at once.
            all.push(self.pair(pair));
        }
        all.into_iter().collect::<Option<Vec<_>>>().map(Certificates::new)
    }

    fn pair(&mut self, pair: &config::Certificate) -> Option<Known> {
        let (chain, key) = (self.chain(&pair.cert), self.key(&pair.key));
        let (chain, key) = (chain?, key?);
        let signing = match self.provider.key_provider.load_private_key(key) {
            Ok(signing) => signing,
            Err(error) => {
                let message = format!("`{}` holds a key that cannot be used: {error}", pair.key.value);
                self.problems.push(Problem::new(pair.key.place, message).with_hint("RSA, ECDSA and Ed25519 can"));
                return None;
            }
        };
        let leaf = chain.first().and_then(|leaf| ClientCertificate::parse(leaf));
        let certified = CertifiedKey::new(chain, signing);
        // A key that cannot tell its public half is taken on trust: a handshake would show it.
        let fits =
            !matches!(certified.keys_match(), Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)));
        let Some(leaf) = leaf else {
            let message = format!("`{}` holds a certificate that cannot be read", pair.cert.value);
            self.problems.push(Problem::new(pair.cert.place, message));
            return None;
        };
        if !fits {
            let message = format!("`{}` is not the key of `{}`", pair.key.value, pair.cert.value);
            let problem = Problem::new(pair.key.place, message).with_related("the certificate", pair.cert.place);
            self.problems.push(problem.with_hint("the server's own certificate stands first in its file"));
            return None;
        }
        let names = leaf.names.iter().filter_map(|name| match name {
            SubjectName::Dns(name) => Some(name.clone()),
            SubjectName::Uri(_) | SubjectName::Email(_) => None,
        });
        let names = names.collect();
        Some(Known { certified: Arc::new(certified), names, file: pair.cert.value.clone(), not_after: leaf.not_after })
    }

    fn chain(&mut self, name: &Located<String>) -> Option<Vec<CertificateDer<'static>>> {
        let pem = self.content(name)?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match read {
            Ok(chain) if !chain.is_empty() => Some(chain),
            _ => {
                let problem = Problem::new(name.place, format!("`{}` holds no certificate in PEM", name.value));
                self.problems.push(problem.with_hint("it begins with -----BEGIN CERTIFICATE-----"));
                None
            }
        }
    }

    fn key(&mut self, name: &Located<String>) -> Option<PrivateKeyDer<'static>> {
        let pem = self.content(name)?;
        let hint = if pem.windows(9).any(|word| word == b"ENCRYPTED") {
            format!("it is locked by a password; openssl pkey -in {} prints it without", name.value)
        } else {
            "it begins with -----BEGIN PRIVATE KEY-----, or with EC or RSA in it".to_owned()
        };
        match PrivateKeyDer::from_pem_slice(pem) {
            Ok(key) => Some(key),
            Err(_) => {
                let problem = Problem::new(name.place, format!("`{}` holds no private key in PEM", name.value));
                self.problems.push(problem.with_hint(hint));
                None
            }
        }
    }

    fn verifier(&mut self, written: &config::Tls) -> Option<Verifier> {
        let asked = written.client_auth.map(|auth| auth.value);
        let Some(name) = &written.client_ca else {
            let Some(auth) = written.client_auth.filter(|auth| auth.value != ClientAuth::None) else {
                return Some(None);
            };
            let problem = Problem::new(auth.place, "`client_auth` needs a `client_ca`");
            self.problems.push(problem.with_hint("name the file with the certificates of the authorities"));
            return None;
        };
        let mut roots = RootCertStore::empty();
        for authority in self.chain(name)? {
            if let Err(error) = roots.add(authority) {
                let message = format!("`{}` holds a certificate that cannot be an authority: {error}", name.value);
                self.problems.push(Problem::new(name.place, message));
                return None;
            }
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(self.provider));
        let builder = match asked.unwrap_or(ClientAuth::Required) {
            ClientAuth::None => return Some(None),
            ClientAuth::Optional => builder.allow_unauthenticated(),
            ClientAuth::Required => builder,
        };
        match builder.build() {
            Ok(verifier) => Some(Some(verifier)),
            Err(error) => {
                let message = format!("`{}` cannot be used: {error}", name.value);
                self.problems.push(Problem::new(name.place, message));
                None
            }
        }
    }

    fn content(&mut self, name: &Located<String>) -> Option<&'a [u8]> {
        match self.files.get(&name.value) {
            Some(Ok(content)) => Some(content),
            Some(Err(why)) => {
                let problem = Problem::new(name.place, format!("cannot read `{}`: {why}", name.value));
                self.problems.push(problem.with_hint("the path is relative to the folder of gateway.yaml"));
                None
            }
            None => {
                self.problems.push(Problem::new(name.place, format!("`{}` was not read", name.value)));
                None
            }
        }
    }
}

struct Known {
    certified: Arc<CertifiedKey>,
    /// In lower case, `*.example.com` among them.
    names: Vec<Box<str>>,
    file: String,
    not_after: SystemTime,
}

/// The certificates of a listener, by the names they are for.
struct Certificates {
    all: Vec<Known>,
    by_name: HashMap<Box<str>, Vec<usize>>,
}

impl Certificates {
    fn new(all: Vec<Known>) -> Self {
        let mut by_name: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (index, known) in all.iter().enumerate() {
            for name in &known.names {
                by_name.entry(name.clone()).or_default().push(index);
            }
        }
        Self { all, by_name }
    }

    /// Those for `name`, in the order of the configuration; RFC 9525 §6.3: a wildcard stands for one label.
    fn named(&self, name: &str) -> &[usize] {
        let exact = self.by_name.get(name);
        let wildcard = || self.by_name.get(format!("*.{}", name.split_once('.')?.1).as_str());
        exact.or_else(wildcard).map(Vec::as_slice).unwrap_or_default()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|known| &known.file)).finish()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let named = name.as_deref().map(|name| self.named(name)).unwrap_or_default();
        let named = named.iter().filter_map(|index| self.all.get(*index));
        // Of an RSA and an ECDSA certificate for one name, a client may be able to verify only one.
        let fits = |known: &&Known| known.certified.key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = named.chain(&self.all).find(fits).or(self.all.first());
        chosen.map(|known| Arc::clone(&known.certified))
    }
}

#[cfg(test)]
mod tests;
