//! `cors`: lets pages of other origins read what this route answers, and answers the preflights of their browsers.
//!
//! Place it before whatever asks for credentials: a preflight carries none, and ends here. CORS is a permission to browsers,
//! not an access control: a request of an origin that is not allowed still reaches the service, only its page cannot read
//! the answer. Its neighbour `allow_ips` refuses requests.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `origins` | `https://a.example`, `https://*.example.com` (one or more labels, not `example.com` itself), or `["*"]` alone | required |
//! | `methods` | what a preflight is told | GET, HEAD, POST, PUT, PATCH, DELETE and the method asked for, when the route takes it |
//! | `headers` | request fields a page may set; `["*"]` for any | Accept, Authorization, Content-Type, X-API-Key, X-Request-Id |
//! | `expose` | response fields a page may read; `["*"]` for any, without `credentials` | only those every page may read |
//! | `credentials` | cookies and HTTP authentication are allowed; the origin is always reflected, never `*` | `false` |
//! | `max_age` | how long a browser remembers a preflight, in whole seconds, at most `24h` | `10m` |
//!
//! * A preflight is an `OPTIONS` with `Origin` and `Access-Control-Request-Method`. It gets 204 here; later filters and the handler
//!   never see it. When its origin is not allowed the 204 has no CORS fields, and the browser stops: the preflight is no error, so
//!   there is no error to count; and it is not forwarded either, for a service could allow what the gateway does not.
//! * All other answers, the gateway's own refusals included, get their fields on the way out. CORS fields that the service set are
//!   replaced: two sets of them would make browsers refuse both.
//! * `Vary: Origin` is added whenever the answer depends on the origin, that is always but for `["*"]` without credentials.
//! * A filter behind this one that removes `Origin` from the request takes the fields from the answer too.
//!
//! Refused when the configuration is read: `["*"]` with `credentials` (any site could act for your users), `*` beside other
//! origins, `null` (every sandboxed page has that origin), an origin with a path, a default port or capitals, since browsers
//! never send one.
//!
//! Source: [Fetch §3.3](https://fetch.spec.whatwg.org/#http-cors-protocol),
//! [RFC 6454](https://www.rfc-editor.org/rfc/rfc6454#section-6.2).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! routes:
//!   - name: tasks
//!     match: GET,POST /tasks
//!     filters:
//!       - cors:
//!           origins: ["https://dashboard.example.com", "https://*.example.org"]
//!           credentials: true
//!           max_age: 1h
//!     respond: { json: { tasks: [] } }
//! tests:
//!   - request: OPTIONS /tasks
//!     headers: { Origin: "https://dashboard.example.com", Access-Control-Request-Method: POST }
//!     expect:
//!       status: 204
//!       headers:
//!         Access-Control-Allow-Origin: https://dashboard.example.com
//!         Access-Control-Allow-Credentials: "true"
//!         Access-Control-Max-Age: "3600"
//!   - request: GET /tasks
//!     headers: { Origin: "https://a.example.org" }
//!     expect: { status: 200, headers: { Access-Control-Allow-Origin: "https://a.example.org", Vary: Origin } }
//! ```

mod origins;

use std::time::Duration;

use http::header;
use schemars::JsonSchema;
use serde::Deserialize;

use self::origins::Origins;
use crate::context::Context;
use crate::contract::{Compiler, Filter, Hooks, Settings, Step, Verdict};
use crate::head::{HeaderName, HeaderValue, Method, RequestHead, ResponseHead, StatusCode};
use crate::reply::Reply;
use crate::types::Period;
use crate::yaml::{Located, Problem};

/// Longest `max_age`: browsers remember no longer (Firefox 24 hours, Chromium 2).
const MAX_AGE_MAX: Duration = Duration::from_secs(86_400);
const MAX_AGE_DEFAULT: Duration = Duration::from_secs(600);

