//! Users that another service knows.

use serde_json::{Value, json};

use super::{ROUTES, claims, login, refresh, refused_with, secret, tokens};
use crate::harness::{Gateway, Upstream, answer};

/// A service that knows `ann` with `ann-secret`; by name alone it finds her with another role.
async fn users() -> Upstream {
    Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let bytes = match (request.target.as_str(), body["username"].as_str(), body["password"].as_str()) {
                ("/verify", Some("ann"), Some("ann-secret")) => answer(200, br#"{"roles": ["admin"], "more": 1}"#),
                ("/verify", Some("ANN"), Some("ann-secret")) => answer(200, br#"{"name": "ann"}"#),
                ("/lookup", Some("ann"), None) => answer(200, br#"{"roles": ["viewer"], "scopes": ["read:own"]}"#),
                (_, Some("broken"), _) => answer(500, b"a stack trace"),
                (_, Some("odd"), _) => answer(200, br#"{"roles": ["a,b"]}"#),
                (_, Some("text"), _) => answer(200, b"welcome"),
                (_, Some("moved"), _) => answer(302, b""),
                (_, Some("large"), _) => answer(200, &vec![b' '; 70_000]),
                (_, Some("silent"), _) => return conn.closed().await,
                _ => answer(401, b""),
            };
            conn.send(bytes).await;
        }
    })
    .await
}

async fn gateway(users: &Upstream, keys: &str) -> Gateway {
    let (secret, address) = (secret(), users.address);
    Gateway::start(&format!(
        "token_services:\n  main:\n    issuer: gateway.test\n    algorithm: HS256\n    secret: {secret}\n    \
         verify: {{ url: \"http://{address}/verify\"{keys} }}\n{}",
        ROUTES.replace("$ADDRESS", &address.to_string())
    ))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_at_login_and_again_at_refresh() {
    let users = users().await;
    let lookup = format!(", lookup: \"http://{}/lookup\"", users.address);
    let gateway = gateway(&users, &lookup).await;
    let (access, first) = tokens(&login(&gateway, "ann", "ann-secret").await);
    assert_eq!(claims(&access)["role"], "admin");
    let asked = users.last();
    assert_eq!((asked.method.as_str(), asked.head.get("content-type")), ("POST", Some("application/json")));
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(body, json!({"username": "ann", "password": "ann-secret"}));
    let (access, _) = tokens(&refresh(&gateway, &first).await);
    let access = claims(&access);
    assert_eq!((&access["role"], &access["scope"]), (&json!("viewer"), &json!("read:own")));
    let (access, _) = tokens(&login(&gateway, "ANN", "ann-secret").await);
    assert_eq!(claims(&access)["sub"], "ann", "as the service writes it");
    refused_with(&login(&gateway, "ann", "wrong").await, "Invalid credentials");
    refused_with(&login(&gateway, "eve", "ann-secret").await, "Invalid credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lookup_there_is_nothing_to_refresh() {
    let users = users().await;
    let gateway = gateway(&users, "").await;
    let json = login(&gateway, "ann", "ann-secret").await.json();
    assert!(json.get("refresh_token").is_none() && json["access_token"].is_string(), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_none_is_no_login() {
    let users = users().await;
    let gateway = gateway(&users, ", timeout: 1s").await;
    for name in ["broken", "odd", "text", "moved", "large", "silent"] {
        // More often than one may fail: these are no failures of the user.
        for _ in 0..if name == "silent" { 1 } else { 7 } {
            let response = login(&gateway, name, "x").await;
            response.refused(502, "BAD_GATEWAY");
            assert!(!response.text().contains("127.0.0.1") && !response.text().contains("stack"), "{name}");
        }
    }
    assert_eq!(login(&gateway, "ann", "ann-secret").await.status, 200);
    drop(users);
}
