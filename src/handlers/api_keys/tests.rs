use super::*;
use crate::caller::{CallerFields, Credential, Level};
use crate::context::Captures;
use crate::contract::Known;
use crate::contract::testing::{context, node, outcome, request};
use crate::identity::{ConsumerSettings, RoleSettings, Shared, Written};
use crate::state::{Limits, Memory};
use crate::yaml::{Named, decode};

struct Api {
    handler: Arc<dyn AsyncHandler>,
    identity: Arc<Identity>,
}

const ROLES: &str =
    "{ viewer: { scopes: ['read:*'] }, boss: { scopes: ['*'], level: admin }, chief: { level: admin } }";

fn identity() -> Arc<Identity> {
    let shared = Arc::new(Shared::default());
    shared.attach(Arc::new(Memory::new(Limits::default())));
    let roles: Named<RoleSettings> = decode(&node(ROLES)).unwrap();
    let consumer: ConsumerSettings = decode(&node("{ name: dashboard }")).unwrap();
    let written = Written {
        roles: roles.iter().map(|(name, role)| (name, role)).collect(),
        consumers: vec![&consumer],
        ..Written::default()
    };
    let mut problems = Vec::new();
    let identity = Identity::compile(&written, &shared, &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    identity
}

fn build(settings: &str, identity: &Arc<Identity>) -> Result<AnyHandler, Vec<String>> {
    let mut compiler =
        Compiler::at(Place::UNKNOWN, String::new(), &Known { identity: Arc::clone(identity), ..Known::default() });
    let built = super::super::build::<ApiKeysSettings>(&node(settings), &mut compiler);
    outcome(built, compiler)
}

fn caller(roles: &[&str], scopes: &[&str], level: Level) -> Arc<Caller> {
    let roles: Box<[Box<str>]> = roles.iter().map(|role| (*role).into()).collect();
    let scopes = Scopes::new(scopes.iter().copied());
    let fields = CallerFields::new("console", &roles, &scopes).unwrap();
    Arc::new(Caller {
        name: "console".into(),
        credential: Credential::Key { id: "console-1".into(), managed: false, version: 0 },
        level,
        roles,
        scopes,
        claims: serde_json::Map::new(),
        expires: None,
        fields,
        rates: None,
    })
}

fn admin() -> Arc<Caller> {
    caller(&[], &["*"], Level::User)
}

/// An answer: its status, its code when it is a refusal, its body or the details.
#[derive(Debug)]
struct Answer {
    status: u16,
    code: &'static str,
    json: Value,
    message: String,
}

impl Api {
    fn with(settings: &str) -> Self {
        let identity = identity();
        let AnyHandler::Async(handler) = build(settings, &identity).unwrap() else { panic!("it waits") };
        Self { handler, identity }
    }

    async fn send(&self, caller: Option<&Arc<Caller>>, line: &str, body: Value) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.send_as(caller, line, "application/json; charset=utf-8", &text).await
    }

    async fn send_as(&self, caller: Option<&Arc<Caller>>, line: &str, media_type: &str, body: &str) -> Answer {
        let (method, target) = line.split_once(' ').unwrap();
        let target = format!("/keys{target}");
        let request = request(method.parse().unwrap(), &target, &[("content-type", media_type)]);
        let mut context = context();
        context.caller = caller.cloned();
        let path = target.split('?').next().unwrap();
        let id = path.split('/').nth(2).filter(|id| !id.is_empty()).map(Box::from);
        context.captures = Captures::new(Arc::from(["id".into()]), vec![id]);
        match self.handler.answer(&request, Bytes::from(body.to_owned()), &context).await {
            Ok(reply) => {
                let no_store = reply.fields.iter().any(|(name, value)| name == "cache-control" && value == "no-store");
                assert!(no_store, "{line}");
                let json = serde_json::from_slice(&reply.body).unwrap_or_default();
                Answer { status: reply.status.as_u16(), code: "", json, message: String::new() }
            }
            Err(refused) => Answer {
                status: refused.status.as_u16(),
                code: refused.code.name,
                json: Value::Object(refused.details.clone()),
                message: refused.message.to_string(),
            },
        }
    }

    /// Makes a key; its id and the key itself.
    async fn made(&self, body: Value) -> (String, String) {
        let answer = self.send(Some(&admin()), "POST ", body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let text = |name: &str| answer.json[name].as_str().unwrap().to_owned();
        (text("id"), text("key"))
    }

    fn lets_in(&self, key: &str) -> Result<Arc<Caller>, crate::identity::Reason> {
        self.identity.api_key(key.as_bytes(), clock::wall())
    }
}

#[tokio::test]
async fn a_key_lives_from_its_making_to_its_revocation() {
    let api = Api::with("{ prefix: gsp }");
    let body = json!({ "name": "shop", "scopes": ["read:inventory"], "description": "The shop", "expires_in": "90d" });
    let made = api.send(Some(&admin()), "POST ", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let (id, key) = (made.json["id"].as_str().unwrap(), made.json["key"].as_str().unwrap());
    assert!(key.starts_with("gsp_") && key.len() == 47 && key.starts_with(made.json["prefix"].as_str().unwrap()));
    let caller = api.lets_in(key).unwrap();
    assert_eq!((&*caller.name, caller.scopes.allow("read:inventory")), ("shop", true));
    assert!(!caller.scopes.allow("write:inventory"));

    let shown = api.send(Some(&admin()), &format!("GET /{id}"), Value::Null).await;
    assert_eq!((shown.status, &shown.json["status"], &shown.json["name"]), (200, &json!("active"), &json!("shop")));
    assert_eq!(shown.json["created_by"], "console");
    let text = shown.json.to_string();
    assert!(shown.json.get("key").is_none() && !text.contains(key) && !text.contains("sha256"), "{text}");

    let revoked = api.send(Some(&admin()), &format!("DELETE /{id}"), Value::Null).await;
    assert_eq!(revoked.status, 204);
    assert!(api.lets_in(key).is_err());
    for line in [format!("GET /{id}"), format!("DELETE /{id}"), format!("GET /{id}/usage")] {
        assert_eq!(api.send(Some(&admin()), &line, Value::Null).await.code, "NOT_FOUND", "{line}");
    }
}

#[tokio::test]
async fn nobody_without_a_credential_gets_anything() {
    let api = Api::with("{}");
    let (id, _) = api.made(json!({ "name": "shop" })).await;
    let stranger = caller(&["user"], &["read:inventory"], Level::User);
    for line in ["POST ", "GET ", &format!("GET /{id}"), &format!("PUT /{id}"), &format!("DELETE /{id}")] {
        let body = json!({ "name": "mine" });
        assert_eq!(api.send(None, line, body.clone()).await.status, 401, "{line}");
        let refused = api.send(Some(&stranger), line, body).await;
        assert_eq!((refused.status, &refused.json["expected"]), (403, &json!("the scope admin:api_keys")), "{line}");
    }
    assert_eq!(api.identity.shared().managed().len(), 1);
}

#[tokio::test]
async fn nobody_makes_a_key_that_can_do_more_than_they_can() {
    let api = Api::with("{ roles_allowed: [viewer, boss, chief] }");
    let own = ["admin:api_keys", "read:*", "write:x"];
    let user = caller(&["viewer", "chief"], &own, Level::User);
    let make = async |body: Value| api.send(Some(&user), "POST ", body).await;
    for allowed in [
        json!({ "name": "a", "scopes": ["read:x", "read:*", "write:x", "admin:api_keys"] }),
        json!({ "name": "a", "roles": ["viewer"] }),
        json!({ "name": "a" }),
    ] {
        assert_eq!(make(allowed.clone()).await.status, 201, "{allowed}");
    }
    for (field, value, refused) in [
        ("scopes", "*", json!({ "name": "a", "scopes": ["read:x", "*"] })),
        ("scopes", "write:y", json!({ "name": "a", "scopes": ["write:y"] })),
        ("scopes", "write:*", json!({ "name": "a", "scopes": ["write:*"] })),
        ("scopes", "admin:*", json!({ "name": "a", "scopes": ["admin:*"] })),
        ("roles", "boss", json!({ "name": "a", "roles": ["boss"] })),
        // It has the role, but was let in below its level.
        ("roles", "chief", json!({ "name": "a", "roles": ["chief"] })),
    ] {
        let answer = make(refused.clone()).await;
        assert_eq!((answer.status, answer.code), (403, "FORBIDDEN"), "{refused}");
        assert_eq!((&answer.json["field"], &answer.json["value"]), (&json!(field), &json!(value)));
    }
    // A key of the role, restricted to a few scopes: the role would bring it `*` back.
    let restricted = caller(&["boss"], &["admin:api_keys"], Level::Admin);
    let answer = api.send(Some(&restricted), "POST ", json!({ "name": "b", "roles": ["boss"] })).await;
    assert_eq!(answer.status, 403);
    let answer = api.send(Some(&admin()), "POST ", json!({ "name": "a", "roles": ["boss"], "scopes": ["*"] })).await;
    assert_eq!(answer.status, 201, "`*` gives anything");
}

#[tokio::test]
async fn a_key_that_can_do_more_is_out_of_reach() {
    let api = Api::with("{}");
    let (id, key) = api.made(json!({ "name": "root", "scopes": ["*"] })).await;
    let user = caller(&[], &["admin:api_keys", "read:x"], Level::User);
    for (line, body) in [
        (format!("POST /{id}/rotate"), Value::Null),
        (format!("PUT /{id}"), json!({ "description": "mine" })),
        (format!("PUT /{id}"), json!({ "scopes": ["read:x"] })),
        (format!("DELETE /{id}"), Value::Null),
    ] {
        let answer = api.send(Some(&user), &line, body).await;
        assert_eq!((answer.status, answer.code), (403, "FORBIDDEN"), "{line}");
        assert!(answer.json.get("key").is_none());
    }
    assert!(api.lets_in(&key).is_ok());
    let answer = api.send(Some(&user), "POST ", json!({ "name": "root" })).await;
    assert_eq!((answer.code, &answer.json["field"]), ("VALIDATION_ERROR", &json!("name")), "nor is its name free");
    let (own, _) = api.made(json!({ "name": "small", "scopes": ["read:x"] })).await;
    let more = api.send(Some(&user), &format!("PUT /{own}"), json!({ "scopes": ["read:x", "read:y"] })).await;
    assert_eq!((more.status, &more.json["value"]), (403, &json!("read:y")), "nor can a change give more");
    assert_eq!(api.send(Some(&user), &format!("DELETE /{own}"), Value::Null).await.status, 204);
}

#[tokio::test]
async fn a_key_is_changed_in_what_is_said_and_nothing_else() {
    let api = Api::with("{ roles_allowed: [viewer] }");
    let (id, key) = api.made(json!({ "name": "shop", "scopes": ["a", "b"], "description": "d" })).await;
    let put = async |body: Value| {
        let answer = api.send(Some(&admin()), &format!("PUT /{id}"), body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json
    };
    let before = put(json!({})).await;
    let after = put(json!({ "scopes": ["a"], "roles": ["viewer"] })).await;
    assert_eq!((&after["scopes"], &after["description"]), (&json!(["a"]), &json!("d")));
    assert_eq!(after["expires_at"], before["expires_at"]);
    let caller = api.lets_in(&key).unwrap();
    assert!(caller.scopes.allow("a") && caller.scopes.allow("read:z") && !caller.scopes.allow("b"));
    let off = put(json!({ "disabled": true, "name": "till" })).await;
    assert_eq!((&off["status"], &off["name"]), (&json!("disabled"), &json!("till")));
    assert!(api.lets_in(&key).is_err());
    put(json!({ "disabled": false, "expires_in": "1h" })).await;
    assert_eq!(&*api.lets_in(&key).unwrap().name, "till");
}

#[tokio::test]
async fn a_rotated_key_overlaps_for_as_long_as_is_said() {
    let api = Api::with("{}");
    let (id, first) = api.made(json!({ "name": "shop" })).await;
    let rotate = async |body: Value| api.send(Some(&admin()), &format!("POST /{id}/rotate"), body).await;
    let answer = rotate(Value::Null).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let second = answer.json["key"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    assert!(api.lets_in(&first).is_ok() && api.lets_in(&second).is_ok());
    assert!(first.starts_with(answer.json["previous"]["prefix"].as_str().unwrap()));
    let third = rotate(json!({ "overlap": "0s" })).await;
    assert!(third.json["previous"].is_null());
    assert!(api.lets_in(&first).is_err() && api.lets_in(&second).is_err());
    assert!(api.lets_in(third.json["key"].as_str().unwrap()).is_ok());
    let long = rotate(json!({ "overlap": "31d" })).await;
    assert_eq!((long.code, &long.json["field"]), ("VALIDATION_ERROR", &json!("overlap")));
}

#[tokio::test]
async fn pages_follow_each_other() {
    let api = Api::with("{}");
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(api.made(json!({ "name": "shop" })).await.0);
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    for size in [2, 2, 1] {
        let page = api.send(Some(&admin()), &format!("GET ?limit=2{after}"), Value::Null).await.json;
        let keys = page["keys"].as_array().unwrap().clone();
        assert_eq!(keys.len(), size);
        seen.extend(keys.iter().map(|key| key["id"].as_str().unwrap().to_owned()));
        after = page["next"].as_str().map(|next| format!("&after={next}")).unwrap_or_default();
    }
    assert_eq!(after, "");
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids);
    for bad in ["limit=0", "limit=101", "limit=x", "after=%00", "after=dashboard"] {
        let answer = api.send(Some(&admin()), &format!("GET ?{bad}"), Value::Null).await;
        assert_eq!(answer.code, "VALIDATION_ERROR", "{bad}");
    }
}

#[tokio::test]
async fn use_is_shown_by_route_status_and_day() {
    let api = Api::with("{}");
    let (id, _) = api.made(json!({ "name": "shop" })).await;
    let unused = api.send(Some(&admin()), &format!("GET /{id}/usage"), Value::Null).await;
    assert_eq!((&unused.json["requests"], &unused.json["last_used"]), (&json!(0), &Value::Null));
    for (route, status) in [("tasks", 200), ("tasks", 403), ("hooks", 200)] {
        api.identity.shared().managed().count(&id, &Arc::from(route), status, clock::wall());
    }
    let usage = api.send(Some(&admin()), &format!("GET /{id}/usage"), Value::Null).await.json;
    assert_eq!((&usage["requests"], &usage["by_status"]["2xx"]), (&json!(3), &json!(2)));
    assert_eq!(
        usage["by_route"]["tasks"],
        json!({
            "requests": 2, "by_status": { "2xx": 1, "3xx": 0, "4xx": 1, "5xx": 0, "other": 0 }
        })
    );
    assert_eq!(usage["days"][0]["requests"], 3);
    assert!(usage["last_used"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let api = Api::with("{ scopes_allowed: ['read:*'], roles_allowed: [viewer], expires_max: 30d }");
    let long = "x".repeat(129);
    for (field, body) in [
        ("name", json!({})),
        ("name", json!({ "name": 7 })),
        ("name", json!({ "name": "" })),
        ("name", json!({ "name": "a b" })),
        ("name", json!({ "name": long })),
        ("name", json!({ "name": "dashboard" })),
        ("scope", json!({ "name": "a", "scope": "read:x" })),
        ("scopes", json!({ "name": "a", "scopes": "read:x" })),
        ("scopes", json!({ "name": "a", "scopes": ["read:x", 1] })),
        ("scopes", json!({ "name": "a", "scopes": ["read:x", "read:x"] })),
        ("scopes", json!({ "name": "a", "scopes": ["read x"] })),
        ("scopes", json!({ "name": "a", "scopes": ["write:x"] })),
        ("scopes", json!({ "name": "a", "scopes": ["*"] })),
        ("scopes", json!({ "name": "a", "scopes": (0..257).map(|n| format!("read:{n}")).collect::<Vec<_>>() })),
        ("roles", json!({ "name": "a", "roles": ["boss"] })),
        ("description", json!({ "name": "a", "description": "a\nb" })),
        ("description", json!({ "name": "a", "description": "x".repeat(1025) })),
        ("disabled", json!({ "name": "a", "disabled": true })),
        ("expires_in", json!({ "name": "a", "expires_in": 90 })),
        ("expires_in", json!({ "name": "a", "expires_in": "31d" })),
        ("expires_in", json!({ "name": "a", "expires_in": "0s" })),
        ("expires_at", json!({ "name": "a", "expires_at": "2020-01-01T00:00:00Z" })),
        ("expires_at", json!({ "name": "a", "expires_at": "2999-01-01T00:00:00Z" })),
        ("expires_at", json!({ "name": "a", "expires_at": null })),
        ("expires_at", json!({ "name": "a", "expires_in": "1d", "expires_at": clock::rfc3339(clock::wall() + DAY) })),
    ] {
        let answer = api.send(Some(&admin()), "POST ", body.clone()).await;
        assert_eq!((answer.code, &answer.json["field"]), ("VALIDATION_ERROR", &json!(field)), "{body}");
        assert!(answer.json.get("value").is_some() && answer.json["expected"].is_string(), "{answer:?}");
    }
    for (field, body) in
        [("body", ""), ("body", "[]"), ("body", "{"), ("body", "{} {}"), ("name", r#"{"name":"a","name":"b"}"#)]
    {
        let answer = api.send_as(Some(&admin()), "POST ", "application/json", body).await;
        assert_eq!((answer.code, &answer.json["field"]), ("VALIDATION_ERROR", &json!(field)), "{body}");
    }
    let form = api.send_as(Some(&admin()), "POST ", "text/plain", r#"{"name":"a"}"#).await;
    assert_eq!((form.code, &form.json["field"]), ("VALIDATION_ERROR", &json!("Content-Type")));
    assert!(api.identity.shared().managed().is_empty());
    let fine = json!({ "name": "a", "scopes": ["read:x"], "roles": ["viewer"], "expires_in": "30d" });
    assert_eq!(api.send(Some(&admin()), "POST ", fine).await.status, 201);
}

#[tokio::test]
async fn what_is_not_there_is_not_there() {
    let api = Api::with("{ max_keys: 1 }");
    let (id, _) = api.made(json!({ "name": "shop" })).await;
    let full = api.send(Some(&admin()), "POST ", json!({ "name": "shop" })).await;
    assert_eq!((full.status, full.message.contains("as many")), (403, true));
    for line in ["GET /dashboard", "GET /key_x", &format!("GET /{id}/other"), "GET /usage", "POST /rotate"] {
        assert_eq!(api.send(Some(&admin()), line, Value::Null).await.status, 404, "{line}");
    }
    for line in ["PUT ", "DELETE ", &format!("POST /{id}"), &format!("POST /{id}/usage"), &format!("GET /{id}/rotate")]
    {
        assert_eq!(api.send(Some(&admin()), line, json!({})).await.status, 405, "{line}");
    }
}

#[tokio::test]
async fn without_a_store_nothing_is_made() {
    let mut compiler = Compiler::at(Place::UNKNOWN, String::new(), &Known::default());
    let built = super::super::build::<ApiKeysSettings>(&node("{}"), &mut compiler);
    let Ok(AnyHandler::Async(handler)) = outcome(built, compiler) else { panic!("it waits") };
    let api = Api { handler, identity: Arc::default() };
    let answer = api.send(Some(&admin()), "POST ", json!({ "name": "shop" })).await;
    assert_eq!((answer.status, answer.code), (503, "STATE_UNAVAILABLE"));
}

#[test]
fn odd_settings_are_refused() {
    let identity = identity();
    for (settings, what) in [
        ("{ prefix: 'a b' }", "a prefix has 1 to 16"),
        ("{ prefix: '' }", "a prefix has 1 to 16"),
        ("{ scope: 'a b' }", "a scope is one word"),
        ("{ scopes_allowed: ['read*'] }", "is no wildcard"),
        ("{ roles_allowed: [vewer] }", "unknown role `vewer`; did you mean `viewer`?"),
        ("{ expires_max: 36501d }", "`expires_max` is at most 36500d"),
        ("{ expires_default: 731d }", "`expires_default` is at most 730d"),
        ("{ expires_default: 31d, expires_max: 30d }", "`expires_default` is at most 30d"),
        ("{ rotation_overlap: 31d }", "`rotation_overlap` is at most 30d"),
        ("{ max_keys: 0 }", "`max_keys` must be 1 to 100000"),
        ("{ max_keys: 100001 }", "`max_keys` must be 1 to 100000"),
    ] {
        let problems = match build(settings, &identity) {
            Ok(_) => panic!("accepted: {settings}"),
            Err(problems) => problems.join("\n"),
        };
        assert!(problems.contains(what), "{settings}: {problems}");
    }
    for fine in ["{}", "{ expires_max: 36500d, rotation_overlap: 30d, max_keys: 100000, scopes_allowed: ['*'] }"] {
        assert!(build(fine, &identity).is_ok(), "{fine}");
    }
}
