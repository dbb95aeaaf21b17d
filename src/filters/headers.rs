//! `headers`: sets, adds and removes header fields, of the request on its way in and of the response on its way out.
//!
//! Use it to tell a service who calls it, to take fields away that a client must not send, or to mark what comes back.
//! Its neighbour `security_headers` knows which response fields protect a browser and sends good values by itself; this
//! filter knows nothing and does what it is told.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `request.set` | fields and values: replaces every field of that name | none |
//! | `request.add` | fields and values: one more field of that name | none |
//! | `request.remove` | names; `X-Internal-*` stands for every name that begins so | none |
//! | `response.set` `response.add` `response.remove` | the same for the response | none |
//!
//! Values are templates (`{client_ip}`, `{path.id}`, `{header.x-user}`, …), rendered from the request. All are rendered first,
//! then fields are removed, then set, then added: so a field can be renamed by setting the new one from the old one. A value
//! that turns out to hold a control character is not sent; a field of that name that came from outside goes all the same.
//!
//! Refused when the configuration is read: names and texts that HTTP does not allow, a name in both `set` and `remove`, a
//! filter that does nothing, and fields that belong to the gateway
//! ([RFC 9110 §7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1)): `Connection`, `Content-Length`,
//! `Transfer-Encoding`, `Upgrade`, `TE`, `Trailer`, `Keep-Alive`, `Proxy-*`. `Host` can be `set` on the request; a value that is
//! no host leaves it as it is.
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! upstreams:
//!   tasks: { targets: [{ address: 127.0.0.1:9101 }] }
//! routes:
//!   - name: tasks.read
//!     match: GET /tasks/{id}
//!     filters:
//!       - headers:
//!           request:
//!             set: { X-Client: "{client_ip}", X-Task: "task-{path.id}" }
//!             remove: [X-Internal-*]
//!           response:
//!             set: { Cache-Control: no-store }
//!     upstream: tasks
//! tests:
//!   - request: GET /tasks/7
//!     headers: { X-Client: forged }
//!     from: 192.0.2.7
//!     expect:
//!       upstream: tasks
//!       upstream_headers: { X-Client: 192.0.2.7, X-Task: task-7 }
//!       headers: { Cache-Control: no-store }
//! ```

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

use crate::context::Context;
use crate::contract::{Compiler, Filter, Hooks, Settings, Step, Verdict};
use crate::head::{HeaderName, HeaderValue, Headers, RequestHead, ResponseHead};
use crate::template::FieldTemplate;
use crate::yaml::{Located, Place, Problem};

/// Sets, adds and removes header fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HeadersSettings {
    /// Fields of the request, before it goes on.
    request: FieldEdits,
    /// Fields of the response, whoever authored it.
    response: FieldEdits,
}

/// What becomes of the fields of a message.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct FieldEdits {
    /// Replaces every field of that name. Values are templates.
    set: BTreeMap<String, Located<String>>,
    /// Adds one more field of that name. Values are templates.
    add: BTreeMap<String, Located<String>>,
    /// Removes every field of that name; a `*` at the end stands for the rest of the name.
    remove: Vec<Located<String>>,
}

impl Settings for HeadersSettings {
    const NAME: &'static str = "headers";
    const SUMMARY: &'static str = "sets, adds and removes header fields of request and response";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        let host = self.request.set.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.map(|(_, text)| compiler.field_value(text));
        let request = self.request.compile(true, compiler);
        let response = self.response.compile(false, compiler);
        let filter = HeadersFilter { host: host.flatten(), request, response };
        let hooks = filter.hooks();
        if !hooks.request && !hooks.response {
            let problem = Problem::new(compiler.place(), "this `headers` filter changes nothing");
            compiler.report(problem.with_hint("give `set`, `add` or `remove` under `request` or `response`"));
        }
        Some(Step::filter(filter))
    }
}

struct HeadersFilter {
    /// Apart, because its value must be a host and replaces nothing unless it is.
    host: Option<FieldTemplate>,
    request: Edits,
    response: Edits,
}

impl Filter for HeadersFilter {
    fn hooks(&self) -> Hooks {
        Hooks {
            request: self.host.is_some() || !self.request.is_empty(),
            response: !self.response.is_empty(),
            preflight: false,
        }
    }

    fn on_request(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        let host = self.host.as_ref().and_then(|value| value.value(request, context));
        let values = self.request.render(request, context);
        if let Some(host) = host.filter(is_host) {
            request.set(&http::header::HOST, host);
        }
        self.request.apply(request, values);
        Verdict::Continue
    }

    fn on_response(&self, request: &dyn RequestHead, response: &mut dyn ResponseHead, context: &Context) {
        let values = self.response.render(request, context);
        self.response.apply(response, values);
    }
}

