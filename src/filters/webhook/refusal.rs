//! Why a webhook is refused.

use http::header::WWW_AUTHENTICATE;

use crate::context::results;
use crate::head::{HeaderName, HeaderValue};
use crate::reply::{Code, Rejection};

/// A refusal of what a request says of itself.
#[derive(Debug)]
pub struct Refusal {
    pub code: &'static Code,
    /// One of [`results`].
    pub result: &'static str,
    message: &'static str,
    field: Option<HeaderName>,
}

impl Refusal {
    /// Something is not there, or cannot be read.
    pub fn missing(message: &'static str, field: &HeaderName) -> Self {
        let field = Some(field.clone());
        Self { code: Code::SIGNATURE_MISSING, result: results::SIGNATURE_MISSING, message, field }
    }

    pub fn expired(message: &'static str) -> Self {
        Self { code: Code::SIGNATURE_EXPIRED, result: results::SIGNATURE_EXPIRED, message, field: None }
    }

    pub fn invalid() -> Self {
        let message = "the signature does not fit the message";
        Self { code: Code::SIGNATURE_INVALID, result: results::SIGNATURE_INVALID, message, field: None }
    }

    /// With how one should have signed.
    pub fn into_rejection(self, challenge: &HeaderValue) -> Rejection {
        let rejection = Rejection::new(self.code, self.message).with_field(WWW_AUTHENTICATE, challenge.clone());
        match self.field {
            Some(field) => rejection.with_detail("field", field.as_str()),
            None => rejection,
        }
    }
}
