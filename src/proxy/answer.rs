//! Answers of our own: a handler's, a filter's, a refusal.

use std::mem;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, SET_COOKIE};
use http::{HeaderValue, Method, Response, StatusCode, Version, request, response};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorType};

use super::accompany;
use super::exchange::Exchange;
use super::gather::{Bounds, Unread, gather};
use super::grpc;
use super::heads::{self, Seen};
use super::phases::App;
use super::target::{is_whole, sticky_cookie, tells_its_end};
use super::tenure::CLOSE_WAIT;
use super::written::Written;
use crate::chain::{Halt, Instead};
use crate::client::X_REQUEST_ID;
use crate::clock;
use crate::contract::AsyncHandler;
use crate::head::ResponseHead;
use crate::reply::{Rejection, Reply};

/// No deadline of the connection ends a wait for a plugin: that has its own.
pub const HELD_MAX: Duration = Duration::from_secs(3600);
/// How long the rest of a body is read that nobody wanted, so that the client sees the answer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

impl App {
    /// Gathers the body for a handler, unless it was before, and sends what the handler answers.
    pub(super) async fn wait_for(
        &self,
        session: &mut Session,
        x: &mut Box<Exchange>,
        handler: &dyn AsyncHandler,
        body: Option<Bytes>,
    ) -> pingora::Result<()> {
        let of_route = x.route.as_ref().map_or(u64::MAX, |route| route.body_bytes_max);
        let bounds = Bounds::new(&x.gateway.settings.limits, of_route).at_most(handler.body_bytes_max() as u64);
        let gathered = match body {
            Some(body) => bounds.check(&body).map(|()| body),
            None => gather(session, bounds, &mut x.body_bytes_in).await,
        };
        let body = match gathered {
            Ok(body) => body,
            Err(Unread::Rejected(rejection)) => return self.refuse(session, x, *rejection).await,
            Err(Unread::Failed(error)) => return Err(error),
        };
        let Some(context) = &x.context else { return Err(Error::new_in(ErrorType::InternalError)) };
        let answered = handler.answer(&Seen(session.req_header()), body, context).await;
        match answered {
            Ok(reply) => self.send(session, x, reply).await,
            Err(rejection) => self.refuse(session, x, *rejection).await,
        }
    }

    pub(super) async fn refuse(
        &self,
        session: &mut Session,
        x: &mut Box<Exchange>,
        rejection: Rejection,
    ) -> pingora::Result<()> {
        let reply = worded(session.req_header(), x, rejection)?;
        self.send(session, x, reply).await
    }

