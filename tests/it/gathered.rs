//! Bodies that filters look at: gathered whole, then sent on byte for byte, whatever their size.

mod clients;
mod http2;
mod memory;
mod upstreams;

use sha2::{Digest as _, Sha256};

use crate::harness::{Client, Framing, Gateway, Upstream, chunked, noise};

/// The most that the filter takes.
const MAX: usize = 1024 * 1024;
/// What Pingora can replay by itself.
const OWN: usize = 64 * 1024;
const SIZES: [usize; 6] = [0, 1, OWN - 1, OWN, OWN + 1, MAX];

/// Everything passes a filter that is given the body, and then goes to one upstream with these keys.
///
/// `/plain` has no such filter; what is sent to `/json` has to be JSON.
fn gathering(keys: &str) -> String {
    format!(
        "admin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n  main: {{ {keys} }}\nroutes:\n\
         \x20 - {{ name: all, match: \"/{{*rest}}\", filters: [{{ validate: {{ body_max: 1MiB }} }}], body_max: 2MiB, upstream: main }}\n\
         \x20 - {{ name: json, match: /json, filters: [{{ validate: {{ body: true }} }}], upstream: main }}\n\
         \x20 - {{ name: plain, match: /plain, upstream: main }}\n"
    )
}

fn to(upstream: &Upstream) -> String {
    gathering(&format!("targets: [{{ address: \"{}\" }}]", upstream.address))
}

