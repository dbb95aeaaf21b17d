//! The only place that reads a clock.

use std::time::{Instant, SystemTime};

/// Monotonic time.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Time of day.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Microseconds of the same clock that the system counts from its start, as systemd wants to be told.
pub fn monotonic_microseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1000)
}

/// RFC 3339 in UTC with milliseconds: `2026-01-01T12:00:00.000Z`. A time outside of the years 0 to 9999 reads as 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let timestamp = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{timestamp:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rfc3339_has_milliseconds_and_a_z() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_268_800_123);
        assert_eq!(rfc3339(time), "2026-01-01T12:00:00.123Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }
}
