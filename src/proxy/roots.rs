//! The authorities that the system trusts, where Pingora cannot read them itself.
//!
//! It reads them whenever an engine is made, and panics over one certificate of hundreds that is damaged, and over a file that is
//! gone. Then it is given those that are sound in a file without a name, as [`crate::upstream::Tls`] has them for all else.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pingora::tls::load_platform_certs_incl_env_into_store;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tracing::warn;

/// The name of a file with authorities for Pingora. `None`: it can read those of the system.
pub fn file() -> Option<String> {
    // Open for as long as the process lives: engines may be made at any time.
    static SOUND: OnceLock<Option<File>> = OnceLock::new();
    let file = SOUND.get_or_init(|| {
        load_platform_certs_incl_env_into_store(&mut RootCertStore::empty()).err()?;
        let read = rustls_native_certs::load_native_certs();
        let (found, why) = (read.certs.len(), read.errors.first().map(ToString::to_string));
        let sound: Vec<_> = read.certs.into_iter().filter(is_sound).collect();
        let left_out = found.saturating_sub(sound.len());
        let why = why.unwrap_or_default();
        warn!(
            trusted = sound.len(),
            left_out, why, "what the system trusts cannot be read in full; services are verified with the rest"
        );
        write(&sound).inspect_err(|error| warn!(%error, "cannot keep what the system trusts")).ok()
    });
    file.as_ref().map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn is_sound(certificate: &CertificateDer<'static>) -> bool {
    RootCertStore::empty().add(certificate.clone()).is_ok()
}

/// A file that only this process can reach.
fn write(certificates: &[CertificateDer<'static>]) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("authorities", rustix::fs::MemfdFlags::CLOEXEC)?);
    for certificate in certificates {
        let text = STANDARD.encode(certificate);
        writeln!(file, "-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----")?;
    }
    Ok(file)
}
