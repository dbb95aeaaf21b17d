//! What clients of a token service are told: tokens, or why there are none.

use std::time::Duration;

use http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;

use super::Issued;
use crate::head::{HeaderValue, StatusCode};
use crate::reply::{Code, Rejection, Reply};
use crate::state::StoreError;
use crate::types::seconds_up;

impl From<Issued> for Reply {
    /// RFC 6749 §5.1.
    fn from(issued: Issued) -> Self {
        let mut body = json!({
            "access_token": issued.access,
            "token_type": "bearer",
            "expires_in": issued.expires_in.as_secs(),
        });
        if let (Some(refresh), Some(members)) = (issued.refresh, body.as_object_mut()) {
            members.insert("refresh_token".to_owned(), refresh.into());
        }
        Self::json(StatusCode::OK, &body).with_field(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }
}

/// Why there are no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Name or password is wrong, or the user is disabled: which one nobody is told.
    Credentials,
    /// The token is none of this service, was used or taken back.
    Token,
    /// The token was good once.
    Expired,
    /// Too many failures; how long to wait.
    TooMany(Duration),
    /// More passwords are being checked than can be.
    Busy,
    /// The service that knows the users does not answer as it should.
    VerifierFailed,
    /// The state store failed. Its words are for the log.
    Store(String),
    /// It cannot be done at all.
    Internal,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a token service cannot work");
        Self::Store(error.to_string())
    }
}

/// How long a client waits that came when too many did.
const BUSY: Duration = Duration::from_secs(2);

impl From<Refused> for Box<Rejection> {
    fn from(refused: Refused) -> Self {
        let challenged = |message: &'static str, challenge: &'static str| {
            Rejection::new(Code::UNAUTHORIZED, message)
                .with_field(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
        };
        let after = |code, message: &'static str, wait: Duration| {
            Rejection::new(code, message).with_field(RETRY_AFTER, HeaderValue::from(seconds_up(wait).max(1)))
        };
        Box::new(match refused {
            Refused::Credentials => challenged("Invalid credentials", "Bearer"),
            Refused::Token => challenged("Invalid token", r#"Bearer error="invalid_token""#),
            Refused::Expired => challenged("Token expired", r#"Bearer error="invalid_token""#),
            Refused::TooMany(wait) => after(Code::RATE_LIMITED, "Too many failed logins", wait),
            Refused::Busy => after(Code::OVERLOADED, "Too many logins at once", BUSY),
            Refused::VerifierFailed => Rejection::new(Code::BAD_GATEWAY, "Credentials cannot be checked now"),
            Refused::Store(_) => Rejection::new(Code::STATE_UNAVAILABLE, "Tokens cannot be issued now"),
            Refused::Internal => Rejection::new(Code::INTERNAL, "Tokens cannot be issued"),
        })
    }
}
