use serde_json::json;
use std::path::Path;

use super::*;
use crate::caller::Credential;
use crate::identity::testing::{NOW, SECRET, Signer, at, base64url, claims, claims_with, identity, now, try_identity};
use crate::state::{Limits, Memory};

mod mutations;

const FAMILIES: [Algorithm; 6] =
    [Algorithm::HS256, Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

#[test]
fn a_genuine_token_passes_at_once_and_out_of_the_cache() {
    for algorithm in FAMILIES {
        let signer = Signer::new(algorithm);
        let issuer = signer.issuer();
        let token = signer.token(&claims());
        let first = issuer.verify(&token, now()).unwrap();
        let again = issuer.verify(&token, now()).unwrap();
        assert!(Arc::ptr_eq(&first, &again), "{algorithm:?}");
        // Somebody else's key of the same kind; a secret is the same for all of these tests.
        if algorithm != Algorithm::HS256 {
            let stranger = Signer::new(algorithm).token(&claims());
            assert_eq!(issuer.verify(&stranger, now()).err(), Some(Reason::Signature), "{algorithm:?}");
        }
    }
}

/// What a header says about keys is nobody's word.
#[test]
fn keys_that_a_token_brings_along_are_not_used() {
    let (ours, evil) = (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let pair = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
    let chain = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate.der());
    for (member, value) in [
        ("jwk", evil.jwk("a")),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5c", json!([chain])),
        ("x5u", json!("https://evil.example/key.pem")),
        ("kid", json!("../../../../../../dev/null")),
        ("kid", json!("https://evil.example/jwks.json")),
        ("kid", json!("a' UNION SELECT 'key")),
        ("kid", json!("| cat /etc/passwd")),
    ] {
        let header = json!({ "alg": "ES256", member: value });
        let forged = evil.token_with(&header, &claims());
        assert_eq!(ours.issuer().verify(&forged, now()).err(), Some(Reason::Signature), "{member}");
        assert!(ours.issuer().verify(&ours.token_with(&header, &claims()), now()).is_ok(), "{member}");
    }
}

#[test]
fn an_empty_signature_or_none_at_all_is_refused() {
    let signer = Signer::new(Algorithm::HS256);
    let issuer = signer.issuer();
    let genuine = signer.token(&claims());
    let (signed, _) = genuine.rsplit_once('.').unwrap();
    for bad in
        [signed.to_owned(), format!("{signed}."), format!("{signed}.="), format!("{genuine}="), format!("{genuine}\n")]
    {
        assert_eq!(issuer.verify(&bad, now()).err(), Some(Reason::Malformed), "{bad}");
    }
    for zeros in ["AA", &"A".repeat(43), &"A".repeat(86)] {
        let reason = issuer.verify(&format!("{signed}.{zeros}"), now()).err();
        assert_eq!(reason, Some(Reason::Signature), "{zeros}");
    }
    for alg in ["none", "None", "NONE", "nOnE"] {
        let header = base64url(format!(r#"{{"alg":"{alg}"}}"#));
        let payload = base64url(claims().to_string());
        for signature in ["", "AA", genuine.rsplit_once('.').unwrap().1] {
            assert!(issuer.verify(&format!("{header}.{payload}.{signature}"), now()).is_err(), "{alg}");
        }
    }
    // A token in a token, and encryption.
    let nested = signer.sign(r#"{"alg":"HS256","cty":"JWT"}"#, &genuine);
    assert_eq!(issuer.verify(&nested, now()).err(), Some(Reason::Malformed));
    let nested = signer.sign(r#"{"alg":"HS256"}"#, &genuine);
    assert_eq!(issuer.verify(&nested, now()).err(), Some(Reason::Malformed));
    assert_eq!(issuer.verify("eyJhbGciOiJkaXIifQ..AAAA.AAAA.AAAA", now()).err(), Some(Reason::Malformed));
    let oversized = signer.token(&claims_with(&json!({ "x": "x".repeat(8 * 1024) })));
    assert_eq!(issuer.verify(&oversized, now()).err(), Some(Reason::Malformed));
}

#[test]
fn an_algorithm_that_is_not_listed_is_refused_by_the_right_key_too() {
    let signer = Signer::new(Algorithm::RS256);
    let issuer = signer.issuer();
    let signer = signer.with(Algorithm::RS384);
    assert_eq!(issuer.verify(&signer.token(&claims()), now()).err(), Some(Reason::Algorithm));
}

#[test]
fn what_is_remembered_counts_for_its_issuer_alone() {
    let yaml = format!(
        "issuers:\n  main: {{ secret: '{SECRET}', algorithms: [HS256], issuer: a }}\n  \
         other: {{ secret: '{SECRET}', algorithms: [HS256], issuer: b }}\n"
    );
    let identity = identity(&yaml);
    let (main, other) = (identity.issuer("main").unwrap(), identity.issuer("other").unwrap());
    let token = Signer::new(Algorithm::HS256).token(&claims_with(&json!({ "iss": "a" })));
    assert!(main.verify(&token, now()).is_ok());
    assert_eq!(other.verify(&token, now()).err(), Some(Reason::Issuer));
    assert!(main.verify(&token, now()).is_ok());
}

#[tokio::test]
async fn what_is_taken_back_is_refused_out_of_the_cache_too() {
    let shared: Arc<Shared> = Arc::default();
    shared.attach(Arc::new(Memory::new(Limits::default())));
    let yaml = format!("issuers: {{ main: {{ secret: '{SECRET}', algorithms: [HS256] }} }}\n");
    let identity = try_identity(&yaml, Path::new(""), &shared).unwrap();
    let issuer = identity.issuer("main").unwrap();
    let signer = Signer::new(Algorithm::HS256);
    let token = |jti: &str, sid: &str| signer.token(&claims_with(&json!({ "jti": jti, "sid": sid })));
    let (alice, same_login, bob) = (token("a1", "login-a"), token("a2", "login-a"), token("b1", "login-b"));
    let caller = issuer.verify(&bob, now()).unwrap();
    assert!(issuer.verify(&alice, now()).is_ok());
    shared.revoke("a1", at(NOW + 3600), now()).await.unwrap();
    assert_eq!(issuer.verify(&alice, now()).err(), Some(Reason::Revoked));
    assert!(issuer.verify(&same_login, now()).is_ok());
    shared.revoke("login-a", at(NOW + 3600), now()).await.unwrap();
    assert_eq!(issuer.verify(&same_login, now()).err(), Some(Reason::Revoked));
    // One that was never seen before is refused as well.
    assert_eq!(issuer.verify(&token("a3", "login-a"), now()).err(), Some(Reason::Revoked));
    assert!(issuer.verify(&bob, now()).is_ok());
    assert_eq!(identity.still_holds(&caller, at(NOW + 3600)), Err(Reason::Expired));
    assert_eq!(identity.still_holds(&caller, now()), Ok(()));
    shared.revoke("b1", at(NOW + 3600), now()).await.unwrap();
    assert_eq!(identity.still_holds(&caller, now()), Err(Reason::Revoked));
    let without = try_identity("issuers: {}\n", Path::new(""), &shared).unwrap();
    assert_eq!(without.still_holds(&caller, now()), Err(Reason::Issuer));
}

/// What a socket is asked for that outlives the snapshot its token was verified by.
#[test]
fn a_token_holds_as_long_as_its_key_and_its_issuer() {
    let (signer, stranger) = (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let folder = tempfile::tempdir().unwrap();
    let set = json!({ "keys": [stranger.jwk("b"), signer.jwk("another name")] });
    std::fs::write(folder.path().join("keys.json"), set.to_string()).unwrap();
    let with = |issuer: &str| {
        let yaml = format!("issuers: {{ main: {{ {issuer}, algorithms: [ES256] }} }}\n");
        try_identity(&yaml, folder.path(), &Arc::default()).unwrap()
    };
    let pem = |signer: &Signer| format!("public_key: {}", json!(signer.pem()));
    let token = signer.token(&claims_with(&json!({ "iss": "a" })));
    let caller = with(&pem(&signer)).issuer("main").unwrap().verify(&token, now()).unwrap();
    for (issuer, verdict) in [
        (pem(&signer), Ok(())),
        (format!("{}, issuer: a, leeway: 1s", pem(&signer)), Ok(())),
        // The same key under a name, and among others.
        ("jwks_file: keys.json".to_owned(), Ok(())),
        (pem(&stranger), Err(Reason::UnknownKey)),
        (format!("{}, issuer: b", pem(&signer)), Err(Reason::Issuer)),
        (format!("{}, audience: b", pem(&signer)), Err(Reason::Audience)),
        // Keys that never came yet say nothing.
        ("jwks: 'http://127.0.0.1:1/'".to_owned(), Ok(())),
    ] {
        assert_eq!(with(&issuer).still_holds(&caller, now()), verdict, "{issuer}");
    }
}

#[test]
fn a_secret_that_is_replaced_holds_nothing_up() {
    let with =
        |secret: &str| identity(&format!("issuers: {{ main: {{ secret: '{secret}', algorithms: [HS256] }} }}\n"));
    let token = Signer::new(Algorithm::HS256).token(&claims());
    let caller = with(SECRET).issuer("main").unwrap().verify(&token, now()).unwrap();
    assert_eq!(with(SECRET).still_holds(&caller, now()), Ok(()));
    let other = SECRET.replace('!', "?");
    assert_eq!(with(&other).still_holds(&caller, now()), Err(Reason::UnknownKey));
}

#[test]
fn among_several_issuers_the_one_that_is_named_is_asked() {
    let (one, other, nameless) =
        (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256), Signer::new(Algorithm::EdDSA));
    let key = |signer: &Signer| json!(signer.pem());
    let yaml = format!(
        "issuers:\n  one: {{ public_key: {}, algorithms: [ES256], issuer: one }}\n  \
         other: {{ public_key: {}, algorithms: [ES256], issuer: other }}\n  \
         nameless: {{ public_key: {}, algorithms: [EdDSA] }}\n",
        key(&one),
        key(&other),
        key(&nameless),
    );
    let identity = identity(&yaml);
    let all: Vec<Arc<Issuer>> = identity.issuers().cloned().collect();
    let judge = |token: &str| {
        let first = identity.token(&all, token, now());
        assert_eq!(first.as_ref().err(), identity.token(&all, token, now()).as_ref().err());
        first.map(|caller| match &caller.credential {
            Credential::Token { issuer, .. } => issuer.to_string(),
            other => panic!("{other:?}"),
        })
    };
    let by = |issuer: &str| Ok(issuer.to_owned());
    let named = |name: &str| claims_with(&json!({ "iss": name }));
    assert_eq!(judge(&one.token(&named("one"))), by("one"));
    assert_eq!(judge(&other.token(&named("other"))), by("other"));
    assert_eq!(judge(&nameless.token(&named("whoever"))), by("nameless"));
    assert_eq!(judge(&nameless.token(&claims())), by("nameless"));
    // One issuer's key under the name of another.
    assert_eq!(judge(&one.token(&named("other"))), Err(Reason::Signature));
    assert_eq!(judge(&one.token(&named("nobody"))), Err(Reason::Algorithm));
    assert_eq!(judge(&one.token(&json!({ "iss": "one", "sub": "a", "exp": NOW }))), Err(Reason::Expired));
    assert_eq!(judge("a.b.c"), Err(Reason::Malformed));
    // What is remembered does not help where the issuer is not accepted.
    assert!(identity.token(&all, &one.token(&named("one")), now()).is_ok());
    assert_eq!(identity.token(&all[1..2], &one.token(&named("one")), now()).err(), Some(Reason::Signature));
    assert_eq!(identity.token(&all[1..], &one.token(&named("one")), now()).err(), Some(Reason::Algorithm));
    assert_eq!(identity.token(&[], &one.token(&named("one")), now()).err(), Some(Reason::Issuer));
}

#[test]
fn a_key_set_in_a_file_is_read_when_the_configuration_is() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new(Algorithm::EdDSA);
    let set = json!({ "keys": [signer.jwk("a"), { "kty": "LMS", "kid": "b" }] });
    std::fs::write(folder.path().join("keys.json"), set.to_string()).unwrap();
    let yaml = "issuers: { main: { jwks_file: keys.json, algorithms: [EdDSA] } }\n";
    let identity = try_identity(yaml, folder.path(), &Arc::default()).unwrap();
    let token = |kid: &str| signer.token_with(&json!({ "alg": "EdDSA", "kid": kid }), &claims());
    let issuer = identity.issuer("main").unwrap();
    assert!(issuer.verify(&token("a"), now()).is_ok());
    assert_eq!(issuer.verify(&token("b"), now()).err(), Some(Reason::UnknownKey));
}
