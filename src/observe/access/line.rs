//! One request as one line: JSON, or the combined format that Apache and nginx share.
//!
//! Lines are written straight into the caller's buffer; nothing is allocated on the way.

pub mod redact;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use self::redact::{Hidden, each_query_piece, each_referer_piece};
use crate::lines::json::{self, put};
use crate::lines::{RFC3339, Stamp};

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object a line.
    Json,
    /// `client - - [time] "request" status bytes "referer" "user agent"`, unsafe bytes as `\x22`.
    Combined,
}

/// What is logged about one request. Absent fields are left out of JSON and are `-` in the combined format.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When the request arrived.
    pub time: SystemTime,
    pub request_id: &'a str,
    pub client: IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    /// Without the `?`; credentials in it are redacted here, not by the caller.
    pub query: Option<&'a str>,
    /// Parameters that are redacted besides those whose names look like credentials.
    pub hidden: &'a Hidden,
    /// As in `HTTP/1.1`.
    pub version: &'a str,
    pub status: u16,
    /// The stable code of a refusal of our own.
    pub code: Option<&'a str>,
    pub route: Option<&'a str>,
    /// Name of the caller.
    pub consumer: Option<&'a str>,
    pub upstream: Option<&'a str>,
    pub target: Option<SocketAddr>,
    /// From the request's first byte to the response's last.
    pub duration: Duration,
    /// From asking the upstream to the head of its response.
    pub upstream_duration: Option<Duration>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
    /// How many times an upstream was tried; 0 when none was.
    pub attempts: u32,
}

/// Appends the entry and a line feed.
pub(super) fn write(format: AccessFormat, out: &mut Vec<u8>, stamp: &mut Stamp, entry: &Entry<'_>) {
    match format {
        AccessFormat::Json => {
            let (second, milli) = stamp.text(entry.time, RFC3339);
            object(out, second, milli, entry);
        }
        AccessFormat::Combined => combined(out, stamp.text(entry.time, "%d/%b/%Y:%H:%M:%S +0000").0, entry),
    }
    out.push(b'\n');
}

fn object(out: &mut Vec<u8>, second: &str, milli: u32, entry: &Entry<'_>) {
    put(out, format_args!("{{\"time\":\"{second}.{milli:03}Z\""));
    json::field(out, "request_id", entry.request_id.as_bytes());
    put(out, format_args!(",\"client\":\"{}\"", entry.client));
    json::field(out, "method", entry.method.as_bytes());
    json::field(out, "host", entry.host.as_bytes());
    json::field(out, "path", entry.path.as_bytes());
    if let Some(query) = entry.query {
        out.extend_from_slice(b",\"query\":\"");
        each_query_piece(query.as_bytes(), entry.hidden, &mut |piece| json::text(out, piece));
        out.push(b'"');
    }
    json::field(out, "version", entry.version.as_bytes());
    put(out, format_args!(",\"status\":{}", entry.status));
    for (name, value) in
        [("error", entry.code), ("route", entry.route), ("consumer", entry.consumer), ("upstream", entry.upstream)]
    {
        if let Some(value) = value {
            json::field(out, name, value.as_bytes());
        }
    }
    if let Some(target) = entry.target {
        put(out, format_args!(",\"target\":\"{target}\""));
    }
    json_millis(out, "duration_ms", entry.duration);
    if let Some(duration) = entry.upstream_duration {
        json_millis(out, "upstream_duration_ms", duration);
    }
    put(
        out,
        format_args!(
            ",\"bytes_in\":{},\"bytes_out\":{},\"attempts\":{}",
            entry.bytes_in, entry.bytes_out, entry.attempts
        ),
    );
    if let Some(referer) = entry.referer {
        out.extend_from_slice(b",\"referer\":\"");
        each_referer_piece(referer, entry.hidden, &mut |piece| json::text(out, piece));
        out.push(b'"');
    }
    if let Some(agent) = entry.user_agent {
        json::field(out, "user_agent", agent);
    }
    out.push(b'}');
}

/// Three decimals of a millisecond, without the rounding surprises of a float.
fn json_millis(out: &mut Vec<u8>, name: &str, duration: Duration) {
    let micros = duration.as_micros();
    put(out, format_args!(",\"{name}\":{}.{:03}", micros / 1000, micros % 1000));
}

fn combined(out: &mut Vec<u8>, second: &str, entry: &Entry<'_>) {
    put(out, format_args!("{} - ", entry.client));
    match entry.consumer {
        Some(consumer) if !consumer.is_empty() => combined_word(out, consumer.as_bytes()),
        _ => out.push(b'-'),
    }
    put(out, format_args!(" [{second}] \""));
    combined_text(out, entry.method.as_bytes());
    out.push(b' ');
    combined_text(out, entry.path.as_bytes());
    if let Some(query) = entry.query {
        out.push(b'?');
        each_query_piece(query.as_bytes(), entry.hidden, &mut |piece| combined_text(out, piece));
    }
    out.push(b' ');
    combined_text(out, entry.version.as_bytes());
    put(out, format_args!("\" {} {} \"", entry.status, entry.bytes_out));
    match entry.referer {
        Some(referer) if !referer.is_empty() => {
            each_referer_piece(referer, entry.hidden, &mut |piece| combined_text(out, piece));
        }
        _ => out.push(b'-'),
    }
    out.extend_from_slice(b"\" \"");
    match entry.user_agent {
        Some(agent) if !agent.is_empty() => combined_text(out, agent),
        _ => out.push(b'-'),
    }
    out.push(b'"');
}

/// The same for what stands between spaces and without quotes. A lone `-` would say that there is nobody.
fn combined_word(out: &mut Vec<u8>, word: &[u8]) {
    if word == b"-" {
        out.extend_from_slice(b"\\x2D");
        return;
    }
    for (place, part) in word.split(|byte| *byte == b' ').enumerate() {
        if place > 0 {
            out.extend_from_slice(b"\\x20");
        }
        combined_text(out, part);
    }
}

/// Printable ASCII as it is, everything else and the two characters that quote as `\xHH`.
fn combined_text(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' | b'\\' => put(out, format_args!("\\x{byte:02X}")),
            b' '..=b'~' => out.push(*byte),
            _ => put(out, format_args!("\\x{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests;
