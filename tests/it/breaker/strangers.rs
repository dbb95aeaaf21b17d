//! Answers from before are for nobody but who could have got them from the service itself.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const STALE: &str = "{ failures: 1, on: [500], open_for: 1h, fallback: { stale: {} } }";
const SECRETS: [&str; 2] = ["the-secret-of-the-one-issuer-0123456789", "the-secret-of-the-other-issuer-0123456789"];

/// Answers with what it was asked: target, tenant and body; `/fails` with 500.
async fn repeating() -> Upstream {
    Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            let tenant = request.head.get("x-tenant").unwrap_or("none");
            let said = format!("{} {tenant} {}", request.target, String::from_utf8_lossy(&request.body));
            let status = if request.target.contains("fails") { 500 } else { 200 };
            if !conn.send(answer(status, said.as_bytes())).await {
                return;
            }
        }
    })
    .await
}

fn with(upstream: &Upstream, more: &str, routes: &str) -> String {
    format!(
        "admin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n  main: {{ targets: [{{ address: \"{}\" }}], circuit_breaker: {STALE} }}\n\
         {more}routes:\n{routes}  - {{ name: fails, match: /fails, upstream: main }}\n",
        upstream.address
    )
}

async fn opens(gateway: &Gateway) {
    assert_eq!(gateway.get("/fails").await.status, 500);
    refused(&gateway.get("/fails").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_what_a_body_asks_is_for_no_other_body() {
    let upstream = repeating().await;
    let gateway = Gateway::start(&with(
        &upstream,
        "",
        "  - { name: all, match: \"/{*rest}\", upstream: main }\n  - name: gathered\n    match: \"/gathered\"\n    \
         filters: [{ validate: { body: true, body_required: false } }]\n    upstream: main\n",
    ))
    .await;
    let ask = |path: &str, framing: &str, body: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\nConnection: close\r\n{framing}\r\n{body}"
        );
        let gateway = &gateway;
        async move { gateway.ask(&request).await }
    };
    let asked = [
        ("/x", "Content-Length: 3\r\n", "\"a\""),
        ("/x", "Transfer-Encoding: chunked\r\n", "3\r\n\"b\"\r\n0\r\n\r\n"),
        ("/gathered", "Content-Length: 3\r\n", "\"a\""),
        ("/x?none", "Content-Length: 0\r\n", ""),
    ];
    for (path, framing, body) in asked {
        assert_eq!(ask(path, framing, body).await.status, 200, "{path} {framing}");
    }
    opens(&gateway).await;
    for (path, framing, body) in asked.into_iter().take(3) {
        refused(&ask(path, framing, body).await);
        refused(&ask(path, framing, &body.replace(['a', 'b'], "c")).await);
        refused(&ask(path, "", "").await);
    }
    assert_eq!(ask("/x?none", "", "").await.text(), "/x?none none ", "an empty body asks nothing");
    refused(&ask("/x?none", "Content-Length: 3\r\n", "\"a\"").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_one_route_is_not_given_out_by_another() {
    let upstream = repeating().await;
    let route = |name: &str| {
        format!(
            "  - name: {name}\n    match: \"/{name}/{{*rest}}\"\n    filters:\n      - rewrite: {{ strip_prefix: /{name} }}\n      \
             - headers: {{ request: {{ set: {{ X-Tenant: {name} }} }} }}\n    upstream: main\n"
        )
    };
    let gateway = Gateway::start(&with(&upstream, "", &[route("a"), route("b")].concat())).await;
    assert_eq!(gateway.get("/a/x").await.text(), "/x a ");
    opens(&gateway).await;
    assert_eq!(gateway.get("/a/x").await.text(), "/x a ");
    refused(&gateway.get("/b/x").await);
}

/// A token of an issuer with these claims.
fn token(issuer: usize, claims: &Value) -> String {
    let expires = std::time::SystemTime::now() + Duration::from_secs(3600);
    let mut all = json!({ "sub": "ann", "exp": expires.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    let key = EncodingKey::from_secret(SECRETS[issuer].as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &all, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_of_one_name_with_other_rights_are_others() {
    let upstream = repeating().await;
    let issuers = format!(
        "issuers:\n  one: {{ secret: {}, algorithms: [HS256] }}\n  other: {{ secret: {}, algorithms: [HS256] }}\n",
        SECRETS[0], SECRETS[1]
    );
    let routes = "  - name: all\n    match: \"/{*rest}\"\n    upstream: main\n    \
                  filters: [{ auth: { accept: [jwt], forward: { claims: { tenant: X-Tenant } } } }]\n";
    let gateway = Gateway::start(&with(&upstream, &issuers, routes)).await;
    let ask = |token: String| {
        let request =
            format!("GET /x HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
        let gateway = &gateway;
        async move { gateway.ask(&request).await }
    };
    let ann = json!({ "tenant": "red", "scope": "read" });
    assert_eq!(ask(token(0, &ann)).await.text(), "/x red ");
    opens(&gateway).await;
    assert_eq!(ask(token(0, &ann)).await.text(), "/x red ");
    let anew = json!({ "tenant": "red", "scope": "read", "jti": "another", "iat": 7, "nbf": 7 });
    assert_eq!(ask(token(0, &anew)).await.text(), "/x red ", "the same caller with a token that was renewed");
    refused(&ask(token(1, &ann)).await);
    refused(&ask(token(0, &json!({ "tenant": "blue", "scope": "read" }))).await);
    refused(&ask(token(0, &json!({ "tenant": "red", "scope": "" }))).await);
    refused(&ask(token(0, &json!({ "tenant": "red" }))).await);
}
