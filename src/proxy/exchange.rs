//! One request and its response: what the phases hand to each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Uri;

use super::accompanied::Accompanied;
use super::accompany::Lengths;
use super::edge::Connection;
use super::mirrored::Copying;
use super::tenure::Tenure;
use super::upload::Upload;
use crate::chain::Instead;
use crate::clock;
use crate::context::Context;
use crate::gateway::{Gateway, Route};
use crate::observe::metrics::{InFlight, TargetMetrics};
use crate::overload::Place;
use crate::reply::Code;
use crate::upstream::breaker::Permit;
use crate::upstream::stale::Keeping;
use crate::upstream::{TargetName, Tried, Upstream};

/// The state of one exchange. It pins the snapshot it began with.
pub struct Exchange {
    pub gateway: Arc<Gateway>,
    pub connection: Option<Arc<Connection>>,
    pub context: Option<Context>,
    /// The route, or what stands for it, from the look-up on.
    pub route: Option<Arc<Route>>,
    pub in_flight: Option<InFlight>,
    /// Held while the request counts towards `limits.in_flight_max`.
    pub place: Option<Place>,
    /// How many filters let the request go on.
    pub reached: usize,
    /// Whether some filter had to be awaited.
    pub waited: bool,
    /// The target as the client sent it, when it was changed.
    pub original: Option<Uri>,
    /// The code of our own refusal.
    pub code: Option<&'static Code>,
    pub forward: Option<Forward>,
    /// What a filter answers in place of the service, once it does.
    pub instead: Option<Box<Instead>>,
    /// A filter has seen a piece of the request body on its way: it cannot be sent a second time.
    pub is_shown: bool,
    /// The length of the request body may change on its way.
    pub is_unmeasured: bool,
    /// Set while a session of ours sends the request body.
    pub upload: Option<Upload>,
    /// Set while the session is one where the answer passes the filters.
    pub accompanied: Option<Accompanied>,
    /// The length of the body that the head of the answer says, for filters that see it pass.
    pub response_bytes: Option<u64>,
    pub request_length: Lengths,
    pub response_length: Lengths,
    /// What of a body in Base64 has no whole group of four yet.
    pub grpc_web_rest: Vec<u8>,
    /// A copy of the request whose body is still coming.
    pub copying: Option<Box<Copying>>,
    /// Watches over an upgraded connection that may have to end.
    pub tenure: Option<Tenure>,
    pub body_bytes_in: u64,
    pub started: Instant,
    /// When the last log line was written.
    pub finished: Option<Instant>,
}

/// A request on its way to an upstream.
pub struct Forward {
    pub upstream: Arc<Upstream>,
    pub tried: Tried,
    /// Where the next attempt goes; the first one is chosen when the breakers are asked. It counts as in flight already.
    pub chosen: Option<Chosen>,
    /// Of the breaker of the upstream: for the request as a whole.
    pub permit: Option<Permit>,
    /// Of the breaker of the target: for the current attempt.
    pub permit_of_target: Option<Permit>,
    pub target: Option<Arc<TargetMetrics>>,
    /// The target that it is in flight to.
    pub seat: Option<u16>,
    /// How the current attempt fares, for the health of its target.
    pub fares: Fares,
    /// The client should get the cookie that leads back to this target.
    pub sets_cookie: bool,
    pub address: Option<std::net::SocketAddr>,
    /// Interim answers so far.
    pub interim: u8,
    /// Set while the answer may be one to keep.
    pub keeping: Option<Box<Keeping>>,
    /// When the current attempt began.
    pub attempt: Instant,
    /// How long the last attempt took to its response head.
    pub to_head: Option<Duration>,
    /// The request is a call of gRPC.
    pub is_grpc: bool,
    /// And so is the answer that has begun.
    pub answers_grpc: bool,
    /// How long to wait before the next try; none was decided on when this is not set.
    pub pause: Option<Duration>,
    /// When the exchange has to be over.
    pub deadline: Option<Instant>,
}

/// How an attempt fares. It counts once, however many things happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fares {
    Unknown,
    /// Since its answer began: once that is whole, it counts for the target.
    Well(Instant),
    /// It was counted, or nobody counts.
    Settled,
}

/// The target of an attempt.
pub struct Chosen {
    pub index: u16,
    pub metrics: Arc<TargetMetrics>,
    pub address: std::net::SocketAddr,
    /// With TLS: who it has to be.
    pub name: Option<Arc<TargetName>>,
}

impl Exchange {
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self {
            gateway,
            connection: None,
            context: None,
            route: None,
            in_flight: None,
            place: None,
            reached: 0,
            waited: false,
            original: None,
            code: None,
            forward: None,
            instead: None,
            is_shown: false,
            is_unmeasured: false,
            upload: None,
            accompanied: None,
            response_bytes: None,
            request_length: Lengths::default(),
            response_length: Lengths::default(),
            grpc_web_rest: Vec::new(),
            copying: None,
            tenure: None,
            body_bytes_in: 0,
            started: clock::now(),
            finished: None,
        }
    }

    /// Whether the request body is sent out of memory.
    pub fn is_gathered(&self) -> bool {
        self.upload.as_ref().is_some_and(Upload::is_gathered)
    }

    /// Ends what began with the request: also when a phase was never reached because the client left.
    fn end(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.end(self.finished.unwrap_or_else(clock::now));
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end();
    }
}

impl Forward {
    pub fn new(upstream: Arc<Upstream>, now: Instant, permit: Option<Permit>) -> Self {
        upstream.retry.requested(now);
        let deadline = upstream.timeouts.total.and_then(|total| now.checked_add(total));
        Self {
            upstream,
            tried: Tried::new(),
            chosen: None,
            permit,
            permit_of_target: None,
            target: None,
            seat: None,
            fares: Fares::Unknown,
            sets_cookie: false,
            address: None,
            interim: 0,
            keeping: None,
            attempt: now,
            to_head: None,
            is_grpc: false,
            answers_grpc: false,
            pause: None,
            deadline,
        }
    }

    /// How long a try may take to the head of its answer, where the route gives it so long.
    pub fn first_byte(&self, of_route: Duration) -> Duration {
        self.upstream.retry.rules.try_timeout.map_or(of_route, |timeout| timeout.min(of_route))
    }

    /// How long the exchange may still take.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }
}
