//! `redirect`: tells the client to ask elsewhere.
//!
//! Use it for moved paths, for HTTP to HTTPS, for one host name to another. Its neighbour is the filter `rewrite`, which changes
//! what the service is asked without the client knowing.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `to` | where to: a template that begins with `/`, `https://` or `http://` | required |
//! | `status` | `301`, `302`, `303`, `307` or `308` | `308` |
//! | `keep_query` | append the query of the request | `true`, unless `to` has a `?` |
//!
//! 308 and 307 keep method and body; 303 makes it a GET; after 301 and 302 browsers make a POST a GET.
//!
//! A redirect never leads where only the client says. In `https://…` the host is literal or `{host}`, the one that was
//! asked; other variables can stand in path, query and fragment. (`{host}` is what the client wrote: give such a route `hosts`.)
//! Without a host the answer stays on this one: a target that begins with `//`, as `/{query.next}` can, is refused with 400
//! `BAD_REQUEST`. What no URI may hold (spaces, control characters, `\`, quotes) is percent-encoded, so no field can be smuggled
//! in. Refused when the configuration is read: any other form of `to`, any other status.
//!
//! Source: [RFC 9110 §15.4](https://www.rfc-editor.org/rfc/rfc9110#section-15.4),
//! [CWE-601](https://cwe.mitre.org/data/definitions/601.html).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! routes:
//!   - name: to-https
//!     match: { hosts: [www.example.com], path: "/{*rest}" }
//!     redirect: { to: "https://{host}{path}" }
//!   - name: moved
//!     match: GET /old/{id}
//!     redirect: { to: "/new/{path.id}", status: 301, keep_query: false }
//! tests:
//!   - request: GET /a/b?c=1
//!     headers: { Host: www.example.com }
//!     expect: { status: 308, headers: { Location: "https://www.example.com/a/b?c=1" } }
//!   - request: GET /old/7?c=1
//!     expect: { status: 301, headers: { Location: /new/7 } }
//! ```

use std::fmt::Write;

use http::header;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Settings;
use crate::context::Context;
use crate::contract::{AnyHandler, Compiler, Handler};
use crate::head::{HeaderValue, RequestHead, StatusCode};
use crate::reply::{Code, Rejection, Reply};
use crate::template::{Escape, Template};
use crate::yaml::{Located, Problem};

/// Longest `Location`: beyond it clients give up.
const LOCATION_BYTES_MAX: usize = 64 * 1024;

/// Tells the client to ask elsewhere.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct RedirectSettings {
    /// Where to: a template that begins with `/`, `https://` or `http://`.
    to: Located<String>,
    /// 301, 302, 303, 307 or 308. Default 308.
    status: Option<Located<u16>>,
    /// Append the query of the request. Default true, unless `to` has a `?`.
    keep_query: Option<bool>,
}

impl Settings for RedirectSettings {
    const NAME: &'static str = "redirect";
    const SUMMARY: &'static str = "tells the client to ask elsewhere";

    fn build(self, compiler: &mut Compiler) -> Option<AnyHandler> {
        let template = compiler.template(&self.to);
        let has_host = match destination(&self.to) {
            Ok(has_host) => Some(has_host),
            Err(hint) => {
                let message = format!("`{}` could lead anywhere", self.to.value.escape_debug());
                compiler.report(Problem::new(self.to.place, message).with_hint(hint));
                None
            }
        };
        let status = match self.status {
            None => Some(StatusCode::PERMANENT_REDIRECT),
            Some(written) => {
                let status = StatusCode::from_u16(written.value).ok();
                let status = status.filter(|status| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308));
                if status.is_none() {
                    let problem = Problem::new(written.place, format!("{} is no status of a redirect", written.value));
                    compiler.report(problem.with_hint("301, 302, 303, 307 or 308"));
                }
                status
            }
        };
        Some(AnyHandler::of(Redirect {
            keep_query: self.keep_query.unwrap_or(!self.to.contains('?')),
            to: template?,
            has_host: has_host?,
            status: status?,
        }))
    }
}

