//! A value in place of a missing one, so that decoding goes on and finds what else is missing beside it.

use super::Place;
use super::decode::place_parts;
use super::failure::Failure;
use super::located::LOCATED;
use serde::de::value::{I64Deserializer, UnitDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Gives any simple type some value. What refuses it (a type that checks, a struct) makes its container be left out.
pub(super) struct StandIn;

/// Where a stand-in is not accepted: a consequence of the missing key, which is reported already.
fn refused(mut failure: Failure) -> Failure {
    failure.0.consequence = true;
    failure
}

impl<'de> Deserializer<'de> for StandIn {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failure> {
        Err(Failure::new("a missing value has no stand-in"))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_bool(false)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let one: I64Deserializer<Failure> = 1_i64.into_deserializer();
        one.deserialize_i64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_str("-")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_str("-")
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        UnitDeserializer::<Failure>::new().deserialize_option(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_seq(serde::de::value::SeqDeserializer::<_, Failure>::new(std::iter::empty::<u8>()))
    }

    /// A value with its place: the stand-in for the value, at no place.
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Failure> {
        if name == LOCATED { visitor.visit_seq(NoPlace(0)) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_map(serde::de::value::MapDeserializer::<_, Failure>::new(std::iter::empty::<(u8, u8)>()))
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_i64(visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct struct enum identifier ignored_any
    }
}

/// The parts of a `Located`: the place, then the value.
struct NoPlace(u8);

impl<'de> SeqAccess<'de> for NoPlace {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        self.0 = self.0.saturating_add(1);
        if self.0 == 1 {
            return seed.deserialize(place_parts(Place::UNKNOWN)).map(Some);
        }
        seed.deserialize(StandIn).map(Some)
    }
}

/// Decodes a stand-in.
pub(super) fn decode<'de, S: DeserializeSeed<'de>>(seed: S) -> Result<S::Value, Failure> {
    seed.deserialize(StandIn).map_err(refused)
}
