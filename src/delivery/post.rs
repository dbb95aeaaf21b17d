//! Sends a message to a target of its upstream.
//!
//! Not a client for the web: no redirects, no proxies, no cookies, no address that is normalised once more. The path goes out byte
//! for byte.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, RETRY_AFTER};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use smallvec::SmallVec;

use super::line::{To, is_tls};
use super::verdict::{Answer, retry_after};
use crate::clock;
use crate::config::{Protocol, UpstreamHost};
use crate::head::{HeaderName, HeaderValue, Headers as _, Method, RequestBuf};
use crate::inbox::{Claimed, Message};
use crate::observe::metrics::{TargetMetrics, UpstreamError};
use crate::sources::with_cause;
use crate::upstream::breaker::Permit;
use crate::upstream::health::Standing;
use crate::upstream::{Choice, Hints, NoTarget, Upstream};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const X_DELIVERY_ID: HeaderName = HeaderName::from_static("x-delivery-id");
const X_DELIVERY_ATTEMPT: HeaderName = HeaderName::from_static("x-delivery-attempt");

/// What of the body of an answer is read, so that the connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept where the upstream says nothing: less than the five seconds after which many servers
/// close it, perhaps just when it is used.
const KEEPALIVE: Duration = Duration::from_secs(4);
/// Addresses whose connections are kept; names may lead to others again and again.
const ADDRESSES_MAX: usize = 256;

/// The body of a request; the second is one with trailers.
type Whole = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;
type Outgoing = Client<To, Whole>;
/// An address, and with TLS the name that is expected there.
type Reached = (SocketAddr, Option<Arc<str>>);

/// What a service answered, or why it did not.
pub enum Reply {
    Answered(Response<Incoming>),
    /// Never [`Answer::Status`].
    None(Answer),
}

/// The way to one upstream.
pub struct Post {
    upstream: Arc<Upstream>,
    clients: Mutex<HashMap<Reached, Outgoing>>,
}

impl Post {
    pub fn new(upstream: Arc<Upstream>) -> Self {
        Self { upstream, clients: Mutex::default() }
    }

    pub fn leads_to(&self, upstream: &Arc<Upstream>) -> bool {
        Arc::ptr_eq(&self.upstream, upstream)
    }

    pub fn is_named(&self, upstream: &str) -> bool {
        *self.upstream.name == *upstream
    }

    /// Sends a message, at the latest until `timeout` is over. A target that takes no connection is left for the next one;
    /// `last` becomes the address of the last one.
    pub async fn deliver(&self, claimed: &Claimed, timeout: Duration, last: &mut Option<SocketAddr>) -> Answer {
        match self.ask(claimed, &[], timeout, last).await {
            Reply::Answered(response) => {
                let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let asked = asked.and_then(|value| retry_after(value, clock::wall()));
                let status = response.status();
                // Not waited for: the status is all the service has to say.
                tokio::spawn(finish(response));
                Answer::Status(status, asked)
            }
            Reply::None(answer) => answer,
        }
    }

    /// The same; the answer is that of the service. Trailers are sent where the protocol has room for them.
    pub async fn ask(
        &self,
        claimed: &Claimed,
        trailers: &[(HeaderName, HeaderValue)],
        timeout: Duration,
        last: &mut Option<SocketAddr>,
    ) -> Reply {
        let started = clock::now();
        let Ok(mut permit) = self.upstream.admit(started) else { return Reply::None(Answer::Refused) };
        let deadline = started.checked_add(timeout).unwrap_or(started);
        let answer = match tokio::time::timeout(timeout, self.try_targets(claimed, trailers, deadline, last)).await {
            Ok(answer) => answer,
            Err(_) => Reply::None(Answer::Broken("the service did not answer in time".to_owned())),
        };
        if let Some(permit) = &mut permit {
            let now = clock::now();
            match &answer {
                Reply::Answered(response) => {
                    permit.answered(response.status().as_u16(), now.saturating_duration_since(started), now);
                }
                // Where nothing was tried, the gateway was in its own way.
                Reply::None(Answer::Broken(_) | Answer::Unreachable(_)) if last.is_some() => permit.failed(now),
                Reply::None(_) => {}
            }
        }
        answer
    }

