//! Trailers, and bodies whose length is not what their head says.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::guests;
use crate::grpc::raw::{body_of, service};
use crate::harness::{Client, Gateway, Upstream, answer};

/// A service over HTTP/2 that gives back what it gets, in two pieces, with trailers behind it.
async fn trailing() -> String {
    let address = service(|request, _, mut respond| async move {
        let content_type = request.headers().get("content-type").cloned();
        let body = body_of(request).await;
        let mut head = Response::builder().body(()).unwrap();
        head.headers_mut().extend(content_type.map(|value| (http::header::CONTENT_TYPE, value)));
        let mut stream = respond.send_response(head, false).unwrap();
        let half = body.len() / 2;
        stream.send_data(Bytes::copy_from_slice(&body[..half]), false).unwrap();
        stream.send_data(Bytes::copy_from_slice(&body[half..]), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("x-gone", "1".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    })
    .await;
    format!(
        "upstreams:\n  main: {{ protocol: h2c, targets: [{{ address: \"{address}\" }}] }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_are_read_and_changed() {
    let routes = trailing().await;
    let plugins = [("one", guests::trails(), ""), ("two", guests::trails(), "")];
    let gateway = Gateway::start_in(super::folder(&routes, &plugins)).await;
    let response = gateway.h2().await.post("/x", b"hello".to_vec()).await;
    let trailers = response.trailers.unwrap();
    assert_eq!((&response.body[..], trailers.get_all("x-plugin").iter().count()), (&b"hello"[..], 2));
    assert!(trailers["grpc-status"] == "0" && !trailers.contains_key("x-gone"), "{trailers:?}");
    // A client of HTTP/1.1 gets none; its connection goes on.
    let mut client = gateway.client().await;
    for _ in 0..2 {
        assert_eq!(client.post("/x", b"hello").await.text(), "hello");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_held_to_its_end_comes_before_the_trailers() {
    let routes = trailing().await;
    let gateway = Gateway::start_in(super::folder(&routes, &[("quote", guests::quotes(), "")])).await;
    for size in [2, 1000, 200_000] {
        let response = gateway.h2().await.post("/x", vec![b'a'; size]).await;
        // One mark on the way there, one on the way back.
        assert!(response.body == [b">>", &vec![b'a'; size][..]].concat(), "{size}");
        assert_eq!(response.trailers.unwrap()["grpc-status"], "0");
    }
    let mut client = gateway.client().await;
    for _ in 0..2 {
        assert_eq!(client.post("/x", b"hello").await.text(), ">>hello");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_for_grpc_web_has_its_trailers_in_its_body() {
    let routes = trailing().await.replace("upstream: main }\n", "upstream: main, filters: [grpc_web] }\n");
    let gateway = Gateway::start_in(super::folder(&routes, &[("trails", guests::trails(), "")])).await;
    let message = b"\0\0\0\0\x02hi";
    let head =
        "POST /a.B/C HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: 7\r\n\r\n";
    let mut client = Client::connect(gateway.address).await;
    client.send([head.as_bytes(), message].concat()).await;
    let response = client.response().await;
    let text = String::from_utf8_lossy(&response.body).into_owned();
    assert!(response.status == 200 && response.body.starts_with(message), "{text:?}");
    assert!(text.contains("grpc-status: 0\r\n") && text.contains("x-plugin: yes\r\n"), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_gets_another_length_than_its_head_says_is_broken_off() {
    let upstream = Upstream::answering(answer(200, b"four")).await;
    for (name, guest) in [("longer", guests::lengthens()), ("shorter", guests::shortens())] {
        let mut gateway = super::start(&upstream, &[(name, guest, "")]).await;
        let mut client = gateway.client().await;
        client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        if let Ok(response) = client.try_response(false).await {
            response.refused(503, "PLUGIN_FAILED");
        }
        gateway.logged("has to remove `content-length`").await;
    }
    let echo = Upstream::echo().await;
    let gateway = super::start(&echo, &[("longer", guests::lengthens(), "")]).await;
    let mut request = Request::post("http://a.test/x").body(()).unwrap();
    request.headers_mut().insert("content-length", "4".parse().unwrap());
    let response = gateway.h2().await.ask(request, b"four".to_vec()).await;
    assert!(response.is_err() || response.is_ok_and(|response| response.status == 503));
    gateway.post("/x", b"four").await.refused(503, "PLUGIN_FAILED");
    assert!(echo.requests().is_empty(), "the service has seen no whole request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_the_older_version_is_run() {
    let upstream = Upstream::echo().await;
    let gateway = super::start(&upstream, &[("mark", guests::older(), ""), ("quote", guests::older(), "")]).await;
    let mut client = gateway.client().await;
    for _ in 0..2 {
        let response = client.post("/x", b"body").await;
        assert_eq!((response.status, response.text()), (200, ">>>>body"));
        assert_eq!(response.head.all("x-plugin"), ["yes", "yes"]);
    }
}
