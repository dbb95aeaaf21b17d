//! What a body says it is.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};

use crate::contract::Compiler;
use crate::head::{HeaderName, HeaderValue, RequestHead};
use crate::reply::{Code, Rejection};
use crate::yaml::{Located, Problem};

/// Longest value of a field that is given back, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// The media types that a route takes.
pub struct MediaTypes {
    allowed: Box<[MediaType]>,
    /// How a refusal names them.
    expected: String,
}

/// `type/subtype`, `type/*` or `type/*+suffix`, in lower case.
struct MediaType {
    kind: Box<str>,
    subtype: Subtype,
}

enum Subtype {
    Is(Box<str>),
    EndsWith(Box<str>),
    Any,
}

impl MediaTypes {
    /// The types of JSON ([RFC 6839 §3.1](https://www.rfc-editor.org/rfc/rfc6839#section-3.1)).
    pub fn json() -> Self {
        let json = |subtype| MediaType { kind: "application".into(), subtype };
        let allowed = Box::new([json(Subtype::Is("json".into())), json(Subtype::EndsWith("+json".into()))]);
        Self { allowed, expected: "application/json".to_owned() }
    }

    /// Reads a list, and reports what is none.
    pub fn compile(written: &Located<Vec<Located<String>>>, compiler: &mut Compiler) -> Self {
        if written.is_empty() {
            let problem = Problem::new(written.place, "no body would have any of these types");
            compiler.report(problem.with_hint("list types such as `application/json`, or leave the key out"));
        }
        let allowed = written.iter().filter_map(|name| {
            let media_type = MediaType::parse(name);
            if media_type.is_none() {
                let problem = Problem::new(name.place, format!("`{}` is no media type", name.value));
                compiler.report(problem.with_hint(
                    "write `application/json`, `application/*+json` or `image/*`, in lower case, without parameters",
                ));
            }
            media_type
        });
        let allowed = allowed.collect();
        let names: Vec<&str> = written.iter().map(|name| name.value.as_str()).collect();
        Self { allowed, expected: names.join(" or ") }
    }

    /// Whether a body of this head may be taken, or why not. `is_there` tells that there is a body.
    pub fn check(&self, request: &dyn RequestHead, is_there: bool) -> Result<(), Rejection> {
        let mut types = 0_usize;
        request.each(&CONTENT_TYPE, &mut |_| types = types.saturating_add(1));
        if types == 0 && !is_there {
            return Ok(());
        }
        let sent = request.text(&CONTENT_TYPE).unwrap_or_default();
        // Of two fields a service could take the other one.
        if types > 1 || !self.take(sent) {
            return Err(refused("Content-Type", sent, &self.expected));
        }
        Ok(())
    }

    fn take(&self, sent: &str) -> bool {
        let mut parts = sent.split(';');
        let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let Some((kind, subtype)) = essence.split_once('/') else { return false };
        // `application/xml, a/b+json` is none: a service would take it for its first half.
        if !subtype.bytes().all(is_token) {
            return false;
        }
        let is_allowed = self.allowed.iter().any(|allowed| *allowed.kind == *kind && allowed.subtype.is(subtype));
        is_allowed && parts.all(is_sound_parameter)
    }
}

/// Refuses a body that is compressed: what it holds cannot be seen.
pub fn check_coding(request: &dyn RequestHead) -> Result<(), Rejection> {
    let mut coded = false;
    request.each(&CONTENT_ENCODING, &mut |value| {
        coded |= !value.split(|byte| *byte == b',').all(|name| name.trim_ascii().eq_ignore_ascii_case(b"identity"));
    });
    if !coded {
        return Ok(());
    }
    let sent = request.text(&CONTENT_ENCODING).unwrap_or_default();
    // RFC 9110 §15.5.16: a client learns by it that the coding is to blame.
    Err(refused("Content-Encoding", sent, "a body that is not compressed")
        .with_field(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

/// Whether the head announces a body: `None` when it does not say.
pub fn has_body(request: &dyn RequestHead) -> Option<bool> {
    if request.has(&TRANSFER_ENCODING) {
        return Some(true);
    }
    let length = request.text(&CONTENT_LENGTH)?.trim().parse::<u64>().ok()?;
    Some(length > 0)
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The charset is the one thing a parameter may say that changes what JSON means.
fn is_sound_parameter(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return parameter.trim().is_empty() };
    let value = value.trim().trim_matches('"');
    !name.trim().eq_ignore_ascii_case("charset")
        || ["utf-8", "utf8", "us-ascii"].iter().any(|charset| value.eq_ignore_ascii_case(charset))
}

fn refused(field: &'static str, sent: &str, expected: &str) -> Rejection {
    let shown: String = sent.chars().take(SHOWN_CHARS_MAX).collect();
    Rejection::new(Code::UNSUPPORTED_MEDIA_TYPE, format!("`{field}` is not supported here: expected {expected}"))
        .with_detail("field", format!("headers.{field}"))
        .with_detail("value", shown)
        .with_detail("expected", expected)
}

impl MediaType {
    fn parse(text: &str) -> Option<Self> {
        let (kind, subtype) = text.split_once('/')?;
        let is_name = |name: &str| {
            HeaderName::from_bytes(name.as_bytes()).is_ok()
                && !name.contains(['*', '/'])
                && !name.bytes().any(|byte| byte.is_ascii_uppercase())
        };
        let subtype_of = |subtype: &str| match subtype.strip_prefix('*') {
            Some("") => Some(Subtype::Any),
            Some(suffix) => (suffix.starts_with('+') && is_name(suffix)).then(|| Subtype::EndsWith(suffix.into())),
            None => is_name(subtype).then(|| Subtype::Is(subtype.into())),
        };
        Some(Self { kind: is_name(kind).then(|| kind.into())?, subtype: subtype_of(subtype)? })
    }
}

impl Subtype {
    fn is(&self, subtype: &str) -> bool {
        match self {
            Self::Is(name) => **name == *subtype,
            Self::EndsWith(suffix) => subtype.len() > suffix.len() && subtype.ends_with(&**suffix),
            Self::Any => !subtype.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests;
