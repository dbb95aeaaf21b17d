//! Bodies in JSON, for handlers that take one.

use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;

use crate::head::RequestHead;
use crate::reply::{Code, Rejection};
use crate::types::names_credential;

/// Decodes a JSON body. Clients learn what is wrong with it and nothing of what is in it.
///
/// Only `application/json` is taken: a page of another site can send a form to any address, and JSON only where CORS lets it.
///
/// # Errors
/// 400 `VALIDATION_ERROR`.
pub fn json_body<T: DeserializeOwned>(request: &dyn RequestHead, body: &[u8]) -> Result<T, Box<Rejection>> {
    let refused = |message: &'static str| Box::new(Rejection::new(Code::VALIDATION_ERROR, message));
    let content_type = request.text(&CONTENT_TYPE).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(refused("the body must be JSON, with `Content-Type: application/json`"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let message = match error.classify() {
            serde_json::error::Category::Data => "the body lacks a member, or has one of a wrong type",
            _ => "the body is not valid JSON",
        };
        let mut rejection = refused(message);
        rejection.details.insert("line".to_owned(), error.line().into());
        rejection.details.insert("column".to_owned(), error.column().into());
        rejection
    })
}

/// Refuses a request with something like a password or a token in its query, where histories and logs keep it.
///
/// # Errors
/// 400 `VALIDATION_ERROR`.
pub fn no_credentials_in_query(request: &dyn RequestHead) -> Result<(), Box<Rejection>> {
    let mut names = request.query().unwrap_or_default().split('&').map(|pair| pair.split('=').next().unwrap_or(pair));
    if names.any(names_credential) {
        let message = "credentials travel in the body, never in the query; take these for known to others";
        return Err(Box::new(Rejection::new(Code::VALIDATION_ERROR, message)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::contract::testing::get;
    use crate::head::{HeaderValue, Headers as _};

    #[derive(Deserialize)]
    struct Body {
        secret: String,
    }

    fn decoded(content_type: &str, body: &str) -> Result<String, String> {
        let mut request = get("/");
        request.set(&CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        let decoded = json_body::<Body>(&request, body.as_bytes());
        decoded.map(|body| body.secret).map_err(|rejection| format!("{rejection:?}"))
    }

    #[test]
    fn only_json_is_taken_and_nothing_of_it_is_told() {
        assert_eq!(decoded("application/json", r#"{"secret": "s"}"#).unwrap(), "s");
        assert_eq!(decoded("Application/JSON; charset=utf-8", r#"{"secret": "s"}"#).unwrap(), "s");
        for other in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            assert!(decoded(other, r#"{"secret": "s"}"#).unwrap_err().contains("must be JSON"), "{other}");
        }
        for bad in [r#"{"secret": "hunter2"#, r#"{"secret": ["hunter2"]}"#, r#""hunter2""#, "hunter2", ""] {
            let told = decoded("application/json", bad).unwrap_err();
            assert!(!told.contains("hunter2") && told.contains("VALIDATION_ERROR"), "{told}");
        }
        assert!(decoded("application/json", "{}").unwrap_err().contains("lacks a member"));
        assert!(decoded("application/json", r#"{"secret": "a", "secret": "b"}"#).is_err(), "twice");
    }

    #[test]
    fn a_query_with_a_credential_is_refused() {
        for bad in ["/?password=x", "/?a=b&Passwd=x", "/?refresh_token", "/?username=a&password="] {
            assert!(no_credentials_in_query(&get(bad)).is_err(), "{bad}");
        }
        for good in ["/", "/?", "/?next=password", "/?lang=en"] {
            assert!(no_credentials_in_query(&get(good)).is_ok(), "{good}");
        }
    }
}
