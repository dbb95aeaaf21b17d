//! What a `webhook` filter found out about a request.

use std::fmt;
use std::sync::Arc;

/// A webhook.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// As the configuration names it: `github`.
    pub provider: Arc<str>,
    /// `accepted`, `duplicate`, `in_progress`, or why it was refused. A constant of the program.
    pub result: &'static str,
    /// What names the message, whoever sends it however often: made of what its sender signed. `None`: it is not verified.
    pub delivery: Option<Arc<str>>,
    /// Who has to be told that it was delivered.
    pub once: Option<Arc<dyn Once>>,
}

/// The right to deliver a message. When the last one who has it lets go of it without a word, others may try.
pub trait Once: fmt::Debug + Send + Sync + 'static {
    /// The message got through: nobody else is to deliver it.
    fn delivered(&self);
}
