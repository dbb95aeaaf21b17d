//! Signatures and the keys that make them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};

use crate::types::hex;

/// Length of the longest signature, in bytes: that of SHA-512.
const SIGNATURE_BYTES_MAX: usize = 64;

/// A signature as it was sent. Nobody has verified it.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    bytes: [u8; SIGNATURE_BYTES_MAX],
    length: usize,
}

impl Signature {
    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The hash of an HMAC (RFC 2104).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    Sha1,
    #[default]
    Sha256,
    Sha512,
}

impl Algorithm {
    /// Length of a signature, in bytes.
    pub fn signature_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// How a signature is written. Each is read in full length and in no other form, so that nothing passes that the sender did
/// not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// In lower case: all providers write it so.
    LowerHex,
    /// In either case, but not in both: senders of one's own.
    Hex,
    /// RFC 4648 §4, with padding, and without bits that no byte needs.
    Base64,
}

impl Encoding {
    /// Reads a signature of exactly `length` bytes.
    pub fn read(self, text: &[u8], length: usize) -> Option<Signature> {
        let mut bytes = [0; SIGNATURE_BYTES_MAX];
        let into = bytes.get_mut(..length)?;
        let is_sound = match self {
            Self::LowerHex => !text.iter().any(u8::is_ascii_uppercase) && read_hex(text, into),
            Self::Hex => {
                let is_mixed = text.iter().any(u8::is_ascii_uppercase) && text.iter().any(u8::is_ascii_lowercase);
                !is_mixed && read_hex(text, into)
            }
            Self::Base64 => {
                // The decoder wants room for what the padding stands for too.
                let mut room = [0; SIGNATURE_BYTES_MAX + 2];
                let is_long = text.len() != length.div_ceil(3).saturating_mul(4);
                let decoded = if is_long { None } else { STANDARD.decode_slice(text, &mut room).ok() };
                match decoded.and_then(|decoded| room.get(..decoded)) {
                    Some(decoded) if decoded.len() == length => {
                        into.copy_from_slice(decoded);
                        true
                    }
                    _ => false,
                }
            }
        };
        is_sound.then_some(Signature { bytes, length })
    }
}

impl Encoding {
    /// Writes a signature as those who send it do.
    pub fn write(self, signature: &[u8]) -> String {
        match self {
            Self::LowerHex | Self::Hex => hex(signature),
            Self::Base64 => STANDARD.encode(signature),
        }
    }
}

fn read_hex(text: &[u8], into: &mut [u8]) -> bool {
    if text.len() != into.len().saturating_mul(2) {
        return false;
    }
    let mut is_sound = true;
    for (byte, pair) in into.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = match pair {
            [high, low] => (nibble(*high), nibble(*low)),
            _ => (NO_DIGIT, NO_DIGIT),
        };
        is_sound &= (high | low) != NO_DIGIT;
        *byte = (high << 4) | (low & 0xf);
    }
    is_sound
}

/// What stands for a byte that is no digit: all bits, so that they show through any other.
const NO_DIGIT: u8 = 0xff;

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit & 0xf,
        b'a'..=b'f' | b'A'..=b'F' => (digit & 0xf).saturating_add(9),
        _ => NO_DIGIT,
    }
}

/// The secrets of a webhook, each with its key schedule: what a request costs is the hash of what it signs.
pub enum Keys {
    Sha1(Box<[Hmac<Sha1>]>),
    Sha256(Box<[Hmac<Sha256>]>),
    Sha512(Box<[Hmac<Sha512>]>),
}

impl Keys {
    pub fn new<'s>(algorithm: Algorithm, secrets: impl Iterator<Item = &'s [u8]>) -> Self {
        // No length is wrong for HMAC; a key that could not be made would verify nothing.
        match algorithm {
            Algorithm::Sha1 => Self::Sha1(secrets.filter_map(|key| Hmac::new_from_slice(key).ok()).collect()),
            Algorithm::Sha256 => Self::Sha256(secrets.filter_map(|key| Hmac::new_from_slice(key).ok()).collect()),
            Algorithm::Sha512 => Self::Sha512(secrets.filter_map(|key| Hmac::new_from_slice(key).ok()).collect()),
        }
    }

    /// Whether one of the keys makes one of the signatures over `pieces`. Takes the same time whichever it is, and however
    /// much of a wrong one is right.
    pub fn verify<'p>(&self, pieces: &(impl Iterator<Item = &'p [u8]> + Clone), signatures: &[Signature]) -> bool {
        match self {
            Self::Sha1(keys) => any_makes(keys, pieces, signatures),
            Self::Sha256(keys) => any_makes(keys, pieces, signatures),
            Self::Sha512(keys) => any_makes(keys, pieces, signatures),
        }
    }
}

impl Keys {
    /// The signature that the first key makes over `pieces`.
    pub fn sign<'p>(&self, pieces: impl Iterator<Item = &'p [u8]>) -> Option<Vec<u8>> {
        match self {
            Self::Sha1(keys) => keys.first().map(|key| make(key, pieces)),
            Self::Sha256(keys) => keys.first().map(|key| make(key, pieces)),
            Self::Sha512(keys) => keys.first().map(|key| make(key, pieces)),
        }
    }
}

fn make<'p, M: Mac + Clone>(key: &M, pieces: impl Iterator<Item = &'p [u8]>) -> Vec<u8> {
    let mut mac = key.clone();
    pieces.for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().to_vec()
}

fn any_makes<'p, M: Mac + Clone>(
    keys: &[M],
    pieces: &(impl Iterator<Item = &'p [u8]> + Clone),
    signatures: &[Signature],
) -> bool {
    let mut found = Choice::from(0);
    for key in keys {
        let mut mac = key.clone();
        pieces.clone().for_each(|piece| mac.update(piece));
        let made = mac.finalize().into_bytes();
        for signature in signatures {
            found |= made.as_slice().ct_eq(signature.as_bytes());
        }
    }
    found.into()
}
