//! Sends what plugins ask for.
//!
//! Each thread has its own ways to upstreams, with connections of its own: nothing of a request moves to another thread.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::mirror::{Copied, message};
use super::post::{Post, Reply};
use super::verdict;
use crate::clock;
use crate::gateway::Gateway;
use crate::head::{Fields, Headers as _};
use crate::inbox::Claimed;
use crate::live::Live;
use crate::wasm::call::{Answer, Answered, Call, Caller, Pending};

thread_local! {
    static POSTS: RefCell<Vec<Arc<Post>>> = const { RefCell::new(Vec::new()) };
}

/// Sends to the upstreams of the snapshot in use.
pub struct Calls {
    live: Weak<Live>,
}

impl Calls {
    pub fn new(live: &Arc<Live>) -> Self {
        Self { live: Arc::downgrade(live) }
    }

    fn post(&self, upstream: &str) -> Option<Arc<Post>> {
        let current = self.live.upgrade()?.current();
        POSTS.with_borrow_mut(|posts| post(posts, &current, upstream))
    }
}

impl Caller for Calls {
    fn call(&self, call: Call) -> Pending {
        let post = self.post(&call.upstream);
        Box::pin(async move {
            match post {
                Some(post) => send(&post, call).await,
                None => Err(format!("there is no upstream `{}` any more", call.upstream)),
            }
        })
    }
}

/// The way to an upstream. One that the configuration does not have any more is still known to requests that began before.
fn post(posts: &mut Vec<Arc<Post>>, current: &Gateway, upstream: &str) -> Option<Arc<Post>> {
    let known = posts.iter().position(|post| post.is_named(upstream));
    let Some(slot) = current.slots().iter().find(|slot| *slot.name == *upstream) else {
        return posts.get(known?).cloned();
    };
    let upstream = slot.load();
    if let Some(post) = posts.iter().find(|post| post.leads_to(&upstream)) {
        return Some(Arc::clone(post));
    }
    // What there is no upstream for is left behind, and older versions of this one.
    posts.retain(|post| !post.is_named(&upstream.name) && current.slots().iter().any(|slot| post.is_named(&slot.name)));
    let post = Arc::new(Post::new(upstream));
    posts.push(Arc::clone(&post));
    Some(post)
}

async fn send(post: &Post, call: Call) -> Answered {
    let Call { method, target, authority, fields, body, trailers, timeout, answer_bytes_max, .. } = call;
    let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let fields = std::iter::once((HOST.as_str(), authority.as_bytes())).chain(fields);
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    let copied = Copied { method: method.to_string(), target, fields };
    let claimed = Claimed { message: message(copied, body), attempt: Claimed::NO_DELIVERY };
    let started = clock::now();
    match post.ask(&claimed, &trailers, timeout, &mut None).await {
        Reply::Answered(response) => {
            let left = timeout.saturating_sub(clock::now().saturating_duration_since(started));
            let read = tokio::time::timeout(left, read(response, answer_bytes_max)).await;
            read.unwrap_or_else(|_| Err("the answer did not arrive in time".to_owned()))
        }
        Reply::None(answer) => Err(why(answer)),
    }
}

/// Reads an answer to its end.
async fn read(response: http::Response<Incoming>, bytes_max: usize) -> Answered {
    let (head, mut rest) = response.into_parts();
    let mut fields = Fields::default();
    head.headers.iter().for_each(|(name, value)| fields.append(name, value.clone()));
    let (mut body, mut trailers) = (BytesMut::new(), Fields::default());
    while let Some(frame) = rest.frame().await {
        let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
        match frame.into_data() {
            Ok(data) if body.len().saturating_add(data.len()) > bytes_max => {
                return Err(format!("the answer is larger than {bytes_max} bytes"));
            }
            Ok(data) => body.extend_from_slice(&data),
            Err(frame) => {
                let last = frame.into_trailers().unwrap_or_default();
                last.iter().for_each(|(name, value)| trailers.append(name, value.clone()));
            }
        }
    }
    Ok(Answer { status: head.status, fields, body: Bytes::from(body), trailers })
}

fn why(answer: verdict::Answer) -> String {
    match answer {
        verdict::Answer::Broken(why) | verdict::Answer::Unreachable(why) => why,
        verdict::Answer::Refused => {
            "the circuit breaker of the upstream is open, or none of its targets is well".to_owned()
        }
        verdict::Answer::Damaged => "it is no request that can be sent".to_owned(),
        verdict::Answer::Status(status, _) => format!("the service answered {}", status.as_u16()),
    }
}
