//! JSON, read strictly: one value, in UTF-8, nested no deeper than allowed, no member twice.
//!
//! Of two members of one name [RFC 8259 §4](https://www.rfc-editor.org/rfc/rfc8259#section-4) lets a reader take either, so a service
//! could see another value than the one that was validated, and two readers could be told two things by one signed token.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deepest nesting that can be asked for: `serde_json` itself goes no deeper than 127, which bounds the stack.
pub const DEPTH_MAX: usize = 100;

/// Why a text is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is no JSON.
    Syntax { line: usize, column: usize },
    /// A list or object stands in more others than allowed.
    TooDeep,
    /// An object has two members of one name; the path leads to the second.
    Twice(Vec<Segment>),
}

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    Member(String),
    Item(usize),
}

/// Reads a text. `depth_max` counts lists and objects around each other: `1` takes `[1]` and no `[[1]]`.
///
/// Needs time in proportion to the text, and memory of at most some twenty times its size.
///
/// # Errors
///
/// The first fault.
pub fn parse(text: &[u8], depth_max: usize) -> Result<Value, Fault> {
    let run = Run { fault: RefCell::default() };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let seed = Seed { depth_left: depth_max.min(DEPTH_MAX), run: &run };
    let read = seed.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| match run.fault.into_inner() {
        Some(Fault::Twice(mut path)) => {
            // Written from the inside out, as the readers returned.
            path.reverse();
            Fault::Twice(path)
        }
        Some(fault) => fault,
        None => Fault::Syntax { line: error.line(), column: error.column() },
    })
}

/// What the readers of one text share.
struct Run {
    fault: RefCell<Option<Fault>>,
}

impl Run {
    /// Stops the reading.
    fn stop<E: Error>(&self, fault: Fault) -> E {
        *self.fault.borrow_mut() = Some(fault);
        E::custom("refused")
    }

    /// Adds where it was to a fault on its way out.
    fn passed(&self, segment: impl FnOnce() -> Segment) {
        if let Some(Fault::Twice(path)) = &mut *self.fault.borrow_mut() {
            path.push(segment());
        }
    }
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Seed<'r> {
    depth_left: usize,
    run: &'r Run,
}

impl Seed<'_> {
    /// The reader of what stands inside.
    fn inside<E: Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left, ..self }),
            None => Err(self.run.stop(Fault::TooDeep)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut list = Vec::new();
        loop {
            match items.next_element_seed(inside) {
                Ok(Some(value)) => list.push(value),
                Ok(None) => return Ok(Value::Array(list)),
                Err(error) => {
                    self.run.passed(|| Segment::Item(list.len()));
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(self.run.stop(Fault::Twice(vec![Segment::Member(name)])));
            }
            match members.next_value_seed(inside) {
                Ok(value) => object.insert(name, value),
                Err(error) => {
                    self.run.passed(|| Segment::Member(name));
                    return Err(error);
                }
            };
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
