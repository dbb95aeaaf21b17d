//! `respond`: answers with a fixed status, fields and body, into which values of the request can be written.
//!
//! Use it for stubs, for pages that say "gone" or "soon", for `robots.txt`. Its neighbours are `redirect`, which sends the
//! client elsewhere, and `health`, which knows what to say.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `status` | 200 to 599 | `200` |
//! | `headers` | fields of the answer; values are templates | none |
//! | `body` | text of the body, a template; at most 1 MiB and 100 variables | no body |
//! | `json` | a YAML value that is sent as JSON; every string in it is a template | no body |
//! | `content_type` | media type of the body | `text/plain; charset=utf-8`, for `json` `application/json` |
//!
//! Values are escaped for where they land: as in a JSON string for JSON and JavaScript, as in HTML text for HTML and XML, not
//! at all for the rest. So a client cannot write markup into the body, as long as variables in HTML stand in text or in a
//! quoted attribute. A text without variables is prepared once. `{{` and `}}` in `body` stand for braces.
//!
//! Refused when the configuration is read: both `body` and `json`, a body with 204, 205 or 304, a status that is not final,
//! fields that belong to the gateway, `Content-Type` in `headers` (that is `content_type`).
//!
//! Source: [RFC 9110 §15](https://www.rfc-editor.org/rfc/rfc9110#section-15).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! routes:
//!   - name: user
//!     match: GET /users/{id}
//!     respond:
//!       headers: { X-User: "{path.id}" }
//!       json: { id: "{path.id}", tags: [a, b], active: true }
//!   - name: gone
//!     match: GET /old
//!     respond: { status: 410, content_type: text/html, body: "<p>Gone, {client_ip}.</p>" }
//! tests:
//!   - request: GET /users/7
//!     expect: { status: 200, headers: { Content-Type: application/json, X-User: "7" } }
//!   - request: GET /old
//!     expect: { status: 410, headers: { Content-Type: text/html } }
//! ```

mod document;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Settings;
use crate::context::Context;
use crate::contract::{AnyHandler, Compiler, Handler};
use crate::head::{HeaderName, HeaderValue, RequestHead, StatusCode};
use crate::reply::{Rejection, Reply};
use crate::template::{Escape, FieldTemplate, Template};
use crate::yaml::{Located, Node, Problem};

/// Longest text of a body.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Most variables of a body: each renders to no more than a request head holds.
const VARIABLES_MAX: usize = 100;

/// Answers with a fixed status, fields and body.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RespondSettings {
    /// 200 to 599. Default 200.
    #[schemars(range(min = 200, max = 599))]
    status: Option<Located<u16>>,
    /// Fields of the answer. Values are templates.
    headers: BTreeMap<String, Located<String>>,
    /// Text of the body, a template; at most 1 MiB.
    body: Option<Located<String>>,
    /// A value that is sent as JSON. Every string in it is a template.
    json: Option<Node>,
    /// Media type of the body. Default `text/plain; charset=utf-8`, for `json` `application/json`.
    content_type: Option<Located<String>>,
}

impl Settings for RespondSettings {
    const NAME: &'static str = "respond";
    const SUMMARY: &'static str = "answers with a fixed status, fields and body";

    fn build(self, compiler: &mut Compiler) -> Option<AnyHandler> {
        let status = self.status(compiler);
        let mut fields = Vec::new();
        for (name, text) in &self.headers {
            let field = compiler.field_name(name, text.place);
            if field == Some(header::CONTENT_TYPE) {
                let problem = Problem::new(text.place, "`Content-Type` decides how values in the body are escaped");
                compiler.report(problem.with_hint("write `content_type` beside `headers`"));
            }
            fields.extend(field.zip(compiler.field_value(text)));
        }
        let content_type = self.content_type(compiler);
        let body = self.body(content_type.as_ref(), compiler);
        if !matches!(body, Some(Body::Empty)) {
            fields.extend(content_type.map(|value| (header::CONTENT_TYPE, FieldTemplate::Constant(value))));
        }
        Some(AnyHandler::of(Respond { status: status?, fields, body: body? }))
    }
}

