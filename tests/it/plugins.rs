//! Plugins in the real gateway: heads and bodies of both directions, failures, reloads.

mod assembly;
mod calls;
mod engines;
mod guests;
mod ours;
mod sdk_examples;
mod trailers;
mod waiting;

use crate::harness::{Client, Folder, Gateway, Upstream, all_to, answer, chunked, noise};

/// A gateway with these plugins before everything, and a file for each of them.
async fn start(upstream: &Upstream, plugins: &[(&str, Vec<u8>, &str)]) -> Gateway {
    Gateway::start_in(folder(&all_to(upstream), plugins)).await
}

fn folder(routes: &str, plugins: &[(&str, Vec<u8>, &str)]) -> Folder {
    let filters = plugins.iter().map(|(name, _, more)| format!("      - plugin: {{ file: {name}.wasm{more} }}\n"));
    let filters: String = filters.collect();
    let folder = Folder::with(&[("gateway.yaml", &yaml(routes, &filters))]);
    for (name, file, _) in plugins {
        std::fs::write(folder.path(&format!("{name}.wasm")), file).unwrap();
    }
    folder
}

fn yaml(routes: &str, filters: &str) -> String {
    format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nadmin: {{ bind: 127.0.0.1:0 }}\n\
         defaults:\n  filters:\n{filters}{routes}"
    )
}

