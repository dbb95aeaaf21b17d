//! Requests that came over plain HTTP to a listener with `https_redirect`: told to come again over HTTPS.

use http::header::LOCATION;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode};

use super::edge::Connection;
use super::heads::Seen;
use crate::context::{Context, Scheme};
use crate::head::RequestHead as _;
use crate::reply::{Code, Rejection, Reply};

/// Where authorities look, over plain HTTP, for who asks them for a certificate ([RFC 8555
/// §8.3](https://www.rfc-editor.org/rfc/rfc8555#section-8.3)).
const CHALLENGES: &str = "/.well-known/acme-challenge/";
const HTTPS: u16 = 443;

/// The answer that names the same address with HTTPS; `None` when the request may go on. The path is normalised, the host
/// settled.
pub fn redirect(
    head: &Parts,
    context: &Context,
    connection: Option<&Connection>,
) -> Result<Option<Box<Reply>>, Rejection> {
    let port = connection.and_then(|connection| connection.https_port);
    let Some(port) = port.filter(|_| context.scheme == Scheme::Http && !head.uri.path().starts_with(CHALLENGES)) else {
        return Ok(None);
    };
    let seen = Seen(head);
    // Without the port: it was that of plain HTTP.
    let host = seen.host();
    if host.is_empty() {
        return Err(Rejection::new(Code::BAD_REQUEST, "the request has no Host"));
    }
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let location =
        if port == HTTPS { format!("https://{host}{target}") } else { format!("https://{host}:{port}{target}") };
    let location = HeaderValue::try_from(location);
    let location = location.map_err(|_| Rejection::new(Code::BAD_REQUEST, "the request target is not valid"))?;
    // 308: a POST stays a POST.
    Ok(Some(Box::new(Reply::new(StatusCode::PERMANENT_REDIRECT).with_field(LOCATION, location))))
}
