//! The text of a token, taken apart: the compact form of [RFC 7515](https://www.rfc-editor.org/rfc/rfc7515), and nothing
//! that could be read in two ways. What a header says about keys (`jwk`, `jku`, `x5c`, `x5u`) is never believed.

pub mod json;

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::Reason;

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest header, in bytes of its base64url text: a header may carry a certificate chain that nobody looks at.
const HEADER_BYTES_MAX: usize = 4 * 1024;

/// A token in its parts. Nothing of it is verified.
#[derive(Debug)]
pub struct Token<'a> {
    pub algorithm: Algorithm,
    pub kid: Option<Box<str>>,
    /// Header and payload with the dot between them.
    pub signed: &'a str,
    /// Decoded.
    payload: Vec<u8>,
    /// In base64url; only [`KeySet::verify`](super::keyset::KeySet::verify) decodes it.
    pub signature: &'a str,
}

impl<'a> Token<'a> {
    /// Takes the compact form apart.
    ///
    /// # Errors
    /// [`Reason::Algorithm`] when the header names none that the gateway knows, `none` included; [`Reason::Malformed`] for
    /// everything else.
    pub fn parse(text: &'a str) -> Result<Self, Reason> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Reason::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Reason::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Reason::Malformed)?;
        let empty = header.is_empty() || payload.is_empty() || signature.is_empty();
        // More than three parts is encryption (RFC 7516), or nothing.
        if empty || payload.contains('.') || header.len() > HEADER_BYTES_MAX {
            return Err(Reason::Malformed);
        }
        let header = decode(header).and_then(|header| json::object(&header)).ok_or(Reason::Malformed)?;
        let payload = decode(payload).ok_or(Reason::Malformed)?;
        let (algorithm, kid) = read_header(header)?;
        Ok(Self { algorithm, kid, signed, payload, signature })
    }

    /// What the payload says, be it true or not.
    ///
    /// # Errors
    /// [`Reason::Malformed`]: it is no JSON object.
    pub fn claims(&self) -> Result<Map<String, Value>, Reason> {
        json::object(&self.payload).ok_or(Reason::Malformed)
    }
}

/// Decodes base64url without padding, in its one canonical form: bits that no byte needs are zero.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn read_header(mut header: Map<String, Value>) -> Result<(Algorithm, Option<Box<str>>), Reason> {
    // Extensions that must be understood: none is (RFC 7515 §4.1.11, RFC 7797).
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(Reason::Malformed);
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) if is_media(kind, "jwt") || is_media(kind, "at+jwt") => {}
        Some(_) => return Err(Reason::Malformed),
    }
    match header.get("cty") {
        None => {}
        // A token within the token.
        Some(Value::String(kind)) if !is_media(kind, "jwt") => {}
        Some(_) => return Err(Reason::Malformed),
    }
    let kid = match header.remove("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.into_boxed_str()),
        Some(_) => return Err(Reason::Malformed),
    };
    match header.get("alg") {
        Some(Value::String(name)) => Ok((Algorithm::from_str(name).map_err(|_| Reason::Algorithm)?, kid)),
        _ => Err(Reason::Malformed),
    }
}

/// Whether `text` is this media type; `application/` may be left out (RFC 7515 §4.1.9).
fn is_media(text: &str, subtype: &str) -> bool {
    const APPLICATION: &str = "application/";
    let prefix = text.get(..APPLICATION.len()).filter(|prefix| prefix.eq_ignore_ascii_case(APPLICATION));
    let rest = prefix.and_then(|prefix| text.get(prefix.len()..)).unwrap_or(text);
    rest.eq_ignore_ascii_case(subtype)
}

#[cfg(test)]
mod tests;