/// Whether `to` names a host; the hint when it is neither that nor a path of this host.
fn destination(to: &str) -> Result<bool, &'static str> {
    const FORMS: &str = "begin with `/`, `{path}`, `https://example.com` or `https://{host}`";
    if to.starts_with('/') || to.starts_with("{path}") {
        let is_foreign = to.starts_with("//") || to.starts_with("/\\");
        if to.starts_with("/{path}") {
            return Err("`{path}` begins with a `/` itself: write `{path}`");
        }
        return if is_foreign { Err("write the scheme: `https://example.com/…`") } else { Ok(false) };
    }
    let schemes = ["https://", "http://", "{scheme}://"];
    let authority = schemes.iter().find_map(|scheme| to.strip_prefix(scheme)).ok_or(FORMS)?;
    // `{path}` begins with a `/`, so that it ends the authority.
    let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    let (authority, _) = authority.split_at(end.min(authority.find("{path}").unwrap_or(end)));
    let literal = authority.replacen("{host}", "h", 1);
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if literal.is_empty() || literal.starts_with(':') || !literal.bytes().all(is_host) {
        return Err("the host is literal or `{host}`; other variables can stand behind the `/`");
    }
    Ok(true)
}

struct Redirect {
    to: Template,
    has_host: bool,
    status: StatusCode,
    keep_query: bool,
}

impl Handler for Redirect {
    fn answer(&self, request: &dyn RequestHead, context: &Context) -> Result<Reply, Box<Rejection>> {
        let mut rendered = Vec::new();
        self.to.render(request, context, Escape::None, &mut rendered);
        let mut location = uri(&rendered);
        if let (true, Some(query)) = (self.keep_query, request.query()) {
            location = with_query(&location, &uri(query.as_bytes()));
        }
        // An HTTP/1.0 request may lack a host; browsers would take the next segment of the path for it.
        let place =
            if self.has_host { location.split_once("//").map(|(_, place)| place) } else { location.strip_prefix('/') };
        let is_sound = place.is_some_and(|place| !place.starts_with('/') && (!self.has_host || !place.is_empty()));
        let value = HeaderValue::try_from(location).ok().filter(|value| is_sound && value.len() <= LOCATION_BYTES_MAX);
        match value {
            Some(value) => Ok(Reply::new(self.status).with_field(header::LOCATION, value)),
            None => Err(Box::new(Rejection::new(
                Code::BAD_REQUEST,
                "this request would be redirected to no place of this host",
            ))),
        }
    }
}

/// The query goes before the fragment.
fn with_query(location: &str, query: &str) -> String {
    let (target, fragment) = match location.split_once('#') {
        Some((target, fragment)) => (target, Some(fragment)),
        None => (location, None),
    };
    let separator = if target.contains('?') { '&' } else { '?' };
    match fragment {
        Some(fragment) => format!("{target}{separator}{query}#{fragment}"),
        None => format!("{target}{separator}{query}"),
    }
}

