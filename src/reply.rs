//! Responses that the gateway authors, and the one shape of its errors.
//!
//! ```json
//! {"error": {"code": "NOT_FOUND", "message": "no route matches", "details": {}},
//!  "timestamp": "2026-01-01T12:00:00.000Z", "request_id": "…"}
//! ```
//! or, with `errors: problem`, `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). Codes are
//! stable: the same word stands in the body, in the access log and in `tollgate_refused_total`.

pub mod grpc;
pub mod websocket;

use std::borrow::Cow;

use bytes::Bytes;
use http::header;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::context::RequestId;
use crate::head::{HeaderName, HeaderValue, StatusCode};

/// A stable word for a kind of refusal, with the status it travels with.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    pub name: &'static str,
    pub status: StatusCode,
    /// When it is used; one line for the reference.
    pub meaning: &'static str,
}

/// Declares the codes and the table of all of them.
macro_rules! codes {
    ($($name:ident, $status:ident, $meaning:literal;)*) => {
        impl Code {
            $(pub const $name: &'static Code =
                &Code { name: stringify!($name), status: StatusCode::$status, meaning: $meaning };)*
            /// Every code, in the order of the reference.
            pub const ALL: &'static [&'static Code] = &[$(Code::$name),*];
        }
    };
}

codes! {
    BAD_REQUEST, BAD_REQUEST, "the request is not valid HTTP, or its path is ambiguous";
    VALIDATION_ERROR, BAD_REQUEST, "the body or a parameter is not what the handler takes; `details` says which";
    UNAUTHORIZED, UNAUTHORIZED, "no valid credential was sent; see `WWW-Authenticate`";
    FORBIDDEN, FORBIDDEN, "the client may not use this route";
    NOT_FOUND, NOT_FOUND, "no route matches host and path";
    METHOD_NOT_ALLOWED, METHOD_NOT_ALLOWED, "the path exists, but not for this method; see `Allow`";
    REQUEST_TIMEOUT, REQUEST_TIMEOUT, "the client was too slow to send its request";
    BODY_TOO_LARGE, PAYLOAD_TOO_LARGE, "the request body is larger than `body_max`";
    HEADERS_TOO_LARGE, REQUEST_HEADER_FIELDS_TOO_LARGE, "the request head is larger than `limits` allow";
    SIGNATURE_MISSING, UNAUTHORIZED, "the webhook has no signature, or none that can be read";
    SIGNATURE_INVALID, UNAUTHORIZED, "no secret of this webhook makes such a signature";
    SIGNATURE_EXPIRED, UNAUTHORIZED, "the webhook was signed too long ago, or in the future";
    REPLAYED, CONFLICT, "the webhook got through before";
    IN_PROGRESS, CONFLICT, "the same webhook is just being delivered; see `Retry-After`";
    UNSUPPORTED_MEDIA_TYPE, UNSUPPORTED_MEDIA_TYPE, "the body has a `Content-Type` that the route does not take";
    RATE_LIMITED, TOO_MANY_REQUESTS, "the client asks too often; see `Retry-After`";
    QUOTA_EXCEEDED, TOO_MANY_REQUESTS, "the quota of the client for this day, week or month is used up; see `Retry-After`";
    CONCURRENCY_LIMITED, TOO_MANY_REQUESTS, "too many requests of the client are in flight at once";
    INTERNAL, INTERNAL_SERVER_ERROR, "the gateway could not do its work; its log says why";
    FAULT_INJECTED, SERVICE_UNAVAILABLE, "a `fault` filter answered instead of the service";
    BAD_GATEWAY, BAD_GATEWAY, "the service could not be reached, or answered with something that is not HTTP";
    CIRCUIT_OPEN, SERVICE_UNAVAILABLE, "the service failed too often and is left alone for a while; see `Retry-After`";
    UPSTREAM_UNAVAILABLE, SERVICE_UNAVAILABLE, "no target of the upstream is known to be usable";
    OVERLOADED, SERVICE_UNAVAILABLE, "the gateway has as many connections, or requests, logins or bodies at once, as it may have";
    IDENTITY_UNAVAILABLE, SERVICE_UNAVAILABLE, "a credential cannot be verified yet: the keys it is verified with could not be fetched";
    INBOX_FULL, SERVICE_UNAVAILABLE, "the inbox holds as many messages as it may; see `Retry-After`";
    PLUGIN_FAILED, SERVICE_UNAVAILABLE, "a plugin of the route failed; the log of the gateway says how";
    STATE_UNAVAILABLE, SERVICE_UNAVAILABLE, "the state store does not answer";
    GATEWAY_TIMEOUT, GATEWAY_TIMEOUT, "the service did not answer in time";
}

