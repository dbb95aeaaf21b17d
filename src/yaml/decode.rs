//! Nodes into typed values, through serde.
//!
//! Serde stops at the first error. To report all, the slot (map entry or list element) that holds a wrong value is
//! left out and the value decoded again, until it succeeds or nothing new is found. What then fails only because
//! a slot was left out is not reported, and its own slot left out in turn. A missing key first gets a stand-in, where
//! its type takes one, so that other keys missing beside it are found.

use super::access::{EnumEntry, Items, MapEntries};
use super::failure::{Failure, Slot};
use super::located::{LOCATED, NODE, hand_over};
use super::node::{Entry, Kind, Node, Text};
use super::problem::{Problem, Problems};
use serde::de::value::SeqDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;

/// How often a tree is decoded again at most: about the number of wrong values reported.
const ROUNDS_MAX: usize = 200;
/// How the types with units say what they want.
const HAVE_UNITS: [&str; 4] = ["a duration", "a size", "a rate", "a percentage"];
/// Nodes visited in all rounds together, so that a large file with many mistakes stays quick.
const VISITS_MAX: u64 = 4_000_000;

/// Decodes a tree into a `T`.
///
/// `Null` at the root counts as an empty map, so an empty file lacks keys and nothing else; anywhere else it is only
/// good for an `Option`. An integer is accepted where a fraction is wanted; nothing else is converted.
///
/// # Errors
///
/// All unknown keys, missing keys and wrong values, in the order of the file; at most 200.
pub fn decode<T: DeserializeOwned>(node: &Node) -> Result<T, Vec<Problem>> {
    let run = Run::new(node);
    for _ in 0..ROUNDS_MAX {
        match T::deserialize(De { node, run: &run }) {
            Ok(value) => return run.problems.into_inner().finish(value),
            Err(mut failure) => {
                run.settle(&mut failure, node);
                let slot = failure.0.slot;
                let lack = failure.0.lacking.zip(failure.0.missing);
                if !failure.0.consequence {
                    run.problems.borrow_mut().push(failure.into_problem(node.place));
                }
                let stands_in = lack.is_some_and(|lack| run.stand_ins.borrow_mut().insert(lack));
                let new = stands_in || slot.is_some_and(|slot| run.poisoned.borrow_mut().insert(slot));
                if !new {
                    return run.give_up(node, false);
                }
                if run.visits.get() > VISITS_MAX || run.problems.borrow().is_full() {
                    return run.give_up(node, true);
                }
            }
        }
    }
    run.give_up(node, true)
}

/// What the rounds of one [`decode`] share.
pub(super) struct Run<'n> {
    root: &'n Node,
    /// Slots left out because their value is wrong.
    poisoned: RefCell<HashSet<Slot>>,
    /// Containers that hold a poisoned slot at any depth: what they say of themselves is not trusted.
    damaged: RefCell<HashSet<usize>>,
    /// Keys, by container, that an unknown key was probably meant to be.
    slips: RefCell<HashSet<(usize, String)>>,
    /// Keys, by container, that are missing and get a stand-in.
    stand_ins: RefCell<HashSet<(usize, &'static str)>>,
    pub(super) problems: RefCell<Problems>,
    visits: Cell<u64>,
}

impl<'n> Run<'n> {
    fn new(root: &'n Node) -> Self {
        Self {
            root,
            poisoned: RefCell::default(),
            damaged: RefCell::default(),
            slips: RefCell::default(),
            stand_ins: RefCell::default(),
            problems: RefCell::default(),
            visits: Cell::new(0),
        }
    }

    fn give_up<T>(self, node: &Node, cut: bool) -> Result<T, Vec<Problem>> {
        let mut problems = self.problems.into_inner();
        if cut || problems.is_empty() {
            problems.cut(node.place);
        }
        match problems.finish(()) {
            Ok(()) => Err(vec![Problem::new(node.place, "this cannot be decoded")]),
            Err(problems) => Err(problems),
        }
    }

    pub(super) fn is_poisoned(&self, slot: Slot) -> bool {
        let poisoned = self.poisoned.borrow();
        !poisoned.is_empty() && poisoned.contains(&slot)
    }

