//! Types that keep what serde would lose: places and undecoded settings.

use super::failure::Failure;
use super::{FileId, Node, Place, Problem};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, RangeInclusive};

// Names of newtype structs by which these types make themselves known to the decoder.
pub(super) const LOCATED: &str = "$tollgate::Located";
pub(super) const NODE: &str = "$tollgate::Node";
/// The field that takes all other keys of a struct.
pub(super) const REST: &str = "$rest";

const ONLY_DECODE: &str = "this type is only made by yaml::decode";

/// A value and where it stands. Decodes only by [`decode`](super::decode()).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located<T> {
    pub value: T,
    pub place: Place,
}

impl<T> Located<T> {
    pub fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

impl<T: Copy + PartialOrd + fmt::Display> Located<T> {
    /// The value. That of the setting `key` is reported when it lies outside of the range.
    pub fn within(self, key: &str, range: RangeInclusive<T>, problems: &mut Vec<Problem>) -> T {
        if !range.contains(&self.value) {
            let (least, most) = (range.start(), range.end());
            let message = format!("`{key}` must be {least} to {most}, not {}", self.value);
            problems.push(Problem::new(self.place, message));
        }
        self.value
    }
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(LOCATED, LocatedVisitor(PhantomData))
    }
}

struct LocatedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for LocatedVisitor<T> {
    type Value = Located<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with its place")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<Located<T>, D::Error> {
        Err(D::Error::custom(ONLY_DECODE))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Located<T>, A::Error> {
        let place: Option<(u32, u32, u32)> = parts.next_element()?;
        let (Some((file, line, column)), Some(value)) = (place, parts.next_element()?) else {
            return Err(A::Error::custom(ONLY_DECODE));
        };
        Ok(Located { value, place: Place { file: FileId(file), line, column } })
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

thread_local! {
    /// A node on its way from the decoder to the visitor that asked for it: serde's data model has no room for one.
    static HANDED_OVER: RefCell<Option<Node>> = const { RefCell::new(None) };
}

pub(super) fn hand_over<'de, V: Visitor<'de>>(node: Node, visitor: V) -> Result<V::Value, Failure> {
    HANDED_OVER.set(Some(node));
    let value = visitor.visit_unit();
    HANDED_OVER.take();
    value
}

/// Keeps a value undecoded, for whoever knows its type. Decodes only by [`decode`](super::decode()).
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(NODE, NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        HANDED_OVER.take().ok_or_else(|| E::custom(ONLY_DECODE))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<Node, D::Error> {
        Err(D::Error::custom(ONLY_DECODE))
    }
}

impl JsonSchema for Node {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Node".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        true.into()
    }
}

/// The keys of a struct that are none of its fields, with their undecoded values, in the order of the file.
///
/// The field that holds it is written `#[serde(rename = "$rest", default)]`, and `#[schemars(skip)]` because no
/// file holds a key of that name. A struct with such a field has no unknown keys.
#[derive(Debug, Clone, Default)]
pub struct Rest(pub Vec<(Located<String>, Node)>);

impl Deref for Rest {
    type Target = [(Located<String>, Node)];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Rest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(deserializer)?;
        let entry = |entry: &super::Entry| {
            (Located::new(entry.key.text.as_ref().to_owned(), entry.key.place), entry.value.clone())
        };
        Ok(Self(node.entries().iter().map(entry).collect()))
    }
}
