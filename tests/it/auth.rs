//! Who gets in, and what the service learns of them.

use http::Request;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{Folder, Gateway, Response, Upstream, within};

/// Routes with and without `auth` to one upstream. Keys are `good` (may read), `other` and `old` (expired).
fn yaml(upstream: &Upstream, forward: &str) -> String {
    let hash = |key: &str| Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!(
        "upstreams: {{ main: {{ targets: [{{ address: \"{}\" }}] }} }}
consumers:
  - name: dashboard
    scopes: ['read:*']
    keys: [{{ id: k-1, sha256: {} }}, {{ id: k-2, sha256: {}, expires: 2020-01-01T00:00:00Z }}]
  - {{ name: other, keys: [{{ id: k-3, sha256: {} }}] }}
chains:
  api:
    - auth: {{ accept: [api_key], api_key: {{ query: ticket }}, forward: {forward} }}
routes:
  - {{ name: open, match: /open, upstream: main }}
  - {{ name: chat, match: /chat, filters: [use: api], upstream: main }}
  - {{ name: read, match: GET /tasks, filters: [{{ use: api }}, {{ require: {{ scopes: [read:tasks] }} }}], upstream: main }}
  - {{ name: write, match: POST /tasks, filters: [{{ use: api }}, {{ require: {{ scopes: [write:tasks] }} }}], upstream: main }}
  - name: page
    match: PUT /page
    filters: [{{ use: api }}, {{ cors: {{ origins: ['https://a.test'] }} }}]
    upstream: main
  - name: both
    match: /both
    filters: [{{ auth: {{ accept: [api_key], optional: true, forward: {forward} }} }}]
    upstream: main
",
        upstream.address,
        hash("good"),
        hash("old"),
        hash("other"),
    )
}

const FORWARD: &str = "{ name: X-Consumer, scopes: X-Scopes }";

