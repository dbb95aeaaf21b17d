//! Who may call: consumers, API keys, issuers of tokens, roles. Compiled with the configuration, asked by `auth`.
//!
//! An [`Identity`] belongs to one snapshot and never changes. What outlives a snapshot (fetched key sets, managed keys,
//! revocations) is in [`Shared`], which all snapshots of a process have in common.

mod cache;
mod certificates;
mod consumers;
mod digest;
#[cfg(test)]
pub mod fixture;
mod issuers;
pub mod jwks;
mod keys;
mod keyset;
pub mod managed;
mod new_key;
mod own_rates;
mod passwords;
pub mod presented;
mod revocations;
mod roles;
mod shared;
#[cfg(test)]
pub mod testing;
mod token;
mod token_service;
mod users;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::caller::{Caller, ClientCertificate, Credential};
use crate::yaml::{Located, Place, Problem};

pub use certificates::CertificateSettings;
pub use consumers::{Consumer, ConsumerSettings, KeySettings, SCOPES_MAX, scope_problem};
pub use digest::{Digest, KEY_BYTES_MAX};
pub use issuers::{Audience, Issuer, IssuerSettings};
pub use keys::parse_time;
pub use managed::ManagedKeys;
pub use new_key::{NewKey, PREFIX_CHARS_MAX, is_prefix, random_text, visible_part};
pub use own_rates::{OwnRatesSettings, StoredRates};
pub use passwords::{PASSWORD_BYTES_MAX, hash as hash_password};
pub use revocations::{Revocations, SESSION_CLAIM};
pub use roles::{RoleSettings, Roles, check_scope};
pub use shared::Shared;
pub use token_service::{Issued, Refused, TokenService, TokenServiceSettings};
pub use users::{Person, UserSettings};

/// The consumers, keys, issuers and roles of one snapshot.
#[derive(Default)]
pub struct Identity {
    roles: Arc<Roles>,
    keys: keys::Keys,
    certificates: certificates::Certificates,
    issuers: issuers::Issuers,
    users: Arc<users::Users>,
    token_services: token_service::TokenServices,
    shared: Arc<Shared>,
    /// Tells it from every other one with the same `shared`.
    generation: u64,
}

/// What is written about identity in all files of a configuration.
#[derive(Default)]
pub struct Written<'a> {
    pub roles: Vec<(&'a Located<String>, &'a RoleSettings)>,
    pub issuers: Vec<(&'a Located<String>, &'a IssuerSettings)>,
    pub consumers: Vec<&'a ConsumerSettings>,
    /// The folder that paths are relative to.
    pub base: PathBuf,
    pub users: Vec<&'a UserSettings>,
    pub token_services: Vec<(&'a Located<String>, &'a TokenServiceSettings)>,
}

/// Why a credential is not accepted. The word stands in the audit log and in `tollgate_auth_total`; clients learn less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No credential of an accepted kind was sent.
    Missing,
    /// It is sent twice, or in a form that cannot be one.
    Malformed,
    /// No key or certificate like this is known.
    Unknown,
    /// It was right once.
    Expired,
    /// It will be right later (`nbf`).
    NotYet,
    /// Switched off in the configuration.
    Disabled,
    /// Taken back.
    Revoked,
    /// The signature is not that of the issuer.
    Signature,
    /// An algorithm that the issuer does not use, or none.
    Algorithm,
    /// No key of the issuer has the `kid` of the token.
    UnknownKey,
    /// No accepted issuer has this `iss`.
    Issuer,
    /// It is meant for somebody else.
    Audience,
    /// A claim that must be there is missing, or is not of its type.
    Claims,
    /// The keys of the issuer could not be fetched yet, or the state store could not be asked what was taken back.
    KeysUnavailable,
}

impl Reason {
    pub const ALL: &'static [Self] = &[
        Self::Missing,
        Self::Malformed,
        Self::Unknown,
        Self::Expired,
        Self::NotYet,
        Self::Disabled,
        Self::Revoked,
        Self::Signature,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Issuer,
        Self::Audience,
        Self::Claims,
        Self::KeysUnavailable,
    ];

    /// The stable word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
            Self::Signature => "signature",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims => "claims",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }
}

