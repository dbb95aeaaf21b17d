//! From certificates and keys to what a TLS handshake needs.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::acme::{Managed, Resolver};
use crate::caller::{ClientCertificate, SubjectName};
use crate::config::load::Attached;
use crate::config::pem::Pem;
use crate::config::{self, ClientAuth, TlsVersion};
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
    /// Each revocation list by the name of its file, and until when it is up to date.
    pub lists: Vec<(String, SystemTime)>,
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
        let versions: &[_] = if written.min_version == TlsVersion::V13 { &[&TLS13] } else { &[&TLS12, &TLS13] };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
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
        if written.crl.is_some() {
            // Who resumes a session shows no certificate again, and the list could not be asked.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        }
        let lists = written.crl.as_ref().map(|crl| lists_end(crl, files)).unwrap_or_default();
        Some(Arc::new(Self { config: Arc::new(config), challenge, ends, lists, digest }))
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
    let ocsp: Vec<bool> = written.certificates.value.iter().map(|pair| pair.ocsp.is_some()).collect();
    let (auth, has_ca) = (written.client_auth.map(|auth| auth.value), written.client_ca.is_some());
    add(format!("{auth:?} {has_ca} {} {ocsp:?} {:?}", written.crl.is_some(), written.min_version).as_bytes());
    // Those that come by ACME are what they are, whatever is in them now.
    acme.iter().for_each(|managed| add(managed.key().as_bytes()));
    hasher.finalize().into()
}

/// Until when revocation lists are up to date, as far as they say so.
fn lists_end(name: &Located<String>, files: &Attached) -> Vec<(String, SystemTime)> {
    let lists = Pem { files, problems: &mut Vec::new() }.revocation_lists(name).unwrap_or_default();
    let end = |list: &[u8]| {
        let (_, list) = CertificateRevocationList::from_der(list).ok()?;
        let seconds = u64::try_from(list.next_update()?.timestamp()).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    };
    lists.iter().filter_map(|list| Some((name.value.clone(), end(list)?))).collect()
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
        let ocsp = pair.ocsp.as_ref().map(|name| self.ocsp(name));
        let provider = Arc::clone(self.provider);
        let mut certified = self.pem().pair(&pair.cert, &pair.key, &provider)?;
        let Some(leaf) = certified.cert.first().and_then(|leaf| ClientCertificate::parse(leaf)) else {
            let message = format!("`{}` holds a certificate that cannot be read", pair.cert.value);
            self.problems.push(Problem::new(pair.cert.place, message));
            return None;
        };
        if let Some(ocsp) = ocsp {
            certified.ocsp = Some(ocsp?);
        }
        let names = leaf.names.iter().filter_map(|name| match name {
            SubjectName::Dns(name) => Some(name.clone()),
            SubjectName::Uri(_) | SubjectName::Email(_) => None,
        });
        let names = names.collect();
        Some(Known { certified: Arc::new(certified), names, file: pair.cert.value.clone(), not_after: leaf.not_after })
    }

    /// An answer of OCSP. Whether it is true is for clients to tell; that it is one at all is looked at here.
    fn ocsp(&mut self, name: &Located<String>) -> Option<Vec<u8>> {
        let content = self.pem().content(name)?;
        // RFC 6960 §4.2.1: a sequence that begins with the status, and 0 is the one of an answer that says something.
        let says_something = content.first() == Some(&0x30) && content.windows(3).take(8).any(|it| it == [0x0a, 1, 0]);
        if says_something {
            return Some(content.to_vec());
        }
        let problem = Problem::new(name.place, format!("`{}` holds no answer of OCSP in DER", name.value));
        self.problems.push(problem.with_hint("openssl ocsp -respout writes it so"));
        None
    }

    fn pem(&mut self) -> Pem<'_> {
        Pem { files: self.files, problems: self.problems }
    }

    fn verifier(&mut self, written: &config::Tls) -> Option<Verifier> {
        let asked = written.client_auth.map(|auth| auth.value);
        let Some(name) = &written.client_ca else {
            if let Some(crl) = &written.crl {
                let problem = Problem::new(crl.place, "`crl` needs a `client_ca`");
                self.problems.push(problem.with_hint("name the file with the certificates of the authorities"));
                return None;
            }
            let Some(auth) = written.client_auth.filter(|auth| auth.value != ClientAuth::None) else {
                return Some(None);
            };
            let problem = Problem::new(auth.place, "`client_auth` needs a `client_ca`");
            self.problems.push(problem.with_hint("name the file with the certificates of the authorities"));
            return None;
        };
        let roots = self.pem().authorities(name);
        let lists = written.crl.as_ref().map(|crl| self.pem().revocation_lists(crl));
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots?), Arc::clone(self.provider));
        if let Some(lists) = lists {
            // Every certificate but the authority's own needs a list that speaks of it and is up to date.
            builder = builder.with_crls(lists?).enforce_revocation_expiration();
        }
        let builder = match asked.unwrap_or(ClientAuth::Required) {
            ClientAuth::None => return Some(None),
            ClientAuth::Optional => builder.allow_unauthenticated(),
            ClientAuth::Required => builder,
        };
        match builder.build() {
            Ok(verifier) => Some(Some(verifier)),
            Err(error) => {
                let name = written.crl.as_ref().unwrap_or(name);
                let message = format!("`{}` cannot be used: {error}", name.value);
                self.problems.push(Problem::new(name.place, message));
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