async fn asked(gateway: &Gateway, line: &str, fields: &str) -> Response {
    gateway.ask(&format!("{line} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_let_in_and_the_service_learns_who_and_not_how() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&upstream, FORWARD)).await;
    for fields in [
        "X-API-Key: good\r\n",
        "x-api-KEY:good\r\n",
        "Authorization: Bearer good\r\n",
        "authorization: bEARER    good\r\n",
        "Authorization: Bearer good\r\nX-API-Key: good\r\n",
    ] {
        let response = asked(&gateway, "GET /tasks", fields).await;
        assert_eq!(response.status, 200, "{fields:?}: {}", response.text());
        let head = upstream.last().head;
        assert_eq!((head.get("x-consumer"), head.get("x-scopes")), (Some("dashboard"), Some("read:*")));
        for (name, value) in &head.fields {
            assert!(!String::from_utf8_lossy(value).contains("good"), "{name} went on");
        }
    }
    let response = asked(&gateway, "GET /tasks?a=1&ticket=good&b=%20", "").await;
    assert_eq!((response.status, upstream.last().target.as_str()), (200, "/tasks?a=1&b=%20"));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_stays_outside() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&upstream, FORWARD)).await;
    for fields in [
        "",
        "X-API-Key: guessed\r\n",
        "X-API-Key: old\r\n",
        "X-API-Key:\r\n",
        "X_API_Key: good\r\n",
        "X-API-Key: good, good\r\n",
        "X-API-Key: good\r\nX-API-Key: good\r\n",
        "X-API-Key: good\r\nAuthorization: Bearer other\r\n",
        "X-API-Key: good\r\nAuthorization: Bearer\r\n",
        "Authorization: good\r\n",
        "Authorization: Basic good\r\n",
        "Authorization: Bearer\tgood\r\n",
        "Authorization: Bearer \tgood\r\n",
        "Authorization: Bearer good, Bearer good\r\n",
        "Authorization: Bearer good,Bearer x\r\n",
        "Authorization: Basic eDp5, Bearer good\r\n",
        "Authorization: Bearer good\r\nAuthorization: Bearer good\r\n",
        "Authorization: Basic eDp5\r\nAuthorization: Bearer good\r\n",
        "Authorization: Bearer g\u{f6}od\r\n",
        "Proxy-Authorization: Bearer good\r\n",
        "X-Consumer: dashboard\r\nX-Scopes: *\r\n",
    ] {
        let response = asked(&gateway, "GET /tasks", fields).await;
        response.refused(401, "UNAUTHORIZED");
        let challenges = response.head.all("www-authenticate");
        assert!(
            challenges[0].starts_with("Bearer realm=\"tollgate\"") && challenges[1].starts_with("ApiKey "),
            "{challenges:?}"
        );
    }
    for target in ["/tasks?ticket=guessed", "/tasks?ticket=good&ticket=good", "/tasks?ticket=%", "/tasks?Ticket=good"] {
        asked(&gateway, &format!("GET {target}"), "").await.refused(401, "UNAUTHORIZED");
    }
    let lacking = asked(&gateway, "POST /tasks", "X-API-Key: good\r\nContent-Length: 0\r\n").await;
    lacking.refused(403, "FORBIDDEN");
    assert_eq!(
        lacking.head.get("www-authenticate"),
        Some("Bearer error=\"insufficient_scope\", scope=\"write:tasks\"")
    );
    assert_eq!(lacking.json()["error"]["details"], json!({"scopes": ["write:tasks"]}));
    asked(&gateway, "GET /both", "X-API-Key: guessed\r\n").await.refused(401, "UNAUTHORIZED");
    assert!(upstream.requests().is_empty(), "nothing of it reached the service");
    assert_eq!(asked(&gateway, "GET /both", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_say_they_are_somebody_on_any_route() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&upstream, FORWARD)).await;
    let forged = "X-Consumer: root\r\nx-consumer: root\r\nX_Consumer: root\r\nx_CONSUMER: root\r\nX-SCOPES: root\r\nx_scopes: root\r\n";
    for (path, key) in [("/open", ""), ("/both", ""), ("/chat", "X-API-Key: other\r\n")] {
        let response = asked(&gateway, &format!("GET {path}"), &[forged, key].concat()).await;
        assert_eq!(response.status, 200, "{path}");
        let head = upstream.last().head;
        assert!(!head.fields.iter().any(|(_, value)| value == b"root"), "{path}: {:?}", head.fields);
        assert_eq!(head.get("x-consumer"), (path == "/chat").then_some("other"));
        assert!(!head.has("x-scopes"), "no scope is no field");
    }
    let client = gateway.h2().await;
    let request =
        Request::get("http://a.test/open").header("x-consumer", "root").header("x_consumer", "root").body(()).unwrap();
    assert_eq!(client.ask(request, Vec::new()).await.unwrap().status.as_u16(), 200);
    assert!(!upstream.last().head.fields.iter().any(|(_, value)| value == b"root"));
}

