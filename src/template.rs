//! Texts with values from the request: `"user {path.id} from {client_ip}"`.
//!
//! | variable | value |
//! |---|---|
//! | `{method}` `{path}` `{query}` `{host}` `{scheme}` | of the request as the chain sees it now; path and query percent-encoded |
//! | `{client_ip}` | who sent the request, behind `trusted_proxies` |
//! | `{request_id}` | the value of `X-Request-Id` |
//! | `{route}` | name of the matched route |
//! | `{time}` | now, RFC 3339 |
//! | `{path.NAME}` | the path parameter `NAME`, percent-encoded |
//! | `{query.NAME}` | the first query parameter `NAME`, percent-encoded |
//! | `{header.NAME}` | the first request field `NAME` |
//! | `{consumer}` | name of the caller, once an `auth` filter knows; nothing before, and when nobody is |
//! | `{consumer.roles}` `{consumer.scopes}` | of the caller: roles with commas between, scopes with spaces |
//! | `{claim.NAME}` | what the token of the caller says; a path such as `claim.realm.name` leads into objects; what is no string is JSON |
//!
//! `{{` and `}}` stand for the braces themselves. What is absent renders as nothing. Values are bounded by the limits on
//! the request head.

use crate::caller::claim_text;
use crate::clock;
use crate::context::Context;
use crate::head::{HeaderName, HeaderValue, RequestHead, query_parameter};

/// A parsed text. Rendering cannot fail; parsing says what is wrong.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Variable(Variable),
}

#[derive(Clone, Debug)]
enum Variable {
    Method,
    Path,
    Query,
    Host,
    Scheme,
    ClientIp,
    RequestId,
    Route,
    Time,
    PathParameter(String),
    QueryParameter(String),
    Header(HeaderName),
    Consumer,
    Roles,
    Scopes,
    Claim(String),
}

/// How values (not the text around them) are escaped, so that a client cannot write markup into a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    None,
    Json,
    Html,
}

const VARIABLES: &[&str] = &[
    "method",
    "path",
    "query",
    "host",
    "scheme",
    "client_ip",
    "request_id",
    "route",
    "time",
    "path.NAME",
    "query.NAME",
    "header.NAME",
    "consumer",
    "consumer.roles",
    "consumer.scopes",
    "claim.NAME",
];

