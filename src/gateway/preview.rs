//! A request through the real route table and chain, without network: for `tollgate test`, `explain` and reloads.
//!
//! What the proxy does to a request before and after the chain is done here too: claims of clients nobody trusts are
//! removed, the path is normalised, the upstream is told who the client is. An upstream counts as reached and stands for
//! an answer of 200 without fields, which then passes the response hooks.

mod change;
mod expect;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};

pub use change::{Change, shown, shown_target, target};
pub(super) use expect::ask;
pub use expect::{Failure, check_tests, run_tests};

use super::{Gateway, Matched, Route, preflight_for};
use crate::caller::Caller;
use crate::chain::{Halt, Link};
use crate::client::{self, PeerText};
use crate::clock;
use crate::config::UpstreamHost;
use crate::context::{Context, Decision, Scheme};
use crate::contract::Verdict;
use crate::handlers::Action;
use crate::head::{
    HeaderName, HeaderValue, Headers, Method, RequestBuf, RequestHead, ResponseBuf, ResponseHead, StatusCode,
    without_port,
};
use crate::reply::{Code, Rejection, Reply};
use crate::route::{Considered, normalise};
use crate::upstream::{Hints, Upstream};
use crate::yaml::Place;

/// The client of a request that does not say: an address for documentation
/// ([RFC 5737](https://www.rfc-editor.org/rfc/rfc5737)).
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The host of a request that does not say.
const DEFAULT_HOST: HeaderValue = HeaderValue::from_static("localhost");

/// A request as a client would send it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The path as it is sent, not normalised yet.
    pub request: RequestBuf,
    pub body: Bytes,
    /// The other end of the connection.
    pub from: IpAddr,
}

impl Ask {
    /// Reads `GET /path?query`. Without a `Host` among the fields that are added later it is `localhost`.
    ///
    /// # Errors
    ///
    /// What is wrong with the line, in words.
    pub fn parse(line: &str, from: IpAddr) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let (Some(method), Some(target), None) = (words.next(), words.next(), words.next()) else {
            return Err(format!(
                "`{line}` is no request; write a method and a path, such as `GET /api/v1/tasks?limit=5`"
            ));
        };
        let upper = method.to_ascii_uppercase();
        match Method::from_bytes(method.as_bytes()) {
            Ok(_) if upper != method => Err(format!("method `{method}` is not in upper case; write {upper}")),
            Ok(Method::CONNECT) => Err("a gateway does not offer CONNECT".to_owned()),
            Ok(method) => Ok(Self { request: RequestBuf::new(method, target), body: Bytes::new(), from }),
            Err(_) => Err(format!("`{method}` is no method")),
        }
    }

    /// Adds a header field.
    ///
    /// # Errors
    ///
    /// Why it is none, in words.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
        let value = value.parse().map_err(|_| format!("the value of `{name}` holds a control character"))?;
        self.request.append(&name, value);
        Ok(())
    }

    /// Gives it a body, with the `Content-Length` of that.
    pub fn set_body(&mut self, body: Bytes) {
        self.request.set(&CONTENT_LENGTH, HeaderValue::from(body.len()));
        self.body = body;
    }
}

/// What became of a request.
pub struct Preview {
    /// Who sent it, when a trusted proxy says so.
    pub client: IpAddr,
    /// Who calls, when a filter found out.
    pub caller: Option<Arc<Caller>>,
    /// The request as the filters left it.
    pub request: RequestBuf,
    /// The routes that were looked at; empty when the request was refused before.
    pub considered: Vec<Considered>,
    /// The route that took it.
    pub route: Option<Arc<Route>>,
    /// The filters that ran, in order; the last one may have ended the walk.
    pub steps: Vec<StepReport>,
    pub outcome: Outcome,
    /// The head of the answer after the response hooks.
    pub response: ResponseBuf,
}

/// Where the request ended.
pub enum Outcome {
    Upstream {
        name: Arc<str>,
        /// Where the turn decides: all that it may be.
        one_of: Vec<Arc<str>>,
        /// The request as the upstream would see it.
        request: RequestBuf,
    },
    Reply(Reply),
}

/// What one filter did.
pub struct StepReport {
    pub name: &'static str,
    pub place: Place,
    /// The chain it was taken from, or `defaults`.
    pub via: Option<Arc<str>>,
    /// It has nothing to do on the way in.
    pub response_only: bool,
    pub verdict: StepVerdict,
    /// What it decided about who calls.
    pub decision: Option<Decision>,
    /// What it changed on the request.
    pub changes: Vec<Change>,
}

/// A [`Verdict`] without the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepVerdict {
    Continue,
    Replied(StatusCode),
    Rejected(&'static Code, StatusCode),
}

