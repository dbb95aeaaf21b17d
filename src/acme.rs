//! Certificates of listeners that the gateway gets by itself, by ACME ([RFC 8555](https://www.rfc-editor.org/rfc/rfc8555)).
//!
//! A snapshot names what it wants ([`Site`]). What there is ([`Managed`]) belongs to the process: a reload forgets no
//! certificate and no pause after a failure. [`keep`](Acme::keep) gets and renews them beside the request path; a handshake
//! only ever takes the one that is there. The last good one stays in use whatever happens.

mod certified;
mod challenges;
mod client;
mod keep;
mod order;
mod resolver;
mod storage;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

use crate::observe::metrics::AcmeSample;
use crate::types::hex;
use certified::Held;
pub use challenges::{Challenges, PROTOCOL, is_challenge};
pub use resolver::Resolver;

/// How the authority is shown that a name leads here.
pub use crate::config::AcmeChallenge as Method;

/// The authority, and where what it gives out is kept.
#[derive(Clone)]
pub struct Settings {
    pub directory: String,
    pub contact: Vec<String>,
    pub storage: PathBuf,
    pub renew_before: Duration,
    /// The first pause after a failure.
    pub retry_min: Duration,
    /// PEM of the authorities that vouch for the directory. `None`: those of the system.
    pub roots: Option<Vec<u8>>,
    /// Id and key of an account that the authority knows already.
    pub eab: Option<(String, Vec<u8>)>,
}

/// What one snapshot wants.
pub struct Site {
    pub settings: Settings,
    pub certificates: Vec<Arc<Managed>>,
    pub challenges: Arc<Challenges>,
}

/// A certificate that is wanted, and the one there is.
pub struct Managed {
    /// In lower case, as they are written.
    pub domains: Box<[String]>,
    pub method: Method,
    /// Of its file; different for every directory and set of names.
    stem: String,
    challenges: Arc<Challenges>,
    held: ArcSwapOption<Held>,
    standing: Mutex<Standing>,
    issued: AtomicU64,
    failed: AtomicU64,
}

/// How it goes with a certificate.
#[derive(Default)]
struct Standing {
    /// What is stored was looked at.
    loaded: bool,
    /// Not before then is it tried again.
    next: Option<Instant>,
    /// In a row.
    failures: u32,
    /// Why the last try failed.
    error: Option<String>,
}

/// What all snapshots of a process have in common.
#[derive(Default)]
pub struct Acme {
    known: Mutex<HashMap<(String, Method), Weak<Managed>>>,
    pub challenges: Arc<Challenges>,
    /// Until then the authority is asked for nothing: it said so, or it cannot be reached.
    hold: Mutex<Option<Instant>>,
}

impl Acme {
    /// The certificate for these names, with what is known about it already.
    pub fn managed(&self, directory: &str, domains: &[String], method: Method) -> Arc<Managed> {
        let stem = stem(directory, domains);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, managed| managed.strong_count() > 0);
        let key = (stem, method);
        if let Some(managed) = known.get(&key).and_then(Weak::upgrade) {
            return managed;
        }
        let managed = Arc::new(Managed {
            domains: domains.into(),
            method,
            stem: key.0.clone(),
            challenges: Arc::clone(&self.challenges),
            held: ArcSwapOption::empty(),
            standing: Mutex::default(),
            issued: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        known.insert(key, Arc::downgrade(&managed));
        managed
    }
}

impl Managed {
    /// The certificate to show, if there is one.
    pub fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.held.load().as_ref().map(|held| Arc::clone(&held.certified))
    }

    pub fn sample(&self) -> AcmeSample {
        AcmeSample {
            certificate: self.name().to_owned(),
            not_after: self.held.load().as_ref().map(|held| held.not_after),
            issued: self.issued.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// What makes it another certificate than others.
    pub fn key(&self) -> String {
        format!("{} {:?}", self.stem, self.method)
    }

    /// The side of TLS that answers an authority which validates names in handshakes.
    ///
    /// # Errors
    /// TLS is not available.
    pub fn challenge_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        challenges::challenge_config(&self.challenges)
    }

    fn name(&self) -> &str {
        self.domains.first().map(String::as_str).unwrap_or_default()
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of the file of a certificate: readable, and of these names at this authority only.
fn stem(directory: &str, domains: &[String]) -> String {
    let mut sorted: Vec<&str> = domains.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut hasher = Sha256::new();
    for part in [directory].into_iter().chain(sorted) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let digest: String = hex(&hasher.finalize()).chars().take(16).collect();
    format!("{}-{digest}", domains.first().map(String::as_str).unwrap_or_default())
}

#[cfg(test)]
mod tests;
