use std::sync::Arc;

use super::*;
use crate::caller::{CallerFields, Level, Scopes};
use crate::clock;
use crate::context::RequestId;
use crate::head::{HeaderValue, Headers, Method, RequestBuf};
use crate::yaml::{Sources, parse};

fn compiled(text: &str) -> Result<Per, Vec<String>> {
    let mut sources = Sources::new();
    let file = sources.add("test.yaml", text);
    let node = parse(&sources, file).unwrap();
    let written = decode::<PerSettings>(&node).unwrap();
    Per::compile(&written).map_err(|found| {
        found.into_iter().map(|problem| format!("{}; {}", problem.message, problem.hint.unwrap_or_default())).collect()
    })
}

fn caller(name: &str, credential: Credential) -> Arc<Caller> {
    let serde_json::Value::Object(claims) = serde_json::json!({ "org": "acme", "n": 7, "empty": "" }) else { panic!() };
    let claims = if matches!(credential, Credential::Token { .. }) { claims } else { serde_json::Map::new() };
    Arc::new(Caller {
        name: name.into(),
        credential,
        level: Level::User,
        roles: Box::default(),
        scopes: Scopes::default(),
        claims,
        expires: None,
        fields: CallerFields::new("x", &[], &Scopes::default()).unwrap(),
        rates: None,
    })
}

fn key(name: &str, id: &str) -> Arc<Caller> {
    caller(name, Credential::Key { id: id.into(), managed: false, version: 1 })
}

fn token(name: &str) -> Arc<Caller> {
    caller(name, Credential::Token { issuer: "main".into(), id: None, key: 1 })
}

fn who_from(per: &str, client: &str, caller: Option<Arc<Caller>>, tenant: Option<&[u8]>) -> String {
    let mut request = RequestBuf::new(Method::GET, "/");
    if let Some(tenant) = tenant {
        request.append(&HeaderName::from_static("x-tenant"), HeaderValue::from_bytes(tenant).unwrap());
    }
    let mut context = Context::detached(client.parse().unwrap(), RequestId::from_bits(1), clock::now());
    context.caller = caller;
    context.route = Arc::from("tasks.read");
    compiled(per).unwrap().who(&request, &context).as_str().to_owned()
}

fn who(per: &str, caller: Option<Arc<Caller>>) -> String {
    who_from(per, "203.0.113.9", caller, None)
}

#[test]
fn a_key_with_rates_of_its_own_counts_by_its_id() {
    let by_key = |per: &str, caller: Arc<Caller>| {
        let mut context = Context::detached("203.0.113.9".parse().unwrap(), RequestId::from_bits(1), clock::now());
        context.caller = Some(caller);
        compiled(per).unwrap().who_by_key(&RequestBuf::new(Method::GET, "/"), &context).as_str().to_owned()
    };
    assert_eq!(by_key("consumer", key("a", "a-1")), "key=a-1");
    assert_eq!(by_key("[ip, consumer]", key("a", "a-1")), "ip=203.0.113.9,key=a-1");
    assert_eq!(by_key("key", key("a", "a-1")), "key=a-1");
    assert_eq!(who("consumer", Some(key("a", "a-1"))), "consumer=a");
}

#[test]
fn each_part_has_its_text() {
    let dashboard = || Some(key("dashboard", "dashboard-2026"));
    assert_eq!(who("consumer", dashboard()), "consumer=dashboard");
    assert_eq!(who("key", dashboard()), "key=dashboard-2026");
    assert_eq!(who("ip", dashboard()), "ip=203.0.113.9");
    assert_eq!(who("route", dashboard()), "route=tasks.read");
    assert_eq!(who("[consumer, route]", dashboard()), "consumer=dashboard,route=tasks.read");
    assert_eq!(who("{ claim: org }", Some(token("alice"))), "claim.org=main/acme");
    assert_eq!(who("[{ claim: n }]", Some(token("alice"))), "claim.n=main/7");
    assert_eq!(who_from("{ header: X-Tenant }", "::1", None, Some(b"acme")), "header.x-tenant=acme");
}

#[test]
fn addresses_count_as_networks() {
    let ip = |per: &str, client: &str| who_from(per, client, None, None);
    assert_eq!(ip("{ ip: { v4: /24, v6: /56 } }", "203.0.113.9"), "ip=203.0.113.0/24");
    assert_eq!(ip("{ ip: { v4: /24, v6: /56 } }", "2001:db8:0:1ff::9"), "ip=2001:db8:0:100::/56");
    assert_eq!(ip("{ ip: {} }", "2001:db8:1:2:3:4:5:6"), "ip=2001:db8:1:2::/64");
    assert_eq!(ip("{ ip: { v6: /128 } }", "2001:db8::1"), "ip=2001:db8::1");
    assert_eq!(ip("{ ip: { v4: /1, v6: /1 } }", "203.0.113.9"), "ip=128.0.0.0/1");
    assert_eq!(ip("ip", "::ffff:203.0.113.9"), "ip=203.0.113.9", "the same client over another kind of socket");
}

#[test]
fn who_chooses_a_name_shares_no_bucket_with_a_consumer() {
    assert_eq!(who("consumer", Some(token("dashboard"))), "consumer=main/dashboard");
    assert_eq!(who("key", Some(token("alice"))), "consumer=main/alice", "it has no key");
    let other = caller("dashboard", Credential::Token { issuer: "corp".into(), id: None, key: 1 });
    assert_eq!(who("consumer", Some(other)), "consumer=corp/dashboard");
}