/// Compiled edits of one message.
#[derive(Default)]
struct Edits {
    remove: Vec<HeaderName>,
    /// In lower case, without the `*`.
    remove_prefixes: Vec<Box<str>>,
    set: Vec<(HeaderName, FieldTemplate)>,
    add: Vec<(HeaderName, FieldTemplate)>,
}

/// Values of `set`, then those of `add`.
type Values = SmallVec<[Option<HeaderValue>; 8]>;

impl FieldEdits {
    /// Every mistake is reported to `compiler`; what is sound is compiled all the same.
    fn compile(&self, is_request: bool, compiler: &mut Compiler) -> Edits {
        let mut edits = Edits::default();
        let is_host = |name: &str| is_request && name.eq_ignore_ascii_case("host");
        for (name, text) in self.set.iter().filter(|(name, _)| !is_host(name)) {
            let field = compiler.field_name(name, text.place);
            let value = compiler.field_value(text);
            if let Some(twin) = edits.set.iter().find(|(known, _)| Some(known) == field.as_ref()) {
                let message = format!("`{name}` and `{}` are the same field", twin.0);
                compiler
                    .report(Problem::new(text.place, message).with_hint("names do not differ by case; set it once"));
            }
            edits.set.extend(field.zip(value));
        }
        for (name, text) in &self.add {
            let field = compiler.field_name(name, text.place);
            edits.add.extend(field.zip(compiler.field_value(text)));
        }
        for name in &self.remove {
            edits.compile_removal(name, compiler);
        }
        edits
    }
}