impl RespondSettings {
    fn status(&self, compiler: &mut Compiler) -> Option<StatusCode> {
        let Some(written) = self.status else {
            return Some(StatusCode::OK);
        };
        let status = StatusCode::from_u16(written.value).ok().filter(|_| (200..=599).contains(&written.value));
        if status.is_none() {
            let problem = Problem::new(written.place, format!("{} is no status of an answer", written.value));
            compiler.report(problem.with_hint("200 to 599"));
        }
        if matches!(written.value, 204 | 205 | 304) && (self.body.is_some() || self.json.is_some()) {
            let problem = Problem::new(written.place, format!("an answer with status {} has no body", written.value));
            compiler.report(problem.with_hint("drop `body` and `json`, or choose another status"));
        }
        status
    }

    fn content_type(&self, compiler: &mut Compiler) -> Option<HeaderValue> {
        let Some(written) = &self.content_type else {
            let default = if self.json.is_some() { "application/json" } else { "text/plain; charset=utf-8" };
            return Some(HeaderValue::from_static(default));
        };
        let is_type = written.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty());
        let value = HeaderValue::from_str(written).ok().filter(|_| is_type && written.is_ascii());
        if value.is_none() {
            let problem = Problem::new(written.place, format!("`{}` is no media type", written.value.escape_debug()));
            compiler.report(problem.with_hint("write `text/html; charset=utf-8`"));
        }
        value
    }

    fn body(&self, content_type: Option<&HeaderValue>, compiler: &mut Compiler) -> Option<Body> {
        let text = match (&self.body, &self.json) {
            (Some(body), Some(json)) => {
                let problem = Problem::new(json.place, "an answer has one body: `body` or `json`, not both");
                compiler.report(problem.with_related("`body` is given", body.place));
                return None;
            }
            (Some(body), None) => body.clone(),
            (None, Some(json)) => Located::new(document::template(json, compiler)?, json.place),
            (None, None) => return Some(Body::Empty),
        };
        let escape = if self.json.is_some() { Escape::Json } else { escape_for(content_type?.as_bytes()) };
        // Strings of a document were parsed one by one, at their own places.
        let template = if self.json.is_some() { Template::parse(&text).ok() } else { compiler.template(&text) }?;
        if text.len() > BODY_BYTES_MAX {
            let problem = Problem::new(text.place, format!("a body of {} bytes is too long", text.len()));
            compiler.report(problem.with_hint("at most 1 MiB; larger things are a service's business"));
        }
        if template.variables() > VARIABLES_MAX {
            let problem =
                Problem::new(text.place, format!("a body with {} variables is too much", template.variables()));
            compiler.report(problem.with_hint(format!("at most {VARIABLES_MAX}")));
        }
        Some(match template.constant() {
            Some(text) => Body::Constant(Bytes::copy_from_slice(text.as_bytes())),
            None => Body::Rendered(template, escape),
        })
    }
}

/// How values must be escaped in a body of this type.
fn escape_for(content_type: &[u8]) -> Escape {
    let text = String::from_utf8_lossy(content_type).to_ascii_lowercase();
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.contains("json") || essence.contains("javascript") || essence.contains("ecmascript") {
        Escape::Json
    } else if essence.contains("html") || essence.contains("xml") {
        Escape::Html
    } else {
        Escape::None
    }
}

enum Body {
    Empty,
    Constant(Bytes),
    Rendered(Template, Escape),
}

struct Respond {
    status: StatusCode,
    fields: Vec<(HeaderName, FieldTemplate)>,
    body: Body,
}

impl Handler for Respond {
    fn answer(&self, request: &dyn RequestHead, context: &Context) -> Result<Reply, Box<Rejection>> {
        let mut reply = Reply::new(self.status);
        let value = |(name, template): &(HeaderName, FieldTemplate)| {
            template.value(request, context).map(|value| (name.clone(), value))
        };
        reply.fields = self.fields.iter().filter_map(value).collect();
        reply.body = match &self.body {
            Body::Empty => Bytes::new(),
            Body::Constant(bytes) => bytes.clone(),
            Body::Rendered(template, escape) => {
                let mut body = Vec::new();
                template.render(request, context, *escape, &mut body);
                body.into()
            }
        };
        Ok(reply)
    }
}

#[cfg(test)]
mod tests;
