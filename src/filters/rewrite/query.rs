//! Changes of the query.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::context::Context;
use crate::contract::Compiler;
use crate::head::RequestHead;
use crate::template::{Escape, Template};
use crate::yaml::Located;

/// Compiled changes of the query.
pub(super) struct QueryEdits {
    /// Plain names of the parameters that go: those removed, and those set anew.
    gone: Vec<Box<str>>,
    /// `name=`, percent-encoded, and the value.
    set: Vec<(Box<str>, Template)>,
}

impl QueryEdits {
    pub(super) fn compile(set: &BTreeMap<String, Located<String>>, remove: &[String], compiler: &mut Compiler) -> Self {
        let gone = set.keys().chain(remove).map(|name| name.as_str().into()).collect();
        let set = set.iter().filter_map(|(name, text)| {
            let mut encoded = String::new();
            encode(name.as_bytes(), false, &mut encoded);
            encoded.push('=');
            compiler.template(text).map(|template| (encoded.into(), template))
        });
        Self { gone, set: set.collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gone.is_empty()
    }

    /// The new query, of which `None` is none; `None` when it stays as it is.
    pub(super) fn apply(&self, request: &dyn RequestHead, context: &Context) -> Option<Option<String>> {
        if self.is_empty() {
            return None;
        }
        let mut query = String::new();
        for pair in request.query().unwrap_or_default().split('&').filter(|pair| !self.takes(pair)) {
            separate(&mut query);
            query.push_str(pair);
        }
        let mut value = Vec::new();
        for (name, template) in &self.set {
            separate(&mut query);
            query.push_str(name);
            value.clear();
            template.render(request, context, Escape::None, &mut value);
            encode(&value, true, &mut query);
        }
        Some((!query.is_empty()).then_some(query))
    }

    /// Whether a pair goes. Names are compared decoded: the service decodes them too.
    fn takes(&self, pair: &str) -> bool {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        if pair.is_empty() {
            return true;
        }
        if !name.contains(['%', '+']) {
            return self.gone.iter().any(|gone| **gone == *name);
        }
        let plain = decode(name.as_bytes());
        self.gone.iter().any(|gone| gone.as_bytes() == plain)
    }
}

fn separate(query: &mut String) {
    if !query.is_empty() {
        query.push('&');
    }
}

/// Percent-encodes all but unreserved characters. With `keep_escapes`, what is percent-encoded already stays: values of the
/// path and the query come so.
fn encode(text: &[u8], keep_escapes: bool, out: &mut String) {
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let is_escape = || matches!(tail, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_escapes && byte == b'%' && is_escape()) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        rest = tail;
    }
}

fn decode(mut text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    while let Some((&byte, tail)) = text.split_first() {
        text = tail;
        plain.push(match (byte, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match hex(*high).zip(hex(*low)) {
                Some((high, low)) => {
                    text = after;
                    high << 4 | low
                }
                None => b'%',
            },
            _ => byte,
        });
    }
    plain
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
