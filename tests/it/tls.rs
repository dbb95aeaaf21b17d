//! TLS listeners: who is shown which certificate, who is let in, and what a reload changes.

mod strict;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{accept_async, client_async};

use crate::harness::{
    Authority, Client, Folder, Gateway, H2Client, Pair, TlsClient, Upstream, all_to, answer, noise, within,
};

/// A gateway whose one listener speaks TLS as in `tls`, with these certificates as `0.pem`, `0.key`, and so on.
async fn start(upstream: &Upstream, tls: &str, pairs: &[&Pair], authority: &Authority, more: &str) -> Gateway {
    let yaml = format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:0, tls: {{ {tls} }} }}]\nthreads: 2\naccess_log: {{ to: none }}\n\
         admin: {{ bind: 127.0.0.1:0 }}\n{more}{}",
        all_to(upstream)
    );
    let folder = Folder::with(&[("ca.pem", &authority.certificate.pem())]);
    pairs.iter().enumerate().for_each(|(number, pair)| write(&folder, number, pair));
    folder.write("gateway.yaml", &yaml);
    Gateway::start_in(folder).await
}

fn write(folder: &Folder, number: usize, pair: &Pair) {
    folder.write(&format!("{number}.key"), &pair.key.serialize_pem());
    folder.write(&format!("{number}.pem"), &pair.certificate.pem());
}

const ONE: &str = "certificates: [{ cert: 0.pem, key: 0.key }]";

