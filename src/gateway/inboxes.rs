//! The inboxes of a configuration: how each is emptied, and who gets what is in it.

use std::sync::Arc;

use super::compile::unique;
use crate::contract::{InboxUse, Terms};
use crate::inbox::Account;
use crate::upstream::Slot;
use crate::yaml::{Located, Problem};

/// A compiled inbox.
pub struct Inbox {
    pub name: Arc<str>,
    pub terms: Terms,
    pub upstream: Arc<Slot>,
    pub account: Arc<Account>,
}

/// Inboxes in the making.
#[derive(Default)]
pub(super) struct Inboxes(Vec<(Located<String>, Arc<Inbox>)>);

impl Inboxes {
    pub fn add(&mut self, written: InboxUse, upstream: Arc<Slot>) {
        let InboxUse { name, terms, account, .. } = written;
        let inbox = Inbox { name: Arc::from(name.as_str()), terms, upstream, account };
        self.0.push((name, Arc::new(inbox)));
    }

    /// All of them. Reports names that stand twice.
    pub fn finish(self, problems: &mut Vec<Problem>) -> Vec<Arc<Inbox>> {
        for (name, _) in self.0.iter().filter(|(_, inbox)| inbox.upstream.load().tells_client.is_some()) {
            let message = format!(
                "the upstream of inbox `{}` has `proxy_protocol`, and a delivery has no client to tell of",
                name.value
            );
            problems.push(Problem::new(name.place, message).with_hint("deliver to an upstream without it"));
        }
        let named = self.0.iter().map(|(name, inbox)| (name, Arc::clone(inbox)));
        unique("inbox", named, problems).into_iter().map(|(_, inbox)| inbox).collect()
    }
}
