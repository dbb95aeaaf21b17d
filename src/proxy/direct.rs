//! The second engine: plain HTTP/1.1, from the first byte of a request to the last one of its answer.
//!
//! Most requests want little of HTTP: a small body or none, nothing to negotiate, a target in plain text. For these the general engine does
//! too much. This one reads their heads ([`crate::wire`]), and from there on everything is what the other one uses as well: the
//! look at the head, the chain, the choice of a target, retries, breakers, counters, logs. What is not plain is given to the
//! other engine as it came, before anything has happened to it; so is what this one does not understand.

mod body;
mod client;
mod forward;
mod line;
mod shown;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::DATE;
use http::{Method, StatusCode};
use pingora::protocols::http::date::get_cached_date;
use pingora::{Error, ErrorType};
use tokio::sync::watch;

use super::accompany;
use super::admit::{self, Raw};
use super::answer::{Answer, HELD_MAX, passed, worded};
use super::circuit::{Entry, enter};
use super::decide::{Asker, Decision};
use super::edge::Connection;
use super::exchange::Exchange;
use super::failure::{self, CLIENT_GONE, Failure};
use super::gather::{Bounds, Unread};
use super::heads::Seen;
use super::mirrored::Body;
use super::phases::App;
use super::report::{self, Answered};
use crate::chain::Instead;
use crate::clock;
use crate::contract::AsyncHandler;
use crate::gateway::{Fallback, Gateway, Route};
use crate::handlers::Action;
use crate::reply::{Code, Rejection, Reply};
use crate::upstream::Upstream;
use crate::wire::{self, Look, PlainRequest};
pub use client::Client;
use forward::{Run, Said};
use line::Pool;

/// How often unused connections are looked at.
const SWEEP: Duration = Duration::from_secs(5);

/// Room for the head of an answer, in bytes.
const ROOM: usize = 512;

/// How a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// With another request.
    Again,
    Close,
    /// The next request is for the other engine.
    Other,
}

/// The engine of one worker thread.
pub struct Direct {
    app: App,
    pool: Arc<Pool>,
}

impl Direct {
    /// To be called from within the runtime of its thread.
    pub fn new(app: App, pool_size: usize) -> Self {
        let pool = Arc::new(Pool::new(pool_size));
        let swept = Arc::downgrade(&pool);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP);
            while let Some(pool) = swept.upgrade() {
                pool.sweep(clock::now());
                drop(pool);
                ticks.tick().await;
            }
        });
        Self { app, pool }
    }

    /// Serves the next request of a client. `drained` ends the wait for it.
    pub async fn serve(
        &self,
        client: &mut Client,
        connection: &Arc<Connection>,
        shutdown: &watch::Receiver<bool>,
        mut drained: Pin<&mut impl Future<Output = ()>>,
    ) -> Next {
        let request = loop {
            let gateway = self.app.live.current();
            if !client.buffer.is_empty() {
                let fields_max = gateway.settings.limits.headers_max;
                match wire::request(&mut client.buffer, &mut client.scanned, fields_max) {
                    Look::Whole(request) => break (gateway, request),
                    Look::Odd => return Next::Other,
                    Look::Partial => client.stream.goes_on_with(client.buffer.len()),
                }
            }
            drop(gateway);
            let read = poll_fn(|cx| match client.poll_fill(cx) {
                Poll::Ready(read) => Poll::Ready(read.unwrap_or(0)),
                Poll::Pending => drained.as_mut().poll(cx).map(|()| 0),
            });
            if read.await == 0 {
                return Next::Close;
            }
        };
        self.exchange(client, connection, request, shutdown).await
    }

    async fn exchange(
        &self,
        client: &mut Client,
        connection: &Arc<Connection>,
        (gateway, request): (Arc<Gateway>, PlainRequest),
        shutdown: &watch::Receiver<bool>,
    ) -> Next {
        let PlainRequest { parts: mut head, raw, body, closes } = request;
        if body > client.buffer.len() {
            client.give_back(&raw);
            return Next::Other;
        }
        let mut exchange = Exchange::new(gateway);
        let x = &mut exchange;
        x.connection = Some(Arc::clone(connection));
        connection.begin();
        let admitted = admit::admit(&mut head, &Raw::sound(raw.len()), x);
        if admitted.is_ok() && x.route.as_ref().is_some_and(|route| !takes(route, body > 0, &x.gateway)) {
            client.give_back(&raw);
            return Next::Other;
        }
        drop(raw);
        // Where one thing was malformed, the next request may not begin where it seems to.
        let malformed = matches!(&admitted, Err(rejection) if rejection.code == Code::BAD_REQUEST);
        let closes = closes || malformed || *shutdown.borrow();
        let body = (body > 0).then(|| client.buffer.split_to(body).freeze());
        x.body_bytes_in = body.as_ref().map_or(0, Bytes::len) as u64;
        let decision = self.app.decide(Asker::Client(client, body), &mut head, admitted, x).await;
        let (said, body, answered) = (Said::default(), Bytes::new(), None);
        let mut run = Run { direct: self, client, head: &mut head, body, x, closes, said, answered };
        let done = run.carry_out(decision).await;
        let failed = match done {
            Ok(()) => None,
            Err(error) => {
                run.fail(&error).await;
                Some(error)
            }
        };
        let Said { status, bytes } = run.said;
        let (closes, answered) = (run.closes, run.answered.take());
        let status = status.map_or(if failed.is_some() { CLIENT_GONE } else { 0 }, |status| status.as_u16());
        accompany::end(&head, answered.as_ref(), x);
        self.app.finished(&head, Answered { status, bytes }, x);
        if closes { Next::Close } else { Next::Again }
    }
}

