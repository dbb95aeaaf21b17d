//! PEM files that the configuration names. Every mistake is told at the place of the name.

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::load::Attached;
use crate::yaml::{Located, Problem};

/// Reads files that were loaded with the configuration.
pub struct Pem<'a> {
    pub files: &'a Attached,
    pub problems: &'a mut Vec<Problem>,
}

impl<'a> Pem<'a> {
    /// A certificate, and those behind it.
    pub fn chain(&mut self, name: &Located<String>) -> Option<Vec<CertificateDer<'static>>> {
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

    pub fn key(&mut self, name: &Located<String>) -> Option<PrivateKeyDer<'static>> {
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

    /// Certificates of authorities.
    pub fn authorities(&mut self, name: &Located<String>) -> Option<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for authority in self.chain(name)? {
            if let Err(error) = roots.add(authority) {
                let message = format!("`{}` holds a certificate that cannot be an authority: {error}", name.value);
                self.problems.push(Problem::new(name.place, message));
                return None;
            }
        }
        Some(roots)
    }

    /// Lists of revoked certificates.
    pub fn revocation_lists(&mut self, name: &Located<String>) -> Option<Vec<CertificateRevocationListDer<'static>>> {
        let pem = self.content(name)?;
        let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
        match read {
            Ok(lists) if !lists.is_empty() => Some(lists),
            _ => {
                let problem = Problem::new(name.place, format!("`{}` holds no revocation list in PEM", name.value));
                let hint = "it begins with -----BEGIN X509 CRL-----; openssl crl -inform DER -in list.crl prints it so";
                self.problems.push(problem.with_hint(hint));
                None
            }
        }
    }

    /// Whether the key is the one of the certificate. A key that cannot tell its public half is taken on trust: a handshake
    /// would show it.
    fn fit(&mut self, cert: &Located<String>, key: &Located<String>, certified: &CertifiedKey) -> bool {
        let fits =
            !matches!(certified.keys_match(), Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)));
        if !fits {
            let message = format!("`{}` is not the key of `{}`", key.value, cert.value);
            let problem = Problem::new(key.place, message).with_related("the certificate", cert.place);
            self.problems.push(problem.with_hint("the own certificate stands first in its file"));
        }
        fits
    }

    /// What a file holds.
    pub fn content(&mut self, name: &Located<String>) -> Option<&'a [u8]> {
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

    /// A certificate chain with its key, ready to sign.
    pub fn pair(
        &mut self,
        cert: &Located<String>,
        key: &Located<String>,
        provider: &CryptoProvider,
    ) -> Option<CertifiedKey> {
        let (chain, secret) = (self.chain(cert), self.key(key));
        let (chain, secret) = (chain?, secret?);
        let signing = match provider.key_provider.load_private_key(secret) {
            Ok(signing) => signing,
            Err(error) => {
                let message = format!("`{}` holds a key that cannot be used: {error}", key.value);
                self.problems.push(Problem::new(key.place, message).with_hint("RSA, ECDSA and Ed25519 can"));
                return None;
            }
        };
        let certified = CertifiedKey::new(chain, signing);
        self.fit(cert, key, &certified).then_some(certified)
    }
}
