use serde_json::{Value, json};

use crate::caller::{Caller, Credential, Level};
use crate::identity::Reason;
use crate::identity::testing::{NOW, SECRET, Signer, at, claims_with, issuer, now};
use jsonwebtoken::Algorithm;
use std::sync::Arc;

/// What becomes of claims under further settings of the issuer.
fn judge(more: &str, other: &Value) -> Result<Arc<Caller>, Reason> {
    let signer = Signer::new(Algorithm::HS256);
    signer.issuer_with(more).verify(&signer.token(&claims_with(other)), now())
}

fn refused(more: &str, other: &Value) -> Option<Reason> {
    judge(more, other).err()
}

#[test]
fn a_token_ends_in_the_second_that_it_names() {
    let signer = Signer::new(Algorithm::HS256);
    for (leeway, seconds) in [("", 0), ("leeway: 30s", 30), ("leeway: 5m", 300)] {
        let issuer = signer.issuer_with(leeway);
        let token = signer.token(&json!({ "sub": "alice", "exp": NOW }));
        assert_eq!(issuer.verify(&token, at(NOW + seconds)).err(), Some(Reason::Expired), "{leeway}");
        let caller = issuer.verify(&token, at(NOW + seconds - 1)).unwrap();
        assert_eq!(caller.expires, Some(at(NOW + seconds)));
        // The same out of the cache.
        assert_eq!(issuer.verify(&token, at(NOW + seconds)).err(), Some(Reason::Expired), "{leeway}");
        let token = signer.token(&claims_with(&json!({ "nbf": NOW })));
        assert_eq!(issuer.verify(&token, at(NOW - seconds - 1)).err(), Some(Reason::NotYet), "{leeway}");
        assert!(issuer.verify(&token, at(NOW - seconds)).is_ok(), "{leeway}");
        assert_eq!(issuer.verify(&token, at(NOW - seconds - 1)).err(), Some(Reason::NotYet), "{leeway}");
    }
}

