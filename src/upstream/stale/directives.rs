//! `Cache-Control` (RFC 9111 §5.2), as far as it says what may be kept.

use std::time::Duration;

use http::header::CACHE_CONTROL;

use crate::head::Headers;

/// What the directives of a head say together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Directives {
    pub no_store: bool,
    /// Of one user only, or not to be used again without asking.
    bound: bool,
    max_age: Option<u64>,
    /// RFC 5861 §4
    stale_if_error: Option<u64>,
}

impl Directives {
    pub fn of<H: Headers + ?Sized>(head: &H) -> Self {
        let mut found = Self::default();
        head.each(&CACHE_CONTROL, &mut |value| {
            for directive in value.split(|byte| *byte == b',') {
                found.read(directive.trim_ascii());
            }
        });
        found
    }

    /// Whether the answer may be kept, and given out when it is stale.
    pub fn may_be_kept(&self) -> bool {
        !self.no_store && !self.bound
    }

    /// How old it may become where the service says so: fresh for `max-age`, and stale for `stale-if-error`.
    pub fn usable_for(&self) -> Option<Duration> {
        let stale = self.stale_if_error?;
        Some(Duration::from_secs(self.max_age.unwrap_or(0).saturating_add(stale)))
    }

    fn read(&mut self, directive: &[u8]) {
        let mut parts = directive.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        let seconds = || {
            let text = std::str::from_utf8(parts.next()?).ok()?;
            // What is no number bounds it as tightly as can be.
            Some(text.trim().trim_matches('"').parse().unwrap_or(0))
        };
        match name.as_slice() {
            b"no-store" => self.no_store = true,
            // RFC 9111 §5.2.2: each of them forbids to use a stale answer. `s-maxage` does as well, with a shared cache.
            b"private" | b"no-cache" | b"must-revalidate" | b"proxy-revalidate" | b"s-maxage" => self.bound = true,
            b"max-age" => self.max_age = { seconds }(),
            b"stale-if-error" => self.stale_if_error = { seconds }(),
            _ => {}
        }
    }
}
