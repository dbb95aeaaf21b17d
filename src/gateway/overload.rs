//! Limits beyond which requests are shed, and which ones go first.

use std::time::Duration;

use crate::config;
use crate::overload::{Bounds, Priority};
use crate::yaml::Problem;

/// Less is taken by a gateway that has nothing to do.
const MEMORY_BYTES_LEAST: u64 = 64 * 1024 * 1024;
/// A timer of the runtime counts milliseconds, and a single large answer takes some.
const LAG: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

pub(super) fn bounds(written: &config::Limits, problems: &mut Vec<Problem>) -> Bounds {
    if let Some(max) = written.in_flight_max.as_ref().filter(|max| max.value == 0) {
        problems.push(Problem::new(max.place, "`in_flight_max` must be at least 1"));
    }
    if let Some(max) = written.memory_max.as_ref().filter(|max| max.value.0 < MEMORY_BYTES_LEAST) {
        problems.push(Problem::new(max.place, "`memory_max` must be at least 64MiB"));
    }
    if let Some(max) = written.lag_max.as_ref().filter(|max| !LAG.contains(&max.value.0)) {
        problems.push(Problem::new(max.place, "`lag_max` must be 10ms to 60s"));
    }
    Bounds {
        in_flight_max: written.in_flight_max.as_ref().map(|max| max.value),
        memory_bytes_max: written.memory_max.as_ref().map(|max| max.value.0),
        lag_max: written.lag_max.as_ref().map(|max| max.value.0),
    }
}

/// `None`: never shed. Who asks whether the gateway lives has to hear that it does, however busy it is.
pub(super) fn priority(written: &config::Route) -> Option<Priority> {
    let is_health = written.handler.iter().any(|(name, _)| name.value == "health");
    (!is_health).then(|| written.priority.unwrap_or_default())
}
