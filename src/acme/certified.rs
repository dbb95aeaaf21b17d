//! A certificate and its key as they are stored, read and looked at before they are used.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;

/// A certificate that can be shown.
pub struct Held {
    pub certified: Arc<CertifiedKey>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// As it is stored.
    pub pem: Vec<u8>,
}

impl Held {
    /// Reads a key and a chain.
    ///
    /// # Errors
    /// What is wrong with them: a certificate that would not work is not used.
    pub fn read(pem: &[u8], domains: &[String], now: SystemTime) -> Result<Self, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or("it holds no certificate in PEM")?;
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "it holds no private key in PEM")?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|error| format!("certificate and key do not fit: {error}"))?;
        let leaf = certified.cert.first().ok_or("it holds no certificate")?;
        let (_, leaf) = parse_x509_certificate(leaf).map_err(|_| "its certificate cannot be read")?;
        let names = leaf.subject_alternative_name().ok().flatten().ok_or("its certificate is for no names")?;
        let is_for = |domain: &String| {
            names.value.general_names.iter().any(|name| match name {
                GeneralName::DNSName(name) => name.eq_ignore_ascii_case(domain),
                _ => false,
            })
        };
        if let Some(missing) = domains.iter().find(|domain| !is_for(domain)) {
            return Err(format!("its certificate is not for {missing}"));
        }
        let (not_before, not_after) = (time(leaf.validity().not_before), time(leaf.validity().not_after));
        if not_after <= now {
            return Err("its certificate has expired".to_owned());
        }
        Ok(Self { certified: Arc::new(certified), not_before, not_after, pem: pem.to_vec() })
    }

    /// When to get the next one: so long before the end, but not before half of its life.
    pub fn renew_at(&self, before: Duration) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        let before = before.min(life.checked_div(2).unwrap_or_default());
        self.not_after.checked_sub(before).unwrap_or(self.not_before)
    }
}

fn time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}
