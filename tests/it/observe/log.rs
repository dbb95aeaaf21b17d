//! The error log, and what the admin address says of the state of the gateway.

use super::{documented, entries, eventually, folder, gateway};
use crate::harness::{Gateway, Upstream, all_to, answer, within};

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_error_log_is_json() {
    let dead = Upstream::dead_address().await;
    let yaml = format!(
        "log: {{ format: json }}\nupstreams:\n  dead: {{ targets: [{{ address: \"{dead}\" }}] }}\n\
         routes:\n  - {{ name: dead, match: /dead, upstream: dead }}\n"
    );
    let mut gateway = gateway("to: none", &yaml).await;
    let id = gateway.get("/dead").await.head.get("x-request-id").unwrap().to_owned();
    let line = gateway.logged("a request failed").await;
    gateway.folder.write("gateway.yaml", "version: 1\nlistners: []\n");
    gateway.reload().await;
    gateway.signal("TERM");
    gateway.ended().await;
    let lines = entries(&(gateway.lines().join("\n") + "\n"));
    assert!(lines.len() >= 5 && lines.iter().all(|line| line["level"].is_string() && line["message"].is_string()));
    assert!(
        lines.iter().any(|line| line["message"].as_str().unwrap().contains("listners")),
        "with the piece of the file"
    );
    let twice = gateway.lines().into_iter().find(|line| line.matches("\"target\":").count() != 1);
    assert_eq!(twice, None, "RFC 8259: names should be unique");
    let failed = &entries(&(line + "\n"))[0];
    assert_eq!((&failed["level"], &failed["request_id"]), (&"WARN".into(), &id.into()), "{failed:#}");
    assert_eq!((&failed["upstream"], &failed["address"]), (&"dead".into(), &dead.to_string().into()), "{failed:#}");
    assert_eq!((&failed["route"], &failed["code"]), (&"dead".into(), &"BAD_GATEWAY".into()), "{failed:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_the_error_log_is_reopened_on_sigusr1() {
    let mut gateway = Gateway::spawn_in(folder("to: none", "log: { file: DIRerror.log }\n"));
    eventually("the first file", || gateway.folder.read("error.log").contains("listening")).await;
    std::fs::rename(gateway.folder.path("error.log"), gateway.folder.path("old.log")).unwrap();
    gateway.signal("USR1");
    eventually("a new file", || gateway.folder.path("error.log").exists()).await;
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
    assert!(gateway.folder.read("error.log").contains("drained"));
    assert!(!gateway.folder.read("old.log").contains("drain"));
    assert!(gateway.lines().is_empty(), "all of it is in the file: {:?}", gateway.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_says_no_while_the_gateway_drains() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if request.target == "/slow" {
                return conn.closed().await;
            }
            conn.send(answer(200, b"")).await;
        }
    })
    .await;
    let mut gateway = gateway("to: none", &all_to(&upstream)).await;
    let ready = gateway.ask_admin("GET /ready").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &true.into()));
    let mut busy = gateway.client().await;
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.received(1).await;
    assert_eq!(gateway.ask_admin("GET /status").await.json()["connections"], 1);
    gateway.signal("TERM");
    gateway.logged("draining").await;
    let ready = gateway.ask_admin("GET /ready").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (503, &false.into()));
    assert_eq!(gateway.ask_admin("GET /health").await.status, 200, "it lives");
    let status = gateway.ask_admin("GET /status").await.json();
    assert_eq!((&status["draining"], &status["connections"]), (&true.into(), &1.into()));
    drop(busy);
    assert!(within("the end", gateway.ended()).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_address_answers_what_the_page_says() {
    let gateway = gateway("to: none", "").await;
    // Those with a parameter are asked in `admin_limits.rs` and `admin_inboxes.rs`.
    let rows: Vec<String> = documented("The admin address").into_iter().filter(|row| !row.ends_with('/')).collect();
    assert_eq!(rows.len(), 8, "{rows:?}");
    for row in rows {
        // This gateway keeps no messages, and nobody may register.
        let expected = match row.as_str() {
            "GET /inboxes" => 503,
            "POST /registry/services" => 404,
            _ => 200,
        };
        assert_eq!(gateway.ask_admin(&row).await.status, expected, "{row}");
    }
    for (request, status) in [("GET /", 404), ("GET /reload", 405), ("POST /status", 405)] {
        let response = gateway.ask_admin(request).await;
        assert_eq!(response.status, status, "{request}");
        let code = if status == 404 { "NOT_FOUND" } else { "METHOD_NOT_ALLOWED" };
        assert_eq!(response.json()["error"]["code"], code, "{request}");
    }
}
