//! The PROXY protocol: proxies that say whose a connection is, and services that are told.

mod haproxy;
mod told;

use std::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Authority, Client, Folder, Gateway, TlsClient, Upstream, all_to, answer, within};

/// How a header of version 2 begins.
const START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

async fn start(upstream: &Upstream, listener: &str, more: &str) -> Gateway {
    let yaml = format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:0, {listener} }}]\nthreads: 2\naccess_log: {{ to: none }}\n\
         admin: {{ bind: 127.0.0.1:0 }}\n{more}{}",
        all_to(upstream)
    );
    Gateway::start_in(Folder::with(&[("gateway.yaml", &yaml)])).await
}

/// A connection from another address of this machine.
async fn from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    let stream = within("a connection", socket.connect(to)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn begun(gateway: &Gateway, header: impl AsRef<[u8]>) -> Client {
    let mut client = gateway.client().await;
    client.send(header).await;
    client
}

/// Whether the gateway closes without a word.
async fn is_closed(mut stream: TcpStream) -> bool {
    let mut answer = Vec::new();
    // It may also be reset, when not all that was sent was read.
    let _ = within("the end of a connection", stream.read_to_end(&mut answer)).await;
    answer.is_empty()
}

fn line(client: &str) -> String {
    format!("PROXY TCP4 {client} 198.51.100.1 56324 443\r\n")
}

fn binary(client: [u8; 4]) -> Vec<u8> {
    [START, &[0x21, 0x11, 0, 12], &client, &[198, 51, 100, 1, 0xdc, 4, 1, 0xbb]].concat()
}

fn refused(reason: &str) -> String {
    format!("tollgate_connections_refused_total{{listener=\"127.0.0.1:0\",reason=\"{reason}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_who_the_proxy_says() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let only = "defaults: { filters: [{ allow_ips: { allow: [192.0.2.7, 192.0.2.8, 127.0.0.1] } }] }\n";
    let gateway = start(&upstream, "proxy_protocol: { from: [127.0.0.0/8] }", only).await;
    for header in [line("192.0.2.7").into_bytes(), binary([192, 0, 2, 7])] {
        let mut client = begun(&gateway, &header).await;
        for _ in 0..2 {
            assert_eq!(client.get("/x").await.status, 200);
            assert_eq!(upstream.last().head.get("x-forwarded-for"), Some("192.0.2.7"));
        }
        // In one piece with the request, and byte by byte.
        let request = b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let mut client = begun(&gateway, [&header[..], request].concat()).await;
        assert_eq!(client.response().await.status, 200);
        let mut client = gateway.client().await;
        for byte in header.iter().chain(request) {
            client.send([*byte]).await;
        }
        assert_eq!(client.response().await.status, 200);
    }
    // Who may come is asked of the client, not of the proxy.
    begun(&gateway, line("192.0.2.9")).await.get("/x").await.refused(403, "FORBIDDEN");
    begun(&gateway, binary([192, 0, 2, 9])).await.get("/x").await.refused(403, "FORBIDDEN");
    // The client it told of is nobody's proxy.
    let claim = "GET /x HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n";
    assert_eq!(begun(&gateway, line("192.0.2.8")).await.ask(claim).await.status, 200);
    assert_eq!(upstream.last().head.get("x-forwarded-for"), Some("192.0.2.8"));
    // The proxy's own connections stay its own.
    let local = [START, &[0x20, 0x11, 0, 12, 192, 0, 2, 9, 1, 1, 1, 1, 1, 1, 1, 1]].concat();
    let unspecified = [START, &[0x21, 0, 0, 3, 1, 2, 3]].concat();
    for header in [local, unspecified, b"PROXY UNKNOWN\r\n".to_vec(), b"PROXY UNKNOWN 1 2 3 4\r\n".to_vec()] {
        assert_eq!(begun(&gateway, header).await.get("/x").await.status, 200);
        assert_eq!(upstream.last().head.get("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_say_so_or_says_it_wrong_is_closed_and_told_of_once() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let gateway = start(&upstream, "proxy_protocol: true", "trusted_proxies: [127.0.0.2]\n").await;
    for _ in 0..3 {
        assert!(is_closed(from("127.0.0.1", gateway.address).await).await);
    }
    let good = from("127.0.0.2", gateway.address).await;
    let mut client = Client::over(good);
    client.send(line("192.0.2.7")).await;
    assert_eq!(client.get("/x").await.status, 200);
    for bad in [
        &b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"[..],
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        &[START, &[0x21, 0x11, 0, 11], &[0; 11]].concat(),
        &[START, &[0x21, 0x11, 0xff, 0xff]].concat(),
        // A checksum that is none.
        &[START, &[0x21, 0x11, 0, 19], &[0; 12], &[3, 0, 4, 1, 2, 3, 4]].concat(),
    ] {
        let mut client = Client::over(from("127.0.0.2", gateway.address).await);
        client.send(bad).await;
        assert!(is_closed(client.0.stream).await, "{bad:?}");
    }
    // Who only looks whether somebody listens is nobody's trouble.
    drop(from("127.0.0.2", gateway.address).await);
    gateway.counts(&[(&refused("proxy_protocol_untrusted"), 3.0), (&refused("proxy_protocol_malformed"), 6.0)]).await;
    assert_eq!(upstream.requests().len(), 1);
    let lines = gateway.lines();
    let told: Vec<&String> = lines.iter().filter(|line| line.contains("PROXY protocol header")).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("127.0.0.1") && told[0].contains("proxy_protocol_untrusted"), "{told:#?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_header_makes_nobody_of_somebody_else() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let gateway = start(&upstream, "proxy_protocol: { from: [127.0.0.0/8] }", "").await;
    for first in [line("192.0.2.7").into_bytes(), binary([192, 0, 2, 7])] {
        for second in [line("10.0.0.1").into_bytes(), binary([10, 0, 0, 1])] {
            let request = b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n";
            let mut client = begun(&gateway, [&first[..], &second, request].concat()).await;
            let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
            // Not between two requests either.
            let before = upstream.requests().len();
            let mut client = begun(&gateway, &first).await;
            assert_eq!(client.get("/x").await.status, 200);
            client.send([&second[..], request].concat()).await;
            let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
            assert_eq!(upstream.requests().len(), before + 1);
        }
    }
    assert!(upstream.requests().iter().all(|asked| asked.head.get("x-forwarded-for") == Some("192.0.2.7")));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_connections_are_those_of_the_client() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let limits = "limits: { connections_per_address_max: 2, header_timeout: 2s }\n";
    let gateway = start(&upstream, "proxy_protocol: { from: [127.0.0.1] }", limits).await;
    let mut held = Vec::new();
    for client in ["192.0.2.7", "192.0.2.7", "192.0.2.8", "192.0.2.8", "192.0.2.9"] {
        let mut client = begun(&gateway, line(client)).await;
        assert_eq!(client.get("/x").await.status, 200);
        held.push(client);
    }
    let mut third = begun(&gateway, line("192.0.2.7")).await;
    third.response().await.refused(503, "OVERLOADED");
    held.remove(0);
    // The end of a connection is seen when it is seen.
    within("room for another connection", async {
        loop {
            let mut client = begun(&gateway, line("192.0.2.7")).await;
            if client.get("/x").await.status == 200 {
                return;
            }
        }
    })
    .await;
    // A header that does not come in time.
    let mut slow = begun(&gateway, "PROXY TCP4 192.").await;
    assert!(!within("the end of a slow connection", slow.0.fill()).await);
    gateway.counts(&[(&refused("proxy_protocol_timeout"), 1.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_comes_before_a_handshake() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let pair = ca.issue(&["a.test"], "a");
    let yaml = format!(
        "version: 1\nthreads: 2\naccess_log: {{ to: none }}\nlisteners:\n  - bind: 127.0.0.1:0\n    proxy_protocol: {{ from: \
         [127.0.0.1] }}\n    tls: {{ certificates: [{{ cert: 0.pem, key: 0.key }}] }}\n{}",
        all_to(&upstream)
    );
    let (cert, key) = (pair.certificate.pem(), pair.key.serialize_pem());
    let folder = Folder::with(&[("gateway.yaml", &yaml), ("0.pem", &cert), ("0.key", &key)]);
    let gateway = Gateway::start_in(folder).await;
    for header in [line("192.0.2.7").into_bytes(), binary([192, 0, 2, 7])] {
        let client = begun(&gateway, header).await;
        let stream = TlsClient::trusting(&ca).over(client.0.stream, "a.test").await.expect("a handshake");
        let mut client = Client::connect(crate::harness::plain(stream).await).await;
        assert_eq!(client.get("/x").await.status, 200);
        assert_eq!(upstream.last().head.get("x-forwarded-for"), Some("192.0.2.7"));
    }
    // Without the header the handshake is taken for one that is wrong.
    assert!(TlsClient::trusting(&ca).connect(gateway.address, "a.test").await.is_err());
}
