//! `rate_limit` over sockets: what the platforms that use the gateway ask of it.

use std::time::Instant;

use serde_json::{Value, json};
use tollgate::identity::Digest;

use crate::harness::{Client, Gateway, Response};

const ADMIN: &str = "admin: { bind: 127.0.0.1:0 }\n";

/// A consumer whose key is its name.
pub fn consumer(name: &str, more: &str) -> String {
    let digest = Digest::of(name.as_bytes()).unwrap();
    format!("  - {{ name: {name}, keys: [{{ id: {name}-1, sha256: {digest} }}]{more} }}\n")
}

pub async fn ask(client: &mut Client, line: &str, key: &str) -> Response {
    client.ask(&format!("{line} HTTP/1.1\r\nHost: a.test\r\nX-API-Key: {key}\r\nContent-Length: 0\r\n\r\n")).await
}

/// How many requests pass until one is refused, and the refusal.
async fn until_refused(gateway: &Gateway, line: &str, key: &str) -> (usize, Response) {
    let mut client = gateway.client().await;
    for count in 0..5_000 {
        let response = ask(&mut client, line, key).await;
        if response.status != 200 {
            response.refused(429, "RATE_LIMITED");
            return (count, response);
        }
    }
    panic!("{line} is never refused");
}

/// As many pass as there are, and those that came back meanwhile.
async fn passes(gateway: &Gateway, line: &str, key: &str, limit: usize, per_second: f64) {
    let began = Instant::now();
    let (count, _) = until_refused(gateway, line, key).await;
    let back = (began.elapsed().as_secs_f64() * per_second).floor() as usize;
    assert!((limit..=limit + back).contains(&count), "{line} of {key}: {count}, not {limit} (+ {back})");
}

fn value<'a>(response: &'a Response, name: &str) -> &'a str {
    response.head.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", response.head))
}

const AGENTS: &str = "\
roles: { admin: {}, user: {}, viewer: {} }
chains:
  api:
    - rate_limit: { per: ip, rates: [600/min], bucket: address }
    - auth: { accept: [api_key] }
routes:
  - name: read
    match: GET /agents
    filters: [{ use: api }, { rate_limit: { bucket: read, rates: [100/min], by_role: { admin: 2.0, viewer: 0.5 } } }]
    respond: {}
  - name: write
    match: POST /agents
    filters: [{ use: api }, { rate_limit: { bucket: write, rates: [20/min], by_role: { admin: 2.0, viewer: 0.5 } } }]
    respond: {}
  - name: heavy
    match: POST /heavy
    filters: [{ use: api }, { rate_limit: { bucket: heavy, rates: [5/min] } }]
    respond: {}
consumers:
";

