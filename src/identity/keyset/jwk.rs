//! A JWK set ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)) as it is published, and which of its keys are used.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::{Key, Material};
use crate::identity::token::{decode, json};

/// Most keys a set may hold.
const KEYS_MAX: usize = 100;
const KID_BYTES_MAX: usize = 1024;

/// A key that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub kid: Option<Box<str>>,
    pub why: &'static str,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "{kid:?}: {}", self.why),
            None => write!(f, "a key without `kid`: {}", self.why),
        }
    }
}

/// The keys that verify tokens, and those that do not.
pub(super) fn read(text: &[u8]) -> Result<(Vec<Key>, Vec<Skipped>), &'static str> {
    let mut set = json::object(text).ok_or("it is no JSON object, or a member stands twice in it")?;
    let Some(Value::Array(written)) = set.remove("keys") else {
        return Err("it is no JWK set: it has no list `keys`");
    };
    if written.len() > KEYS_MAX {
        return Err("it holds more than 100 keys");
    }
    let (mut keys, mut skipped): (Vec<Key>, Vec<Skipped>) = (Vec::new(), Vec::new());
    for key in &written {
        let Value::Object(key) = key else { return Err("it is no JWK set: a key is no JSON object") };
        let kid = text_of(key, "kid").map(Box::from);
        match material(key).and_then(|material| Ok((pinned(key, &material)?, material))) {
            Ok((pinned, material)) => keys.push(Key { id: kid, pinned, material }),
            Err(why) => skipped.push(Skipped { kid, why }),
        }
    }
    drop_ambiguous(&mut keys, &mut skipped);
    Ok((keys, skipped))
}

/// Drops repetitions, and all keys of which a `kid` does not tell which is meant.
fn drop_ambiguous(keys: &mut Vec<Key>, skipped: &mut Vec<Skipped>) {
    let mut kept: Vec<Key> = Vec::with_capacity(keys.len());
    for key in keys.drain(..) {
        let same = |other: &Key| {
            key.material.public == other.material.public && key.id == other.id && key.pinned == other.pinned
        };
        if !kept.iter().any(same) {
            kept.push(key);
        }
    }
    let rival = |key: &Key, other: &Key| {
        let algorithm = key.pinned.is_none() || other.pinned.is_none() || key.pinned == other.pinned;
        let distinct = key.material.public != other.material.public;
        key.id.is_some() && key.id == other.id && key.material.kind == other.material.kind && algorithm && distinct
    };
    let ambiguous: Vec<bool> = kept.iter().map(|key| kept.iter().any(|other| rival(key, other))).collect();
    for (key, ambiguous) in kept.into_iter().zip(ambiguous) {
        if ambiguous {
            skipped.push(Skipped { kid: key.id, why: "another key has the same `kid`" });
        } else {
            keys.push(key);
        }
    }
}

fn text_of<'a>(key: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    key.get(member).and_then(Value::as_str)
}

/// What the key is made of, if it may be used for signatures at all.
fn material(key: &Map<String, Value>) -> Result<Material, &'static str> {
    match key.get("kid") {
        None => {}
        Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => {}
        Some(_) => return Err("its `kid` is no string of up to 1024 bytes"),
    }
    if key.get("use").is_some_and(|purpose| purpose != "sig") {
        return Err("its `use` is not `sig`");
    }
    match key.get("key_ops") {
        None => {}
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => {}
        Some(_) => return Err("its `key_ops` do not hold `verify`"),
    }
    let kind = text_of(key, "kty").ok_or("it has no `kty`")?;
    if kind != "oct" && key.contains_key("d") {
        return Err("it is a private key, which only the issuer may have");
    }
    let number = |member| text_of(key, member).and_then(decode).ok_or("a part of it is missing or no base64url");
    match (kind, text_of(key, "crv")) {
        ("RSA", _) => Material::rsa(&number("n")?, &number("e")?),
        ("EC", Some("P-256")) => Material::p256(&point(&number("x")?, &number("y")?, 32)?),
        ("EC", Some("P-384")) => Material::p384(&point(&number("x")?, &number("y")?, 48)?),
        ("OKP", Some("Ed25519")) => Material::ed25519(&number("x")?),
        // Whoever can read the set could sign with it.
        ("oct", _) => Err("a shared secret has no place in a key set"),
        _ => Err("it is of a kind that is not supported"),
    }
}

fn point(x: &[u8], y: &[u8], length: usize) -> Result<Vec<u8>, &'static str> {
    if x.len() != length || y.len() != length {
        return Err("a coordinate has not the length of its curve");
    }
    Ok([&[4], x, y].concat())
}

fn pinned(key: &Map<String, Value>, material: &Material) -> Result<Option<Algorithm>, &'static str> {
    let Some(name) = key.get("alg") else { return Ok(None) };
    let known = name.as_str().and_then(|name| Algorithm::from_str(name).ok());
    match known.filter(|algorithm| material.kind.fits(*algorithm)) {
        Some(algorithm) => Ok(Some(algorithm)),
        None => Err("its `alg` is none that it could verify"),
    }
}
