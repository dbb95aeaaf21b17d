//! `rewrite`: changes the path and the query that the service is sent.
//!
//! Use it where a service does not know the prefix it is published under. The route was chosen before and stays; path
//! parameters keep what they captured. Its neighbour is the handler `redirect`, which tells the client to ask elsewhere.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `strip_prefix` | taken off the path, whole segments only: `/api` takes `/api` and `/api/x`, not `/apix`, which goes on unchanged | none |
//! | `regex.match` | regular expression over the percent-encoded path; the first match is replaced | none |
//! | `regex.replace` | the replacement; `$1`, `$name` and `${name}` are captures, `$$` is a dollar sign | required with `match` |
//! | `add_prefix` | put in front of the path | none |
//! | `query.remove` | names of parameters that are taken away, however they are percent-encoded | none |
//! | `query.set` | parameters and values (templates): replaces every parameter of that name, at the end of the query | none |
//!
//! The order is: strip, regex, add; then the query, remove before set. What is left of a path is never empty but `/`. The
//! rest of the query stays as it was sent. (`${` begins a reference to the environment in any value of the configuration:
//! write `$1`, or `$${name}`.)
//!
//! A result that is no path in its one form (a `.` or `..` segment, `//`, an escape that is broken, hides a `/`, or need not be one)
//! or is longer than 32 KiB is refused with 400 `BAD_REQUEST`: what a client sends must not lead to a path that other rules
//! never saw. Refused when the configuration is read: prefixes that are no such path or end in `/`, a regular expression that
//! is wrong or compiles to more than 1 MiB, a capture it does not have.
//!
//! Source: [RFC 3986 §3.3, §6.2.2](https://www.rfc-editor.org/rfc/rfc3986#section-6.2.2); matching takes time linear in the path
//! ([regex](https://docs.rs/regex/#untrusted-input)).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! upstreams:
//!   users: { targets: [{ address: 127.0.0.1:9101 }] }
//! routes:
//!   - name: users
//!     match: GET /api/{*rest}
//!     filters:
//!       - rewrite:
//!           strip_prefix: /api
//!           regex: { match: "^/users/([0-9]+)$", replace: "/people/$1" }
//!           add_prefix: /v2
//!           query: { set: { via: gateway }, remove: [debug] }
//!     upstream: users
//! tests:
//!   - request: GET /api/users/7?debug=1&page=2
//!     expect: { upstream: users, target: "/v2/people/7?page=2&via=gateway" }
//!   - request: GET /api/teams
//!     expect: { upstream: users, target: "/v2/teams?via=gateway" }
//! ```

mod query;
mod replacement;

use std::borrow::Cow;
use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

use self::query::QueryEdits;
use self::replacement::Replacement;
use crate::context::Context;
use crate::contract::{Compiler, Filter, Hooks, Settings, Step, Verdict};
use crate::head::{RequestHead, is_normal_path};
use crate::reply::{Code, Rejection};
use crate::yaml::{Located, Problem};

/// Longest path that a rewrite may produce.
const PATH_BYTES_MAX: usize = 32 * 1024;
/// Largest compiled regular expression.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// Changes the path and the query that the service is sent.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RewriteSettings {
    /// Taken off the path, whole segments only.
    strip_prefix: Option<Located<String>>,
    /// Replaces what a regular expression matches.
    regex: Option<RegexSettings>,
    /// Put in front of the path.
    add_prefix: Option<Located<String>>,
    /// Changes of the query.
    query: QuerySettings,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
