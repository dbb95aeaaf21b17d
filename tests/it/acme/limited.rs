//! An authority that has had enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{DONE, FAILED, logged, start};
use crate::harness::{Pebble, Site, TlsClient, Upstream, answer};

/// How long it wants to be left alone.
const PAUSE: u64 = 4;

/// Stands in front of Pebble and refuses the first order. Gives its port, and counts what it was asked for in vain.
async fn front(site: &Site) -> (u16, Arc<AtomicUsize>) {
    let pair = site.ca.issue(&["localhost"], "front");
    let key = PrivateKeyDer::Pkcs8(pair.key.serialize_der().into());
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = config.with_single_cert(vec![pair.certificate.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let orders = Arc::new(AtomicUsize::new(0));
    let (counted, client) = (Arc::clone(&orders), TlsClient::trusting(&site.ca));
    let directory = std::net::SocketAddr::from(([127, 0, 0, 1], site.directory));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, orders, client) = (acceptor.clone(), Arc::clone(&counted), client.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let Some(request) = request(&mut stream).await else { return };
                if request.starts_with(b"POST /order-plz") && orders.fetch_add(1, Ordering::SeqCst) == 0 {
                    let problem = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"enough","status":429}"#;
                    let refusal = format!(
                        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {PAUSE}\r\nContent-Type: application/problem+json\r\n\
                         Content-Length: {}\r\nConnection: close\r\n\r\n{problem}",
                        problem.len()
                    );
                    let _ = stream.write_all(refusal.as_bytes()).await;
                    let _ = stream.shutdown().await;
                    return;
                }
                let Ok(mut to) = client.connect(directory, "localhost").await else { return };
                if to.write_all(&request).await.is_ok() {
                    let _ = tokio::io::copy(&mut to, &mut stream).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    (port, orders)
}

/// A whole request, which asks for the end of the connection behind its answer.
async fn request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    while bytes.len() < end + 4 + length.unwrap_or(0) {
        stream.read_buf(&mut bytes).await.ok()?;
    }
    Some([head.as_bytes(), b"\r\nConnection: close", &bytes[end..]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_has_had_enough_is_left_alone_for_as_long_as_it_says() {
    let upstream = Upstream::answering(answer(200, b"hello")).await;
    let site = Site::new().await;
    let pebble = Pebble::start(&site, 3600, None).await;
    let (port, orders) = front(&site).await;
    // Two certificates: the second one must not be ordered either.
    let certificates = "acme: [{ domains: [a.test] }, { domains: [b.test] }]";
    let mut gateway = start(&site, &upstream, certificates, &site.acme(port, "")).await;
    let line = gateway.logged("rateLimited").await;
    let refused = Instant::now();
    assert!(line.contains("enough") && line.contains(FAILED), "{line}");
    let after_refusal = orders.load(Ordering::SeqCst);
    assert_eq!(after_refusal, 1, "nothing else was ordered");
    logged(&mut gateway, DONE, 2).await;
    // It was told a little after it was refused.
    assert!(refused.elapsed() >= Duration::from_secs(PAUSE) - Duration::from_millis(500), "{:?}", refused.elapsed());
    let client = TlsClient::trusting_root(pebble.root(&site).await, None);
    for name in ["a.test", "b.test"] {
        client.connect(site.tls(), name).await.expect("a certificate");
    }
}
