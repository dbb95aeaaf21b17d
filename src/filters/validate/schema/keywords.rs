//! What stands in a schema, looked through before it is compiled: a keyword that nobody knows would check nothing.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ReferencingError, ValidationError};
use serde_json::Value;

use crate::filters::validate::words;
use crate::yaml::suggest;

/// Keywords with a schema for a value.
const WITH_SCHEMA: &[&str] = &[
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords with a list of schemas.
const WITH_LIST: &[&str] = &["allOf", "anyOf", "items", "oneOf", "prefixItems"];
/// Keywords with a schema for each of some names.
const WITH_NAMES: &[&str] =
    &["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"];
/// Keywords with something else.
const PLAIN: &[&str] = &[
    "$anchor",
    "$comment",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$recursiveAnchor",
    "$recursiveRef",
    "$ref",
    "$schema",
    "$vocabulary",
    "const",
    "contentEncoding",
    "contentMediaType",
    "default",
    "dependentRequired",
    "deprecated",
    "description",
    "enum",
    "example",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "id",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "readOnly",
    "required",
    "title",
    "type",
    "uniqueItems",
    "writeOnly",
];
/// Keywords that try schemas and gather what is wrong with each.
const TRYING: &[&str] = &["anyOf", "contains", "dependencies", "if", "not", "oneOf", "propertyNames"];
/// Keywords that lead to another schema.
const REFERENCES: &[&str] = &["$ref", "$dynamicRef", "$recursiveRef", "$schema"];
/// Faults of one schema that are told.
const FAULTS_MAX: usize = 20;
/// Keywords with a number.
const NUMBERS: &[&str] = &[
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
];

pub fn takes_number(keyword: &str) -> bool {
    NUMBERS.contains(&keyword)
}

/// What a look through a schema came to.
#[derive(Default)]
pub struct Found {
    pub faults: Vec<Fault>,
    /// It has keywords that try schemas.
    pub tries: bool,
}

/// Something wrong in a schema, at a JSON pointer.
pub struct Fault {
    pub path: String,
    /// It is the name of the member that is wrong, not its value.
    pub is_name: bool,
    pub message: String,
    pub hint: Option<String>,
}

/// Looks through a schema.
pub fn check(schema: &Value) -> Found {
    let mut found = Found::default();
    // A list of what is still to be seen: no recursion, however deep the schema is.
    let mut open = vec![(String::new(), schema)];
    while let Some((path, schema)) = open.pop() {
        let Value::Object(members) = schema else { continue };
        for (keyword, value) in members {
            let path = format!("{path}/{}", escaped(keyword));
            found.tries |= TRYING.contains(&keyword.as_str());
            match value {
                Value::Array(items) if WITH_LIST.contains(&keyword.as_str()) => {
                    open.extend(items.iter().enumerate().map(|(index, item)| (format!("{path}/{index}"), item)));
                }
                Value::Object(named) if WITH_NAMES.contains(&keyword.as_str()) => {
                    open.extend(named.iter().map(|(name, item)| (format!("{path}/{}", escaped(name)), item)));
                }
                value if WITH_SCHEMA.contains(&keyword.as_str()) => open.push((path, value)),
                _ if is_known(keyword) => {}
                _ => found.faults.push(unknown(keyword, path)),
            }
        }
    }
    found.faults.extend(of_shape(schema));
    found.faults.sort_by(|one, other| one.path.cmp(&other.path));
    found.faults.dedup_by(|one, other| one.path == other.path);
    found
}

/// What the schema of schemas has against it.
fn of_shape(schema: &Value) -> Vec<Fault> {
    // An unknown `$schema` is told when the schema is compiled.
    let Ok(known) = jsonschema::meta::validator_for(schema) else { return Vec::new() };
    known.iter_errors(schema).take(FAULTS_MAX).map(|error| explain(&error, schema)).collect()
}

fn is_known(keyword: &str) -> bool {
    [PLAIN, WITH_LIST, WITH_NAMES].iter().any(|list| list.contains(&keyword)) || keyword.starts_with("x-")
}

fn unknown(keyword: &str, path: String) -> Fault {
    let known = [PLAIN, WITH_LIST, WITH_NAMES, WITH_SCHEMA];
    let near = suggest(keyword, known.iter().flat_map(|list| list.iter().copied()));
    let hint = near.map(|near| format!("did you mean `{near}`?"));
    let hint = hint.or_else(|| Some("begin the name of your own keywords with `x-`; they check nothing".to_owned()));
    Fault { path, is_name: true, message: format!("unknown keyword `{}`", words::short(keyword)), hint }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Why a schema is not sound, in words, and what to do.
pub fn explain(error: &ValidationError<'_>, schema: &Value) -> Fault {
    let path = error.instance_path().as_str().to_owned();
    let fault = |message| Fault { path, is_name: false, message, hint: None };
    match error.kind() {
        ValidationErrorKind::Referencing(error) => unresolved(error, schema),
        ValidationErrorKind::Format { format } if format == "regex" => pattern(error, schema),
        ValidationErrorKind::Custom { message, .. } => fault(message.clone()),
        _ => fault(format!("expected {}", words::expected(error, false))),
    }
}

/// The pattern is a value, or the name of a member.
fn pattern(error: &ValidationError<'_>, schema: &Value) -> Fault {
    let path = error.instance_path().as_str().to_owned();
    let value = schema.pointer(&path).and_then(Value::as_str);
    let name = path.rsplit('/').next().unwrap_or_default().replace("~1", "/").replace("~0", "~");
    let text = value.unwrap_or(&name);
    let why = regex::Regex::new(text).err().map(|error| error.to_string()).unwrap_or_default();
    let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let why = if why.is_empty() { "it cannot be matched in linear time".to_owned() } else { why };
    let message = format!("`{}` is no pattern: {why}", words::short(text));
    let hint = "patterns are those of https://docs.rs/regex, without look-around and back-references";
    Fault { is_name: value.is_none(), path, message, hint: Some(hint.to_owned()) }
}

fn unresolved(error: &ReferencingError, schema: &Value) -> Fault {
    let wanted = match error {
        ReferencingError::Unretrievable { uri, .. } => uri.as_str(),
        ReferencingError::PointerToNowhere { pointer } => pointer.as_str(),
        ReferencingError::NoSuchAnchor { anchor } | ReferencingError::InvalidAnchor { anchor } => anchor.as_str(),
        ReferencingError::UnknownSpecification { specification } => specification.as_str(),
        _ => "",
    };
    let leads = |text: &str| !wanted.is_empty() && (text.contains(wanted) || wanted.contains(text));
    let (path, text) = references(schema).find(|(_, text)| leads(text)).unwrap_or((String::new(), wanted));
    let name = words::short(text);
    let (message, hint) = match error {
        ReferencingError::Unretrievable { .. } => (
            format!("`{name}` is somewhere else, and the gateway fetches no schema"),
            "copy what it leads to into `$defs`, and write `$ref: \"#/$defs/name\"`",
        ),
        ReferencingError::UnknownSpecification { .. } => {
            (format!("`{name}` is no draft of JSON Schema that is known here"), "leave `$schema` out for draft 2020-12")
        }
        _ => (
            format!("`{name}` leads nowhere in this schema"),
            "`#/$defs/name` leads to `name` in `$defs` of the schema",
        ),
    };
    Fault { path, is_name: false, message, hint: Some(hint.to_owned()) }
}

/// The texts behind the keywords that lead elsewhere, each with its JSON pointer.
fn references(schema: &Value) -> impl Iterator<Item = (String, &str)> {
    let mut open = vec![(String::new(), schema)];
    std::iter::from_fn(move || {
        let (path, value) = open.pop()?;
        match value {
            Value::Array(items) => {
                open.extend(items.iter().enumerate().map(|(index, item)| (format!("{path}/{index}"), item)));
            }
            Value::Object(members) => {
                open.extend(members.iter().map(|(name, item)| (format!("{path}/{}", escaped(name)), item)));
            }
            _ => {}
        }
        Some((path, value))
    })
    .filter(|(path, _)| path.rsplit('/').next().is_some_and(|name| REFERENCES.contains(&name)))
    .filter_map(|(path, value)| Some((path, value.as_str()?)))
}
