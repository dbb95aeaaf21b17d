//! Messages of inboxes, as an operator looks at them, delivers them again and removes them: at the admin address, and with
//! `tollgate inbox`.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Client, Gateway, Response, Upstream, answer, within};

/// A gateway whose inbox gives a message up at once, and a service that answers as it is told.
struct Site {
    gateway: Gateway,
    service: Upstream,
    status: Arc<AtomicU16>,
    folder: TempDir,
}

impl Site {
    async fn start(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let told = Arc::clone(&status);
        let service = Upstream::scripted(move |mut conn| {
            let told = Arc::clone(&told);
            async move {
                while conn.request().await.is_some() {
                    conn.send(answer(told.load(Ordering::SeqCst), b"")).await;
                }
            }
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("tollgate.db"), folder.path().join("webhooks.log"));
        let (file, log, address) = (file.display(), log.display(), service.address);
        let gateway = Gateway::start(&format!(
            "state: {{ file: {file} }}\nadmin: {{ bind: 127.0.0.1:0 }}\nwebhook_log: {{ to: {log} }}\n\
             upstreams:\n  main: {{ targets: [{{ address: \"{address}\" }}] }}\n\
             routes:\n  - {{ name: hooks, match: \"POST /hooks/{{*rest}}\", inbox: {{ upstream: main, attempts: 1 }} }}\n  \
             - {{ name: patient, match: POST /patient, inbox: {{ upstream: main, schedule: [1h], name: orders.slow-1 }} }}\n"
        ))
        .await;
        Self { gateway, service, status, folder }
    }

    /// Sends a message; its id.
    async fn send(&self, target: &str, fields: &str, body: &[u8]) -> String {
        let head = format!("POST {target} HTTP/1.1\r\nHost: a.test\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        let mut client = self.gateway.client().await;
        client.send([head.as_bytes(), body].concat()).await;
        let response = client.response().await;
        assert_eq!(response.status, 202, "{}", response.text());
        response.head.get("x-message-id").expect("an id").to_owned()
    }

    async fn admin(&self, request: &str) -> Response {
        self.gateway.ask_admin(request).await
    }

    /// Waits until so many messages of an inbox (percent-encoded) stand so; the page.
    async fn standing(&self, inbox: &str, standing: &str, count: usize) -> Value {
        within("messages to stand so", async {
            loop {
                let page = self.admin(&format!("GET /inboxes/{inbox}?standing={standing}")).await.json();
                if page["messages"].as_array().is_some_and(|messages| messages.len() == count) {
                    return page;
                }
            }
        })
        .await
    }

    /// Waits until the webhook log tells of so many events of this kind.
    async fn told(&self, event: &str, count: usize) {
        let wanted = format!("\"event\":\"{event}\"");
        let file = self.folder.path().join("webhooks.log");
        within(event, async {
            while std::fs::read_to_string(&file).unwrap_or_default().matches(&wanted).count() != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn command(&self, arguments: &[&str]) -> Output {
        command(self.gateway.admin, arguments).await
    }

    /// What it prints when all is well.
    async fn printed(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).await;
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The real binary, asking the admin address.
async fn command(admin: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.arg("inbox").args(arguments).args(["--admin", &admin.to_string()]);
    tokio::task::spawn_blocking(move || command.output().expect("the command runs")).await.unwrap()
}

fn refused(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.json()["error"]["code"], code);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_message_is_listed_shown_replayed_and_another_one_dropped() {
    let site = Site::start(500).await;
    let fields = "Authorization: Bearer hush\r\nX-Hub-Signature-256: sha256=hush\r\nContent-Type: text/plain\r\n";
    let first = site.send("/hooks/a?token=hush&page=2", fields, "ü\n".as_bytes()).await;
    let second = site.send("/hooks/b", "", b"\xff\x00").await;
    let page = site.standing("hooks", "dead", 2).await;
    let message = &page["messages"][0];
    assert_eq!((&message["id"], &message["delivery"]), (&json!(first), &json!(first)));
    assert_eq!((&message["standing"], &message["attempts"]), (&json!("dead"), &json!(1)));
    assert_eq!((&message["why"], &message["due"]), (&json!("the service answered 500"), &json!(null)));
    assert_eq!((&message["method"], &message["target"]), (&json!("POST"), &json!("/hooks/a?token=[redacted]&page=2")));
    assert_eq!((&message["route"], &message["provider"]), (&json!("hooks"), &json!(null)));
    let inbox = &page["inbox"];
    assert_eq!((&inbox["dead"], &inbox["ready"], &inbox["configured"]), (&json!(2), &json!(0), &json!(true)));
    assert_eq!((&inbox["oldest_seconds"], &page["next"]), (&json!(null), &json!(null)));
    assert!(inbox["bytes"].as_u64().is_some_and(|bytes| bytes > 4), "{inbox}");

    let shown = site.admin(&format!("GET /inboxes/hooks/{first}")).await;
    assert!(!shown.text().contains("hush"), "{}", shown.text());
    let shown = shown.json();
    assert_eq!((&shown["body"], &shown["body_encoding"]), (&json!("ü\n"), &json!("text")));
    assert_eq!((&shown["body_bytes"], &shown["body_cut"]), (&json!(3), &json!(false)));
    for field in [
        json!({ "name": "authorization", "value": "[redacted]" }),
        json!({ "name": "x-hub-signature-256", "value": "[redacted]" }),
        json!({ "name": "content-type", "value": "text/plain" }),
    ] {
        let fields = shown["fields"].as_array().unwrap();
        let lower =
            |shown: &Value| json!({ "name": shown["name"].as_str().unwrap().to_lowercase(), "value": shown["value"] });
        assert!(fields.iter().map(lower).any(|shown| shown == field), "{field} of {shown}");
    }
    let binary = site.admin(&format!("GET /inboxes/hooks/{second}?body_max=1")).await.json();
    assert_eq!((&binary["body"], &binary["body_encoding"]), (&json!("/w=="), &json!("base64")));
    assert_eq!((&binary["body_bytes"], &binary["body_cut"]), (&json!(2), &json!(true)));

    site.status.store(200, Ordering::SeqCst);
    let replayed = site.admin(&format!("POST /inboxes/hooks/{first}/replay")).await;
    assert_eq!((replayed.status, &replayed.json()["result"]), (200, &json!("replayed")));
    let requests = site.service.received(3).await;
    assert_eq!((&*requests[2].target, &*requests[2].body), ("/hooks/a?token=hush&page=2", "ü\n".as_bytes()));
    assert_eq!(requests[2].head.get("authorization"), Some("Bearer hush"), "nothing of it is lost");
    let dropped = site.admin(&format!("DELETE /inboxes/hooks/{second}")).await;
    assert_eq!((dropped.status, &dropped.json()["result"]), (200, &json!("discarded")));
    site.standing("hooks", "dead", 0).await;
    for (event, count) in [("dead", 2), ("replayed", 1), ("delivered", 1), ("discarded", 1)] {
        site.told(event, count).await;
    }
    refused(&site.admin(&format!("GET /inboxes/hooks/{second}")).await, 404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_replayed_and_dropped_page_by_page() {
    let site = Site::start(500).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(site.send(&format!("/hooks/{number}"), "", b"x").await);
    }
    site.standing("hooks", "dead", 5).await;
    let page = site.admin("GET /inboxes/hooks?limit=2").await.json();
    assert_eq!(page["next"], page["messages"][1]["id"]);
    let next = page["next"].as_str().unwrap();
    let rest = site.admin(&format!("GET /inboxes/hooks?after={next}&limit=1000")).await.json();
    assert_eq!((rest["messages"].as_array().unwrap().len(), &rest["next"]), (3, &json!(null)));

    let some = site.admin("DELETE /inboxes/hooks?standing=dead&limit=2").await.json();
    assert_eq!((&some["count"], &some["left"], &some["result"]), (&json!(2), &json!(0), &json!("discarded")));
    assert!(some["next"].is_string(), "{some}");
    // The service still refuses: each is tried once more, and no one twice.
    assert_eq!(site.printed(&["replay", "hooks", "--dead"]).await, "3 messages of hooks were replayed\n");
    site.service.received(8).await;
    site.standing("hooks", "dead", 3).await;
    site.status.store(200, Ordering::SeqCst);
    let all = site.admin("POST /inboxes/hooks/replay?standing=dead").await.json();
    assert_eq!((&all["count"], &all["next"]), (&json!(3), &json!(null)));
    site.service.received(11).await;
    site.told("delivered", 3).await;
    assert_eq!(site.printed(&["drop", "hooks", "--dead"]).await, "0 messages of hooks were discarded\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_what_the_admin_address_does() {
    let site = Site::start(500).await;
    let id = site.send("/patient?key=hush", "Cookie: hush\r\n", b"{\"a\": 1}").await;
    site.standing("%6Frders.slow-1", "delayed", 1).await;
    let list = site.printed(&["list"]).await;
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>()[..6],
        ["inbox", "ready", "delayed", "claimed", "dead", "oldest"]
    );
    assert!(lines[1].starts_with("hooks          0      0        0        0     -"), "{list}");
    assert!(lines[2].starts_with("orders.slow-1  0      1        0        0     "), "{list}");
    let listed = site.printed(&["list", "orders.slow-1", "--standing", "delayed"]).await;
    assert!(listed.contains(&id) && listed.contains("POST /patient?key=[redacted]"), "{listed}");
    assert_eq!(site.printed(&["list", "orders.slow-1", "--dead"]).await, "orders.slow-1 has no dead messages\n");
    let shown = site.printed(&["show", "orders.slow-1", &id, "--body"]).await;
    assert!(shown.ends_with("\n\n{\"a\": 1}\n") && !shown.contains("hush"), "{shown}");
    assert!(shown.contains("\nwhy         the service answered 500\n"), "{shown}");
    assert!(!site.printed(&["show", "orders.slow-1", &id]).await.contains("\"a\""));
    let whole: Value = serde_json::from_str(&site.printed(&["show", "orders.slow-1", &id, "--json"]).await).unwrap();
    assert_eq!((&whole["id"], &whole["body_cut"]), (&json!(id), &json!(true)));

    site.status.store(200, Ordering::SeqCst);
    assert_eq!(site.printed(&["replay", "orders.slow-1", &id]).await, format!("{id} of orders.slow-1 was replayed\n"));
    site.service.received(2).await;
    site.told("delivered", 1).await;
    for (arguments, message) in [
        (vec!["show", "orders.slow-1", &id], "no such message"),
        (vec!["drop", "orders.slow-1", &id], "no such message"),
        (vec!["replay", "nothing", "--dead"], "no inbox has this name; there are hooks, orders.slow-1"),
        (vec!["list", "nothing"], "no inbox has this name"),
    ] {
        let output = site.command(&arguments).await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?}");
        assert!(told.contains(message), "{arguments:?}: {told}");
    }
    let nobody = command(Upstream::dead_address().await, &["list"]).await;
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("does the gateway run"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_told() {
    let site = Site::start(500).await;
    let id = site.send("/hooks/a", "", b"").await;
    site.standing("hooks", "dead", 1).await;
    for (request, status, code) in [
        ("GET /inboxes/none", 404, "NOT_FOUND"),
        ("GET /inboxes/none/1", 404, "NOT_FOUND"),
        ("GET /inboxes/hooks/1", 404, "NOT_FOUND"),
        ("GET /inboxes/hooks/%00%ff", 400, "VALIDATION_ERROR"),
        ("GET /inboxes/hooks/..%2f..%2fstatus", 404, "NOT_FOUND"),
        ("GET /inboxes/hooks/'%20OR%201=1", 404, "NOT_FOUND"),
        ("GET /inboxes/ho%6Fks/1", 404, "NOT_FOUND"),
        ("POST /inboxes/hooks/1/replay", 404, "NOT_FOUND"),
        ("DELETE /inboxes/hooks/1", 404, "NOT_FOUND"),
        ("GET /inboxes/hooks?standing=lost", 400, "VALIDATION_ERROR"),
        ("GET /inboxes/hooks?limit=0", 400, "VALIDATION_ERROR"),
        ("GET /inboxes/hooks?limit=1001", 400, "VALIDATION_ERROR"),
        ("GET /inboxes/hooks?colour=red", 400, "VALIDATION_ERROR"),
        ("DELETE /inboxes/hooks", 400, "VALIDATION_ERROR"),
        ("DELETE /inboxes/hooks?standing=claimed", 400, "VALIDATION_ERROR"),
        ("POST /inboxes/hooks/replay", 400, "VALIDATION_ERROR"),
        ("POST /inboxes/hooks/replay?standing=ready", 400, "VALIDATION_ERROR"),
        ("POST /inboxes/none/replay?standing=dead", 404, "NOT_FOUND"),
        ("POST /inboxes", 405, "METHOD_NOT_ALLOWED"),
        ("PUT /inboxes/hooks", 405, "METHOD_NOT_ALLOWED"),
        ("GET /inboxes/hooks/replay", 405, "METHOD_NOT_ALLOWED"),
        ("GET /inboxes/hooks/1/replay", 405, "METHOD_NOT_ALLOWED"),
        ("GET /inboxes/hooks/1/2/3", 404, "NOT_FOUND"),
    ] {
        let response = site.admin(request).await;
        assert_eq!(response.status, status, "{request}: {}", response.text());
        assert_eq!(response.json()["error"]["code"], code, "{request}");
    }
    let path = format!("/inboxes/hooks/{id}");
    for body_max in ["-1", "4194305", "5MiB", "much", "1.5"] {
        refused(&site.admin(&format!("GET {path}?body_max={body_max}")).await, 400, "VALIDATION_ERROR");
    }
    for body_max in ["0", "4194304", "4MiB", "1B"] {
        assert_eq!(site.admin(&format!("GET {path}?body_max={body_max}")).await.status, 200, "{body_max}");
    }
    let mut client = Client::connect(site.gateway.admin).await;
    client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
    let head = client.response_to_head().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let origin = format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a.test\r\n\r\n");
    refused(&Client::connect(site.gateway.admin).await.ask(&origin).await, 403, "FORBIDDEN");
    assert_eq!(site.admin(&format!("GET {path}")).await.status, 200, "it is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_worker_has_is_left_alone() {
    let service = Upstream::silent().await;
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&format!(
        "state: {{ file: {} }}\ndrain_timeout: 1s\nadmin: {{ bind: 127.0.0.1:0 }}\n\
         upstreams:\n  main: {{ targets: [{{ address: \"{}\" }}] }}\n\
         routes: [{{ name: hooks, match: POST /hooks, inbox: {{ upstream: main }} }}]\n",
        folder.path().join("tollgate.db").display(),
        service.address
    ))
    .await;
    let response = gateway.post("/hooks", b"x").await;
    let id = response.head.get("x-message-id").expect("an id").to_owned();
    let claimed =
        async { while gateway.ask_admin(&format!("GET /inboxes/hooks/{id}")).await.json()["standing"] != "claimed" {} };
    within("a claim", claimed).await;
    for request in [format!("POST /inboxes/hooks/{id}/replay"), format!("DELETE /inboxes/hooks/{id}")] {
        let response = gateway.ask_admin(&request).await;
        refused(&response, 409, "IN_PROGRESS");
        assert!(response.text().contains("a worker has it"), "{}", response.text());
    }
    let list = gateway.ask_admin("GET /inboxes").await.json();
    assert_eq!((&list["total"], &list["inboxes"][0]["claimed"]), (&json!(1), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_there_are_no_inboxes() {
    let gateway =
        Gateway::start("admin: { bind: 127.0.0.1:0 }\nroutes: [{ name: r, match: GET /r, respond: { body: r } }]\n")
            .await;
    for request in ["GET /inboxes", "GET /inboxes/a", "GET /inboxes/a/1", "DELETE /inboxes/a/1"] {
        let response = gateway.ask_admin(request).await;
        refused(&response, 503, "STATE_UNAVAILABLE");
        assert!(response.text().contains("inboxes need a file or Redis"), "{}", response.text());
    }
}
