use serde_json::{Value, json};

use super::*;
use crate::identity::testing::{SECRET, Signer, base64url, claims};

mod published;
mod wycheproof;

fn jwks(keys: &[Value]) -> Result<KeySet, &'static str> {
    KeySet::jwks(json!({ "keys": keys }).to_string().as_bytes())
}

fn verify(keys: &KeySet, token: &str) -> Result<(), Reason> {
    let mark = keys.verify(&Token::parse(token)?)?;
    assert!(keys.has(mark));
    Ok(())
}

fn with(mut key: Value, member: &str, value: Value) -> Value {
    key[member] = value;
    key
}

#[test]
fn a_key_verifies_what_it_is_for_and_nothing_else() {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    let all = [HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA];
    let families: [&[Algorithm]; 5] =
        [&[HS256, HS384, HS512], &[RS256, RS384, RS512, PS256, PS384, PS512], &[ES256], &[ES384], &[EdDSA]];
    for family in families {
        let signer = Signer::new(family[0]);
        let keys =
            if family[0] == HS256 { KeySet::secret(SECRET.as_bytes()) } else { KeySet::pem(&signer.pem()).unwrap() };
        let mut signer = signer;
        for algorithm in all {
            assert_eq!(keys.fits(algorithm), family.contains(&algorithm), "{family:?} {algorithm:?}");
        }
        for algorithm in family {
            signer = signer.with(*algorithm);
            let token = signer.token(&claims());
            assert_eq!(verify(&keys, &token), Ok(()), "{algorithm:?}");
            // The header says another algorithm than was signed with.
            for other in all.iter().filter(|other| *other != algorithm) {
                let header = json!({ "alg": format!("{other:?}") });
                let reason = if family.contains(other) { Reason::Signature } else { Reason::Algorithm };
                let token = signer.token_with(&header, &claims());
                assert_eq!(verify(&keys, &token), Err(reason), "{algorithm:?} {other:?}");
            }
        }
    }
}

#[test]
fn a_jwk_is_pinned_to_its_algorithm() {
    let signer = Signer::new(Algorithm::RS256);
    let free = jwks(&[signer.jwk("a")]).unwrap();
    let pinned = jwks(&[with(signer.jwk("a"), "alg", json!("RS384"))]).unwrap();
    let header = json!({ "alg": "RS256", "kid": "a" });
    let token = signer.token_with(&header, &claims());
    assert_eq!((verify(&free, &token), verify(&pinned, &token)), (Ok(()), Err(Reason::Algorithm)));
    let token = signer.with(Algorithm::RS384).token_with(&json!({ "alg": "RS384", "kid": "a" }), &claims());
    assert_eq!((verify(&free, &token), verify(&pinned, &token)), (Ok(()), Ok(())));
}

#[test]
fn keys_that_are_for_something_else_are_left_out() {
    let signer = Signer::new(Algorithm::ES256);
    let key = signer.jwk("a");
    let used = |key: Value| jwks(&[key]).unwrap().len() == 1;
    assert!(used(key.clone()));
    for (member, value) in [
        ("use", json!("sig")),
        ("key_ops", json!(["verify"])),
        ("key_ops", json!(["sign", "verify"])),
        ("alg", json!("ES256")),
        ("x5c", json!(["MII"])),
        ("whatever", json!({ "a": 1 })),
    ] {
        assert!(used(with(key.clone(), member, value.clone())), "{member} {value}");
    }
    for (member, value) in [
        ("use", json!("enc")),
        ("use", json!("SIG")),
        ("use", json!(null)),
        ("use", json!(["sig"])),
        ("key_ops", json!(["sign"])),
        ("key_ops", json!([])),
        ("key_ops", json!("verify")),
        ("key_ops", json!(["sign, verify"])),
        ("alg", json!("ES384")),
        ("alg", json!("RS256")),
        ("alg", json!("HS256")),
        ("alg", json!("none")),
        ("alg", json!("ECDH-ES")),
        ("alg", json!(256)),
        ("kid", json!(1)),
        ("kid", json!(null)),
        ("kid", json!("x".repeat(1025))),
        ("kty", json!("oct")),
        ("kty", json!("ec")),
        ("kty", json!("AKP")),
        ("kty", json!(null)),
        ("crv", json!("P-384")),
        ("crv", json!("P-521")),
        ("crv", json!("secp256k1")),
        ("crv", json!(null)),
        ("d", json!("AAAA")),
        ("x", json!("AAAA")),
        ("x", json!(format!("{}=", key["x"].as_str().unwrap()))),
        ("x", json!(base64url([0; 33]))),
        ("y", json!(null)),
    ] {
        assert!(!used(with(key.clone(), member, value.clone())), "{member} {value}");
    }
    // A shared secret in a set could be read by whoever reads the set.
    let set = jwks(&[Signer::new(Algorithm::HS256).jwk("a"), signer.jwk("b")]).unwrap();
    assert_eq!((set.len(), set.fits(Algorithm::HS256)), (1, false));
    let skipped = &set.skipped[0];
    assert_eq!(skipped.to_string(), "\"a\": a shared secret has no place in a key set");
}

