//! The access log.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{documented, entries, eventually, folder, gateway};
use crate::harness::{Gateway, Upstream, all_to, answer, within};

const JSON: &str = "to: DIRaccess.log";

/// Ends the gateway and reads its access log: whatever it held back is written by then.
async fn log_of(mut gateway: Gateway) -> Vec<Value> {
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
    entries(&gateway.folder.read("access.log"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_one_line_that_says_what_happened() {
    let upstream = Upstream::answering(answer(201, b"created")).await;
    // The SHA-256 of `a-key`.
    let key = "2a8a1240f50636655520ac8ed22aa29473b8517b4abfdbc3bc03bcad73fc8849";
    let consumers = format!("consumers: [{{ name: dashboard, keys: [{{ id: k-1, sha256: {key} }}] }}]\n");
    let routes = all_to(&upstream).replace("/{*rest}", "POST /a/{*rest}");
    let routes = routes.replace(", upstream: main", ", filters: [auth: { accept: [api_key] }], upstream: main");
    let yaml = [consumers, routes].concat();
    let gateway = gateway(JSON, &yaml).await;
    let mut client = gateway.client().await;
    let peer = client.0.stream.local_addr().unwrap();
    let response = client
        .ask(
            "POST /a//b/../%63?q=1&api_token=hunter2 HTTP/1.1\r\nHost: A.test\r\nContent-Length: 5\r\nUser-Agent: \"x\\\u{1b}\r\nX-API-Key: a-key\r\n\
             Referer: https://u:hunter3@b.test/p?session=hunter4&z=1\r\n\r\nhello"
                .replace('\u{1b}', "")
                .as_str(),
        )
        .await;
    let refused = client.get("/a/b").await;
    refused.refused(405, "METHOD_NOT_ALLOWED");
    let nowhere = client.get("/nowhere?").await;
    nowhere.refused(404, "NOT_FOUND");
    drop(client);
    let log = log_of(gateway).await;
    assert_eq!(log.len(), 3, "{log:#?}");

    let first = &log[0];
    let text = |key: &str| first[key].as_str().unwrap_or_else(|| panic!("no {key} in {first:#}"));
    assert_eq!(text("request_id"), response.head.get("x-request-id").unwrap());
    assert_eq!(text("client"), peer.ip().to_string());
    assert_eq!((text("method"), text("host"), text("version")), ("POST", "a.test", "HTTP/1.1"));
    assert_eq!((text("path"), text("query")), ("/a//b/../%63", "q=1&api_token=[redacted]"), "as the client sent it");
    assert_eq!(upstream.only().target, "/a/c?q=1&api_token=hunter2");
    assert_eq!((&first["status"], first.get("error")), (&json!(201), None));
    assert_eq!((text("route"), text("consumer"), text("upstream")), ("all", "dashboard", "main"));
    assert_eq!(text("target"), upstream.address.to_string());
    assert_eq!((&first["bytes_in"], &first["bytes_out"], &first["attempts"]), (&json!(5), &json!(7), &json!(1)));
    assert_eq!(text("referer"), "https://b.test/p?session=[redacted]&z=1");
    assert_eq!(text("user_agent"), "\"x\\");
    let [whole, upstream_part] = ["duration_ms", "upstream_duration_ms"].map(|key| first[key].as_f64().unwrap());
    assert!(0.0 < upstream_part && upstream_part <= whole && whole < 30_000.0, "{first:#}");
    assert!(text("time").ends_with('Z') && text("time").len() == "2026-01-01T12:00:00.000Z".len());

    for (entry, response, code) in [(&log[1], &refused, "METHOD_NOT_ALLOWED"), (&log[2], &nowhere, "NOT_FOUND")] {
        assert_eq!((&entry["status"], &entry["error"]), (&json!(response.status), &json!(code)));
        assert_eq!(entry["request_id"], response.head.get("x-request-id").unwrap());
        assert_eq!((&entry["bytes_out"], &entry["attempts"]), (&json!(response.body.len()), &json!(0)));
        assert_eq!((entry.get("upstream"), entry.get("target")), (None, None));
    }
    // Together they have every field there is, and the page lists them.
    let mut keys: BTreeSet<&str> = BTreeSet::new();
    for entry in &log {
        keys.extend(entry.as_object().unwrap().keys().map(String::as_str));
    }
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), documented("The access log"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_499_and_a_dead_service_is_502() {
    let silent = Upstream::silent().await;
    let dead = Upstream::dead_address().await;
    let yaml = format!(
        "upstreams:\n  silent: {{ targets: [{{ address: \"{}\" }}] }}\n  dead: {{ targets: [{{ address: \"{dead}\" }}] }}\n\
         routes:\n  - {{ name: silent, match: /silent, upstream: silent }}\n  - {{ name: dead, match: /dead, upstream: dead }}\n",
        silent.address
    );
    let gateway = gateway(JSON, &yaml).await;
    let mut leaving = gateway.client().await;
    leaving.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n").await;
    silent.received(1).await;
    drop(leaving);
    gateway.counts(&[("tollgate_requests_in_flight{route=\"silent\"}", 0.0)]).await;
    gateway.get("/dead").await.refused(502, "BAD_GATEWAY");
    let log = log_of(gateway).await;
    assert_eq!(log.len(), 2, "{log:#?}");
    assert_eq!((&log[0]["status"], &log[0]["route"], &log[0]["bytes_out"]), (&json!(499), &json!("silent"), &json!(0)));
    assert_eq!((&log[1]["status"], &log[1]["error"]), (&json!(502), &json!("BAD_GATEWAY")));
    assert_eq!((&log[1]["target"], log[1].get("upstream_duration_ms")), (&json!(dead.to_string()), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_requests_are_logged_alike() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(JSON, &all_to(&upstream)).await;
    let response = gateway.h2().await.post("/x?token=hunter2", b"hello".to_vec()).await;
    let log = log_of(gateway).await;
    assert_eq!(log.len(), 1, "{log:#?}");
    let entry = &log[0];
    assert_eq!(entry["request_id"], response.fields["x-request-id"].to_str().unwrap());
    assert_eq!((&entry["version"], &entry["host"], &entry["path"]), (&json!("HTTP/2"), &json!("a.test"), &json!("/x")));
    assert_eq!((&entry["bytes_in"], &entry["bytes_out"]), (&json!(5), &json!(5)));
    assert_eq!(entry["query"], "token=[redacted]");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_combined_format_is_that_of_apache_and_nginx() {
    let upstream = Upstream::echo().await;
    let mut gateway = gateway("to: DIRaccess.log, format: combined", &all_to(&upstream)).await;
    let request = "POST /x?key=hunter2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nUser-Agent: a \"b\"\r\n\
                   Referer: http://b.test/?code=hunter3\r\n\r\nhello";
    gateway.ask(request).await;
    gateway.signal("TERM");
    gateway.ended().await;
    let text = gateway.folder.read("access.log");
    let line = regex::Regex::new(
        r#"^127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "POST /x\?key=\[redacted\] HTTP/1\.1" 200 5 "http://b\.test/\?code=\[redacted\]" "a \\x22b\\x22"\n$"#,
    );
    assert!(line.unwrap().is_match(&text), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_renamed_is_made_anew_on_sigusr1_and_no_line_is_lost() {
    let upstream = Upstream::echo().await;
    let mut gateway = gateway(JSON, &all_to(&upstream)).await;
    let address = gateway.address;
    let asking = tokio::spawn(async move {
        let mut client = crate::harness::Client::connect(address).await;
        let mut ids = BTreeSet::new();
        for _ in 0..400 {
            ids.insert(client.get("/x").await.head.get("x-request-id").unwrap().to_owned());
        }
        ids
    });
    for round in 1..=3 {
        upstream.received(round * 100).await;
        std::fs::rename(gateway.folder.path("access.log"), gateway.folder.path(&format!("old.{round}"))).unwrap();
        gateway.signal("USR1");
        eventually("a new file", || gateway.folder.path("access.log").exists()).await;
    }
    let sent = within("the requests", asking).await.unwrap();
    gateway.signal("TERM");
    gateway.ended().await;
    let files = ["old.1", "old.2", "old.3", "access.log"].map(|name| gateway.folder.read(name));
    let logged: Vec<_> = files.iter().flat_map(|text| entries(text)).collect();
    assert_eq!(logged.len(), 400);
    assert_eq!(
        logged.iter().map(|entry| entry["request_id"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(),
        sent
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sigusr1_makes_the_file_although_nothing_happens() {
    let mut gateway = Gateway::start_in(folder(JSON, "")).await;
    gateway.folder.remove("access.log");
    gateway.signal("USR1");
    eventually("a new file", || gateway.folder.path("access.log").exists()).await;
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_bounds_each_file_and_how_many_there_are() {
    let upstream = Upstream::echo().await;
    let mut gateway = gateway("to: DIRaccess.log, rotate: 4KiB, keep: 2", &all_to(&upstream)).await;
    let mut client = gateway.client().await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(client.get("/x").await.head.get("x-request-id").unwrap().to_owned());
    }
    drop(client);
    gateway.signal("TERM");
    gateway.ended().await;
    let mut logged = Vec::new();
    for name in ["access.log.2", "access.log.1", "access.log"] {
        let text = gateway.folder.read(name);
        assert!(!text.is_empty() && text.len() <= 4096, "{name}: {} bytes", text.len());
        logged.extend(entries(&text).into_iter().map(|entry| entry["request_id"].as_str().unwrap().to_owned()));
    }
    assert!(!gateway.folder.path("access.log.3").exists());
    assert!(logged.len() > 20, "{}", logged.len());
    assert_eq!(logged, ids[100 - logged.len()..], "the latest, in order");
}