#[test]
fn what_is_missing_is_replaced_by_the_address() {
    for per in ["consumer", "key", "{ claim: org }", "{ header: X-Tenant }"] {
        assert_eq!(who(per, None), "ip=203.0.113.9", "{per}");
    }
    for per in ["{ claim: nothing }", "{ claim: empty }"] {
        assert_eq!(who(per, Some(token("alice"))), "ip=203.0.113.9", "{per}");
    }
    assert_eq!(who("{ claim: org }", Some(key("dashboard", "k"))), "ip=203.0.113.9");
    assert_eq!(who_from("{ header: X-Tenant }", "::1", None, Some(b"")), "ip=::/64");
    assert_eq!(who("[route, consumer]", None), "route=tasks.read,ip=203.0.113.9");
}

#[test]
fn odd_values_cannot_pose_as_others() {
    let tenant = |value: &[u8]| who_from("[{ header: X-Tenant }, route]", "::1", None, Some(value));
    assert_eq!(tenant(b"a,route=b%\xe4 "), "header.x-tenant=a%2Croute%3Db%25%E4%20,route=tasks.read");
    let (longest, longer) = (tenant(&[b'x'; 64]), tenant(&[b'x'; 65]));
    assert_eq!(longest, format!("header.x-tenant={},route=tasks.read", "x".repeat(64)));
    let digest = "9537c5fdf120482f7d58d25e9ed583f52c02b4e304ea814db1633ad565aed7e9";
    assert_eq!(longer, format!("header.x-tenant=sha256:{digest},route=tasks.read"));
    assert_ne!(longer, tenant(&[b'x'; 66]));
    assert_ne!(tenant(format!("sha256:{digest}").as_bytes()), longer, "it is itself too long to be written");
    assert!(tenant(&[0xff; 30]).contains("=sha256:"), "encoded it is too long");
}

#[test]
fn the_whole_text_is_bounded() {
    let per = format!("[{{ claim: {} }}, {{ claim: {} }}, consumer]", "a".repeat(90), "b".repeat(90));
    let long = who(&per, Some(token(&"x".repeat(500))));
    assert!(long.len() <= WHO_BYTES_MAX, "{long}");
    let tenant = |value: &str| {
        let per = format!("[{{ header: X-Tenant }}, {{ header: {} }}, {{ claim: org }}, consumer]", "h".repeat(300));
        who_from(&per, "2001:db8:1111:2222::1", Some(token(&"x".repeat(500))), Some(value.as_bytes()))
    };
    let (one, other) = (tenant(&"1".repeat(70)), tenant(&"2".repeat(70)));
    assert!(one.len() <= WHO_BYTES_MAX && other.len() <= WHO_BYTES_MAX && one != other, "{one} {other}");
}

#[test]
fn mistakes_are_told_apart() {
    let refused = |text: &str| compiled(text).unwrap_err().join("\n");
    assert!(refused("consumr").contains("did you mean `consumer`?"));
    assert!(refused("header").contains("write `{ header: NAME }`"));
    assert!(refused("{ heder: X }").contains("did you mean `header`?"));
    assert!(refused("{ header: \"a b\" }").contains("no field name"));
    assert!(refused("{ claim: \"\" }").contains("has a name"));
    assert!(refused("[]").contains("1 to 4 parts, not 0"));
    assert!(refused("[ip, ip]").contains("twice"));
    assert!(refused("[ip, key, route, consumer, { header: a }]").contains("not 5"));
    assert!(refused("{ ip: { v4: /33 } }").contains("from /1 to /32"));
    assert!(refused("{ ip: { v4: 24 } }").contains("write /24"));
    assert!(refused("{ ip: { v4: /0, v6: /129 } }").lines().count() == 2);
    assert!(refused("{ ip: { v5: /8 } }").contains("v5"));
    assert!(refused("7").contains("no part of `per`"));
}

#[test]
fn what_it_has_to_know_is_told() {
    assert!(compiled("[route, key]").unwrap().needs_caller() && compiled("key").unwrap().knows_caller());
    assert!(compiled("{ claim: org }").unwrap().needs_caller() && !compiled("{ claim: org }").unwrap().knows_caller());
    assert!(!compiled("[ip, route, { header: a }]").unwrap().needs_caller());
    assert_eq!(compiled("[ip, { header: X-A }, { ip: { v4: /8 } }]").unwrap().to_string(), "ip+header x-a+ip/8/64");
    assert_eq!(compiled("[consumer, { header: X-A }]").unwrap().word(), "consumer-header");
}

#[test]
fn a_credential_stands_nowhere_as_it_is() {
    for name in ["authorization", "proxy-authorization", "cookie", "x-api-key", "x-auth-token", "x-session-id"] {
        let mut request = RequestBuf::new(Method::GET, "/");
        let field = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.append(&field, HeaderValue::from_static("hunter2"));
        let context = Context::detached("::1".parse().unwrap(), RequestId::from_bits(1), clock::now());
        let who = compiled(&format!("{{ header: {name} }}")).unwrap().who(&request, &context);
        let digest = "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7";
        assert_eq!(who.as_str(), format!("header.{name}=sha256:{digest}"));
    }
}
