//! The webhook log: one JSON line for each webhook that arrives, and for each step of one that an inbox keeps. No line holds a
//! body, a field, a query or a secret: messages appear by what names them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::rfc3339;
use crate::lines::json::{self, put};
use crate::lines::{Lines, Opening, RFC3339, Target};

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookLogSettings {
    pub target: Target,
    /// Size in bytes at which a file is rotated; 0: never.
    pub rotate_bytes: u64,
    /// How many rotated files are kept; 0: a full file is deleted.
    pub keep: usize,
}

/// What happened to a webhook. What is `None` is left out.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub time: SystemTime,
    /// Of the request that it came with.
    pub request_id: Option<&'a str>,
    pub route: Option<&'a str>,
    pub provider: Option<&'a str>,
    /// What names the message; not known before it is verified.
    pub delivery: Option<&'a str>,
    pub what: What<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// It arrived, and was answered.
    Received(Received<'a>),
    /// An inbox did something with it.
    Kept(Kept<'a>),
}

/// How a webhook was answered.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// What the filter `webhook` found out.
    pub result: &'a str,
    pub status: u16,
    /// The stable code of a refusal of our own.
    pub code: Option<&'a str>,
    pub client: IpAddr,
    /// Bytes of the body.
    pub bytes: u64,
    /// From the first byte of the request to the last of the answer.
    pub duration: Duration,
}

/// What an inbox did with a message.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    pub step: Step,
    pub inbox: &'a str,
    /// Of the message in the inbox.
    pub id: &'a str,
    /// The first is 1.
    pub attempt: Option<u32>,
    /// What the upstream said.
    pub status: Option<u16>,
    /// What went wrong, in words of the program. Cut after [`WHY_BYTES_MAX`].
    pub why: Option<&'a str>,
    /// The address that was tried last.
    pub target: Option<SocketAddr>,
    /// When it is tried again.
    pub due: Option<SystemTime>,
    /// How long ago it arrived.
    pub age: Option<Duration>,
}

/// A step of a message in an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is kept, and whoever sent it was told so.
    Stored,
    Delivered,
    /// The delivery failed, and is tried again.
    Retry,
    /// It was given up.
    Dead,
    /// Somebody asked for it to be delivered again.
    Replayed,
    /// Somebody removed it.
    Discarded,
}

/// Longest `why` of a line, in bytes.
pub const WHY_BYTES_MAX: usize = 500;

impl Step {
    /// As it stands in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

impl<'a> Kept<'a> {
    /// A step of which nothing else is known.
    pub fn new(step: Step, inbox: &'a str, id: &'a str) -> Self {
        let (attempt, status, why, target, due, age) = (None, None, None, None, None, None);
        Self { step, inbox, id, attempt, status, why, target, due, age }
    }
}

/// A log that is open. Dropping it writes what is held back.
pub struct WebhookLog {
    lines: Lines,
}

impl WebhookLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// See [`Lines::open`].
    pub fn open(settings: &WebhookLogSettings, home: Option<&Path>) -> io::Result<Arc<Self>> {
        let WebhookLogSettings { target, rotate_bytes, keep } = settings;
        let opening = Opening { name: "webhook log", target, rotate_bytes: *rotate_bytes, keep: *keep, home };
        Ok(Arc::new(Self { lines: Lines::open(opening)? }))
    }

    /// Appends one line to the buffer of this thread.
    pub fn record(&self, event: &Event<'_>) {
        self.lines.append(|out, stamp| {
            let (second, milli) = stamp.text(event.time, RFC3339);
            put(out, format_args!("{{\"time\":\"{second}.{milli:03}Z\""));
            write(out, event);
        });
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

/// What stands behind the time.
fn write(out: &mut Vec<u8>, event: &Event<'_>) {
    let what = match &event.what {
        What::Received(_) => "received",
        What::Kept(kept) => kept.step.as_str(),
    };
    let texts = [
        ("event", Some(what)),
        ("request_id", event.request_id),
        ("route", event.route),
        ("provider", event.provider),
        ("delivery", event.delivery),
    ];
    fields(out, &texts);
    match &event.what {
        What::Received(received) => write_received(out, received),
        What::Kept(kept) => write_kept(out, kept),
    }
    out.extend_from_slice(b"}\n");
}

fn write_received(out: &mut Vec<u8>, received: &Received<'_>) {
    fields(out, &[("result", Some(received.result)), ("code", received.code)]);
    let (status, client, bytes) = (received.status, received.client, received.bytes);
    put(out, format_args!(",\"status\":{status},\"client\":\"{client}\",\"bytes\":{bytes}"));
    put(out, format_args!(",\"duration_ms\":{:.3}", received.duration.as_secs_f64() * 1e3));
}

fn write_kept(out: &mut Vec<u8>, kept: &Kept<'_>) {
    let why = kept.why.map(|why| why.get(..why.floor_char_boundary(WHY_BYTES_MAX)).unwrap_or_default());
    fields(out, &[("inbox", Some(kept.inbox)), ("id", Some(kept.id)), ("why", why)]);
    if let Some(target) = kept.target {
        put(out, format_args!(",\"target\":\"{target}\""));
    }
    for (name, number) in [("attempt", kept.attempt), ("status", kept.status.map(u32::from))] {
        if let Some(number) = number {
            put(out, format_args!(",\"{name}\":{number}"));
        }
    }
    if let Some(due) = kept.due {
        put(out, format_args!(",\"due\":\"{}\"", rfc3339(due)));
    }
    if let Some(age) = kept.age {
        put(out, format_args!(",\"age_ms\":{:.3}", age.as_secs_f64() * 1e3));
    }
}

fn fields(out: &mut Vec<u8>, texts: &[(&str, Option<&str>)]) {
    for (name, text) in texts {
        if let Some(text) = text {
            json::field(out, name, text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