/// A refusal by a filter or by the gateway: rendered as a [`Reply`] in the error shape of the configuration.
#[derive(Clone, Debug)]
pub struct Rejection {
    pub code: &'static Code,
    /// Differs from `code.status` only where an operator chose another one.
    pub status: StatusCode,
    pub message: Cow<'static, str>,
    pub details: Map<String, Value>,
    pub fields: Vec<(HeaderName, HeaderValue)>,
}

impl Rejection {
    pub fn new(code: &'static Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status: code.status, message: message.into(), details: Map::new(), fields: Vec::new() }
    }

    #[must_use]
    pub fn with_field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    #[must_use]
    pub fn with_detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// The reply for this refusal. `now` is the time in RFC 3339.
    pub fn into_reply(self, style: ErrorStyle, request_id: &RequestId, now: &str) -> Reply {
        let (body, content_type) = match style {
            ErrorStyle::Envelope => (
                json!({
                    "error": { "code": self.code.name, "message": self.message, "details": self.details },
                    "timestamp": now,
                    "request_id": request_id.as_str(),
                }),
                "application/json",
            ),
            ErrorStyle::Problem => {
                let mut problem = self.details;
                problem.insert("type".into(), "about:blank".into());
                problem.insert("title".into(), self.status.canonical_reason().unwrap_or("Error").into());
                problem.insert("status".into(), self.status.as_u16().into());
                problem.insert("detail".into(), self.message.into());
                problem.insert("code".into(), self.code.name.into());
                problem.insert("timestamp".into(), now.into());
                problem.insert("request_id".into(), request_id.as_str().into());
                (Value::Object(problem), "application/problem+json")
            }
        };
        let mut fields = self.fields;
        fields.push((header::CONTENT_TYPE, HeaderValue::from_static(content_type)));
        Reply { status: self.status, fields, body: body.to_string().into(), code: Some(self.code) }
    }
}

/// How errors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum ErrorStyle {
    /// `{"error": {…}, "timestamp": …, "request_id": …}`
    #[default]
    Envelope,
    /// RFC 9457
    Problem,
}

/// A complete response that the gateway authors. `Content-Length` is added when it is sent.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub fields: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// Set when this is a refusal.
    pub code: Option<&'static Code>,
}

impl Reply {
    pub fn new(status: StatusCode) -> Self {
        Self { status, fields: Vec::new(), body: Bytes::new(), code: None }
    }

    #[must_use]
    pub fn with_field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    /// The reply as HTTP/1.1, for a connection that ends with it: where no engine is there to write it.
    pub fn into_http1(self, request_id: &RequestId) -> Vec<u8> {
        let reason = self.status.canonical_reason().unwrap_or_default();
        let (length, id) = (self.body.len(), request_id.as_str());
        let status = self.status.as_u16();
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-length: {length}\r\nconnection: close\r\nx-request-id: {id}\r\n"
        );
        let mut bytes = head.into_bytes();
        for (name, value) in &self.fields {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// A reply with a JSON body.
    pub fn json(status: StatusCode, body: &Value) -> Self {
        let mut reply =
            Self::new(status).with_field(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        reply.body = body.to_string().into();
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(style: ErrorStyle) -> (Value, Reply) {
        let reply = Rejection::new(Code::NOT_FOUND, "no route matches \"/x\"").with_detail("path", "/x").into_reply(
            style,
            &RequestId::from_bits(7),
            "2026-01-01T12:00:00.000Z",
        );
        (serde_json::from_slice(&reply.body).unwrap(), reply)
    }

    #[test]
    fn the_envelope_has_code_message_details_timestamp_and_request_id() {
        let (body, reply) = body(ErrorStyle::Envelope);
        assert_eq!(
            body,
            json!({
                "error": {"code": "NOT_FOUND", "message": "no route matches \"/x\"", "details": {"path": "/x"}},
                "timestamp": "2026-01-01T12:00:00.000Z",
                "request_id": "00000000000000000000000000000007",
            })
        );
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
        assert_eq!(reply.code, Some(Code::NOT_FOUND));
    }

    #[test]
    fn a_problem_document_carries_the_same_facts() {
        let (body, reply) = body(ErrorStyle::Problem);
        assert_eq!((&body["status"], &body["code"], &body["path"]), (&json!(404), &json!("NOT_FOUND"), &json!("/x")));
        assert_eq!(reply.fields.last().unwrap().1, "application/problem+json");
    }

    #[test]
    fn code_names_are_unique() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
