//! What becomes of a request: the walk along the chain of its route, then its handler.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::accompany;
use super::admit;
use super::audit;
use super::direct::Client;
use super::exchange::Exchange;
use super::gather::{Bounds, Unread, gather_apart};
use super::heads::{Request, Seen};
use super::phases::App;
use super::target::hints;
use super::validated;
use crate::chain::Stop;
use crate::client;
use crate::clock;
use crate::context::Context;
use crate::contract::{AsyncHandler, BodyFilter, Outset, StreamFilter, Verdict};
use crate::handlers::Action;
use crate::head::Headers as _;
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

/// Who asks.
pub enum Asker<'a> {
    /// A body may follow.
    Session(&'a mut Session),
    /// None does: this is the body, if there is one.
    Client(&'a mut Client, Option<Bytes>),
}

/// How many fields tell an upstream who the client is.
const ANNOUNCED: usize = 6;

impl App {
    /// Decides about a request that was looked at. `head` is that of the session, taken out of it; when it is forwarded, it tells
    /// the upstream who the client is.
    pub(super) async fn decide(
        &self,
        asker: Asker<'_>,
        head: &mut Parts,
        admitted: Result<Option<Box<Reply>>, Rejection>,
        x: &mut Exchange,
    ) -> Decision {
        let decision = match admitted.or_else(|rejection| validated::pass(head, rejection, x).map(|()| None)) {
            Ok(Some(reply)) => {
                admit::fall_back(x);
                Decision::Reply(reply)
            }
            Ok(None) => match validated::answer(head, x).map(Decision::Reply).or_else(|| self.shed(x)) {
                Some(decided) => decided,
                None => decide(asker, head, x).await,
            },
            Err(rejection) => {
                admit::fall_back(x);
                Decision::Refuse(Box::new(rejection))
            }
        };
        audit::record(head, x);
        if let (Decision::Forward(..), Some(context), Some(connection)) = (&decision, &x.context, &x.connection) {
            head.headers.reserve(ANNOUNCED);
            let mut request = Request { head, original: &mut x.original };
            client::announce(&mut request, context, &connection.peer_text);
        }
        decision
    }
}

/// Walks the chain, then asks the handler.
async fn decide(mut asker: Asker<'_>, head: &mut Parts, x: &mut Exchange) -> Decision {
    let mut body = match &mut asker {
        Asker::Session(_) => None,
        Asker::Client(_, body) => body.take(),
    };
    match walk(asker, head, &mut body, x).await {
        Some(decision) => decision,
        None => hand_over(head, body, x),
    }
}

/// Walks the chain. `None`: every filter let the request go on.
async fn walk(mut asker: Asker<'_>, head: &mut Parts, body: &mut Option<Bytes>, x: &mut Exchange) -> Option<Decision> {
    let Exchange { gateway, route, context, reached, original, waited, body_bytes_in, is_unmeasured, .. } = x;
    let (Some(route), Some(context)) = (route.as_ref(), context.as_mut()) else { return Some(not_admitted()) };
    let length = route.chain.accompanies().then(|| head.headers.get(CONTENT_LENGTH).cloned()).flatten();
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
                match Box::pin(show(filter, &mut asker, &mut request, context, body, bounds, body_bytes_in)).await {
                    Ok(verdict) => verdict,
                    Err(unread) => return Some(unread.into()),
                }
            }
            Stop::Stream(filter) => {
                *waited = true;
                let before = reached.saturating_sub(1);
                let given = match &mut asker {
                    Asker::Client(client, _) => introduce(filter, client, &mut request, context).await,
                    Asker::Session(session) => {
                        let bounds = Bounds::new(&gateway.settings.limits, route.body_bytes_max);
                        let shown = Shown { body, length: length.as_ref(), bounds };
                        Box::pin(give(filter, session, &mut request, context, shown, body_bytes_in)).await
                    }
                };
                accompany::remember_length(request.head, length.as_ref(), body.as_ref(), is_unmeasured);
                match given {
                    Ok(Verdict::Continue) => Verdict::Continue,
                    Ok(verdict) => {
                        // It does not see the answer that it gave itself.
                        *reached = before;
                        verdict
                    }
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

/// The body for a filter that may want all of it.
struct Shown<'a> {
    body: &'a mut Option<Bytes>,
    /// Its length, as the client said.
    length: Option<&'a HeaderValue>,
    bounds: Bounds,
}

/// Gives an exchange to a filter that accompanies it. One that has to see the whole body first may change it.
async fn give(
    filter: &dyn StreamFilter,
    session: &mut Session,
    request: &mut Request<'_>,
    context: &mut Context,
    shown: Shown<'_>,
    bytes_in: &mut u64,
) -> Result<Verdict, Unread> {
    let Shown { body, length, bounds } = shown;
    let ends = match body {
        Some(body) => body.is_empty(),
        None => accompany::is_bodiless(session, request.head),
    };
    let outset = while_there(session, ends || body.is_some(), filter.on_request(request, ends, context)).await?;
    let bytes_max = match outset {
        Outset::Decided(verdict) => {
            context.now = clock::now();
            return Ok(verdict);
        }
        Outset::Body(bytes_max) => bytes_max,
    };
    let bounds = bounds.at_most(bytes_max);
    let body = match body {
        Some(body) => body,
        None => {
            // Not by what the filter made of it: the client's body ends where the client said.
            if let Some(length) = length {
                request.set(&CONTENT_LENGTH, length.clone());
            }
            body.insert(gather_apart(session, request.head, bounds, bytes_in).await?)
        }
    };
    bounds.check(body)?;
    let verdict = while_there(session, true, filter.on_whole_body(request, body, context)).await?;
    context.now = clock::now();
    Ok(verdict)
}

/// Gives an exchange to a filter that accompanies it, where no body follows.
async fn introduce(
    filter: &dyn StreamFilter,
    client: &mut Client,
    request: &mut Request<'_>,
    context: &mut Context,
) -> Result<Verdict, Unread> {
    let mut has_waited = false;
    let outset = client.while_there(|| has_waited = true, filter.on_request(request, true, context)).await;
    if has_waited {
        context.now = clock::now();
    }
    match outset.map_err(Unread::Failed)? {
        Outset::Decided(verdict) => Ok(verdict),
        Outset::Body(_) => {
            let waits_for_nothing = "a filter waits for the body of a request that has none";
            Ok(Verdict::Reject(Box::new(Rejection::new(Code::INTERNAL, waits_for_nothing))))
        }
    }
}

/// Waits for a filter while the client is there. Where a body is still to be read, that cannot be seen.
async fn while_there<T>(session: &mut Session, is_read: bool, decides: impl Future<Output = T>) -> Result<T, Unread> {
    if !is_read && !session.downstream_session.is_http2() {
        return Ok(decides.await);
    }
    tokio::select! {
        // First: one that waits for nothing costs no look at the connection.
        biased;
        decided = decides => Ok(decided),
        left = session.downstream_session.read_body_or_idle(true) => {
            let left = left.err().unwrap_or_else(|| Error::new(ErrorType::ConnectionClosed));
            Err(Unread::Failed(left.into_down()))
        }
    }
}

/// Shows the body to a filter. It is gathered for the first one.
async fn show(
    filter: &dyn BodyFilter,
    asker: &mut Asker<'_>,
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
        None => body.insert(match asker {
            Asker::Session(session) => gather_apart(session, request.head, bounds, bytes_in).await?,
            Asker::Client(..) => Bytes::new(),
        }),
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