#[tokio::test(flavor = "multi_thread")]
async fn requests_pass_over_both_protocols_and_the_service_learns_the_scheme() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let gateway = start(&upstream, ONE, &[&ca.issue(&["a.test"], "a")], &ca, "").await;
    let client = TlsClient::trusting(&ca);
    let mut h1 = Client::connect(client.tunnel(gateway.address, "a.test").await).await;
    for _ in 0..3 {
        assert_eq!(h1.get("/x").await.text(), "hello", "one connection serves many requests");
    }
    assert_eq!(h1.ask("GET https://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n").await.text(), "hello");
    let other = "GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n";
    Client::connect(client.tunnel(gateway.address, "a.test").await).await.ask(other).await.refused(400, "BAD_REQUEST");
    // What looks like HTTP/2 is none where HTTP/1.1 was agreed on.
    let mut odd = Client::connect(client.tunnel(gateway.address, "a.test").await).await;
    odd.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    odd.response().await.refused(400, "BAD_REQUEST");
    let h2 = H2Client::connect(client.clone().h2().tunnel(gateway.address, "a.test").await).await;
    for body in [Vec::new(), noise(300_000)] {
        let response = h2.post("/x", body).await;
        assert_eq!((response.status.as_u16(), &response.body[..]), (200, &b"hello"[..]));
    }
    for request in upstream.requests() {
        assert_eq!(request.head.get("x-forwarded-proto"), Some("https"));
        assert!(request.head.get("forwarded").unwrap().ends_with("proto=https"));
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_arrive_whole() {
    let body = noise(3_000_000);
    let upstream = Upstream::answering(answer(200, &body)).await;
    let ca = Authority::new("ours");
    let gateway = start(&upstream, ONE, &[&ca.issue(&["a.test"], "a")], &ca, "").await;
    let client = TlsClient::trusting(&ca);
    let mut h1 = Client::connect(client.tunnel(gateway.address, "a.test").await).await;
    for _ in 0..2 {
        assert_eq!(h1.get("/x").await.body, body);
    }
    let h2 = H2Client::connect(client.h2().tunnel(gateway.address, "a.test").await).await;
    assert_eq!(h2.get("/x").await.body, body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_chooses_the_certificate() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let (first, second) = (ca.issue(&["a.test"], "first"), ca.issue(&["b.test", "*.b.test"], "second"));
    let tls = "certificates: [{ cert: 0.pem, key: 0.key }, { cert: 1.pem, key: 1.key }]";
    let gateway = start(&upstream, tls, &[&first, &second], &ca, "").await;
    let client = TlsClient::trusting(&ca);
    for (name, pair) in [("a.test", &first), ("b.test", &second), ("B.test", &second), ("x.b.test", &second)] {
        assert_eq!(client.shown(gateway.address, name).await, *pair.certificate.der(), "{name}");
    }
    // A name that nobody has gets the first one; this client does not want it.
    assert!(client.connect(gateway.address, "c.test").await.unwrap_err().to_string().contains("a.test"));
    gateway.counts(&[(&failed(&gateway, "alert"), 1.0)]).await;
}

/// The counter of failed handshakes.
fn failed(_: &Gateway, reason: &str) -> String {
    format!("tollgate_tls_handshakes_failed_total{{listener=\"127.0.0.1:0\",reason=\"{reason}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_right_certificate_is_not_let_in() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let (ca, other) = (Authority::new("ours"), Authority::new("theirs"));
    let tls = &format!("{ONE}, client_ca: ca.pem");
    let gateway = start(&upstream, tls, &[&ca.issue(&["a.test"], "a")], &ca, "").await;
    let get = async |client: TlsClient| {
        let mut client = Client::connect(client.tunnel(gateway.address, "a.test").await).await;
        client.is_usable("/x").await
    };
    assert!(get(TlsClient::with_certificate(&ca, &ca.issue(&[], "svc-a"))).await);
    for (client, reason) in [
        (TlsClient::trusting(&ca), "certificate_missing"),
        (TlsClient::with_certificate(&ca, &other.issue(&[], "svc-a")), "certificate_unknown_issuer"),
        (TlsClient::with_certificate(&ca, &ca.issue_until(&[], "svc-a", 2020)), "certificate_expired"),
    ] {
        assert!(!get(client).await, "{reason}");
        gateway.counts(&[(&failed(&gateway, reason), 1.0)]).await;
    }
    assert_eq!(upstream.requests().len(), 1);
    // Plain HTTP is no handshake.
    let mut plain = gateway.client().await;
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!String::from_utf8_lossy(&plain.rest().await).contains("HTTP/1.1"));
    gateway.counts(&[(&failed(&gateway, "protocol"), 1.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handshake_has_an_end() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let limits = "limits: { header_timeout: 2s }\n";
    let gateway = start(&upstream, ONE, &[&ca.issue(&["a.test"], "a")], &ca, limits).await;
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    // The first byte of a handshake record.
    silent.write_all(&[22]).await.unwrap();
    assert_eq!(within("the end", silent.read(&mut [0; 64])).await.unwrap_or(0), 0);
    gateway.counts(&[(&failed(&gateway, "timeout"), 1.0)]).await;
    // And so has a slow head behind it.
    let mut slow = TlsClient::trusting(&ca).connect(gateway.address, "a.test").await.unwrap();
    slow.write_all(b"GET /x HTTP/1.1\r\n").await.unwrap();
    let mut told = Vec::new();
    let _ = within("an answer", slow.read_to_end(&mut told)).await;
    assert!(told.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&told));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_without_a_request_lost() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let mut last = ca.issue(&["a.test"], "a");
    let gateway = start(&upstream, ONE, &[&last], &ca, "").await;
    let client = TlsClient::trusting(&ca);
    let address = client.tunnel(gateway.address, "a.test").await;
    let done = Arc::new(AtomicBool::new(false));
    let ask = |fresh: bool| {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            let (mut count, mut client) = (0_u32, Client::connect(address).await);
            while !done.load(Ordering::Relaxed) {
                assert_eq!(client.get("/x").await.text(), "hello");
                count += 1;
                if fresh {
                    client = Client::connect(address).await;
                }
            }
            count
        })
    };
    let clients = [ask(false), ask(false), ask(true), ask(true)];
    for _ in 0..3 {
        let next = ca.issue(&["a.test"], "a");
        write(&gateway.folder, 0, &next);
        let shows = async { while client.shown(gateway.address, "a.test").await != *next.certificate.der() {} };
        within("the new certificate", shows).await;
        assert_ne!(next.certificate.der(), last.certificate.der());
        last = next;
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_fit_changes_nothing_until_it_does() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let first = ca.issue(&["a.test"], "a");
    let mut gateway = start(&upstream, ONE, &[&first], &ca, "").await;
    let client = TlsClient::trusting(&ca);
    let next = ca.issue(&["a.test"], "a");
    gateway.folder.write("0.pem", &next.certificate.pem());
    let told = gateway.logged("`0.key` is not the key of `0.pem`").await;
    assert!(told.contains("gateway.yaml:2:"), "{told}");
    assert_eq!(client.shown(gateway.address, "a.test").await, *first.certificate.der());
    let before = gateway.lines().len();
    gateway.folder.write("0.key", &next.key.serialize_pem());
    gateway.logged_after(before, "configuration reloaded").await;
    assert_eq!(client.shown(gateway.address, "a.test").await, *next.certificate.der());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_may_change_from_plain_to_tls_and_back() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let mut gateway = start(&upstream, ONE, &[&ca.issue(&["a.test"], "a")], &ca, "").await;
    let address = TlsClient::trusting(&ca).tunnel(gateway.address, "a.test").await;
    let mut secured = Client::connect(address).await;
    assert_eq!(secured.get("/x").await.text(), "hello");
    let yaml = gateway.folder.read("gateway.yaml");
    let before = gateway.lines().len();
    gateway.folder.write("gateway.yaml", &yaml.replace(&format!(", tls: {{ {ONE} }}"), ""));
    gateway.logged_after(before, "configuration reloaded").await;
    assert_eq!(gateway.get("/x").await.text(), "hello");
    assert_eq!(secured.get("/x").await.text(), "hello", "a reload closes no connection");
    let before = gateway.lines().len();
    gateway.folder.write("gateway.yaml", &yaml);
    gateway.logged_after(before, "configuration reloaded").await;
    assert_eq!(Client::connect(address).await.get("/x").await.text(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_used_and_complained_of() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let mut gateway = start(&upstream, ONE, &[&ca.issue_until(&["a.test"], "a", 2020)], &ca, "").await;
    let line = gateway.logged("this certificate has expired").await;
    assert!(line.contains("ERROR") && line.contains("0.pem") && line.contains("2020-01-01T00:00:00"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_pass_and_a_drain_waits_for_what_is_in_flight() {
    let go = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&go);
    let upstream = Upstream::scripted(move |mut conn| {
        let told = Arc::clone(&told);
        async move {
            let Some(request) = conn.request().await else { return };
            if request.target == "/slow" {
                told.notified().await;
                conn.send(answer(200, b"done")).await;
            }
        }
    })
    .await;
    let sockets = Upstream::scripted(|conn| async move {
        let Ok(mut socket) = accept_async(conn.into_stream()).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await;
    let ca = Authority::new("ours");
    let pair = ca.issue(&["a.test"], "a");
    let client = TlsClient::trusting(&ca);
    {
        let gateway = start(&sockets, ONE, &[&pair], &ca, "").await;
        let stream = client.connect(gateway.address, "a.test").await.unwrap();
        let (mut socket, _) = client_async("wss://a.test/chat", stream).await.unwrap();
        for text in ["hello", "again"] {
            socket.send(Message::text(text)).await.unwrap();
            assert_eq!(within("a message", socket.next()).await.unwrap().unwrap(), Message::text(text));
        }
    }
    let mut gateway = start(&upstream, ONE, &[&pair], &ca, "").await;
    let tunnel = client.tunnel(gateway.address, "a.test").await;
    let mut busy = Client::connect(tunnel).await;
    busy.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    upstream.received(1).await;
    gateway.signal("TERM");
    gateway.logged("draining").await;
    go.notify_one();
    assert_eq!(busy.response().await.text(), "done");
    assert!(gateway.ended().await.success());
}

/// The certificate as a credential, from the handshake to the end of a socket that it opened.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_a_consumer_until_a_reload_takes_it_away() {
    let sockets = Upstream::scripted(|conn| async move {
        let Ok(mut socket) = accept_async(conn.into_stream()).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await;
    let ca = Authority::new("ours");
    let consumers = "consumers:\n- { name: a, certificates: [{ subject: CN=svc-a }] }\n\
                     - { name: b, certificates: [{ san: svc-b.test }] }\n\
                     defaults: { filters: [{ auth: { accept: [mtls], close_on: [key_revoked] } }] }\n";
    let tls = &format!("{ONE}, client_ca: ca.pem, client_auth: optional");
    let gateway = start(&sockets, tls, &[&ca.issue(&["a.test"], "a")], &ca, consumers).await;
    let open = async |client: TlsClient| {
        let stream = client.connect(gateway.address, "a.test").await.unwrap();
        within("a handshake", client_async("wss://a.test/chat", stream)).await.map(|(socket, _)| socket)
    };
    for nobody in [TlsClient::trusting(&ca), TlsClient::with_certificate(&ca, &ca.issue(&["x.test"], "svc-aa"))] {
        match open(nobody).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), 401),
            other => panic!("{other:?}"),
        }
    }
    let mut gone = open(TlsClient::with_certificate(&ca, &ca.issue(&[], "svc-a"))).await.unwrap();
    let mut stays = open(TlsClient::with_certificate(&ca, &ca.issue(&["svc-b.test"], "any"))).await.unwrap();
    for socket in [&mut gone, &mut stays] {
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(within("a message", socket.next()).await.unwrap().unwrap(), Message::text("hello"));
    }
    let yaml = gateway.folder.read("gateway.yaml");
    gateway.folder.write("gateway.yaml", &yaml.replace("CN=svc-a ", "CN=svc-z "));
    let reason = "the credential is not valid any more".into();
    let close = Message::Close(Some(CloseFrame { code: 1008.into(), reason }));
    assert_eq!(within("the close", gone.next()).await.unwrap().unwrap(), close);
    stays.send(Message::text("there?")).await.unwrap();
    assert_eq!(within("a message", stays.next()).await.unwrap().unwrap(), Message::text("there?"));
    gateway.counts(&[("tollgate_websockets_closed_total{reason=\"unknown\"}", 1.0)]).await;
}

/// A client that nobody here wrote.
#[tokio::test(flavor = "multi_thread")]
async fn curl_comes_through_with_its_certificate_only() {
    if Command::new("curl").arg("--version").output().is_err() {
        return;
    }
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let ca = Authority::new("ours");
    let tls = &format!("{ONE}, client_ca: ca.pem, client_auth: required");
    let gateway = start(&upstream, tls, &[&ca.issue(&["a.test"], "a"), &ca.issue(&[], "svc-a")], &ca, "").await;
    let (folder, address) = (&gateway.folder, gateway.address);
    let curl = |more: &[String]| curl(folder, address, more);
    let mine = ["--cert".into(), path(folder, "1.pem"), "--key".into(), path(folder, "1.key")];
    for protocol in ["--http1.1", "--http2"] {
        let (ok, text) = curl(&[&mine[..], &[protocol.to_owned()]].concat());
        // `200 2` or `200 1.1`, behind the body.
        assert!(ok && text.starts_with("hello200 "), "{protocol}: {text}");
    }
    let (ok, text) = curl(&[]);
    assert!(!ok && !text.contains("hello"), "{text}");
}

fn path(folder: &Folder, name: &str) -> String {
    folder.path(name).to_str().unwrap().to_owned()
}

fn curl(folder: &Folder, address: SocketAddr, more: &[String]) -> (bool, String) {
    let resolve = format!("a.test:{}:127.0.0.1", address.port());
    let url = format!("https://a.test:{}/x", address.port());
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--write-out", "%{http_code} %{http_version}"])
        .args(["--resolve", &resolve, "--cacert", &path(folder, "ca.pem")])
        .args(more)
        .arg(url)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}