impl Identity {
    /// Compiles what is written; `shared` is what all snapshots have in common.
    pub fn compile(written: &Written<'_>, shared: &Arc<Shared>, problems: &mut Vec<Problem>) -> Arc<Self> {
        let roles = Arc::new(Roles::compile(&written.roles, problems));
        let keys = keys::Keys::compile(&written.consumers, &roles, problems);
        let certificates = certificates::Certificates::compile(&written.consumers, &roles, problems);
        let generation = shared.next_generation();
        let users = users::Users::compile(&written.users, &roles, problems);
        let services = &written.token_services;
        let token_services = token_service::TokenServices::compile(services, &users, shared, problems);
        let issuers = issuers::Issuers::compile(written, &roles, &token_services, shared, problems);
        let shared = Arc::clone(shared);
        Arc::new(Self { roles, keys, certificates, issuers, users, token_services, shared, generation })
    }

    /// The caller that an API key belongs to: one of the configuration, else a managed one. Any text of 1 to
    /// [`KEY_BYTES_MAX`] bytes may be a key; what it costs to find does not depend on how many there are.
    ///
    /// # Errors
    /// `Malformed`, `Unknown`, `Expired`, `Disabled`; `KeysUnavailable` while managed keys could not be read yet.
    pub fn api_key(&self, key: &[u8], now: SystemTime) -> Result<Arc<Caller>, Reason> {
        let digest = Digest::of(key).ok_or(Reason::Malformed)?;
        match self.keys.find(&digest, now) {
            Some(found) => found,
            None => self.shared.managed().find(&digest, self, now),
        }
    }

    /// Whether the configuration has a consumer of this name.
    pub fn has_consumer(&self, name: &str) -> bool {
        self.keys.has_consumer(name)
    }

    /// Whether the configuration has a consumer or a user of this name: no managed key may speak in it.
    pub fn has_name(&self, name: &str) -> bool {
        self.has_consumer(name) || self.users.contains(name)
    }

    /// How many API keys the configuration has.
    pub fn keys_count(&self) -> usize {
        self.keys.len()
    }

    /// Tells this snapshot's from every other one.
    fn generation(&self) -> u64 {
        self.generation
    }

    /// The caller that a token speaks for, by the word of one of these issuers.
    pub fn token(&self, issuers: &[Arc<Issuer>], token: &str, now: SystemTime) -> Result<Arc<Caller>, Reason> {
        issuers::verify_with(issuers, token, now)
    }

    /// The caller that a client certificate belongs to. That it was issued by a `client_ca` the listener has seen to.
    pub fn certificate(&self, certificate: &Arc<ClientCertificate>, now: SystemTime) -> Result<Arc<Caller>, Reason> {
        self.certificates.find(certificate, now)
    }

    /// An issuer of tokens, by its name in the configuration.
    pub fn issuer(&self, name: &str) -> Option<&Arc<Issuer>> {
        self.issuers.get(name)
    }

    /// All issuers, in the order of the configuration.
    pub fn issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.issuers.iter()
    }

    /// The service of this name that gives out tokens; without a name the only one. `Err(None)`: its problem is told already.
    ///
    /// # Errors
    /// There is none, at `place`; or there are several.
    pub fn token_service(
        &self,
        name: Option<&Located<String>>,
        place: Place,
    ) -> Result<Arc<TokenService>, Option<Problem>> {
        self.token_services.find(name, place)
    }

    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether the credential of a caller that was let in before would still let it in: for what lives longer than a
    /// request, under a configuration that may have changed.
    pub fn still_holds(&self, caller: &Caller, now: SystemTime) -> Result<(), Reason> {
        if caller.expires.is_some_and(|expires| expires <= now) {
            return Err(Reason::Expired);
        }
        match &caller.credential {
            Credential::Key { id, managed: false, version } => self.keys.still_holds(id, *version, now),
            Credential::Key { managed: true, .. } if self.has_name(&caller.name) => Err(Reason::Disabled),
            Credential::Key { id, managed: true, version } => self.shared.managed().still_holds(id, *version, now),
            Credential::Token { issuer, key, .. } => {
                self.issuers.get(issuer).ok_or(Reason::Issuer)?.still_accepts(*key, &caller.claims)?;
                self.shared.check_revoked(caller)
            }
            Credential::Certificate(certificate) => self.certificates.still_holds(certificate, caller, now),
        }
    }
}
