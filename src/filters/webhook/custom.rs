//! The preset `custom`: a sender that says itself how it signs.

use schemars::JsonSchema;
use serde::Deserialize;

use super::message::Naming;
use super::scheme::{Fields, Form, Part, Scheme, Signed};
use super::settings::ProviderSettings;
use super::signature::Encoding;
use crate::contract::Compiler;
use crate::head::HeaderName;
use crate::yaml::{Located, Place, Problem};

const SIGNED_DEFAULT: &str = "{timestamp}.{body}";
const TIMESTAMP_HEADER_DEFAULT: &str = "X-Webhook-Timestamp";
/// Longest prefix, in bytes.
const PREFIX_BYTES_MAX: usize = 64;
/// Longest text that is signed, in bytes, without what stands for its parts.
const SIGNED_BYTES_MAX: usize = 1024;

/// How a signature is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "SignatureEncoding")]
pub enum EncodingSetting {
    /// Hexadecimal digits, all in lower or all in upper case.
    #[default]
    Hex,
    /// With padding (RFC 4648 §4).
    Base64,
}

/// How a sender signs that says so itself. `None` when a problem was reported.
pub fn scheme(settings: &ProviderSettings, place: Place, compiler: &mut Compiler) -> Option<(Scheme, Naming)> {
    let header = header(settings, place, compiler);
    let prefix = prefix(settings, compiler);
    let signed = signed(settings, compiler);
    let signed = signed?;
    let timestamp = timestamp_header(settings, &signed, compiler);
    let id = id_header(settings, &signed, compiler);
    let fields = Fields { signature: header?, timestamp: timestamp?, id: id? };
    let others = [&fields.timestamp, &fields.id];
    if others.into_iter().flatten().any(|other| *other == fields.signature) || both_same(&fields) {
        let problem = Problem::new(place, "one field cannot hold two of signature, timestamp and id");
        compiler.report(problem.with_hint("give each its own field"));
        return None;
    }
    let naming = match (signed.has(&Part::Id), signed.has(&Part::Timestamp)) {
        (true, _) => Naming::Id,
        (false, true) => Naming::Signed,
        (false, false) => Naming::Body,
    };
    let scheme = Scheme {
        form: Form::Single { fields, prefix: prefix? },
        algorithm: settings.algorithm.map_or_else(Default::default, |written| written.value),
        encoding: match settings.encoding.map_or(EncodingSetting::Hex, |written| written.value) {
            EncodingSetting::Hex => Encoding::Hex,
            EncodingSetting::Base64 => Encoding::Base64,
        },
        signed,
    };
    Some((scheme, naming))
}

fn both_same(fields: &Fields) -> bool {
    fields.timestamp.is_some() && fields.timestamp == fields.id
}

fn header(settings: &ProviderSettings, place: Place, compiler: &mut Compiler) -> Option<HeaderName> {
    let Some(written) = &settings.header else {
        let problem = Problem::new(place, "`custom` has to say in which field the signature stands");
        compiler.report(problem.with_hint("write `header: X-Webhook-Signature`"));
        return None;
    };
    compiler.field_name(written, written.place)
}

fn prefix(settings: &ProviderSettings, compiler: &mut Compiler) -> Option<Box<str>> {
    let Some(written) = &settings.prefix else { return Some(Box::default()) };
    if written.len() > PREFIX_BYTES_MAX || !written.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("a prefix is at most {PREFIX_BYTES_MAX} visible ASCII characters");
        compiler.report(Problem::new(written.place, message).with_hint("such as `prefix: \"sha256=\"`"));
        return None;
    }
    Some(written.as_str().into())
}

fn signed(settings: &ProviderSettings, compiler: &mut Compiler) -> Option<Signed> {
    const HINT: &str = "write `\"{timestamp}.{body}\"`, `\"{id}.{timestamp}.{body}\"` or `\"{body}\"`";
    let text = settings.signed.as_ref().map_or(SIGNED_DEFAULT, |written| written.value.as_str());
    match parts(text).and_then(Signed::new) {
        Ok(signed) => Some(signed),
        Err(why) => {
            let place = settings.signed.as_ref().map_or(compiler.place(), |written| written.place);
            compiler.report(Problem::new(place, format!("`signed` cannot be: {why}")).with_hint(HINT));
            None
        }
    }
}

fn parts(text: &str) -> Result<Vec<Part>, &'static str> {
    if text.len() > SIGNED_BYTES_MAX {
        return Err("it is too long");
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (plain, after) = rest.split_once('{').unwrap_or((rest, ""));
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        if plain.len() == rest.len() {
            break;
        }
        let (name, after) = after.split_once('}').ok_or("a `{` is not closed")?;
        parts.push(match name {
            "timestamp" => Part::Timestamp,
            "id" => Part::Id,
            "body" => Part::Body,
            _ => return Err("it knows `{timestamp}`, `{id}` and `{body}` only"),
        });
        rest = after;
    }
    Ok(parts)
}

/// `None` when a problem was reported.
fn timestamp_header(
    settings: &ProviderSettings,
    signed: &Signed,
    compiler: &mut Compiler,
) -> Option<Option<HeaderName>> {
    match (&settings.timestamp_header, signed.has(&Part::Timestamp)) {
        (None, false) => Some(None),
        (None, true) => compiler.field_name(TIMESTAMP_HEADER_DEFAULT, compiler.place()).map(Some),
        (Some(written), true) => compiler.field_name(written, written.place).map(Some),
        (Some(written), false) => {
            report_unsigned(written, "timestamp", compiler);
            None
        }
    }
}

/// `None` when a problem was reported.
fn id_header(settings: &ProviderSettings, signed: &Signed, compiler: &mut Compiler) -> Option<Option<HeaderName>> {
    match (&settings.id_header, signed.has(&Part::Id)) {
        (None, false) => Some(None),
        (Some(written), true) => compiler.field_name(written, written.place).map(Some),
        (Some(written), false) => {
            report_unsigned(written, "id", compiler);
            None
        }
        (None, true) => {
            let place = settings.signed.as_ref().map_or(compiler.place(), |written| written.place);
            let problem = Problem::new(place, "an `{id}` is signed, and nothing says in which field it stands");
            compiler.report(problem.with_hint("write `id_header: X-Webhook-Id`"));
            None
        }
    }
}

fn report_unsigned(written: &Located<String>, part: &str, compiler: &mut Compiler) {
    let message = format!("the {part} is not signed: anybody could send another one");
    let hint = format!("put `{{{part}}}` into `signed` when the sender signs it, or leave this out");
    compiler.report(Problem::new(written.place, message).with_hint(hint));
}
