//! The same over HTTP/2, on either side.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use tokio::net::TcpListener;

use super::{MAX, OWN, SIZES, gathering, hash, settled, start};
use crate::harness::{Gateway, Upstream, noise, within};

/// A service that speaks HTTP/2: answers with the hash of the body, and with the `te` it was sent.
async fn hashing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer(request, respond));
                }
            });
        }
    });
    address
}

async fn answer(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let te = request.headers().get("te").map_or("none", |te| te.to_str().unwrap()).to_owned();
    assert!(!request.headers().contains_key("expect"));
    let mut body = request.into_body();
    let mut received = Vec::new();
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return };
        let _ = body.flow_control().release_capacity(data.len());
        received.extend_from_slice(&data);
    }
    let head = http::Response::builder().header("x-te", te).body(()).unwrap();
    if let Ok(mut stream) = respond.send_response(head, false) {
        let _ = stream.send_data(hash(&received).into(), true);
    }
}

async fn to_http2() -> Gateway {
    let address = hashing().await;
    Gateway::start(&gathering(&format!("protocol: h2c, targets: [{{ address: \"{address}\" }}]"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_arrives_with_and_without_a_length() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let client = gateway.h2().await;
    for size in SIZES {
        let body = noise(size);
        let lengths = [None, Some(size)];
        for length in lengths {
            let mut request = Request::post("http://a.test/x");
            if let Some(length) = length {
                request = request.header("content-length", length);
            }
            let response = client.ask(request.body(()).unwrap(), body.clone()).await.unwrap();
            assert_eq!((response.status.as_u16(), hash(&response.body)), (200, hash(&body)), "{size} {length:?}");
            assert_eq!(hash(&upstream.last().body), hash(&body), "{size} {length:?}");
        }
    }
    let before = upstream.requests().len();
    client.post("/x", noise(MAX + 1)).await.refused(413, "BODY_TOO_LARGE");
    let request = Request::post("http://a.test/x").header("content-length", MAX + 1).body(()).unwrap();
    client.ask(request, noise(MAX + 1)).await.unwrap().refused(413, "BODY_TOO_LARGE");
    assert_eq!(upstream.requests().len(), before);
    assert_eq!(client.get("/x").await.status, 200, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_arrives_at_a_service_that_speaks_http_2() {
    let gateway = to_http2().await;
    let (mut plain, client) = (gateway.client().await, gateway.h2().await);
    for size in SIZES {
        let body = noise(size);
        let response = plain.post("/x", &body).await;
        assert_eq!((response.status, response.text()), (200, &*hash(&body)), "{size}");
        super::send_chunked(&mut plain, "/x", &body, 10_000).await;
        assert_eq!(plain.response().await.text(), hash(&body), "{size}, chunked");
        let response = client.post("/x", body.clone()).await;
        assert_eq!(String::from_utf8(response.body).unwrap(), hash(&body), "{size}, HTTP/2 on both sides");
    }
    plain.post("/x", &noise(MAX + 1)).await.refused(413, "BODY_TOO_LARGE");
    client.post("/x", noise(MAX + 1)).await.refused(413, "BODY_TOO_LARGE");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_are_asked_for_as_without_a_filter() {
    let gateway = to_http2().await;
    let client = gateway.h2().await;
    for path in ["/plain", "/x"] {
        let request = Request::post(format!("http://a.test{path}")).header("te", "trailers").body(()).unwrap();
        let response = client.ask(request, noise(OWN + 1)).await.unwrap();
        assert_eq!(response.fields["x-te"], "trailers", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_do_not_mix() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let client = gateway.h2().await;
    let streams: Vec<_> = (0..50)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let body = noise(OWN - 25 + number);
                let body = body.iter().map(|byte| byte.wrapping_add(number as u8)).collect::<Vec<_>>();
                assert_eq!(hash(&client.post("/x", body.clone()).await.body), hash(&body));
            })
        })
        .collect();
    for stream in streams {
        within("a stream", stream).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_stream_that_is_reset_nothing_reaches_the_upstream() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let client = gateway.h2().await;
    for length in ["", "100000"] {
        let mut sender = client.0.clone().ready().await.unwrap();
        let mut request = Request::post("http://a.test/x");
        if !length.is_empty() {
            request = request.header("content-length", length);
        }
        let (_response, mut stream) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        stream.send_data(noise(1000).into(), false).unwrap();
        gateway.counts(&[("tollgate_requests_in_flight{route=\"all\"}", 1.0)]).await;
        stream.send_reset(h2::Reason::CANCEL);
        settled(&gateway, "all").await;
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(client.post("/x", noise(OWN + 1)).await.status, 200, "the connection goes on");
}