/// RFC 9110 §7.6.1 lets a client nominate fields that end at the next hop: not those that the gateway sets there.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_have_it_forgotten_who_they_are() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&upstream, FORWARD)).await;
    let fields =
        "X-API-Key: good\r\nConnection: keep-alive, X-Consumer, x-scopes\r\nConnection: X-Other\r\nX-Other: 1\r\n";
    assert_eq!(asked(&gateway, "GET /tasks", fields).await.status, 200);
    let head = upstream.only().head;
    assert_eq!((head.get("x-consumer"), head.get("x-scopes")), (Some("dashboard"), Some("read:*")));
    assert!(!head.has("x-other"));
    asked(&gateway, "GET /tasks", "X-API-Key: good\r\nConnection: X-API-Key\r\n").await.refused(401, "UNAUTHORIZED");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_passes_the_same_filters() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&upstream, FORWARD)).await;
    let client = gateway.h2().await;
    let ask = async |fields: &[(&str, &str)]| {
        let request = fields
            .iter()
            .fold(Request::get("http://a.test/tasks"), |request, (name, value)| request.header(*name, *value));
        client.ask(request.body(()).unwrap(), Vec::new()).await.unwrap().status.as_u16()
    };
    assert_eq!(ask(&[("x-api-key", "good")]).await, 200);
    assert_eq!(upstream.only().head.get("x-consumer"), Some("dashboard"));
    for fields in
        [&[][..], &[("x-api-key", "guessed")], &[("authorization", "Bearer good"), ("authorization", "Bearer good")]]
    {
        assert_eq!(ask(fields).await, 401, "{fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_needs_a_credential_like_anything_else() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        }
    })
    .await;
    let gateway = Gateway::start(&yaml(&upstream, FORWARD)).await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    for target in ["/chat", "/chat?ticket=guessed"] {
        asked(&gateway, &format!("GET {target}"), upgrade).await.refused(401, "UNAUTHORIZED");
    }
    assert!(upstream.requests().is_empty());
    let mut client = gateway.client().await;
    client.send(format!("GET /chat?room=1&ticket=good HTTP/1.1\r\nHost: a.test\r\n{upgrade}\r\n")).await;
    let (status, _) = within("a handshake", client.response_head()).await.unwrap();
    assert_eq!((status, upstream.only().target.as_str()), (101, "/chat?room=1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_needs_nobody_and_opens_nothing() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&upstream, FORWARD)).await;
    let preflight = "Origin: https://a.test\r\nAccess-Control-Request-Method: PUT\r\n";
    assert_eq!(asked(&gateway, "OPTIONS /page", preflight).await.status, 204);
    let refused = asked(&gateway, "PUT /page", &[preflight, "Content-Length: 0\r\n"].concat()).await;
    refused.refused(401, "UNAUTHORIZED");
    asked(&gateway, "OPTIONS /chat", preflight).await.refused(401, "UNAUTHORIZED");
    assert!(upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_name_the_caller_and_hold_no_secret() {
    let upstream = Upstream::echo().await;
    let folder = Folder::with(&[]);
    let path = |name: &str| folder.path(name).display().to_string();
    let logs =
        format!("access_log: {{ to: '{}' }}\naudit_log: {{ to: '{}' }}\n", path("access.log"), path("audit.log"));
    // Each worker has a buffer of its own: with one, lines stay in order.
    let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nthreads: 1\n";
    let text = [head, &logs, &yaml(&upstream, FORWARD)].concat();
    let mut gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", &text)])).await;
    let first = asked(&gateway, "GET /tasks?t%69cket=good&a=1", "Referer: https://b.test/?TICKET=hush\r\n").await;
    asked(&gateway, "GET /nowhere?ticket=hush", "").await.refused(404, "NOT_FOUND");
    asked(&gateway, "POST /tasks", "X-API-Key: good\r\nContent-Length: 0\r\n").await.refused(403, "FORBIDDEN");
    asked(&gateway, "GET /tasks", "Authorization: Bearer hush\r\n").await.refused(401, "UNAUTHORIZED");
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());

    let lines = |name: &str| -> Vec<Value> {
        let text = folder.read(name);
        assert!(!text.contains("hush") && !text.contains("good"), "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let access = lines("access.log");
    let consumers: Vec<&Value> = access.iter().map(|line| &line["consumer"]).collect();
    assert_eq!(consumers, [&json!("dashboard"), &Value::Null, &json!("dashboard"), &Value::Null]);
    assert_eq!(
        (&access[0]["query"], &access[1]["query"]),
        (&json!("t%69cket=[redacted]&a=1"), &json!("ticket=[redacted]"))
    );

    let audit = lines("audit.log");
    let told: Vec<String> = audit
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
            ["by", "verdict", "kind", "reason", "consumer", "credential", "route", "path"].map(text).join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            "auth allow api_key ok dashboard k-1 read /tasks",
            "require allow api_key ok dashboard k-1 read /tasks",
            "auth allow api_key ok dashboard k-1 write /tasks",
            "require deny api_key scope dashboard k-1 write /tasks",
            "auth deny api_key unknown - - read /tasks",
        ]
    );
    assert_eq!(audit[0]["request_id"].as_str(), first.head.get("x-request-id"));
    assert_eq!(audit[0]["client"], "127.0.0.1");
}
