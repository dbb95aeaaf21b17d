//! Named sets of targets: which one gets the next request.
//!
//! An [`Upstream`] is compiled once and kept over reloads that do not change it, so that its position in the rotation, the
//! addresses it resolved and its connections survive. What a target has in flight, and how it does, survives as long as the
//! target stays. Nothing here waits: names are resolved beside the request path.

mod balance;
mod resolve;
mod ring;
mod rotation;
mod state;
mod sticky;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::clock;
use crate::config::{self, Protocol, RetryOn, UpstreamHost};
use crate::head::HeaderValue;
use crate::observe::metrics::{Metrics, TargetMetrics};
use crate::yaml::{Located, Problem};

pub use balance::Hints;
use balance::{Key, Tier, Way};
use resolve::Resolved;
pub use resolve::{keep_resolving, resolve_new};
pub use state::State;
use sticky::Sticky;

/// Most tries of one request.
const ATTEMPTS_MAX: u8 = 10;
/// Largest weight of a target.
const WEIGHT_MAX: u16 = 1000;
/// Most targets of an upstream.
const TARGETS_MAX: usize = 1000;
/// Longest slow start.
const SLOW_START_MAX: Duration = Duration::from_secs(3600);
/// What an attempt that failed counts for the average of latencies: a target that refuses at once is not a fast one.
const FAILED: Duration = Duration::from_secs(1);

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
    /// Those that are no backups, then the backups, if there are any.
    tiers: Box<[Tier]>,
    way: Way,
    sticky: Option<Sticky>,
    slow_start: Option<Duration>,
    /// Whether it has to be known what is in flight.
    counts: bool,
    /// Of all targets together.
    total: Arc<State>,
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

/// What was chosen for one try. The request counts as in flight to the target until this is dropped.
pub struct Choice<'a> {
    pub index: u16,
    pub target: &'a Target,
    pub address: SocketAddr,
    /// The client should get the cookie that leads back here.
    pub sets_cookie: bool,
    upstream: &'a Upstream,
}

/// Why no target was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTarget {
    /// None is known to be usable.
    Unavailable,
    /// Those that are usable have as much in flight as they may have.
    Full,
}

/// Everything that makes an upstream what it is: equal specs mean that state may be kept.
#[derive(Clone, PartialEq, Eq)]
struct Spec {
    targets: Vec<TargetSpec>,
    way: Way,
    sticky: Option<sticky::Settings>,
    slow_start: Option<Duration>,
    timeouts: Timeouts,
    protocol: Protocol,
    host: UpstreamHost,
    attempts: u8,
    retry_on: Vec<RetryOn>,
}

