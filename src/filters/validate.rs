//! `validate`: refuses requests whose body, path or query is not what the service takes, before the service sees them.
//!
//! Place it behind `auth` and limits: what they refuse costs no parsing. A body is gathered whole, checked, and then sent on
//! byte for byte; path and query are checked before a byte of the body is read. A filter that only has `path` and `query`
//! never touches the body.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `body` | the JSON Schema of the body: in YAML, or `${file:schemas/track.json}`; `true` takes any JSON | |
//! | `body_required` | an empty body is refused | `true` with `body`, otherwise `false` |
//! | `body_max` | largest body; the `body_max` of the route counts too | the route's |
//! | `content_type` | media types that are taken: `application/json`, `application/*+json`, `image/*` | with `body`: `application/json` and `application/*+json` |
//! | `depth_max` | how deep lists and objects may stand in each other, at most 100 | `32` |
//! | `path` | a JSON Schema for each path parameter | |
//! | `query` | a JSON Schema for each query parameter | |
//! | `query_required` | those that must be there | none |
//! | `query_unknown` | other query parameters: `allow` or `refuse` | `allow` |
//!
//! * What is not valid gets 400 `VALIDATION_ERROR`, `details` with `field` (`body.items[0].commit_hash`, `path.commit_id`,
//!   `query.limit`), `value` and `expected` of the first mistake, and `errors`, a list of up to 10. A `value` is at most 200 characters, that of
//!   a list or object only its size; where a name on the way to it looks like that of a credential, it is `[redacted]`.
//! * Of a body of more than 1,000 values only the first mistake is told; and with `anyOf`, `oneOf` or the like in the schema only that there is one.
//! * A wrong or missing `Content-Type`, a charset that is not UTF-8 and a compressed body get 415 `UNSUPPORTED_MEDIA_TYPE`; a body that is too
//!   large 413 `BODY_TOO_LARGE`.
//! * JSON is read strictly: UTF-8, nothing behind the value, no `NaN`, no member twice (a service could take the other one), no number beyond what
//!   64-bit floating point holds.
//! * Schemas are of draft 2020-12 unless their `$schema` says otherwise. `format` is checked. `pattern` is matched in linear time
//!   ([regex](https://docs.rs/regex)): there is no look-around and no back-reference.
//! * Text of path and query is percent-decoded; it is read as a number, integer or boolean when that is what the `type` of its schema says. A
//!   parameter that stands in the query twice is refused unless its type is `array`, and so is a `;`: some services part parameters there.
//! * Preflights that a `cors` filter of the route answers pass.
//!
//! Refused when the configuration is read: a schema that is not sound, with an unknown keyword (`x-…` may stand for your own) or an unknown
//! `format`, or with a `$ref` that leads outside of it (the gateway fetches nothing); a path parameter that the route does not have.
//!
//! Its neighbour `webhook` proves who sent a body; this one what it is.
//!
//! Source: [JSON Schema 2020-12](https://json-schema.org/draft/2020-12), [RFC 8259](https://www.rfc-editor.org/rfc/rfc8259),
//! [RFC 9110 §15.5.16](https://www.rfc-editor.org/rfc/rfc9110#section-15.5.16).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! routes:
//!   - name: commits.track
//!     match: POST /commits/{commit_id}/track
//!     filters:
//!       - validate:
//!           body_max: 256KiB
//!           path: { commit_id: { pattern: "^[0-9a-f]{40}$" } }
//!           query: { limit: { type: integer, minimum: 1, maximum: 100 } }
//!           body:
//!             type: object
//!             required: [branch]
//!             properties:
//!               branch: { type: string, maxLength: 100 }
//!     respond: { status: 202 }
//! tests:
//!   - request: POST /commits/4b825dc642cb6eb9a060e54bf8d69288fbee4904/track?limit=5
//!     headers: { Content-Type: application/json }
//!     body: '{"branch": "main"}'
//!     expect: { status: 202 }
//!   - request: POST /commits/not-a-commit/track
//!     headers: { Content-Type: application/json }
//!     body: '{"branch": "main"}'
//!     expect: { status: 400, code: VALIDATION_ERROR }
//!   - request: POST /commits/4b825dc642cb6eb9a060e54bf8d69288fbee4904/track
//!     headers: { Content-Type: application/json }
//!     body: '{"branch": 7}'
//!     expect: { status: 400, code: VALIDATION_ERROR }
//!   - request: POST /commits/4b825dc642cb6eb9a060e54bf8d69288fbee4904/track
//!     headers: { Content-Type: text/plain }
//!     body: '{"branch": "main"}'
//!     expect: { status: 415, code: UNSUPPORTED_MEDIA_TYPE }
//! ```

