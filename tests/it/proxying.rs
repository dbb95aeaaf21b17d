//! Plain forwarding: connections, versions, methods, interim and bodiless answers.

use crate::harness::{Broken, Framing, Gateway, Upstream, all_to, answer, within};

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_reused_on_both_sides() {
    let upstream = Upstream::echo().await;
    let yaml = all_to(&upstream);
    let gateway = Gateway::start(&yaml).await;
    let mut client = gateway.client().await;
    // Each engine keeps those that it opened.
    for number in 0..20 {
        let body = format!("request {number}");
        assert_eq!(client.post("/x", body.as_bytes()).await.text(), body);
        let chunked = "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(client.ask(chunked).await.text(), "abc");
    }
    let connections: Vec<usize> = upstream.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 2].repeat(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_close_is_kept_to() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    client.closed().await;
    // The upstream's connection is not the client's.
    assert_eq!(gateway.get("/y").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_is_served() {
    let upstream =
        Upstream::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let (status, head) = client.response_head().await.unwrap();
    assert_eq!(status, 200);
    // RFC 9112 §6.1: no transfer coding for a client that cannot know it.
    assert!(!head.has("transfer-encoding"), "{head:?}");
    assert_eq!(client.rest().await, b"abc");
    assert_eq!(upstream.only().target, "/x");
    let mut without_host = gateway.client().await;
    without_host.send("GET /y HTTP/1.0\r\n\r\n").await;
    assert_eq!(without_host.response_head().await.unwrap().0, 200);
    // What is forwarded is HTTP/1.1 and needs one.
    assert_eq!(upstream.last().head.get("host"), Some(&*upstream.address.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_bodiless_answers_have_no_body() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            match (request.method.as_str(), request.target.as_str()) {
                ("HEAD", _) => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: b\r\n\r\n").await,
                (_, "/204") => conn.send("HTTP/1.1 204 No Content\r\n\r\n").await,
                (_, "/304") => conn.send("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n").await,
                _ => conn.send(answer(200, b"")).await,
            };
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut client = gateway.client().await;
    client.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.response_to_head().await;
    assert_eq!((head.status, head.head.get("content-length")), (200, Some("1234")));
    assert_eq!(client.get("/204").await.status, 204);
    assert_eq!(client.get("/304").await.head.get("etag"), Some("\"x\""));
    assert_eq!(client.get("/empty").await.body, b"");
    // A refusal of a HEAD has none either; the connection goes on.
    let yaml = all_to(&upstream).replace("/{*rest}", "GET /only");
    let gateway = Gateway::start(&yaml).await;
    let mut client = gateway.client().await;
    client.send("HEAD /nothing HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response_to_head().await.status, 404);
    assert_eq!(client.get("/only").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_keep_their_framing() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            match request.target.as_str() {
                "/length" => conn.send(answer(200, b"abc")).await,
                "/chunked" => {
                    conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")
                        .await
                }
                _ => {
                    conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc").await;
                    return;
                }
            };
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let length = gateway.get("/length").await;
    assert_eq!((length.framing, length.text()), (Framing::Length(3), "abc"));
    let chunked = gateway.get("/chunked").await;
    assert_eq!((chunked.framing, chunked.text()), (Framing::Chunked, "abc"));
    let mut client = gateway.client().await;
    // A close-delimited body has an end that can be told from a break-off: it becomes chunked.
    let close = client.get("/close").await;
    assert_eq!((close.framing, close.text()), (Framing::Chunked, "abc"));
    assert!(client.is_usable("/length").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_do_not_end_an_exchange() {
    let upstream = Upstream::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut statuses = Vec::new();
    loop {
        let response = client.response().await;
        statuses.push(response.status);
        if response.status >= 200 {
            assert_eq!(response.text(), "ok");
            break;
        }
    }
    assert_eq!(statuses, [103, 102, 200]);
    assert!(client.is_usable("/y").await || statuses.len() == 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_its_request_id() {
    let upstream =
        Upstream::answering("HTTP/1.1 500 Oops\r\nX-Request-Id: of-the-service\r\nContent-Length: 4\r\n\r\noops").await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let response = gateway.get("/x").await;
    // An error of the service is the service's: passed on as it is.
    assert_eq!((response.status, response.text()), (500, "oops"));
    assert_eq!(response.head.get("x-request-id"), upstream.only().head.get("x-request-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_exchange() {
    let upstream = Upstream::scripted(|mut conn| async move {
        if let Some(request) = conn.request().await {
            conn.closed().await;
            // Recorded a second time: the gateway has let go of the connection.
            conn.record(&request);
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.received(1).await;
    drop(client);
    upstream.received(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_at_once_each_get_their_own_answer() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let clients = (0..100).map(|number| {
        let address = gateway.address;
        tokio::spawn(async move {
            let mut client = crate::harness::Client::connect(address).await;
            for turn in 0..5 {
                let body = format!("client {number} turn {turn}");
                assert_eq!(client.post("/x", body.as_bytes()).await.text(), body);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        within("a client", client).await.unwrap();
    }
    assert_eq!(upstream.requests().len(), 500);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_answer_is_visibly_truncated() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n",
    ] {
        let upstream = Upstream::answering_once(answer).await;
        let gateway = Gateway::start(&all_to(&upstream)).await;
        let mut client = gateway.client().await;
        client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let response = within("the end", client.try_response(false)).await;
        assert!(matches!(response, Err(Broken::Cut)), "{answer:?}: {response:?}");
    }
}