#[derive(Clone, PartialEq, Eq)]
struct TargetSpec {
    label: String,
    weight: u16,
    backup: bool,
    in_flight_max: Option<u32>,
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
        let now = clock::now();
        let target = |(spec, (label, address)): (&TargetSpec, (String, Address))| Target {
            metrics: metrics.upstream(&name.value, &label),
            state: state(previous, &label, now),
            weight: spec.weight,
            in_flight_max: spec.in_flight_max,
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
            targets: spec.targets.iter().zip(targets).map(target).collect(),
            tiers: tiers.into(),
            counts: spec.way.counts() || spec.targets.iter().any(|target| target.in_flight_max.is_some()),
            way: spec.way.clone(),
            sticky,
            slow_start: spec.slow_start,
            total: previous.map_or_else(|| Arc::new(State::new(now)), |previous| Arc::clone(&previous.total)),
            spec,
        }))
    }

    /// The target for a request: the one that its cookie names, or else the one that the balancing says. Targets in `tried` are
    /// left out while there are others, backups while there is a target that is none; targets whose name has not been resolved,
    /// or that have as much in flight as they may have, are left out always.
    pub fn choose(&self, tried: &[u16], hints: &Hints<'_>, now: Instant) -> Result<Choice<'_>, NoTarget> {
        let Some(sticky) = &self.sticky else { return self.balanced(tried, hints, now) };
        let known = sticky.target(hints.head).filter(|index| !tried.contains(index) && self.usable(*index));
        if let Some(choice) = known.and_then(|index| self.enter(index)) {
            return Ok(choice);
        }
        let mut choice = self.balanced(tried, hints, now)?;
        choice.sets_cookie = true;
        Ok(choice)
    }

    /// Whether the head of a request has a say in the choice.
    pub fn looks_at_head(&self) -> bool {
        self.sticky.is_some() || matches!(self.way, Way::Hash(Key::Header(_) | Key::Cookie(_) | Key::Path))
    }

    /// The `Set-Cookie` that leads back to a target.
    pub fn cookie(&self, index: u16, https: bool) -> Option<HeaderValue> {
        self.sticky.as_ref().and_then(|sticky| sticky.field(index, https))
    }

    /// The head of an answer of this target arrived.
    pub fn responded(&self, index: u16, status: u16, to_head: Duration, now: Instant) {
        let Some(target) = self.target(index).filter(|_| self.way == Way::Random) else { return };
        // An error is no sign of a fast target, however fast it comes.
        let average = target.state.latency(now).filter(|_| status >= 500);
        let micros = average.map_or(0.0, |micros| micros / 1e6);
        target.state.sample(to_head.max(Duration::from_secs_f32(micros)), now);
    }

    /// An attempt at this target failed.
    pub fn failed(&self, index: u16, now: Instant) {
        if let Some(target) = self.target(index).filter(|_| self.way == Way::Random) {
            target.state.sample(FAILED, now);
        }
    }

    /// A request is not in flight to this target any more.
    pub fn leave(&self, index: u16) {
        if let Some(target) = self.target(index).filter(|_| self.counts) {
            target.state.leave();
            if self.counts_all() {
                self.total.leave();
            }
        }
    }

    fn balanced(&self, tried: &[u16], hints: &Hints<'_>, now: Instant) -> Result<Choice<'_>, NoTarget> {
        let first = self.tiers.iter().find_map(|tier| self.pick(tier, tried, hints, now));
        let again = || self.tiers.iter().find_map(|tier| self.pick(tier, &[], hints, now));
        let found = first.or_else(|| if tried.is_empty() { None } else { again() });
        found.ok_or_else(|| {
            let any = self.targets.iter().zip(0..).any(|(_, index)| self.usable(index));
            if any { NoTarget::Full } else { NoTarget::Unavailable }
        })
    }

    fn pick(&self, tier: &Tier, tried: &[u16], hints: &Hints<'_>, now: Instant) -> Option<Choice<'_>> {
        // Those that were full when it came to entering, although they were not a moment before.
        let mut full = Tried::new();
        loop {
            let open = |index| !tried.contains(&index) && !full.contains(&index) && self.has_room(index);
            let index = self.propose(tier, open, hints, now)?;
            if let Some(choice) = self.enter(index) {
                return Some(choice);
            }
            full.push(index);
        }
    }

    /// Whether a failed attempt to connect may be tried again.
    pub fn retries_connect(&self) -> bool {
        self.retry_on.contains(&RetryOn::Connect)
    }

    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    fn target(&self, index: u16) -> Option<&Target> {
        self.targets.get(usize::from(index))
    }

    /// Whether a target can be sent anything.
    fn usable(&self, index: u16) -> bool {
        self.target(index).is_some_and(Target::has_address)
    }

    /// Whether a target can be sent one more.
    fn has_room(&self, index: u16) -> bool {
        let is_full = |target: &Target| target.in_flight_max.is_some_and(|max| target.state.in_flight() >= max);
        self.usable(index) && !self.target(index).is_some_and(is_full)
    }

    /// Counts a request in flight to a target, unless it is full.
    fn enter(&self, index: u16) -> Option<Choice<'_>> {
        let target = self.target(index)?;
        let address = target.address()?;
        if self.counts {
            if !target.state.enter(target.in_flight_max) {
                return None;
            }
            if self.counts_all() {
                self.total.enter(None);
            }
        }
        Some(Choice { index, target, address, sets_cookie: false, upstream: self })
    }

    /// Whether it has to be known what is in flight to all targets together.
    fn counts_all(&self) -> bool {
        matches!(self.way, Way::Hash(_))
    }
}

impl Choice<'_> {
    /// Keeps the request in flight: [`Upstream::leave`] has to be called.
    pub fn keep(self) -> u16 {
        std::mem::ManuallyDrop::new(self).index
    }
}