/// Whether requests of this route are plain when their heads are. `has_body`: filters that accompany an exchange may change its
/// body in ways that this engine does not send.
fn takes(route: &Route, has_body: bool, gateway: &Gateway) -> bool {
    !(has_body && route.chain.accompanies())
        && match &route.action {
            Action::Answer(_) | Action::Await(_) => true,
            Action::Forward(upstream) => is_plain(&upstream.load(), gateway),
            Action::Split(split) => split.parts().iter().all(|part| is_plain(&part.upstream.load(), gateway)),
        }
}

/// Whether it is, and what may stand for it.
fn is_plain(upstream: &Upstream, gateway: &Gateway) -> bool {
    let stands_in = |gateway: &Gateway| match gateway.fallback_of(&upstream.name) {
        Some(Fallback::Upstream(other)) => other.load().is_plain(),
        _ => true,
    };
    upstream.is_plain() && (!upstream.breaks() || stands_in(gateway))
}

impl Run<'_> {
    async fn carry_out(&mut self, decision: Decision) -> Result<(), Box<Error>> {
        match decision {
            Decision::Forward(upstream, body) => {
                self.body = body.unwrap_or_default();
                let has_body = !self.body.is_empty();
                match enter(self.head, has_body, self.x, &upstream) {
                    Entry::Open => {
                        let copied = if has_body { Body::Gathered(&self.body) } else { Body::None };
                        self.direct.app.mirror(self.head, self.x, copied);
                        self.forward().await
                    }
                    Entry::Reply(reply) => self.say(reply).await,
                    Entry::Refuse(rejection) => self.refuse(rejection).await,
                }
            }
            Decision::Await(handler, body) => {
                let answered = self.ask(handler.as_ref(), body.unwrap_or_default()).await?;
                match answered {
                    Ok(reply) => self.say(reply).await,
                    Err(rejection) => self.refuse(*rejection).await,
                }
            }
            Decision::Reply(reply) => self.say(*reply).await,
            Decision::Refuse(rejection) => self.refuse(*rejection).await,
            Decision::Fail(error) => Err(error),
        }
    }

    /// Asks a handler that waits for something.
    async fn ask(&self, handler: &dyn AsyncHandler, body: Bytes) -> Result<Result<Reply, Box<Rejection>>, Box<Error>> {
        let of_route = self.x.route.as_ref().map_or(u64::MAX, |route| route.body_bytes_max);
        let bounds = Bounds::new(&self.x.gateway.settings.limits, of_route);
        match bounds.at_most(handler.body_bytes_max() as u64).check(&body) {
            Err(Unread::Rejected(rejection)) => return Ok(Err(rejection)),
            Err(Unread::Failed(error)) => return Err(error),
            Ok(()) => {}
        }
        let Some(context) = &self.x.context else { return Err(Error::new_in(ErrorType::InternalError)) };
        Ok(handler.answer(&Seen(self.head), body, context).await)
    }

    async fn refuse(&mut self, rejection: Rejection) -> Result<(), Box<Error>> {
        let reply = worded(self.head, self.x, rejection)?;
        self.say(reply).await
    }

    /// Sends an answer of our own, through the response hooks of the filters that let the request go on.
    async fn say(&mut self, reply: Reply) -> Result<(), Box<Error>> {
        // Before the client has the answer: what it asks next finds room.
        self.x.place = None;
        let accompanied = self.x.route.as_ref().filter(|route| route.chain.accompanies());
        let connection = accompanied.and_then(|_| self.x.connection.clone());
        let begins = || {
            if let Some(connection) = connection {
                connection.expect_within(clock::now(), HELD_MAX);
            }
        };
        let passed = self.client.while_there(begins, passed(self.head, self.x, reply)).await?;
        let Answer { reply, mut head, bodiless, .. } = passed?;
        if reply.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::new_in(ErrorType::InternalError));
        }
        if !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, get_cached_date());
        }
        let mut out = Vec::with_capacity(ROOM.saturating_add(reply.body.len()));
        wire::write_response(&mut out, reply.status, None, &head.headers, self.closes);
        if !bodiless && self.head.method != Method::HEAD {
            out.extend_from_slice(&reply.body);
            self.said.bytes = reply.body.len() as u64;
        }
        if let Some(connection) = &self.x.connection {
            connection.stream(clock::now(), self.x.gateway.settings.limits.body_timeout, None);
        }
        self.said.status = Some(reply.status);
        self.answered = Some(head);
        self.client.send(&out).await
    }

    /// Answers in place of the service, as a filter wants.
    async fn replace(&mut self, instead: Instead) -> Result<(), Box<Error>> {
        if let Some(forward) = &mut self.x.forward {
            forward.end();
        }
        self.x.reached = instead.reached;
        match instead.answer {
            Ok(reply) => self.say(*reply).await,
            Err(rejection) => self.refuse(*rejection).await,
        }
    }

    /// Tells the client why there is no answer, as far as it can be told.
    async fn fail(&mut self, error: &Error) {
        if let Some(instead) = self.x.instead.take()
            && self.said.status.is_none()
        {
            // Whether the client still takes it or not, this is the end.
            if self.replace(*instead).await.is_err() {
                self.closes = true;
            }
            return;
        }
        let failure = failure::explain(error, self.x);
        if let Some(forward) = &mut self.x.forward {
            // Before the client is told: what it asks next is not to find its own place or that of its probe taken.
            forward.end();
        }
        match failure {
            Failure::Refuse(rejection) => {
                self.x.code = Some(rejection.code);
                if self.said.status.is_some() {
                    // The rest of the answer cannot come: the end of the connection says so.
                    self.closes = true;
                    return;
                }
                if rejection.status.is_server_error() {
                    report::failure(error, self.x);
                }
                // Whether the client still takes it or not, this is the end.
                if self.refuse(rejection).await.is_err() {
                    self.closes = true;
                }
            }
            Failure::ClientGone => self.closes = true,
        }
    }
}
