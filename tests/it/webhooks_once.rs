//! A webhook passes once: at the same moment, later, over several gateways, and when something dies on the way.

use std::fmt::Write as _;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::{Folder, Gateway, RedisServer, Response, Upstream, answer, within};

const SECRET: &str = "it-is-a-secret-to-everybody";

/// A message as GitHub sends it.
fn signed(path: &str, body: &str, secret: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let mut signature = String::new();
    for byte in mac.finalize().into_bytes() {
        write!(signature, "{byte:02x}").unwrap();
    }
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a.test\r\nX-Hub-Signature-256: sha256={signature}\r\n\
         X-GitHub-Delivery: chosen-by-anybody\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn message(body: &str) -> String {
    signed("/hooks?token=hush", body, SECRET)
}

/// Routes `hooks` and `strict`, to one upstream.
fn yaml(upstream: &Upstream, head: &str) -> String {
    let route = |name: &str, more: &str| {
        let filter = format!("webhook: {{ preset: github, secrets: [{SECRET}]{more} }}");
        format!("  - {{ name: {name}, match: POST /{name}, filters: [{filter}], upstream: main }}\n")
    };
    format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nadmin: {{ bind: 127.0.0.1:0 }}\nthreads: 2\n\
         access_log: {{ to: none }}\n{head}upstreams:\n  main: {{ targets: [{{ address: \"{}\" }}] }}\nroutes:\n{}{}",
        upstream.address,
        route("hooks", ""),
        route("strict", ", on_replay: refuse"),
    )
}

async fn gateway(upstream: &Upstream, head: &str) -> Gateway {
    Gateway::start_in(Folder::with(&[("gateway.yaml", &yaml(upstream, head))])).await
}

/// A service that answers each request with the next status, once it is told to. The last one stays.
async fn service(statuses: &'static [u16]) -> (Upstream, watch::Sender<bool>) {
    let (open, opened) = watch::channel(false);
    let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let upstream = Upstream::scripted(move |mut conn| {
        let (mut opened, seen) = (opened.clone(), Arc::clone(&seen));
        async move {
            while conn.request().await.is_some() {
                let number = seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                if opened.wait_for(|open| *open).await.is_err() {
                    return;
                }
                conn.send(answer(statuses[number.min(statuses.len() - 1)], b"done")).await;
            }
        }
    })
    .await;
    (upstream, open)
}

/// Twenty at once, over these gateways: what they were told, in the order they were told it.
async fn twenty(gateways: &[Gateway]) -> JoinSet<Response> {
    let mut asked = JoinSet::new();
    for number in 0..20 {
        let mut client = gateways[number % gateways.len()].client().await;
        asked.spawn(async move { client.ask(&message("{\"at\":\"once\"}")).await });
    }
    asked
}

/// What a message is told when the one before it has ended: the store learns of that a moment after its sender did.
async fn settled(gateway: &Gateway, body: &str) -> Response {
    let told = async {
        loop {
            let told = gateway.ask(&message(body)).await;
            if !told.is_refusal("IN_PROGRESS") {
                break told;
            }
        }
    };
    within("the end of the one before", told).await
}

/// One passes and waits for the service; nineteen are told to come later; after that all are told that it got through.
async fn once(gateways: &[Gateway], upstream: &Upstream, open: &watch::Sender<bool>) {
    let mut asked = twenty(gateways).await;
    for _ in 0..19 {
        let told = within("an answer", asked.join_next()).await.unwrap().unwrap();
        told.refused(409, "IN_PROGRESS");
        assert_eq!(told.head.get("retry-after"), Some("1"));
    }
    upstream.received(1).await;
    open.send_replace(true);
    let first = within("the first", asked.join_next()).await.unwrap().unwrap();
    assert_eq!((first.status, &*first.body), (200, &b"done"[..]));
    for gateway in gateways {
        let told = settled(gateway, "{\"at\":\"once\"}").await;
        assert_eq!((told.status, &*told.body), (200, &b""[..]));
    }
    assert_eq!(upstream.only().body, b"{\"at\":\"once\"}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message_twenty_times_at_once_is_let_through_once() {
    let state = tempfile::tempdir().unwrap();
    let file = format!("state: {{ file: {} }}\n", state.path().join("state.db").display());
    for head in ["", &file] {
        let (upstream, open) = service(&[200]).await;
        let gateway = gateway(&upstream, head).await;
        once(&[gateway], &upstream, &open).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_with_one_redis_let_it_through_once() {
    let redis = RedisServer::start().await;
    let (upstream, open) = service(&[200]).await;
    let head = redis.state("5s");
    let gateways = [gateway(&upstream, &head).await, gateway(&upstream, &head).await];
    for gateway in &gateways {
        gateway.counts(&[("tollgate_replay_store_up", 1.0)]).await;
    }
    once(&gateways, &upstream, &open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_each_gateway_goes_by_what_it_knows() {
    let mut redis = RedisServer::start().await;
    let (upstream, open) = service(&[200]).await;
    open.send_replace(true);
    let head = redis.state("5s");
    let (mut one, other) = (gateway(&upstream, &head).await, gateway(&upstream, &head).await);
    for gateway in [&one, &other] {
        gateway.counts(&[("tollgate_replay_store_up", 1.0)]).await;
    }
    assert_eq!(one.ask(&message("before")).await.text(), "done");
    assert_eq!(settled(&other, "before").await.text(), "");
    redis.kill();
    assert_eq!(one.ask(&message("before")).await.text(), "", "it got through a moment ago");
    assert_eq!(one.ask(&message("meanwhile")).await.text(), "done");
    assert_eq!(one.ask(&message("meanwhile")).await.text(), "");
    // The other one has to have noticed, too: only then does it say when it has the store again.
    assert_eq!(other.ask(&message("elsewhere")).await.text(), "done");
    other.counts(&[("tollgate_replay_store_up", 0.0)]).await;
    one.logged("messages that come again are told by each gateway alone").await;
    one.counts(&[("tollgate_replay_store_up", 0.0), ("tollgate_replay_untold_total", 0.0)]).await;
    redis.run().await;
    one.logged("messages that come again are told by the state store again").await;
    other.counts(&[("tollgate_replay_store_up", 1.0)]).await;
    // What got through meanwhile is made known, at the latest when the gateway ends.
    one.stop().await;
    assert_eq!(other.ask(&message("meanwhile")).await.text(), "");
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_upstream_failed_is_let_through_again() {
    let (upstream, open) = service(&[500, 404, 302, 204]).await;
    open.send_replace(true);
    let gateway = gateway(&upstream, "").await;
    for status in [500, 404, 302, 204] {
        assert_eq!(settled(&gateway, "{}").await.status, status);
    }
    assert_eq!(settled(&gateway, "{}").await.status, 200);
    assert_eq!(upstream.requests().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_sender_left_is_let_through_again() {
    let (upstream, open) = service(&[200]).await;
    let gateway = gateway(&upstream, "").await;
    let mut leaves = gateway.client().await;
    leaves.send(message("{}")).await;
    upstream.received(1).await;
    drop(leaves);
    // Not before: an answer that comes while the gateway has not noticed yet is one that got through.
    let opens = async {
        upstream.received(2).await;
        open.send_replace(true);
    };
    let (again, ()) = tokio::join!(settled(&gateway, "{}"), opens);
    assert_eq!(again.text(), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_keeps_outlives_the_gateway() {
    let state = tempfile::tempdir().unwrap();
    let head = format!("state: {{ file: {} }}\n", state.path().join("state.db").display());
    let (upstream, open) = service(&[200]).await;
    // One is on its way when the gateway is killed.
    let mut first = gateway(&upstream, &head).await;
    let mut waits = first.client().await;
    waits.send(message("on its way")).await;
    upstream.received(1).await;
    first.signal("KILL");
    first.ended().await;
    let second = gateway(&upstream, &head).await;
    // Nobody knows what became of it: for a minute it is not risked.
    second.ask(&message("on its way")).await.refused(409, "IN_PROGRESS");
    open.send_replace(true);
    assert_eq!(second.ask(&message("got through")).await.text(), "done");
    // The store learns of it before the gateway has ended.
    second.stop().await;
    let third = gateway(&upstream, &head).await;
    let told = third.ask(&message("got through")).await;
    assert_eq!((told.status, told.text()), (200, ""));
    assert_eq!(upstream.requests().len(), 2);
    // Killed at once after an answer: whether the store learned of it or not, it does not pass within the minute.
    let mut third = third;
    assert_eq!(third.ask(&message("and then the end")).await.text(), "done");
    third.signal("KILL");
    third.ended().await;
    let fourth = gateway(&upstream, &head).await;
    let told = fourth.ask(&message("and then the end")).await;
    assert!(told.status == 409 || told.text().is_empty(), "{told:?}");
    assert_eq!(upstream.requests().len(), 3);
}

fn counted(result: &str) -> String {
    format!("tollgate_webhooks_total{{provider=\"github\",result=\"{result}\",route=\"hooks\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_webhook_is_counted_and_logged_with_its_fate() {
    let (upstream, open) = service(&[201, 500]).await;
    open.send_replace(true);
    let logs = Folder::with(&[]);
    let log = format!("webhook_log: {{ to: '{}' }}\n", logs.path("webhooks.log").display());
    let gateway = gateway(&upstream, &log).await;
    // One connection, one worker: lines stay in order.
    let mut client = gateway.client().await;
    assert_eq!(client.ask(&message("good body")).await.status, 201);
    assert_eq!(client.ask(&message("good body")).await.status, 200);
    let failed = client.ask(&message("bad luck")).await;
    assert_eq!(failed.status, 500);
    client.ask(&signed("/hooks", "forged body", "another-secret-of-mine")).await.refused(401, "SIGNATURE_INVALID");
    client.ask("POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.refused(401, "SIGNATURE_MISSING");
    assert_eq!(client.ask(&signed("/strict", "good body", SECRET)).await.status, 500, "another route is another scope");
    let answered = |outcome: &str, route: &str| {
        format!("tollgate_webhooks_accepted_total{{outcome=\"{outcome}\",provider=\"github\",route=\"{route}\"}}")
    };
    gateway
        .counts(&[
            (&counted("accepted"), 2.0),
            (&counted("duplicate"), 1.0),
            (&counted("signature_invalid"), 1.0),
            (&counted("signature_missing"), 1.0),
            (&answered("delivered", "hooks"), 1.0),
            (&answered("failed", "hooks"), 1.0),
            (&answered("failed", "strict"), 1.0),
            ("tollgate_webhook_log_dropped_total", 0.0),
            ("tollgate_replay_store_up", 1.0),
        ])
        .await;
    gateway.stop().await;
    let text = logs.read("webhooks.log");
    for secret in [SECRET, "hush", "body", "chosen-by-anybody", "sha256="] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<Value> = lines
        .iter()
        .map(|line| json!([line["event"], line["route"], line["result"], line["status"], line["code"], line["bytes"]]))
        .collect();
    let expected = json!([
        ["received", "hooks", "accepted", 201, null, 9],
        ["received", "hooks", "duplicate", 200, null, 9],
        ["received", "hooks", "accepted", 500, null, 8],
        ["received", "hooks", "signature_invalid", 401, "SIGNATURE_INVALID", 11],
        ["received", "hooks", "signature_missing", 401, "SIGNATURE_MISSING", 0],
        ["received", "strict", "accepted", 500, null, 9],
    ]);
    assert_eq!(Value::from(told), expected);
    assert_eq!(lines[0]["delivery"], lines[1]["delivery"], "one message");
    assert_eq!(lines[0]["delivery"].as_str().map(str::len), Some(32));
    assert_ne!(lines[0]["delivery"], lines[2]["delivery"]);
    assert!(lines[3].get("delivery").is_none() && lines[4].get("delivery").is_none(), "not verified, not named");
    assert_eq!(lines[2]["request_id"].as_str(), failed.head.get("x-request-id"));
    assert_eq!((&lines[0]["client"], &lines[0]["provider"]), (&json!("127.0.0.1"), &json!("github")));
}

/// Whoever sends the same bytes to two addresses means both.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_two_routes_of_one_chain_arrives_at_both_once() {
    let upstream = Upstream::echo().await;
    let yaml = format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nthreads: 2\naccess_log: {{ to: none }}\n\
         chains: {{ github: [{{ webhook: {{ preset: github, secrets: [{SECRET}] }} }}] }}\n\
         upstreams:\n  main: {{ targets: [{{ address: \"{}\" }}] }}\nroutes:\n  \
         - {{ name: billing, match: POST /billing, filters: [{{ use: github }}], upstream: main }}\n  \
         - {{ name: audit, match: POST /audit, filters: [{{ use: github }}], upstream: main }}\n",
        upstream.address
    );
    let gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", &yaml)])).await;
    for body in ["{\"paid\":1}", ""] {
        for path in ["/billing", "/audit"] {
            assert_eq!(gateway.ask(&signed(path, "{\"paid\":1}", SECRET)).await.text(), body, "{path}");
        }
    }
    let targets: Vec<String> = upstream.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/billing", "/audit"]);
}
