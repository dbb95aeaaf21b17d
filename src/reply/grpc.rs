//! Refusals as gRPC clients understand them: HTTP 200, and the outcome in `grpc-status`.
//!
//! A refusal that is no gRPC answer would leave the client to guess a status from the HTTP one
//! ([http-grpc-status-mapping](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md)), and the code, the
//! message and the request id would be lost on it.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};

use super::{Code, Rejection, Reply};
use crate::context::Speaks;

pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The gateway's own code of a refusal, as it stands in the body of others.
pub const X_ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
/// When a client that retries by itself may come again
/// ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md)).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The flag of a frame of gRPC-Web that holds trailers.
const TRAILERS: u8 = 0x80;

/// Trailers as the last frame of a body of gRPC-Web, not encoded yet.
pub fn trailers_frame<'a>(trailers: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Bytes {
    let mut block = Vec::new();
    for (name, value) in trailers {
        block.extend_from_slice(name.as_str().as_bytes());
        block.extend_from_slice(b": ");
        block.extend_from_slice(value.as_bytes());
        block.extend_from_slice(b"\r\n");
    }
    let length = u32::try_from(block.len()).unwrap_or_default().to_be_bytes();
    [&[TRAILERS], &length[..], &block].concat().into()
}

impl Rejection {
    /// The outcome of a call that ends with this refusal.
    pub fn grpc_trailers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut trailers = vec![(GRPC_STATUS, HeaderValue::from(status(self.code, self.status)))];
        if let Ok(message) = HeaderValue::try_from(percent(&self.message)) {
            trailers.push((GRPC_MESSAGE, message));
        }
        trailers.push((X_ERROR_CODE, HeaderValue::from_static(self.code.name)));
        let wait = self.fields.iter().find(|(name, _)| *name == RETRY_AFTER);
        let wait = wait.and_then(|(_, wait)| wait.to_str().ok()?.parse::<u32>().ok());
        if let Some(seconds) = wait {
            trailers.push((PUSHBACK, HeaderValue::from(u64::from(seconds).saturating_mul(1000))));
        }
        trailers
    }

    /// The reply for this refusal to a call.
    pub fn into_grpc_reply(self, speaks: Speaks) -> Reply {
        let trailers = self.grpc_trailers();
        let mut reply = Reply::new(StatusCode::OK);
        reply.code = Some(self.code);
        reply.fields = self.fields;
        reply.fields.push((CONTENT_TYPE, HeaderValue::from_static(speaks.name())));
        match speaks {
            // Trailers alone: they are the head as well.
            Speaks::Grpc => reply.fields.extend(trailers),
            // In the body, where a page can read them whatever fields it is allowed to see.
            Speaks::Web | Speaks::WebText => {
                let trailers = trailers.iter().map(|(name, value)| (name, value));
                reply.body = speaks.encode(trailers_frame(trailers));
            }
        }
        reply
    }
}

impl Reply {
    /// Its head says all: the stream ends with it, and there is no body to have a length.
    pub fn is_trailers_only(&self) -> bool {
        self.body.is_empty() && self.fields.iter().any(|(name, _)| *name == GRPC_STATUS)
    }
}

/// The status of gRPC for a refusal. The mapping of gRPC itself is for clients that know no better; here the code is known.
fn status(code: &Code, status: StatusCode) -> u16 {
    match (code.name, status.as_u16()) {
        // INVALID_ARGUMENT: the message is wrong, not the protocol.
        ("VALIDATION_ERROR", 400) => 3,
        // INTERNAL, as in the mapping.
        (_, 400 | 415 | 500) => 13,
        // UNAUTHENTICATED
        (_, 401) => 16,
        // PERMISSION_DENIED
        (_, 403) => 7,
        // UNIMPLEMENTED: no such method. The mapping leaves 405 open.
        (_, 404 | 405) => 12,
        // DEADLINE_EXCEEDED, where the mapping says UNAVAILABLE: the service may have done the work.
        (_, 408 | 504) => 4,
        // ABORTED: to be tried again at a higher level.
        (_, 409) => 10,
        // RESOURCE_EXHAUSTED, where the mapping says UNAVAILABLE for 429: clients retry that one at once.
        (_, 413 | 429 | 431) => 8,
        // UNAVAILABLE
        (_, 502 | 503) => 14,
        // UNKNOWN
        _ => 2,
    }
}

/// The message of a status: visible ASCII, the rest percent-encoded, `%` too.
fn percent(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn every_code_has_a_status_of_its_kind() {
        for (code, expected) in [
            (Code::UNAUTHORIZED, 16),
            (Code::SIGNATURE_INVALID, 16),
            (Code::FORBIDDEN, 7),
            (Code::NOT_FOUND, 12),
            (Code::METHOD_NOT_ALLOWED, 12),
            (Code::RATE_LIMITED, 8),
            (Code::BODY_TOO_LARGE, 8),
            (Code::HEADERS_TOO_LARGE, 8),
            (Code::OVERLOADED, 14),
            (Code::CIRCUIT_OPEN, 14),
            (Code::BAD_GATEWAY, 14),
            (Code::GATEWAY_TIMEOUT, 4),
            (Code::BAD_REQUEST, 13),
            (Code::VALIDATION_ERROR, 3),
            (Code::INTERNAL, 13),
            (Code::REPLAYED, 10),
        ] {
            assert_eq!(status(code, code.status), expected, "{}", code.name);
        }
        for code in Code::ALL {
            let status = status(code, code.status);
            assert!((1..=16).contains(&status) && status != 2, "{}: {status}", code.name);
        }
    }

    #[test]
    fn a_refusal_is_trailers_alone() {
        let rejection = Rejection::new(Code::RATE_LIMITED, "zu viel: 100 % – später");
        let reply = rejection.with_field(RETRY_AFTER, HeaderValue::from(2)).into_grpc_reply(Speaks::Grpc);
        let field = |name: &str| {
            let found = reply.fields.iter().find(|(field, _)| field == name);
            found.map(|(_, value)| value.to_str().unwrap().to_owned())
        };
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(field("grpc-status").as_deref(), Some("8"));
        assert_eq!(field("grpc-message").as_deref(), Some("zu viel: 100 %25 %E2%80%93 sp%C3%A4ter"));
        assert_eq!(field("x-error-code").as_deref(), Some("RATE_LIMITED"));
        assert_eq!(field("retry-after").as_deref(), Some("2"));
        assert_eq!(field("grpc-retry-pushback-ms").as_deref(), Some("2000"));
        assert_eq!(field("content-type").as_deref(), Some("application/grpc"));
        assert!(reply.is_trailers_only() && reply.body.is_empty());
        assert_eq!(reply.code, Some(Code::RATE_LIMITED));
    }

    #[test]
    fn a_page_finds_the_refusal_in_the_body() {
        let rejection = Rejection::new(Code::FORBIDDEN, "no");
        let body = rejection.clone().into_grpc_reply(Speaks::Web).body;
        let text = b"grpc-status: 7\r\ngrpc-message: no\r\nx-error-code: FORBIDDEN\r\n";
        assert_eq!(body, [&[0x80, 0, 0, 0, text.len() as u8], &text[..]].concat());
        let reply = rejection.into_grpc_reply(Speaks::WebText);
        assert_eq!(STANDARD.decode(&reply.body).unwrap(), body);
        assert!(!reply.is_trailers_only());
    }
}
