//! The audit log: one JSON line for each decision on who calls, and whether they may. No line holds a secret: keys and tokens
//! appear by their id, addresses of requests without their query.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::lines::json::{self, put};
use crate::lines::{Lines, Opening, RFC3339, Target};

/// Where lines go, and which ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    pub target: Target,
    /// Size in bytes at which a file is rotated; 0: never.
    pub rotate_bytes: u64,
    /// How many rotated files are kept; 0: a full file is deleted.
    pub keep: usize,
    /// What was allowed is left out.
    pub denied_only: bool,
}

/// One decision. What is `None` is left out.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub time: SystemTime,
    pub request_id: &'a str,
    /// The filter or handler that decided.
    pub by: &'a str,
    pub allowed: bool,
    /// Kind of the credential.
    pub kind: &'a str,
    pub reason: &'a str,
    /// Name of the caller, when it is known.
    pub consumer: Option<&'a str>,
    /// Id of the credential; never the credential.
    pub credential: Option<&'a str>,
    pub client: IpAddr,
    pub method: &'a str,
    /// As the client sent it, without the query.
    pub path: &'a str,
    pub route: Option<&'a str>,
}

/// A log that is open. Dropping it writes what is held back.
pub struct AuditLog {
    lines: Lines,
    denied_only: bool,
}

impl AuditLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// See [`Lines::open`].
    pub fn open(settings: &AuditSettings, home: Option<&Path>) -> io::Result<Arc<Self>> {
        let AuditSettings { target, rotate_bytes, keep, denied_only } = settings;
        let opening = Opening { name: "audit log", target, rotate_bytes: *rotate_bytes, keep: *keep, home };
        Ok(Arc::new(Self { lines: Lines::open(opening)?, denied_only: *denied_only }))
    }

    /// Appends one line to the buffer of this thread, unless it is of a kind that is left out.
    pub fn record(&self, event: &Event<'_>) {
        if !(event.allowed && self.denied_only) {
            self.lines.append(|out, stamp| {
                let (second, milli) = stamp.text(event.time, RFC3339);
                write(out, second, milli, event);
            });
        }
    }

    /// Opens the file anew, soon: for a SIGUSR1. A file that was renamed away is noticed without it.
    pub fn reopen(&self) {
        self.lines.reopen();
    }

    /// See [`Lines::flush`].
    pub fn flush(&self, bound: Duration) -> bool {
        self.lines.flush(bound)
    }

    /// How many lines were lost since the start: to full buffers, or to a target that could not be written.
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }
}

fn write(out: &mut Vec<u8>, second: &str, milli: u32, event: &Event<'_>) {
    put(out, format_args!("{{\"time\":\"{second}.{milli:03}Z\""));
    let verdict = if event.allowed { "allow" } else { "deny" };
    let texts = [
        ("request_id", Some(event.request_id)),
        ("by", Some(event.by)),
        ("verdict", Some(verdict)),
        ("kind", Some(event.kind)),
        ("reason", Some(event.reason)),
        ("consumer", event.consumer),
        ("credential", event.credential),
        ("route", event.route),
        ("method", Some(event.method)),
        ("path", Some(event.path)),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            json::field(out, name, text.as_bytes());
        }
    }
    put(out, format_args!(",\"client\":\"{}\"}}\n", event.client));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::Ipv4Addr;

    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;

    fn event(reason: &'static str) -> Event<'static> {
        Event {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_007),
            request_id: "req-1",
            by: "auth",
            allowed: reason == "ok",
            kind: "api_key",
            reason,
            consumer: None,
            credential: None,
            client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            method: "GET",
            path: "/a\"b",
            route: Some("tasks"),
        }
    }

    fn written(denied_only: bool, events: &[Event<'_>]) -> Vec<Value> {
        let folder = TempDir::new().unwrap();
        let target = Target::File(folder.path().join("audit.log"));
        let settings = AuditSettings { target, rotate_bytes: 0, keep: 0, denied_only };
        let log = AuditLog::open(&settings, None).unwrap();
        events.iter().for_each(|event| log.record(event));
        assert!(log.flush(Duration::from_secs(30)));
        assert_eq!(log.dropped(), 0);
        let text = fs::read_to_string(folder.path().join("audit.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_says_who_what_where_and_why() {
        let known = Event { consumer: Some("dash\nboard"), credential: Some("k-1"), route: None, ..event("ok") };
        assert_eq!(
            written(false, &[event("unknown"), known]),
            [
                json!({"time": "2026-01-01T00:00:00.007Z", "request_id": "req-1", "by": "auth", "verdict": "deny",
                    "kind": "api_key", "reason": "unknown", "route": "tasks", "method": "GET", "path": "/a\"b",
                    "client": "192.0.2.1"}),
                json!({"time": "2026-01-01T00:00:00.007Z", "request_id": "req-1", "by": "auth", "verdict": "allow",
                    "kind": "api_key", "reason": "ok", "consumer": "dash\nboard", "credential": "k-1", "method": "GET",
                    "path": "/a\"b", "client": "192.0.2.1"}),
            ]
        );
    }

    #[test]
    fn what_was_allowed_can_be_left_out() {
        let lines = written(true, &[event("ok"), event("unknown"), event("ok")]);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["reason"], "unknown");
    }
}