const METHODS_DEFAULT: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const HEADERS_DEFAULT: &str = "Accept, Authorization, Content-Type, X-API-Key, X-Request-Id";

/// Lets pages of other origins use this route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct CorsSettings {
    /// `https://a.example`, `https://*.example.com`, or `*` alone.
    origins: Located<Vec<Located<String>>>,
    /// Methods a page may use. Default: the usual ones and the one asked for, when the route takes it.
    methods: Option<Vec<Located<String>>>,
    /// Request fields a page may set, or `*` alone. Default: Accept, Authorization, Content-Type, X-API-Key, X-Request-Id.
    headers: Option<Vec<Located<String>>>,
    /// Response fields a page may read, or `*` alone. Default: only those every page may read.
    #[serde(default)]
    expose: Vec<Located<String>>,
    /// Whether cookies and HTTP authentication are allowed. Default false.
    #[serde(default)]
    credentials: bool,
    /// How long a browser remembers a preflight, at most 24h. Default 10m.
    max_age: Option<Located<Period>>,
}

impl Settings for CorsSettings {
    const NAME: &'static str = "cors";
    const SUMMARY: &'static str = "lets pages of other origins use the route; answers preflights";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        let origins = Origins::compile(&self.origins, self.credentials, compiler);
        let methods = self.methods.as_ref().map(|names| methods(names, compiler));
        let headers = match &self.headers {
            None => AllowedHeaders::Listed(HeaderValue::from_static(HEADERS_DEFAULT)),
            Some(names) if is_any(names) => AllowedHeaders::Asked,
            Some(names) => AllowedHeaders::Listed(field_names(names, compiler)),
        };
        if let (true, true, Some(any)) = (self.credentials, is_any(&self.expose), self.expose.first()) {
            let problem = Problem::new(any.place, "with `credentials` a browser takes `*` for the name of a field");
            compiler.report(problem.with_hint("list the fields"));
        }
        let expose = match self.expose.as_slice() {
            [] => None,
            names if is_any(names) => Some(HeaderValue::from_static("*")),
            names => Some(field_names(names, compiler)),
        };
        let max_age = self.max_age.map_or(MAX_AGE_DEFAULT, |age| bounded(age, compiler));
        Some(Step::filter(Cors {
            origins: origins?,
            methods,
            headers,
            expose,
            credentials: self.credentials,
            max_age: HeaderValue::from(max_age.as_secs()),
        }))
    }
}

fn bounded(age: Located<Period>, compiler: &mut Compiler) -> Duration {
    let Period(duration) = age.value;
    if duration > MAX_AGE_MAX || duration.subsec_nanos() != 0 {
        let message = format!("`{}` is no age that a browser could remember", age.value);
        compiler.report(Problem::new(age.place, message).with_hint("whole seconds, at most 24h"));
    }
    duration
}

fn is_any(names: &[Located<String>]) -> bool {
    matches!(names, [only] if only.value == "*")
}

fn methods(names: &[Located<String>], compiler: &mut Compiler) -> HeaderValue {
    let known = names.iter().filter_map(|name| {
        let is_upper = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if is_upper && !name.is_empty() {
            return Some(name.value.as_str());
        }
        let problem = Problem::new(name.place, format!("`{}` is no method", name.value));
        compiler.report(problem.with_hint("methods are in capitals; leave `methods` out for the usual ones"));
        None
    });
    list(&known.collect::<Vec<&str>>())
}

fn field_names(names: &[Located<String>], compiler: &mut Compiler) -> HeaderValue {
    let known = names.iter().filter_map(|name| {
        if name.value == "*" || HeaderName::from_bytes(name.as_bytes()).is_err() {
            let problem = Problem::new(name.place, format!("`{}` is no field name", name.value));
            compiler.report(problem.with_hint("list names, or write `[\"*\"]` alone for any"));
            return None;
        }
        Some(name.value.as_str())
    });
    list(&known.collect::<Vec<&str>>())
}

