//! What a token costs. `cargo bench --profile quick --bench identity`
#![allow(clippy::expect_used, reason = "a benchmark that cannot set up must stop")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use divan::Bencher;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::json;
use tollgate::identity::{Identity, Issuer, IssuerSettings, Shared, Written};
use tollgate::types::Secret;
use tollgate::yaml::{Located, Place};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECRET: &str = "a secret of sixty-four bytes that nobody uses for anything real!";
const ALGORITHMS: [&str; 4] = ["HS256", "RS256", "ES256", "EdDSA"];
/// More than the cache holds: each has left it before its turn comes again.
const TOKENS: usize = 20_000;

fn main() {
    divan::main();
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn located<T>(value: T) -> Located<T> {
    Located::new(value, Place::UNKNOWN)
}

/// The key that signs, and the issuer that has the other half of it.
fn issuer(algorithm: &str) -> (EncodingKey, Arc<Issuer>) {
    let pair = match algorithm {
        "RS256" => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256),
        "EdDSA" => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        _ => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
    };
    let pair = pair.expect("a key");
    let key = match algorithm {
        "HS256" => EncodingKey::from_secret(SECRET.as_bytes()),
        "RS256" => EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).expect("an RSA key"),
        "EdDSA" => EncodingKey::from_ed_der(pair.serialized_der()),
        _ => EncodingKey::from_ec_der(pair.serialized_der()),
    };
    let shared = algorithm == "HS256";
    let settings = IssuerSettings {
        secret: shared.then(|| located(SECRET.parse::<Secret>().expect("a secret"))),
        public_key: (!shared).then(|| located(pair.public_key_pem())),
        jwks: None,
        token_service: None,
        jwks_file: None,
        algorithms: vec![located(algorithm.to_owned())],
        issuer: Some(located("https://id.example.com".to_owned())),
        audience: None,
        leeway: None,
        name_claim: None,
        roles_claim: None,
        scopes_claim: None,
    };
    let name = located("main".to_owned());
    let mut problems = Vec::new();
    let written = Written { issuers: vec![(&name, &settings)], ..Written::default() };
    let identity = Identity::compile(&written, &Arc::<Shared>::default(), &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    (key, Arc::clone(identity.issuer("main").expect("the issuer")))
}

fn token(algorithm: &str, key: &EncodingKey, number: usize) -> String {
    let algorithm: Algorithm = algorithm.parse().expect("an algorithm");
    let claims = json!({
        "iss": "https://id.example.com", "sub": format!("user-{number}"), "exp": 1_800_003_600_u64, "iat": 1_800_000_000_u64,
        "roles": ["user"], "scope": "read:tasks write:tasks",
    });
    encode(&Header::new(algorithm), &claims, key).expect("a token")
}

#[divan::bench(args = ALGORITHMS)]
fn cached(bencher: Bencher<'_, '_>, algorithm: &str) {
    let (key, issuer) = issuer(algorithm);
    let token = token(algorithm, &key, 1);
    assert!(issuer.verify(&token, now()).is_ok());
    bencher.bench_local(|| issuer.verify(black_box(&token), now()));
}

#[divan::bench(args = ALGORITHMS, sample_count = 20, sample_size = 1_000)]
fn uncached(bencher: Bencher<'_, '_>, algorithm: &str) {
    let (key, issuer) = issuer(algorithm);
    let tokens: Vec<String> = (0..TOKENS).map(|number| token(algorithm, &key, number)).collect();
    let mut next = tokens.iter().cycle();
    bencher.bench_local(|| issuer.verify(black_box(next.next().expect("a cycle")), now()).is_ok());
}

/// A signature of nobody, which is never remembered.
#[divan::bench(args = ALGORITHMS)]
fn forged(bencher: Bencher<'_, '_>, algorithm: &str) {
    let (key, _) = issuer(algorithm);
    let (_, other) = issuer(algorithm);
    let mut forged = token(algorithm, &key, 1);
    if algorithm == "HS256" {
        // Both have the one secret: the signature is that of another token.
        let (_, signature) = forged.rsplit_once('.').expect("a signature");
        let text = token(algorithm, &key, 2);
        forged = format!("{}.{signature}", text.rsplit_once('.').expect("a signature").0);
    }
    bencher.bench_local(|| other.verify(black_box(&forged), now()).is_err());
}
