//! What becomes of a request: the walk along the chain of its route, then its handler.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use pingora::Error;
use pingora::proxy::Session;

use super::admit;
use super::exchange::Exchange;
use super::gather::{Bounds, Unread, gather_apart};
use super::heads::{Request, Seen};
use super::target::hints;
use crate::chain::Stop;
use crate::clock;
use crate::context::Context;
use crate::contract::{AsyncHandler, BodyFilter, Verdict};
use crate::handlers::Action;
use crate::reply::{Code, Rejection, Reply};
use crate::upstream::Upstream;

/// What the chain and the handler decided.
pub enum Decision {
    /// With the body, if it was gathered.
    Forward(Arc<Upstream>, Option<Bytes>),
    /// The same.
    Await(Arc<dyn AsyncHandler>, Option<Bytes>),
    Reply(Box<Reply>),
    Refuse(Box<Rejection>),
    /// The request could not be read.
    Fail(Box<Error>),
}

impl From<Unread> for Decision {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Rejected(rejection) => Self::Refuse(rejection),
            Unread::Failed(error) => Self::Fail(error),
        }
    }
}

/// Walks the chain, then asks the handler. `head` is that of the session, taken out of it.
pub async fn decide(session: &mut Session, head: &mut Parts, x: &mut Exchange) -> Decision {
    let mut body = None;
    match walk(session, head, &mut body, x).await {
        Some(decision) => decision,
        None => hand_over(head, body, x),
    }
}

/// Walks the chain. `None`: every filter let the request go on.
async fn walk(session: &mut Session, head: &mut Parts, body: &mut Option<Bytes>, x: &mut Exchange) -> Option<Decision> {
    let Exchange { gateway, route, context, reached, original, waited, body_bytes_in, .. } = x;
    let (Some(route), Some(context)) = (route.as_ref(), context.as_mut()) else { return Some(not_admitted()) };
    let mut request = Request { head, original };
    loop {
        let verdict = match route.chain.advance(reached, &mut request, context) {
            Stop::End => return None,
            Stop::Verdict(verdict) => verdict,
            Stop::Wait(filter) => {
                *waited = true;
                let verdict = filter.on_request(&mut request, context).await;
                context.now = clock::now();
                verdict
            }
            Stop::Body(filter) => {
                *waited = true;
                let bounds = Bounds::new(&gateway.settings.limits, route.body_bytes_max);
                let bounds = bounds.at_most(filter.body_bytes_max());
                // Apart: what a body needs of a future is no burden to requests without such a filter.
                match Box::pin(show(filter, session, &mut request, context, body, bounds, body_bytes_in)).await {
                    Ok(verdict) => verdict,
                    Err(unread) => return Some(unread.into()),
                }
            }
        };
        match verdict {
            Verdict::Continue => {}
            Verdict::Reply(reply) => return Some(Decision::Reply(reply)),
            Verdict::Reject(rejection) => return Some(Decision::Refuse(rejection)),
        }
    }
}

/// Shows the body to a filter. It is gathered for the first one.
async fn show(
    filter: &dyn BodyFilter,
    session: &mut Session,
    request: &mut Request<'_>,
    context: &mut Context,
    body: &mut Option<Bytes>,
    bounds: Bounds,
    bytes_in: &mut u64,
) -> Result<Verdict, Unread> {
    match filter.on_head(request, context) {
        Verdict::Continue => {}
        verdict => return Ok(verdict),
    }
    let body = match body {
        Some(body) => body,
        None => body.insert(gather_apart(session, request.head, bounds, bytes_in).await?),
    };
    bounds.check(body)?;
    context.now = clock::now();
    let verdict = filter.on_body(request, body, context).await;
    context.now = clock::now();
    Ok(verdict)
}

/// Asks the handler of the route.
fn hand_over(head: &mut Parts, body: Option<Bytes>, x: &mut Exchange) -> Decision {
    let Exchange { route, context, original, .. } = x;
    let (Some(route), Some(context)) = (route.as_ref(), context.as_ref()) else { return not_admitted() };
    match &route.action {
        Action::Forward(upstream) => match admit::check_length(head, route.body_bytes_max) {
            Ok(()) => Decision::Forward(upstream.load(), body),
            Err(rejection) => Decision::Refuse(Box::new(rejection)),
        },
        Action::Split(split) => match admit::check_length(head, route.body_bytes_max) {
            Ok(()) => match split.choose(&hints(&Seen(head), Some(context))) {
                Some(upstream) => Decision::Forward(upstream.load(), body),
                None => not_admitted(),
            },
            Err(rejection) => Decision::Refuse(Box::new(rejection)),
        },
        Action::Await(handler) => Decision::Await(Arc::clone(handler), body),
        Action::Answer(handler) => match handler.answer(&Request { head, original }, context) {
            Ok(reply) => Decision::Reply(Box::new(reply)),
            Err(rejection) => Decision::Refuse(rejection),
        },
    }
}

fn not_admitted() -> Decision {
    Decision::Refuse(Box::new(Rejection::new(Code::INTERNAL, "the request was not admitted")))
}
