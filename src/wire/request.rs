//! The head of a plain request: one reading only, and nothing behind it but a small body.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::HeaderName;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Uri};
use httparse::{Request, Status};

use super::fields::{self, End, FIELDS_MAX, Judged, Span};
use super::{Look, Malformed};

/// Largest body of a plain request, in bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

/// A request this engine takes: HTTP/1.1, a target in origin form, one Host, nothing to negotiate, and a body of a length that is
/// told, if any.
#[derive(Debug)]
pub struct PlainRequest {
    /// Without `Connection`.
    pub parts: Parts,
    /// The head as it came.
    pub raw: Bytes,
    /// Bytes of the body, which follows: at most [`BODY_BYTES_MAX`].
    pub body: usize,
    /// The client asks to close afterwards (`Connection: close`).
    pub closes: bool,
}

/// Looks for a request at the beginning of what a client has sent so far.
///
/// On [`Look::Whole`] its head was taken off the front of `bytes`, and `scanned` is 0 again; target and values share that memory.
/// Otherwise `bytes` are as they were. `scanned` is 0 before the first look at a head, and belongs to this function until the
/// last one: with it, asking again costs what the bytes cost that came meanwhile.
pub fn request(bytes: &mut BytesMut, scanned: &mut usize, fields_max: usize) -> Look<PlainRequest> {
    let length = match fields::end(bytes, *scanned, false) {
        End::At(length) => length,
        End::Odd => return Look::Odd,
        End::Missing => {
            let before = std::mem::replace(scanned, bytes.len());
            let hopeless = fields::is_worth_parsing(bytes, before) && is_hopeless(bytes, fields_max);
            return if hopeless { Look::Odd } else { Look::Partial };
        }
    };
    let Some(judged) = bytes.get(..length).and_then(|head| judge(head, fields_max)) else { return Look::Odd };
    let head = bytes.split_to(length).freeze();
    let Plain { closes, body, .. } = judged;
    let Ok(parts) = share(judged, &head) else {
        give_back(bytes, &head);
        return Look::Odd;
    };
    *scanned = 0;
    Look::Whole(PlainRequest { parts, raw: head, body, closes })
}

const GRPC: &[u8] = b"application/grpc";

/// A request that is plain, while the memory that it lies in is not shared yet.
struct Plain {
    method: Method,
    target: Span,
    fields: Judged,
    body: usize,
    closes: bool,
}

/// Takes a whole head apart. `None`: it is odd.
fn judge(head: &[u8], fields_max: usize) -> Option<Plain> {
    let mut places = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = Request::new(&mut []);
    let places = places.get_mut(..fields_max.min(FIELDS_MAX))?;
    match parsed.parse_with_uninit_headers(head, places) {
        Ok(Status::Complete(length)) if length == head.len() => {}
        _ => return None,
    }
    let target = parsed.path.filter(|_| parsed.version == Some(1)).filter(|target| is_plain_target(target))?;
    let method = Method::from_bytes(parsed.method?.as_bytes()).ok().filter(|method| *method != Method::CONNECT)?;
    let target = Span::of(target.as_bytes(), head);
    let mut plain = Plain { method, target, fields: Judged::new(), body: 0, closes: false };
    let (mut has_host, mut has_length, mut has_options, mut is_grpc) = (false, false, false, false);
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let first = match name.as_str() {
            "host" => !field.value.is_empty() && !std::mem::replace(&mut has_host, true),
            "content-length" => {
                plain.body = body_length(field.value)?;
                !std::mem::replace(&mut has_length, true)
            }
            "content-type" => {
                is_grpc |= says_grpc(field.value);
                true
            }
            "connection" => {
                plain.closes = field.value.eq_ignore_ascii_case(b"close");
                let known = plain.closes || field.value.eq_ignore_ascii_case(b"keep-alive");
                if !known || std::mem::replace(&mut has_options, true) {
                    return None;
                }
                continue;
            }
            "transfer-encoding" | "expect" | "upgrade" | "te" | "trailer" | "http2-settings" | "proxy-connection"
            | "keep-alive" => false,
            _ => true,
        };
        if !first {
            return None;
        }
        plain.fields.push((name, Span::of(field.value, head)));
    }
    // Bodies of gRPC may have to be read another way.
    (has_host && !(is_grpc && plain.body > 0)).then_some(plain)
}

/// The length of a body that is small, in the one way to write it.
fn body_length(value: &[u8]) -> Option<usize> {
    let is_plain = match value {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < 5 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let length = is_plain.then(|| {
        value.iter().fold(0, |length: usize, digit| {
            length.saturating_mul(10).saturating_add(usize::from(digit.wrapping_sub(b'0')))
        })
    });
    length.filter(|length| *length <= BODY_BYTES_MAX)
}

fn says_grpc(media_type: &[u8]) -> bool {
    media_type.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// Origin form, without a fragment. What else a target may not hold [`PathAndQuery`] knows.
fn is_plain_target(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// Makes the parts of a head that is shared now.
fn share(plain: Plain, head: &Bytes) -> Result<Parts, Malformed> {
    let raw = plain.target.within(head).ok_or(Malformed)?;
    let length = raw.len();
    let target = PathAndQuery::from_maybe_shared(raw).map_err(|_| Malformed)?;
    // It is forwarded as it came, or not by us: nothing may have been cut off.
    if target.as_str().len() != length {
        return Err(Malformed);
    }
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = plain.method;
    parts.uri = Uri::from(target);
    parts.headers = fields::map(plain.fields, head)?;
    Ok(parts)
}

/// Puts a head back in front of what follows it. A copy; only odd targets come here.
#[cold]
fn give_back(bytes: &mut BytesMut, head: &[u8]) {
    let mut whole = BytesMut::with_capacity(head.len().saturating_add(bytes.len()));
    whole.extend_from_slice(head);
    whole.extend_from_slice(bytes);
    *bytes = whole;
}

/// Whether the beginning of a head already shows that it is odd.
#[cold]
fn is_hopeless(start: &[u8], fields_max: usize) -> bool {
    let mut places = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let places = places.get_mut(..fields_max.min(FIELDS_MAX)).unwrap_or_default();
    Request::new(&mut []).parse_with_uninit_headers(start, places).is_err()
}

#[cfg(test)]
mod tests;
