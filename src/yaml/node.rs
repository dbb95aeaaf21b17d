//! The tree between text and typed values.

use super::Place;
use std::fmt;
use std::sync::Arc;

/// A value and where it stands. Cloning is cheap: texts and containers are shared.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub kind: Kind,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing: `null`, `~`, or a key without a value.
    Null,
    Bool(bool),
    Int(i64),
    /// Always finite.
    Float(f64),
    Str(Text),
    Seq(Arc<[Node]>),
    /// In the order of the file; keys are unique.
    Map(Arc<[Entry]>),
}

/// A string value.
#[derive(Clone)]
pub struct Text {
    pub text: Arc<str>,
    /// The references the text was made from (`${NAME}`), when it was substituted. Messages show these instead.
    pub origin: Option<Arc<str>>,
}

/// One `key: value`.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Key,
    pub value: Node,
}

/// A key and where it stands.
#[derive(Clone, Debug)]
pub struct Key {
    pub place: Place,
    pub text: Arc<str>,
}

impl Text {
    pub(super) fn plain(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), origin: None }
    }

    /// Whether any part came from the environment or a file, so that it must not be shown.
    pub fn substituted(&self) -> bool {
        self.origin.is_some()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.origin.as_ref().unwrap_or(&self.text), f)
    }
}

impl Node {
    pub fn new(place: Place, kind: Kind) -> Self {
        Self { place, kind }
    }

    /// A map without entries: the settings of something that was named without any.
    pub fn empty_map(place: Place) -> Self {
        Self { place, kind: Kind::Map(Arc::new([])) }
    }

    /// The value as JSON. Where it was written is forgotten.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(value) => Value::from(*value),
            Kind::Float(value) => Value::from(*value),
            Kind::Str(text) => Value::String(text.text.to_string()),
            Kind::Seq(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.text.to_string(), entry.value.to_json())).collect())
            }
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// The value of `key`, when this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| &*entry.key.text == key).map(|entry| &entry.value)
    }

    /// The entries of a map; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The elements of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::Seq(items) => items,
            _ => &[],
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::Str(text) => Some(&text.text),
            _ => None,
        }
    }

    /// What this is, for messages; never the content of a string.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Bool(value) => format!("`{value}`"),
            Kind::Int(value) => format!("the number {value}"),
            Kind::Float(value) => format!("the number {value}"),
            Kind::Str(Text { origin: Some(origin), .. }) => format!("what {origin} gives"),
            Kind::Str(_) => "a string".to_owned(),
            Kind::Seq(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }
}