#[test]
fn a_kid_is_compared_and_nothing_more() {
    let (one, other) = (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let set = jwks(&[one.jwk("one"), other.jwk("other")]).unwrap();
    let token = |signer: &Signer, kid: &str| signer.token_with(&json!({ "alg": "ES256", "kid": kid }), &claims());
    assert_eq!(verify(&set, &token(&one, "one")), Ok(()));
    assert_eq!(verify(&set, &token(&other, "other")), Ok(()));
    assert_eq!(verify(&set, &token(&one, "other")), Err(Reason::Signature));
    for kid in ["", "One", "one ", "one\0", "../one", "/dev/null", "one' OR '1'='1", "http://127.0.0.1/one", "*"] {
        assert_eq!(verify(&set, &token(&one, kid)), Err(Reason::UnknownKey), "{kid:?}");
    }
    // Without one, every key that fits is tried; a lone key takes any.
    assert_eq!(verify(&set, &other.token(&claims())), Ok(()));
    assert_eq!(verify(&KeySet::pem(&one.pem()).unwrap(), &token(&one, "whatever")), Ok(()));
    let nameless = jwks(&[with(one.jwk("x"), "kid", json!("x"))]).unwrap();
    assert_eq!(verify(&nameless, &one.token(&claims())), Ok(()));
}

#[test]
fn a_token_without_kid_is_tried_with_a_few_keys() {
    let signer = Signer::new(Algorithm::EdDSA);
    let mut keys: Vec<Value> = (0..KEYS_TRIED_MAX).map(|n| Signer::new(Algorithm::EdDSA).jwk(&n.to_string())).collect();
    keys.push(signer.jwk("last"));
    let token = signer.token(&claims());
    assert_eq!(verify(&jwks(&keys).unwrap(), &token), Err(Reason::Signature));
    assert_eq!(verify(&jwks(&keys[1..]).unwrap(), &token), Ok(()));
}

#[test]
fn a_kid_that_means_two_keys_means_none() {
    let (one, other) = (Signer::new(Algorithm::RS256), Signer::new(Algorithm::RS256));
    let token = one.token_with(&json!({ "alg": "RS256", "kid": "a" }), &claims());
    let set = |keys: &[Value]| jwks(keys).unwrap();
    assert_eq!(verify(&set(&[one.jwk("a"), other.jwk("a")]), &token), Err(Reason::UnknownKey));
    // The same key twice is one; the same name for different algorithms or kinds of keys is no doubt.
    assert_eq!(verify(&set(&[one.jwk("a"), one.jwk("a")]), &token), Ok(()));
    let pinned = |signer: &Signer, name: &str| with(signer.jwk("a"), "alg", json!(name));
    assert_eq!(verify(&set(&[pinned(&one, "RS256"), pinned(&other, "PS256")]), &token), Ok(()));
    assert_eq!(verify(&set(&[one.jwk("a"), pinned(&other, "PS256")]), &token), Err(Reason::UnknownKey));
    assert_eq!(verify(&set(&[one.jwk("a"), Signer::new(Algorithm::ES256).jwk("a")]), &token), Ok(()));
    assert_eq!(verify(&set(&[one.jwk("a"), with(other.jwk("a"), "use", json!("enc"))]), &token), Ok(()));
}

#[test]
fn what_is_no_key_set_is_none() {
    for bad in [
        "",
        "null",
        "[]",
        "{}",
        "<html>",
        r#"{"keys":{}}"#,
        r#"{"keys":[1]}"#,
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[{"kid":"a","kid":"b"}]}"#,
        r#"{"Keys":[]}"#,
    ] {
        assert!(KeySet::jwks(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(jwks(&[]).unwrap().is_empty());
    let key = Signer::new(Algorithm::EdDSA).jwk("a");
    assert_eq!(jwks(&vec![key.clone(); 100]).unwrap().len(), 1);
    assert!(jwks(&vec![key; 101]).is_err());
}

#[test]
fn pem_holds_one_public_key() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap().pem();
    assert!(KeySet::pem(&certificate).unwrap().fits(Algorithm::ES256));
    assert!(KeySet::pem(&format!("{certificate}{certificate}")).is_ok());
    let signer = Signer::new(Algorithm::RS256);
    let public = signer.pem();
    assert!(KeySet::pem(&format!("-- a comment before it\n{public}\n")).is_ok());
    for (bad, why) in [
        (String::new(), "no PEM"),
        ("hello".to_owned(), "no PEM"),
        (signer.private_pem(), "private key"),
        (format!("{public}{}", signer.private_pem()), "private key"),
        (format!("{public}{public}"), "several keys"),
        (public.replace("PUBLIC KEY", "CERTIFICATE REQUEST"), "neither"),
        (public.replace("PUBLIC KEY", "CERTIFICATE"), "damaged"),
        (public.replace("MIIB", "AIIB"), "damaged"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_owned(), "damaged"),
    ] {
        let found = KeySet::pem(&bad).map(|_| ()).unwrap_err();
        assert!(found.contains(why), "{found}: {bad}");
    }
}

/// The key of the issuer is public: whoever takes it for a shared secret, in whatever form, must get nowhere.
#[test]
fn a_public_key_is_no_shared_secret() {
    let signer = Signer::new(Algorithm::RS256);
    let (modulus, exponent) = signer.rsa_numbers();
    let pem = signer.pem();
    let der = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
    let sets = [KeySet::pem(&pem).unwrap(), jwks(&[signer.jwk("a")]).unwrap()];
    let (text, jwk) = (base64url(&modulus), signer.jwk("a").to_string());
    let (whole, trimmed) = (pem.as_bytes(), pem.trim_end().as_bytes());
    for guess in [whole, trimmed, &der, &modulus, &exponent, text.as_bytes(), jwk.as_bytes(), b""] {
        for algorithm in ["HS256", "HS384", "HS512"] {
            let signed =
                format!("{}.{}", base64url(json!({ "alg": algorithm, "kid": "a" }).to_string()), base64url("{}"));
            let key = jsonwebtoken::EncodingKey::from_secret(guess);
            let signature = crypto::sign(signed.as_bytes(), &key, algorithm.parse().unwrap()).unwrap();
            for set in &sets {
                assert_eq!(verify(set, &format!("{signed}.{signature}")), Err(Reason::Algorithm), "{algorithm}");
            }
        }
    }
}

/// Everybody can sign for one: `R` the neutral point and `S` zero fit whatever is signed.
#[test]
fn an_ed25519_key_of_small_order_is_left_out() {
    let neutral = [&[1_u8][..], &[0; 31]].concat();
    let set = jwks(&[json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(&neutral) })]).unwrap();
    let signature = base64url([&neutral[..], &[0; 32]].concat());
    let forged = format!("{}.{}.{signature}", base64url(br#"{"alg":"EdDSA"}"#), base64url(b"{}"));
    assert_eq!(verify(&set, &forged), Err(Reason::UnknownKey));
}
