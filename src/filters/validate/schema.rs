//! JSON Schemas, from YAML or from a JSON text, compiled when the configuration is.

mod keywords;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

use super::mistake::{Mistake, located};
use crate::contract::Compiler;
use crate::json::{self, Fault};
use crate::yaml::{Kind, Node, Place, Problem};

/// Values of a body up to which every mistake is told; of a larger one, the first.
///
/// All mistakes are found before one can be told, and each takes memory: of 1 MiB of them some hundred.
const VALUES_MAX: usize = 1000;
/// Mistakes that are told.
pub const MISTAKES_MAX: usize = 10;
/// Longest explanation of what is wrong with a schema, in characters.
const MESSAGE_CHARS_MAX: usize = 300;
/// Largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// A compiled schema.
pub struct Schema {
    validator: Validator,
    /// It has keywords that try several schemas on one value and gather what is wrong with each.
    tries: bool,
}

impl Schema {
    /// Compiles a schema, or reports what is wrong with it. Also gives the schema itself.
    pub fn compile(node: &Node, compiler: &mut Compiler) -> Option<(Self, Value)> {
        let value = match &node.kind {
            Kind::Str(text) => from_text(&text.text, text.substituted(), node.place, compiler)?,
            Kind::Map(_) | Kind::Bool(_) => from_yaml(node),
            _ => {
                let problem = Problem::new(node.place, "this is no JSON Schema: it is a map, `true` or `false`");
                compiler.report(problem.with_hint("for example `{ type: object, required: [id] }`"));
                return None;
            }
        };
        if let Some(file) = only_file(&value) {
            let problem = Problem::new(node.place, "`file` is no keyword of JSON Schema");
            compiler.report(problem.with_hint(format!("write `${{file:{file}}}` in place of the schema")));
            return None;
        }
        let found = keywords::check(&value);
        found.faults.iter().for_each(|fault| report(node, fault, compiler));
        if !found.faults.is_empty() {
            return None;
        }
        let options = jsonschema::options()
            .offline()
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX));
        match options.build(&value) {
            Ok(validator) => Some((Self { validator, tries: found.tries }, value)),
            Err(error) => {
                report(node, &keywords::explain(&error, &value), compiler);
                None
            }
        }
    }

    /// What is wrong with a value; nothing when it is valid. `root` names the value.
    pub fn mistakes(&self, value: &Value, root: &str) -> Vec<Mistake> {
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        let told = if count(value, VALUES_MAX) <= VALUES_MAX {
            self.validator.iter_errors(value).take(MISTAKES_MAX).map(|error| Mistake::of(&error, value, root)).collect()
        } else if self.tries {
            // What is wrong with each try of each value could take any amount of memory.
            Vec::new()
        } else {
            self.validator.validate(value).err().map(|error| Mistake::of(&error, value, root)).into_iter().collect()
        };
        if told.is_empty() { vec![Mistake::somewhere(root)] } else { told }
    }
}

/// How many values there are, counted to just above `most`.
fn count(value: &Value, most: usize) -> usize {
    let mut open = vec![value];
    let mut seen = 0_usize;
    while let Some(value) = open.pop() {
        seen = seen.saturating_add(1);
        if seen.saturating_add(open.len()) > most {
            return most.saturating_add(1);
        }
        match value {
            Value::Array(items) => open.extend(items.iter().take(most.saturating_add(1))),
            Value::Object(members) => open.extend(members.values().take(most.saturating_add(1))),
            _ => {}
        }
    }
    seen
}

/// Reads the text of a schema.
fn from_text(text: &str, is_file: bool, place: Place, compiler: &mut Compiler) -> Option<Value> {
    let fault = match json::parse(text.as_bytes(), json::DEPTH_MAX) {
        Ok(value @ (Value::Object(_) | Value::Bool(_))) => return Some(value),
        Ok(_) => "it is neither an object nor `true` or `false`".to_owned(),
        Err(Fault::Syntax { line, column }) => format!("it is not valid JSON at its line {line}, column {column}"),
        Err(Fault::TooDeep) => format!("it is nested deeper than {}", json::DEPTH_MAX),
        Err(Fault::Twice(path)) => format!("`{}` is in it twice", located("schema", &path)),
    };
    let problem = Problem::new(place, format!("this text is no JSON Schema: {fault}"));
    let hint = if is_file { "a file holds the schema as JSON" } else { "write it as YAML, or `${file:schema.json}`" };
    compiler.report(problem.with_hint(hint));
    None
}

fn from_yaml(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => Value::Bool(*value),
        Kind::Int(value) => Value::from(*value),
        Kind::Float(value) => Value::from(*value),
        Kind::Str(text) => Value::String(text.text.to_string()),
        Kind::Seq(items) => Value::Array(items.iter().map(from_yaml).collect()),
        Kind::Map(entries) => Value::Object(entries.iter().map(member).collect()),
    }
}

/// A number that came out of a reference is one where the keyword wants one.
fn member(entry: &crate::yaml::Entry) -> (String, Value) {
    let name = entry.key.text.to_string();
    let number = match &entry.value.kind {
        Kind::Str(text) if text.substituted() && keywords::takes_number(&name) => {
            text.text.parse().ok().map(Value::Number)
        }
        _ => None,
    };
    (name, number.unwrap_or_else(|| from_yaml(&entry.value)))
}

/// The file that somebody means who writes `{ file: schema.json }`.
fn only_file(schema: &Value) -> Option<&str> {
    let members: &Map<String, Value> = schema.as_object()?;
    if members.len() == 1 { members.get("file")?.as_str() } else { None }
}

/// Reports at the node nearest to where a fault is.
fn report(root: &Node, fault: &keywords::Fault, compiler: &mut Compiler) {
    let (mut node, mut place) = (root, root.place);
    for segment in fault.path.split('/').skip(1) {
        let name = segment.replace("~1", "/").replace("~0", "~");
        let inside = match &node.kind {
            Kind::Seq(items) => {
                name.parse().ok().and_then(|index: usize| items.get(index)).map(|item| (item.place, item))
            }
            _ => node
                .entries()
                .iter()
                .find(|entry| *entry.key.text == *name)
                .map(|entry| (entry.key.place, &entry.value)),
        };
        let Some((name_place, inside)) = inside else { break };
        place = if fault.is_name { name_place } else { inside.place };
        node = inside;
    }
    // Within the text of a file there are no places.
    let at = match root.kind {
        Kind::Str(_) => format!(" at `{}`", fault.path),
        _ => String::new(),
    };
    let message: String = fault.message.chars().take(MESSAGE_CHARS_MAX).collect();
    let problem = Problem::new(place, format!("this JSON Schema is not sound{at}: {message}"));
    compiler.report(match &fault.hint {
        Some(hint) => problem.with_hint(hint),
        None => problem,
    });
}
