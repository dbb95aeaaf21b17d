//! One request as one line: JSON, or the combined format that Apache and nginx share.
//!
//! Lines are written straight into the caller's buffer; nothing is allocated on the way.

pub mod redact;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use self::redact::{each_query_piece, each_referer_piece};

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
    /// As in `HTTP/1.1`.
    pub version: &'a str,
    pub status: u16,
    /// The stable code of a refusal of our own.
    pub code: Option<&'a str>,
    pub route: Option<&'a str>,
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

/// Writes lines of one format, and keeps the text of the second it wrote last.
pub(super) struct LineWriter {
    format: AccessFormat,
    second: Option<i64>,
    second_text: String,
}

impl LineWriter {
    pub(super) fn new(format: AccessFormat) -> Self {
        Self { format, second: None, second_text: String::new() }
    }

    /// Appends the entry and a line feed.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        let since = entry.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = i64::try_from(since.as_secs()).unwrap_or(0);
        if self.second != Some(second) {
            let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
            let pattern = match self.format {
                AccessFormat::Json => "%Y-%m-%dT%H:%M:%S",
                AccessFormat::Combined => "%d/%b/%Y:%H:%M:%S +0000",
            };
            self.second_text = time.strftime(pattern).to_string();
            self.second = Some(second);
        }
        match self.format {
            AccessFormat::Json => json(out, &self.second_text, since.subsec_millis(), entry),
            AccessFormat::Combined => combined(out, &self.second_text, entry),
        }
        out.push(b'\n');
    }
}

fn json(out: &mut Vec<u8>, second: &str, milli: u32, entry: &Entry<'_>) {
    put(out, format_args!("{{\"time\":\"{second}.{milli:03}Z\""));
    json_field(out, "request_id", entry.request_id.as_bytes());
    put(out, format_args!(",\"client\":\"{}\"", entry.client));
    json_field(out, "method", entry.method.as_bytes());
    json_field(out, "host", entry.host.as_bytes());
    json_field(out, "path", entry.path.as_bytes());
    if let Some(query) = entry.query {
        out.extend_from_slice(b",\"query\":\"");
        each_query_piece(query.as_bytes(), &mut |piece| json_text(out, piece));
        out.push(b'"');
    }
    json_field(out, "version", entry.version.as_bytes());
    put(out, format_args!(",\"status\":{}", entry.status));
    for (name, value) in [("error", entry.code), ("route", entry.route), ("upstream", entry.upstream)] {
        if let Some(value) = value {
            json_field(out, name, value.as_bytes());
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
        each_referer_piece(referer, &mut |piece| json_text(out, piece));
        out.push(b'"');
    }
    if let Some(agent) = entry.user_agent {
        json_field(out, "user_agent", agent);
    }
    out.push(b'}');
}

fn json_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    json_text(out, value);
    out.push(b'"');
}

/// Three decimals of a millisecond, without the rounding surprises of a float.
fn json_millis(out: &mut Vec<u8>, name: &str, duration: Duration) {
    let micros = duration.as_micros();
    put(out, format_args!(",\"{name}\":{}.{:03}", micros / 1000, micros % 1000));
}

/// The inside of a JSON string (RFC 8259 §7): invalid UTF-8 becomes U+FFFD; besides what JSON demands, DEL, the C1
/// controls and the two Unicode line separators are escaped, since terminals and viewers act on them.
fn json_text(out: &mut Vec<u8>, text: &[u8]) {
    if text.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        out.extend_from_slice(text);
        return;
    }
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\u{2028}' | '\u{2029}' => put(out, format_args!("\\u{:04x}", u32::from(character))),
                control if control.is_control() => put(out, format_args!("\\u{:04x}", u32::from(control))),
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn combined(out: &mut Vec<u8>, second: &str, entry: &Entry<'_>) {
    put(out, format_args!("{} - - [{second}] \"", entry.client));
    combined_text(out, entry.method.as_bytes());
    out.push(b' ');
    combined_text(out, entry.path.as_bytes());
    if let Some(query) = entry.query {
        out.push(b'?');
        each_query_piece(query.as_bytes(), &mut |piece| combined_text(out, piece));
    }
    out.push(b' ');
    combined_text(out, entry.version.as_bytes());
    put(out, format_args!("\" {} {} \"", entry.status, entry.bytes_out));
    match entry.referer {
        Some(referer) if !referer.is_empty() => each_referer_piece(referer, &mut |piece| combined_text(out, piece)),
        _ => out.push(b'-'),
    }
    out.extend_from_slice(b"\" \"");
    match entry.user_agent {
        Some(agent) if !agent.is_empty() => combined_text(out, agent),
        _ => out.push(b'-'),
    }
    out.push(b'"');
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

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests;
