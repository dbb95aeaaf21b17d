//! What tests around tokens share: issuers from YAML, signers with keys of their own, tokens made to measure.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::KeyPair;
use serde::Deserialize;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::RSAPublicKey;

use super::{Identity, Issuer, IssuerSettings, RoleSettings, Shared, Written};
use crate::yaml::{FileId, Lookup, Named, Problem, Sources, decode, interpolate, parse};

/// When the tokens of these tests are used, in seconds since 1970.
pub const NOW: u64 = 1_800_000_000;
pub const SECRET: &str = "a secret of sixty-four bytes that nobody uses for anything real!";

pub fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

pub fn now() -> SystemTime {
    at(NOW)
}

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Whoever signs tokens.
pub struct Signer {
    pub algorithm: Algorithm,
    key: EncodingKey,
    /// `None`: it signs with [`SECRET`].
    pair: Option<KeyPair>,
}

impl Signer {
    pub fn new(algorithm: Algorithm) -> Self {
        let generate = |kind| KeyPair::generate_for(kind).unwrap();
        let (key, pair) = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                (EncodingKey::from_secret(SECRET.as_bytes()), None)
            }
            Algorithm::ES256 => Self::of(generate(&rcgen::PKCS_ECDSA_P256_SHA256), EncodingKey::from_ec_der),
            Algorithm::ES384 => Self::of(generate(&rcgen::PKCS_ECDSA_P384_SHA384), EncodingKey::from_ec_der),
            Algorithm::EdDSA => Self::of(generate(&rcgen::PKCS_ED25519), EncodingKey::from_ed_der),
            _ => {
                let pair = generate(&rcgen::PKCS_RSA_SHA256);
                (EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap(), Some(pair))
            }
        };
        Self { algorithm, key, pair }
    }

    fn of(pair: KeyPair, key: fn(&[u8]) -> EncodingKey) -> (EncodingKey, Option<KeyPair>) {
        (key(pair.serialized_der()), Some(pair))
    }

    /// The same key under another algorithm.
    pub fn with(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    pub fn name(&self) -> String {
        format!("{:?}", self.algorithm)
    }

    /// A token of these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.name(), "typ": "JWT" }), claims)
    }

    /// The same with this header.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.sign(&header.to_string(), &claims.to_string())
    }

    /// Signs any two texts as header and payload.
    pub fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", base64url(header), base64url(payload));
        let signature = crypto::sign(signed.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{signed}.{signature}")
    }

    /// The public key, in PEM.
    pub fn pem(&self) -> String {
        self.pair.as_ref().unwrap().public_key_pem()
    }

    pub fn private_pem(&self) -> String {
        self.pair.as_ref().unwrap().serialize_pem()
    }

    /// Modulus and exponent.
    pub fn rsa_numbers(&self) -> (Vec<u8>, Vec<u8>) {
        let raw = self.pair.as_ref().unwrap().public_key_raw();
        let (_, key) = RSAPublicKey::from_der(raw).unwrap();
        let number = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
        (number(key.modulus), number(key.exponent))
    }

    /// The public key as a JWK.
    pub fn jwk(&self, kid: &str) -> Value {
        let raw = self.pair.as_ref().map(KeyPair::public_key_raw).unwrap_or_default();
        let mut jwk = match self.algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => json!({ "kty": "oct", "k": base64url(SECRET) }),
            Algorithm::ES256 | Algorithm::ES384 => {
                let (x, y) = raw[1..].split_at(raw.len() / 2);
                let curve = if raw.len() == 65 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y) })
            }
            Algorithm::EdDSA => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(raw) }),
            _ => {
                let (n, e) = self.rsa_numbers();
                json!({ "kty": "RSA", "n": base64url(n), "e": base64url(e) })
            }
        };
        jwk["kid"] = json!(kid);
        jwk
    }

    /// The one issuer `main` that accepts what this signs; `more` are further settings, one a line.
    pub fn issuer_with(&self, more: &str) -> Arc<Issuer> {
        let key = match &self.pair {
            None => format!("secret: {}", json!(SECRET)),
            Some(_) => format!("public_key: {}", json!(self.pem())),
        };
        let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
        issuer(&format!("issuers:\n  main:\n    {key}\n    algorithms: [{}]\n{more}", self.name()))
    }

    pub fn issuer(&self) -> Arc<Issuer> {
        self.issuer_with("")
    }
}

/// Claims that nothing is wrong with at [`now`].
pub fn claims() -> Value {
    json!({ "sub": "alice", "exp": NOW + 3600 })
}

/// The same with other members, and without those that are `null`.
pub fn claims_with(other: &Value) -> Value {
    let mut claims = claims();
    let all = claims.as_object_mut().unwrap();
    for (name, value) in other.as_object().unwrap() {
        match value {
            Value::Null => all.remove(name),
            value => all.insert(name.clone(), value.clone()),
        };
    }
    claims
}

/// The issuer `main` of this configuration.
pub fn issuer(yaml: &str) -> Arc<Issuer> {
    Arc::clone(identity(yaml).issuer("main").unwrap())
}

/// Issuers and roles of this configuration.
pub fn identity(yaml: &str) -> Arc<Identity> {
    try_identity(yaml, Path::new(""), &Arc::default()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

#[derive(Deserialize)]
struct Root {
    issuers: Named<IssuerSettings>,
    #[serde(default)]
    roles: Named<RoleSettings>,
}

pub fn try_identity(yaml: &str, base: &Path, shared: &Arc<Shared>) -> Result<Arc<Identity>, Vec<Problem>> {
    let mut sources = Sources::new();
    let file = sources.add("gateway.yaml", yaml);
    let node = parse(&sources, file).and_then(|node| interpolate(&node, &Nothing))?;
    let root: Root = decode(&node)?;
    let mut problems = Vec::new();
    let written = Written {
        roles: root.roles.iter().map(|(name, role)| (name, role)).collect(),
        issuers: root.issuers.iter().map(|(name, issuer)| (name, issuer)).collect(),
        consumers: Vec::new(),
        base: base.to_owned(),
        ..Written::default()
    };
    let identity = Identity::compile(&written, shared, &mut problems);
    if problems.is_empty() { Ok(identity) } else { Err(problems) }
}

struct Nothing;

impl Lookup for Nothing {
    fn random(&self, _: &str) -> Result<String, String> {
        Err("there is none".to_owned())
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &str, _: FileId) -> Result<String, String> {
        Err("there is none".to_owned())
    }
}