    /// The missing keys of a container that get a stand-in.
    pub(super) fn stand_ins(&self, container: usize, fields: &[&'static str]) -> Vec<&'static str> {
        let known = self.stand_ins.borrow();
        if known.is_empty() {
            return Vec::new();
        }
        fields.iter().copied().filter(|field| known.contains(&(container, *field))).collect()
    }

    pub(super) fn note_slip(&self, container: usize, meant: &str) {
        self.slips.borrow_mut().insert((container, meant.to_owned()));
    }

    /// Called where a failure leaves `node`: when it is the node's own, gives it the place and decides whether it counts.
    pub(super) fn settle(&self, failure: &mut Failure, node: &Node) {
        if failure.0.place.is_some() {
            return;
        }
        failure.0.place = Some(node.place);
        failure.redact(node);
        let container = address(node);
        failure.0.consequence = match failure.0.missing {
            Some(key) => {
                failure.0.lacking = Some(container);
                self.damaged.borrow_mut().insert(container);
                self.is_missing_for_a_reason(container, node.entries(), key)
            }
            None => self.damaged.borrow().contains(&container),
        };
    }

    fn is_missing_for_a_reason(&self, container: usize, entries: &[Entry], key: &str) -> bool {
        let at = entries.iter().position(|entry| &*entry.key.text == key);
        at.is_some_and(|index| self.is_poisoned((container, index)))
            || self.slips.borrow().contains(&(container, key.to_owned()))
    }

    /// Called where a failure leaves the slot that holds `node`.
    pub(super) fn leave_slot(&self, mut failure: Failure, node: &Node, slot: Slot) -> Failure {
        self.settle(&mut failure, node);
        failure.0.slot.get_or_insert(slot);
        self.damaged.borrow_mut().insert(slot.0);
        failure
    }
}

/// What an empty file holds.
static NO_ENTRIES: [Entry; 0] = [];

/// Identifies a container while the tree is borrowed.
fn address(node: &Node) -> usize {
    match &node.kind {
        Kind::Seq(items) => items.as_ptr().addr(),
        Kind::Map(entries) => entries.as_ptr().addr(),
        _ => NO_ENTRIES.as_ptr().addr(),
    }
}

/// The deserializer of one node.
#[derive(Clone, Copy)]
pub(super) struct De<'n, 'r> {
    pub(super) node: &'n Node,
    pub(super) run: &'r Run<'r>,
}

impl<'n> De<'n, '_> {
    fn visit(&self) {
        self.run.visits.set(self.run.visits.get().saturating_add(1));
    }

    fn mismatch(&self, wanted: &str) -> Failure {
        Failure::mismatch(self.node, wanted)
    }

    /// The text of a substituted value, which takes the type its target wants.
    fn substituted(&self) -> Option<&'n str> {
        match &self.node.kind {
            Kind::Str(text @ Text { text: value, .. }) if text.substituted() => Some(value),
            _ => None,
        }
    }

    fn integer(&self, least: i128, most: i128) -> Result<i128, Failure> {
        let wanted = if least == 0 { "a whole number, 0 or more" } else { "a whole number" };
        let value = match &self.node.kind {
            Kind::Int(value) => i128::from(*value),
            Kind::Str(text) => match self.substituted().and_then(|text| text.parse::<i128>().ok()) {
                Some(value) => value,
                None if !text.substituted() && text.text.parse::<i128>().is_ok() => {
                    return Err(self.mismatch(wanted).hint("remove the quotes"));
                }
                None => return Err(self.mismatch(wanted)),
            },
            _ => return Err(self.mismatch(wanted)),
        };
        if value < least || value > most {
            let range = format!("a whole number from {least} to {most}");
            return Err(self.mismatch(&range));
        }
        Ok(value)
    }

    fn string(&self) -> Result<&'n str, Failure> {
        match &self.node.kind {
            Kind::Str(text) => Ok(&text.text),
            Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) => Err(self.mismatch("a string").hint("quote it")),
            Kind::Null | Kind::Seq(_) | Kind::Map(_) => Err(self.mismatch("a string")),
        }
    }

    fn float(&self) -> Result<f64, Failure> {
        match &self.node.kind {
            Kind::Float(value) => Ok(*value),
            Kind::Int(value) => Ok(*value as f64),
            Kind::Str(_) => self
                .substituted()
                .and_then(|text| text.parse().ok())
                .filter(|value: &f64| value.is_finite())
                .ok_or_else(|| self.mismatch("a number")),
            _ => Err(self.mismatch("a number")),
        }
    }

    fn is_root(&self) -> bool {
        std::ptr::eq(self.node, self.run.root)
    }

    fn entries(&self) -> Result<&'n [Entry], Failure> {
        match &self.node.kind {
            Kind::Map(entries) => Ok(entries),
            Kind::Null if self.is_root() => Ok(&NO_ENTRIES),
            Kind::Null => Err(self.mismatch("a map").hint("remove the key, or write `{}` for an empty map")),
            _ => Err(self.mismatch("a map")),
        }
    }

    fn items(&self) -> Result<&'n [Node], Failure> {
        match &self.node.kind {
            Kind::Seq(items) => Ok(items),
            Kind::Null => Err(self.mismatch("a list").hint("remove the key, or write `[]` for an empty list")),
            _ => Err(self.mismatch("a list").hint("write `[…]`, or one line with `- ` for each element")),
        }
    }
}

