//! Clients that speak HTTP/2 with prior knowledge.

use http::Request;
use sha2::{Digest as _, Sha256};

use crate::harness::{Framing, Gateway, Upstream, all_to, noise, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_arrives_as_strict_http_1() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let client = gateway.h2().await;
    let request = Request::post("http://Api.Test/a/../b?q=1")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x_forwarded_for", "1.2.3.4")
        .header("x-custom", "yes")
        .body(())
        .unwrap();
    let response = client.ask(request, b"body".to_vec()).await.unwrap();
    assert_eq!((response.status.as_u16(), response.body.as_slice()), (200, b"body".as_slice()));
    let request = upstream.only();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/b?q=1"));
    assert_eq!(request.head.get("host"), Some("api.test"));
    assert_eq!(request.head.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.head.get("x-custom"), Some("yes"));
    assert_eq!(request.body, b"body");
    assert_eq!(request.framing, Framing::Chunked);
    assert_eq!(response.fields["x-request-id"], request.head.get("x-request-id").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_run_side_by_side() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let client = gateway.h2().await;
    let streams: Vec<_> = (0..50)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let body = noise(10_000 + number);
                assert_eq!(client.post("/x", body.clone()).await.body, body);
            })
        })
        .collect();
    for stream in streams {
        within("a stream", stream).await.unwrap();
    }
    assert_eq!(upstream.requests().len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_both_ways() {
    let upstream = Upstream::echo().await;
    let yaml = all_to(&upstream).replace(", upstream: main", ", body_max: 32MiB, upstream: main");
    let gateway = Gateway::start(&yaml).await;
    let body = noise(5_000_000);
    let response = gateway.h2().await.post("/x", body.clone()).await;
    assert_eq!(Sha256::digest(&response.body), Sha256::digest(&body));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_same_shape() {
    let upstream = Upstream::echo().await;
    let yaml = all_to(&upstream)
        .replace("/{*rest}", "GET,POST /only")
        .replace(", upstream: main", ", body_max: 1000B, upstream: main");
    let gateway = Gateway::start(&yaml).await;
    let client = gateway.h2().await;
    client.get("/nothing").await.refused(404, "NOT_FOUND");
    let request = Request::delete("http://a.test/only").body(()).unwrap();
    let response = client.ask(request, Vec::new()).await.unwrap();
    response.refused(405, "METHOD_NOT_ALLOWED");
    assert!(response.fields.contains_key("allow"));
    client.get("/a%2fb").await.refused(400, "BAD_REQUEST");
    assert_eq!(client.post("/only", noise(1000)).await.status, 200);
    client.post("/only", noise(1001)).await.refused(413, "BODY_TOO_LARGE");
    let request = Request::post("http://a.test/only").header("content-length", "1001").body(()).unwrap();
    client.ask(request, noise(1001)).await.unwrap().refused(413, "BODY_TOO_LARGE");
    let request = Request::get("http://a.test/only").header("host", "b.test").body(()).unwrap();
    let response = client.ask(request, Vec::new()).await;
    // Two names are two opinions on who answers.
    // The engine refuses that itself, without a body.
    assert_eq!(response.unwrap().status, 400);
    assert_eq!(client.get("/only").await.status, 200, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_431() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&format!("limits: {{ header_bytes_max: 4KiB }}\n{}", all_to(&upstream))).await;
    let client = gateway.h2().await;
    let request = Request::get("http://a.test/x").header("x-large", "a".repeat(5000)).body(()).unwrap();
    client.ask(request, Vec::new()).await.unwrap().refused(431, "HEADERS_TOO_LARGE");
    let mut request = Request::get("http://a.test/x");
    for number in 0..101 {
        request = request.header(format!("x-{number}"), "1");
    }
    client.ask(request.body(()).unwrap(), Vec::new()).await.unwrap().refused(431, "HEADERS_TOO_LARGE");
    assert_eq!(client.get("/x").await.status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_lies_is_refused() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let client = gateway.h2().await;
    for length in ["3", "5"] {
        let request = Request::post("http://a.test/x").header("content-length", length).body(()).unwrap();
        let response = client.ask(request, b"body".to_vec()).await;
        assert!(response.as_ref().map_or(true, |response| response.status.as_u16() >= 400), "{length}: {response:?}");
    }
    assert_eq!(upstream.requests().len(), 0);
}

/// An upstream that speaks HTTP/2: trailers of responses pass, which gRPC needs; those of requests do not.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_from_an_http_2_service() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let mut received = Vec::new();
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                            received.extend_from_slice(&data);
                        }
                        let trailers = body.trailers().await.ok().flatten();
                        let head = http::Response::builder().header("x-got-trailers", trailers.is_some().to_string());
                        let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        stream.send_data(received.into(), false).unwrap();
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        stream.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    let yaml = format!(
        "upstreams:\n  main: {{ protocol: h2c, targets: [{{ address: \"{address}\" }}] }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n"
    );
    let gateway = Gateway::start(&yaml).await;
    let response = gateway.h2().await.post("/x", b"message".to_vec()).await;
    assert_eq!((response.status.as_u16(), response.body.as_slice()), (200, b"message".as_slice()));
    assert_eq!(response.trailers.unwrap()["grpc-status"], "0");
    // The same service behind an HTTP/1.1 client: the body passes, the trailers do not.
    let response = gateway.post("/x", b"message").await;
    assert_eq!((response.status, response.text(), response.trailers.len()), (200, "message", 0));
}
