//! Parameters of path and query: text, read as what the schema wants.

use std::borrow::Cow;

use serde_json::{Number, Value};

use super::mistake::Mistake;
use super::schema::{MISTAKES_MAX, Schema};
use super::words;
use crate::contract::Compiler;
use crate::yaml::{Located, Named, Node, Problem};

/// The schemas of some parameters, in the order they are written.
pub struct Parameters(Box<[Parameter]>);

/// A parameter by its name.
struct Parameter {
    name: Box<str>,
    /// `path.commit_id`, `query.limit`.
    field: Box<str>,
    reads: Reads,
    /// Of a list: how its items are read.
    items: Reads,
    schema: Schema,
    is_required: bool,
}

/// What a text is read as, when it looks like that. What does not stays text, and the schema refuses it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Reads {
    number: bool,
    integer: bool,
    boolean: bool,
    /// The parameter may be there several times.
    list: bool,
    /// Text is good as it is.
    string: bool,
}

impl Reads {
    fn of(schema: &Value) -> Self {
        let names = match schema.get("type") {
            Some(Value::String(name)) => vec![name.as_str()],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let has = |name: &str| names.contains(&name);
        Self {
            number: has("number"),
            integer: has("integer"),
            boolean: has("boolean"),
            list: has("array"),
            string: has("string"),
        }
    }

    fn read(self, text: &str) -> Value {
        // What may be text is text: `"007"` is no 7 then.
        let read = match text {
            _ if self.string => None,
            "true" if self.boolean => Some(Value::Bool(true)),
            "false" if self.boolean => Some(Value::Bool(false)),
            _ if self.number => text.parse().ok().map(Value::Number),
            _ if self.integer => text.parse().ok().filter(is_written_as_integer(text)).map(Value::Number),
            _ => None,
        };
        read.unwrap_or_else(|| Value::String(text.to_owned()))
    }
}

/// JSON takes `1.0` and `1e2` for integers; what reads a query does not.
fn is_written_as_integer(text: &str) -> impl Fn(&Number) -> bool {
    let is_plain = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    move |_| is_plain
}

impl Parameters {
    /// Compiles schemas. `of` is `path` or `query`.
    pub fn compile(written: &Named<Node>, of: &str, required: &[Located<String>], compiler: &mut Compiler) -> Self {
        for name in required.iter().filter(|name| !written.iter().any(|(known, _)| known.value == name.value)) {
            let known = written.iter().map(|(name, _)| name.value.as_str());
            compiler.report(Problem::unknown(name.place, "parameter", &name.value, known));
        }
        let compiled = written.iter().filter_map(|(name, node)| {
            let (schema, value) = Schema::compile(node, compiler)?;
            let reads = Reads::of(&value);
            Some(Parameter {
                name: name.value.as_str().into(),
                field: format!("{of}.{}", name.value).into(),
                items: value.get("items").map(Reads::of).unwrap_or_default(),
                reads,
                schema,
                is_required: required.iter().any(|required| required.value == name.value),
            })
        });
        Self(compiled.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong with path parameters, which `get` gives percent-encoded.
    pub fn check_path<'a>(&self, get: impl Fn(&str) -> Option<&'a str>, mistakes: &mut Vec<Mistake>) {
        for parameter in &self.0 {
            // One that is optional and left out.
            let Some(sent) = get(&parameter.name) else { continue };
            match decoded(sent, false) {
                Some(text) => parameter.check(&parameter.reads.read(&text), mistakes),
                None => mistakes.push(parameter.undecodable(sent)),
            }
        }
    }

    /// What is wrong with a query. `takes_others`: parameters that are not written down may be there.
    pub fn check_query(&self, query: &str, takes_others: bool, mistakes: &mut Vec<Mistake>) {
        if self.is_empty() && takes_others {
            return;
        }
        // Some services part parameters at it as well, and would find others in it than were looked at here.
        if query.contains(';') {
            mistakes.push(Mistake::new("query", "`;` to be written as %3B"));
        }
        let mut found: Vec<Vec<&str>> = vec![Vec::new(); self.0.len()];
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Names are compared decoded: the service decodes them too.
            let decoded = decoded(name, true);
            let index = self.0.iter().position(|known| decoded.as_deref() == Some(&*known.name));
            match index.and_then(|index| found.get_mut(index)) {
                Some(values) => values.push(value),
                None if takes_others => {}
                None if mistakes.len() < MISTAKES_MAX => {
                    let shown = words::short(decoded.as_deref().unwrap_or(name));
                    mistakes.push(Mistake::new(format!("query.{shown}"), "no parameter of this name"));
                }
                None => {}
            }
        }
        for (parameter, values) in self.0.iter().zip(&found) {
            parameter.check_values(values, mistakes);
        }
    }
}

impl Parameter {
    fn check_values(&self, values: &[&str], mistakes: &mut Vec<Mistake>) {
        let mut texts = Vec::with_capacity(values.len());
        for value in values {
            match decoded(value, true) {
                Some(text) => texts.push(text),
                None => return mistakes.push(self.undecodable(value)),
            }
        }
        match texts.as_slice() {
            [] if self.is_required => {
                mistakes.push(Mistake::new(&*self.field, "it to be there: it is required"));
            }
            [] => {}
            several if self.reads.list => {
                self.check(&several.iter().map(|text| self.items.read(text)).collect(), mistakes);
            }
            [one] => self.check(&self.reads.read(one), mistakes),
            // A service may take the first or the last.
            several => {
                let found = Mistake::new(&*self.field, "it to be there once");
                mistakes.push(found.with_value(&several.iter().map(|text| Value::from(&**text)).collect()));
            }
        }
    }

    fn check(&self, value: &Value, mistakes: &mut Vec<Mistake>) {
        mistakes.extend(self.schema.mistakes(value, &self.field));
    }

    fn undecodable(&self, sent: &str) -> Mistake {
        Mistake::new(&*self.field, "percent-encoded UTF-8").with_value(&Value::from(sent))
    }
}

/// Decodes `%41`, and in a form `+` as a space; `None` when that gives no text.
fn decoded(text: &str, is_form: bool) -> Option<Cow<'_, str>> {
    if !text.contains(|c| c == '%' || (is_form && c == '+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from((high << 4) | low).ok()?
            }
            b'+' if is_form => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests;
