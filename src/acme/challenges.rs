//! What authorities may ask for right now. Nothing else is answered.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use instant_acme::KeyAuthorization;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Where HTTP-01 asks (RFC 8555 §8.3).
const PREFIX: &str = "/.well-known/acme-challenge/";
/// What TLS-ALPN-01 speaks (RFC 8737 §6.2).
pub const PROTOCOL: &[u8] = b"acme-tls/1";

/// The challenges that are pending.
#[derive(Default)]
pub struct Challenges {
    /// How many there are: as a rule none, and nobody takes the lock.
    count: AtomicUsize,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    /// By token.
    requests: HashMap<String, String>,
    /// By name.
    handshakes: HashMap<String, Arc<CertifiedKey>>,
}

/// Ends a challenge when it is dropped.
pub struct Posed {
    challenges: Arc<Challenges>,
    key: Key,
}

enum Key {
    Token(String),
    Domain(String),
}

impl Challenges {
    /// The answer to a request for this path.
    pub fn answer(&self, path: &str) -> Option<String> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.lock().requests.get(path.strip_prefix(PREFIX)?).cloned()
    }

    /// Requests for this token are answered until the guard is dropped.
    pub fn pose_request(self: &Arc<Self>, token: &str, answer: &KeyAuthorization) -> Posed {
        self.lock().requests.insert(token.to_owned(), answer.as_str().to_owned());
        self.posed(Key::Token(token.to_owned()))
    }

    /// Handshakes for this name are answered until the guard is dropped.
    pub fn pose_handshake(self: &Arc<Self>, domain: &str, answer: &KeyAuthorization) -> Result<Posed, String> {
        let certified = special(domain, answer).map_err(|error| format!("cannot make a certificate: {error}"))?;
        self.lock().handshakes.insert(domain.to_owned(), Arc::new(certified));
        Ok(self.posed(Key::Domain(domain.to_owned())))
    }

    fn posed(self: &Arc<Self>, key: Key) -> Posed {
        self.count.fetch_add(1, Ordering::Relaxed);
        Posed { challenges: Arc::clone(self), key }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Posed {
    fn drop(&mut self) {
        let mut pending = self.challenges.lock();
        match &self.key {
            Key::Token(token) => drop(pending.requests.remove(token)),
            Key::Domain(domain) => drop(pending.handshakes.remove(domain)),
        }
        self.challenges.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The certificate that proves control over a name: nobody trusts it, and its extension holds the digest (RFC 8737 §3).
fn special(domain: &str, answer: &KeyAuthorization) -> Result<CertifiedKey, Box<dyn std::error::Error>> {
    let mut params = CertificateParams::new([domain.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(answer.digest().as_ref())];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key)?;
    // Unchecked: rustls reads no certificate with an extension that it has to know and does not.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// The side of TLS that answers TLS-ALPN-01 and speaks nothing else: no certificate of a client is asked for.
///
/// # Errors
/// TLS is not available.
pub fn challenge_config(challenges: &Arc<Challenges>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = builder.with_cert_resolver(Arc::new(Special(Arc::clone(challenges))));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Whether somebody wants to validate a name, and speaks nothing else.
pub fn is_challenge(hello: &ClientHello<'_>) -> bool {
    let mut offered = hello.alpn().into_iter().flatten();
    offered.next() == Some(PROTOCOL) && offered.next().is_none()
}

struct Special(Arc<Challenges>);

impl fmt::Debug for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Special")
    }
}

impl ResolvesServerCert for Special {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        self.0.lock().handshakes.get(&name).cloned()
    }
}