mod media;
mod mistake;
mod parameters;
mod schema;
mod words;

use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use self::media::MediaTypes;
use self::mistake::{Mistake, located};
use self::parameters::Parameters;
use self::schema::Schema;
use crate::context::Context;
use crate::contract::{BodyFilter, Compiler, Filter, Hooks, Pending, Settings, Step, Verdict};
use crate::head::RequestHead;
use crate::json::{self, Fault};
use crate::reply::Rejection;
use crate::types::Size;
use crate::yaml::{Located, Named, Node, Problem};

/// How deep a body may be nested when nobody says.
const DEPTH_DEFAULT: usize = 32;

/// Refuses requests whose body, path or query is not what the service takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ValidateSettings {
    /// The JSON Schema of the body: here, or `${file:schema.json}`. `true` takes any JSON.
    body: Option<Node>,
    /// Whether an empty body is refused. Default: true with `body`.
    body_required: Option<bool>,
    /// Largest body; the `body_max` of the route counts too.
    body_max: Option<Size>,
    /// Media types that are taken. Default with `body`: application/json and application/*+json.
    content_type: Option<Located<Vec<Located<String>>>>,
    /// How deep lists and objects may stand in each other, 1 to 100. Default 32.
    depth_max: Option<Located<u32>>,
    /// A JSON Schema for each path parameter.
    path: Named<Node>,
    /// A JSON Schema for each query parameter.
    query: Named<Node>,
    /// The query parameters that must be there.
    query_required: Vec<Located<String>>,
    /// What becomes of other query parameters. Default allow.
    query_unknown: Unknown,
}

/// What becomes of what nobody wrote down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unknown {
    #[default]
    Allow,
    Refuse,
}

impl Settings for ValidateSettings {
    const NAME: &'static str = "validate";
    const SUMMARY: &'static str = "refuses a body, path or query that is not what the service takes";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        let depth_max = self.depth(compiler);
        // A broken one is reported; what else is wrong is found all the same.
        let schema = self.body.as_ref().map(|node| Schema::compile(node, compiler));
        let is_broken = schema.as_ref().is_some_and(Option::is_none);
        let schema = schema.flatten().map(|(schema, _)| schema);
        let media_types = match &self.content_type {
            Some(written) => Some(MediaTypes::compile(written, compiler)),
            None => schema.as_ref().map(|_| MediaTypes::json()),
        };
        for (name, _) in self.path.iter() {
            compiler.located_path_parameter(name);
        }
        let head = Head {
            path: Parameters::compile(&self.path, "path", &[], compiler),
            query: Parameters::compile(&self.query, "query", &self.query_required, compiler),
            takes_other_query: self.query_unknown == Unknown::Allow,
        };
        let body_required = self.body_required.unwrap_or(schema.is_some());
        let has_body_rules = schema.is_some() || media_types.is_some() || self.body_max.is_some() || body_required;
        if has_body_rules {
            let bytes_max = self.body_max.map_or(u64::MAX, |Size(bytes)| bytes);
            let body = Body { schema, media_types, bytes_max, depth_max, is_required: body_required };
            return Some(Step::Body(Arc::new(Validate { head, body })));
        }
        if !head.checks_anything() && !is_broken {
            let problem = Problem::new(compiler.place(), "this validates nothing");
            compiler.report(problem.with_hint("give it `body`, `path` or `query`"));
        }
        Some(Step::filter(head))
    }
}

impl ValidateSettings {
    fn depth(&self, compiler: &mut Compiler) -> usize {
        let Some(written) = &self.depth_max else { return DEPTH_DEFAULT };
        let depth = usize::try_from(written.value).unwrap_or(usize::MAX);
        if !(1..=json::DEPTH_MAX).contains(&depth) {
            let message = format!("`depth_max` is a number from 1 to {}, not {depth}", json::DEPTH_MAX);
            compiler.report(Problem::new(written.place, message));
        } else if self.body.is_none() {
            let problem = Problem::new(written.place, "`depth_max` has nothing to look at without `body`");
            compiler.report(problem.with_hint("`body: true` takes any JSON"));
        }
        depth
    }
}