impl Template {
    /// Fails with a message that says which part is wrong and what could stand there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = from_brace.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = from_brace.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some((name, after)) = from_brace.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Variable(Variable::parse(name)?));
                rest = after;
            } else {
                return Err("a single brace; write `{{` or `}}` for the character itself".to_owned());
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// The text, when it holds no variable.
    pub fn constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Names of the path parameters it uses: the route must have them.
    pub fn path_parameters(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(Variable::PathParameter(name)) => Some(name.as_str()),
            _ => None,
        })
    }

    /// How many variables it has: what bounds the length of the rendered text.
    pub fn variables(&self) -> usize {
        self.parts.iter().filter(|part| matches!(part, Part::Variable(_))).count()
    }

    /// Appends the rendered text to `out`.
    pub fn render(&self, request: &dyn RequestHead, context: &Context, escape: Escape, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => {
                    variable.value(request, context, &mut |value| escape.append(value, out));
                }
            }
        }
    }

    /// The rendered text as a field value; `None` when a value holds what no field may hold (a control character).
    pub fn render_value(&self, request: &dyn RequestHead, context: &Context) -> Option<HeaderValue> {
        let mut out = Vec::new();
        self.render(request, context, Escape::None, &mut out);
        HeaderValue::from_maybe_shared(bytes::Bytes::from(out)).ok()
    }

    /// The rendered text as a string; bytes that are not UTF-8 are replaced.
    pub fn render_text(&self, request: &dyn RequestHead, context: &Context) -> String {
        let mut out = Vec::new();
        self.render(request, context, Escape::None, &mut out);
        String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// A template for the value of a header field. Text without variables is made a value once.
#[derive(Clone, Debug)]
pub enum FieldTemplate {
    Constant(HeaderValue),
    Rendered(Template),
}

impl FieldTemplate {
    /// `None` when the text around the variables holds what no field may hold.
    pub fn new(template: Template) -> Option<Self> {
        let sound = |part: &Part| match part {
            Part::Text(text) => HeaderValue::from_str(text).is_ok(),
            Part::Variable(_) => true,
        };
        match template.constant() {
            Some(text) => HeaderValue::from_str(text).ok().map(Self::Constant),
            None => template.parts.iter().all(sound).then_some(Self::Rendered(template)),
        }
    }

    /// The value for this request; `None` as for [`Template::render_value`].
    pub fn value(&self, request: &dyn RequestHead, context: &Context) -> Option<HeaderValue> {
        match self {
            Self::Constant(value) => Some(value.clone()),
            Self::Rendered(template) => template.render_value(request, context),
        }
    }
}

impl Variable {
    fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "method" => Self::Method,
            "path" => Self::Path,
            "query" => Self::Query,
            "host" => Self::Host,
            "scheme" => Self::Scheme,
            "client_ip" => Self::ClientIp,
            "request_id" => Self::RequestId,
            "route" => Self::Route,
            "time" => Self::Time,
            "consumer" => Self::Consumer,
            "consumer.roles" => Self::Roles,
            "consumer.scopes" => Self::Scopes,
            _ => match name.split_once('.') {
                Some(("path", parameter)) if !parameter.is_empty() => Self::PathParameter(parameter.to_owned()),
                Some(("query", parameter)) if !parameter.is_empty() => Self::QueryParameter(parameter.to_owned()),
                Some(("claim", claim)) if !claim.is_empty() => Self::Claim(claim.to_owned()),
                Some(("header", field)) => Self::Header(
                    HeaderName::from_bytes(field.as_bytes()).map_err(|_| format!("`{field}` is no header name"))?,
                ),
                _ => return Err(format!("unknown variable `{{{name}}}`; known: {}", VARIABLES.join(", "))),
            },
        })
    }

    fn value(&self, request: &dyn RequestHead, context: &Context, append: &mut dyn FnMut(&[u8])) {
        match self {
            Self::Method => append(request.method().as_str().as_bytes()),
            Self::Path => append(request.path().as_bytes()),
            Self::Query => append(request.query().unwrap_or_default().as_bytes()),
            Self::Host => append(request.host().as_bytes()),
            Self::Scheme => append(context.scheme.as_str().as_bytes()),
            Self::ClientIp => append(context.client.to_string().as_bytes()),
            Self::RequestId => append(context.request_id.as_str().as_bytes()),
            Self::Route => append(context.route.as_bytes()),
            Self::Time => append(clock::rfc3339(clock::wall()).as_bytes()),
            Self::PathParameter(name) => append(context.captures.get(name).unwrap_or_default().as_bytes()),
            Self::QueryParameter(name) => {
                append(query_parameter(request.query(), name).unwrap_or_default().as_bytes());
            }
            Self::Header(name) => append(request.get(name).unwrap_or_default()),
            Self::Consumer | Self::Roles | Self::Scopes | Self::Claim(_) => self.of_caller(context, append),
        }
    }
}

impl Variable {
    fn of_caller(&self, context: &Context, append: &mut dyn FnMut(&[u8])) {
        let Some(caller) = &context.caller else { return };
        match self {
            Self::Consumer => append(caller.name.as_bytes()),
            Self::Roles => append(caller.fields.roles.as_bytes()),
            Self::Scopes => append(caller.fields.scopes.as_bytes()),
            Self::Claim(name) => {
                if let Some(text) = caller.claim(name).and_then(claim_text) {
                    append(text.as_bytes());
                }
            }
            _ => {}
        }
    }
}

