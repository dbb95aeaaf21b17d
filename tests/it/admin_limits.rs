//! Live figures of limits, as an operator asks for them: at the admin address, and with `tollgate limits`.

use std::net::SocketAddr;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{Client, Folder, Gateway, RedisServer, Response, Upstream};

/// The key of `dashboard`; below is its SHA-256.
const KEY: &str = "an-example-and-no-secret";

const LIMITS: &str = r##"
admin: { bind: 127.0.0.1:0 }
consumers:
  - name: dashboard
    keys: [{ id: dashboard-2026, sha256: ed2c955ec1590d74413fd5232da4b044e2c55d30f7c20ef4bf5293f96410ebfd }]
chains:
  known:
    - auth: { accept: [api_key], optional: true }
    - rate_limit: { per: ip, rates: [1000/hour], burst: 2000, mode: observe }
routes:
  - name: tasks
    match: GET /tasks
    filters: [{ use: known }, { rate_limit: { bucket: reads, rates: [3/hour, 100/day] } }]
    respond: { body: tasks }
  - name: reports
    match: GET /reports
    filters: [{ use: known }, { rate_limit: { bucket: reads, rates: [3/hour, 100/day], cost: 2 } }]
    respond: { body: reports }
  - name: geocode
    match: GET /geocode
    filters: [{ use: known }, { quota: { bucket: monthly, limit: 4, period: month } }]
    respond: { body: places }
  - name: unlimited
    match: GET /unlimited
    respond: { body: x }
"##;

/// A refusal by the admin address.
fn refused(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.json()["error"]["code"], code);
}

async fn ask_with(gateway: &Gateway, path: &str, field: &str) -> u16 {
    gateway.ask(&format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{field}\r\n")).await.status
}

async fn as_dashboard(gateway: &Gateway, path: &str) -> u16 {
    ask_with(gateway, path, &format!("X-API-Key: {KEY}\r\n")).await
}

async fn get(gateway: &Gateway, path: &str) -> Response {
    gateway.ask_admin(&format!("GET {path}")).await
}

/// The real binary, asking the admin address.
async fn limits(admin: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["limits", "--admin", &admin.to_string()]).args(arguments);
    tokio::task::spawn_blocking(move || command.output().expect("the command runs")).await.unwrap()
}

