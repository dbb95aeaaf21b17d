//! The second engine: plain HTTP/1.1, from the first byte of a request to the last one of its answer.
//!
//! Most requests want little of HTTP: no body, nothing to negotiate, a target in plain text. For these the general engine does
//! too much. This one reads their heads ([`crate::wire`]), and from there on everything is what the other one uses as well: the
//! look at the head, the chain, the choice of a target, retries, breakers, counters, logs. What is not plain is given to the
//! other engine as it came, before anything has happened to it; so is what this one does not understand.

mod body;
mod client;
mod forward;
mod line;

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

use super::admit::{self, Raw};
use super::answer::{Answer, passed, worded};
use super::circuit::{Entry, enter};
use super::decide::Decision;
use super::edge::Connection;
use super::exchange::Exchange;
use super::failure::{self, CLIENT_GONE, Failure};
use super::heads::Seen;
use super::mirrored::Body;
use super::phases::App;
use super::report::{self, Answered};
use crate::clock;
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
        let PlainRequest { parts: mut head, raw, closes } = request;
        let mut exchange = Exchange::new(gateway);
        let x = &mut exchange;
        x.connection = Some(Arc::clone(connection));
        connection.begin();
        let admitted = admit::admit(&mut head, &Raw::sound(raw.len()), x);
        if admitted.is_ok() && x.route.as_ref().is_some_and(|route| !takes(route, &x.gateway)) {
            client.give_back(&raw);
            return Next::Other;
        }
        drop(raw);
        // Where one thing was malformed, the next request may not begin where it seems to.
        let malformed = matches!(&admitted, Err(rejection) if rejection.code == Code::BAD_REQUEST);
        let closes = closes || malformed || *shutdown.borrow();
        let decision = self.app.decide(None, &mut head, admitted, x).await;
        let mut run = Run { direct: self, client, head: &mut head, x, closes, said: Said::default() };
        let done = run.carry_out(decision).await;
        let failed = match done {
            Ok(()) => None,
            Err(error) => {
                run.fail(&error).await;
                Some(error)
            }
        };
        let Said { status, bytes } = run.said;
        let closes = run.closes;
        let status = status.map_or(if failed.is_some() { CLIENT_GONE } else { 0 }, |status| status.as_u16());
        self.app.finished(&head, Answered { status, bytes }, x);
        if closes { Next::Close } else { Next::Again }
    }
}

/// Whether requests of this route are plain when their heads are.
fn takes(route: &Route, gateway: &Gateway) -> bool {
    !route.chain.looks_at_bodies()
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
            Decision::Forward(upstream, _) => match enter(self.head, false, self.x, &upstream) {
                Entry::Open => {
                    self.direct.app.mirror(self.head, self.x, Body::None);
                    self.forward().await
                }
                Entry::Reply(reply) => self.say(reply).await,
                Entry::Refuse(rejection) => self.refuse(rejection).await,
            },
            Decision::Await(handler, _) => {
                let Some(context) = &self.x.context else { return Err(Error::new_in(ErrorType::InternalError)) };
                let answered = handler.answer(&Seen(self.head), Bytes::new(), context).await;
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

    async fn refuse(&mut self, rejection: Rejection) -> Result<(), Box<Error>> {
        let reply = worded(self.head, self.x, rejection)?;
        self.say(reply).await
    }

    /// Sends an answer of our own, through the response hooks of the filters that let the request go on.
    async fn say(&mut self, reply: Reply) -> Result<(), Box<Error>> {
        // Before the client has the answer: what it asks next finds room.
        self.x.place = None;
        let Answer { reply, mut head, bodiless, .. } = passed(self.head, self.x, reply).await?;
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
        self.client.send(&out).await
    }

    /// Tells the client why there is no answer, as far as it can be told.
    async fn fail(&mut self, error: &Error) {
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
