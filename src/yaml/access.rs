//! Walking the containers of a tree: lists, maps, structs, enums.

use super::decode::{De, Run, place_parts};
use super::failure::Failure;
use super::located::REST;
use super::node::{Entry, Key, Kind, Node, Text};
use super::problem::{hint_known, quoted, suggest};
use super::{Place, Problem};
use crate::types::names_credential;
use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::sync::Arc;

/// The elements of a list, poisoned ones left out.
pub(super) struct Items<'n, 'r> {
    items: std::iter::Enumerate<std::slice::Iter<'n, Node>>,
    container: usize,
    run: &'r Run<'r>,
}

impl<'n, 'r> Items<'n, 'r> {
    pub(super) fn new(items: &'n [Node], run: &'r Run<'r>) -> Self {
        Self { items: items.iter().enumerate(), container: items.as_ptr().addr(), run }
    }
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let (run, container) = (self.run, self.container);
        let Some((index, node)) = self.items.find(|(index, _)| !run.is_poisoned((container, *index))) else {
            return Ok(None);
        };
        let value = seed.deserialize(De { node, run });
        value.map(Some).map_err(|failure| run.leave_slot(failure, node, (container, index)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of a map or struct, poisoned ones left out.
pub(super) struct MapEntries<'n, 'r> {
    entries: &'n [Entry],
    next: usize,
    /// The entry whose key was given out.
    current: Option<usize>,
    fields: Option<&'static [&'static str]>,
    place: Place,
    rest: RestState,
    /// Missing keys that are given a value all the same.
    stand_ins: Vec<&'static str>,
    run: &'r Run<'r>,
}

/// The keys of a struct that are none of its fields.
enum RestState {
    /// They are mistakes.
    Refused,
    /// A field takes them.
    Gathered(Vec<Entry>),
    /// That field's turn.
    Given(Node),
    Done,
}

impl<'n, 'r> MapEntries<'n, 'r> {
    pub(super) fn of_map(entries: &'n [Entry], place: Place, run: &'r Run<'r>) -> Self {
        Self {
            entries,
            next: 0,
            current: None,
            fields: None,
            place,
            rest: RestState::Refused,
            stand_ins: Vec::new(),
            run,
        }
    }

    pub(super) fn of_struct(
        entries: &'n [Entry],
        fields: &'static [&'static str],
        place: Place,
        run: &'r Run<'r>,
    ) -> Self {
        let rest = if fields.contains(&REST) { RestState::Gathered(Vec::new()) } else { RestState::Refused };
        let stand_ins = run.stand_ins(entries.as_ptr().addr(), fields);
        Self { entries, next: 0, current: None, fields: Some(fields), place, rest, stand_ins, run }
    }

    fn container(&self) -> usize {
        self.entries.as_ptr().addr()
    }

    /// Whether `entry` is for the struct itself; if not, it is kept for the rest or reported.
    fn takes(&mut self, entry: &Entry) -> bool {
        let Some(fields) = self.fields else { return true };
        if &*entry.key.text != REST && fields.contains(&&*entry.key.text) {
            return true;
        }
        if let RestState::Gathered(rest) = &mut self.rest {
            rest.push(entry.clone());
        } else {
            self.refuse(&entry.key, fields);
        }
        false
    }

    fn refuse(&self, key: &Key, fields: &[&str]) {
        let mut problem = Problem::new(key.place, format!("unknown key {}", quoted(&key.text)));
        problem.hint = hint_known(&key.text, fields, "known keys");
        // Only a key that is not given itself can be the one that was meant.
        let given = |field: &str| self.entries.iter().any(|entry| &*entry.key.text == field);
        let meant = suggest(&key.text, fields.iter().copied()).filter(|meant| !given(meant));
        problem.hides_values = match meant {
            Some(meant) => names_credential(meant),
            None => fields.iter().any(|field| names_credential(field) && !given(field)),
        };
        self.run.problems.borrow_mut().push(problem);
        if let Some(meant) = meant {
            self.run.note_slip(self.container(), meant);
        }
    }
}

impl<'de> MapAccess<'de> for MapEntries<'_, '_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let entries = self.entries;
        while let Some(entry) = entries.get(self.next) {
            let slot = (self.container(), self.next);
            self.next = self.next.saturating_add(1);
            if self.run.is_poisoned(slot) || !self.takes(entry) {
                continue;
            }
            self.current = Some(slot.1);
            // As a node, so that a key can be decoded together with its place.
            let key = Node::new(entry.key.place, Kind::Str(Text::plain(Arc::clone(&entry.key.text))));
            let decoded = seed.deserialize(De { node: &key, run: self.run });
            return decoded.map(Some).map_err(|failure| self.run.leave_slot(failure, &key, slot));
        }
        self.current = None;
        if let Some(missing) = self.stand_ins.last() {
            return seed.deserialize(StrDeserializer::<Failure>::new(missing)).map(Some);
        }
        match std::mem::replace(&mut self.rest, RestState::Done) {
            RestState::Gathered(rest) => {
                self.rest = RestState::Given(Node::new(self.place, Kind::Map(rest.into())));
                seed.deserialize(StrDeserializer::<Failure>::new(REST)).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        if let Some(index) = self.current.take()
            && let Some(entry) = self.entries.get(index)
        {
            let slot = (self.container(), index);
            let value = seed.deserialize(De { node: &entry.value, run: self.run });
            return value.map_err(|failure| self.run.leave_slot(failure, &entry.value, slot));
        }
        if self.stand_ins.pop().is_some() {
            return super::stand_in::decode(seed);
        }
        match std::mem::replace(&mut self.rest, RestState::Done) {
            RestState::Given(node) => seed.deserialize(De { node: &node, run: self.run }),
            _ => Err(Failure::new("a value was asked for before its key")),
        }
    }
}

/// `name` or `{ name: settings }`.
pub(super) struct EnumEntry<'n, 'r> {
    place: Place,
    name: Arc<str>,
    settings: Option<&'n Node>,
    /// The node the name stands in, when it has no settings.
    plain: &'n Node,
    run: &'r Run<'r>,
}

impl<'n, 'r> EnumEntry<'n, 'r> {
    pub(super) fn new(de: De<'n, 'r>, variants: &[&str]) -> Result<Self, Failure> {
        let De { node, run } = de;
        match &node.kind {
            Kind::Str(text) => {
                Ok(Self { place: node.place, name: text.text.clone(), settings: None, plain: node, run })
            }
            Kind::Map(entries) => match &**entries {
                [Entry { key, value }] => {
                    Ok(Self { place: key.place, name: key.text.clone(), settings: Some(value), plain: node, run })
                }
                several => {
                    let message = format!("expected `name` or `{{ name: settings }}`, found {} keys", several.len());
                    let known = hint_known("", variants, "one of these names").unwrap_or_default();
                    Err(Failure::new(message)
                        .hint(known)
                        .at(several.get(1).map_or(node.place, |entry| entry.key.place)))
                }
            },
            _ => {
                let wanted = "a name, or a map from one name to its settings";
                let failure = Failure::mismatch(node, wanted);
                Err(match hint_known("", variants, "known names") {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                })
            }
        }
    }
}

impl<'de> EnumAccess<'de> for EnumEntry<'_, '_> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let name = StrDeserializer::<Failure>::new(&self.name);
        match seed.deserialize(name) {
            Ok(variant) => Ok((variant, self)),
            Err(mut failure) => {
                if self.settings.is_none() {
                    failure.redact(self.plain);
                }
                Err(failure.at(self.place))
            }
        }
    }
}