impl Escape {
    fn append(self, value: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::None => out.extend_from_slice(value),
            Self::Json => {
                let quoted = serde_json::Value::from(String::from_utf8_lossy(value)).to_string();
                let inner = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                out.extend_from_slice(inner.unwrap_or_default().as_bytes());
            }
            Self::Html => {
                for &byte in value {
                    match byte {
                        b'&' => out.extend_from_slice(b"&amp;"),
                        b'<' => out.extend_from_slice(b"&lt;"),
                        b'>' => out.extend_from_slice(b"&gt;"),
                        b'"' => out.extend_from_slice(b"&quot;"),
                        b'\'' => out.extend_from_slice(b"&#39;"),
                        _ => out.push(byte),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{Caller, CallerFields, Credential, Level, Scopes};
    use crate::context::{Captures, RequestId};
    use crate::head::{Headers, Method, RequestBuf};
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    fn exchange() -> (RequestBuf, Context) {
        let mut request = RequestBuf::new(Method::GET, "/users/7?token=a%20b");
        request.host = "api.example.com".into();
        request.set(&HeaderName::from_static("x-name"), HeaderValue::from_static("O\"Hara <x>"));
        let mut context =
            Context::detached(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), RequestId::from_bits(1), clock::now());
        context.route = Arc::from("users.read");
        context.captures = Captures::new(Arc::from(["id".into()]), vec![Some("7".into())]);
        (request, context)
    }

    fn render(text: &str, escape: Escape) -> String {
        let (request, context) = exchange();
        let mut out = Vec::new();
        Template::parse(text).unwrap().render(&request, &context, escape, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_variable_renders() {
        assert_eq!(
            render(
                "{method} {scheme}://{host}{path}?{query} {client_ip} {route} {path.id} {query.token}",
                Escape::None
            ),
            "GET http://api.example.com/users/7?token=a%20b 192.0.2.1 users.read 7 a%20b"
        );
        assert_eq!(render("{request_id}", Escape::None), "0".repeat(31) + "1");
        assert!(render("{time}", Escape::None).ends_with('Z'));
        assert_eq!(render("[{header.x-name}{header.absent}{path.other}]", Escape::None), "[O\"Hara <x>]");
    }

    #[test]
    fn values_are_escaped_and_the_text_around_them_is_not() {
        assert_eq!(render(r#"{{"n": "{header.x-name}"}}"#, Escape::Json), r#"{"n": "O\"Hara <x>"}"#);
        assert_eq!(render("<p>{header.x-name}</p>", Escape::Html), "<p>O&quot;Hara &lt;x&gt;</p>");
    }

    fn caller() -> Caller {
        let (name, roles, scopes) = ("O\"Hara", ["user".into(), "admin".into()], Scopes::new(["b", "a"]));
        let serde_json::Value::Object(claims) =
            serde_json::json!({"sub": "u\"7", "realm": {"name": "<b>"}, "age": 7, "tags": ["x\"", 1], "none": null})
        else {
            panic!("it is an object")
        };
        Caller {
            name: name.into(),
            credential: Credential::Token { issuer: "main".into(), id: None, key: 0 },
            level: Level::User,
            fields: CallerFields::new(name, &roles, &scopes).unwrap(),
            rates: None,
            roles: roles.into(),
            scopes,
            claims,
            expires: None,
        }
    }

    #[test]
    fn who_calls_renders_and_is_nothing_when_nobody_does() {
        let text = "{consumer}|{consumer.roles}|{consumer.scopes}|{claim.sub}|{claim.realm.name}|{claim.age}|{claim.none}\
                    {claim.absent}";
        assert_eq!(render(text, Escape::None), "||||||");
        let (request, mut context) = exchange();
        context.caller = Some(Arc::new(caller()));
        let of_caller = |text: &str, escape| {
            let mut out = Vec::new();
            Template::parse(text).unwrap().render(&request, &context, escape, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(of_caller(text, Escape::None), "O\"Hara|user,admin|a b|u\"7|<b>|7|");
        assert_eq!(of_caller(r#""{consumer}" "{claim.tags}""#, Escape::Json), r#""O\"Hara" "[\"x\\\"\",1]""#);
        assert_eq!(of_caller("{claim.realm.name}", Escape::Html), "&lt;b&gt;");
        assert_eq!(Template::parse("{claim.sub}").unwrap().render_value(&request, &context).unwrap(), "u\"7");
    }

    #[test]
    fn mistakes_are_named() {
        assert!(Template::parse("{nope}").unwrap_err().contains("unknown variable `{nope}`"));
        assert!(Template::parse("{header.a b}").unwrap_err().contains("`a b`"));
        assert!(Template::parse("a } b").unwrap_err().contains("single brace"));
        assert!(Template::parse("{open").unwrap_err().contains("single brace"));
        assert!(Template::parse("{path.}").is_err());
        assert!(Template::parse("{claim.}").is_err() && Template::parse("{consumer.name}").is_err());
    }

    #[test]
    fn constants_are_known_and_a_line_break_is_no_field_value() {
        assert_eq!(Template::parse("a {{b}}").unwrap().constant(), Some("a {b}"));
        assert_eq!(Template::parse("").unwrap().constant(), Some(""));
        assert_eq!(Template::parse("{path}").unwrap().constant(), None);
        let (request, context) = exchange();
        assert!(Template::parse("a\nb").unwrap().render_value(&request, &context).is_none());
    }

    #[test]
    fn a_field_template_is_checked_when_it_is_made() {
        let field = |text: &str| FieldTemplate::new(Template::parse(text).unwrap());
        let (request, context) = exchange();
        assert!(matches!(field("a {{b}}"), Some(FieldTemplate::Constant(value)) if value == "a {b}"));
        assert_eq!(field("id {path.id}").unwrap().value(&request, &context).unwrap(), "id 7");
        assert!(field("a\nb").is_none());
        assert!(field("{path.id}\r\nX: 1").is_none());
        assert_eq!(Template::parse("{path}a{host}").unwrap().variables(), 2);
    }
}
