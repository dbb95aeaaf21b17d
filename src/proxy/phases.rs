//! The phases of a request, as Pingora calls them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tokio::sync::mpsc::Sender;

use super::accompanied::accompany;
use super::accompany;
use super::admit::{self, Raw};
use super::announce;
use super::answer::{self, answered, pass_on};
use super::attempt::{self, Attempt};
use super::circuit::{Entry, enter};
use super::decide::{Asker, Decision};
use super::exchange::Exchange;
use super::failure::{self, CLIENT_GONE, Failure};
use super::grpc;
use super::heads;
use super::mirrored::Body;
use super::pace;
use super::peer::{peer, shorter};
use super::report::{self, Answered};
use super::retry;
use super::secured;
use super::sent::Sent;
use super::sound;
use super::tenure::Tenure;
use super::upload::{self, Upload};
use crate::clock;
use crate::config::UpstreamHost;
use crate::delivery::Mirrors;
use crate::live::Live;
use crate::observe::access::AccessLog;
use crate::observe::metrics::Metrics;
use crate::observe::webhooks::WebhookLog;
use crate::overload;
use crate::reply::Code;

/// The application that the engines run: one for each worker thread.
#[derive(Clone)]
pub struct App {
    pub live: Arc<Live>,
    pub metrics: Arc<Metrics>,
    pub access_log: Option<Arc<AccessLog>>,
    pub webhook_log: Option<Arc<WebhookLog>>,
    pub mirrors: Arc<Mirrors>,
    pub overload: Arc<overload::Worker>,
}

#[async_trait]
impl ProxyHttp for App {
    /// Boxed: it is moved several times.
    type CTX = Box<Exchange>;

    fn new_ctx(&self) -> Box<Exchange> {
        Box::new(Exchange::new(self.live.current()))
    }

