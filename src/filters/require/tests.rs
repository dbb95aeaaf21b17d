use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::caller::{CallerFields, Credential, Scopes};
use crate::contract::testing::{context, filter_knowing, get, step_knowing};
use crate::identity::fixture::identity;

const KNOWN: &str = "roles: { viewer: {}, editor: {} }";

fn caller() -> Caller {
    let (roles, scopes) = (["viewer".into()], Scopes::new(["read:*", "write:tasks"]));
    let Value::Object(claims) = json!({"tenant": "acme", "plan": 3, "verified": true, "groups": ["a", "b"], "realm": {"site": "x"}, "none": null})
    else {
        panic!("it is an object")
    };
    Caller {
        name: "dashboard".into(),
        credential: Credential::Token { issuer: "main".into(), id: None, key: 0 },
        level: Level::Service,
        fields: CallerFields::new("dashboard", &roles, &scopes).unwrap(),
        rates: None,
        roles: roles.into(),
        scopes,
        claims,
        expires: None,
    }
}

fn run_as(caller: Option<Caller>, settings: &str) -> (Option<Rejection>, Context) {
    let filter = filter_knowing::<RequireSettings>(settings, &identity(KNOWN));
    let mut context = Context { caller: caller.map(Arc::new), ..context() };
    match filter.on_request(&mut get("/"), &mut context) {
        Verdict::Continue => (None, context),
        Verdict::Reject(rejection) => (Some(*rejection), context),
        Verdict::Reply(reply) => panic!("{reply:?}"),
    }
}

/// The reason of the decision.
fn reason(settings: &str) -> &'static str {
    let (rejection, context) = run_as(Some(caller()), settings);
    let [decision] = context.decisions[..] else { panic!("one decision") };
    assert_eq!((decision.by, decision.kind, decision.allowed), ("require", "jwt", rejection.is_none()));
    assert!(rejection.is_none_or(|rejection| rejection.code == Code::FORBIDDEN));
    decision.reason
}

#[test]
fn everything_that_is_given_must_hold() {
    for (settings, expected) in [
        ("{}", "ok"),
        ("{ scopes: [read:tasks, write:tasks] }", "ok"),
        ("{ scopes: [read:tasks, write:users] }", "scope"),
        ("{ scopes: [read] }", "scope"),
        ("{ any_scope: [write:users, write:tasks] }", "ok"),
        ("{ any_scope: [write:users, delete:tasks] }", "scope"),
        ("{ roles: [editor, viewer] }", "ok"),
        ("{ roles: [editor] }", "role"),
        ("{ level: user }", "ok"),
        ("{ level: service }", "ok"),
        ("{ level: admin }", "level"),
        ("{ consumers: [other, dashboard] }", "ok"),
        ("{ consumers: [dashboards] }", "consumer"),
        (
            "{ scopes: [read:tasks], roles: [viewer], level: service, consumers: [dashboard], claims: { tenant: acme } }",
            "ok",
        ),
        ("{ scopes: [read:tasks], roles: [viewer], level: admin }", "level"),
    ] {
        assert_eq!(reason(settings), expected, "{settings}");
    }
}

/// Issuers may let their users choose a name.
#[test]
fn a_token_that_says_the_name_of_a_consumer_is_not_that_consumer() {
    let known = identity("consumers: [{ name: dashboard }]");
    let filter = filter_knowing::<RequireSettings>("{ consumers: [dashboard, ann] }", &known);
    let lets = |name: &str, credential: Credential| {
        let caller = Caller { name: name.into(), credential, ..caller() };
        let mut context = Context { caller: Some(Arc::new(caller)), ..context() };
        matches!(filter.on_request(&mut get("/"), &mut context), Verdict::Continue)
    };
    let token = || Credential::Token { issuer: "main".into(), id: None, key: 0 };
    let key = || Credential::Key { id: "k-1".into(), managed: false, version: 0 };
    assert!(lets("dashboard", key()) && !lets("dashboard", token()));
    assert!(lets("ann", token()), "no consumer has this name");
}