#[test]
fn dates_are_numbers() {
    let bad = [
        json!("1900000000"),
        json!(true),
        json!([1_900_000_000]),
        json!({}),
        json!(-1),
        json!(-0.5),
        json!(253_402_300_800_u64),
        json!(u64::MAX),
        json!(1e300),
        Value::String("NaN".to_owned()),
    ];
    for name in ["exp", "nbf", "iat"] {
        for value in &bad {
            assert_eq!(refused("", &json!({ name: value })), Some(Reason::Claims), "{name} {value}");
        }
    }
    // `null` is a value and no date; without `exp` a token would live for ever.
    let signer = Signer::new(Algorithm::HS256);
    for claims in [r#"{"sub":"a","exp":null}"#, r#"{"sub":"a"}"#, r#"{"exp":1900000000,"sub":"a","nbf":null}"#] {
        let token = signer.sign(r#"{"alg":"HS256"}"#, claims);
        assert_eq!(signer.issuer().verify(&token, now()).err(), Some(Reason::Claims), "{claims}");
    }
    for exp in ["1800000000.5", "1.9e9", "253402300799", "1900000000.0"] {
        let token = signer.sign(r#"{"alg":"HS256"}"#, &format!(r#"{{"sub":"a","exp":{exp}}}"#));
        assert!(signer.issuer().verify(&token, now()).is_ok(), "{exp}");
    }
    let token = signer.sign(r#"{"alg":"HS256"}"#, r#"{"sub":"a","exp":1800000000.5}"#);
    let half = at(NOW) + std::time::Duration::from_millis(500);
    assert_eq!(signer.issuer().verify(&token, half).err(), Some(Reason::Expired));
    // When it was made says nothing, however odd.
    assert_eq!(refused("", &json!({ "iat": NOW + 100_000 })), None);
}

#[test]
fn iss_must_be_the_one_that_is_written() {
    let ours = "issuer: https://id.example.com";
    assert_eq!(refused(ours, &json!({ "iss": "https://id.example.com" })), None);
    for other in ["https://id.example.com/", "https://ID.example.com", "https://id.example.com.evil.example", "", " "] {
        assert_eq!(refused(ours, &json!({ "iss": other })), Some(Reason::Issuer), "{other:?}");
    }
    assert_eq!(refused(ours, &json!({})), Some(Reason::Issuer));
    for odd in [json!(["https://id.example.com"]), json!(1), json!({ "a": 1 })] {
        assert_eq!(refused(ours, &json!({ "iss": odd })), Some(Reason::Claims));
        assert_eq!(refused("", &json!({ "iss": odd })), Some(Reason::Claims));
    }
    assert_eq!(refused("", &json!({ "iss": "anybody" })), None);
}

#[test]
fn aud_must_hold_one_of_ours() {
    for ours in ["audience: api", "audience: [api]", "audience: [other, api]"] {
        for good in [json!("api"), json!(["api"]), json!(["x", "api"])] {
            assert_eq!(refused(ours, &json!({ "aud": good })), None, "{ours} {good}");
        }
        for bad in [json!("API"), json!("api "), json!("api,x"), json!("api x"), json!([]), json!(["x"]), json!("")] {
            assert_eq!(refused(ours, &json!({ "aud": bad })), Some(Reason::Audience), "{ours} {bad}");
        }
        assert_eq!(refused(ours, &json!({})), Some(Reason::Audience));
        for odd in [json!(1), json!(["api", 1]), json!({ "api": true }), json!([["api"]])] {
            assert_eq!(refused(ours, &json!({ "aud": odd })), Some(Reason::Claims), "{ours} {odd}");
        }
    }
    // Meant for somebody, and not said that it is us.
    assert_eq!(refused("", &json!({ "aud": "api" })), Some(Reason::Audience));
    assert_eq!(refused("", &json!({ "aud": [] })), Some(Reason::Audience));
}

#[test]
fn a_refresh_token_is_no_access_token() {
    for (name, value) in [
        ("type", "refresh"),
        ("type", "REFRESH"),
        ("typ", "Refresh"),
        ("typ", "Offline"),
        ("token_use", "refresh"),
        ("token_type", "refresh_token"),
    ] {
        assert_eq!(refused("", &json!({ name: value })), Some(Reason::Claims), "{name} {value}");
    }
    for (name, value) in [("type", "access"), ("typ", "Bearer"), ("token_use", "access"), ("token_type", "bearer")] {
        assert_eq!(refused("", &json!({ name: value })), None, "{name} {value}");
    }
}

#[test]
fn the_caller_is_who_the_token_says() {
    let caller =
        judge("", &json!({ "roles": ["a", "b"], "scope": "read:x write:y", "jti": "7", "extra": { "deep": 1 } }));
    let caller = caller.unwrap();
    assert_eq!((&*caller.name, caller.level), ("alice", Level::User));
    assert!(matches!(&caller.credential, Credential::Token { issuer, .. } if **issuer == *"main"));
    assert_eq!(caller.credential.id(), Some("7"));
    assert_eq!(caller.roles.iter().map(|role| &**role).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(caller.scopes.to_string(), "read:x write:y");
    assert_eq!(caller.claims["extra"]["deep"], 1);
    assert_eq!(caller.fields.roles, "a,b");
    for odd in [json!(""), json!(1), json!(["alice"]), json!("al\nice"), json!(null)] {
        assert_eq!(refused("", &json!({ "sub": odd })), Some(Reason::Claims), "{odd}");
    }
    assert_eq!(refused("", &json!({ "jti": 7 })), Some(Reason::Claims));
}

#[test]
fn roles_and_scopes_are_strings_or_lists_wherever_they_stand() {
    let roles = |more: &str, other: Value| judge(more, &other).map(|it| it.fields.roles.to_str().unwrap().to_owned());
    let scopes = |more: &str, other: Value| judge(more, &other).map(|it| it.scopes.to_string());
    assert_eq!(roles("", json!({})), Ok(String::new()));
    assert_eq!(roles("roles_claim: role", json!({ "role": "admin" })), Ok("admin".to_owned()));
    assert_eq!(roles("roles_claim: role", json!({ "role": "two words" })), Ok("two words".to_owned()));
    let nested = json!({ "realm_access": { "roles": ["a", "b"] } });
    assert_eq!(roles("roles_claim: realm_access.roles", nested.clone()), Ok("a,b".to_owned()));
    assert_eq!(roles("roles_claim: realm_access.groups", nested.clone()), Ok(String::new()));
    assert_eq!(roles("roles_claim: realm_access.roles.a", nested), Ok(String::new()));
    let named = json!({ "https://app.example/roles": ["x"], "https://app": { "example/roles": ["y"] } });
    assert_eq!(roles("roles_claim: https://app.example/roles", named), Ok("x".to_owned()));
    assert_eq!(scopes("", json!({ "scope": " a  b a " })), Ok("a b".to_owned()));
    assert_eq!(scopes("", json!({ "scope": "" })), Ok(String::new()));
    assert_eq!(scopes("scopes_claim: scp", json!({ "scp": ["b", "a"] })), Ok("a b".to_owned()));
    for odd in [
        json!(1),
        json!({}),
        json!([1]),
        json!(["a", null]),
        json!(true),
        json!(["a,b"]),
        json!(["a\r\nb"]),
        json!([""]),
    ] {
        assert_eq!(roles("", json!({ "roles": odd })), Err(Reason::Claims), "{odd}");
    }
    for odd in [json!(1), json!({}), json!([1]), json!(["a b"]), json!("a\tb\u{7f}"), json!([""])] {
        assert_eq!(scopes("", json!({ "scope": odd })), Err(Reason::Claims), "{odd}");
    }
}

#[test]
fn roles_bring_scopes_and_a_level() {
    let yaml = format!(
        "roles: {{ boss: {{ scopes: ['*'], level: admin }}, viewer: {{ scopes: ['read:*'] }} }}\n\
         issuers: {{ main: {{ secret: '{SECRET}', algorithms: [HS256] }} }}\n"
    );
    let (issuer, signer) = (issuer(&yaml), Signer::new(Algorithm::HS256));
    let of = |roles: Value| issuer.verify(&signer.token(&claims_with(&json!({ "roles": roles }))), now()).unwrap();
    let viewer = of(json!(["viewer", "stranger"]));
    assert!(viewer.scopes.allow("read:x") && !viewer.scopes.allow("write:x") && viewer.level == Level::User);
    let boss = of(json!("boss"));
    assert!(boss.scopes.allow("write:x") && boss.level == Level::Admin);
}
