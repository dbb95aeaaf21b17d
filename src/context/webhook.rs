//! What a `webhook` filter found out about a request.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

/// A webhook.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// As the configuration names it: `github`.
    pub provider: Arc<str>,
    /// What became of it: one of [`results`].
    pub result: &'static str,
    /// What names the message, whoever sends it however often: made of what its sender signed. `None`: it is not verified.
    pub delivery: Option<Arc<str>>,
    /// Who has to be told that it was delivered: a chain may have several filters that let it through once.
    pub once: SmallVec<[Arc<dyn Once>; 1]>,
}

/// The right to deliver a message. When the last one who has it lets go of it without a word, others may try.
pub trait Once: fmt::Debug + Send + Sync + 'static {
    /// The message got through: nobody else is to deliver it.
    fn delivered(&self);
}

/// What becomes of a webhook at the filter: for logs and metrics.
pub mod results {
    /// It goes on.
    pub const ACCEPTED: &str = "accepted";
    /// The provider asked whether anybody is there, and was answered.
    pub const HANDSHAKE: &str = "handshake";
    pub const DUPLICATE: &str = "duplicate";
    pub const IN_PROGRESS: &str = "in_progress";
    pub const SIGNATURE_MISSING: &str = "signature_missing";
    pub const SIGNATURE_INVALID: &str = "signature_invalid";
    pub const SIGNATURE_EXPIRED: &str = "signature_expired";
    pub const DISABLED: &str = "disabled";
    pub const UNKNOWN_PROVIDER: &str = "unknown_provider";
    pub const STORE_UNAVAILABLE: &str = "store_unavailable";

    /// Every result, and what it means.
    pub const ALL: &[(&str, &str)] = &[
        (ACCEPTED, "signed by its sender, and not delivered before"),
        (HANDSHAKE, "a question of the provider, such as the challenge of Slack, that was answered here"),
        (DUPLICATE, "signed by its sender, and delivered before"),
        (IN_PROGRESS, "signed by its sender, and just being delivered"),
        (SIGNATURE_MISSING, "no signature, or none that can be read"),
        (SIGNATURE_INVALID, "no secret makes such a signature"),
        (SIGNATURE_EXPIRED, "signed too long ago, or in the future"),
        (DISABLED, "the provider is switched off"),
        (UNKNOWN_PROVIDER, "there is no provider of this name"),
        (STORE_UNAVAILABLE, "the state store could not say whether it was delivered before"),
    ];
}
