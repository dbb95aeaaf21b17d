//! The hash by which an API key is known.

use std::fmt;
use std::hash::{Hash, Hasher};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::types::hex;

/// Longest API key, in bytes. It may be any text.
pub const KEY_BYTES_MAX: usize = 1024;

/// SHA-256 of an API key. Keys themselves are kept nowhere.
///
/// Finding a key by its digest in a hash map tells a stranger nothing that helps: the time a look-up takes can depend on
/// the digest of what was sent, and who sent it knows that digest already. To come near a stored digest byte by byte one
/// would have to choose the digest, which SHA-256 does not allow; and a digest, known in full, does not give its key,
/// which has 256 random bits. The comparison is constant in time all the same, so that nobody has to follow this argument.
///
/// A plain hash, not a slow one: slowness is for secrets that people choose. Keys of [`NewKey`](super::NewKey) cannot be
/// guessed, and a key that an operator chose should be as long.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of a key. `None` for an empty text and for one of more than [`KEY_BYTES_MAX`] bytes.
    pub fn of(key: &[u8]) -> Option<Self> {
        (!key.is_empty() && key.len() <= KEY_BYTES_MAX).then(|| Self(Sha256::digest(key).into()))
    }

    /// Reads 64 hexadecimal digits, in either case.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = (nibble(*high)? << 4) | nibble(*low)?;
        }
        Some(Self(bytes))
    }

    /// Its first eight bytes: enough to tell two keys of one id from each other, as when one takes the place of the other.
    pub fn version(&self) -> u64 {
        self.0.iter().take(8).fold(0, |bits, byte| (bits << 8) | u64::from(*byte))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

/// In constant time.
impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// 64 hexadecimal digits, in lower case.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4, the examples of its validation suite.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_is_sha256_in_hexadecimal_digits() {
        let digest = Digest::of(b"abc").unwrap();
        assert_eq!(digest.to_string(), ABC);
        assert_eq!(Digest::from_hex(ABC), Some(digest));
        assert_eq!(Digest::from_hex(&ABC.to_uppercase()), Some(digest));
        assert_eq!(digest.version(), 0xba78_16bf_8f01_cfea);
        assert_ne!(Digest::of(b"abd").unwrap(), digest);
        assert_eq!(format!("{digest:?}"), "Digest(…)");
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let (short, long) = (ABC.strip_prefix('b').unwrap(), format!("{ABC}0"));
        for bad in ["", short, &long, &ABC.replace("ba", "bg"), &ABC.replace("ba", "+a"), &"ü".repeat(32)] {
            assert!(Digest::from_hex(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_has_1_to_1024_bytes() {
        assert!(Digest::of(b"").is_none());
        assert!(Digest::of(&[b'k'; 1024]).is_some());
        assert!(Digest::of(&[b'k'; 1025]).is_none());
        assert!(Digest::of(b"\0\xff \t").is_some());
    }
}
