//! Files that change, and files that are wrong.

use std::process::Command;

use serde_json::{Value, json};

use super::{ROOT, forwards, gateway, says};
use crate::harness::{Folder, Gateway, Upstream};

/// What `/status` says of one file.
async fn file(gateway: &Gateway, name: &str) -> Value {
    let status = gateway.status().await;
    let files = status["files"].as_array().unwrap();
    files.iter().find(|file| file["file"] == name).unwrap_or_else(|| panic!("no {name} in {status:#}")).clone()
}

/// Runs `tollgate check` on the folder of a gateway: its exit code and what it says.
fn check(gateway: &Gateway) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let output = command.arg("check").arg("--config").arg(gateway.folder.path("gateway.yaml")).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_the_admin_address_and_a_saved_file_reload() {
    let mut gateway = gateway(&says("a", "one")).await;
    assert_eq!(gateway.status().await["generation"], 1);
    gateway.signal("HUP");
    let line = gateway.logged("cause=\"signal\"").await;
    assert!(line.contains("configuration reloaded"), "{line}");
    assert_eq!(gateway.status().await["generation"], 2, "a signal reloads, changed or not");
    gateway.reload_well().await;
    let status = gateway.status().await;
    assert_eq!((&status["generation"], &status["last_reload"]["cause"]), (&json!(3), &json!("api")));
    gateway.folder.write("routes.d/main.yaml", &says("a", "two"));
    gateway.logged("cause=\"watch\"").await;
    assert_eq!(gateway.get("/a").await.text(), "two");
    let status = gateway.status().await;
    assert_eq!((&status["generation"], &status["reloads_ok"]), (&json!(4), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_fragment_keeps_its_last_good_content_and_the_others_apply() {
    let mut gateway = gateway(&says("a", "one")).await;
    gateway.folder.write("routes.d/other.yaml", &says("b", "one"));
    gateway.reload_well().await;
    let bad = says("a", "two").replace("respond", "respnd");
    gateway.folder.write("routes.d/main.yaml", &bad);
    let (status, outcome) = gateway.reload().await;
    assert_eq!((status, &outcome["files"][0]["file"]), (422, &json!("routes.d/main.yaml")), "{outcome:#}");
    gateway.folder.write("routes.d/other.yaml", &says("b", "two"));
    assert_eq!(gateway.reload().await.0, 422, "the bad one is still bad");
    assert_eq!(gateway.get("/a").await.text(), "one");
    assert_eq!(gateway.get("/b").await.text(), "two");

    let held = file(&gateway, "routes.d/main.yaml").await;
    assert_eq!((&held["ok"], &held["runs"]), (&json!(false), &json!("last_good")));
    let problem = &held["problems"][0];
    assert_eq!((&problem["file"], &problem["line"]), (&json!("routes.d/main.yaml"), &json!(2)), "{problem:#}");
    assert!(problem["text"].as_str().unwrap().contains("respnd"));
    assert_eq!(file(&gateway, "routes.d/other.yaml").await["ok"], true);
    assert!(gateway.logged("routes.d/main.yaml:2").await.contains("WARN"));
    gateway.logged("configuration reloaded in part").await;
    gateway.counts(&[("tollgate_config_file_errors{file=\"routes.d/main.yaml\"}", 1.0)]).await;
    let (code, text) = check(&gateway);
    assert_eq!(code, Some(64));
    assert!(text.contains("routes.d/main.yaml:2:") && text.contains("respnd"), "{text}");

    gateway.folder.write("routes.d/main.yaml", &says("a", "three"));
    gateway.reload_well().await;
    assert_eq!(gateway.get("/a").await.text(), "three");
    gateway.counts(&[("tollgate_config_file_errors{file=\"routes.d/main.yaml\"}", 0.0)]).await;
    assert_eq!(check(&gateway).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typo_in_the_root_file_changes_nothing_but_fragments_apply() {
    let mut gateway = gateway(&says("a", "one")).await;
    gateway.folder.write("gateway.yaml", &ROOT.replace("listeners:", "listners:"));
    let (status, outcome) = gateway.reload().await;
    assert_eq!((status, &outcome["effect"]), (422, &json!("refused")), "{outcome:#}");
    assert_eq!(file(&gateway, "gateway.yaml").await["runs"], "last_good");
    assert!(gateway.logged("gateway.yaml:2").await.contains("listners"));
    gateway.folder.write("routes.d/main.yaml", &says("a", "two"));
    gateway.reload().await;
    assert_eq!(gateway.get("/a").await.text(), "two");
    let (code, text) = check(&gateway);
    assert!(code == Some(64) && text.contains("did you mean `listeners`"), "{code:?} {text}");
    gateway.folder.write("gateway.yaml", ROOT);
    gateway.reload_well().await;
    assert_eq!(file(&gateway, "gateway.yaml").await["ok"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_test_refuses_the_reload() {
    let tests = "tests:\n  - { request: GET /a, expect: { status: 200 } }\n";
    let gateway = gateway(&(says("a", "one") + tests)).await;
    gateway.folder.write("routes.d/other.yaml", &says("b", "one"));
    gateway.folder.write("routes.d/main.yaml", &(says("renamed", "two") + tests));
    let (status, outcome) = gateway.reload().await;
    assert_eq!((status, &outcome["effect"]), (422, &json!("refused")), "{outcome:#}");
    assert_eq!(gateway.get("/a").await.text(), "one");
    gateway.get("/renamed").await.refused(404, "NOT_FOUND");
    gateway.get("/b").await.refused(404, "NOT_FOUND");
    let status = gateway.status().await;
    assert_eq!(status["generation"], 1);
    assert!(status["reloads_failed"].as_u64() >= Some(1) && status["last_error_at"].is_string());
    gateway.folder.write("routes.d/main.yaml", &(says("a", "two") + tests));
    gateway.reload_well().await;
    assert_eq!((gateway.get("/a").await.text(), gateway.get("/b").await.text()), ("two", "one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_survive_and_those_of_a_removed_route_end() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&forwards("a", upstream.address)).await;
    gateway.folder.write("routes.d/gone.yaml", &says("gone", "soon"));
    gateway.reload_well().await;
    gateway.get("/a/x").await;
    gateway.get("/gone").await;
    let kept = "tollgate_requests_total{method=\"GET\",route=\"a\",status=\"2xx\"}";
    gateway.counts(&[(kept, 1.0), (&kept.replace("\"a\"", "\"gone\""), 1.0)]).await;
    gateway.folder.remove("routes.d/gone.yaml");
    gateway.reload_well().await;
    gateway.never_counts("\"gone\"").await;
    gateway.get("/a/x").await;
    let target = format!("{{status=\"2xx\",target=\"{}\",upstream=\"a\"}}", upstream.address);
    gateway.counts(&[(kept, 2.0), (&format!("tollgate_upstream_requests_total{target}"), 2.0)]).await;
    let reloads = gateway.status().await["reloads_ok"].as_f64().unwrap();
    gateway.counts(&[("tollgate_reloads_total{result=\"ok\"}", reloads)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_signals_the_last_content_is_in_use() {
    let mut gateway = gateway(&says("a", "0")).await;
    let (address, folder) = (gateway.address, &gateway.folder);
    let asking = tokio::spawn(async move {
        let mut client = crate::harness::Client::connect(address).await;
        let mut seen: Vec<u32> = Vec::new();
        while seen.last() != Some(&200) {
            seen.push(client.get("/a").await.text().parse().unwrap());
        }
        seen
    });
    for number in 1..=200 {
        folder.write("routes.d/main.yaml", &says("a", &number.to_string()));
        gateway.signal("HUP");
    }
    let seen = crate::harness::within("the last content", asking).await.unwrap();
    assert!(seen.is_sorted(), "never an older one again: {seen:?}");
    // A signal that comes while one is waiting is the same signal, and whoever waits for a reload gets one.
    gateway.signal("HUP");
    gateway.reload_well().await;
    let status = gateway.status().await;
    assert_eq!(status["reloads_failed"], 0);
    assert!(status["reloads_ok"].as_u64() <= Some(2 * 202), "{status:#}");
    gateway.logged("cause=\"api\"").await;
    assert_eq!(gateway.get("/a").await.text(), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settings_change_that_needs_a_restart_says_so() {
    let mut gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", ROOT)])).await;
    let late = "takes effect when the gateway is started again";
    let changed = ROOT.replace("threads: 2", "threads: 1").replace("to: none", "to: stdout");
    gateway.folder.write("gateway.yaml", &(changed + "log: { level: warn }\n"));
    gateway.reload_well().await;
    for key in ["threads", "access_log", "log"] {
        gateway.logged(&format!("{late} key=\"{key}\"")).await;
    }
    let admin = gateway.admin;
    let before = gateway.lines().len();
    gateway.folder.write("gateway.yaml", &ROOT.replace("admin: { bind: 127.0.0.1:0 }", "admin: { bind: 127.0.0.2:0 }"));
    gateway.reload_well().await;
    gateway.logged_after(before, &format!("{late} key=\"admin\"")).await;
    assert_eq!((gateway.admin, gateway.ask_admin("GET /ready").await.status), (admin, 200), "it stays where it is");
    let before = gateway.lines().len();
    gateway.folder.write("gateway.yaml", ROOT);
    gateway.reload_well().await;
    gateway.logged_after(before, "cause=\"api\"").await;
    // What is as it was at the start is not mentioned; a later line shows that the look has been taken.
    gateway.folder.write("gateway.yaml", &ROOT.replace("threads: 2", "threads: 3"));
    gateway.reload_well().await;
    gateway.logged_after(before, "key=\"threads\"").await;
    assert!(!gateway.lines().iter().skip(before).any(|line| line.contains("key=\"admin\"")));
}
