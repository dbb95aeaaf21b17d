//! The gate that a message passes once.

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;

use super::settings::OnReplay;
use crate::context::{Once, results};
use crate::contract::{Compiler, Verdict};
use crate::head::{HeaderValue, StatusCode};
use crate::replay::{Begun, Message, OnStoreError, Replay};
use crate::reply::{Code, Rejection, Reply};

pub struct Gate {
    replay: Arc<Replay>,
    /// Unique to the entry of the list of filters: messages of other filters never meet those of this one. Nor do those of
    /// several routes that use it in a chain.
    scope: Box<str>,
    terms: Option<Terms>,
}

/// How long messages are known, and what those get that are.
pub struct Terms {
    pub window: Duration,
    pub on_replay: OnReplay,
    pub on_store_error: OnStoreError,
}

/// What becomes of a message at the gate.
pub struct Passage {
    pub verdict: Verdict,
    /// One of [`results`].
    pub result: &'static str,
    pub once: Option<Arc<dyn Once>>,
}

impl Gate {
    /// Without terms everything passes.
    pub fn new(compiler: &Compiler, terms: Option<Terms>) -> Self {
        Self { replay: Arc::clone(compiler.replay()), scope: compiler.own_bucket().into(), terms }
    }

    /// Waits half a second at most.
    pub async fn pass(&self, route: &str, provider: &str, delivery: &str) -> Passage {
        let Some(terms) = &self.terms else {
            return Passage { verdict: Verdict::Continue, result: results::ACCEPTED, once: None };
        };
        let message = Message { scope: &self.scope, route, provider, delivery };
        match self.replay.begin(message, terms.window, terms.on_store_error).await {
            Begun::First(once) => Passage { verdict: Verdict::Continue, result: results::ACCEPTED, once: Some(once) },
            Begun::Delivered => Passage { verdict: terms.on_replay.verdict(), result: results::DUPLICATE, once: None },
            Begun::InProgress => {
                let rejection = Rejection::new(Code::IN_PROGRESS, "the same message is just being delivered");
                let rejection = rejection.with_field(RETRY_AFTER, HeaderValue::from_static("1"));
                Passage { verdict: Verdict::Reject(Box::new(rejection)), result: results::IN_PROGRESS, once: None }
            }
            Begun::Unavailable => {
                let message = "nobody can say at the moment whether the message was delivered before";
                let rejection = Rejection::new(Code::STATE_UNAVAILABLE, message);
                let rejection = rejection.with_field(RETRY_AFTER, HeaderValue::from_static("1"));
                let verdict = Verdict::Reject(Box::new(rejection));
                Passage { verdict, result: results::STORE_UNAVAILABLE, once: None }
            }
        }
    }
}

impl OnReplay {
    fn verdict(self) -> Verdict {
        match self {
            Self::Accept => Verdict::Reply(Box::new(Reply::new(StatusCode::OK))),
            Self::Refuse => {
                Verdict::Reject(Box::new(Rejection::new(Code::REPLAYED, "the message was delivered before")))
            }
        }
    }
}
