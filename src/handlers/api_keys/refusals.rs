//! Refusals that are not about a member of a body.

use http::header;

use super::Refused;
use super::subject::Subject;
use crate::head::HeaderValue;
use crate::identity::managed::WriteError;
use crate::reply::{Code, Rejection};
use crate::state::StoreError;

pub fn method_not_allowed(subject: &Subject<'_>) -> Refused {
    let allow = match subject {
        Subject::All => "GET, POST",
        Subject::One(_) => "GET, PUT, DELETE",
        Subject::Usage(_) => "GET",
        Subject::Rotation(_) => "POST",
    };
    let rejection = Rejection::new(Code::METHOD_NOT_ALLOWED, format!("this is there for {allow} only"));
    Box::new(rejection.with_field(header::ALLOW, HeaderValue::from_static(allow)))
}

pub fn not_found() -> Refused {
    Box::new(Rejection::new(Code::NOT_FOUND, "there is no such API key"))
}

pub fn internal() -> Refused {
    Box::new(Rejection::new(Code::INTERNAL, "no key could be made"))
}

pub fn unavailable(error: &StoreError) -> Refused {
    tracing::warn!(%error, "API keys cannot be managed now");
    Box::new(Rejection::new(Code::STATE_UNAVAILABLE, "API keys cannot be managed now; try again"))
}

pub fn failed(error: &WriteError) -> Refused {
    match error {
        WriteError::Store(error) => unavailable(error),
        WriteError::NotFound => not_found(),
        WriteError::Full => Box::new(Rejection::new(Code::FORBIDDEN, "there are as many API keys as there may be")),
        WriteError::Conflict => unavailable(&StoreError(error.to_string())),
    }
}
