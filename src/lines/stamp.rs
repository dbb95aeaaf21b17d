//! The time of a line: its text is kept for as long as the second lasts.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// How a time is written.
pub type Pattern = &'static str;

/// RFC 3339 without the end: milliseconds and `Z` follow.
pub const RFC3339: Pattern = "%Y-%m-%dT%H:%M:%S";

/// The text of the second that was written last.
#[derive(Default)]
pub struct Stamp {
    second: Option<i64>,
    text: String,
}

impl Stamp {
    /// The second of `time` in UTC, and the milliseconds within it. One log has one pattern.
    pub fn text(&mut self, time: SystemTime, pattern: Pattern) -> (&str, u32) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = i64::try_from(since.as_secs()).unwrap_or(0);
        if self.second != Some(second) {
            let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
            self.text = time.strftime(pattern).to_string();
            self.second = Some(second);
        }
        (&self.text, since.subsec_millis())
    }
}
