//! What is wrong with a request: where, what was sent, what was expected.

use std::fmt::Write as _;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Value, json};

use super::words;
use crate::json::Segment;
use crate::reply::{Code, Rejection};
use crate::types::names_credential;

/// Longest `value` that is given back, in characters.
const VALUE_CHARS_MAX: usize = 200;
/// Longest `field`, in characters.
const FIELD_CHARS_MAX: usize = 200;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// `body.items[0].commit_hash`, `path.commit_id`, `query.limit`.
    pub field: String,
    /// What was sent, shortened; hidden when the field may hold a credential.
    pub value: Value,
    /// In words.
    pub expected: String,
}

impl Mistake {
    /// Says what a schema has against a value. `root` names that value.
    pub fn of(error: &ValidationError<'_>, value: &Value, root: &str) -> Self {
        let (mut path, mut at) = walk(error.instance_path().as_str(), value);
        let member = match error.kind() {
            ValidationErrorKind::Required { property } => property.as_str(),
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => unexpected.first().map(String::as_str),
            _ if words::refuses_members(error) => {
                at.as_object().and_then(|members| members.keys().next()).map(String::as_str)
            }
            _ => None,
        };
        if let Some(name) = member {
            at = at.get(name).unwrap_or(&Value::Null);
            path.push(Segment::Member(name.to_owned()));
        }
        let is_secret = names_credential(root)
            || path.iter().any(|segment| matches!(segment, Segment::Member(name) if names_credential(name)));
        Self {
            field: located(root, &path),
            value: if is_secret && !at.is_null() { "[redacted]".into() } else { shown(at) },
            expected: words::expected(error, is_secret),
        }
    }

    /// What was sent has no place in a message.
    pub fn new(field: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { field: field.into(), value: Value::Null, expected: expected.into() }
    }

    /// The same, with what was sent.
    #[must_use]
    pub fn with_value(self, value: &Value) -> Self {
        let value = if names_credential(&self.field) { "[redacted]".into() } else { shown(value) };
        Self { value, ..self }
    }

    /// Something is wrong with a value that is too large to say what.
    pub fn somewhere(root: &str) -> Self {
        Self::new(root, "a value that fits the schema of this route; this one is too large to say where it does not")
    }

    fn into_json(self) -> Value {
        json!({ "field": self.field, "value": self.value, "expected": self.expected })
    }
}

/// 400 with the first mistake, and the list of all.
pub fn refusal(mistakes: Vec<Mistake>) -> Rejection {
    let Some(first) = mistakes.first().cloned() else {
        return Rejection::new(Code::VALIDATION_ERROR, "the request is not valid");
    };
    let message = format!("`{}` is not valid: expected {}", first.field, first.expected);
    let errors: Vec<Value> = mistakes.into_iter().map(Mistake::into_json).collect();
    Rejection::new(Code::VALIDATION_ERROR, message)
        .with_detail("field", first.field)
        .with_detail("value", first.value)
        .with_detail("expected", first.expected)
        .with_detail("errors", errors)
}

/// Follows a JSON pointer as far as it leads.
fn walk<'v>(pointer: &str, root: &'v Value) -> (Vec<Segment>, &'v Value) {
    let (mut path, mut at) = (Vec::new(), root);
    for segment in pointer.split('/').skip(1) {
        let name = segment.replace("~1", "/").replace("~0", "~");
        let inside = match at {
            Value::Array(items) => {
                name.parse().ok().and_then(|index: usize| Some((Segment::Item(index), items.get(index)?)))
            }
            Value::Object(members) => members.get(&name).map(|value| (Segment::Member(name), value)),
            _ => None,
        };
        let Some((segment, value)) = inside else { break };
        path.push(segment);
        at = value;
    }
    (path, at)
}

/// The field that a path leads to: `body.items[0].commit_hash`, `body["a b"]`.
pub fn located(root: &str, path: &[Segment]) -> String {
    let mut field = root.to_owned();
    for segment in path {
        let _ = match segment {
            Segment::Item(index) => write!(field, "[{index}]"),
            Segment::Member(name) if is_plain(name) => write!(field, ".{name}"),
            Segment::Member(name) => write!(field, "[{}]", Value::from(name.as_str())),
        };
        if field.len() > FIELD_CHARS_MAX {
            break;
        }
    }
    words::cut(&field, FIELD_CHARS_MAX)
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$'))
}

/// A value to give back. Of a list or an object only the size: a credential may be in it.
fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) => words::cut(text, VALUE_CHARS_MAX).into(),
        Value::Array(items) => format!("(a list of {})", words::counted(items.len() as u64, "item")).into(),
        Value::Object(members) => format!("(an object of {})", words::counted(members.len() as u64, "member")).into(),
        plain => plain.clone(),
    }
}
