//! From `circuit_breaker` as it is written to the rules of breakers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::stale;
use super::machine::Share;
use super::{Breaker, Of, Rules};
use crate::config::{BreakerFallback, BreakerPer, CircuitBreaker, CircuitBreakers};
use crate::types::Period;
use crate::yaml::Problem;

/// Each of them is remembered.
const FAILURES_MAX: u32 = 1_000;
const FAILURES: u32 = 5;
const REQUESTS_MIN: u32 = 20;
const REQUESTS_MIN_MAX: u32 = 1_000_000;
const WINDOW: Duration = Duration::from_secs(10);
/// What is counted in tenths of it has to be worth counting.
const WINDOW_LEAST: Period = Period(Duration::from_secs(1));
const OPEN_FOR: Duration = Duration::from_secs(15);
const OPEN_FOR_LEAST: Period = Period(Duration::from_millis(100));
const SLOW_LEAST: Period = Period(Duration::from_millis(1));
const LONGEST: Period = Period(Duration::from_secs(3600));
const HALF_OPEN_REQUESTS_MAX: u32 = 100;
/// What a service says about itself, or a proxy about the service.
const FAILING: [u16; 4] = [500, 502, 503, 504];

/// The breakers of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breakers {
    pub upstream: Option<Rules>,
    /// Of each target.
    pub target: Option<Rules>,
    /// What is kept for the time when they let nothing through.
    pub stale: Option<stale::Settings>,
}

impl Breakers {
    /// Reports what cannot be.
    pub fn check(written: Option<&CircuitBreakers>, problems: &mut Vec<Problem>) -> Self {
        let mut breakers = Self::default();
        let list = written.map_or(Ok(Vec::new()), CircuitBreakers::list);
        let mut fallback = None;
        for written in list.map_err(|found| problems.extend(found)).unwrap_or_default() {
            let (place, rules) = (written.place, rules(&written, problems));
            let (of, name) = match written.per {
                BreakerPer::Upstream => (&mut breakers.upstream, "upstream"),
                BreakerPer::Target => (&mut breakers.target, "target"),
            };
            if of.replace(rules).is_some() {
                let problem = Problem::new(place, format!("a second circuit breaker per {name}"));
                problems.push(problem.with_hint("at most one has `per: upstream`, and one `per: target`"));
            }
            if let Some(BreakerFallback::Stale(written)) = &written.fallback {
                breakers.stale = Some(stale::Settings::check(written, problems));
            }
            if written.fallback.is_some()
                && let Some(first) = fallback.replace(place)
            {
                let problem = Problem::new(place, "an upstream has one fallback");
                problems.push(problem.with_related("the other one", first));
            }
        }
        breakers
    }
}

impl Breaker {
    /// That of the upstream `name`, or of one of its targets: the one there was when it has the same rules, so that its state
    /// is kept.
    pub fn compile(
        rules: Option<&Rules>,
        previous: Option<&Arc<Self>>,
        name: &Arc<str>,
        target: Option<Of>,
        now: Instant,
    ) -> Option<Arc<Self>> {
        let rules = rules?;
        let previous = previous.filter(|previous| previous.rules == *rules).cloned();
        Some(previous.unwrap_or_else(|| Self::new(rules.clone(), Arc::clone(name), target, now)))
    }
}

fn rules(written: &CircuitBreaker, problems: &mut Vec<Problem>) -> Rules {
    let share = written.rate.map(|rate| {
        if rate.value.0 <= 0.0 {
            let problem = Problem::new(rate.place, "with a `rate` of 0% it would open without a failure");
            problems.push(problem.with_hint("write 50%"));
        }
        let requests_min =
            written.requests_min.map_or(REQUESTS_MIN, |it| it.within("requests_min", 1..=REQUESTS_MIN_MAX, problems));
        Share { millionths: rate.millionths(), requests_min }
    });
    if let Some(requests_min) = written.requests_min.filter(|_| share.is_none()) {
        let problem = Problem::new(requests_min.place, "`requests_min` says when `rate` counts, and there is none");
        problems.push(problem.with_hint("add `rate: 50%`, or drop it"));
    }
    let by_count = written.failures.is_some() || share.is_none();
    for status in written.on.iter().flatten().filter(|status| !(400..=599).contains(&status.value)) {
        let problem = Problem::new(status.place, format!("{} is no status of a failure", status.value));
        problems.push(problem.with_hint("400 to 599"));
    }
    Rules {
        failures: by_count
            .then(|| written.failures.map_or(FAILURES, |it| it.within("failures", 1..=FAILURES_MAX, problems))),
        share,
        window: written.window.map_or(WINDOW, |it| it.within("window", WINDOW_LEAST..=LONGEST, problems).0),
        slow: written.slow.map(|it| it.within("slow", SLOW_LEAST..=LONGEST, problems).0),
        open_for: written.open_for.map_or(OPEN_FOR, |it| it.within("open_for", OPEN_FOR_LEAST..=LONGEST, problems).0),
        half_open_requests: written
            .half_open_requests
            .map_or(1, |it| it.within("half_open_requests", 1..=HALF_OPEN_REQUESTS_MAX, problems)),
        on: match &written.on {
            Some(on) => on.iter().map(|status| status.value).collect(),
            None => FAILING.to_vec(),
        },
    }
}
