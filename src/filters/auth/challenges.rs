//! `WWW-Authenticate` (RFC 9110 §11.6.1): what a client is told to send.

use std::sync::Arc;

use crate::head::HeaderValue;

/// How many seconds a client waits before it tries a token again that nobody could verify.
pub const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// The values of the field, by what went wrong.
pub struct Challenges {
    /// Nothing was sent, or a key in its own field was wrong.
    pub plain: Arc<[HeaderValue]>,
    /// A token or bearer was sent that is not accepted (RFC 6750 §3.1).
    pub invalid: Arc<[HeaderValue]>,
    /// A token was sent that was right once.
    pub expired: Arc<[HeaderValue]>,
}

impl Challenges {
    /// `realm` and `key_header` hold nothing that would end a quoted string.
    pub fn new(realm: &str, takes_bearer: bool, key_header: Option<&str>) -> Self {
        let with = |error: &str| -> Arc<[HeaderValue]> {
            let bearer = takes_bearer.then(|| format!("Bearer realm=\"{realm}\"{error}"));
            let key = key_header.map(|header| format!("ApiKey realm=\"{realm}\", header=\"{header}\""));
            // RFC 9110 wants a challenge even where nothing that a request could hold is accepted.
            let certificate = (bearer.is_none() && key.is_none()).then(|| format!("Certificate realm=\"{realm}\""));
            let values = [bearer, key, certificate].into_iter().flatten();
            values.filter_map(|value| HeaderValue::try_from(value).ok()).collect()
        };
        Self {
            plain: with(""),
            invalid: with(", error=\"invalid_token\""),
            expired: with(", error=\"invalid_token\", error_description=\"Token expired\""),
        }
    }
}
