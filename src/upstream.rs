//! Named sets of targets: which one gets the next request.
//!
//! An [`Upstream`] is compiled once and kept over reloads that do not change it, so that its position in the rotation, the
//! addresses it resolved and its connections survive. Nothing here waits: names are resolved beside the request path.

mod resolve;
mod rotation;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::config::{self, Protocol, RetryOn, UpstreamHost};
use crate::observe::metrics::{Metrics, TargetMetrics};
use crate::yaml::{Located, Problem};

use resolve::Resolved;
pub use resolve::{keep_resolving, resolve_new};
use rotation::Rotation;

/// Most tries of one request.
const ATTEMPTS_MAX: u8 = 10;
/// Largest weight of a target.
const WEIGHT_MAX: u16 = 1000;

/// A named set of targets, ready to be asked for the next one.
pub struct Upstream {
    pub name: Arc<str>,
    pub timeouts: Timeouts,
    pub protocol: Protocol,
    pub host: UpstreamHost,
    /// Tries in all, at least 1.
    pub attempts: u8,
    retry_on: Vec<RetryOn>,
    targets: Box<[Target]>,
    rotation: Rotation,
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
    address: Address,
}

enum Address {
    Fixed(SocketAddr),
    Name(Resolved),
}

/// The targets a request was sent to already, by index.
pub type Tried = SmallVec<[u16; 4]>;

/// What was chosen for one try.
pub struct Choice<'a> {
    pub index: u16,
    pub target: &'a Target,
    pub address: SocketAddr,
}

/// Everything that makes an upstream what it is: equal specs mean that state may be kept.
#[derive(Clone, PartialEq, Eq)]
struct Spec {
    targets: Vec<(String, u16)>,
    timeouts: Timeouts,
    protocol: Protocol,
    host: UpstreamHost,
    attempts: u8,
    retry_on: Vec<RetryOn>,
}

impl Upstream {
    /// Compiles `written`; takes over `previous` when nothing changed.
    pub fn compile(
        name: &Located<String>,
        written: &config::Upstream,
        previous: Option<&Arc<Self>>,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let mut problems = Vec::new();
        let spec = Spec::check(name, written, &mut problems);
        let mut targets = Vec::with_capacity(written.targets.len());
        for target in &written.targets.value {
            match Address::parse(&target.address) {
                Ok(address) => targets.push((target.address.value.clone(), address)),
                Err(message) => problems.push(
                    Problem::new(target.address.place, message).with_hint("write host:port, such as 127.0.0.1:9101"),
                ),
            }
        }
        let weights: Vec<u16> = spec.targets.iter().map(|(_, weight)| *weight).collect();
        let rotation = Rotation::new(&weights)
            .map_err(|message| problems.push(Problem::new(written.targets.place, message)))
            .ok()
            .filter(|_| problems.is_empty());
        let Some(rotation) = rotation else { return Err(problems) };
        if let Some(previous) = previous.filter(|previous| previous.spec == spec) {
            return Ok(Arc::clone(previous));
        }
        let target = |(label, address): (String, Address)| Target {
            metrics: metrics.upstream(&name.value, &label),
            label: Arc::from(label),
            address,
        };
        Ok(Arc::new(Self {
            name: Arc::from(name.value.as_str()),
            timeouts: spec.timeouts,
            protocol: spec.protocol,
            host: spec.host,
            attempts: spec.attempts,
            retry_on: spec.retry_on.clone(),
            targets: targets.into_iter().map(target).collect(),
            rotation,
            spec,
        }))
    }

    /// The target whose turn it is. Targets in `tried` are left out while there are others; targets whose name has not been
    /// resolved are left out always.
    pub fn choose(&self, tried: &[u16]) -> Option<Choice<'_>> {
        let fresh = self.rotation.turn().find_map(|index| self.usable(index).filter(|_| !tried.contains(&index)));
        fresh.or_else(|| self.rotation.turn().find_map(|index| self.usable(index)))
    }

    /// Whether a failed attempt to connect may be tried again.
    pub fn retries_connect(&self) -> bool {
        self.retry_on.contains(&RetryOn::Connect)
    }

    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    fn usable(&self, index: u16) -> Option<Choice<'_>> {
        let target = self.targets.get(usize::from(index))?;
        Some(Choice { index, target, address: target.address()? })
    }
}

impl Target {
    /// The socket address to connect to now: of a name with several addresses, one after the other.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.address {
            Address::Fixed(address) => Some(*address),
            Address::Name(resolved) => resolved.next(),
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
}

impl Spec {
    fn check(name: &Located<String>, written: &config::Upstream, problems: &mut Vec<Problem>) -> Self {
        if written.targets.is_empty() {
            problems.push(Problem::new(written.targets.place, format!("upstream `{}` has no target", name.value)));
        }
        let attempts = written.retry.attempts.value;
        if !(1..=ATTEMPTS_MAX).contains(&attempts) {
            problems.push(Problem::new(
                written.retry.attempts.place,
                format!("`attempts` must be 1 to {ATTEMPTS_MAX}, not {attempts}"),
            ));
        }
        let mut targets: Vec<(String, u16)> = Vec::with_capacity(written.targets.len());
        for target in &written.targets.value {
            let weight = target.weight.as_ref().map_or(1, |weight| weight.value);
            if let Some(written) = target.weight.as_ref().filter(|weight| !(1..=WEIGHT_MAX).contains(&weight.value)) {
                problems.push(Problem::new(written.place, format!("`weight` must be 1 to {WEIGHT_MAX}, not {weight}")));
            }
            if targets.iter().any(|(address, _)| *address == target.address.value) {
                problems.push(
                    Problem::new(target.address.place, format!("target `{}` stands here twice", target.address.value))
                        .with_hint("give it a larger `weight` instead"),
                );
            }
            targets.push((target.address.value.clone(), weight));
        }
        let timeouts = &written.timeouts;
        let seconds = Duration::from_secs;
        Self {
            targets,
            timeouts: Timeouts {
                connect: timeouts.connect.map_or(seconds(5), |period| period.0),
                first_byte: timeouts.first_byte.map(|period| period.0),
                idle: timeouts.idle.map_or(seconds(60), |period| period.0),
                total: timeouts.total.map(|period| period.0),
                keepalive: timeouts.keepalive.map(|period| period.0),
            },
            protocol: written.protocol,
            host: written.host,
            attempts,
            retry_on: written.retry.on.clone(),
        }
    }
}