/// The text with every byte percent-encoded that no URI may hold
/// ([RFC 3986 §2](https://www.rfc-editor.org/rfc/rfc3986#section-2)).
fn uri(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::testing::{context, request};
    use crate::handlers::testing::{handler, refused};
    use crate::head::Method;

    fn location(settings: &str, target: &str, fields: &[(&str, &str)]) -> Result<String, &'static str> {
        match handler::<RedirectSettings>(settings).answer(&request(Method::GET, target, fields), &context()) {
            Ok(reply) => {
                assert!(reply.status.is_redirection());
                Ok(reply.fields[0].1.to_str().unwrap().to_owned())
            }
            Err(rejection) => Err(rejection.code.name),
        }
    }

    fn to(to: &str, target: &str) -> Result<String, &'static str> {
        location(&format!("{{ to: '{to}' }}"), target, &[])
    }

    #[test]
    fn path_and_query_are_kept() {
        assert_eq!(to("https://{host}{path}", "/a/b?c=1").unwrap(), "https://api.example.com/a/b?c=1");
        assert_eq!(to("{scheme}://www.example.com:8443/x{path}", "/a").unwrap(), "http://www.example.com:8443/x/a");
        assert_eq!(to("/new#part", "/a?c=1").unwrap(), "/new?c=1#part");
        assert_eq!(to("/new?a=b", "/a?c=1").unwrap(), "/new?a=b");
        assert_eq!(location("{ to: '/new?a=b', keep_query: true }", "/?c", &[]).unwrap(), "/new?a=b&c");
        assert_eq!(location("{ to: /new, keep_query: false }", "/?c", &[]).unwrap(), "/new");
    }

    #[test]
    fn a_target_without_a_host_stays_on_this_one() {
        assert_eq!(to("/{query.next}", "/?next=a/b").unwrap(), "/a/b?next=a/b");
        assert_eq!(to("/{query.next}", "/?next=/evil.example"), Err("BAD_REQUEST"));
        assert_eq!(to("{path}", "//evil.example"), Err("BAD_REQUEST"));
        let header = "{ to: '/{header.x-next}' }";
        assert_eq!(location(header, "/", &[("x-next", "\\evil.example")]).unwrap(), "/%5Cevil.example");
        assert_eq!(location(header, "/", &[("x-next", "\t/evil.example")]).unwrap(), "/%09/evil.example");
        assert_eq!(location(header, "/", &[("x-next", "/evil.example")]), Err("BAD_REQUEST"));
    }

    #[test]
    fn a_request_without_a_host_is_not_sent_to_its_path() {
        let mut request = request(Method::GET, "/evil.example", &[]);
        request.host.clear();
        for to in ["https://{host}{path}", "https://{host}"] {
            let answer = handler::<RedirectSettings>(&format!("{{ to: '{to}' }}")).answer(&request, &context());
            assert_eq!(answer.unwrap_err().code, Code::BAD_REQUEST);
        }
    }

    #[test]
    fn a_host_that_only_the_client_says_is_refused_when_it_is_written() {
        for bad in [
            "{query.next}",
            "https://{header.x-host}/",
            "https://{path.tenant}.example.com/",
            "https://user@example.com/",
            "https://example.com{query.x}",
            "https://",
            "https://{path}",
            "https://:80/",
            "//example.com",
            "/\\\\example.com",
            "/{path}",
            "javascript:alert(1)",
            "ftp://example.com/",
            "new",
            "",
        ] {
            assert!(
                refused::<RedirectSettings>(&format!("{{ to: \"{bad}\" }}")).contains("could lead anywhere"),
                "{bad}"
            );
        }
        for fine in
            ["https://example.com", "https://[::1]:80/a", "https://{host}:8443{path}", "https://a.example?b={path}"]
        {
            handler::<RedirectSettings>(&format!("{{ to: '{fine}' }}"));
        }
    }

    #[test]
    fn nothing_can_be_smuggled_into_the_field() {
        let settings = "{ to: '/a?q={header.x-q}' }";
        let rendered = location(settings, "/", &[("x-q", "a b\"<>\\ü")]).unwrap();
        assert_eq!(rendered, "/a?q=a%20b%22%3C%3E%5C%C3%BC");
        let mut odd = request(Method::GET, "/", &[]);
        odd.query = Some("q=\r\nSet-Cookie: a".to_owned());
        let reply = handler::<RedirectSettings>("{ to: /a }").answer(&odd, &context()).unwrap();
        assert_eq!(reply.fields[0].1, "/a?q=%0D%0ASet-Cookie:%20a");
    }

    #[test]
    fn only_redirects_are_redirects() {
        for status in [301, 302, 303, 307, 308] {
            let handler = handler::<RedirectSettings>(&format!("{{ to: /a, status: {status} }}"));
            let reply = handler.answer(&request(Method::GET, "/", &[]), &context()).unwrap();
            assert_eq!(reply.status.as_u16(), status);
        }
        for status in ["200", "300", "304", "305", "306", "309", "399"] {
            assert!(
                refused::<RedirectSettings>(&format!("{{ to: /a, status: {status} }}")).contains("or 308"),
                "{status}"
            );
        }
        assert!(refused::<RedirectSettings>("{}").contains("missing key `to`"));
        assert!(refused::<RedirectSettings>("{ to: '/{nope}' }").contains("unknown variable"));
    }
}
