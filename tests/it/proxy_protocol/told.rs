//! Services that are told whose a connection is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncReadExt as _;

use super::{from, line};
use crate::harness::{Client, Conn, Folder, Gateway, Upstream, answer, routed, within};

/// What connections began with, by their number.
type Begun = Arc<Mutex<BTreeMap<usize, Vec<u8>>>>;

/// A service that reads the header first, and answers with it.
async fn service(length: impl Fn(&[u8]) -> Option<usize> + Clone + Send + Sync + 'static) -> (Upstream, Begun) {
    let begun = Begun::default();
    let kept = Arc::clone(&begun);
    let upstream = Upstream::scripted(move |mut conn: Conn| {
        let (begun, length) = (Arc::clone(&kept), length.clone());
        async move {
            // Not a byte more: what follows is the request, which the connection reads by itself.
            let mut header = Vec::new();
            while length(&header).is_none() {
                let Ok(byte) = conn.wire.stream.read_u8().await else { return };
                header.push(byte);
            }
            begun.lock().unwrap().insert(conn.number, header.clone());
            while conn.request().await.is_some() {
                conn.send(answer(200, &header)).await;
            }
        }
    })
    .await;
    (upstream, begun)
}

/// Where a line ends.
fn v1(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1)
}

/// Where a binary header with IPv4 addresses ends.
fn v2(bytes: &[u8]) -> Option<usize> {
    (bytes.len() >= 28).then_some(28)
}

async fn gateway(upstream: &Upstream, keys: &str) -> Gateway {
    let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\naccess_log: { to: none }\nthreads: 1\n\
                trusted_proxies: [127.0.0.9]\nadmin: { bind: 127.0.0.1:0 }\n";
    Gateway::start_in(Folder::with(&[("gateway.yaml", &[head, &routed(upstream, keys)].concat())])).await
}

/// A client at an address of its own.
async fn at(source: &str, gateway: &Gateway) -> (Client, SocketAddr) {
    let stream = from(source, gateway.address).await;
    let own = stream.local_addr().unwrap();
    (Client::over(stream), own)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_learns_the_client_and_no_two_share_a_connection() {
    let (upstream, begun) = service(v1).await;
    let gateway = gateway(&upstream, "proxy_protocol: v1").await;
    let mut clients = Vec::new();
    for source in ["127.0.0.1", "127.0.0.3", "127.0.0.3", "127.0.0.4"] {
        clients.push(at(source, &gateway).await);
    }
    // One after the other, so that a connection of another client always lies idle: it must not be taken.
    for round in 0..3 {
        for (client, own) in &mut clients {
            let told = client.get("/x").await;
            let here = gateway.address;
            let (from, to) = (own.ip(), here.ip());
            let expected = format!("PROXY TCP4 {from} {to} {} {}\r\n", own.port(), here.port());
            assert_eq!(told.text(), expected, "round {round}");
        }
    }
    assert_eq!(upstream.connections(), clients.len(), "each client has one, and keeps it");
    let begun = begun.lock().unwrap().clone();
    let distinct: std::collections::BTreeSet<&Vec<u8>> = begun.values().collect();
    assert_eq!(distinct.len(), clients.len());
    for request in upstream.requests() {
        let header = String::from_utf8(begun[&request.connection].clone()).unwrap();
        let told = request.head.get("x-forwarded-for").unwrap();
        assert!(header.starts_with(&format!("PROXY TCP4 {told} ")), "{header:?} for {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once_never_meet() {
    let (upstream, begun) = service(v2).await;
    let gateway = gateway(&upstream, "proxy_protocol: v2").await;
    let asked = (0..24_u8).map(|number| {
        let gateway = &gateway;
        async move {
            let (mut client, own) = at(&format!("127.0.1.{}", number / 2 + 1), gateway).await;
            for _ in 0..20 {
                let told = client.get("/x").await;
                let mut told = Bytes::from(told.body);
                told.advance(16);
                let (source, _, port) = (told.get_u32(), told.get_u32(), told.get_u16());
                assert_eq!(SocketAddr::new(source.to_be_bytes().into(), port), own);
            }
        }
    });
    within("all clients", futures_util::future::join_all(asked)).await;
    assert_eq!(begun.lock().unwrap().len(), 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_of_requests_it_is_the_client_that_is_told() {
    let (upstream, _) = service(v1).await;
    let gateway = gateway(&upstream, "proxy_protocol: v1").await;
    // One connection of a trusted proxy, on which requests of two clients alternate.
    let (mut proxy, _) = at("127.0.0.9", &gateway).await;
    for client in ["192.0.2.7", "192.0.2.8", "192.0.2.7", "192.0.2.8"] {
        let told = proxy.ask(&format!("GET /x HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: {client}\r\n\r\n")).await;
        assert!(told.text().starts_with(&format!("PROXY TCP4 {client} 127.0.0.1 0 ")), "{}", told.text());
    }
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_proxy_says_the_next_is_told() {
    let (upstream, _) = service(v1).await;
    let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0, proxy_protocol: { from: [127.0.0.1] } }]\nthreads: 1\n\
                access_log: { to: none }\n";
    let yaml = [head, &routed(&upstream, "proxy_protocol: v1")].concat();
    let gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", &yaml)])).await;
    let mut client = gateway.client().await;
    client.send(line("192.0.2.7")).await;
    assert_eq!(client.get("/x").await.text(), line("192.0.2.7"));
    let mut client = gateway.client().await;
    client.send("PROXY TCP6 2001:db8::7 2001:db8::1 5 443\r\n").await;
    assert_eq!(client.get("/x").await.text(), "PROXY TCP6 2001:db8::7 2001:db8::1 5 443\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_is_an_upstream_that_fails() {
    let dead = Upstream::dead_address().await;
    let (upstream, _) = service(v1).await;
    let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\naccess_log: { to: none }\nthreads: 1\n";
    let yaml = format!(
        "{head}upstreams:\n  lone: {{ targets: [{{ address: \"{dead}\" }}], proxy_protocol: v2, retry: {{ attempts: 1 }} }}\n  \
         both: {{ targets: [{{ address: \"{dead}\" }}, {{ address: \"{}\" }}], proxy_protocol: v1 }}\n\
         routes:\n  - {{ name: lone, match: /lone, upstream: lone }}\n  - {{ name: both, match: /both, upstream: both }}\n",
        upstream.address
    );
    let gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", &yaml)])).await;
    gateway.get("/lone").await.refused(502, "BAD_GATEWAY");
    for _ in 0..4 {
        assert_eq!(gateway.get("/both").await.status, 200, "the other target is tried");
    }
}
