//! What is written of an upstream, checked.

use std::sync::Arc;
use std::time::Duration;

use super::balance::{Tier, Way};
use super::breaker::Breakers;
use super::{Timeouts, Tls, health, retry, sticky};
use crate::config::load::Attached;
use crate::config::{self, Protocol, TellClient, UpstreamHost};
use crate::head::HeaderName;
use crate::proxy_protocol;
use crate::yaml::{Located, Place, Problem};

/// Largest weight of a target.
pub const WEIGHT_MAX: u16 = 1000;
/// Most targets of an upstream.
pub const TARGETS_MAX: usize = 1000;
/// Longest slow start.
const SLOW_START_MAX: Duration = Duration::from_secs(3600);

/// Everything that makes an upstream what it is: equal specs mean that state may be kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Spec {
    pub targets: Vec<TargetSpec>,
    pub way: Way,
    pub sticky: Option<sticky::Settings>,
    pub slow_start: Option<Duration>,
    pub timeouts: Timeouts,
    pub protocol: Protocol,
    pub host: UpstreamHost,
    pub retry: retry::Rules,
    pub breakers: Breakers,
    pub health: Option<Arc<health::Rules>>,
    pub tells_client: Option<proxy_protocol::Version>,
    pub tls: Option<Arc<Tls>>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct TargetSpec {
    pub label: String,
    pub weight: u16,
    pub backup: bool,
    pub in_flight_max: Option<u32>,
}

impl Spec {
    pub fn check(
        name: &Located<String>,
        written: &config::Upstream,
        files: &Attached,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let discovers = written.discovery.is_some();
        if written.targets.is_empty() && !discovers {
            let place = Some(written.targets.place).filter(|place| *place != Place::UNKNOWN).unwrap_or(name.place);
            let problem = Problem::new(place, format!("upstream `{}` has no target", name.value));
            problems.push(problem.with_hint("give it `targets`, or `discovery` to find them"));
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
        if !discovers && !targets.is_empty() && targets.iter().all(|target| target.backup) {
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
            retry: retry::Rules::check(&written.retry, problems),
            breakers: Breakers::check(written.circuit_breaker.as_ref(), problems),
            health: health::Rules::check(written.health.as_ref(), problems),
            tells_client: written.proxy_protocol.map(|version| match version {
                TellClient::V1 => proxy_protocol::Version::V1,
                TellClient::V2 => proxy_protocol::Version::V2,
            }),
            tls: Tls::check(written, files, problems),
        }
    }

    /// Those that are no backups, and the backups.
    pub fn tiers(&self, written: &config::Upstream, problems: &mut Vec<Problem>) -> Vec<Tier> {
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

/// The name of a field; what is none is reported.
pub fn field_name(written: &Located<String>, problems: &mut Vec<Problem>) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(written.value.as_bytes());
    if name.is_err() {
        problems.push(Problem::new(written.place, format!("`{}` is no name of a field", written.value)));
    }
    name.ok()
}

impl TargetSpec {
    fn check(written: &config::Target, upstream: &config::Upstream, problems: &mut Vec<Problem>) -> Self {
        let weight = written.weight.map_or(1, |weight| weight.within("weight", 1..=WEIGHT_MAX, problems));
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