    /// None: the default one adds compression to every request's path.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, x: &mut Box<Exchange>) -> pingora::Result<bool> {
        admit::begin(session, x);
        let raw = Raw::look(session, x);
        let mut head = heads::take(session.req_header_mut());
        let admitted = admit::admit(&mut head, &raw, x);
        if matches!(&admitted, Err(rejection) if rejection.code == Code::BAD_REQUEST) {
            // Where one thing was malformed, the next request may not begin where it seems to.
            session.set_keepalive(None);
        }
        let decision = self.decide(Asker::Session(session), &mut head, admitted, x).await;
        heads::put_back(session.req_header_mut(), head);
        match decision {
            Decision::Forward(upstream, body) => {
                let has_body = body.as_ref().map_or_else(|| !session.is_body_done(), |body| !body.is_empty());
                match enter(session.req_header(), has_body, x, &upstream) {
                    Entry::Open => {}
                    Entry::Reply(reply) => {
                        self.send(session, x, reply).await?;
                        return Ok(true);
                    }
                    Entry::Refuse(rejection) => {
                        self.refuse(session, x, rejection).await?;
                        return Ok(true);
                    }
                }
                if let Err(rejection) = grpc::take_deadline(session.req_header(), x) {
                    self.refuse(session, x, rejection).await?;
                    return Ok(true);
                }
                if !session.is_upgrade_req() {
                    let copied = match &body {
                        Some(body) => Body::Gathered(body),
                        None if session.is_body_done() => Body::None,
                        None => Body::Coming,
                    };
                    self.mirror(session.req_header(), x, copied);
                }
                upload::begin(session, x, body)?;
                accompany(session, x)?;
                Ok(false)
            }
            Decision::Await(handler, body) => {
                self.wait_for(session, x, handler.as_ref(), body).await?;
                Ok(true)
            }
            Decision::Fail(error) => Err(error),
            Decision::Reply(reply) => {
                self.send(session, x, *reply).await?;
                Ok(true)
            }
            Decision::Refuse(rejection) => {
                self.refuse(session, x, *rejection).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, x: &mut Box<Exchange>) -> pingora::Result<Box<HttpPeer>> {
        retry::pause(session, x).await?;
        let attempt = attempt::begin(session.req_header(), x)?;
        let Attempt { chosen, now, remaining, first_byte } = attempt;
        let Some(forward) = x.forward.as_ref() else { return Err(Error::new_in(ErrorType::InternalError)) };
        let upstream = &*forward.upstream;
        // A client of HTTP/1.0 need not send a Host; what goes on is HTTP/1.1, which has one.
        // It is the first field, as a rule: looking for it by its name costs more.
        let names_host = || session.req_header().headers.keys().any(|name| *name == HOST);
        if upstream.host == UpstreamHost::Target || !names_host() {
            session.req_header_mut().insert_header(HOST, chosen.host())?;
        }
        let mut peer = peer(upstream, &chosen, remaining, session.is_upgrade_req());
        if let Some(version) = upstream.tells_client {
            announce::begin(&mut peer, version, x.connection.as_deref(), x.context.as_ref());
        }
        let is_watched = x.upload.as_ref().is_some_and(Upload::is_watched);
        match &x.connection {
            Some(connection) if !connection.is_h2() => {
                if !x.is_gathered() && session.is_body_done() {
                    connection.expect_within(now, first_byte);
                }
                // Nobody looks at the client's connection while a piece is written that the service takes bit by bit.
                peer.options.read_timeout = remaining.filter(|_| is_watched);
            }
            _ if is_watched => peer.options.read_timeout = remaining,
            // No deadline of the connection ends one exchange of many: one timer serves the wait for the head and the waits
            // within the body.
            _ => peer.options.read_timeout = Some(shorter(first_byte.max(upstream.timeouts.idle), remaining)),
        }
        Ok(peer)
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        _: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        x: &mut Box<Exchange>,
    ) -> pingora::Result<()> {
        announce::check(x, digest)?;
        if let Some(target) = x.forward.as_ref().and_then(|forward| forward.target.as_ref()) {
            target.connected(reused);
        }
        secured::check_version(x, digest)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        x: &mut Box<Exchange>,
    ) -> pingora::Result<()> {
        secured::check_protocol(x, request.version)?;
        if x.upload.is_some() || x.accompanied.is_some() {
            upload::keep_te(session, request)?;
        }
        accompany::without_length(request, x)?;
        grpc::prepare(request, x)
    }

    async fn custom_forwarding(
        &self,
        _: &mut Session,
        x: &mut Box<Exchange>,
        _: Option<Sender<Bytes>>,
        messages: Sender<Bytes>,
    ) -> pingora::Result<()> {
        if let Some(upload) = &x.upload {
            upload.watch(messages);
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        x: &mut Box<Exchange>,
    ) -> pingora::Result<()> {
        let bytes = body.as_ref().map_or(0, Bytes::len) as u64;
        let upgraded = session.was_upgraded();
        // What was gathered was counted then.
        if !x.is_gathered() || upgraded {
            x.body_bytes_in = x.body_bytes_in.saturating_add(bytes);
        }
        if upgraded {
            return Ok(());
        }
        let max = x.route.as_ref().map_or(u64::MAX, |route| route.body_bytes_max);
        if x.body_bytes_in > max {
            x.code = Some(Code::BODY_TOO_LARGE);
            return Err(Error::new_down(ErrorType::HTTPStatus(413)));
        }
        pace::check(session, x, end_of_stream)?;
        let piece = body.clone().filter(|_| x.upload.is_some());
        grpc::decode(body, end_of_stream, x)?;
        accompany::request_piece(session, body, end_of_stream, x).await?;
        if let Some(piece) = piece {
            *body = body.take().map(|made| upload::in_place_of(piece, made));
        }
        self.mirror_piece(x, body.as_ref(), end_of_stream);
        // Without a body the wait has begun already, when the target was chosen.
        if end_of_stream
            && x.body_bytes_in > 0
            && let (Some(connection), Some(forward), Some(route)) = (&x.connection, &x.forward, &x.route)
            && forward.to_head.is_none()
        {
            let now = clock::now();
            connection.expect_within(now, shorter(forward.first_byte(route.first_byte), forward.remaining(now)));
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        x: &mut Box<Exchange>,
    ) -> pingora::Result<()> {
        sound::check(head, x)?;
        let upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if head.status.is_informational() && !upgraded {
            return Ok(());
        }
        if upgraded && !session.is_upgrade_req() {
            // Pingora would pass it on, and the client would read the next response as this one's.
            return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
        }
        x.upload.iter().for_each(Upload::heard);
        let now = clock::now();
        attempt::answered(&Sent::of(session), head, x, now)?;
        let Some(forward) = x.forward.as_mut() else { return Ok(()) };
        if upgraded {
            forward.settled();
            // From now on it is a connection, and counts as one.
            x.place = None;
        }
        let idle = if upgraded {
            // Either side may be silent for as long as the other is not.
            session.set_read_timeout(None);
            x.gateway.settings.limits.upgrade_idle_timeout
        } else {
            forward.upstream.timeouts.idle
        };
        if let Some(connection) = &x.connection {
            connection.stream(now, idle, forward.remaining(now));
        }
        if upgraded {
            if let (Some(connection), Some(context)) = (&x.connection, &x.context) {
                x.tenure = Tenure::begin(connection, context, &self.live, &self.metrics);
            }
            // From now on it is a connection: no filter that saw the request sees what is sent on it.
            accompany::end(session.req_header(), None, x);
            return Ok(());
        }
        pass_on(session, head, x, now).await
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        x: &mut Box<Exchange>,
    ) -> pingora::Result<Option<Duration>> {
        x.upload.iter().for_each(Upload::heard);
        let Some(forward) = x.forward.as_mut() else { return Ok(None) };
        // Over HTTP/2 no deadline of the connection ends an exchange: look at every piece.
        if forward.deadline.is_some_and(|deadline| clock::now() >= deadline) {
            return Err(Error::new_up(ErrorType::ReadTimedout));
        }
        if forward.keeping.is_some() {
            forward.keep(body.as_deref().unwrap_or_default(), end_of_stream);
        }
        if end_of_stream {
            // Before the client has all of it: what it asks next finds room, and a breaker that this answer closed.
            forward.end();
            x.place = None;
        }
        Ok(None)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        x: &mut Box<Exchange>,
    ) -> pingora::Result<Option<Duration>> {
        if x.accompanied.is_none() {
            accompany::response_piece(session, body, end_of_stream, x)?;
            grpc::encode(body, x);
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        trailers: &mut HeaderMap,
        x: &mut Box<Exchange>,
    ) -> pingora::Result<Option<Bytes>> {
        Ok(if x.accompanied.is_none() { grpc::last_frame(trailers, x) } else { None })
    }

    /// The last look at a response head: by now Pingora has chosen how its end is told.
    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        _: &mut Box<Exchange>,
    ) -> pingora::Result<()> {
        // RFC 9112 §6.1: a client of HTTP/1.0 knows no transfer coding; the end of the connection ends the body.
        if session.req_header().version == Version::HTTP_10 && head.remove_header(&TRANSFER_ENCODING).is_some() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn fail_to_connect(&self, session: &mut Session, _: &HttpPeer, x: &mut Box<Exchange>, e: Box<Error>) -> Box<Error> {
        retry::not_connected(&Sent::of(session), x, e)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        e: Box<Error>,
        x: &mut Box<Exchange>,
        client_reused: bool,
    ) -> Box<Error> {
        retry::broke_off(&Sent::of(session), x, e, client_reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, x: &mut Box<Exchange>) -> FailToProxy {
        // Our answer goes to the client itself.
        if let Some(instead) = x.accompanied.take().and_then(|accompanied| accompanied.end(session)) {
            // For what is told of it; the error that this comes with is known already.
            drop(accompany::replaced(x, instead));
        }
        if let Some(upload) = x.upload.take() {
            upload.end(session);
        }
        if let Some(instead) = x.instead.take()
            && answered(session).is_none()
        {
            return self.replace(session, x, *instead).await;
        }
        let failure = failure::explain(e, x);
        if let Some(forward) = &mut x.forward {
            // Before the client is told: what it asks next is not to find its own place or that of its probe taken.
            forward.end();
        }
        if let Failure::Refuse(rejection) = &failure {
            x.code = Some(rejection.code);
        }
        match failure {
            Failure::Refuse(rejection) if answered(session).is_none() => {
                let error_code = rejection.status.as_u16();
                if rejection.status.is_server_error() {
                    report::failure(e, x);
                }
                // Pingora closes after a failed exchange, whatever is said here: the client has to be told.
                session.set_keepalive(None);
                // Whether the client still takes it or not, this is the end.
                let _ = self.refuse(session, x, rejection).await;
                FailToProxy { error_code, can_reuse_downstream: false }
            }
            Failure::Refuse(rejection) => {
                grpc::end(session, x, &rejection).await;
                FailToProxy { error_code: 0, can_reuse_downstream: false }
            }
            Failure::ClientGone => FailToProxy { error_code: 0, can_reuse_downstream: false },
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &Box<Exchange>, _: &Error) -> bool {
        // The access log and the counters say it, with the request id.
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Box<Exchange>, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, x: &mut Box<Exchange>) {
        // After this Pingora looks whether another request may follow.
        if let Some(accompanied) = x.accompanied.take() {
            accompanied.end(session);
        }
        if let Some(upload) = x.upload.take() {
            upload.end(session);
        }
        let status = match answered(session) {
            Some(head) => head.status.as_u16(),
            None if error.is_some() => CLIENT_GONE,
            None => 0,
        };
        let answered = Answered { status, bytes: session.body_bytes_sent() as u64 };
        accompany::end(session.req_header(), answer::answered(session).map(|head| &**head), x);
        self.finished(session.req_header(), answered, x);
    }
}

/// The address of a peer that has none we can tell.
pub const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