#[test]
fn claims_are_compared_with_their_type() {
    for (claims, expected) in [
        ("tenant: acme", "ok"),
        ("tenant: [other, acme]", "ok"),
        ("tenant: Acme", "claim"),
        ("plan: 3", "ok"),
        ("plan: '3'", "claim"),
        ("plan: [2, 3]", "ok"),
        ("verified: true", "ok"),
        ("verified: 'true'", "claim"),
        ("verified: false", "claim"),
        ("groups: b", "ok"),
        ("groups: c", "claim"),
        ("groups: 'a,b'", "claim"),
        ("realm.site: x", "ok"),
        ("realm.none: x", "claim"),
        ("none: 'null'", "claim"),
        ("tenant: acme, plan: 4", "claim"),
    ] {
        assert_eq!(reason(&format!("{{ claims: {{ {claims} }} }}")), expected, "{claims}");
    }
}

#[test]
fn a_missing_scope_is_named_and_nothing_else_is() {
    let (rejection, _) = run_as(Some(caller()), "{ scopes: [read:tasks, write:users] }");
    let rejection = rejection.unwrap();
    assert_eq!(rejection.details["scopes"], json!(["read:tasks", "write:users"]));
    assert_eq!(rejection.fields[0].1, "Bearer error=\"insufficient_scope\", scope=\"read:tasks write:users\"");
    let (rejection, _) = run_as(Some(caller()), "{ any_scope: [write:users] }");
    assert_eq!(rejection.unwrap().fields[0].1, "Bearer error=\"insufficient_scope\", scope=\"write:users\"");
    let (rejection, _) = run_as(Some(caller()), "{ roles: [editor], claims: { tenant: secret-corp } }");
    let rejection = rejection.unwrap();
    assert!(rejection.fields.is_empty() && rejection.details.is_empty());
    assert_eq!(rejection.message, "this caller may not use this route");
}

#[test]
fn nobody_is_asked_to_say_who_they_are() {
    let filter = filter_knowing::<RequireSettings>("{}", &identity(KNOWN));
    let mut context =
        Context { challenges: Some(Arc::new([HeaderValue::from_static("Bearer realm=\"r\"")])), ..context() };
    let Verdict::Reject(rejection) = filter.on_request(&mut get("/"), &mut context) else { panic!("let through") };
    assert_eq!(
        (rejection.code, &*rejection.fields),
        (Code::UNAUTHORIZED, &[(http::header::WWW_AUTHENTICATE, "Bearer realm=\"r\"".parse().unwrap())][..])
    );
    assert_eq!(context.decisions[0].reason, "missing");
    let mut preflight = Context { preflight: true, ..context };
    assert!(matches!(filter.on_request(&mut get("/"), &mut preflight), Verdict::Continue));
}

#[test]
fn mistakes_are_told() {
    let known = identity(KNOWN);
    for (settings, message) in [
        ("{ scopes: [] }", "`scopes` is an empty list"),
        ("{ any_scope: [] }", "`any_scope` is an empty list"),
        ("{ roles: [] }", "`roles` is an empty list"),
        ("{ consumers: [] }", "`consumers` is an empty list"),
        ("{ claims: { a: [] } }", "no value of `a` would do"),
        ("{ scopes: ['read:*'] }", "`read:*` is a wildcard"),
        ("{ scopes: ['a b'] }", "a scope is one word"),
        ("{ roles: [veiwer] }", "unknown role `veiwer`; did you mean `viewer`?"),
        ("{ level: public }", "requires nothing"),
        ("{ level: root }", "root"),
        ("{ scope: [a] }", "scope"),
    ] {
        let told =
            step_knowing::<RequireSettings>(settings, &known).err().unwrap_or_else(|| panic!("{settings} is taken"));
        assert!(told.join("\n").contains(message), "{settings}: {told:?}");
    }
    let told = step_knowing::<RequireSettings>("{ roles: [viewer] }", &identity("{}")).err().unwrap();
    assert!(told[0].contains("roles: { viewer: {} }"), "{told:?}");
}
