//! Services that register themselves, at several gateways with one store.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Fleet, has, is_up, routed, served, targets};
use crate::harness::{Client, Folder, Gateway, RedisServer, Response, Upstream};

const TOKEN: &str = "a-token-of-a-service";
const REGISTRY: &str = "registry:\n  tokens:\n    - { token: a-token-of-a-service, services: [main, other] }\n    \
                        - { token: another-token-of-it, services: [other] }\n  allow: [127.0.0.0/8]\n  ttl_max: 1h\n";

async fn gateway(state: &str) -> Gateway {
    Gateway::start(&[state, REGISTRY, &routed("discovery: registry")].concat()).await
}

async fn ask(gateway: &Gateway, line: &str, token: &str, body: &str) -> Response {
    let mut client = Client::connect(gateway.admin).await;
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    client.ask(&request).await
}

async fn post(gateway: &Gateway, body: &str) -> Response {
    ask(gateway, "POST /registry/services", TOKEN, body).await
}

async fn register(gateway: &Gateway, id: &str, address: SocketAddr, ttl: &str) -> u16 {
    post(gateway, &format!(r#"{{"name": "main", "id": "{id}", "address": "{address}", "ttl": "{ttl}"}}"#)).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_with_one_store_agree() {
    let (fleet, redis) = (Fleet::of(3).await, RedisServer::start().await);
    let state = redis.state("5s");
    let (one, other) = (gateway(&state).await, gateway(&state).await);
    one.get("/").await.refused(503, "UPSTREAM_UNAVAILABLE");
    assert_eq!(register(&one, "a", fleet.address(1), "30m").await, 201);
    assert_eq!(register(&other, "b", fleet.address(2), "30m").await, 201);
    for gateway in [&one, &other] {
        has(gateway, &[fleet.address(1), fleet.address(2)]).await;
        assert_eq!(served(gateway, 4).await.len(), 2);
    }
    // A heartbeat may come to any of them.
    assert_eq!(register(&other, "a", fleet.address(1), "30m").await, 200);
    let listed = ask(&other, "GET /registry/services", TOKEN, "").await.json();
    let ids: Vec<&str> = listed["services"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "b"]);
    // A new address under the same id takes the place of the old one.
    assert_eq!(register(&one, "b", fleet.address(3), "30m").await, 200);
    for gateway in [&one, &other] {
        has(gateway, &[fleet.address(1), fleet.address(3)]).await;
    }
    assert_eq!(ask(&other, "DELETE /registry/services/main/b", TOKEN, "").await.status, 204);
    assert_eq!(ask(&other, "DELETE /registry/services/main/b", TOKEN, "").await.status, 404);
    for gateway in [&one, &other] {
        has(gateway, &[fleet.address(1)]).await;
    }
    // One that is started anew finds what is registered before it serves.
    one.stop().await;
    let again = gateway(&state).await;
    assert_eq!(targets(&again).await, [fleet.address(1).to_string()]);
    served(&again, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_heard_of_is_gone() {
    let (fleet, redis) = (Fleet::of(2).await, RedisServer::start().await);
    let state = redis.state("5s");
    let (one, other) = (gateway(&state).await, gateway(&state).await);
    register(&one, "quiet", fleet.address(1), "3s").await;
    register(&one, "there", fleet.address(2), "1h").await;
    for gateway in [&one, &other] {
        has(gateway, &[fleet.address(2)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_or_forgets_takes_nobody_with_it() {
    let (fleet, mut redis) = (Fleet::of(2).await, RedisServer::start().await);
    let gateway = gateway(&redis.state("5s")).await;
    register(&gateway, "a", fleet.address(1), "30m").await;
    has(&gateway, &[fleet.address(1)]).await;
    redis.kill();
    is_up(&gateway, false).await;
    assert_eq!(served(&gateway, 3).await, [(fleet.address(1).to_string(), 3)]);
    assert_eq!(register(&gateway, "b", fleet.address(2), "30m").await, 503);
    // It comes back and knows nothing.
    redis.run().await;
    is_up(&gateway, true).await;
    assert_eq!(targets(&gateway).await, [fleet.address(1).to_string()]);
    while register(&gateway, "b", fleet.address(2), "30m").await != 201 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    has(&gateway, &[fleet.address(1), fleet.address(2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_what_is_registered() {
    let fleet = Fleet::of(1).await;
    let folder = tempfile::tempdir().unwrap();
    let state = format!("state: {{ file: \"{}\" }}\n", folder.path().join("state.db").display());
    let first = gateway(&state).await;
    assert_eq!(register(&first, "a", fleet.address(1), "30m").await, 201);
    has(&first, &[fleet.address(1)]).await;
    first.stop().await;
    let again = gateway(&state).await;
    assert_eq!(targets(&again).await, [fleet.address(1).to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_registers_and_only_what_is_asked_for() {
    let gateway = gateway("").await;
    let refused = |response: &Response, status: u16| assert_eq!(response.status, status, "{}", response.text());
    let good = r#"{"name": "main", "address": "127.0.0.1:9101"}"#;
    for token in ["", "wrong", "a-token-of-a-servic", "a-token-of-a-service "] {
        let expected = if token.trim_end() == TOKEN { 201 } else { 401 };
        refused(&ask(&gateway, "POST /registry/services", token, good).await, expected);
    }
    refused(&ask(&gateway, "GET /registry/services", "wrong", "").await, 401);
    refused(&ask(&gateway, "DELETE /registry/services/main/x", "wrong", "").await, 401);
    refused(&ask(&gateway, "POST /registry/services", "another-token-of-it", good).await, 403);
    refused(&ask(&gateway, "DELETE /registry/services/main/x", "another-token-of-it", "").await, 403);
    // No upstream asks for that one.
    refused(&post(&gateway, &good.replace("main", "other")).await, 404);
    for (body, status) in [
        ("", 400),
        ("[]", 400),
        (r#"{"name": "main"}"#, 400),
        (r#"{"name": "main", "address": "localhost:80"}"#, 400),
        (r#"{"name": "main", "address": "127.0.0.1:0"}"#, 400),
        (r#"{"name": "main", "address": "10.0.0.1:80"}"#, 403),
        (r#"{"name": "main", "address": "[::1]:80"}"#, 403),
        (r#"{"name": "main", "address": "127.0.0.1:80", "adress": 1}"#, 400),
        (r#"{"name": "main", "address": "127.0.0.1:80", "weight": 0}"#, 400),
        (r#"{"name": "main", "address": "127.0.0.1:80", "weight": 1001}"#, 400),
        (r#"{"name": "main", "address": "127.0.0.1:80", "weight": 1000}"#, 201),
        (r#"{"name": "main", "address": "127.0.0.1:80", "ttl": "999ms"}"#, 400),
        (r#"{"name": "main", "address": "127.0.0.1:80", "ttl": "61m"}"#, 400),
        (r#"{"name": "main", "address": "127.0.0.1:80", "ttl": "60m"}"#, 200),
        (r#"{"name": "main", "address": "127.0.0.1:80", "ttl": "30"}"#, 400),
        (r#"{"name": "main", "address": "127.0.0.1:80", "id": "a/b"}"#, 400),
        (r#"{"name": "main", "address": "127.0.0.1:80", "id": ""}"#, 400),
    ] {
        let response = post(&gateway, body).await;
        assert_eq!(response.status, status, "{body}: {}", response.text());
    }
    let long = format!(r#"{{"name": "main", "address": "127.0.0.1:81", "id": "{}"}}"#, "x".repeat(128));
    refused(&post(&gateway, &long).await, 201);
    refused(&post(&gateway, &long.replace("xx\"", "xxx\"")).await, 400);
    refused(&ask(&gateway, "DELETE /registry/services/main/127.0.0.1:80", TOKEN, "").await, 204);
    // Without `registry` there is none of it.
    let closed = Gateway::start(&routed("targets: [{ address: \"127.0.0.1:9101\" }]")).await;
    for line in ["GET /registry/services", "POST /registry/services", "DELETE /registry/services/main/a"] {
        refused(&ask(&closed, line, TOKEN, good).await, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_service_leads_to_the_gateway_itself() {
    let (admin, own) = (Upstream::dead_address().await, Upstream::dead_address().await);
    let registry = REGISTRY.replace("127.0.0.0/8", "0.0.0.0/0, \"::/0\"");
    let routes = routed("discovery: registry").replace("admin: { bind: 127.0.0.1:0 }\n", "");
    let yaml = format!(
        "version: 1\nthreads: 1\nlisteners: [{{ bind: \"{own}\" }}]\nadmin: {{ bind: \"{admin}\" }}\n\
         access_log: {{ to: none }}\n{registry}{routes}"
    );
    let gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", &yaml)])).await;
    let port = admin.port();
    for (address, status) in [
        (admin.to_string(), 403),
        (format!("[::ffff:{}]:{port}", admin.ip()), 403),
        (own.to_string(), 403),
        (format!("0.0.0.0:{port}"), 403),
        (format!("[::]:{port}"), 403),
        (format!("[::ffff:0.0.0.0]:{port}"), 403),
        ("224.0.0.1:80".to_owned(), 403),
        ("255.255.255.255:80".to_owned(), 403),
        ("[ff02::1]:80".to_owned(), 403),
        // Another machine, and another port.
        (format!("192.0.2.1:{port}"), 201),
        (format!("{}:1", admin.ip()), 201),
    ] {
        let response = post(&gateway, &format!(r#"{{"name": "main", "address": "{address}"}}"#)).await;
        assert_eq!(response.status, status, "{address}: {}", response.text());
    }
}