/// Names are checked before: the join is always a field value.
fn list(names: &[&str]) -> HeaderValue {
    HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

enum AllowedHeaders {
    Listed(HeaderValue),
    /// Those the preflight asks for: a literal `*` covers neither `Authorization` nor requests with credentials.
    Asked,
}

struct Cors {
    origins: Origins,
    /// `None`: the usual ones and the one asked for.
    methods: Option<HeaderValue>,
    headers: AllowedHeaders,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

impl Filter for Cors {
    fn hooks(&self) -> Hooks {
        Hooks { request: true, response: true, preflight: true }
    }

    fn on_request(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        if context.preflight || is_preflight(request) {
            return Verdict::Reply(Box::new(self.preflight(request, context.preflight)));
        }
        Verdict::Continue
    }

    fn on_response(&self, request: &dyn RequestHead, response: &mut dyn ResponseHead, _: &Context) {
        for name in [
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            header::ACCESS_CONTROL_ALLOW_METHODS,
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            header::ACCESS_CONTROL_MAX_AGE,
        ] {
            response.remove(&name);
        }
        if !self.origins.is_any() && !varies_by_origin(response) {
            response.append(&header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = self.origins.answer(request.get(&header::ORIGIN)) else { return };
        response.set(&header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            response.set(&header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose {
            response.set(&header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

impl Cors {
    fn preflight(&self, request: &dyn RequestHead, route_takes_method: bool) -> Reply {
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        let reply = Reply::new(StatusCode::NO_CONTENT).with_field(header::VARY, HeaderValue::from_static(vary));
        let Some(origin) = self.origins.answer(request.get(&header::ORIGIN)) else {
            return reply;
        };
        let mut reply = reply
            .with_field(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)
            .with_field(header::ACCESS_CONTROL_ALLOW_METHODS, self.allowed_methods(request, route_takes_method))
            .with_field(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        if self.credentials {
            reply = reply.with_field(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        let headers = match &self.headers {
            AllowedHeaders::Listed(names) => Some(names.clone()),
            AllowedHeaders::Asked => request.get(&header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(asked_names),
        };
        match headers {
            Some(headers) => reply.with_field(header::ACCESS_CONTROL_ALLOW_HEADERS, headers),
            None => reply,
        }
    }

    fn allowed_methods(&self, request: &dyn RequestHead, route_takes_method: bool) -> HeaderValue {
        if let Some(methods) = &self.methods {
            return methods.clone();
        }
        let usual = HeaderValue::from_static(METHODS_DEFAULT);
        let asked = request.get(&header::ACCESS_CONTROL_REQUEST_METHOD).and_then(|name| Method::from_bytes(name).ok());
        match asked {
            Some(method)
                if route_takes_method && !METHODS_DEFAULT.split(", ").any(|known| known == method.as_str()) =>
            {
                HeaderValue::try_from(format!("{METHODS_DEFAULT}, {method}")).unwrap_or(usual)
            }
            _ => usual,
        }
    }
}

fn is_preflight(request: &dyn RequestHead) -> bool {
    request.method() == Method::OPTIONS
        && request.has(&header::ORIGIN)
        && request.has(&header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The list a preflight asks for, when it holds nothing but field names: it is reflected into the answer.
fn asked_names(list: &[u8]) -> Option<HeaderValue> {
    let are_names = list.split(|byte| *byte == b',').all(|name| HeaderName::from_bytes(name.trim_ascii()).is_ok());
    if are_names { HeaderValue::from_bytes(list).ok() } else { None }
}

fn varies_by_origin(response: &dyn ResponseHead) -> bool {
    let mut varies = false;
    response.each(&header::VARY, &mut |list| {
        varies |= list.split(|byte| *byte == b',').any(|name| {
            let name = name.trim_ascii();
            name == b"*" || name.eq_ignore_ascii_case(b"origin")
        });
    });
    varies
}

#[cfg(test)]
mod tests;