impl Drop for Choice<'_> {
    fn drop(&mut self) {
        self.upstream.leave(self.index);
    }
}

/// The state of a target: that of the target of the same address before. A new one among others warms up; when all are new
/// there is nobody to leave the work to.
fn state(previous: Option<&Arc<Upstream>>, label: &str, now: Instant) -> Arc<State> {
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
        if written.targets.len() > TARGETS_MAX {
            let message = format!("an upstream has at most {TARGETS_MAX} targets, not {}", written.targets.len());
            problems.push(Problem::new(written.targets.place, message));
        }
        let mut targets: Vec<TargetSpec> = Vec::with_capacity(written.targets.len());
        for target in &written.targets.value {
            if targets.iter().any(|known| known.label == target.address.value) {
                problems.push(
                    Problem::new(target.address.place, format!("target `{}` stands here twice", target.address.value))
                        .with_hint("give it a larger `weight` instead"),
                );
            }
            targets.push(TargetSpec::check(target, written, problems));
        }
        if !targets.is_empty() && targets.iter().all(|target| target.backup) {
            let message = format!("every target of upstream `{}` is a backup", name.value);
            problems.push(Problem::new(written.targets.place, message).with_hint("leave `backup` out at one of them"));
        }
        let slow_start = written.slow_start.as_ref();
        if let Some(period) = slow_start.filter(|it| it.value.0.is_zero() || it.value.0 > SLOW_START_MAX) {
            problems.push(Problem::new(period.place, "`slow_start` must be more than nothing and at most 1h"));
        }
        let timeouts = &written.timeouts;
        let seconds = Duration::from_secs;
        Self {
            targets,
            way: Way::check(&written.balance, problems),
            sticky: written.sticky.as_ref().map(|sticky| sticky::Settings::check(sticky, problems)),
            slow_start: slow_start.map(|period| period.value.0),
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

    /// Those that are no backups, and the backups.
    fn tiers(&self, written: &config::Upstream, problems: &mut Vec<Problem>) -> Vec<Tier> {
        let mut tiers = Vec::with_capacity(2);
        for backup in [false, true] {
            let members = self.targets.iter().zip(0..).filter(|(target, _)| target.backup == backup);
            let members: Vec<(u16, &str, u16)> =
                members.map(|(target, index)| (index, target.label.as_str(), target.weight)).collect();
            if members.is_empty() {
                continue;
            }
            match Tier::new(&members, &self.way) {
                Ok(tier) => tiers.push(tier),
                Err(message) => problems.push(Problem::new(written.targets.place, message)),
            }
        }
        tiers
    }
}

impl TargetSpec {
    fn check(written: &config::Target, upstream: &config::Upstream, problems: &mut Vec<Problem>) -> Self {
        let weight = written.weight.as_ref().map_or(1, |weight| weight.value);
        if let Some(written) = written.weight.as_ref().filter(|weight| !(1..=WEIGHT_MAX).contains(&weight.value)) {
            problems.push(Problem::new(written.place, format!("`weight` must be 1 to {WEIGHT_MAX}, not {weight}")));
        }
        let in_flight_max = written.in_flight_max.as_ref().or(upstream.target_in_flight_max.as_ref());
        if let Some(max) = in_flight_max.filter(|max| max.value == 0) {
            problems.push(Problem::new(max.place, "a target must be allowed at least 1 in flight"));
        }
        Self {
            label: written.address.value.clone(),
            weight,
            backup: written.backup,
            in_flight_max: in_flight_max.map(|max| max.value),
        }
    }
}

#[cfg(test)]
mod tests;