#[tokio::test(flavor = "multi_thread")]
async fn roles_have_their_share_of_reads_and_writes() {
    let people =
        [consumer("ann", ", roles: [admin]"), consumer("bob", ", roles: [user]"), consumer("eve", ", roles: [viewer]")];
    let gateway = Gateway::start(&[ADMIN, AGENTS, &people.concat()].concat()).await;
    passes(&gateway, "GET /agents", "bob", 100, 100.0 / 60.0).await;
    passes(&gateway, "GET /agents", "ann", 200, 200.0 / 60.0).await;
    passes(&gateway, "GET /agents", "eve", 50, 50.0 / 60.0).await;
    passes(&gateway, "POST /agents", "bob", 20, 20.0 / 60.0).await;
    let (_, refusal) = until_refused(&gateway, "POST /heavy", "bob").await;
    let details = &refusal.json()["error"]["details"];
    assert_eq!((&details["limit"], &details["remaining"], &details["bucket"]), (&json!(5), &json!(0), &json!("heavy")));
    let wait: u64 = value(&refusal, "retry-after").parse().unwrap();
    assert!((1..=12).contains(&wait) && details["retry_after"] == wait, "{wait}");
    let series = |result: &str, bucket: &str, route: &str| {
        format!("tollgate_rate_limit_total{{bucket=\"{bucket}\",result=\"{result}\",route=\"{route}\"}}")
    };
    let (allowed, limited) = (series("allowed", "heavy", "heavy"), series("limited", "heavy", "heavy"));
    let by_address = series("allowed", "address", "heavy");
    gateway.counts(&[(&allowed, 5.0), (&limited, 1.0), (&by_address, 6.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_its_limit_before_anybody_is_known() {
    let gateway = Gateway::start(&[AGENTS, &consumer("bob", "")].concat()).await;
    let (began, mut client, mut count) = (Instant::now(), gateway.client().await, 0);
    let refused = loop {
        // Who guesses keys meets the limit of its address.
        let response = ask(&mut client, "GET /agents", &format!("guess-{count}")).await;
        if response.status == 429 {
            break response;
        }
        response.refused(401, "UNAUTHORIZED");
        assert_eq!(value(&response, "x-ratelimit-limit"), "600");
        count += 1;
    };
    let back = (began.elapsed().as_secs_f64() * 10.0).floor() as usize;
    assert!((600..=600 + back).contains(&count), "{count} (+ {back})");
    refused.refused(429, "RATE_LIMITED");
}

const PLATFORM: &str = "\
roles: { owner: {} }
chains:
  api:
    - auth: { accept: [api_key] }
    - rate_limit: { per: key, bucket: windows, rates: [60/min, 1000/hour, 10000/day] }
routes:
  - { name: read, match: GET /inventory, filters: [{ use: api }], respond: {} }
  - name: keys
    match: { methods: [GET, POST, PUT, DELETE], path: \"/keys/{id?}\" }
    filters: [auth: { accept: [api_key] }]
    api_keys: {}
consumers:
  - name: busy
    rates: { windows: [5/hour] }
    keys:
      - { id: busy-1, sha256: BUSY1 }
      - { id: busy-2, sha256: BUSY2, rates: [7/hour] }
";

fn platform() -> String {
    let digest = |key: &str| Digest::of(key.as_bytes()).unwrap().to_string();
    let busy = PLATFORM.replace("BUSY1", &digest("busy-1")).replace("BUSY2", &digest("busy-2"));
    [
        &*busy,
        &consumer("shop", ""),
        &consumer("console", ", scopes: [\"*\"]"),
        &consumer("clerk", ", scopes: [\"admin:api_keys\"]"),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_windows_have_to_have_room_and_keys_may_have_their_own() {
    let gateway = Gateway::start(&platform()).await;
    let first = ask(&mut gateway.client().await, "GET /inventory", "shop").await;
    let policy = "\"windows-minute\";q=60;w=60, \"windows-hour\";q=1000;w=3600, \"windows-day\";q=10000;w=86400";
    assert_eq!(value(&first, "ratelimit-policy"), policy);
    assert_eq!(value(&first, "ratelimit"), "\"windows-minute\";r=59;t=1");
    passes(&gateway, "GET /inventory", "shop", 59, 1.0).await;
    assert_eq!(until_refused(&gateway, "GET /inventory", "busy-1").await.0, 5, "that of the consumer");
    let (count, refusal) = until_refused(&gateway, "GET /inventory", "busy-2").await;
    assert_eq!(count, 7, "that of the key");
    assert_eq!(value(&refusal, "ratelimit-policy"), "\"windows-hour\";q=7;w=3600");
}

async fn api(gateway: &Gateway, key: &str, line: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let head = format!("Host: a.test\r\nX-API-Key: {key}\r\nContent-Type: application/json");
    let request = format!("{line} HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let response = gateway.ask(&request).await;
    (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn managed_keys_have_rates_of_their_own_and_a_change_keeps_what_is_used() {
    let gateway = Gateway::start(&platform()).await;
    let (status, made) =
        api(&gateway, "console", "POST /keys", &json!({ "name": "till", "rates": { "windows": ["3/hour"] } })).await;
    assert_eq!((status, &made["rates"]), (201, &json!({ "windows": ["3/hour"] })), "{made:#}");
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let one = format!("PUT /keys/{id}");
    assert_eq!(until_refused(&gateway, "GET /inventory", key).await.0, 3);
    let (status, changed) = api(&gateway, "console", &one, &json!({ "rates": ["10/hour"] })).await;
    assert_eq!((status, &changed["rates"]), (200, &json!(["10/hour"])));
    assert_eq!(until_refused(&gateway, "GET /inventory", key).await.0, 7, "3 are used");
    let (_, shown) = api(&gateway, "console", &format!("GET /keys/{id}"), &Value::Null).await;
    assert_eq!(shown["rates"], json!(["10/hour"]));
    let (status, _) = api(&gateway, "clerk", &one, &json!({ "description": "mine" })).await;
    assert_eq!(status, 403, "who could not give these rates cannot touch the key");
    let (status, changed) = api(&gateway, "console", &one, &json!({ "rates": null })).await;
    assert_eq!((status, &changed["rates"]), (200, &Value::Null));
    let response = ask(&mut gateway.client().await, "GET /inventory", key).await;
    assert_eq!((response.status, value(&response, "x-ratelimit-limit")), (200, "60"));
    for bad in [json!("9/min"), json!([]), json!(["9"]), json!({}), json!({ "windows": ["1/min", "2/min"] })] {
        let (status, refused) = api(&gateway, "console", &one, &json!({ "rates": bad })).await;
        assert_eq!((status, &refused["error"]["details"]["field"]), (400, &json!("rates")), "{refused:#}");
    }
    let (status, refused) = api(&gateway, "clerk", "POST /keys", &json!({ "name": "x", "rates": ["9/min"] })).await;
    assert_eq!((status, &refused["error"]["details"]["field"]), (403, &json!("rates")), "{refused:#}");
}

const NUDGE: &str = "\
chains:
  api: [auth: { accept: [api_key] }]
routes:
  - { name: commits, match: GET /commits, filters: [{ use: api }, { rate_limit: { bucket: reads, rates: [9/hour] } }], upstream: main }
  - { name: commit, match: \"GET /commits/{id}\", filters: [{ use: api }, { rate_limit: { bucket: reads, rates: [9/hour] } }], upstream: main }
  - { name: track, match: POST /commits, filters: [{ use: api }, { rate_limit: { bucket: writes, rates: [4/hour] } }], upstream: main }
  - { name: trends, match: GET /trends, filters: [{ use: api }, { rate_limit: { bucket: analytics, rates: [6/hour], cost: 2 } }], upstream: main }
  - { name: send, match: POST /send, filters: [{ use: api }, { rate_limit: { bucket: notifications, rates: [2/hour] } }], upstream: main }
consumers:
";

#[tokio::test(flavor = "multi_thread")]
async fn reads_writes_analytics_and_notifications_count_apart() {
    let upstream = crate::harness::Upstream::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-RateLimit-Limit: 7777\r\nRateLimit: \"theirs\";r=1\r\n\r\n",
    )
    .await;
    let main = format!("upstreams: {{ main: {{ targets: [{{ address: \"{}\" }}] }} }}\n", upstream.address);
    let gateway = Gateway::start(&[&*main, NUDGE, &consumer("craft", "")].concat()).await;
    let mut client = gateway.client().await;
    let first = ask(&mut client, "GET /commits", "craft").await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!((first.status, value(&first, "x-ratelimit-limit")), (200, "9"), "not that of the service");
    assert_eq!(first.head.all("ratelimit").len(), 1, "nor here");
    assert_eq!(value(&first, "x-ratelimit-remaining"), "8");
    let reset: u64 = value(&first, "x-ratelimit-reset").parse().unwrap();
    assert!((now + 390..=now + 402).contains(&reset), "one of 9 in an hour comes back in 400 s: {}", reset - now);
    assert_eq!(until_refused(&gateway, "GET /commits/7", "craft").await.0, 8, "two routes share a bucket");
    assert_eq!(until_refused(&gateway, "POST /commits", "craft").await.0, 4);
    assert_eq!(until_refused(&gateway, "GET /trends", "craft").await.0, 3, "each costs two");
    assert_eq!(until_refused(&gateway, "POST /send", "craft").await.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_may_be_switched_off_or_only_observe() {
    let yaml = |mode: &str| {
        format!(
            "{ADMIN}routes:\n  - {{ name: all, match: GET /x, filters: [rate_limit: {{ bucket: b, rates: [2/hour], mode: {mode} }}], respond: {{}} }}\n"
        )
    };
    let gateway = Gateway::start(&yaml("observe")).await;
    let mut client = gateway.client().await;
    for _ in 0..5 {
        let response = client.get("/x").await;
        assert!(response.status == 200 && !response.head.has("x-ratelimit-limit"));
    }
    let observed = "tollgate_rate_limit_total{bucket=\"b\",result=\"observed\",route=\"all\"}";
    gateway.counts(&[(observed, 3.0)]).await;
    let file = gateway.folder.read("gateway.yaml");
    gateway.folder.write("gateway.yaml", &file.replace("observe", "off"));
    gateway.reload_well().await;
    for _ in 0..5 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    gateway.folder.write("gateway.yaml", &file.replace("observe", "enforce"));
    gateway.reload_well().await;
    client.get("/x").await.refused(429, "RATE_LIMITED");
}