impl Preview {
    /// The code of a refusal.
    pub fn code(&self) -> Option<&'static Code> {
        match &self.outcome {
            Outcome::Reply(reply) => reply.code,
            Outcome::Upstream { .. } => None,
        }
    }
}

/// Runs a request through the gateway.
pub fn preview(gateway: &Gateway, ask: Ask) -> Preview {
    let mut walk = Walk::begin(gateway, ask);
    let outcome = match walk.admit() {
        Ok(()) => walk.decide(),
        Err(rejection) => walk.refuse(rejection),
    };
    let response = walk.respond(&outcome);
    Preview {
        client: walk.context.client,
        caller: walk.context.caller,
        request: walk.request,
        considered: walk.considered,
        route: walk.taken.then_some(walk.route),
        steps: walk.steps,
        outcome,
        response,
    }
}

/// A request on its way.
struct Walk<'g> {
    gateway: &'g Gateway,
    request: RequestBuf,
    body: Bytes,
    context: Context,
    considered: Vec<Considered>,
    /// The route, or what stands for it.
    route: Arc<Route>,
    taken: bool,
    /// How many filters let the request go on.
    reached: usize,
    steps: Vec<StepReport>,
}

impl<'g> Walk<'g> {
    fn begin(gateway: &'g Gateway, ask: Ask) -> Self {
        let Ask { request, body, from } = ask;
        let peer = from.to_canonical();
        let trusted = gateway.trusts(peer);
        let route = Arc::clone(gateway.fallback());
        let context = Context {
            peer_is_trusted: trusted,
            scheme: if trusted { client::scheme(&request, Scheme::Http) } else { Scheme::Http },
            route: Arc::clone(&route.name),
            ..Context::detached(peer, client::request_id(&request, trusted), clock::now())
        };
        Self {
            gateway,
            request,
            body,
            context,
            considered: Vec::new(),
            route,
            taken: false,
            reached: 0,
            steps: Vec::new(),
        }
    }

    /// What comes before the chain: on return the route is known, or why there is none.
    fn admit(&mut self) -> Result<(), Rejection> {
        // A refusal before any filter ran passes the response hooks of the default ones.
        self.reached = self.route.chain.links().len();
        let trusted = self.context.peer_is_trusted;
        client::strip_claims(&mut self.request, trusted);
        self.gateway.guarded.strip(&mut self.request);
        if trusted {
            self.context.client = client::client(&self.request, self.context.peer, &|peer| self.gateway.trusts(peer));
        }
        self.settle_host()?;
        if self.request.path == "*" {
            return Err(Rejection::new(Code::NOT_FOUND, "no route matches this request"));
        }
        let path = normalise(&self.request.path);
        let path = path.map_err(|error| Rejection::new(Code::BAD_REQUEST, error.to_string()))?.into_owned();
        let target = self.request.query.as_ref().map(|query| format!("/?{query}"));
        if target.is_some_and(|target| http::uri::PathAndQuery::try_from(target).is_err()) {
            return Err(Rejection::new(Code::BAD_REQUEST, "the request target is not valid"));
        }
        self.request.path = path;
        let matched = self.gateway.find(&self.request, &mut self.context);
        let asked = if self.context.preflight { preflight_for(&self.request) } else { None };
        let method = asked.as_ref().unwrap_or(self.request.method());
        self.considered = self.gateway.table.trace(&self.request, method);
        match matched {
            Matched::Route(route) => {
                self.route = Arc::clone(route);
                self.taken = true;
                self.reached = 0;
                Ok(())
            }
            Matched::Refused(rejection) => Err(rejection),
        }
    }

    fn settle_host(&mut self) -> Result<(), Rejection> {
        let host = self.request.get(&HOST).unwrap_or(DEFAULT_HOST.as_bytes()).to_ascii_lowercase();
        let invalid = || Rejection::new(Code::BAD_REQUEST, "the Host is not valid");
        if !client::is_host(&host) {
            return Err(invalid());
        }
        let text = String::from_utf8(host).map_err(|_| invalid())?;
        without_port(&text).clone_into(&mut self.request.host);
        let value = HeaderValue::try_from(text).map_err(|_| invalid())?;
        self.request.set(&HOST, value);
        Ok(())
    }

    /// Refuses a body that is larger than the route takes, or than `own_max` bytes.
    fn check_length(&self, own_max: u64) -> Result<(), Rejection> {
        let max = self.route.body_bytes_max.min(own_max);
        let length = self.request.text(&CONTENT_LENGTH).and_then(|length| length.trim().parse::<u64>().ok());
        if length.is_some_and(|length| length > max) || self.body.len() as u64 > max {
            return Err(
                Rejection::new(Code::BODY_TOO_LARGE, "the request body is too large").with_detail("body_max", max)
            );
        }
        Ok(())
    }

