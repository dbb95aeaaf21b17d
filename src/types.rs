//! Values of the configuration that carry a unit, a secret or a network.
//!
//! Each is written as a string and decodes from nothing else; the unit is never optional. `Display` writes what
//! `FromStr` reads (but for [`Secret`]).

mod hex;
mod network;
mod secret;
mod units;

pub use hex::hex;
pub use network::{Address, Bind, Network};
pub use secret::{Secret, names_credential};
pub use units::{Percent, Period, Rate, Size, seconds_up};

use serde::de::{Deserializer, Error, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

/// Why a text is not the value it should be, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    pub message: String,
    pub hint: Option<String>,
}

impl ParseError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hint {
            Some(hint) => write!(f, "{}; {hint}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ParseError {}

/// The text as a message quotes it: shortened.
fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    if text.chars().nth(CHARS_MAX).is_none() {
        return format!("`{text}`");
    }
    format!("`{}…`", text.chars().take(CHARS_MAX).collect::<String>())
}

/// Decodes from a string by `FromStr`; never from a number.
fn from_text<'de, D, T>(deserializer: D, expected: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = ParseError>,
{
    deserializer.deserialize_str(TextVisitor { expected, of: PhantomData })
}

struct TextVisitor<T> {
    expected: &'static str,
    of: PhantomData<T>,
}

impl<T: FromStr<Err = ParseError>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|error: ParseError| match error.hint {
            // The form in which the decoder of the configuration takes a hint apart from its message.
            Some(hint) => E::custom(format_args!("{}\nhint: {hint}", error.message)),
            None => E::custom(error.message),
        })
    }
}

/// Decoding and JSON Schema of a type written as a string.
macro_rules! text_type {
    ($type:ty, $name:literal, expected: $expected:literal, pattern: $pattern:literal, description: $description:literal) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::types::from_text(deserializer, $expected)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    // A reference stands for a value that is only known when the configuration is loaded.
                    "pattern": concat!("^(", $pattern, ")$|\\$\\{"),
                    "description": $description,
                })
            }
        }
    };
}
use text_type;

#[cfg(test)]
mod tests;
