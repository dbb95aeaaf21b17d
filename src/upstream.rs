//! Named sets of targets: which one gets the next request.
//!
//! An [`Upstream`] is compiled once and kept over reloads that do not change it, so that its position in the rotation, the
//! addresses it resolved and its connections survive. What a target has in flight, and how it does, survives as long as the
//! target stays. Nothing here waits: names are resolved beside the request path.

mod balance;
pub mod breaker;
mod choice;
mod circuit;
pub mod discovery;
pub mod health;
mod resolve;
pub mod retry;
mod ring;
mod rotation;
mod slot;
mod spec;
pub mod split;
pub mod stale;
mod state;
mod sticky;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::clock;
use crate::config::load::Attached;
use crate::config::{self, Protocol, UpstreamHost};
use crate::observe::metrics::{Metrics, TargetMetrics};
use crate::proxy_protocol;
use crate::yaml::{Located, Problem};

pub use balance::Hints;
use balance::{Tier, Way};
use breaker::{Breaker, Of};
pub use choice::{Choice, NoTarget};
use circuit::Circuit;
pub use circuit::breaker_samples;
use health::{Health, Overall};
pub use health::{health_samples, keep_checking};
use resolve::Resolved;
pub use resolve::{keep_resolving, resolve_new};
use retry::Retry;
pub use slot::{Around, Slot, catch_up};
use spec::{Spec, TargetSpec};
pub use state::State;
use sticky::Sticky;
pub use tls::{Line, NO_H2, TargetName, Tls};

/// A named set of targets, ready to be asked for the next one.
pub struct Upstream {
    pub name: Arc<str>,
    pub timeouts: Timeouts,
    pub protocol: Protocol,
    pub host: UpstreamHost,
    /// Connections tell targets who the client is, in this version of the PROXY protocol.
    pub tells_client: Option<proxy_protocol::Version>,
    pub retry: Retry,
    /// `None`: in plain text.
    pub tls: Option<Arc<Tls>>,
    targets: Box<[Target]>,
    /// Those that are no backups, then the backups, if there are any.
    tiers: Box<[Tier]>,
    way: Way,
    sticky: Option<Sticky>,
    slow_start: Option<Duration>,
    /// Whether it has to be known what is in flight.
    counts: bool,
    /// Of all targets together.
    total: Arc<State>,
    circuit: Circuit,
    /// What the health of the targets comes to, where any is known.
    health: Option<Overall>,
    spec: Spec,
}

/// How long the steps of an exchange may take. `None`: no bound of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub first_byte: Option<Duration>,
    pub idle: Duration,
    pub total: Option<Duration>,
    /// `None`: an unused connection is kept until the target closes it.
    pub keepalive: Option<Duration>,
}

/// One address that can serve requests.
pub struct Target {
    /// The address as it is written: the label in logs and metrics.
    pub label: Arc<str>,
    pub metrics: Arc<TargetMetrics>,
    /// What happens to it, whatever snapshot a request belongs to.
    pub state: Arc<State>,
    pub breaker: Option<Arc<Breaker>>,
    /// With TLS: who it has to be.
    pub name: Option<Arc<TargetName>>,
    pub health: Option<Box<Health>>,
    weight: u16,
    in_flight_max: Option<u32>,
    address: Address,
}

enum Address {
    Fixed(SocketAddr),
    Name(Resolved),
}

/// The targets a request was sent to already, by index.
pub type Tried = SmallVec<[u16; 4]>;