    /// Walks the chain, then asks the handler.
    fn decide(&mut self) -> Outcome {
        let route = Arc::clone(&self.route);
        for link in route.chain.links() {
            match self.step(link) {
                Verdict::Continue => self.reached = self.reached.saturating_add(1),
                Verdict::Reply(reply) => return Outcome::Reply(*reply),
                Verdict::Reject(rejection) => return self.refuse(*rejection),
            }
        }
        match &route.action {
            Action::Answer(handler) => match handler.answer(&self.request, &self.context) {
                Ok(reply) => Outcome::Reply(reply),
                Err(rejection) => self.refuse(*rejection),
            },
            // What it would answer depends on a body and on state; that it is reached does not.
            Action::Await(handler) => match self.check_length(handler.body_bytes_max() as u64) {
                Ok(()) => Outcome::Reply(Reply::new(handler.status())),
                Err(rejection) => self.refuse(rejection),
            },
            Action::Forward(upstream) => self.forward(&upstream.load(), Vec::new()),
            Action::Split(split) => {
                let caller = self.context.caller.as_ref();
                let consumer = caller.map(|caller| &*caller.name);
                let hints = Hints { head: &self.request, client: Some(self.context.client), consumer };
                if let Some(upstream) = split.settled(&hints) {
                    return self.forward(&upstream.load(), Vec::new());
                }
                let mut weighted = split.parts().iter().filter(|part| part.weight > 0).map(|part| &part.upstream);
                let one_of = weighted.clone().map(|upstream| Arc::clone(&upstream.name)).collect();
                match weighted.next() {
                    Some(upstream) => self.forward(&upstream.load(), one_of),
                    None => self.refuse(Rejection::new(Code::INTERNAL, "the split has no part")),
                }
            }
        }
    }

    fn forward(&self, upstream: &Upstream, one_of: Vec<Arc<str>>) -> Outcome {
        if let Err(rejection) = self.check_length(u64::MAX) {
            return self.refuse(rejection);
        }
        let mut request = self.request.clone();
        client::announce(&mut request, &self.context, &PeerText::new(self.context.peer));
        if upstream.host == UpstreamHost::Target
            && let Some(host) = upstream.targets().first().and_then(|target| target.label.parse().ok())
        {
            request.set(&HOST, host);
        }
        Outcome::Upstream { name: Arc::clone(&upstream.name), one_of, request }
    }

    fn step(&mut self, link: &Link) -> Verdict {
        let before = self.request.clone();
        let decided = self.context.decisions.len();
        // A body that is too large is refused before the filter sees it.
        let verdict = match link.body_bytes_max().map_or(Ok(()), |max| self.check_length(max)) {
            Ok(()) => link.preview(&mut self.request, &self.body, &mut self.context),
            Err(rejection) => Verdict::Reject(Box::new(rejection)),
        };
        self.steps.push(StepReport {
            name: link.name,
            place: link.place,
            via: link.via.clone(),
            response_only: !link.hooks().request,
            verdict: match &verdict {
                Verdict::Continue => StepVerdict::Continue,
                Verdict::Reply(reply) => StepVerdict::Replied(reply.status),
                Verdict::Reject(rejection) => StepVerdict::Rejected(rejection.code, rejection.status),
            },
            decision: self.context.decisions.get(decided).copied(),
            changes: change::between(&before, &self.request, &self.gateway.hidden),
        });
        verdict
    }

    fn refuse(&self, rejection: Rejection) -> Outcome {
        let now = clock::rfc3339(clock::wall());
        Outcome::Reply(rejection.into_reply(self.gateway.settings.errors, &self.context.request_id, &now))
    }

    /// The head of the answer, through the response hooks.
    fn respond(&self, outcome: &Outcome) -> ResponseBuf {
        let mut head = ResponseBuf::new(StatusCode::OK);
        if let Outcome::Reply(reply) = outcome {
            head.set_status(reply.status);
            for (name, value) in &reply.fields {
                head.append(name, value.clone());
            }
            let bodiless = reply.status.is_informational()
                || matches!(reply.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            if !bodiless {
                head.set(&CONTENT_LENGTH, reply.body.len().into());
            }
        }
        let ends = !matches!(outcome, Outcome::Upstream { .. });
        // What a filter would answer in its place depends on the real response.
        let mut reached = self.reached;
        while let Some(Halt::Held(index)) =
            self.route.chain.respond(reached, &self.request, &mut head, ends, &self.context)
        {
            // Nor is anything waited for here.
            reached = index;
        }
        head.set(&client::X_REQUEST_ID, self.context.request_id.value());
        head
    }
}

#[cfg(test)]
mod tests;