struct RegexSettings {
    /// Over the percent-encoded path.
    #[serde(rename = "match")]
    pattern: Located<String>,
    /// `$1`, `$name` and `${name}` are captures, `$$` is a dollar sign.
    replace: Located<String>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct QuerySettings {
    /// Replaces every parameter of that name. Values are templates.
    set: BTreeMap<String, Located<String>>,
    /// Names of parameters that are taken away.
    remove: Vec<String>,
}

impl Settings for RewriteSettings {
    const NAME: &'static str = "rewrite";
    const SUMMARY: &'static str = "changes the path and the query that the service is sent";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        let prefix = |written: &Option<Located<String>>, compiler: &mut Compiler| match written {
            Some(text) => checked_prefix(text, compiler).map(Some),
            None => Some(None),
        };
        let strip = prefix(&self.strip_prefix, compiler);
        let add = prefix(&self.add_prefix, compiler);
        let regex = match &self.regex {
            Some(settings) => settings.compile(compiler).map(Some),
            None => Some(None),
        };
        let query = QueryEdits::compile(&self.query.set, &self.query.remove, compiler);
        let rewrite = Rewrite { strip: strip?, regex: regex?, add: add?, query };
        if rewrite.keeps_path() && rewrite.query.is_empty() {
            let problem = Problem::new(compiler.place(), "this `rewrite` filter changes nothing");
            compiler.report(problem.with_hint("give `strip_prefix`, `regex`, `add_prefix` or `query`"));
        }
        Some(Step::filter(rewrite))
    }
}

fn checked_prefix(text: &Located<String>, compiler: &mut Compiler) -> Option<Box<str>> {
    if is_normal_path(text) && !text.ends_with('/') {
        return Some(text.value.as_str().into());
    }
    let problem = Problem::new(text.place, format!("`{}` is no prefix of a path", text.value));
    compiler.report(
        problem.with_hint("write `/api`: a `/` at the start, none at the end, no `.` or `..` segment, no `//`"),
    );
    None
}

impl RegexSettings {
    fn compile(&self, compiler: &mut Compiler) -> Option<(Regex, Replacement)> {
        let regex = match RegexBuilder::new(&self.pattern).size_limit(REGEX_BYTES_MAX).build() {
            Ok(regex) => regex,
            Err(error) => {
                let text = error.to_string();
                // The last line says what is wrong; those before it draw the place.
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                compiler
                    .report(Problem::new(self.pattern.place, format!("this regular expression is wrong: {reason}")));
                return None;
            }
        };
        match Replacement::parse(&self.replace, &regex) {
            Ok(replacement) => Some((regex, replacement)),
            Err((message, hint)) => {
                compiler.report(Problem::new(self.replace.place, message).with_hint(hint));
                None
            }
        }
    }
}

struct Rewrite {
    strip: Option<Box<str>>,
    regex: Option<(Regex, Replacement)>,
    add: Option<Box<str>>,
    query: QueryEdits,
}

impl Filter for Rewrite {
    fn hooks(&self) -> Hooks {
        Hooks::REQUEST
    }

    fn on_request(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        let query = self.query.apply(request, context);
        let path = self.path(request.path());
        if matches!(path, Some(Cow::Borrowed(same)) if same.len() == request.path().len()) && query.is_none() {
            return Verdict::Continue;
        }
        // The head is borrowed by both parts until they are owned.
        let target = path.filter(|path| path.len() <= PATH_BYTES_MAX && is_normal_path(path)).map(Cow::into_owned);
        let query = query.unwrap_or_else(|| request.query().map(str::to_owned));
        match target {
            Some(path) if request.set_target(&path, query.as_deref()) => Verdict::Continue,
            _ => Verdict::Reject(Box::new(Rejection::new(
                Code::BAD_REQUEST,
                "the path cannot be rewritten to a sound one",
            ))),
        }
    }
}

impl Rewrite {
    fn keeps_path(&self) -> bool {
        self.strip.is_none() && self.regex.is_none() && self.add.is_none()
    }

    /// The new path, not checked yet; `None` when it is too long.
    fn path<'a>(&self, path: &'a str) -> Option<Cow<'a, str>> {
        let mut path = Cow::Borrowed(self.strip.as_deref().map_or(path, |prefix| strip(path, prefix)));
        if let Some((regex, replacement)) = &self.regex
            && let Some(found) = regex.captures(&path)
        {
            path = Cow::Owned(replacement.replace(&path, &found, PATH_BYTES_MAX)?);
        }
        if let Some(prefix) = &self.add {
            path = Cow::Owned(format!("{prefix}{path}"));
        }
        Some(path)
    }
}

/// The path without the prefix, when its first segments are the prefix.
fn strip<'a>(path: &'a str, prefix: &str) -> &'a str {
    match path.strip_prefix(prefix) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

#[cfg(test)]
mod tests;
