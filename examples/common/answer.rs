//! The one shape of a refusal, and the frame that puts it and the request id on every answer.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 128;
const REQUEST_TIME_MAX: Duration = Duration::from_secs(20);
const ECHO_CHARS_MAX: usize = 100;

/// Why a request was refused. Where it becomes a response, [`frame`] writes the body.
#[derive(Clone, Debug)]
pub struct Failure {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    details: Value,
}

impl Failure {
    /// A refusal whose code is the standard name of its status, such as `NOT_FOUND`.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let code = status.canonical_reason().unwrap_or("ERROR").to_ascii_uppercase().replace(' ', "_");
        Self { status, code: code.into(), message: message.into(), details: json!({}) }
    }

    /// 400: `field` was sent as `value` where `expected` was due. A long value is echoed in part.
    pub fn invalid(field: &str, value: &Value, expected: &str) -> Self {
        let echo = match value {
            Value::String(text) => json!(text.chars().take(ECHO_CHARS_MAX).collect::<String>()),
            Value::Array(_) => json!("(list)"),
            Value::Object(_) => json!("(object)"),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        };
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "VALIDATION_ERROR".into(),
            message: format!("Invalid {field}"),
            details: json!({ "field": field, "value": echo, "expected": expected }),
        }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 500. The cause goes to the log and not to the client.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        eprintln!("internal error: {cause}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The service failed; see its log")
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::internal(&error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Bounds the time of a request, gives every refusal its body (those the framework makes included), and echoes
/// the request id or makes one.
pub async fn frame(request: Request, next: Next) -> Response {
    let id = request.headers().get(&REQUEST_ID).filter(|id| is_request_id(id)).cloned().unwrap_or_else(new_request_id);
    let mut response = match tokio::time::timeout(REQUEST_TIME_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Failure::new(StatusCode::REQUEST_TIMEOUT, "The request took too long").into_response(),
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        let failure = response.extensions_mut().remove::<Failure>().unwrap_or_else(|| from_framework(&response));
        response = with_body(response, &failure, &id);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// RFC 3339 in UTC, to the second.
pub fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn from_framework(response: &Response) -> Failure {
    let status = response.status();
    Failure::new(status, status.canonical_reason().unwrap_or("The request was refused"))
}

/// Keeps fields such as `Allow` that say more about the refusal.
fn with_body(response: Response, failure: &Failure, id: &HeaderValue) -> Response {
    let body = json!({
        "error": { "code": failure.code, "message": failure.message, "details": failure.details },
        "timestamp": time_text(Timestamp::now()),
        "request_id": id.to_str().unwrap_or_default(),
    });
    let (mut head, _) = response.into_parts();
    head.headers.remove(header::CONTENT_TYPE);
    head.headers.remove(header::CONTENT_LENGTH);
    (head.status, head.headers, Json(body)).into_response()
}

fn is_request_id(id: &HeaderValue) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// Unique within this process, and hardly ever the same in another.
fn new_request_id() -> HeaderValue {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    HeaderValue::from_str(&format!("req-{:x}-{count:x}", Timestamp::now().as_nanosecond()))
        .unwrap_or(HeaderValue::from_static("req-unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_name_of_its_status() {
        assert_eq!(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "").code, "PAYLOAD_TOO_LARGE");
        assert_eq!(Failure::not_found("").code, "NOT_FOUND");
    }

    #[test]
    fn an_invalid_value_is_echoed_in_part() {
        let longest = "é".repeat(ECHO_CHARS_MAX);
        assert_eq!(Failure::invalid("a", &json!(longest), "b").details["value"], json!(longest));
        assert_eq!(Failure::invalid("a", &json!(format!("{longest}é")), "b").details["value"], json!(longest));
        assert_eq!(Failure::invalid("a", &json!([[1]]), "b").details["value"], json!("(list)"));
    }

    #[test]
    fn a_cause_stays_inside() {
        let failure = Failure::from(rusqlite::Error::InvalidColumnName("secret_column".to_owned()));
        assert_eq!(failure.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!failure.message.contains("secret_column"));
    }
}