impl Upstream {
    /// Compiles `written`; takes over `previous` when nothing changed.
    pub fn compile(
        name: &Located<String>,
        written: &config::Upstream,
        previous: Option<&Arc<Self>>,
        metrics: &Arc<Metrics>,
        files: &Attached,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let mut problems = Vec::new();
        let spec = Spec::check(name, written, files, &mut problems);
        let mut targets = Vec::with_capacity(written.targets.len());
        for target in &written.targets.value {
            match Address::parse(&target.address) {
                Ok(address) => targets.push((target.address.value.clone(), address)),
                Err(message) => problems.push(
                    Problem::new(target.address.place, message).with_hint("write host:port, such as 127.0.0.1:9101"),
                ),
            }
        }
        if let Some(previous) = previous.filter(|previous| previous.spec == spec && problems.is_empty()) {
            return Ok(Arc::clone(previous));
        }
        let tiers = spec.tiers(written, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let labels = spec.targets.iter().map(|target| target.label.as_str());
        let sticky = spec.sticky.as_ref().map(|settings| Sticky::new(settings, &name.value, labels)).transpose();
        let sticky = sticky.map_err(|message| vec![Problem::new(written.targets.place, message)])?;
        let (own_name, now) = (Arc::from(name.value.as_str()), clock::now());
        let health = Overall::compile(spec.health.as_ref(), previous.and_then(|it| it.health.as_ref()), &own_name);
        let target = |(written, (label, address)): (&TargetSpec, (String, Address))| {
            let metrics = metrics.upstream(&name.value, &label);
            let label: Arc<str> = Arc::from(label);
            let state = state(previous, &label, now);
            let known = previous.and_then(|previous| previous.breaker_of(&label));
            address.take_over(previous, &label);
            let of = Of { label: Arc::clone(&label), state: Arc::clone(&state) };
            let healthy = previous.and_then(|previous| previous.health_of(&label));
            Target {
                metrics,
                health: Health::compile(health.as_ref(), healthy, &label, &state, now),
                breaker: Breaker::compile(spec.breakers.target.as_ref(), known, &own_name, Some(of), now),
                state,
                name: spec.tls.as_ref().map(|tls| Arc::new(tls.name_of(&label))),
                weight: written.weight,
                in_flight_max: written.in_flight_max,
                label,
                address,
            }
        };
        Ok(Arc::new(Self {
            timeouts: spec.timeouts,
            protocol: spec.protocol,
            host: spec.host,
            tells_client: spec.tells_client,
            retry: Retry::compile(&spec.retry, previous.map(|previous| &previous.retry), now),
            tls: spec.tls.clone(),
            targets: spec.targets.iter().zip(targets).map(target).collect(),
            tiers: tiers.into(),
            counts: spec.way.counts() || spec.targets.iter().any(|target| target.in_flight_max.is_some()),
            way: spec.way.clone(),
            sticky,
            slow_start: spec.slow_start,
            total: previous.map_or_else(|| Arc::new(State::new(now)), |previous| Arc::clone(&previous.total)),
            circuit: Circuit::compile(&spec.breakers, previous.map(|previous| &previous.circuit), &own_name, now),
            name: own_name,
            health,
            spec,
        }))
    }

    /// Whether its targets are spoken to in HTTP/1.1 and plain text, from the first byte on.
    pub fn is_plain(&self) -> bool {
        self.protocol == Protocol::Http1 && self.tls.is_none() && self.tells_client.is_none()
    }

    /// Whether some breaker may keep a request from it.
    pub fn breaks(&self) -> bool {
        self.spec.breakers.upstream.is_some() || self.spec.breakers.target.is_some()
    }

    pub fn targets(&self) -> &[Target] {
        &self.targets
    }
}

/// The state of a target: that of the target of the same address before. A new one among others warms up; when all are new
/// there is nobody to leave the work to.
fn state(previous: Option<&Arc<Upstream>>, label: &str, now: Instant) -> Arc<State> {
    let previous = previous.filter(|previous| !previous.targets.is_empty());
    let Some(previous) = previous else { return Arc::new(State::new(now)) };
    let known = previous.targets.iter().find(|target| *target.label == *label);
    known.map(|target| Arc::clone(&target.state)).unwrap_or_else(|| {
        let state = State::new(now);
        state.warm_up(now);
        Arc::new(state)
    })
}

impl Target {
    /// The socket address to connect to now: of a name with several addresses, one after the other.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.address {
            Address::Fixed(address) => Some(*address),
            Address::Name(resolved) => resolved.next(),
        }
    }

    fn has_address(&self) -> bool {
        match &self.address {
            Address::Fixed(_) => true,
            Address::Name(resolved) => resolved.is_known(),
        }
    }

    /// All socket addresses, for `/status`.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match &self.address {
            Address::Fixed(address) => vec![*address],
            Address::Name(resolved) => resolved.all(),
        }
    }

    fn resolved(&self) -> Option<&Resolved> {
        match &self.address {
            Address::Fixed(_) => None,
            Address::Name(resolved) => Some(resolved),
        }
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                Err("port 0 cannot be connected to".into())
            } else {
                Ok(Self::Fixed(address))
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("`{text}` has no port"))?;
        let port: u16 = port.parse().map_err(|_| format!("`{port}` is no port"))?;
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if port == 0 || host.len() > 253 || !host.strip_suffix('.').unwrap_or(host).split('.').all(label) {
            return Err(format!("`{text}` is no address"));
        }
        Ok(Self::Name(Resolved::new(host, port)))
    }

    /// The addresses that a name had in the target of the same name before are good until it is asked for again.
    fn take_over(&self, previous: Option<&Arc<Upstream>>, label: &str) {
        let before = previous.and_then(|previous| previous.targets.iter().find(|target| *target.label == *label));
        if let (Self::Name(resolved), Some(before)) = (self, before.and_then(Target::resolved)) {
            resolved.take_over(before);
        }
    }
}

#[cfg(test)]
mod tests;
