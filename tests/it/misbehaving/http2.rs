//! Services that speak HTTP/2, badly.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{Request, Response};
use tokio::net::TcpListener;

use crate::harness::{Gateway, within};

type Stream = (Request<h2::RecvStream>, SendResponse<Bytes>);

/// A service over HTTP/2: what it does with each connection's streams is up to `misbehaves`, which says whether it goes on.
async fn service(
    misbehaves: fn(&mut h2::server::Connection<tokio::net::TcpStream, Bytes>, Stream) -> bool,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok(stream)) = connection.accept().await {
                    if !misbehaves(&mut connection, stream) {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn served((request, mut respond): Stream) -> bool {
    let body = Bytes::from(request.uri().path().to_owned());
    let sent = respond.send_response(Response::new(()), false).and_then(|mut stream| stream.send_data(body, true));
    sent.is_ok()
}

async fn gateway(address: SocketAddr) -> Gateway {
    Gateway::start(&format!(
        "upstreams:\n  main: {{ protocol: h2c, targets: [{{ address: \"{address}\" }}], timeouts: {{ idle: 2s }} }}\n\
         routes:\n  - {{ name: bad, match: \"/bad\", timeout: 2s, upstream: main }}\n\
         \x20 - {{ name: ok, match: \"/ok/{{*rest}}\", timeout: 100s, upstream: main }}\n"
    ))
    .await
}

/// Asks for what goes wrong, then for what goes well, over both protocols.
async fn goes_wrong(gateway: &Gateway, statuses: &[u16]) {
    let h2 = gateway.h2().await;
    for number in 0..6 {
        let status =
            if number % 2 == 0 { gateway.get("/bad").await.status } else { h2.get("/bad").await.status.as_u16() };
        assert!(statuses.contains(&status), "{status}");
        let target = format!("/ok/{number}");
        within("a request that goes well", async {
            let response = gateway.get(&target).await;
            assert_eq!((response.status, response.text()), (200, &*target));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_stream_is_502_and_its_connection_stays_good() {
    let address = service(|_, (request, mut respond)| {
        if request.uri().path() != "/bad" {
            return served((request, respond));
        }
        respond.send_reset(Reason::INTERNAL_ERROR);
        true
    })
    .await;
    goes_wrong(&gateway(address).await, &[502]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_with_goaway_is_502_at_most_and_never_used_again() {
    let address = service(|connection, (request, respond)| {
        if request.uri().path() != "/bad" {
            return served((request, respond));
        }
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        true
    })
    .await;
    goes_wrong(&gateway(address).await, &[502]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_never_answered_is_504() {
    let address = service(|_, (request, respond)| {
        if request.uri().path() != "/bad" {
            return served((request, respond));
        }
        // Held for as long as the test runs.
        std::mem::forget(respond);
        true
    })
    .await;
    goes_wrong(&gateway(address).await, &[504]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_silent_after_its_settings_is_504() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // An empty SETTINGS frame, and nothing else ever.
                let _ = stream.write_all(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
                let mut unread = [0_u8; 1024];
                while stream.read(&mut unread).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    let gateway = gateway(address).await;
    gateway.get("/bad").await.refused(504, "GATEWAY_TIMEOUT");
    gateway.h2().await.get("/bad").await.refused(504, "GATEWAY_TIMEOUT");
}
