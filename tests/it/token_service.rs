//! Logging in, refreshing, logging out.

mod bodies;
mod elsewhere;
mod revoked;
mod third_party;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::harness::{Folder, Gateway, Response, noise};

/// A secret of this test run.
fn secret() -> String {
    noise(24).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The cheapest hash there is.
fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

const ROUTES: &str = "routes:\n\
    \x20 - { name: login, match: POST /auth/login, login: {} }\n\
    \x20 - { name: refresh, match: POST /auth/refresh, refresh: {} }\n\
    \x20 - { name: logout, match: POST /auth/logout, logout: {} }\n";

/// A token service with these keys, over users `ann` (admin) and `ben` (disabled); the passwords are `ann-secret`, `ben-secret`.
fn configuration(keys: &str) -> String {
    let (secret, ann, ben) = (secret(), hash("ann-secret"), hash("ben-secret"));
    format!(
        "token_services:\n  main: {{ issuer: gateway.test, algorithm: HS256, secret: {secret}{keys} }}\n\
         users:\n  - {{ name: ann, password: {ann}, roles: [admin, user], scopes: [read:own] }}\n\
         \x20 - {{ name: ben, password: {ben}, disabled: true }}\n{ROUTES}"
    )
}

async fn post(gateway: &Gateway, path: &str, body: &Value) -> Response {
    let body = body.to_string();
    let length = body.len();
    gateway
        .ask(&format!(
            "POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await
}

async fn login(gateway: &Gateway, username: &str, password: &str) -> Response {
    post(gateway, "/auth/login", &json!({"username": username, "password": password})).await
}

async fn refresh(gateway: &Gateway, token: &str) -> Response {
    post(gateway, "/auth/refresh", &json!({"refresh_token": token})).await
}

async fn logout(gateway: &Gateway, token: &str) -> Response {
    post(gateway, "/auth/logout", &json!({"refresh_token": token})).await
}

/// Access and refresh token of an answer.
fn tokens(response: &Response) -> (String, String) {
    assert_eq!(response.status, 200, "{}", response.text());
    let json = response.json();
    let text = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("no {name}: {json}")).to_owned();
    (text("access_token"), text("refresh_token"))
}

fn refused_with(response: &Response, message: &str) {
    response.refused(401, "UNAUTHORIZED");
    assert_eq!(response.json()["error"]["message"], message);
    assert!(response.head.get("www-authenticate").is_some_and(|challenge| challenge.starts_with("Bearer")));
}

fn claims(token: &str) -> Value {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_required_spec_claims(&["exp", "iss", "sub"]);
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(secret().as_bytes());
    jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap().claims
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_from_login_to_logout() {
    let gateway = Gateway::start(&configuration("")).await;
    let response = login(&gateway, "ann", "ann-secret").await;
    let (access, first) = tokens(&response);
    assert_eq!(response.head.get("cache-control"), Some("no-store"));
    assert_eq!(response.head.get("content-type"), Some("application/json"));
    let json = response.json();
    assert_eq!((&json["token_type"], &json["expires_in"]), (&json!("bearer"), &json!(3600)));
    assert_eq!(json.as_object().unwrap().len(), 4);
    let access = claims(&access);
    assert_eq!((&access["sub"], &access["role"], &access["type"]), (&json!("ann"), &json!("admin"), &json!("access")));
    assert_eq!((&access["roles"], &access["scope"]), (&json!(["admin", "user"]), &json!("read:own")));

    let (again, second) = tokens(&refresh(&gateway, &first).await);
    assert_ne!(claims(&again)["jti"], access["jti"]);
    assert_eq!(claims(&again)["sid"], access["sid"]);
    refused_with(&refresh(&gateway, &first).await, "Invalid token");

    let done = logout(&gateway, &second).await;
    assert_eq!((done.status, done.body.len()), (204, 0));
    refused_with(&refresh(&gateway, &second).await, "Invalid token");
    assert_eq!(logout(&gateway, &second).await.status, 204, "twice is no error");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_log_in_learns_nothing_more() {
    let gateway = Gateway::start(&configuration("")).await;
    let mut answers = Vec::new();
    for (name, password) in [("ann", "ben-secret"), ("ben", "ben-secret"), ("eve", "ann-secret"), ("", ""), ("ann", "")]
    {
        let response = login(&gateway, name, password).await;
        refused_with(&response, "Invalid credentials");
        answers.push(response.json()["error"].clone());
    }
    assert!(answers.windows(2).all(|two| two[0] == two[1]), "{answers:?}");
    for line in gateway.lines() {
        assert!(!line.contains("secret") && !line.contains("eve"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_too_many_failures_one_waits_and_the_log_says_so() {
    let mut gateway = Gateway::start(&configuration(", attempts: { failures: 3, window: 1h }")).await;
    // All at once: no more get through than one after the other.
    let failures = futures_util::future::join_all((0..20).map(|_| login(&gateway, "ann", "wrong-secret"))).await;
    let count = |status| failures.iter().filter(|response| response.status == status).count();
    assert_eq!((count(401), count(429)), (3, 17));
    let response = login(&gateway, "ann", "ann-secret").await;
    response.refused(429, "RATE_LIMITED");
    let wait: u64 = response.head.get("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    gateway.logged("too many failed logins").await;
    let line = gateway.logged("login refused").await;
    assert!(line.contains("ann") && line.contains("127.0.0.1") && !line.contains("wrong-secret"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_requests_with_one_refresh_token_one_wins() {
    let gateway = Gateway::start(&configuration("")).await;
    let (_, first) = tokens(&login(&gateway, "ann", "ann-secret").await);
    let answers = futures_util::future::join_all((0..50).map(|_| refresh(&gateway, &first))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|response| response.status == 200);
    assert_eq!(won.len(), 1);
    lost.into_iter().for_each(|response| refused_with(response, "Invalid token"));
    tokens(&refresh(&gateway, &tokens(won[0]).1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_refresh_token_ends_the_session() {
    let mut gateway = Gateway::start(&configuration(", reuse_grace: 0s")).await;
    let (_, first) = tokens(&login(&gateway, "ann", "ann-secret").await);
    let (_, second) = tokens(&refresh(&gateway, &first).await);
    refused_with(&refresh(&gateway, &first).await, "Invalid token");
    refused_with(&refresh(&gateway, &second).await, "Invalid token");
    gateway.logged("a used refresh token came again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_came_to_its_end_is_told_so() {
    let gateway = Gateway::start(&configuration(", refresh: 1s")).await;
    let (_, token) = tokens(&login(&gateway, "ann", "ann-secret").await);
    // Waits for the second to pass, however long the machine takes for it.
    let ended = loop {
        let response = refresh(&gateway, &token).await;
        if response.status != 200 && response.json()["error"]["message"] == "Token expired" {
            break response;
        }
    };
    refused_with(&ended, "Token expired");
    assert_eq!(logout(&gateway, &token).await.status, 204, "an expired token will do to log out");
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_takes_a_token_in_either_way() {
    let gateway = Gateway::start(&configuration("")).await;
    for scheme in ["Bearer", "bearer"] {
        let (access, token) = tokens(&login(&gateway, "ann", "ann-secret").await);
        let request = format!("POST /auth/logout HTTP/1.1\r\nHost: a.test\r\nAuthorization: {scheme} {access}\r\n");
        assert_eq!(gateway.ask(&format!("{request}Content-Length: 0\r\n\r\n")).await.status, 204);
        refused_with(&refresh(&gateway, &token).await, "Invalid token");
    }
    for request in [
        "POST /auth/logout HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n",
        "POST /auth/logout HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer a.b.c\r\nContent-Length: 0\r\n\r\n",
        "POST /auth/logout HTTP/1.1\r\nHost: a.test\r\nAuthorization: Basic YTpi\r\nContent-Length: 0\r\n\r\n",
    ] {
        refused_with(&gateway.ask(request).await, "Invalid token");
    }
    refused_with(&logout(&gateway, "nonsense").await, "Invalid token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_removed_has_no_token_refreshed() {
    let root = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nadmin: { bind: 127.0.0.1:0 }\n\
                access_log: { to: none }\ninclude: [routes.d/*.yaml]\n";
    let user = |roles: &str| format!("users: [{{ name: cat, password: {}, roles: [{roles}] }}]\n", hash("cat-secret"));
    let main = [root, &configuration("")].concat();
    let folder = Folder::with(&[("gateway.yaml", &main), ("routes.d/users.yaml", &user("editor"))]);
    let gateway = Gateway::start_in(folder).await;
    let (access, first) = tokens(&login(&gateway, "cat", "cat-secret").await);
    assert_eq!(claims(&access)["role"], "editor");
    gateway.folder.write("routes.d/users.yaml", &user("viewer"));
    gateway.reload_well().await;
    let (access, second) = tokens(&refresh(&gateway, &first).await);
    assert_eq!(claims(&access)["role"], "viewer", "roles are looked up again");
    gateway.folder.write("routes.d/users.yaml", "users: []\n");
    gateway.reload_well().await;
    refused_with(&refresh(&gateway, &second).await, "Invalid token");
    gateway.folder.write("routes.d/users.yaml", &user("viewer"));
    gateway.reload_well().await;
    refused_with(&refresh(&gateway, &second).await, "Invalid token");
    tokens(&login(&gateway, "cat", "cat-secret").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_in_a_file_survive_a_kill_and_those_in_memory_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data/tollgate.db");
    for (state, survives) in [(format!("state: {{ file: {} }}\n", file.display()), true), (String::new(), false)] {
        let yaml = [&*state, &configuration("")].concat();
        let mut gateway = Gateway::start(&yaml).await;
        let (_, kept) = tokens(&login(&gateway, "ann", "ann-secret").await);
        let (_, ended) = tokens(&login(&gateway, "ann", "ann-secret").await);
        assert_eq!(logout(&gateway, &ended).await.status, 204);
        gateway.signal("KILL");
        gateway.ended().await;
        let gateway = Gateway::start(&yaml).await;
        assert_eq!(refresh(&gateway, &kept).await.status, if survives { 200 } else { 401 });
        refused_with(&refresh(&gateway, &ended).await, "Invalid token");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_another_gateway_has_open_is_not_shared() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!("state: {{ file: {}/state.db }}\n{}", folder.path().display(), configuration(""));
    let _first = Gateway::start(&yaml).await;
    let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\n";
    let mut second = Gateway::spawn_in(Folder::with(&[("gateway.yaml", &[head, &yaml].concat())]));
    second.logged("another process has it open").await;
    assert!(!second.ended().await.success());
}
