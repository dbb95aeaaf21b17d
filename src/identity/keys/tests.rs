use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::caller::Level;
use crate::contract::testing::node;
use crate::identity::{Identity, Written};
use crate::yaml::{Named, decode};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    roles: Named<crate::identity::RoleSettings>,
    consumers: Vec<ConsumerSettings>,
}

fn compile(text: &str) -> Result<Arc<Identity>, String> {
    let file: File = decode(&node(text)).unwrap();
    let written = Written {
        roles: file.roles.iter().map(|(name, role)| (name, role)).collect(),
        issuers: Vec::new(),
        consumers: file.consumers.iter().collect(),
        ..Written::default()
    };
    let mut problems = Vec::new();
    let identity = Identity::compile(&written, &Arc::default(), &mut problems);
    if problems.is_empty() {
        return Ok(identity);
    }
    let line = |problem: &Problem| {
        let related = problem.related.as_ref().map(|related| format!(" ({} {})", related.label, related.place.line));
        let hint = problem.hint.as_deref().unwrap_or_default();
        format!("{}: {}; {hint}{}", problem.place.line, problem.message, related.unwrap_or_default())
    };
    Err(problems.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn identity(text: &str) -> Arc<Identity> {
    compile(text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn refused(text: &str) -> String {
    match compile(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(problems) => problems,
    }
}

fn hash(key: &str) -> String {
    Digest::of(key.as_bytes()).unwrap().to_string()
}

fn one(key: &str, more: &str) -> String {
    format!("consumers: [{{ name: a, scopes: [read:x], keys: [{{ id: k, sha256: {}{more} }}] }}]", hash(key))
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn a_key_is_its_consumer() {
    let text = format!(
        "roles:\n  viewer: {{ scopes: ['read:*'] }}\n  boss: {{ level: admin }}\nconsumers:\n  - name: dashboard\n    \
         roles: [viewer, boss]\n    scopes: [write:x]\n    keys:\n      - {{ id: k1, sha256: {} }}\n      \
         - {{ id: k2, sha256: {}, scopes: [read:a, write:x] }}\n",
        hash("first"),
        hash("second").to_uppercase()
    );
    let identity = identity(&text);
    let caller = identity.api_key(b"first", at(0)).unwrap();
    assert_eq!((&*caller.name, caller.level, caller.roles.len()), ("dashboard", Level::Admin, 2));
    assert!(caller.scopes.allow("read:anything") && caller.scopes.allow("write:x"));
    assert_eq!(caller.fields.scopes, "read:* write:x");
    assert!(matches!(&caller.credential, Credential::Key { id, managed: false, .. } if &**id == "k1"));
    let restricted = identity.api_key(b"second", at(0)).unwrap();
    assert!(restricted.scopes.allow("read:a") && restricted.scopes.allow("write:x"));
    assert!(!restricted.scopes.allow("read:b"), "a key with scopes has these and no others");
    assert_eq!(restricted.fields.scopes, "read:a write:x");
    assert_eq!(identity.keys_count(), 2);
}

#[test]
fn any_text_up_to_a_kibibyte_may_be_a_key() {
    let long = "x".repeat(1024);
    for key in ["a", "with space, comma; and = \"quotes\"", "schlüssel", &long] {
        let identity = identity(&one(key, ""));
        assert!(identity.api_key(key.as_bytes(), at(0)).is_ok(), "{key}");
        assert_eq!(identity.api_key(b"another", at(0)).unwrap_err(), Reason::Unknown);
    }
    let identity = identity(&one("a", ""));
    assert_eq!(identity.api_key(b"", at(0)).unwrap_err(), Reason::Malformed);
    assert_eq!(identity.api_key(&[b'a'; 1025], at(0)).unwrap_err(), Reason::Malformed);
    assert_eq!(identity.api_key(hash("a").as_bytes(), at(0)).unwrap_err(), Reason::Unknown, "the hash is no key");
}

#[test]
fn a_key_ends_with_its_second() {
    let identity = identity(&one("a", ", expires: 1970-01-01T00:01:40Z"));
    let caller = identity.api_key(b"a", at(100) - Duration::from_nanos(1)).unwrap();
    assert_eq!(caller.expires, Some(at(100)));
    assert_eq!(identity.api_key(b"a", at(100)).unwrap_err(), Reason::Expired);
    assert_eq!(identity.api_key(b"a", at(101)).unwrap_err(), Reason::Expired);
    assert_eq!(identity.still_holds(&caller, at(99)), Ok(()));
    assert_eq!(identity.still_holds(&caller, at(100)), Err(Reason::Expired));
    let zoned = self::identity(&one("a", ", expires: '1970-01-01T01:01:40+01:00'"));
    assert_eq!(zoned.api_key(b"a", at(99)).unwrap().expires, Some(at(100)));
}

#[test]
fn what_is_disabled_lets_nobody_in() {
    let key = identity(&one("a", ", disabled: true"));
    assert_eq!(key.api_key(b"a", at(0)).unwrap_err(), Reason::Disabled);
    let consumer = identity(&one("a", "").replace("name: a,", "name: a, disabled: true,"));
    assert_eq!(consumer.api_key(b"a", at(0)).unwrap_err(), Reason::Disabled);
}

#[test]
fn a_caller_holds_while_its_key_does() {
    let caller = identity(&one("a", "")).api_key(b"a", at(0)).unwrap();
    let under = |text: &str| identity(text).still_holds(&caller, at(1_000));
    assert_eq!(under(&one("a", "")), Ok(()));
    assert_eq!(under(&one("a", ", disabled: true")), Err(Reason::Disabled));
    assert_eq!(
        under(&one("a", ", expires: 1970-01-01T00:16:40Z")),
        Err(Reason::Expired),
        "the end was brought forward"
    );
    assert_eq!(under(&one("a", ", expires: 1970-01-01T00:16:41Z")), Ok(()));
    assert_eq!(under("consumers: []"), Err(Reason::Unknown));
    assert_eq!(under(&one("b", "")), Err(Reason::Unknown), "another key took its place under the same id");
}

#[test]
fn two_keys_are_two() {
    let same = format!(
        "consumers:\n  - name: a\n    keys: [{{ id: k1, sha256: {0} }}]\n  - name: b\n    keys: [{{ id: k2, sha256: {0} }}]\n",
        hash("a")
    );
    let problem = refused(&same);
    assert!(problem.starts_with("5: key `k2` is the same key as another"), "{problem}");
    assert!(problem.ends_with("(the other one 3)") && !problem.contains(&hash("a")), "{problem}");
    let twice = same.replace("k2", "k1").replacen(&hash("a"), &hash("b"), 1);
    let problem = refused(&twice);
    assert!(problem.starts_with("5: key `k1` is defined twice") && problem.ends_with("(first defined 3)"), "{problem}");
}

#[test]
fn a_key_in_place_of_its_hash_is_told_and_not_shown() {
    let pasted = "tg_Zp4kQ0rT7sW1uX5yB9cE3gH6jK8mN2oP4qR7tV0wX1z";
    let problem = refused(&format!("consumers: [{{ name: a, keys: [{{ id: k, sha256: {pasted} }}] }}]"));
    assert!(problem.contains("this may be the key itself") && !problem.contains("Zp4k"), "{problem}");
    let short = refused("consumers: [{ name: a, keys: [{ id: k, sha256: abc123 }] }]");
    assert!(short.contains("tollgate key hash") && !short.contains("abc123"), "{short}");
}

#[test]
fn odd_fields_are_refused() {
    for (more, what) in [
        (", expires: 2027-01-01", "no point in time"),
        (", expires: '2027-01-01T00:00:00'", "no point in time"),
        (", expires: '2027-01-01 00:00:00Z'", "no point in time"),
        (", expires: '2027-01-01T00:00:00Z[UTC]'", "no point in time"),
        (", expires: never", "no point in time"),
        (", prefix: ''", "`prefix` is the first"),
        (", prefix: aaaaaaaaaabbbbbbbbbbccccccccccddd", "`prefix` is the first"),
        (", scopes: [read:y]", "does not have the scope `read:y`"),
        (", scopes: ['read:*']", "does not have the scope `read:*`"),
        (", scopes: ['a b']", "a scope is one word"),
    ] {
        let problem = refused(&one("a", more));
        assert!(problem.contains(what), "{more}: {problem}");
    }
    let long = |length: usize| one("a", "").replace("id: k", &format!("id: {}", "k".repeat(length)));
    assert!(compile(&long(128)).is_ok());
    for id in [&long(129), &one("a", "").replace("id: k", "id: 'k k'"), &one("a", "").replace("id: k", "id: ''")] {
        assert!(refused(id).contains("the id of a key has 1 to 128"), "{id}");
    }
    let scope = |length: usize| one("a", "").replace("read:x", &"x".repeat(length));
    assert!(compile(&scope(128)).is_ok());
    assert!(refused(&scope(129)).contains("a scope has at most 128"));
    let scopes = |count: usize| {
        let list: Vec<String> = (0..count).map(|number| format!("s{number}")).collect();
        one("a", "").replace("read:x", &list.join(","))
    };
    assert!(compile(&scopes(256)).is_ok());
    assert!(refused(&scopes(257)).contains("257 scopes; at most 256"));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "consumers:\n  - name: a\n    scopes: ['*x']\n    keys:\n      - { id: '', sha256: x, expires: y }\n";
    let problems = refused(text);
    assert_eq!(problems.lines().count(), 4, "{problems}");
}
