//! One member of a JSON text, without the rest: read into memory, a text takes twenty times its size.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The text, number or boolean that a JSON pointer leads to. `None`: there is none, or `text` is no JSON.
///
/// Needs memory for the longest text in it only.
pub fn read(text: &[u8], pointer: &str) -> Option<String> {
    let path: Vec<String> = pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let found = Follow(&path).deserialize(&mut reader).ok()?;
    reader.end().ok().and(found)
}

/// Follows the rest of a path.
#[derive(Clone, Copy)]
struct Follow<'p>(&'p [String]);

impl Follow<'_> {
    /// A value that nothing is in; it counts where the path ends.
    fn plain<E: Error>(self, value: &(impl ToString + ?Sized)) -> Result<Option<String>, E> {
        Ok(self.0.is_empty().then(|| value.to_string()))
    }
}

impl<'de> DeserializeSeed<'de> for Follow<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Follow<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        self.plain(&value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        self.plain(&value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        self.plain(&value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        self.plain(&value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        self.plain(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let next = self.0.split_first();
        let wanted = next.and_then(|(step, rest)| Some((step.parse::<usize>().ok()?, rest)));
        let (mut found, mut index) = (None, 0_usize);
        loop {
            match wanted.filter(|(wanted, _)| *wanted == index) {
                Some((_, rest)) => match items.next_element_seed(Follow(rest))? {
                    Some(value) => found = value,
                    None => return Ok(found),
                },
                None if items.next_element::<IgnoredAny>()?.is_none() => return Ok(found),
                None => {}
            }
            index = index.saturating_add(1);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = members.next_key::<String>()? {
            match self.0.split_first() {
                // Of several of one name the last one counts.
                Some((step, rest)) if *step == name => found = members.next_value_seed(Follow(rest))?,
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_leads_to_a_plain_value_or_to_none() {
        for (text, pointer, found) in [
            (r#"{"a": {"b": "x"}}"#, "/a/b", Some("x")),
            (r#"{"a": "1", "a": "\u0032"}"#, "/a", Some("2")),
            (r#"{"a/b": {"~": -7}}"#, "/a~1b/~0", Some("-7")),
            (r#"{"a": [1, {"b": true}, 3]}"#, "/a/1/b", Some("true")),
            (r#"{"": 1.5}"#, "/", Some("1.5")),
            (r#"{"a": [1]}"#, "/a/1", None),
            (r#"{"a": [1]}"#, "/a/b", None),
            (r#"{"a": {"b": 1}}"#, "/a", None),
            (r#"{"a": [1]}"#, "/a", None),
            (r#"{"a": null}"#, "/a", None),
            (r#"{"a": "x"} {"#, "/a", None),
            (r#"{"a": "x""#, "/a", None),
            (r#""x""#, "/a", None),
        ] {
            assert_eq!(read(text.as_bytes(), pointer).as_deref(), found, "{text} {pointer}");
        }
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert_eq!(read(&deep, "/0/0"), None, "it is refused before it needs that much of the stack");
    }
}
