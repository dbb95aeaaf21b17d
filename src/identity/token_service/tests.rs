//! The service without a gateway around it.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::super::roles::Roles;
use super::super::users::UserSettings;
use super::*;
use crate::contract::testing::node;
use crate::state::{Limits, Memory};
use crate::yaml::decode;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HS256: &str = "issuer: https://gateway.example, algorithm: HS256, secret: 0123456789abcdef0123456789abcdef";

fn compile_service(text: &str, users: &Arc<Users>, shared: &Arc<Shared>) -> Result<TokenService, String> {
    let settings: TokenServiceSettings =
        decode(&node(&format!("{{ {text} }}"))).map_err(|problems: Vec<Problem>| format!("{problems:?}"))?;
    let mut problems = Vec::new();
    let name = Located::new("main".to_owned(), Place::UNKNOWN);
    let service = TokenService::compile(&name, &settings, users, shared, &mut problems);
    service.ok_or_else(|| format!("{problems:?}"))
}

/// Users whose password is their name, with these roles.
fn users(written: &[(&str, &str, bool)]) -> Arc<Users> {
    let settings: Vec<UserSettings> = written
        .iter()
        .map(|(name, roles, disabled)| {
            let hash = bcrypt::hash(name, 4).unwrap();
            let text =
                format!("{{ name: {name}, password: {hash}, roles: [{roles}], scopes: [own], disabled: {disabled} }}");
            decode(&node(&text)).unwrap()
        })
        .collect();
    let mut problems = Vec::new();
    let users = Users::compile(&settings.iter().collect::<Vec<_>>(), &Roles::default(), &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    users
}

/// What a process has in common: a store in memory.
fn shared() -> Arc<Shared> {
    let shared = Arc::new(Shared::default());
    shared.attach(Arc::new(Memory::new(Limits::default())));
    shared
}

fn service(text: &str) -> TokenService {
    compile_service(text, &users(&[("ann", "admin, user", false)]), &shared()).unwrap_or_else(|told| panic!("{told}"))
}

fn claims(service: &TokenService, token: &str) -> Value {
    Value::Object(service.signer.own(token).expect("a token of this service"))
}

async fn login(service: &TokenService, now: SystemTime) -> (String, String) {
    let issued = service.login("ann", "ann", CLIENT, now).await.unwrap();
    (issued.access, issued.refresh.unwrap())
}

#[tokio::test]
async fn the_tokens_say_who_and_for_how_long() {
    let service = service(&format!("{HS256}, audience: tollgate, kid: k1"));
    let now = clock::wall();
    let (access, refresh) = login(&service, now).await;
    assert_eq!(jsonwebtoken::decode_header(&access).unwrap().kid.as_deref(), Some("k1"));
    let (access, refresh) = (claims(&service, &access), claims(&service, &refresh));
    for (claim, value) in [
        ("iss", Value::from("https://gateway.example")),
        ("sub", "ann".into()),
        ("aud", "tollgate".into()),
        ("type", "access".into()),
        ("role", "admin".into()),
        ("roles", serde_json::json!(["admin", "user"])),
        ("scope", "own".into()),
    ] {
        assert_eq!(access[claim], value, "{claim}");
    }
    let lasts = |claims: &Value| claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert_eq!((lasts(&access), lasts(&refresh)), (3600, 7 * 24 * 3600));
    assert_eq!((&refresh["type"], &refresh["aud"]), (&"refresh".into(), &"https://gateway.example#refresh".into()));
    assert!(refresh.get("roles").is_none() && refresh.get("role").is_none());
    assert_eq!(access["sid"], refresh["sid"]);
    assert_ne!(access["jti"], refresh["jti"]);
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_used_one_ends_the_session() {
    let service = service(HS256);
    let now = clock::wall();
    let (_, first) = login(&service, now).await;
    let second = service.refresh(&first, now).await.unwrap();
    let later = now + Duration::from_millis(4999);
    assert_eq!(service.refresh(&first, later).await.unwrap_err(), Refused::Token, "within the grace");
    let third = service.refresh(&second.refresh.unwrap(), later).await.expect("and the session goes on");
    let access = claims(&service, &third.access);
    let ids = |claims: &Value| (claims["jti"].as_str().map(str::to_owned), claims["sid"].as_str().map(str::to_owned));
    let (id, session) = ids(&access);
    assert!(!service.shared.revocations.contains(id.as_deref(), session.as_deref()));
    assert_eq!(service.refresh(&first, later).await.unwrap_err(), Refused::Token, "two before: no grace");
    assert_eq!(service.refresh(&third.refresh.unwrap(), later).await.unwrap_err(), Refused::Token, "it has ended");
    assert!(service.shared.revocations.contains(id.as_deref(), session.as_deref()), "with its access tokens");
}

#[tokio::test]
async fn the_grace_ends_to_the_millisecond() {
    for (after, goes_on) in [(4999, true), (5000, false)] {
        let service = service(HS256);
        let now = clock::wall();
        let (_, first) = login(&service, now).await;
        let second = service.refresh(&first, now).await.unwrap().refresh.unwrap();
        let later = now + Duration::from_millis(after);
        service.refresh(&first, later).await.unwrap_err();
        assert_eq!(service.refresh(&second, later).await.is_ok(), goes_on, "{after}");
    }
    let strict = service(&format!("{HS256}, reuse_grace: 0s"));
    let now = clock::wall();
    let (_, first) = login(&strict, now).await;
    let second = strict.refresh(&first, now).await.unwrap().refresh.unwrap();
    strict.refresh(&first, now).await.unwrap_err();
    strict.refresh(&second, now).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_exchanges_one_wins_and_the_session_goes_on() {
    let service = Arc::new(service(HS256));
    let now = clock::wall();
    let (_, first) = login(&service, now).await;
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (service, first) = (Arc::clone(&service), first.clone());
            tokio::spawn(async move { service.refresh(&first, now).await })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(issued) => won.push(issued.refresh.unwrap()),
            Err(refused) => assert_eq!(refused, Refused::Token),
        }
    }
    assert_eq!(won.len(), 1);
    service.refresh(&won[0], now).await.unwrap();
}

#[tokio::test]
async fn a_session_ends_when_it_was_said_to_however_often_it_is_refreshed() {
    let service = service(&format!("{HS256}, refresh: 10s"));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let (_, mut refresh) = login(&service, now).await;
    for second in 1..10 {
        refresh = service.refresh(&refresh, now + Duration::from_secs(second)).await.unwrap().refresh.unwrap();
    }
    let almost = now + Duration::from_millis(9_999);
    refresh = service.refresh(&refresh, almost).await.unwrap().refresh.unwrap();
    let end = now + Duration::from_secs(10);
    assert_eq!(service.refresh(&refresh, end).await.unwrap_err(), Refused::Expired);
}

#[tokio::test]
async fn roles_are_looked_up_again_and_who_is_gone_gets_nothing() {
    let shared = shared();
    let with = |people: &[(&str, &str, bool)]| compile_service(HS256, &users(people), &shared).unwrap();
    let now = clock::wall();
    let (_, refresh) = login(&with(&[("ann", "admin", false)]), now).await;
    let after = with(&[("ann", "viewer", false)]);
    let issued = after.refresh(&refresh, now).await.unwrap();
    assert_eq!(claims(&after, &issued.access)["role"], "viewer");
    for people in [&[("ann", "viewer", true)][..], &[("ben", "viewer", false)]] {
        let (_, refresh) = login(&with(&[("ann", "admin", false)]), now).await;
        let (service, before) = (with(people), with(&[("ann", "admin", false)]));
        assert_eq!(service.refresh(&refresh, now).await.unwrap_err(), Refused::Token);
        assert_eq!(before.refresh(&refresh, now).await.unwrap_err(), Refused::Token, "the session has ended");
    }
}

#[tokio::test]
async fn only_refresh_tokens_of_this_service_are_exchanged() {
    let service = service(HS256);
    let now = clock::wall();
    let (access, refresh) = login(&service, now).await;
    let other_key = self::service(&HS256.replace("0123", "3210"));
    let other_issuer = self::service(&HS256.replace("gateway.example", "other.example"));
    let minted = service.mint(&Person { name: "ann".to_owned(), ..Person::default() }, SECOND, now).unwrap();
    let mut forged = refresh.clone();
    let changed = if forged.pop() == Some('A') { 'Q' } else { 'A' };
    forged.push(changed);
    let long = format!("{refresh}{}", "A".repeat(9000));
    for bad in [
        &*access,
        &minted,
        &login(&other_key, now).await.1,
        &login(&other_issuer, now).await.1,
        &forged,
        &long,
        "",
        "a.b.c",
    ] {
        assert_eq!(service.refresh(bad, now).await.unwrap_err(), Refused::Token, "{bad}");
    }
    service.refresh(&refresh, now).await.expect("and none of this has ended the session");
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn logging_out_ends_the_session_by_either_token() {
    let service = service(HS256);
    let now = clock::wall();
    for by_access in [true, false] {
        let (access, refresh) = login(&service, now).await;
        let token = if by_access { &access } else { &refresh };
        service.logout(token, now).await.unwrap();
        service.logout(token, now).await.expect("twice is no error");
        assert_eq!(service.refresh(&refresh, now).await.unwrap_err(), Refused::Token);
        let claims = claims(&service, &access);
        assert!(service.shared.revocations.contains(claims["jti"].as_str(), claims["sid"].as_str()));
    }
    let minted = service.mint(&Person { name: "ann".to_owned(), ..Person::default() }, SECOND, now).unwrap();
    service.logout(&minted, now).await.unwrap();
    assert!(service.shared.revocations.contains(claims(&service, &minted)["jti"].as_str(), None));
    assert_eq!(service.logout("a.b.c", now).await.unwrap_err(), Refused::Token);
}

#[tokio::test]
async fn wrong_logins_are_counted_and_limited() {
    let service = service(&format!("{HS256}, attempts: {{ failures: 3 }}"));
    let now = clock::wall();
    for (name, password) in [("ann", "x"), ("eve", "ann"), ("", "ann"), ("ann", ""), ("ann", &*"a".repeat(1025))] {
        let refused = service.login(name, password, CLIENT, now).await.unwrap_err();
        assert_eq!(refused, Refused::Credentials, "{name} {password}");
    }
    service.login("ann", "ann", CLIENT, now).await.unwrap();
    for _ in 0..3 {
        assert_eq!(service.login("ann", "x", CLIENT, now).await.unwrap_err(), Refused::Credentials);
    }
    let refused = service.login("ann", "ann", CLIENT, now).await.unwrap_err();
    assert!(matches!(refused, Refused::TooMany(wait) if wait <= Duration::from_secs(900)), "{refused:?}");
    let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    service.login("ann", "ann", elsewhere, now).await.expect("from another address");
}

#[tokio::test]
async fn without_a_store_there_are_no_sessions() {
    let service = compile_service(HS256, &users(&[("ann", "user", false)]), &Arc::default()).unwrap();
    let refused = service.login("ann", "ann", CLIENT, clock::wall()).await.unwrap_err();
    assert!(matches!(refused, Refused::Store(_)), "{refused:?}");
}

fn pem(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
    rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem().replace('\n', "\\n")
}

#[tokio::test]
async fn keys_of_every_kind_sign() {
    let now = clock::wall();
    for (algorithm, pem) in [("ES256", pem(&rcgen::PKCS_ECDSA_P256_SHA256)), ("EdDSA", pem(&rcgen::PKCS_ED25519))] {
        let service = service(&format!("issuer: i, algorithm: {algorithm}, key: \"{pem}\""));
        let (access, refresh) = login(&service, now).await;
        assert_eq!(claims(&service, &access)["sub"], "ann");
        service.refresh(&refresh, now).await.unwrap();
    }
}

#[test]
fn what_cannot_work_is_said() {
    let (p256, p384, ed) =
        (pem(&rcgen::PKCS_ECDSA_P256_SHA256), pem(&rcgen::PKCS_ECDSA_P384_SHA384), pem(&rcgen::PKCS_ED25519));
    let key = |algorithm: &str, pem: &str| format!("issuer: i, algorithm: {algorithm}, key: \"{pem}\"");
    let verify = |settings: &str| format!("{HS256}, verify: {{ {settings} }}");
    for (text, told) in [
        ("issuer: i, algorithm: HS256".to_owned(), "takes a `secret`"),
        (format!("issuer: i, algorithm: HS256, secret: {}", "s".repeat(31)), "31 bytes"),
        ("issuer: i, algorithm: HS384, secret: s".to_owned(), "unknown algorithm"),
        ("issuer: i, algorithm: none, secret: s".to_owned(), "unknown algorithm"),
        ("issuer: i, algorithm: ES256, secret: s".to_owned(), "takes a `key`"),
        (format!("{HS256}, key: \"{p256}\""), "takes a `secret`, and no `key`"),
        (key("ES256", &p384), "no private P-256 key"),
        (key("ES256", &ed), "no private P-256 key"),
        (key("EdDSA", &p256), "no private Ed25519 key"),
        (key("EdDSA", "hunter2"), "no private Ed25519 key"),
        (format!("{HS256}, access: 0s"), "`access` must be 1s to 1d"),
        (format!("{HS256}, access: 25h"), "`access` must be 1s to 1d"),
        (format!("{HS256}, refresh: 367d"), "`refresh` must be"),
        (format!("{HS256}, reuse_grace: 61s"), "`reuse_grace` must be"),
        (format!("{HS256}, attempts: {{ failures: 0 }}"), "at least 1"),
        (format!("{HS256}, attempts: {{ window: 2d }}"), "`window` must be"),
        (format!("{HS256}, kid: ''"), "1 to 256 bytes"),
        (verify("url: users.internal"), "no address"),
        (verify("url: ftp://users.internal/"), "no address"),
        (verify("url: 'http://users.internal/'"), "unencrypted"),
        (verify("url: 'https://u:hunter2@users.internal/'"), "no credentials"),
        (verify("url: 'https://users.internal/', timeout: 31s"), "at most 30s"),
        (verify("url: 'https://users.internal/', lookup: nowhere"), "no address"),
    ] {
        let problems = compile_service(&text, &Arc::default(), &Arc::default()).map(|_| ()).unwrap_err();
        assert!(problems.contains(told), "{text}: {problems}");
        assert!(!problems.contains("hunter2") && !problems.contains("0123456789abcdef"), "{problems}");
    }
    for good in [
        key("ES256", &p256),
        key("EdDSA", &ed),
        format!("issuer: i, algorithm: HS256, secret: {}", "s".repeat(32)),
        format!("{HS256}, access: 1d, refresh: 366d, reuse_grace: 1m, attempts: {{ failures: 1, window: 1d }}"),
        verify("url: 'http://127.0.0.1:1/', lookup: 'http://localhost:1/'"),
        verify("url: 'http://[::1]:1/', timeout: 30s"),
        verify("url: 'http://users.internal/', allow_http: true"),
    ] {
        compile_service(&good, &Arc::default(), &Arc::default()).map(|_| ()).unwrap();
    }
}