/// Integers of one width: checked here, so that the message names the range.
macro_rules! integers {
    ($($method:ident $type:ty, $wide:ty, $visit:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            self.visit();
            let value = self.integer(<$type>::MIN.into(), <$type>::MAX.into())?;
            let value = <$wide>::try_from(value).map_err(|_| self.mismatch("a whole number"))?;
            visitor.$visit(value)
        }
    )*};
}

impl<'de> Deserializer<'de> for De<'_, '_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.visit();
        match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Int(value) => visitor.visit_i64(*value),
            Kind::Float(value) => visitor.visit_f64(*value),
            Kind::Str(text) => visitor.visit_str(&text.text),
            Kind::Seq(_) => self.deserialize_seq(visitor),
            Kind::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.visit();
        let value = match (&self.node.kind, self.substituted()) {
            (Kind::Bool(value), _) => *value,
            (_, Some("true")) => true,
            (_, Some("false")) => false,
            (Kind::Str(text), None) => {
                let failure = self.mismatch("`true` or `false`");
                return Err(match &*text.text.to_ascii_lowercase() {
                    "true" | "false" => failure.hint("write it in lower case, without quotes"),
                    "yes" | "on" | "y" => failure.hint("write `true`"),
                    "no" | "off" | "n" => failure.hint("write `false`"),
                    _ => failure,
                });
            }
            _ => return Err(self.mismatch("`true` or `false`")),
        };
        visitor.visit_bool(value)
    }

    integers! {
        deserialize_i8 i8, i64, visit_i64;
        deserialize_i16 i16, i64, visit_i64;
        deserialize_i32 i32, i64, visit_i64;
        deserialize_i64 i64, i64, visit_i64;
        deserialize_u8 u8, u64, visit_u64;
        deserialize_u16 u16, u64, visit_u64;
        deserialize_u32 u32, u64, visit_u64;
        deserialize_u64 u64, u64, visit_u64;
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.visit();
        visitor.visit_f64(self.float()?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.visit();
        match self.string() {
            Ok(text) => visitor.visit_str(text),
            Err(failure) => {
                // A type that is written as a string says better what it wants than that it is one.
                let wanted = (&visitor as &dyn serde::de::Expected).to_string();
                Err(match &self.node.kind {
                    _ if wanted == "a string" => failure,
                    Kind::Int(_) | Kind::Float(_) if HAVE_UNITS.iter().any(|kind| wanted.starts_with(kind)) => {
                        self.mismatch(&wanted).hint("the unit is never optional")
                    }
                    _ => self.mismatch(&wanted),
                })
            }
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.visit();
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.visit();
        if self.node.is_null() { visitor.visit_unit() } else { Err(self.mismatch("nothing")) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Failure> {
        match name {
            LOCATED => {
                let place = self.node.place;
                visitor.visit_seq(super::access::LocatedParts { place, value: Some(self), next: 0 })
            }
            NODE => hand_over(self.node.clone(), visitor),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.visit();
        visitor.visit_seq(Items::new(self.items()?, self.run))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Failure> {
        self.visit();
        let items = self.items()?;
        if items.len() != length {
            let message = format!("expected a list of {length} elements, found {}", items.len());
            return Err(Failure::new(message).at(self.node.place));
        }
        visitor.visit_seq(Items::new(items, self.run))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.visit();
        visitor.visit_map(MapEntries::of_map(self.entries()?, self.node.place, self.run))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.visit();
        visitor.visit_map(MapEntries::of_struct(self.entries()?, fields, self.node.place, self.run))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.visit();
        visitor.visit_enum(EnumEntry::new(self, variants)?)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }
}

/// The parts of a place as a deserializer can give them.
pub(super) fn place_parts(place: super::Place) -> SeqDeserializer<std::array::IntoIter<u32, 3>, Failure> {
    SeqDeserializer::new([place.file.0, place.line, place.column].into_iter())
}
