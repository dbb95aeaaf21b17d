//! gRPC as requests say that they speak it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::head::HeaderValue;

/// How a request speaks gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// `application/grpc`: over HTTP/2, the outcome in trailers.
    Grpc,
    /// `application/grpc-web`: the outcome at the end of the body
    /// ([PROTOCOL-WEB](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md)).
    Web,
    /// `application/grpc-web-text`: the same in Base64.
    WebText,
}

impl Speaks {
    /// What a `Content-Type` says, and what it says of the messages: `+proto`, or nothing.
    pub fn of(content_type: &[u8]) -> Option<(Self, &[u8])> {
        let media = content_type.split(|byte| *byte == b';').next()?.trim_ascii();
        for (name, speaks) in [
            (&b"application/grpc-web-text"[..], Self::WebText),
            (b"application/grpc-web", Self::Web),
            (b"application/grpc", Self::Grpc),
        ] {
            let Some((begin, format)) = media.split_at_checked(name.len()) else { continue };
            if begin.eq_ignore_ascii_case(name) && (format.is_empty() || format.starts_with(b"+")) {
                return Some((speaks, format));
            }
        }
        None
    }

    /// The `Content-Type` of messages in this format.
    pub fn content_type(self, format: &[u8]) -> Option<HeaderValue> {
        HeaderValue::from_bytes(&[self.name().as_bytes(), format].concat()).ok()
    }

    /// What bytes of a body become on the way to the client.
    pub fn encode(self, bytes: Bytes) -> Bytes {
        match self {
            Self::Grpc | Self::Web => bytes,
            Self::WebText => STANDARD.encode(&bytes).into(),
        }
    }

    /// Its media type, without a format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "application/grpc",
            Self::Web => "application/grpc-web",
            Self::WebText => "application/grpc-web-text",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_says_how_a_request_speaks() {
        for (text, speaks) in [
            ("application/grpc", Some((Speaks::Grpc, ""))),
            ("application/grpc+proto", Some((Speaks::Grpc, "+proto"))),
            ("Application/GRPC; charset=utf-8", Some((Speaks::Grpc, ""))),
            ("application/grpc-web", Some((Speaks::Web, ""))),
            ("application/grpc-web+json ;a=b", Some((Speaks::Web, "+json"))),
            ("application/grpc-web-text+proto", Some((Speaks::WebText, "+proto"))),
            ("application/grpc-websocket", None),
            ("application/grpcx", None),
            ("application/json", None),
            ("", None),
        ] {
            let expected = speaks.map(|(speaks, format)| (speaks, format.as_bytes()));
            assert_eq!(Speaks::of(text.as_bytes()), expected, "{text}");
        }
    }
}