async fn start(upstream: &Upstream) -> Gateway {
    Gateway::start(&to(upstream)).await
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn head(path: &str, fields: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n")
}

const CHUNKED: &str = "Transfer-Encoding: chunked";

async fn send_chunked(client: &mut Client, path: &str, body: &[u8], size: usize) {
    client.send([head(path, CHUNKED).as_bytes(), &chunked(body, size)].concat()).await;
}

/// Waits until nothing of a route is under way any more.
async fn settled(gateway: &Gateway, route: &str) {
    gateway.counts(&[(&format!("tollgate_requests_in_flight{{route=\"{route}\"}}"), 0.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_arrives_byte_for_byte() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let mut client = gateway.client().await;
    for size in SIZES {
        let body = noise(size);
        let response = client.post("/x", &body).await;
        assert_eq!((response.status, hash(&response.body)), (200, hash(&body)), "{size}");
        let request = upstream.last();
        assert_eq!((request.framing, hash(&request.body)), (Framing::Length(size), hash(&body)), "{size}");
    }
    assert_eq!(upstream.connections(), 2, "all over a connection that is kept, one of each engine");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_arrives_however_it_is_cut_into_chunks() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let mut client = gateway.client().await;
    for (size, chunk) in [
        (0, 1),
        (1, 1),
        (1000, 1),
        (OWN - 1, 7),
        (OWN, 1000),
        (OWN + 1, 16 * 1024),
        (OWN + 1, OWN),
        (OWN + 1, OWN + 1),
        (MAX, 100),
        (MAX, OWN - 1),
        (MAX, OWN),
        (MAX, OWN + 1),
        (MAX, MAX),
    ] {
        let body = noise(size);
        send_chunked(&mut client, "/x", &body, chunk).await;
        let response = client.response().await;
        assert_eq!((response.status, hash(&response.body)), (200, hash(&body)), "{size} in {chunk}");
        let request = upstream.last();
        // One that is empty has no framing any more: what it is has been found out.
        let framing = if size == 0 { Framing::None } else { Framing::Chunked };
        assert_eq!((request.framing, hash(&request.body)), (framing, hash(&body)), "{size} in {chunk}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_more_is_refused_and_nothing_reaches_the_upstream() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    for size in [MAX + 1, 2 * MAX, 2 * MAX + 1, 10 * MAX] {
        let body = noise(size);
        let response = gateway.post("/x", &body).await;
        response.refused(413, "BODY_TOO_LARGE");
        assert_eq!(response.json()["error"]["details"]["body_max"], MAX);
        for chunk in [1000, OWN, size] {
            let mut client = gateway.client().await;
            send_chunked(&mut client, "/x", &body, chunk).await;
            let response = client.response().await;
            response.refused(413, "BODY_TOO_LARGE");
            assert_eq!(response.json()["error"]["details"]["body_max"], MAX, "{size} in {chunk}");
        }
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_limit_of_route_and_filters_counts() {
    let upstream = Upstream::echo().await;
    let yaml = to(&upstream)
        .replace(
            "[{ validate: { body_max: 1MiB } }]",
            "[{ validate: { body_max: 1MiB } }, { validate: { body_max: 1000B } }]",
        )
        .replace("[{ validate: { body: true } }], ", "[{ validate: { body: true } }], body_max: 500B, ");
    let gateway = Gateway::start(&yaml).await;
    for (path, max) in [("/x", 1000), ("/json", 500)] {
        for (size, status) in [(max, 200), (max + 1, 413)] {
            let json = format!("\"{}\"", "a".repeat(size - 2));
            let fields = format!("{CHUNKED}\r\nContent-Type: application/json");
            let mut client = gateway.client().await;
            client.send([head(path, &fields).as_bytes(), &chunked(json.as_bytes(), 300)].concat()).await;
            assert_eq!(client.response().await.status, status, "{path} {size}");
            let fields = format!("Content-Length: {size}\r\nContent-Type: application/json");
            let mut client = gateway.client().await;
            client.send([head(path, &fields).as_bytes(), json.as_bytes()].concat()).await;
            assert_eq!(client.response().await.status, status, "{path} {size}, of known length");
        }
    }
    assert!(upstream.requests().iter().all(|request| request.body.len() <= 1000));
    assert_eq!(upstream.requests().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_body_pass() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/x").await.status, 200);
        client.send("HEAD /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(client.response_to_head().await.status, 200);
        assert_eq!(client.ask("POST /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status, 200);
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), 9);
    assert!(requests.iter().all(|request| request.framing == Framing::None), "{requests:#?}");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_given_what_a_filter_saw() {
    let text = "token_services:\n  main: { issuer: gateway.test, algorithm: HS256, secret: 0123456789abcdef0123456789abcdef }\n\
        routes:\n  - { name: login, match: POST /login, filters: [{ validate: { body: { type: object } } }], login: {} }\n";
    let gateway = Gateway::start(text).await;
    let mut client = gateway.client().await;
    let post = |body: &str| {
        let length = body.len();
        [head("/login", &format!("Content-Type: application/json\r\nContent-Length: {length}")).as_str(), body].concat()
    };
    let right = r#"{"username": "ann", "password": "secret"}"#;
    for _ in 0..2 {
        client.ask(&post(right)).await.refused(401, "UNAUTHORIZED");
        client.ask(&post("[]")).await.refused(400, "VALIDATION_ERROR");
    }
    // The handler takes 8 KiB, the filter more.
    let padded = |length: usize| format!("{right}{}", " ".repeat(length - right.len()));
    client.ask(&post(&padded(8192))).await.refused(401, "UNAUTHORIZED");
    client.ask(&post(&padded(8193))).await.refused(413, "BODY_TOO_LARGE");
    let fields = format!("Content-Type: application/json\r\n{CHUNKED}");
    client.send([head("/login", &fields).as_bytes(), &chunked(padded(8193).as_bytes(), 100)].concat()).await;
    client.response().await.refused(413, "BODY_TOO_LARGE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_under_way_when_the_configuration_changes_arrives() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let body = noise(MAX);
    let mut client = gateway.client().await;
    client.send(head("/x", &format!("Content-Length: {MAX}"))).await;
    client.send(&body[..MAX / 2]).await;
    gateway.counts(&[("tollgate_requests_in_flight{route=\"all\"}", 1.0)]).await;
    let file = gateway.folder.read("gateway.yaml").replace("body_max: 1MiB", "body_max: 1KiB");
    gateway.folder.write("gateway.yaml", &file);
    gateway.reload_well().await;
    gateway.post("/x", &body[..1025]).await.refused(413, "BODY_TOO_LARGE");
    client.send(&body[MAX / 2..]).await;
    assert_eq!(hash(&client.response().await.body), hash(&body));
    // The next request on the connection goes by what holds now.
    client.send(head("/x", "Content-Length: 1025")).await;
    client.response().await.refused(413, "BODY_TOO_LARGE");
    assert_eq!(upstream.requests().len(), 1);
}
