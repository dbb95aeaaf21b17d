//! The key of a token service: signs tokens, and knows its own again.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde_json::{Map, Value};

use super::TokenServiceSettings;
use crate::yaml::Problem;

/// Shortest secret of HS256, in bytes: the length of the hash (RFC 7518 §3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// What may be written as `algorithm`.
const ALGORITHMS: [(&str, Algorithm); 3] =
    [("HS256", Algorithm::HS256), ("ES256", Algorithm::ES256), ("EdDSA", Algorithm::EdDSA)];

/// Signs tokens with one key and one algorithm.
pub struct Signer {
    header: Header,
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?})", self.header.alg)
    }
}

impl Signer {
    pub(super) fn compile(settings: &TokenServiceSettings, problems: &mut Vec<Problem>) -> Option<Self> {
        let written = &settings.algorithm;
        let Some((_, algorithm)) = ALGORITHMS.iter().find(|(name, _)| *name == written.value) else {
            let known = ALGORITHMS.iter().map(|(name, _)| *name);
            problems.push(Problem::unknown(written.place, "algorithm", &written.value, known));
            return None;
        };
        let mut signer = signer(settings, *algorithm).map_err(|problem| problems.push(problem)).ok()?;
        signer.header.kid = settings.kid.as_ref().map(|kid| kid.value.clone());
        Some(signer)
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Map<String, Value>) -> Result<String, jsonwebtoken::errors::Error> {
        encode(&self.header, claims, &self.signing)
    }

    /// The claims of a token that was signed here. Nothing is said about its times and its purpose.
    pub fn own(&self, token: &str) -> Option<Map<String, Value>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        decode::<Map<String, Value>>(token, &self.verifying, &self.validation).ok().map(|token| token.claims)
    }

    pub fn algorithm(&self) -> Algorithm {
        self.header.alg
    }

    /// The key that verifies what is signed here.
    pub fn verifying_key(&self) -> &DecodingKey {
        &self.verifying
    }
}

fn signer(settings: &TokenServiceSettings, algorithm: Algorithm) -> Result<Signer, Problem> {
    let place = settings.algorithm.place;
    let signing = match (&settings.secret, &settings.key, algorithm) {
        (Some(secret), None, Algorithm::HS256) => {
            let bytes = secret.value.expose().as_bytes();
            if bytes.len() < SECRET_BYTES_MIN {
                let message = format!("the secret has {} bytes, and HS256 needs {SECRET_BYTES_MIN}", bytes.len());
                let problem = Problem::new(secret.place, message);
                return Err(problem.with_hint("RFC 7518 §3.2; `openssl rand -base64 48` makes one"));
            }
            EncodingKey::from_secret(bytes)
        }
        (None, Some(key), Algorithm::ES256 | Algorithm::EdDSA) => {
            let pem = key.value.expose().as_bytes();
            let read = match algorithm {
                Algorithm::ES256 => EncodingKey::from_ec_pem(pem),
                _ => EncodingKey::from_ed_pem(pem),
            };
            read.map_err(|_| bad_key(settings, key.place))?
        }
        (_, _, Algorithm::HS256) => {
            return Err(Problem::new(place, "HS256 takes a `secret`, and no `key`"));
        }
        _ => {
            let problem = Problem::new(place, format!("{} takes a `key`, and no `secret`", settings.algorithm.value));
            return Err(problem.with_hint("a private key in PEM (PKCS #8): key: \"${file:signing.pem}\""));
        }
    };
    let key_place = settings.key.as_ref().map_or(place, |key| key.place);
    let verifying = public(&signing, algorithm).map_err(|_| bad_key(settings, key_place))?;
    let mut validation = Validation::new(algorithm);
    // Times are compared where the clock of the caller is known; what is missing is looked for there.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let signer = Signer { header: Header::new(algorithm), signing, verifying, validation };
    // A key of another curve is found out now and not at the first login.
    let tried = signer.sign(&Map::new()).ok().and_then(|token| signer.own(&token));
    tried.map(|_| signer).ok_or_else(|| bad_key(settings, key_place))
}

/// The public half of a key.
fn public(signing: &EncodingKey, algorithm: Algorithm) -> Result<DecodingKey, jsonwebtoken::errors::Error> {
    // PKCS #8 in its version 2 (RFC 5958 §2) has it behind the private one, as `[1]` with 33 bytes: no unused bits, 32 bytes.
    const ED25519_MARK: [u8; 3] = [0x81, 0x21, 0x00];
    if algorithm == Algorithm::EdDSA
        && let Some((before, key)) = signing.as_bytes().split_last_chunk::<32>()
        && before.ends_with(&ED25519_MARK)
    {
        return DecodingKey::from_ed_components(&URL_SAFE_NO_PAD.encode(key));
    }
    DecodingKey::from_jwk(&Jwk::from_encoding_key(signing, algorithm)?)
}

fn bad_key(settings: &TokenServiceSettings, place: crate::yaml::Place) -> Problem {
    let (name, command) = match settings.algorithm.value.as_str() {
        "ES256" => ("P-256", "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
        _ => ("Ed25519", "openssl genpkey -algorithm ed25519"),
    };
    Problem::new(place, format!("the key is no private {name} key in PEM (PKCS #8)"))
        .with_hint(format!("`{command} -out signing.pem` makes one"))
}
