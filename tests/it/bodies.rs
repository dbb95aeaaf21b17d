//! Bodies: streamed both ways, bounded, and `Expect: 100-continue`.

use sha2::{Digest as _, Sha256};

use crate::harness::{Client, Framing, Gateway, Upstream, all_to, answer, chunked, noise, within};

const MAX: usize = 1000;

fn limited(upstream: &Upstream) -> String {
    all_to(upstream).replace(", upstream: main", &format!(", body_max: {MAX}B, upstream: main"))
}

const CHUNKED: &str = "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_body_up_to_the_limit_passes_and_one_byte_more_does_not() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&limited(&upstream)).await;
    for length in [0, 1, MAX - 1, MAX] {
        let body = noise(length);
        assert_eq!(gateway.post("/x", &body).await.body, body, "{length}, Content-Length");
        let mut client = gateway.client().await;
        client.send([CHUNKED.as_bytes(), &chunked(&body, 300)].concat()).await;
        assert_eq!(client.response().await.body, body, "{length}, chunked");
        assert_eq!(upstream.last().framing, Framing::Chunked);
    }
    let before = upstream.requests().len();
    for length in [MAX + 1, 10 * MAX] {
        let body = noise(length);
        let response = gateway.post("/x", &body).await;
        response.refused(413, "BODY_TOO_LARGE");
        assert_eq!(response.json()["error"]["details"]["body_max"], MAX);
        let mut client = gateway.client().await;
        client.send([CHUNKED.as_bytes(), &chunked(&body, 300)].concat()).await;
        client.response().await.refused(413, "BODY_TOO_LARGE");
    }
    assert_eq!(upstream.requests().len(), before, "no whole request arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_is_not_taken_for_the_next_request() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&limited(&upstream)).await;
    let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let body = smuggled.repeat(100);
    // By each engine: one has all of it, the other one knows from the head that it will not.
    let mut client = gateway.client().await;
    client.post("/x", &body).await.refused(413, "BODY_TOO_LARGE");
    assert!(client.is_usable("/after").await);
    assert_eq!(upstream.only().target, "/after", "nothing in the body is answered");
    let mut client = gateway.client().await;
    client.post("/x", &body.repeat(10)).await.refused(413, "BODY_TOO_LARGE");
    assert_eq!(client.rest().await, b"", "nothing in the body is answered");
    assert_eq!(upstream.requests().len(), 1);
    // A route that answers without reading the body: the same.
    let yaml = all_to(&upstream).replace("/{*rest}", "GET /only");
    let gateway = Gateway::start(&yaml).await;
    let mut client = gateway.client().await;
    let length = smuggled.len();
    client.send(format!("POST /nothing HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n")).await;
    client.send(smuggled).await;
    client.response().await.refused(404, "NOT_FOUND");
    if client.is_usable("/only").await {
        assert_eq!(upstream.last().target, "/only");
    }
    assert!(upstream.requests().iter().all(|request| request.target != "/smuggled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_on_sending_still_hears_the_refusal() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&limited(&upstream)).await;
    let body = noise(8_000_000);
    for _ in 0..5 {
        gateway.post("/x", &body).await.refused(413, "BODY_TOO_LARGE");
        let mut client = gateway.client().await;
        client.send([CHUNKED.as_bytes(), &chunked(&body, 100_000)].concat()).await;
        client.response().await.refused(413, "BODY_TOO_LARGE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_megabytes_pass_both_ways() {
    let upstream = Upstream::echo().await;
    let yaml = all_to(&upstream).replace(", upstream: main", ", body_max: 32MiB, upstream: main");
    let gateway = Gateway::start(&yaml).await;
    let body = noise(20_000_000);
    let hash = Sha256::digest(&body);
    let response = gateway.post("/x", &body).await;
    assert_eq!(Sha256::digest(&response.body), hash);
    let mut client = gateway.client().await;
    client.send([CHUNKED.as_bytes(), &chunked(&body, 100_000)].concat()).await;
    assert_eq!(Sha256::digest(client.response().await.body), hash);
    for request in upstream.requests() {
        assert_eq!(Sha256::digest(&request.body), hash);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_begins_while_the_request_still_goes_on() {
    // The upstream sends back piece by piece what it gets.
    let upstream = Upstream::scripted(|mut conn| async move {
        let Some(request) = conn.head().await else { return };
        assert_eq!(request.framing, Framing::Chunked);
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        while let Ok(chunk) = conn.wire.chunk().await {
            conn.send(format!("{:x}\r\n", chunk.len())).await;
            conn.send(&chunk).await;
            conn.send("\r\n").await;
            if chunk.is_empty() {
                break;
            }
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut client = gateway.client().await;
    client.send(CHUNKED).await;
    assert_eq!(client.response_head().await.unwrap().0, 200);
    for turn in 0..10 {
        let piece = format!("piece {turn}");
        client.send(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
        let mut got = Vec::new();
        while got.len() < piece.len() {
            got.extend(within("a piece", client.0.chunk()).await.unwrap());
        }
        assert_eq!(got, piece.as_bytes());
    }
    client.send("0\r\n\r\n").await;
    assert!(within("the end", client.0.chunk()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_body_was_read_reaches_the_client() {
    let upstream = Upstream::scripted(|mut conn| async move {
        if conn.head().await.is_some() {
            conn.send(answer(403, b"no need to go on")).await;
            // What still comes is swallowed.
            conn.closed().await;
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut client = gateway.client().await;
    client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\nthe first part").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (403, "no need to go on"));
}

/// Asks with `Expect`; gives the first status that comes and whether the client was asked to go on.
async fn expecting(client: &mut Client, head: &str, body: &[u8]) -> (Vec<u16>, Vec<u8>) {
    client.send(format!("POST /x HTTP/1.1\r\nHost: a.test\r\n{head}Expect: 100-continue\r\n\r\n")).await;
    let mut statuses = Vec::new();
    loop {
        let response = client.try_response(false).await;
        let response = response.unwrap_or_else(|broken| panic!("{broken:?} after {statuses:?}"));
        statuses.push(response.status);
        match response.status {
            100 => {
                client.send(body).await;
            }
            status if status >= 200 => return (statuses, response.body),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_to_be_asked_is_asked_once() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while let Some(mut request) = conn.head().await {
            if request.head.has("expect") {
                conn.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            }
            let Some(body) = conn.body(request.framing).await else { return };
            request.body = body.bytes;
            conn.record(&request);
            conn.send(answer(200, &request.body)).await;
        }
    })
    .await;
    let gateway = Gateway::start(&limited(&upstream)).await;
    let mut client = gateway.client().await;
    let (statuses, body) = expecting(&mut client, "Content-Length: 4\r\n", b"body").await;
    assert_eq!((statuses.as_slice(), body.as_slice()), ([100, 200].as_slice(), b"body".as_slice()));
    // The engine ends a connection on which it had to ask.
    client.closed().await;
    let mut client = gateway.client().await;
    let (statuses, body) = expecting(&mut client, "Transfer-Encoding: chunked\r\n", &chunked(b"body", 2)).await;
    assert_eq!((statuses.as_slice(), body.as_slice()), ([100, 200].as_slice(), b"body".as_slice()));
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_to_be_asked_is_refused_without_being_asked() {
    let upstream = Upstream::silent().await;
    let gateway = Gateway::start(&limited(&upstream)).await;
    let mut client = gateway.client().await;
    let (statuses, _) = expecting(&mut client, &format!("Content-Length: {}\r\n", MAX + 1), b"").await;
    assert_eq!(statuses, [413]);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_instead_of_asking_is_heard() {
    let upstream = Upstream::scripted(|mut conn| async move {
        if conn.head().await.is_some() {
            conn.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
        }
    })
    .await;
    let gateway = Gateway::start(&limited(&upstream)).await;
    let mut client = gateway.client().await;
    let (statuses, body) = expecting(&mut client, "Content-Length: 4\r\n", b"body").await;
    assert_eq!((statuses.as_slice(), body.as_slice()), ([417].as_slice(), b"no".as_slice()));
}

/// What the engine does with trailers of HTTP/1.1: they are read, so that the next request is found, and dropped. RFC 9110
/// §6.5.1 allows that.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_http_1_are_read_and_dropped() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
    )
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut client = gateway.client().await;
    client.send([CHUNKED, "3\r\nabc\r\n0\r\nX-Sum: 7\r\nHost: evil\r\n\r\n"].concat()).await;
    let response = client.response().await;
    assert_eq!(response.text(), "ok");
    assert!(response.trailers.is_empty(), "{:?}", response.trailers);
    let request = upstream.only();
    assert_eq!(request.body, b"abc");
    assert!(request.trailers.is_empty() && request.head.get("host") == Some("a.test"), "{request:?}");
}
