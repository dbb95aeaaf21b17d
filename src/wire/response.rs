//! The head of an answer, and where its body ends.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::response::Parts;
use http::{StatusCode, Version};
use httparse::{ParserConfig, Response, Status};

use super::Malformed;
use super::fields::{self, End, FIELDS_MAX, Judged, Span};

/// The head of an answer.
#[derive(Debug)]
pub struct PlainResponse {
    /// As it was sent, with `Connection` and all; but a length beside a coding is left out, since it does not count
    /// (RFC 9112 §6.3).
    pub parts: Parts,
    /// Only when it differs from the canonical phrase of the status.
    pub phrase: Option<Bytes>,
    /// Bytes of the head.
    pub length: usize,
    /// The service keeps the connection (HTTP/1.1 without `Connection: close`, or HTTP/1.0 with `keep-alive`). A body that ends
    /// with the connection ends it anyway.
    pub persists: bool,
}

/// Looks for the head of an answer at the beginning of what a service has sent so far; `Ok(None)` asks for more.
///
/// As with [`super::request`], a whole head was taken off the front of `bytes`, and `scanned` is 0 before the first look at each
/// head, interim ones too. What the other engine takes of services is taken here as well: lines may end with a bare LF, and values
/// may be folded; they are unfolded (RFC 9112 §5.2).
pub fn response(
    bytes: &mut BytesMut,
    scanned: &mut usize,
    fields_max: usize,
) -> Result<Option<PlainResponse>, Malformed> {
    let length = match fields::end(bytes, *scanned, true) {
        End::At(length) => length,
        End::Odd => return Err(Malformed),
        End::Missing => {
            let before = std::mem::replace(scanned, bytes.len());
            let hopeless = fields::is_worth_parsing(bytes, before) && is_hopeless(bytes, fields_max);
            return if hopeless { Err(Malformed) } else { Ok(None) };
        }
    };
    let judged = judge(bytes.get(..length).ok_or(Malformed)?, fields_max)?;
    let head = bytes.split_to(length).freeze();
    *scanned = 0;
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = judged.status;
    parts.version = judged.version;
    parts.headers = fields::map(judged.fields, &head)?;
    let phrase = judged.phrase.and_then(|phrase| phrase.within(&head));
    Ok(Some(PlainResponse { parts, phrase, length, persists: judged.persists }))
}

/// A head, while the memory that it lies in is not shared yet.
struct Head {
    status: StatusCode,
    version: Version,
    phrase: Option<Span>,
    fields: Judged,
    persists: bool,
}

/// Takes a whole head apart.
fn judge(head: &[u8], fields_max: usize) -> Result<Head, Malformed> {
    let mut places = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = Response::new(&mut []);
    let places = places.get_mut(..fields_max.min(FIELDS_MAX)).ok_or(Malformed)?;
    match parser().parse_response_with_uninit_headers(&mut parsed, head, places) {
        Ok(Status::Complete(length)) if length == head.len() => {}
        _ => return Err(Malformed),
    }
    let version = match parsed.version {
        Some(0) => Version::HTTP_10,
        Some(1) => Version::HTTP_11,
        _ => return Err(Malformed),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed)?;
    let phrase = parsed.reason.filter(|phrase| *phrase != status.canonical_reason().unwrap_or_default());
    let phrase = phrase.map(|phrase| Span::of(phrase.as_bytes(), head));
    let mut fields = Judged::new();
    let mut options = Options::default();
    let (mut lengths, mut codings) = (0_usize, 0_usize);
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        match name.as_str() {
            "connection" => options.read(field.value),
            "content-length" => lengths = lengths.saturating_add(1),
            "transfer-encoding" => codings = codings.saturating_add(1),
            _ => {}
        }
        fields.push((name, Span::of(field.value, head)));
    }
    let mut persists = !options.close && (version == Version::HTTP_11 || options.keep_alive);
    if codings > 0 && lengths == 1 {
        // The coding counts. But who says both may not be the only one who wrote this: nothing more is read of it.
        fields.retain(|(name, _)| *name != CONTENT_LENGTH);
        persists = false;
    }
    Ok(Head { status, version, phrase, fields, persists })
}

/// What `Connection` says of the connection itself.
#[derive(Default)]
struct Options {
    close: bool,
    keep_alive: bool,
}

impl Options {
    fn read(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
}

/// Whether the beginning of a head already shows that it is malformed.
#[cold]
fn is_hopeless(start: &[u8], fields_max: usize) -> bool {
    let mut places = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let places = places.get_mut(..fields_max.min(FIELDS_MAX)).unwrap_or_default();
    parser().parse_response_with_uninit_headers(&mut Response::new(&mut []), start, places).is_err()
}

fn parser() -> ParserConfig {
    let mut parser = ParserConfig::default();
    parser.allow_obsolete_multiline_headers_in_responses(true);
    parser
}

/// How the end of an answer's body is told (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    /// The connection ends with it.
    Close,
}

/// Where the body of an answer ends; `to_head`: the request was HEAD. What has more than one reading is malformed, also where
/// there is no body: the client is told the same.
pub fn framing(parts: &Parts, to_head: bool) -> Result<Framing, Malformed> {
    let (mut length, mut chunked) = (None, false);
    for (name, value) in &parts.headers {
        if *name == CONTENT_LENGTH {
            if length.replace(digits(value.as_bytes())?).is_some() {
                return Err(Malformed);
            }
        } else if *name == TRANSFER_ENCODING {
            let known = value.as_bytes().eq_ignore_ascii_case(b"chunked") && parts.version == Version::HTTP_11;
            if !known || std::mem::replace(&mut chunked, true) {
                return Err(Malformed);
            }
        }
    }
    let status = parts.status;
    let bodiless =
        to_head || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    match (length, chunked) {
        (Some(_), true) => Err(Malformed),
        _ if bodiless => Ok(Framing::None),
        (Some(length), false) => Ok(Framing::Length(length)),
        (None, true) => Ok(Framing::Chunked),
        (None, false) => Ok(Framing::Close),
    }
}

/// A number that consists of digits.
fn digits(value: &[u8]) -> Result<u64, Malformed> {
    if value.is_empty() {
        return Err(Malformed);
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| byte.wrapping_sub(b'0')).ok_or(Malformed)?;
        number.checked_mul(10).and_then(|number| number.checked_add(u64::from(digit))).ok_or(Malformed)
    })
}

#[cfg(test)]
mod tests;
