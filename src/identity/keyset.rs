//! Keys that verify tokens, each pinned to what it is for.
//!
//! A key never verifies an algorithm of another kind than its own, whatever a token or a key set says: a shared secret only
//! HMAC, an RSA key only RS and PS, a point only the algorithm of its curve. With `alg` in a JWK it verifies that one alone.

mod ed25519;
mod jwk;
mod pem;
mod rsa;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};

use super::Reason;
use super::token::Token;

pub use jwk::Skipped;

/// How many keys are tried for a token that names none.
const KEYS_TRIED_MAX: usize = 8;

/// Keys that were loaded together.
#[derive(Debug)]
pub struct KeySet {
    keys: Box<[Key]>,
    /// Whether the `kid` of a token chooses among them. A lone key takes every token.
    named: bool,
    /// Different for every set that was ever made.
    pub generation: u64,
    /// Keys of a JWK set that are not used, and why.
    pub skipped: Box<[Skipped]>,
}

#[derive(Debug)]
struct Key {
    id: Option<Box<str>>,
    /// The only algorithm it verifies, when it has `alg`.
    pinned: Option<Algorithm>,
    material: Material,
}

/// What a key is made of, checked.
#[derive(Debug)]
pub struct Material {
    kind: Kind,
    key: DecodingKey,
    /// The public numbers, to tell keys apart; empty for a secret.
    public: Box<[u8]>,
    mark: Mark,
}

/// Tells a key from every other one, in this process: the same key under another name, or read again, has the same mark.
/// It says nothing about the key to whoever sees it, for the hash has a secret of its own.
pub type Mark = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl KeySet {
    /// A shared secret.
    pub fn secret(secret: &[u8]) -> Self {
        let key = DecodingKey::from_secret(secret);
        let mark = mark(Kind::Secret, secret);
        Self::lone(Material { kind: Kind::Secret, key, public: Box::default(), mark })
    }

    /// The key that verifies what a token service of ours signs; `None` for one that no token service has.
    pub fn of_service(algorithm: Algorithm, key: &DecodingKey) -> Option<Self> {
        let bytes = key.try_get_as_bytes().ok()?;
        let mut set = match algorithm {
            Algorithm::HS256 => Self::secret(bytes),
            Algorithm::ES256 => Self::lone(Material::p256(bytes).ok()?),
            Algorithm::EdDSA => Self::lone(Material::ed25519(bytes).ok()?),
            _ => return None,
        };
        for key in &mut set.keys {
            key.pinned = Some(algorithm);
        }
        Some(set)
    }

    /// A public key or certificate in PEM.
    pub fn pem(text: &str) -> Result<Self, &'static str> {
        pem::read(text).map(Self::lone)
    }

    /// A JWK set (RFC 7517). Keys that cannot verify tokens are left out.
    pub fn jwks(text: &[u8]) -> Result<Self, &'static str> {
        let (keys, skipped) = jwk::read(text)?;
        Ok(Self { keys: keys.into(), named: true, generation: next_generation(), skipped: skipped.into() })
    }

    fn lone(material: Material) -> Self {
        let keys = Box::new([Key { id: None, pinned: None, material }]);
        Self { keys, named: false, generation: next_generation(), skipped: Box::default() }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether some key verifies this algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.verifies(algorithm))
    }

    /// Whether the key with this mark is one of them, under whatever name.
    pub fn has(&self, mark: Mark) -> bool {
        self.keys.iter().any(|key| key.material.mark == mark)
    }

    /// The mark of the key of the set that made this signature.
    ///
    /// # Errors
    /// [`Reason::UnknownKey`]: none has the `kid`. [`Reason::Algorithm`]: the key is for something else.
    /// [`Reason::Signature`]: it does not fit. [`Reason::Malformed`]: it is no base64url.
    pub fn verify(&self, token: &Token<'_>) -> Result<Mark, Reason> {
        let named = |key: &&Key| match &token.kid {
            Some(kid) if self.named => key.id.as_ref() == Some(kid),
            _ => true,
        };
        let mut candidates = self.keys.iter().filter(named).peekable();
        if candidates.peek().is_none() {
            return Err(Reason::UnknownKey);
        }
        let mut reason = Reason::Algorithm;
        for key in candidates.filter(|key| key.verifies(token.algorithm)).take(KEYS_TRIED_MAX) {
            match crypto::verify(token.signature, token.signed.as_bytes(), &key.material.key, token.algorithm) {
                Ok(true) => return Ok(key.material.mark),
                Ok(false) => reason = Reason::Signature,
                Err(error) if matches!(error.kind(), ErrorKind::Base64(_)) => return Err(Reason::Malformed),
                Err(_) => reason = Reason::Signature,
            }
        }
        Err(reason)
    }
}

impl Key {
    fn verifies(&self, algorithm: Algorithm) -> bool {
        self.pinned.is_none_or(|pinned| pinned == algorithm) && self.material.kind.fits(algorithm)
    }
}

impl Kind {
    fn fits(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => self == Self::Secret,
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => self == Self::Rsa,
            Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => self == Self::Rsa,
            Algorithm::ES256 => self == Self::P256,
            Algorithm::ES384 => self == Self::P384,
            Algorithm::EdDSA => self == Self::Ed25519,
            _ => false,
        }
    }
}

impl Material {
    fn new(kind: Kind, key: DecodingKey, public: Box<[u8]>) -> Self {
        let mark = mark(kind, &public);
        Self { kind, key, public, mark }
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, &'static str> {
        let (modulus, exponent) = rsa::check(modulus, exponent)?;
        let key = DecodingKey::from_rsa_raw_components(modulus, exponent);
        Ok(Self::new(Kind::Rsa, key, [modulus, exponent].concat().into()))
    }

    fn p256(point: &[u8]) -> Result<Self, &'static str> {
        Self::point(Kind::P256, point, 65)
    }

    fn p384(point: &[u8]) -> Result<Self, &'static str> {
        Self::point(Kind::P384, point, 97)
    }

    /// An uncompressed point (SEC 1 §2.3.3). Whether it lies on the curve is checked with each signature.
    fn point(kind: Kind, point: &[u8], length: usize) -> Result<Self, &'static str> {
        if point.len() != length || point.first() != Some(&4) {
            return Err("it is no uncompressed point of its curve");
        }
        Ok(Self::new(kind, DecodingKey::from_ec_der(point), point.into()))
    }

    fn ed25519(point: &[u8]) -> Result<Self, &'static str> {
        ed25519::check(point)?;
        Ok(Self::new(Kind::Ed25519, DecodingKey::from_ed_der(point), point.into()))
    }
}

fn mark(kind: Kind, bytes: &[u8]) -> Mark {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    HASHER.hash_one((kind, bytes))
}

fn next_generation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
