//! Sends copies of requests to another upstream, beside the requests. Nobody waits for what becomes of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use super::post::Post;
use super::verdict::Answer;
use crate::gateway::Ticket;
use crate::inbox::{Claimed, Message};
use crate::observe::metrics::Mirrored;
use crate::upstream::Upstream;

/// A request to be copied.
pub struct Copied {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub fields: Vec<(String, Vec<u8>)>,
}

/// The ways to upstreams that get copies.
#[derive(Default)]
pub struct Mirrors(Mutex<Vec<Arc<Post>>>);

impl Mirrors {
    /// Sends a copy. It has to be called from within a runtime, where the copy then lives.
    pub fn send(&self, copied: Copied, body: Bytes, ticket: Ticket) {
        let post = self.post(&ticket.mirror().upstream.load());
        tokio::spawn(async move {
            let claimed = Claimed { message: message(copied, body), attempt: Claimed::NO_DELIVERY };
            let end = match post.deliver(&claimed, ticket.mirror().timeout, &mut None).await {
                Answer::Status(..) => Mirrored::Sent,
                Answer::Broken(_) | Answer::Unreachable(_) | Answer::Damaged => Mirrored::Failed,
                Answer::Refused => Mirrored::Dropped,
            };
            ticket.ended(end);
        });
    }

    fn post(&self, upstream: &Arc<Upstream>) -> Arc<Post> {
        let mut posts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(post) = posts.iter().find(|post| post.leads_to(upstream)) {
            return Arc::clone(post);
        }
        // What an older configuration of this upstream was asked is answered all the same.
        posts.retain(|post| !post.is_named(&upstream.name));
        let post = Arc::new(Post::new(Arc::clone(upstream)));
        posts.push(Arc::clone(&post));
        post
    }
}

/// What the way to a target takes. It is no delivery: nothing that names one is sent.
pub(super) fn message(copied: Copied, body: Bytes) -> Message {
    Message {
        id: String::new(),
        inbox: Arc::from(""),
        delivery: String::new(),
        order: None,
        received: UNIX_EPOCH,
        request_id: String::new(),
        route: String::new(),
        provider: None,
        method: copied.method,
        target: copied.target,
        fields: copied.fields,
        body,
    }
}
