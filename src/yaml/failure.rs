//! The error that travels through serde while a tree is decoded.

use super::node::{Kind, Node, Text};
use super::problem::{hint_known, quoted};
use super::{Place, Problem};
use serde::de::{Error, Expected, Unexpected};
use std::fmt;

/// One entry of a map or element of a list, by the address of its container: unique while the tree is borrowed.
pub(super) type Slot = (usize, usize);

/// Separates message and hint in the text given to [`Error::custom`].
const HINT_MARK: &str = "\nhint: ";

/// Why a value could not be decoded. Gets its place on the way up from the innermost node that knows one.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Box<Details>);

#[derive(Debug)]
pub(super) struct Details {
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) missing: Option<&'static str>,
    /// The container that lacks the key `missing`.
    pub(super) lacking: Option<usize>,
    pub(super) place: Option<Place>,
    /// What to leave out in the next round.
    pub(super) slot: Option<Slot>,
    /// Only a consequence of a problem already reported.
    pub(super) consequence: bool,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            message: message.into(),
            hint: None,
            missing: None,
            lacking: None,
            place: None,
            slot: None,
            consequence: false,
        }))
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.0.place.get_or_insert(place);
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// `node` is not what is wanted.
    pub(super) fn mismatch(node: &Node, wanted: &str) -> Self {
        Self::new(format!("expected {wanted}, found {}", node.describe())).at(node.place)
    }

    pub(super) fn into_problem(self, fallback: Place) -> Problem {
        let Details { message, hint, place, .. } = *self.0;
        Problem { place: place.unwrap_or(fallback), message, hint, ..Problem::new(Place::UNKNOWN, "") }
    }

    /// Takes every substituted value that `node` holds out of the texts: what a type's own check says may quote it.
    pub(super) fn redact(&mut self, node: &Node) {
        match &node.kind {
            // Nothing is there to be given away, and that it is empty is what somebody has to know.
            Kind::Str(Text { text, origin: Some(origin) }) if text.is_empty() => {
                self.0.hint.get_or_insert_with(|| format!("{origin} is empty"));
            }
            Kind::Str(Text { origin: Some(origin), .. }) => {
                self.0.message = format!("the value of {origin} is not allowed here");
                self.0.hint = None;
            }
            Kind::Seq(_) | Kind::Map(_) => self.redact_inside(node),
            _ => {}
        }
    }

    fn redact_inside(&mut self, node: &Node) {
        if let Kind::Str(Text { text, origin: Some(origin) }) = &node.kind
            && !text.is_empty()
        {
            for shown in std::iter::once(&mut self.0.message).chain(self.0.hint.as_mut()) {
                if shown.contains(&**text) {
                    *shown = shown.replace(&**text, origin);
                }
            }
        }
        node.items().iter().for_each(|item| self.redact_inside(item));
        node.entries().iter().for_each(|entry| self.redact_inside(&entry.value));
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Failure {}

impl Error for Failure {
    fn custom<T: fmt::Display>(text: T) -> Self {
        let text = text.to_string();
        match text.split_once(HINT_MARK) {
            Some((message, hint)) => Self::new(message).hint(hint),
            None => Self::new(text),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, found {}", kind_of(&found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, found {}", kind_of(&found)))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, found {length} elements"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mut failure = Self::new(format!("unknown name {}", quoted(variant)));
        failure.0.hint = hint_known(variant, expected, "known names");
        failure
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let mut failure = Self::new(format!("unknown key {}", quoted(field)));
        failure.0.hint = hint_known(field, expected, "known keys");
        failure
    }

    fn missing_field(field: &'static str) -> Self {
        let mut failure = Self::new(format!("missing key `{field}`"));
        failure.0.missing = Some(field);
        failure
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("duplicate key `{field}`"))
    }
}

/// The kind of a value, never the content of a string.
fn kind_of(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a map".to_owned(),
        Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "a string".to_owned(),
        _ => "something else".to_owned(),
    }
}