impl Edits {
    fn compile_removal(&mut self, name: &Located<String>, compiler: &mut Compiler) {
        let Some(prefix) = name.strip_suffix('*') else {
            let Some(field) = compiler.field_name(name, name.place) else { return };
            if self.set.iter().any(|(known, _)| *known == field) {
                let problem = Problem::new(name.place, format!("`{field}` is both set and removed"));
                compiler.report(problem.with_hint("`set` replaces what was there; drop it from `remove`"));
            }
            self.remove.push(field);
            return;
        };
        if let Some(prefix) = prefix_of_names(prefix, name.place, compiler) {
            self.remove_prefixes.push(prefix);
        }
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.remove_prefixes.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    fn render(&self, request: &dyn RequestHead, context: &Context) -> Values {
        self.set.iter().chain(&self.add).map(|(_, template)| template.value(request, context)).collect()
    }

    fn apply(&self, head: &mut dyn Headers, values: Values) {
        self.remove.iter().for_each(|name| head.remove(name));
        if !self.remove_prefixes.is_empty() {
            self.remove_by_prefix(head);
        }
        let mut values = values.into_iter();
        for ((name, _), value) in self.set.iter().zip(values.by_ref()) {
            match value {
                Some(value) => head.set(name, value),
                // What the client sent must not pass for what the gateway would have said.
                None => head.remove(name),
            }
        }
        for ((name, _), value) in self.add.iter().zip(values) {
            if let Some(value) = value {
                head.append(name, value);
            }
        }
    }

    fn remove_by_prefix(&self, head: &mut dyn Headers) {
        let mut found: SmallVec<[HeaderName; 8]> = SmallVec::new();
        head.all(&mut |name, _| {
            if self.remove_prefixes.iter().any(|prefix| name.starts_with(&**prefix)) {
                found.extend(HeaderName::from_bytes(name.as_bytes()));
            }
        });
        found.iter().for_each(|name| head.remove(name));
    }
}

/// The prefix in lower case. One that would take a field of the gateway's with it is refused.
fn prefix_of_names(prefix: &str, place: Place, compiler: &mut Compiler) -> Option<Box<str>> {
    let lower = prefix.to_ascii_lowercase();
    let reserved = [
        "connection",
        "content-length",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    if let Some(taken) = reserved.iter().find(|name| name.starts_with(&lower)) {
        let problem =
            Problem::new(place, format!("`{prefix}*` would remove `{taken}` too, which belongs to the gateway"));
        compiler.report(problem.with_hint("write more of the name, as in `X-Internal-*`"));
        return None;
    }
    compiler.field_name(&lower, place).map(|name| name.as_str().into())
}

/// Whether a value may stand in `Host`: a name or address, perhaps with a port
/// ([RFC 9110 §7.2](https://www.rfc-editor.org/rfc/rfc9110#section-7.2)).
fn is_host(value: &HeaderValue) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(byte);
    !value.is_empty() && value.as_bytes().iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::testing::{context, filter, get, refused, request, values};
    use crate::head::{Method, RequestBuf, ResponseBuf, StatusCode};

    fn passed(settings: &str, mut request: RequestBuf) -> RequestBuf {
        let verdict = filter::<HeadersSettings>(settings).on_request(&mut request, &mut context());
        assert!(matches!(verdict, Verdict::Continue));
        request
    }

    #[test]
    fn set_replaces_add_keeps_and_remove_takes_away() {
        let settings = "request: { set: { X-A: 'v {client_ip}' }, add: { X-B: '2' }, remove: [X-C] }";
        let sent = [("x-a", "forged"), ("x-a", "twice"), ("x-b", "1"), ("x-c", "gone")];
        let head = passed(settings, request(Method::GET, "/", &sent));
        assert_eq!(values(&head, "x-a"), ["v 192.0.2.1"]);
        assert_eq!(values(&head, "x-b"), ["1", "2"]);
        assert!(!head.has(&HeaderName::from_static("x-c")));
    }

    #[test]
    fn a_field_is_renamed_by_setting_the_new_one_from_the_old_one() {
        let settings = "request: { set: { X-New: '{header.x-old}' }, remove: [X-Old] }";
        let head = passed(settings, request(Method::GET, "/", &[("x-old", "7")]));
        assert_eq!((values(&head, "x-new"), values(&head, "x-old").len()), (vec!["7".to_owned()], 0));
    }

    #[test]
    fn a_prefix_removes_every_name_that_begins_so_and_no_other() {
        let sent = [("x-internal-a", "1"), ("X-Internal-B", "2"), ("x-internal", "3"), ("x-internalize", "4")];
        let head = passed("request: { remove: [X-Internal-*] }", request(Method::GET, "/", &sent));
        let mut names = Vec::new();
        head.all(&mut |name, _| names.push(name.to_owned()));
        assert_eq!(names, ["x-internal", "x-internalize"]);
    }

    #[test]
    fn the_response_is_rendered_from_the_request() {
        let filter = filter::<HeadersSettings>(
            "response: { set: { X-Path: '{path}' }, add: { Vary: Accept }, remove: [X-Debug] }",
        );
        assert_eq!(filter.hooks(), Hooks::RESPONSE);
        let mut response = ResponseBuf::new(StatusCode::OK);
        response.append(&http::header::VARY, HeaderValue::from_static("Origin"));
        response.append(&HeaderName::from_static("x-debug"), HeaderValue::from_static("1"));
        filter.on_response(&get("/users/7"), &mut response, &context());
        assert_eq!(values(&response, "x-path"), ["/users/7"]);
        assert_eq!(values(&response, "vary"), ["Origin", "Accept"]);
        assert!(values(&response, "x-debug").is_empty());
    }

    #[test]
    fn a_value_that_no_field_may_hold_is_left_out_and_so_is_the_forged_one() {
        // Percent-decoding never happens, so only a head made in memory can hold a control character.
        let mut head = get("/");
        head.query = Some("t=a\u{1}b".to_owned());
        head.append(&HeaderName::from_static("x-t"), HeaderValue::from_static("forged"));
        let head = passed("request: { set: { X-T: '{query.t}' }, add: { X-U: '{query.t}' } }", head);
        assert!(values(&head, "x-t").is_empty() && values(&head, "x-u").is_empty());
    }

    #[test]
    fn host_is_set_only_to_a_host() {
        let settings = "request: { set: { Host: '{header.x-tenant}.internal:8080' } }";
        let head = passed(settings, request(Method::GET, "/", &[("host", "a"), ("x-tenant", "acme")]));
        assert_eq!(values(&head, "host"), ["acme.internal:8080"]);
        let head = passed(settings, request(Method::GET, "/", &[("host", "a"), ("x-tenant", "b/..")]));
        assert_eq!(values(&head, "host"), ["a"]);
        for elsewhere in
            ["request: { add: { Host: a } }", "request: { remove: [host] }", "response: { set: { Host: a } }"]
        {
            assert!(refused::<HeadersSettings>(elsewhere).contains("may `set` it on a request"), "{elsewhere}");
        }
    }

    #[test]
    fn mistakes_are_reported_together() {
        let text = refused::<HeadersSettings>(
            "request: { set: { X-A: '{nope}', x b: '1', Content-Length: '1' }, remove: [Transfer-Encoding] }",
        );
        for part in ["unknown variable `{nope}`", "`x b` is no field name", "`Content-Length`", "`Transfer-Encoding`"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(refused::<HeadersSettings>("response: { set: { X-A: \"a\\nb\" } }").contains("no line break"));
        assert!(
            refused::<HeadersSettings>("request: { set: { X-A: a }, remove: [x-a] }").contains("both set and removed")
        );
        assert!(refused::<HeadersSettings>("request: { set: { X-A: a, x-a: b } }").contains("the same field"));
        assert!(refused::<HeadersSettings>("{}").contains("changes nothing"));
        for prefix in ["'*'", "Con*", "T*", "Proxy-A*", "'Upgrade*'"] {
            let text = refused::<HeadersSettings>(&format!("request: {{ remove: [{prefix}] }}"));
            assert!(text.contains("belong"), "{prefix}: {text}");
        }
    }
}