async fn ask(client: &mut Client, fields: &str) -> crate::harness::Response {
    client.ask(&format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_of_both_directions_are_changed_by_several_plugins() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream, &[("one", guests::marks(), ""), ("two", guests::marks(), "")]).await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        let response = client.get("/x").await;
        assert_eq!((response.status, response.head.all("x-plugin")), (200, vec!["yes", "yes"]));
        assert_eq!(upstream.last().head.all("x-plugin"), ["yes", "yes"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_answers_in_place_of_the_service() {
    let upstream = Upstream::echo().await;
    let plugins = [("mark", guests::marks(), ""), ("gate", guests::refuses(), ""), ("last", guests::marks(), "")];
    let gateway = start(&upstream, &plugins).await;
    let mut client = gateway.client().await;
    let response = ask(&mut client, "").await;
    assert_eq!((response.status, response.text()), (403, "no"));
    assert_eq!(response.head.all("x-plugin"), ["yes"], "it passes those before it, and not those behind it");
    assert!(upstream.requests().is_empty());
    let response = ask(&mut client, "X-Ok: 1\r\n").await;
    assert_eq!((response.status, response.head.all("x-plugin").len()), (200, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_replaced() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nX-Ok: 1\r\nContent-Length: 1000\r\n\r\nhalf").await;
    let gateway = start(&upstream, &[("mark", guests::marks(), ""), ("gate", guests::replaces(), "")]).await;
    let response = gateway.get("/x").await;
    assert_eq!((response.status, response.text()), (403, "no"));
    assert_eq!(response.head.all("x-plugin"), ["yes"]);
    // An answer of the gateway's own as well.
    let routes = "routes:\n  - { name: own, match: GET /x, respond: { headers: { X-Ok: \"1\" }, body: own } }\n";
    let gateway = Gateway::start_in(folder(routes, &[("gate", guests::replaces(), "")])).await;
    let mut client = gateway.client().await;
    for _ in 0..2 {
        let response = ask(&mut client, "").await;
        assert_eq!((response.status, response.text()), (403, "no"), "and the connection goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_both_directions_are_changed() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream, &[("quote", guests::quotes(), ", limits: { body: 2MiB }")]).await;
    let mut client = gateway.client().await;
    for size in [1, 1000, 70_000, 1_000_000] {
        let body = noise(size);
        let response = client.post("/x", &body).await;
        assert!(upstream.last().body == [b">", &body[..]].concat(), "{size}");
        assert_eq!(response.status, 200, "{size}");
        assert!(response.body == [b">>", &body[..]].concat(), "{size}");
        let head = "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send([head.as_bytes(), &chunked(&body, 5000)].concat()).await;
        assert!(client.response().await.body == [b">>", &body[..]].concat(), "{size} in chunks");
    }
    let h2 = gateway.h2().await;
    let response = h2.post("/x", noise(100_000)).await;
    assert_eq!(response.body.len(), 100_002);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_gateway_passes_with_its_body() {
    let routes = "routes:\n  - { name: own, match: GET /x, respond: { body: own } }\n";
    let gateway = Gateway::start_in(folder(routes, &[("quote", guests::quotes(), "")])).await;
    let mut client = gateway.client().await;
    for _ in 0..2 {
        let response = ask(&mut client, "").await;
        assert_eq!((response.status, response.text()), (200, ">own"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_has_its_bound() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream, &[("quote", guests::quotes(), ", limits: { body: 64KiB }")]).await;
    let response = gateway.post("/x", &noise(64 * 1024 - 2)).await;
    assert_eq!((response.status, response.body.len()), (200, 64 * 1024));
    let response = gateway.post("/x", &noise(64 * 1024 - 1)).await;
    assert_eq!((response.status, response.body.len()), (200, 64 * 1024), "the second mark has no room any more");
    gateway.post("/x", &noise(300_000)).await.refused(503, "PLUGIN_FAILED");
    assert_eq!(upstream.requests().iter().filter(|request| request.body.len() > 70_000).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_reaches_the_service_before_the_plugin_has_seen_the_body() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream, &[("look", guests::looks_first(), "")]).await;
    let mut client = gateway.client().await;
    let response = client.post("/x", b"five.").await;
    assert_eq!((response.status, response.text()), (200, ">five."));
    assert_eq!(upstream.last().head.get("content-length"), Some("6"));
    let response = client.post("/x", b"six...").await;
    assert_eq!((response.status, response.text()), (403, "no"));
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(client.get("/x").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_costs_one_request() {
    let upstream = Upstream::answering(answer(200, b"fine")).await;
    let gateway = start(&upstream, &[("fail", guests::fails(), ", limits: { time: 50ms }")]).await;
    for place in [1, 6] {
        let response = gateway.ask(&format!("GET /x HTTP/1.1\r\nHost: a.test\r\nX-Fail: {place}\r\n\r\n")).await;
        response.refused(503, "PLUGIN_FAILED");
        assert_eq!(gateway.get("/x").await.text(), "fine");
    }
    let head = "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nX-Fail: 2\r\n\r\nabc";
    gateway.ask(head).await.refused(503, "PLUGIN_FAILED");
    gateway.ask("GET /x HTTP/1.1\r\nHost: a.test\r\nX-Fail: 3\r\n\r\n").await.refused(503, "PLUGIN_FAILED");
    // When the head of the answer is gone, it is cut off.
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\nX-Fail: 4\r\n\r\n").await;
    if let Ok(response) = client.try_response(false).await {
        response.refused(503, "PLUGIN_FAILED");
    }
    // Nor is the client harmed by what fails behind its answer.
    assert_eq!(ask(&mut gateway.client().await, "X-Fail: 5\r\n").await.text(), "fine");
    assert_eq!(gateway.get("/x").await.text(), "fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_is_skipped_where_that_is_said() {
    let upstream = Upstream::echo().await;
    let skipped = ", on_failure: skip, limits: { time: 50ms }";
    let gateway = start(&upstream, &[("fail", guests::fails(), skipped), ("mark", guests::marks(), "")]).await;
    for place in 1..=6 {
        let head = format!("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nX-Fail: {place}\r\n\r\nabc");
        let response = gateway.ask(&head).await;
        assert_eq!((response.status, response.text()), (200, "abc"), "{place}");
        assert_eq!(response.head.all("x-plugin"), ["yes"], "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_is_taken_over_and_a_broken_one_is_not() {
    let upstream = Upstream::echo().await;
    let mut gateway = start(&upstream, &[("gate", guests::refuses(), "")]).await;
    let mut client = gateway.client().await;
    assert_eq!(ask(&mut client, "").await.status, 403);
    let file = gateway.folder.path("gate.wasm");
    std::fs::write(&file, guests::marks()).unwrap();
    gateway.reload_well().await;
    assert_eq!(ask(&mut client, "").await.status, 200);
    let mut broken = guests::marks();
    broken.truncate(100);
    std::fs::write(&file, broken).unwrap();
    let (status, told) = gateway.reload().await;
    assert!(status != 200 && told.to_string().contains("gate.wasm"), "{status} {told}");
    assert_eq!(ask(&mut client, "").await.head.all("x-plugin"), ["yes"], "the last good one goes on");
    gateway.logged("gate.wasm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_told_with_its_line() {
    let upstream = Upstream::echo().await;
    for (file, more, expected) in [
        (b"no wasm".to_vec(), "", "no WebAssembly"),
        (wat::parse_str("(module)").unwrap(), "", "no proxy-wasm plugin"),
        (guests::takes_no_configuration(), ", config: { a: 1 }", "returned false): not for me"),
        (guests::marks(), ", limits: { time: 0ms }", "`time` must be 1ms to 1s"),
        (guests::marks(), ", limits: { instances: 10001 }", "`instances` must be 1 to 10000"),
    ] {
        let folder = folder(&all_to(&upstream), &[("bad", file, more)]);
        let path = folder.path("gateway.yaml");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["check", "--config"])
            .arg(path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(expected) && text.contains("gateway.yaml:6:"), "{expected}: {text}");
        assert_eq!(output.status.code(), Some(64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_lose_no_request_and_keep_the_instances_of_what_did_not_change() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream, &[("mark", guests::marks(), "")]).await;
    let address = gateway.address;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking = {
        let stop = std::sync::Arc::clone(&stop);
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            let mut asked = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let response = client.get("/x").await;
                assert_eq!((response.status, response.head.all("x-plugin")), (200, vec!["yes"]));
                asked += 1;
            }
            asked
        })
    };
    let file = gateway.folder.path("mark.wasm");
    let reloads = std::env::var("TOLLGATE_PLUGIN_RELOADS").map_or(20, |count| count.parse::<u32>().unwrap());
    let mut early = 0;
    for round in 0..reloads {
        // The same plugin, and yet another file: a custom section at its end.
        let custom = [&[0, 6, 1, b'n'][..], &round.to_le_bytes()].concat();
        std::fs::write(&file, [guests::marks(), custom].concat()).unwrap();
        gateway.reload_well().await;
        if round == reloads / 5 {
            early = gateway.memory_kib("VmRSS");
        }
    }
    let late = gateway.memory_kib("VmRSS");
    assert!(late < early * 3 / 2 + 64 * 1024, "{early} KiB after a fifth of the reloads, {late} KiB after all");
    eprintln!("{reloads} reloads: {early} KiB after a fifth of them, {late} KiB after all");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(asking.await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_nothing_calls_wakes_nobody() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream, &[("fail", guests::fails(), ", limits: { time: 50ms }")]).await;
    let tasks = format!("/proc/{}/task", gateway.id());
    let wakes = || {
        let clock = std::fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path()).find(|task| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == "plugin clock")
        });
        let status = std::fs::read_to_string(clock.expect("the clock").join("status")).unwrap();
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
    };
    for _ in 0..2 {
        assert_eq!(gateway.get("/x").await.status, 200);
        let rests = async {
            loop {
                let before = wakes();
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                if wakes() == before {
                    return;
                }
            }
        };
        crate::harness::within("the clock to rest", rests).await;
        // One that hangs is ended nevertheless.
        gateway.ask("GET /x HTTP/1.1\r\nHost: a.test\r\nX-Fail: 6\r\n\r\n").await.refused(503, "PLUGIN_FAILED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nothing_would_let_go_on_is_counted_and_refused() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream, &[("pause", guests::pauses(), "")]).await;
    gateway.get("/x").await.refused(503, "PLUGIN_FAILED");
    gateway.counts(&[("tollgate_plugin_failures_total{plugin=\"pause\",reason=\"held\"}", 1.0)]).await;
    assert!(upstream.requests().is_empty());
    let gateway = start(&upstream, &[("pause", guests::pauses(), ", on_failure: skip")]).await;
    assert_eq!(gateway.get("/x").await.status, 200);
}
