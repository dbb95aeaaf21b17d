//! One managed key: as the store keeps it, and as requests find it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::usage::Meter;
use crate::caller::{Caller, CallerFields, Credential};
use crate::identity::{Digest, Identity, Reason, StoredRates};

/// A managed key as the store keeps it. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    /// Names the caller.
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// The visible beginning of the key.
    pub prefix: String,
    pub sha256: String,
    /// The key before the last rotation, for as long as it may still be used.
    #[serde(default)]
    pub previous: Option<Previous>,
    pub scopes: Vec<String>,
    #[serde(default)]
    pub roles: Vec<String>,
    /// In place of those that filters say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<StoredRates>,
    #[serde(default)]
    pub disabled: bool,
    pub created_at: u64,
    /// Who asked for it.
    pub created_by: String,
    pub updated_at: u64,
    pub expires_at: u64,
}

/// A key that a rotation replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    pub prefix: String,
    pub sha256: String,
    pub until: u64,
}

/// A managed key as requests find it.
pub struct ManagedKey {
    pub record: Record,
    pub(super) meter: Arc<Meter>,
    digest: Digest,
    previous: Option<(Digest, SystemTime)>,
    /// What it comes to under one snapshot: roles may bring other scopes under the next.
    callers: ArcSwapOption<Callers>,
}

struct Callers {
    generation: u64,
    current: Arc<Caller>,
    previous: Option<Arc<Caller>>,
}

impl ManagedKey {
    /// `None` when the record is damaged.
    pub(super) fn new(record: Record, meter: Arc<Meter>) -> Option<Self> {
        let digest = Digest::from_hex(&record.sha256)?;
        let previous = match &record.previous {
            Some(previous) => Some((Digest::from_hex(&previous.sha256)?, from_seconds(previous.until))),
            None => None,
        };
        Some(Self { record, meter, digest, previous, callers: ArcSwapOption::empty() })
    }

    /// The digests it is found by.
    pub(super) fn digests(&self) -> impl Iterator<Item = Digest> {
        std::iter::once(self.digest).chain(self.previous.map(|(digest, _)| digest))
    }

    /// Whether the key with this digest may be used.
    fn holds(&self, of: Which, now: SystemTime) -> Result<(), Reason> {
        if self.record.disabled {
            return Err(Reason::Disabled);
        }
        let rotated = match of {
            Which::Current => None,
            Which::Previous => self.previous.map(|(_, until)| until),
        };
        let ended = |until: SystemTime| until <= now;
        if ended(from_seconds(self.record.expires_at)) || rotated.is_some_and(ended) {
            return Err(Reason::Expired);
        }
        Ok(())
    }

    /// The caller it lets in under `identity`.
    pub(super) fn caller(&self, digest: &Digest, identity: &Identity, now: SystemTime) -> Result<Arc<Caller>, Reason> {
        let which = self.which(|own| own == digest).ok_or(Reason::Unknown)?;
        self.holds(which, now)?;
        let known = self.callers.load();
        let callers = match known.as_ref().filter(|known| known.generation == identity.generation()) {
            Some(known) => Arc::clone(known),
            None => {
                // A consumer or user of the configuration that came later owns the name: routes and services may ask for it.
                if identity.has_name(&self.record.name) {
                    return Err(Reason::Disabled);
                }
                let compiled = Arc::new(self.compile(identity).ok_or(Reason::Unknown)?);
                self.callers.store(Some(Arc::clone(&compiled)));
                compiled
            }
        };
        match which {
            Which::Current => Ok(Arc::clone(&callers.current)),
            Which::Previous => callers.previous.clone().ok_or(Reason::Unknown),
        }
    }

    /// Whether the key of this version may still be used.
    pub(super) fn still_holds(&self, version: u64, now: SystemTime) -> Result<(), Reason> {
        let which = self.which(|own| own.version() == version).ok_or(Reason::Revoked)?;
        self.holds(which, now)
    }

    fn which(&self, is: impl Fn(&Digest) -> bool) -> Option<Which> {
        if is(&self.digest) {
            return Some(Which::Current);
        }
        self.previous.as_ref().filter(|(digest, _)| is(digest)).map(|_| Which::Previous)
    }

    /// `None` when name, roles or scopes cannot stand in a field: they were checked when they were written, so that this
    /// record was not written by us.
    fn compile(&self, identity: &Identity) -> Option<Callers> {
        let record = &self.record;
        let roles: Box<[Box<str>]> = record.roles.iter().map(|role| role.as_str().into()).collect();
        let scopes = identity.roles().scopes(&roles, record.scopes.iter().map(String::as_str));
        let fields = CallerFields::new(&record.name, &roles, &scopes)?;
        // They were checked when they were written.
        let rates = match record.rates.as_ref().map(StoredRates::compile) {
            Some(rates) => Some(Arc::new(rates.ok()?)),
            None => None,
        };
        let ends = from_seconds(record.expires_at);
        let caller = |digest: Digest, expires: SystemTime| {
            let credential =
                Credential::Key { id: Arc::from(record.id.as_str()), managed: true, version: digest.version() };
            Arc::new(Caller {
                name: Arc::from(record.name.as_str()),
                credential,
                level: identity.roles().level(&roles),
                roles: roles.clone(),
                scopes: scopes.clone(),
                claims: Map::new(),
                expires: Some(expires),
                fields: fields.clone(),
                rates: rates.clone(),
            })
        };
        Some(Callers {
            generation: identity.generation(),
            current: caller(self.digest, ends),
            previous: self.previous.map(|(digest, until)| caller(digest, until.min(ends))),
        })
    }
}

/// Which of the keys of a record.
#[derive(Clone, Copy)]
enum Which {
    Current,
    Previous,
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub fn from_seconds(seconds: u64) -> SystemTime {
    // Beyond what the clock can hold is never reached; a damaged record ends at once.
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}