    /// Answers in place of the service, as a filter wants.
    pub(super) async fn replace(&self, session: &mut Session, x: &mut Box<Exchange>, instead: Instead) -> FailToProxy {
        if let Some(forward) = &mut x.forward {
            forward.end();
        }
        x.reached = instead.reached;
        // Pingora closes after a failed exchange, whatever is said here: the client has to be told.
        session.set_keepalive(None);
        // Whether the client still takes it or not, this is the end.
        let (error_code, _) = match instead.answer {
            Ok(reply) => (reply.status.as_u16(), self.send(session, x, *reply).await),
            Err(rejection) => (rejection.status.as_u16(), self.refuse(session, x, *rejection).await),
        };
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    /// Sends an answer of our own, through the response hooks of the filters that let the request go on.
    pub(super) async fn send(&self, session: &mut Session, x: &mut Box<Exchange>, reply: Reply) -> pingora::Result<()> {
        // Before the client has the answer: what it asks next finds room.
        x.place = None;
        let Answer { reply, head, trailers_only, bodiless } = passed(session.req_header(), x, reply).await?;
        if reply.status == StatusCode::SWITCHING_PROTOCOLS {
            return close_websocket(session, x, head, reply.body).await;
        }
        let no_body = bodiless || reply.body.is_empty() || session.req_header().method == Method::HEAD;
        session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        if let (true, ServerSession::H2(h2)) = (trailers_only, &mut *session.downstream_session) {
            // By its usual way Pingora would end the stream with a piece of body, and clients of gRPC wait for trailers behind it.
            return h2.write_response_header(Box::new(head.into()), true);
        }
        session.write_response_header(Box::new(head.into()), no_body).await?;
        if !no_body {
            session.write_response_body(Some(reply.body), true).await?;
        }
        Ok(())
    }
}

/// An answer as it is behind the response hooks.
pub struct Answer {
    /// Its fields are in the head by now.
    pub reply: Reply,
    pub head: response::Parts,
    trailers_only: bool,
    /// No body belongs to it.
    pub bodiless: bool,
}

/// Takes an answer of our own through the response hooks. A filter may answer in its place; then that answer passes those before it.
pub async fn passed(request: &request::Parts, x: &mut Exchange, mut reply: Reply) -> pingora::Result<Answer> {
    if let Some(context) = x.context.as_mut().filter(|context| !context.standings.is_empty()) {
        // Limits tell the client about times from now on, and a handler may have taken long.
        context.now = clock::now();
    }
    loop {
        x.code = reply.code;
        // Told by its fields, so before they are taken.
        let trailers_only = reply.is_trailers_only();
        let bodiless = trailers_only
            || reply.status.is_informational()
            || matches!(reply.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let mut head = Response::new(()).into_parts().0;
        head.status = reply.status;
        for (name, value) in mem::take(&mut reply.fields) {
            head.headers.try_append(name, value).map_err(|_| Error::new_in(ErrorType::InternalError))?;
        }
        if !bodiless {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(reply.body.len()));
        }
        let ends = bodiless || reply.body.is_empty() || request.method == Method::HEAD;
        let halted = match finish_head(request, &mut head, None, ends, x) {
            Some(Halt::Held(index)) => release(request, &mut head, ends, index, x).await,
            Some(Halt::Instead(instead)) => Some(instead),
            None => None,
        };
        let passed = match halted {
            None if ends => Ok(()),
            None => accompany::whole(request, x, &mut reply.body).await,
            Some(instead) => Err(instead),
        };
        match passed {
            Ok(()) => {
                reply.status = head.status;
                if !bodiless {
                    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(reply.body.len()));
                }
                return Ok(Answer { reply, head, trailers_only, bodiless });
            }
            Err(instead) => {
                // Fewer each time: it comes to an end.
                x.reached = instead.reached;
                reply = match instead.answer {
                    Ok(reply) => *reply,
                    Err(rejection) => worded(request, x, *rejection)?,
                };
            }
        }
    }
}

/// A refusal in the words of the protocol that the client speaks.
pub fn worded(request: &request::Parts, x: &Exchange, rejection: Rejection) -> pingora::Result<Reply> {
    let Some(context) = &x.context else { return Err(Error::new_in(ErrorType::InternalError)) };
    Ok(match grpc::speaks(request, x) {
        Some(speaks) => rejection.into_grpc_reply(speaks),
        None => {
            let now = clock::rfc3339(clock::wall());
            rejection.into_reply(x.gateway.settings.errors, &context.request_id, &now)
        }
    })
}

/// Accepts a WebSocket only to close it with this frame.
async fn close_websocket(
    session: &mut Session,
    x: &Exchange,
    head: response::Parts,
    frame: Bytes,
) -> pingora::Result<()> {
    let Some(connection) = x.connection.as_ref().filter(|_| session.is_upgrade_req()) else {
        return Err(Error::new_in(ErrorType::InternalError));
    };
    session.set_keepalive(None);
    let closer = connection.closer();
    closer.close(frame);
    session.write_response_header(Box::new(head.into()), false).await?;
    // The stream does the rest when it is read, until it fails.
    let read = async { while matches!(session.read_request_body().await, Ok(Some(_))) {} };
    let _ = tokio::time::timeout(CLOSE_WAIT, read).await;
    closer.cut();
    Ok(())
}

/// The head the client was sent. An interim one (RFC 9110 §15.2) is no answer: another has to follow.
pub fn answered(session: &Session) -> Option<&ResponseHeader> {
    session.response_written().filter(|head| is_final(head))
}

/// Whether no other head follows this one.
pub fn is_final(head: &ResponseHeader) -> bool {
    !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS
}

/// Passes the head of a service's answer on: through the response hooks, and to what keeps answers.
pub async fn pass_on(
    session: &mut Session,
    head: &mut ResponseHeader,
    x: &mut Exchange,
    now: Instant,
) -> pingora::Result<()> {
    let whole = is_whole(&session.req_header().method, head);
    let mut halted = None;
    heads::change(head, |head| halted = pass(session.req_header(), head, None, x, now))?;
    let instead = match halted {
        None => None,
        Some(Halt::Instead(instead)) => Some(instead),
        Some(Halt::Held(index)) => Box::pin(wait_with(session, head, whole, index, x)).await?,
    };
    if x.route.as_ref().is_some_and(|route| route.chain.accompanies()) {
        x.response_bytes = accompany::length(&head.headers);
    }
    match instead {
        Some(instead) => Err(accompany::replaced(x, instead)),
        None => Ok(()),
    }
}