impl<'n, 'r> EnumEntry<'n, 'r> {
    fn settings(&self) -> Result<De<'n, 'r>, Failure> {
        let Some(node) = self.settings else {
            let failure = match self.plain.as_str() {
                Some(_) if matches!(&self.plain.kind, Kind::Str(text) if text.substituted()) => {
                    Failure::new(format!("{} needs settings", self.plain.describe()))
                }
                _ => Failure::new(format!("{} needs settings", quoted(&self.name)))
                    .hint(format!("write `{}: …`", self.name)),
            };
            return Err(failure.at(self.place));
        };
        Ok(De { node, run: self.run })
    }

    fn within<T>(&self, de: De<'n, 'r>, value: Result<T, Failure>) -> Result<T, Failure> {
        value.map_err(|mut failure| {
            self.run.settle(&mut failure, de.node);
            failure
        })
    }
}

impl<'de> VariantAccess<'de> for EnumEntry<'_, '_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        match self.settings {
            None => Ok(()),
            Some(node) if node.is_null() => Ok(()),
            Some(node) => Err(Failure::new(format!("{} takes no settings", quoted(&self.name))).at(node.place)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        let de = self.settings()?;
        self.within(de, seed.deserialize(de))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Failure> {
        let de = self.settings()?;
        self.within(de, de.deserialize_tuple(length, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Failure> {
        let de = self.settings()?;
        self.within(de, de.deserialize_struct("", fields, visitor))
    }
}

/// A place and the value there, for [`Located`](super::Located).
pub(super) struct LocatedParts<'n, 'r> {
    pub(super) place: Place,
    pub(super) value: Option<De<'n, 'r>>,
    pub(super) next: u8,
}

impl<'de> SeqAccess<'de> for LocatedParts<'_, '_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        self.next = self.next.saturating_add(1);
        if self.next == 1 {
            let place: SeqDeserializer<_, Failure> = place_parts(self.place);
            return seed.deserialize(place.into_deserializer()).map(Some);
        }
        self.value.take().map(|de| seed.deserialize(de)).transpose()
    }
}