    async fn try_targets(
        &self,
        claimed: &Claimed,
        trailers: &[(HeaderName, HeaderValue)],
        deadline: Instant,
        last: &mut Option<SocketAddr>,
    ) -> Reply {
        let mut tried: SmallVec<[u16; 4]> = SmallVec::new();
        let mut unreachable = "no target has an address".to_owned();
        let head = self.upstream.looks_at_head().then(|| head_of(&claimed.message));
        let head = head.unwrap_or_else(|| RequestBuf::new(Method::default(), ""));
        let hints = Hints { head: &head, client: None, consumer: None };
        loop {
            let choice = match self.upstream.choose(&tried, &hints, clock::now()) {
                Ok(choice) if !tried.contains(&choice.index) => choice,
                Err(NoTarget::Open(_)) if tried.is_empty() => return Reply::None(Answer::Refused),
                Err(NoTarget::Unavailable) if tried.is_empty() && self.is_refusing() => {
                    return Reply::None(Answer::Refused);
                }
                Err(NoTarget::Full) if tried.is_empty() => {
                    unreachable = "every target has as much in flight as it may have".to_owned();
                    break;
                }
                Ok(_) | Err(_) => break,
            };
            tried.push(choice.index);
            *last = Some(choice.address);
            match self.send(claimed, trailers, choice, deadline).await {
                Reply::None(Answer::Unreachable(why)) => unreachable = why,
                reply => return reply,
            }
        }
        Reply::None(Answer::Unreachable(unreachable))
    }

    /// Whether no target is healthy and nobody is to be asked then.
    fn is_refusing(&self) -> bool {
        self.upstream.standing(clock::now()).is_some_and(Standing::is_refusing)
    }

    async fn send(
        &self,
        claimed: &Claimed,
        trailers: &[(HeaderName, HeaderValue)],
        mut choice: Choice<'_>,
        deadline: Instant,
    ) -> Reply {
        let Some(request) = self.request(claimed, trailers, &choice) else { return Reply::None(Answer::Damaged) };
        let Some(client) = self.client(&choice) else {
            return Reply::None(Answer::Unreachable("the target has no name".to_owned()));
        };
        let metrics = &choice.target.metrics;
        // When the time is over this is dropped, and the target had it.
        let permit = choice.permit.take();
        let target = (&*self.upstream, choice.index);
        let mut waiting = Waiting { metrics, target, permit, deadline, ended: false };
        let started = clock::now();
        let sent = client.request(request).await;
        waiting.ended = true;
        let (mut permit, now) = (waiting.permit.take(), clock::now());
        if let Some(permit) = &mut permit {
            match &sent {
                Ok(response) => {
                    permit.answered(response.status().as_u16(), now.saturating_duration_since(started), now);
                }
                Err(_) => permit.failed(now),
            }
        }
        match sent {
            Ok(response) => {
                let (code, took) = (response.status().as_u16(), now.saturating_duration_since(started));
                metrics.responded(code, took);
                if self.upstream.responded(choice.index, code, took, now) {
                    self.upstream.succeeded(choice.index, now);
                }
                Reply::Answered(response)
            }
            Err(error) if error.is_connect() => {
                let kind = if is_tls(&error) { UpstreamError::Tls } else { UpstreamError::Connect };
                metrics.failed(kind);
                self.upstream.failed(choice.index, Some(kind), now);
                Reply::None(Answer::Unreachable(with_cause("cannot connect", &error)))
            }
            Err(error) => {
                let kind = if is_tls(&error) { UpstreamError::Tls } else { UpstreamError::Reset };
                metrics.failed(kind);
                self.upstream.failed(choice.index, Some(kind), now);
                Reply::None(Answer::Broken(with_cause("the exchange broke off", &error)))
            }
        }
    }