/// The same, of a head that was taken apart. A filter may answer in its place, or hold it. `lines` take fields that need not be in
/// the map of the head, to be sent with it.
pub fn pass(
    request: &request::Parts,
    head: &mut response::Parts,
    lines: Option<&mut Vec<u8>>,
    x: &mut Exchange,
    now: Instant,
) -> Option<Halt> {
    let cookie = sticky_cookie(x);
    let (whole, told) = (is_whole(&request.method, head), tells_its_end(head));
    if let Some(forward) = x.forward.as_mut().filter(|_| whole) {
        forward.end();
        x.place = None;
    }
    heads::end_hop(head);
    if let Some(context) = &mut x.context {
        context.now = now;
    }
    if let Some(forward) = &mut x.forward
        && let Some(keeping) = &mut forward.keeping
    {
        keeping.begin(&Seen(request), &heads::Response(head), told, now);
        forward.keep(&[], whole);
    }
    if let Some(cookie) = cookie {
        // Fails, and does nothing, only when a head would hold more fields than a map can.
        let _ = head.headers.try_append(SET_COOKIE, cookie);
    }
    let halted = finish_head(request, head, lines, whole, x);
    grpc::look(head, x.forward.as_mut());
    halted
}

/// The same, of a session's head.
async fn wait_with(
    session: &mut Session,
    head: &mut ResponseHeader,
    ends: bool,
    index: usize,
    x: &mut Exchange,
) -> pingora::Result<Option<Instead>> {
    let request = session.req_header().clone();
    let (mut parts, phrase) = heads::take_response(head);
    let leaves = async {
        if session.is_body_done() || session.req_header().version == Version::HTTP_2 {
            // Whatever it left with: there is nobody to tell.
            let _ = session.downstream_session.read_body_or_idle(true).await;
        } else {
            std::future::pending::<()>().await;
        }
        Error::new_down(ErrorType::ConnectionClosed)
    };
    let instead = wait(&request, &mut parts, ends, index, x, leaves).await?;
    heads::put_back_response(head, parts, phrase.as_deref())?;
    Ok(instead)
}

/// Waits for the filter that holds the head of a service's answer, while the client is there: `leaves` is ready when it is not.
pub async fn wait(
    request: &request::Parts,
    head: &mut response::Parts,
    ends: bool,
    index: usize,
    x: &mut Exchange,
    leaves: impl Future<Output = Box<Error>>,
) -> pingora::Result<Option<Instead>> {
    if let Some(connection) = &x.connection {
        // The plugin has its own time.
        connection.expect_within(clock::now(), HELD_MAX);
    }
    let instead = tokio::select! {
        biased;
        instead = release(request, head, ends, index, x) => instead,
        left = leaves => return Err(left),
    };
    grpc::look(head, x.forward.as_mut());
    streams_again(x);
    Ok(instead)
}

/// The answer goes on that a filter has held.
pub fn streams_again(x: &Exchange) {
    if let (Some(connection), Some(forward)) = (&x.connection, &x.forward) {
        let now = clock::now();
        connection.stream(now, forward.upstream.timeouts.idle, forward.remaining(now));
    }
}

/// Waits for the filter that holds the head of an answer, and takes it past those before it.
async fn release(
    request: &request::Parts,
    head: &mut response::Parts,
    ends: bool,
    index: usize,
    x: &Exchange,
) -> Option<Instead> {
    let (Some(route), Some(context)) = (&x.route, &x.context) else { return None };
    route.chain.respond_held(index, &Seen(request), &mut heads::Response(head), ends, context).await
}

/// What every response passes, whoever authored it. `ends`: no body follows. A filter may answer in its place, or hold it.
fn finish_head(
    request: &request::Parts,
    head: &mut response::Parts,
    lines: Option<&mut Vec<u8>>,
    ends: bool,
    x: &Exchange,
) -> Option<Halt> {
    let (Some(route), Some(context)) = (&x.route, &x.context) else { return None };
    let respond = |head: &mut dyn ResponseHead| route.chain.respond(x.reached, &Seen(request), head, ends, context);
    let halted = match lines {
        Some(lines) => respond(&mut Written { head, lines }),
        None => respond(&mut heads::Response(head)),
    };
    head.headers.insert(X_REQUEST_ID, context.request_id.value());
    halted
}
