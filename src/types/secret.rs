//! Texts that must not be shown.

use super::{ParseError, text_type};
use std::fmt;
use std::str::FromStr;

/// A secret. Never empty, and printed as `[redacted]`; [`Secret::expose`] gives the text.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The secret itself. Not for logs, errors or replies.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::new("the secret is empty", "an empty secret would let anybody in"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

text_type!(Secret, "Secret", expected: "a secret",
    pattern: ".+", description: "A secret, best as ${NAME} or ${file:/run/secrets/name}");
/// Whether a key, field or parameter of this name is likely to hold a credential: its value is not shown to people.
pub fn names_credential(name: &str) -> bool {
    // `sha256` stands for a key, and is where a key itself is pasted by mistake.
    const PARTS: [&str; 11] = [
        "secret",
        "passw",
        "passphrase",
        "token",
        "key",
        "hmac",
        "credential",
        "authorization",
        "signature",
        "cookie",
        "sha256",
    ];
    let name = name.to_lowercase();
    PARTS.iter().any(|part| name.contains(part))
}
