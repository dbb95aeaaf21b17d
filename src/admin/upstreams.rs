//! Upstreams on `/status`.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use crate::clock;
use crate::gateway::Gateway;
use crate::upstream::breaker::{Breaker, View};
use crate::upstream::discovery::Status;
use crate::upstream::health::{CheckView, EjectionView, Health, Standing};
use crate::upstream::{Slot, Target};

#[derive(Serialize)]
pub struct UpstreamShown {
    name: String,
    /// That of the upstream as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    circuit_breaker: Option<BreakerShown>,
    /// Requests that its breakers did not let through.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<u64>,
    /// How it goes with finding its targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    discovery: Option<DiscoveryShown>,
    /// What the health of the targets comes to: `heeded`, `ignored`, `refusing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<&'static str>,
    targets: Vec<TargetShown>,
}

#[derive(Serialize)]
struct DiscoveryShown {
    /// `dns`, `file`, `consul`, `registry`
    source: &'static str,
    /// Whether the last look brought a whole answer.
    up: bool,
    endpoints: usize,
    /// When the last whole answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_at: Option<String>,
    /// Why the last look brought none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl DiscoveryShown {
    fn of(status: &Status) -> Self {
        Self {
            source: status.kind,
            up: status.is_up,
            endpoints: status.endpoints,
            answered_at: status.answered.map(|(at, _)| clock::rfc3339(at)),
            error: status.error.clone(),
        }
    }
}

#[derive(Serialize)]
struct TargetShown {
    /// As it is written.
    address: String,
    /// What it stands for now; empty while a name does not resolve.
    resolved: Vec<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    circuit_breaker: Option<BreakerShown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<HealthShown>,
}

#[derive(Serialize)]
struct BreakerShown {
    /// `closed`, `half_open`, `open`
    state: &'static str,
    since: String,
    /// When an open one lets the first request through again.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// Within the window; once it opened, those that opened it.
    failures: u64,
    /// All requests in the same time, where a share of them counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
}

#[derive(Serialize)]
struct HealthShown {
    /// Neither its checks nor how clients fare with it take it out.
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<CheckShown>,
    /// While it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    ejected: Option<EjectedShown>,
}

#[derive(Serialize)]
struct CheckShown {
    healthy: bool,
    since: String,
    /// When it was checked; none before the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    /// Why that check failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Checks in a row that speak against what it is.
    against: u32,
}

#[derive(Serialize)]
struct EjectedShown {
    /// `failures`, `rate`, `latency`
    reason: &'static str,
    since: String,
    until: String,
    /// How many times as long as the first ejection.
    times: u32,
}

impl HealthShown {
    fn of(health: &Health, now: Instant, wall: SystemTime) -> Self {
        let moment = |moment| clock::rfc3339(time_of(moment, now, wall));
        let check = |view: CheckView| CheckShown {
            healthy: view.healthy,
            since: moment(view.since),
            last: view.last.map(moment),
            error: view.error,
            against: view.against,
        };
        let ejected = |view: EjectionView| EjectedShown {
            reason: view.reason.name(),
            since: moment(view.since),
            until: moment(view.until),
            times: view.times,
        };
        Self {
            healthy: health.is_in(now),
            check: health.checked.as_ref().map(|checked| check(checked.view())),
            ejected: health.outlier.as_ref().and_then(|outlier| outlier.view(now)).map(ejected),
        }
    }
}

pub fn upstreams(gateway: &Gateway) -> Vec<UpstreamShown> {
    let (now, wall) = (clock::now(), clock::wall());
    let breaker = |breaker: &Breaker| {
        let View { state, since, until, counts } = breaker.view(now);
        BreakerShown {
            state: state.name(),
            since: clock::rfc3339(time_of(since, now, wall)),
            until: until.map(|until| clock::rfc3339(time_of(until, now, wall))),
            failures: counts.failures,
            requests: counts.requests,
        }
    };
    let target = |target: &Target| TargetShown {
        address: target.label.to_string(),
        resolved: target.addresses(),
        circuit_breaker: target.breaker.as_deref().map(breaker),
        health: target.health.as_deref().map(|health| HealthShown::of(health, now, wall)),
    };
    let upstream = |slot: &Slot| {
        let upstream = slot.load();
        UpstreamShown {
            discovery: slot.source().map(|source| DiscoveryShown::of(&source.status())),
            name: upstream.name.to_string(),
            circuit_breaker: upstream.breaker().map(|own| breaker(own)),
            rejected: upstream.rejected_count(),
            health: upstream.standing(now).map(Standing::name),
            targets: upstream.targets().iter().map(target).collect(),
        }
    };
    gateway.slots().iter().map(|slot| upstream(slot)).collect()
}

/// The time of day of a moment.
fn time_of(moment: Instant, now: Instant, wall: SystemTime) -> SystemTime {
    let before = now.saturating_duration_since(moment);
    let after = moment.saturating_duration_since(now);
    wall.checked_sub(before).and_then(|wall| wall.checked_add(after)).unwrap_or(wall)
}