/// What the head alone decides.
struct Head {
    path: Parameters,
    query: Parameters,
    takes_other_query: bool,
}

impl Head {
    fn checks_anything(&self) -> bool {
        !self.path.is_empty() || !self.query.is_empty() || !self.takes_other_query
    }

    fn check(&self, request: &dyn RequestHead, context: &Context) -> Result<(), Rejection> {
        if !self.checks_anything() {
            return Ok(());
        }
        let mut mistakes = Vec::new();
        self.path.check_path(|name| context.captures.get(name), &mut mistakes);
        self.query.check_query(request.query().unwrap_or_default(), self.takes_other_query, &mut mistakes);
        if mistakes.is_empty() { Ok(()) } else { Err(mistake::refusal(mistakes)) }
    }
}

impl Filter for Head {
    fn hooks(&self) -> Hooks {
        Hooks::REQUEST
    }

    fn on_request(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        if context.preflight {
            return Verdict::Continue;
        }
        verdict(self.check(request, context))
    }
}

/// What a body has to be.
struct Body {
    schema: Option<Schema>,
    media_types: Option<MediaTypes>,
    bytes_max: u64,
    depth_max: usize,
    is_required: bool,
}

impl Body {
    /// Looks at what the head says of the body.
    fn check_head(&self, request: &dyn RequestHead) -> Result<(), Rejection> {
        match media::has_body(request) {
            Some(false) => Ok(()),
            announced => self.check_media(request, announced.unwrap_or(false)),
        }
    }

    fn check_media(&self, request: &dyn RequestHead, is_there: bool) -> Result<(), Rejection> {
        if let Some(media_types) = &self.media_types {
            media_types.check(request, is_there)?;
        }
        if self.schema.is_some() { media::check_coding(request) } else { Ok(()) }
    }

    fn check(&self, request: &dyn RequestHead, body: &Bytes) -> Result<(), Rejection> {
        if body.is_empty() {
            if !self.is_required {
                return Ok(());
            }
            return Err(mistake::refusal(vec![Mistake::new("body", "it to be there: it is required")]));
        }
        self.check_media(request, true)?;
        let Some(schema) = &self.schema else { return Ok(()) };
        let value =
            json::parse(body, self.depth_max).map_err(|fault| mistake::refusal(vec![self.unreadable(fault)]))?;
        let mistakes = schema.mistakes(&value, "body");
        if mistakes.is_empty() { Ok(()) } else { Err(mistake::refusal(mistakes)) }
    }

    fn unreadable(&self, fault: Fault) -> Mistake {
        match fault {
            Fault::Syntax { line, column } => {
                Mistake::new("body", format!("valid JSON; this one has a mistake at line {line}, column {column}"))
            }
            Fault::TooDeep => Mistake::new("body", format!("lists and objects nested at most {} deep", self.depth_max)),
            Fault::Twice(path) => Mistake::new(located("body", &path), "it to be there once"),
        }
    }
}

/// Checks head and body.
struct Validate {
    head: Head,
    body: Body,
}

impl BodyFilter for Validate {
    fn body_bytes_max(&self) -> u64 {
        self.body.bytes_max
    }

    fn on_head(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        if context.preflight {
            return Verdict::Continue;
        }
        verdict(self.head.check(request, context).and_then(|()| self.body.check_head(request)))
    }

    fn on_body<'a>(
        &'a self,
        request: &'a mut dyn RequestHead,
        body: &'a Bytes,
        context: &'a mut Context,
    ) -> Pending<'a> {
        let decided = if context.preflight { Verdict::Continue } else { verdict(self.body.check(request, body)) };
        Box::pin(std::future::ready(decided))
    }

    fn preview(&self, request: &mut dyn RequestHead, body: &Bytes, context: &mut Context) -> Verdict {
        match self.on_head(request, context) {
            Verdict::Continue if !context.preflight => verdict(self.body.check(request, body)),
            decided => decided,
        }
    }
}

fn verdict(checked: Result<(), Rejection>) -> Verdict {
    checked.map_or_else(|rejection| Verdict::Reject(Box::new(rejection)), |()| Verdict::Continue)
}

#[cfg(test)]
mod tests;