    /// The request for a target. `None`: the message is damaged.
    fn request(
        &self,
        claimed: &Claimed,
        trailers: &[(HeaderName, HeaderValue)],
        choice: &Choice<'_>,
    ) -> Option<Request<Whole>> {
        let Message { id, delivery, method, target, fields, body, .. } = &claimed.message;
        let own = choice.target.name.as_ref().map(|name| name.host.to_string());
        let own = HeaderValue::try_from(own.unwrap_or_else(|| choice.address.to_string())).ok()?;
        let host = fields.iter().find(|(name, _)| name == HOST.as_str()).filter(|(_, value)| !value.is_empty());
        let host = host.filter(|_| self.upstream.host == UpstreamHost::Pass);
        let host = host.and_then(|(_, value)| HeaderValue::from_bytes(value).ok()).unwrap_or(own.clone());
        // Over HTTP/2 it is the host; where to connect to is settled.
        let authority = Authority::try_from(host.as_bytes()).or_else(|_| Authority::try_from(own.as_bytes())).ok()?;
        let uri = Uri::builder()
            .scheme(if self.upstream.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP })
            .authority(authority);
        let uri = uri.path_and_query(PathAndQuery::try_from(target.as_str()).ok()?).build().ok()?;
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).ok()?).uri(uri);
        for (name, value) in fields.iter().filter(|(name, _)| name != HOST.as_str()) {
            request = request.header(name, value.as_slice());
        }
        // Which one `auto` comes to is not known yet; over HTTP/2 it says the same as the authority.
        if matches!(self.upstream.protocol, Protocol::Http1 | Protocol::Auto) {
            request = request.header(HOST, host);
        }
        if claimed.attempt != Claimed::NO_DELIVERY {
            request = request
                .header(IDEMPOTENCY_KEY, delivery)
                .header(X_DELIVERY_ID, id)
                .header(X_DELIVERY_ATTEMPT, claimed.attempt);
        }
        request.body(whole(body, trailers)).ok()
    }

    fn client(&self, choice: &Choice<'_>) -> Option<Outgoing> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        // Two targets may have one address, and different names.
        let name = choice.target.name.as_ref().map(|name| Arc::clone(&name.server_name));
        if let Some(known) = clients.get(&(choice.address, name.clone())) {
            return Some(known.clone());
        }
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.upstream.timeouts.keepalive.unwrap_or(KEEPALIVE))
            .http2_only(matches!(self.upstream.protocol, Protocol::H2c | Protocol::H2))
            .set_host(false)
            .build(To::new(&self.upstream, choice.target, choice.address)?);
        if clients.len() >= ADDRESSES_MAX {
            clients.clear();
        }
        clients.insert((choice.address, name), client.clone());
        Some(client)
    }
}

fn whole(body: &Bytes, trailers: &[(HeaderName, HeaderValue)]) -> Whole {
    let body = Full::new(body.clone());
    if trailers.is_empty() {
        return Either::Left(body);
    }
    let trailers = trailers.iter().cloned().collect();
    Either::Right(body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed_unsync())
}

/// What of a message may decide which target gets it.
fn head_of(message: &Message) -> RequestBuf {
    let method = Method::from_bytes(message.method.as_bytes()).unwrap_or_default();
    let mut head = RequestBuf::new(method, &message.target);
    for (name, value) in &message.fields {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_bytes(value)) {
            head.append(&name, value);
        }
    }
    head
}

/// Counts an exchange that ran out of time.
struct Waiting<'a> {
    metrics: &'a TargetMetrics,
    target: (&'a Upstream, u16),
    permit: Option<Permit>,
    /// When the time is over; what is dropped before was given up for another reason.
    deadline: Instant,
    ended: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.failed(UpstreamError::Timeout);
            let now = clock::now();
            if now < self.deadline {
                return;
            }
            let (upstream, index) = self.target;
            upstream.failed(index, Some(UpstreamError::Timeout), now);
            if let Some(permit) = &mut self.permit {
                permit.failed(now);
            }
        }
    }
}

/// Reads a bounded rest of an answer.
async fn finish<B>(response: Response<B>)
where
    B: BodyExt<Data = Bytes> + Unpin,
{
    let mut body = response.into_body();
    let mut read = 0_usize;
    let all = async {
        while read <= ANSWER_BYTES_MAX
            && let Some(Ok(frame)) = body.frame().await
        {
            read = read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    // What is left closes its connection.
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, all).await;
}
