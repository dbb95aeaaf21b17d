//! Who may call: consumers, API keys, issuers of tokens, roles. Compiled with the configuration, asked by `auth`.
//!
//! An [`Identity`] belongs to one snapshot and never changes. What outlives a snapshot (fetched key sets, managed keys,
//! revocations) is in [`Shared`], which all snapshots of a process have in common.

mod cache;
mod consumers;
mod issuers;
pub mod jwks;
mod keys;
mod keyset;
mod roles;
mod shared;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::caller::{Caller, Credential};
use crate::yaml::Problem;

pub use consumers::{ConsumerSettings, KeySettings};
pub use issuers::{Audience, Issuer, IssuerSettings};
pub use roles::{RoleSettings, Roles};
pub use shared::Shared;

/// The consumers, keys, issuers and roles of one snapshot.
#[derive(Default)]
pub struct Identity {
    roles: Arc<Roles>,
    keys: keys::Keys,
    issuers: issuers::Issuers,
    shared: Arc<Shared>,
}

/// What is written about identity in all files of a configuration.
#[derive(Default)]
pub struct Written<'a> {
    pub roles: Vec<(&'a crate::yaml::Located<String>, &'a RoleSettings)>,
    pub issuers: Vec<(&'a crate::yaml::Located<String>, &'a IssuerSettings)>,
    pub consumers: Vec<&'a ConsumerSettings>,
    /// The folder that paths are relative to.
    pub base: PathBuf,
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
    /// The keys of the issuer could not be fetched yet.
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
        let issuers = issuers::Issuers::compile(&written.issuers, &written.base, &roles, shared, problems);
        Arc::new(Self { roles, keys, issuers, shared: Arc::clone(shared) })
    }

    /// The caller that an API key belongs to.
    pub fn api_key(&self, key: &[u8], now: SystemTime) -> Result<Arc<Caller>, Reason> {
        self.keys.find(key, now)
    }

    /// The caller that a token speaks for, by the word of one of these issuers.
    pub fn token(&self, issuers: &[Arc<Issuer>], token: &str, now: SystemTime) -> Result<Arc<Caller>, Reason> {
        issuers::verify_with(issuers, token, now)
    }

    /// An issuer of tokens, by its name in the configuration.
    pub fn issuer(&self, name: &str) -> Option<&Arc<Issuer>> {
        self.issuers.get(name)
    }

    /// All issuers, in the order of the configuration.
    pub fn issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.issuers.iter()
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
        if let Credential::Token { issuer, .. } = &caller.credential {
            self.issuers.get(issuer).ok_or(Reason::Issuer)?;
            return if self.shared.is_revoked(caller) { Err(Reason::Revoked) } else { Ok(()) };
        }
        self.keys.still_holds(caller, now)
    }
}
