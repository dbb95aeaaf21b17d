//! API keys from outside: added and removed while requests run, made and revoked over HTTP, kept over a restart.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tollgate::identity::Digest;

use crate::harness::{Client, Folder, Gateway, Response, within};
use crate::websocket::{closed, connect, echo, next};

const ROOT: &str = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nadmin: { bind: 127.0.0.1:0 }\nthreads: 2\n\
                    access_log: { to: none }\naudit_log: { to: none }\ninclude: [routes.d/*.yaml]\n";
const ROUTES: &str = "routes:\n  - name: hello\n    match: GET /hello\n    filters: [auth: { accept: [api_key] }]\n    \
                      respond: { body: \"{consumer}\" }\n";

/// A fragment with consumers that have one key each: their name.
fn consumers(names: &[&str]) -> String {
    let one = |name: &&str| {
        let digest = Digest::of(name.as_bytes()).unwrap();
        format!("  - name: {name}\n    keys:\n      - {{ id: {name}-1, sha256: {digest} }} # {name}'s\n")
    };
    format!("consumers:\n{}", names.iter().map(one).collect::<String>())
}

async fn hello(client: &mut Client, key: &str) -> Response {
    client.ask(&format!("GET /hello HTTP/1.1\r\nHost: a.test\r\nX-API-Key: {key}\r\n\r\n")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_key_is_refused_from_the_first_request_on_and_no_other_fails() {
    let gateway = Gateway::start_in(Folder::with(&[
        ("gateway.yaml", ROOT),
        ("routes.d/routes.yaml", ROUTES),
        ("routes.d/keys.yaml", &consumers(&["kept", "removed"])),
    ]))
    .await;
    // How often the key was taken out or put back: it is gone while that is odd.
    let (changes, over, done) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
    let state = Arc::new((changes, over, done));
    let mut loads = Vec::new();
    for number in 0..16 {
        let (state, mut client) = (Arc::clone(&state), gateway.client().await);
        loads.push(tokio::spawn(async move {
            let (changes, over, done) = &*state;
            while !over.load(Ordering::SeqCst) {
                let before = changes.load(Ordering::SeqCst);
                let key = if number % 2 == 0 { "removed" } else { "kept" };
                let response = hello(&mut client, key).await;
                let gone_throughout = before % 2 == 1 && changes.load(Ordering::SeqCst) == before;
                match (key, gone_throughout) {
                    ("kept", _) => assert_eq!((response.status, response.text()), (200, "kept")),
                    (_, true) => {
                        response.refused(401, "UNAUTHORIZED");
                    }
                    // While the reload runs, either is right.
                    (_, false) => assert!([200, 401].contains(&response.status), "{}", response.status),
                }
                done.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let more = async |count: usize| {
        let wanted = state.2.load(Ordering::SeqCst) + count;
        let enough = async {
            while state.2.load(Ordering::SeqCst) < wanted {
                tokio::task::yield_now().await;
            }
        };
        within("requests under load", enough).await;
    };
    more(200).await;
    for round in 0..3 {
        // Before anything is written: from now on the key may be there again.
        state.0.store(2 * round, Ordering::SeqCst);
        gateway.folder.write("routes.d/keys.yaml", &consumers(&["kept", "removed"]));
        gateway.reload_well().await;
        assert_eq!(gateway.client_says("removed").await, 200);
        more(100).await;
        gateway.folder.write("routes.d/keys.yaml", &consumers(&["kept"]));
        gateway.reload_well().await;
        state.0.store(2 * round + 1, Ordering::SeqCst);
        assert_eq!(gateway.client_says("removed").await, 401);
        more(200).await;
    }
    state.1.store(true, Ordering::SeqCst);
    for load in loads {
        load.await.unwrap();
    }
}

impl Gateway {
    /// The status of a request with this key, on a connection of its own.
    async fn client_says(&self, key: &str) -> u16 {
        hello(&mut self.client().await, key).await.status
    }

    /// Waits until a request with this key has this status.
    async fn comes_to(&self, key: &str, status: u16) {
        let right = async {
            while self.client_says(key).await != status {
                tokio::task::yield_now().await;
            }
        };
        within("the gateway to follow the file", right).await;
    }
}

/// A gateway that watches its files follows the command line without being told.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_written_down_lets_in() {
    let gateway = Gateway::start_in(Folder::with(&[
        ("gateway.yaml", ROOT),
        ("routes.d/routes.yaml", ROUTES),
        ("routes.d/keys.yaml", &consumers(&["first"])),
    ]))
    .await;
    let file = gateway.folder.path("routes.d/keys.yaml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["key", "new", "--consumer", "first", "--expires", "90d", "--write"]).arg(&file);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let key = String::from_utf8(output.stdout).unwrap();
    gateway.comes_to(key.trim(), 200).await;
    assert_eq!(gateway.client_says("first").await, 200, "the old key still works");
    let written = gateway.folder.read("routes.d/keys.yaml");
    assert!(written.contains("# first's"), "{written}");
    gateway.folder.write("routes.d/keys.yaml", &written.replacen("first-1,", "first-1, disabled: true,", 1));
    gateway.comes_to("first", 401).await;
    assert_eq!(gateway.client_says(key.trim()).await, 200);
}

const MANAGED: &str = "\
consumers:
  - name: console
    scopes: [admin:api_keys, read:things, write:things]
    keys: [{ id: console-1, sha256: CONSOLE }]
chains:
  api: [auth: { accept: [api_key] }]
routes:
  - name: hello
    match: GET /hello
    filters: [{ use: api }, { require: { scopes: [read:things] } }]
    respond: { body: \"{consumer}\" }
  - name: keys
    match: { methods: [GET, POST, PUT, DELETE], path: \"/api/v1/api-keys/{id?}\" }
    filters: [{ use: api }, { require: { scopes: [admin:api_keys] } }]
    api_keys: &keys { prefix: gsp }
  - name: keys.one
    match: { methods: [GET, POST], path: \"/api/v1/api-keys/{id}/{action}\" }
    filters: [use: api]
    api_keys: *keys
  - name: open
    match: { methods: [GET, POST], path: \"/open/{id?}\" }
    api_keys: {}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_ends_with_the_managed_key_that_opened_it() {
    let upstream = echo().await;
    let console = Digest::of(b"console").unwrap().to_string();
    let chat = "  - name: chat\n    match: /chat\n    upstream: main\n    \
                filters: [auth: { accept: [api_key], api_key: { query: ticket }, close_on: [key_revoked] }]\n";
    let upstreams = format!("upstreams: {{ main: {{ targets: [{{ address: \"{}\" }}] }} }}\n", upstream.address);
    let routes = [&*upstreams, &MANAGED.replace("CONSOLE", &console), chat].concat();
    let gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", ROOT), ("routes.d/main.yaml", &routes)])).await;
    let body = json!({ "name": "shop", "scopes": ["read:things"] });
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let (status, made) = api(&gateway, "console", "POST ", &body).await;
        assert_eq!(status, 201, "{made:#}");
        let key = made["key"].as_str().unwrap();
        let mut socket = connect(&gateway, &format!("/chat?ticket={key}")).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::text("hello"));
        sockets.push((made["id"].as_str().unwrap().to_owned(), socket));
    }
    let (id, mut gone) = sockets.remove(0);
    assert_eq!(api(&gateway, "console", &format!("DELETE /{id}"), &Value::Null).await.0, 204);
    assert_eq!(next(&mut gone).await, closed("the credential is not valid any more"));
    let (_, mut stays) = sockets.remove(0);
    stays.send(Message::text("there?")).await.unwrap();
    assert_eq!(next(&mut stays).await, Message::text("there?"));
}

async fn managed(state: &std::path::Path) -> Gateway {
    let root = format!("state: {{ file: {} }}\n{ROOT}", state.display());
    let console = Digest::of(b"console").unwrap().to_string();
    let routes = MANAGED.replace("CONSOLE", &console);
    Gateway::start_in(Folder::with(&[("gateway.yaml", &root), ("routes.d/main.yaml", &routes)])).await
}

async fn api(gateway: &Gateway, key: &str, line: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (method, path) = line.split_once(' ').unwrap();
    let request = format!(
        "{method} /api/v1/api-keys{path} HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = gateway.ask(&request).await;
    (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_key_outlives_the_process_and_ends_when_it_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let gateway = managed(&state).await;
    let body = json!({ "name": "shop", "scopes": ["read:things"] });
    let (status, made) = api(&gateway, "console", "POST ", &body).await;
    assert_eq!(status, 201, "{made:#}");
    let (id, key) = (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned());
    for _ in 0..3 {
        assert_eq!(gateway.client_says(&key).await, 200);
    }
    // No right it has leads to another one.
    assert_eq!(api(&gateway, &key, "POST ", &body).await.0, 403);
    let (status, answer) = api(&gateway, "console", "POST ", &json!({ "name": "root", "scopes": ["*"] })).await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("FORBIDDEN")));
    let (status, answer) = api(&gateway, "console", "POST ", &json!({ "name": "a", "keys": 1 })).await;
    assert_eq!((status, &answer["error"]["details"]["field"]), (400, &json!("keys")));
    let large = json!({ "name": "a", "description": "x".repeat(17_000) });
    assert_eq!(api(&gateway, "console", "POST ", &large).await.0, 413);
    let open = "POST /open HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"name\":\"a\"}";
    gateway.ask(open).await.refused(401, "UNAUTHORIZED");
    gateway.stop().await;

    let gateway = managed(&state).await;
    assert_eq!(gateway.client_says(&key).await, 200);
    let used = async {
        loop {
            let (_, usage) = api(&gateway, "console", &format!("GET /{id}/usage"), &Value::Null).await;
            // Three before the restart, a refusal to make keys, and one after; a count follows its answer.
            if usage["requests"] == 5 {
                return usage;
            }
        }
    };
    let usage = within("the count of use", used).await;
    assert_eq!(usage["by_route"]["hello"]["by_status"]["2xx"], 4, "{usage:#}");
    assert_eq!(usage["by_route"]["keys"]["by_status"]["4xx"], 1, "{usage:#}");

    let (status, rotated) = api(&gateway, "console", &format!("POST /{id}/rotate"), &Value::Null).await;
    assert_eq!(status, 200, "{rotated:#}");
    let new = rotated["key"].as_str().unwrap().to_owned();
    assert_eq!((gateway.client_says(&key).await, gateway.client_says(&new).await), (200, 200));
    // On connections that are open already, and on both workers.
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = gateway.client().await;
        assert_eq!(hello(&mut client, &new).await.status, 200);
        clients.push(client);
    }
    assert_eq!(api(&gateway, "console", &format!("DELETE /{id}"), &Value::Null).await.0, 204);
    for client in &mut clients {
        hello(client, &new).await.refused(401, "UNAUTHORIZED");
        hello(client, &key).await.refused(401, "UNAUTHORIZED");
    }
    let lines = gateway.lines().join("\n");
    assert!(lines.contains(&id) && !lines.contains(&key) && !lines.contains(&new), "{lines}");
    gateway.stop().await;
    let gateway = managed(&state).await;
    assert_eq!(gateway.client_says(&new).await, 401);
    gateway.stop().await;
}
