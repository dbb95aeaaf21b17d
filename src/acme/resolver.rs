//! Which certificate a client is shown where some of them come by ACME.

use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Managed;

/// Certificates by ACME in front of those from files.
pub struct Resolver {
    managed: Vec<Arc<Managed>>,
    files: Arc<dyn ResolvesServerCert>,
}

impl Resolver {
    /// What chooses among both. Where none comes by ACME nothing is asked twice.
    pub fn before(managed: Vec<Arc<Managed>>, files: Arc<dyn ResolvesServerCert>) -> Arc<dyn ResolvesServerCert> {
        if managed.is_empty() { files } else { Arc::new(Self { managed, files }) }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.managed.iter().flat_map(|managed| &managed.domains);
        f.debug_list().entries(names).finish()
    }
}

impl ResolvesServerCert for Resolver {
    /// For a name whose certificate is not there yet there is none: another one would be refused by the client, and one that
    /// nobody vouches for must not be shown.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| {
            let is_for = |managed: &&Arc<Managed>| managed.domains.iter().any(|own| own.eq_ignore_ascii_case(name));
            self.managed.iter().find(is_for)
        });
        match named {
            Some(managed) => managed.certified(),
            // Names that nobody has get the first one, as they do among files alone.
            None => self.files.resolve(hello).or_else(|| self.managed.iter().find_map(|managed| managed.certified())),
        }
    }
}