/// What it prints when all is well.
async fn printed(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = limits(gateway.admin, arguments).await;
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it complains about.
async fn complaint(admin: SocketAddr, arguments: &[&str]) -> String {
    let output = limits(admin, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The cells of a line of a table: two spaces part them.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_limited_comes_first_and_is_let_in_again() {
    let mut gateway = Gateway::start(LIMITS).await;
    for expected in [200, 200, 200, 429] {
        assert_eq!(as_dashboard(&gateway, "/tasks").await, expected);
    }
    assert_eq!(ask_with(&gateway, "/tasks", "").await, 200, "somebody else");
    let top = printed(&gateway, &["top", "reads"]).await;
    let lines: Vec<&str> = top.lines().collect();
    assert_eq!(lines[0], "rate_limit reads: 3/hour and 100/day per consumer");
    assert_eq!(cells(lines[1]), ["WHO", "RATE", "USED", "LEFT", "LIMIT", "FULL IN", "FULL AT"]);
    let first = cells(lines[2]);
    assert_eq!((first[0], first[1], first[4]), ("consumer=dashboard", "3/hour", "3"));
    assert!(first[2].parse::<f64>().unwrap() > 2.5 && first[6].ends_with('Z'), "{first:?}");
    assert_eq!(cells(lines[3])[0], "100/day");
    assert_eq!((cells(lines[4])[0], lines.last()), ("ip=127.0.0.1", Some(&"2 callers")));
    assert_eq!(printed(&gateway, &["top", "reads", "-n", "1"]).await.lines().last(), Some("1 caller"));

    let show = printed(&gateway, &["show", "reads", "consumer=dashboard", "--json"]).await;
    let one: Value = serde_json::from_str(&show).unwrap();
    assert_eq!((&one["kind"], &one["figures"]["who"]), (&json!("rate_limit"), &json!("consumer=dashboard")));
    let (hour, day) = (&one["figures"]["rates"][0], &one["figures"]["rates"][1]);
    assert_eq!((&hour["rate"], &hour["limit"], &day["limit"]), (&json!("3/hour"), &json!(3.0), &json!(100.0)));
    let number = |value: &Value| value.as_f64().unwrap();
    assert!((number(&hour["used"]) + number(&hour["remaining"]) - 3.0).abs() < 0.01, "{one}");
    assert!((3000.0..=3600.0).contains(&number(&hour["full_in_seconds"])), "{one}");
    assert!((2.9..=3.0).contains(&number(&day["used"])), "{one}");

    let reset = printed(&gateway, &["reset", "reads", "consumer=dashboard"]).await;
    assert_eq!(reset, "consumer=dashboard was given back what it had used of reads\n");
    let line = gateway.logged("a limit was reset").await;
    assert!(line.contains("reads") && line.contains("consumer=dashboard"), "{line}");
    let gone = printed(&gateway, &["show", "reads", "consumer=dashboard"]).await;
    assert!(gone.starts_with("consumer=dashboard has nothing of reads in use"), "{gone}");
    assert_eq!(as_dashboard(&gateway, "/reports").await, 200, "that takes two");
    assert_eq!(as_dashboard(&gateway, "/reports").await, 429);
    let again = printed(&gateway, &["reset", "reads", "consumer=nobody"]).await;
    assert_eq!(again, "consumer=nobody had nothing in use of reads\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_limits_are_listed() {
    let gateway = Gateway::start(LIMITS).await;
    as_dashboard(&gateway, "/tasks").await;
    let all = get(&gateway, "/limits").await.json();
    assert_eq!(all["total"], 3);
    let [known, reads, monthly] = &all["limits"].as_array().unwrap()[..] else { panic!("{all:#}") };
    assert_eq!(
        (&known["bucket"], &known["terms"], &known["per"], &known["callers"]),
        (&json!("chain:known"), &json!("1000/hour, burst 2000"), &json!("ip"), &json!(1))
    );
    let used = &known["uses"][0];
    assert_eq!((&used["chain"], &used["mode"]), (&json!("known"), &json!("observe")));
    assert_eq!((&used["routes"], &used["routes_total"]), (&json!(["tasks", "reports", "geocode"]), &json!(3)));
    let place = used["place"].as_str().unwrap();
    assert!(place.starts_with("gateway.yaml:") && place.ends_with(":7"), "{place}");
    assert_eq!((&reads["uses"][1]["detail"], &reads["uses_total"]), (&json!("cost 2"), &json!(2)));
    assert_eq!((&monthly["kind"], &monthly["terms"]), (&json!("quota"), &json!("4 per month in UTC")));
    let table = printed(&gateway, &[]).await;
    let reads = table.lines().find(|line| line.starts_with("reads ")).unwrap();
    assert_eq!(
        cells(reads)[..8],
        ["reads", "rate_limit", "3/hour and 100/day (cost 2)", "consumer", "enforce", "here", "1", "tasks, reports"]
    );
    assert_eq!(printed(&gateway, &["--kind", "quota"]).await.lines().count(), 2);
    gateway.counts(&[("tollgate_rate_limit_buckets", 2.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_shown_and_given_back() {
    let gateway = Gateway::start(LIMITS).await;
    for expected in [200, 200, 200, 200, 429] {
        assert_eq!(as_dashboard(&gateway, "/geocode").await, expected);
    }
    assert_eq!(ask_with(&gateway, "/geocode", "").await, 200);
    let top = get(&gateway, "/limits/monthly?top=5").await.json();
    let [first, second] = &top["top"].as_array().unwrap()[..] else { panic!("{top:#}") };
    assert_eq!(
        (&first["who"], &first["used"], &first["remaining"]),
        (&json!("consumer=dashboard"), &json!(4), &json!(0))
    );
    assert_eq!((&second["who"], &second["used"], &second["limit"]), (&json!("ip=127.0.0.1"), &json!(1), &json!(4)));
    assert!(first["ends"].as_str().unwrap().ends_with("-01T00:00:00.000Z"), "{first}");
    let table = printed(&gateway, &["top", "monthly"]).await;
    assert!(table.starts_with("quota monthly: 4 per month in UTC per consumer\n"), "{table}");
    assert_eq!(cells(table.lines().nth(2).unwrap())[..4], ["consumer=dashboard", "4", "0", "4"]);
    let reset = gateway.ask_admin("DELETE /limits/monthly/consumer=dashboard").await.json();
    assert_eq!(reset["was_in_use"], true);
    for expected in [200, 200, 200, 200, 429] {
        assert_eq!(as_dashboard(&gateway, "/geocode").await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_shown_and_cannot_be_reset() {
    let silent = Upstream::silent().await;
    let yaml = format!(
        "admin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n  main: {{ targets: [{{ address: \"{}\" }}] }}\n\
         routes:\n  - name: files\n    match: GET /files\n    filters: [rate_limit: {{ rates: [9/hour], per: route }}, \
         concurrency: {{ max: 2, queue: 3 }}]\n    upstream: main\n",
        silent.address
    );
    let gateway = Gateway::start(&yaml).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = gateway.client().await;
        client.send("GET /files HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
    }
    silent.received(2).await;
    // Both filters count under the name of the route.
    let ambiguous = get(&gateway, "/limits/route:files").await;
    refused(&ambiguous, 400, "VALIDATION_ERROR");
    assert!(ambiguous.text().contains("add ?kind=rate_limit"), "{}", ambiguous.text());
    let top = get(&gateway, "/limits/route:files?kind=concurrency").await.json();
    assert_eq!(top["top"], json!([{ "who": "", "max": 2, "in_flight": 2, "waiting": 0 }]));
    assert_eq!((&top["limit"]["uses"][0]["detail"], &top["limit"]["callers"]), (&json!("3 may wait 1s"), &json!(1)));
    let table = printed(&gateway, &["--kind", "concurrency", "show", "route:files", ""]).await;
    assert_eq!(table, "WHO    IN FLIGHT  MAX  WAITING\n(all)  2          2    0\n");
    let reset = gateway.ask_admin("DELETE /limits/route:files?who=&kind=concurrency").await;
    refused(&reset, 405, "METHOD_NOT_ALLOWED");
    let reset = gateway.ask_admin("DELETE /limits/route%3Afiles/route%3Dfiles?kind=rate_limit").await.json();
    assert_eq!((&reset["who"], &reset["was_in_use"]), (&json!("route=files"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_so() {
    let gateway = Gateway::start(LIMITS).await;
    let unknown = get(&gateway, "/limits/writes").await;
    refused(&unknown, 404, "NOT_FOUND");
    assert_eq!(unknown.json()["error"]["details"]["buckets"], json!(["chain:known", "monthly", "reads"]));
    refused(&get(&gateway, "/limits/reads?kind=quota").await, 404, "NOT_FOUND");
    for (path, status) in [
        ("/limits/reads?top=0", 400),
        ("/limits/reads?top=1", 200),
        ("/limits/reads?top=1000", 200),
        ("/limits/reads?top=1001", 400),
        ("/limits/reads?top=x", 400),
        ("/limits/reads?tops=1", 400),
        ("/limits/%ff", 400),
    ] {
        assert_eq!(get(&gateway, path).await.status, status, "{path}");
    }
    refused(&gateway.ask_admin("DELETE /limits/reads").await, 400, "VALIDATION_ERROR");
    refused(&gateway.ask_admin("DELETE /limits").await, 405, "METHOD_NOT_ALLOWED");
    for path in ["/health", "/ready", "/status", "/metrics"] {
        assert_eq!(get(&gateway, path).await.status, 200, "{path}");
    }
    let text = complaint(gateway.admin, &["top", "writes"]).await;
    assert_eq!(text, "tollgate limits: no limit has this bucket; there are chain:known, monthly, reads\n");
    assert!(complaint(gateway.address, &["top", "reads"]).await.contains("is this its admin address?"));
    let nobody = Upstream::dead_address().await;
    assert!(complaint(nobody, &["top", "reads"]).await.contains("does not answer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_says_where_to_ask() {
    let gateway = Gateway::start(LIMITS).await;
    let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:8000 }]\n";
    let folder = Folder::with(&[
        ("with.yaml", &format!("{head}admin: {{ bind: \"{}\" }}\n", gateway.admin)),
        ("without.yaml", head),
        ("wrong.yaml", &format!("{head}admin: {{ bin: 1 }}\n")),
    ]);
    for (file, status, text) in [
        ("with.yaml", 0, "chain:known"),
        ("without.yaml", 64, "without.yaml has no `admin`"),
        ("wrong.yaml", 64, "unknown key `bin`"),
        ("none.yaml", 64, "none.yaml"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(["limits", "--config"]).arg(folder.path(file));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(status), "{file}: {said}");
        assert!(said.contains(text), "{file}: {said}");
        assert!(status == 0 || said.contains("--admin 127.0.0.1:9900"), "{file}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_resets_nothing() {
    let gateway = Gateway::start(LIMITS).await;
    as_dashboard(&gateway, "/tasks").await;
    let origin = "HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nConnection: close\r\n\r\n";
    for request in ["DELETE /limits/reads/consumer=dashboard", "POST /limits/reads", "POST /reload"] {
        let mut client = Client::connect(gateway.admin).await;
        refused(&client.ask(&format!("{request} {origin}")).await, 403, "FORBIDDEN");
    }
    let mut client = Client::connect(gateway.admin).await;
    let elsewhere = "GET /limits HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n";
    refused(&client.ask(elsewhere).await, 403, "FORBIDDEN");
    let one = get(&gateway, "/limits/reads/consumer=dashboard").await.json();
    assert!(one["figures"].is_object(), "{one}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_buckets_are_those_of_all_gateways() {
    let redis = RedisServer::start().await;
    let yaml = format!("{}{LIMITS}", redis.state("5s"));
    let (one, other) = (Gateway::start(&yaml).await, Gateway::start(&yaml).await);
    for gateway in [&one, &other, &one] {
        assert_eq!(as_dashboard(gateway, "/tasks").await, 200);
    }
    assert_eq!(as_dashboard(&other, "/tasks").await, 429);
    let top = get(&one, "/limits/reads").await.json();
    assert_eq!((&top["limit"]["shared"], &top["limit"]["callers"]), (&json!(true), &Value::Null));
    assert_eq!(top["top"][0]["who"], "consumer=dashboard", "{top:#}");
    let rates = &top["top"][0]["rates"];
    assert_eq!((&rates[0]["rate"], &rates[1]["rate"]), (&json!("3/hour"), &json!("100/day")), "{top:#}");
    assert!(rates[0]["used"].as_f64().unwrap() > 2.5, "{top:#}");
    assert!(printed(&other, &["reset", "reads", "consumer=dashboard"]).await.contains("given back"));
    assert_eq!(get(&one, "/limits/reads/consumer=dashboard").await.json()["figures"], Value::Null);
    assert_eq!(as_dashboard(&one, "/tasks").await, 200);
}
