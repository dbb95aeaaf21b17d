//! Heads and chunks as they go out. Names come out as the map has them, in lower case.

use http::{HeaderMap, StatusCode, request};

/// The end of a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the head of a request; its target in origin form, whatever else the URI says.
pub fn write_request(out: &mut Vec<u8>, parts: &request::Parts) {
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if target.starts_with('?') {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(out, &parts.headers);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a response. `phrase`: if it is not the canonical one; `closes`: `Connection: close` is said, which must
/// not stand in `headers` too.
pub fn write_response(out: &mut Vec<u8>, status: StatusCode, phrase: Option<&[u8]>, headers: &HeaderMap, closes: bool) {
    write_response_with(out, status, phrase, headers, b"", closes);
}

/// The same with more fields: `lines`, each with its end.
pub fn write_response_with(
    out: &mut Vec<u8>,
    status: StatusCode,
    phrase: Option<&[u8]>,
    headers: &HeaderMap,
    lines: &[u8],
    closes: bool,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(phrase.unwrap_or_else(|| status.canonical_reason().unwrap_or_default().as_bytes()));
    out.extend_from_slice(b"\r\n");
    write_fields(out, headers);
    out.extend_from_slice(lines);
    out.extend_from_slice(if closes { b"connection: close\r\n\r\n" } else { b"\r\n" });
}

/// Appends a chunk. Without data there is none: an empty chunk would be the last one.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let digits = (usize::BITS.saturating_sub(data.len().leading_zeros())).div_ceil(4);
    for place in (0..digits).rev() {
        let digit = u32::try_from(data.len() >> place.saturating_mul(4) & 0xf).unwrap_or_default();
        out.push(char::from_digit(digit, 16).map_or(b'0', |digit| digit as u8));
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

fn write_fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
