//! Clients that are slow, leave, wait to be asked, or go on at once.

use std::time::Duration;

use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;

use super::{CHUNKED, MAX, OWN, chunked, gathering, hash, head, send_chunked, settled, start, to};
use crate::harness::{Gateway, Upstream, noise};
use crate::websocket;

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_byte_by_byte_arrives() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let body = noise(300);
    let known = [head("/x", "Content-Length: 300").as_bytes(), &body].concat();
    let unknown = [head("/x", CHUNKED).as_bytes(), &chunked(&body, 10)].concat();
    for request in [known, unknown] {
        let mut client = gateway.client().await;
        for byte in &request {
            client.send([*byte]).await;
            // Each byte in a packet of its own, more often than not.
            tokio::task::yield_now().await;
        }
        assert_eq!(client.response().await.body, body);
        assert_eq!(upstream.last().body, body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_reaches_the_upstream_before_the_whole_body_is_there() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let body = noise(MAX);
    let mut client = gateway.client().await;
    client.send(head("/x", &format!("Content-Length: {MAX}"))).await;
    client.send(&body[..MAX - 1]).await;
    // Another request has been through meanwhile.
    assert_eq!(gateway.get("/plain").await.status, 200);
    assert_eq!(upstream.only().target, "/plain");
    client.send(&body[MAX - 1..]).await;
    assert_eq!(hash(&client.response().await.body), hash(&body));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_client_that_leaves_nothing_reaches_the_upstream() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let body = noise(MAX);
    for sent in [0, 1, OWN, OWN + 1, MAX - 1] {
        for reset in [false, true] {
            let mut client = gateway.client().await;
            client.send(head("/x", &format!("Content-Length: {MAX}"))).await;
            client.send(&body[..sent]).await;
            let mut other = gateway.client().await;
            let whole = chunked(&body, 10_000);
            other.send([head("/x", CHUNKED).as_bytes(), &whole[..sent.max(3)]].concat()).await;
            for client in [client, other] {
                if reset { client.0.reset() } else { drop(client) }
            }
        }
    }
    settled(&gateway, "all").await;
    assert_eq!(upstream.connections(), 0);
    // What is no chunk is no body either.
    let mut client = gateway.client().await;
    client.send([head("/x", CHUNKED).as_str(), "5\r\nhello\r\nxyz\r\n"].concat()).await;
    client.response().await.refused(400, "BAD_REQUEST");
    client.closed().await;
    assert_eq!(upstream.connections(), 0);
    assert_eq!(hash(&gateway.post("/x", &body).await.body), hash(&body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&["limits: { body_timeout: 1s }\n", &to(&upstream)].concat()).await;
    for framing in ["Content-Length: 60", CHUNKED] {
        let mut client = gateway.client().await;
        client.send(head("/x", framing)).await;
        client.response().await.refused(408, "REQUEST_TIMEOUT");
        client.closed().await;
    }
    // The time counts from the first to the last byte.
    let mut client = gateway.client().await;
    client.send(head("/x", CHUNKED)).await;
    let (mut reading, mut writing) = client.0.stream.into_split();
    let dripping = tokio::spawn(async move {
        while tokio::io::AsyncWriteExt::write_all(&mut writing, b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answer);
    // The gateway may reset the connection behind its answer, as more comes than it takes.
    let _ = crate::harness::within("the answer", read).await;
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    crate::harness::within("the end of the dripping", dripping).await.unwrap();
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_to_be_asked_is_asked_by_the_gateway_alone() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    for size in [1, OWN + 1, MAX] {
        let body = noise(size);
        for (framing, bytes) in
            [(format!("Content-Length: {size}"), body.clone()), (CHUNKED.to_owned(), chunked(&body, 30_000))]
        {
            let mut client = gateway.client().await;
            client.send(head("/x", &format!("{framing}\r\nExpect: 100-continue"))).await;
            assert_eq!(client.try_response(false).await.unwrap().status, 100);
            client.send(bytes).await;
            let response = client.response().await;
            assert_eq!((response.status, hash(&response.body)), (200, hash(&body)), "{framing}");
            assert!(!upstream.last().head.has("expect"), "{framing}");
            // The engine ends a connection on which it had to ask.
            client.closed().await;
        }
    }
    let before = upstream.requests().len();
    let mut client = gateway.client().await;
    client.send(head("/x", &format!("Content-Length: {}\r\nExpect: 100-continue", MAX + 1))).await;
    client.response().await.refused(413, "BODY_TOO_LARGE");
    let mut client = gateway.client().await;
    client.send(head("/json", "Content-Length: 4\r\nContent-Type: text/plain\r\nExpect: 100-continue")).await;
    client.response().await.refused(415, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(upstream.requests().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_after_each_kind_of_answer() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let mut client = gateway.client().await;
    let json = |body: &[u8]| {
        let fields = format!("Content-Type: application/json\r\nContent-Length: {}", body.len());
        [head("/json", &fields).as_bytes(), body].concat()
    };
    let large = [b"[1".as_slice(), &b", 1".repeat(100_000), b"]"].concat();
    let large_and_wrong = large[..large.len() - 1].to_vec();
    for round in 0..3 {
        let body = noise(MAX - round);
        assert_eq!(hash(&client.post("/x", &body).await.body), hash(&body));
        // Refused after the body was read whole, by what is in it.
        client.send(json(&large_and_wrong)).await;
        client.response().await.refused(400, "VALIDATION_ERROR");
        client.send(json(&large)).await;
        assert_eq!(hash(&client.response().await.body), hash(&large));
        send_chunked(&mut client, "/x", &body, 50_000).await;
        assert_eq!(hash(&client.response().await.body), hash(&body));
        assert_eq!(client.post("/plain", b"plain").await.body, b"plain");
    }
    assert_eq!(upstream.requests().len(), 12);
    // Refused, and nothing in the body is read as a request: it is all there, and the connection goes on.
    let smuggled = |times| {
        let body = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n".repeat(times);
        let fields = format!("Content-Type: text/plain\r\nContent-Length: {}", body.len());
        [head("/json", &fields).as_bytes(), &body].concat()
    };
    client.send(smuggled(100)).await;
    client.response().await.refused(415, "UNSUPPORTED_MEDIA_TYPE");
    assert!(client.is_usable("/plain").await);
    // Or not a byte of it was read: the engine for those ends the connection.
    client.send(smuggled(1000)).await;
    client.response().await.refused(415, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(client.rest().await, b"");
    assert_eq!(upstream.requests().len(), 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_sent_right_behind_a_body_is_not_taken_for_a_part_of_it() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let next = head("/second", "Connection: close\r\nContent-Length: 3");
    for size in [1, 100, OWN, MAX] {
        let body = noise(size);
        for bytes in [
            [head("/first", &format!("Content-Length: {size}")).as_bytes(), &body].concat(),
            [head("/first", CHUNKED).as_bytes(), &chunked(&body, 20_000)].concat(),
        ] {
            let before = upstream.requests().len();
            let mut client = gateway.client().await;
            client.send([bytes.as_slice(), next.as_bytes(), b"abc"].concat()).await;
            // Behind a body that was read from its connection, requests sent before the first is answered are dropped with it.
            if let Ok(response) = client.try_response(false).await
                && response.status == 200
            {
                assert_eq!(hash(&response.body), hash(&body));
            }
            client.rest().await;
            for request in &upstream.requests()[before..] {
                let expected = if request.target == "/first" { body.as_slice() } else { b"abc" };
                assert_eq!(hash(&request.body), hash(expected), "{}", request.target);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_is_answered_and_closed_where_nothing_else_tells_the_end() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let body = noise(OWN + 1);
    let head = format!("POST /x HTTP/1.0\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut client = gateway.client().await;
    client.send([head.as_bytes(), &body].concat()).await;
    let answer = client.rest().await;
    assert!(answer.starts_with(b"HTTP/1.1 200 ") || answer.starts_with(b"HTTP/1.0 200 "));
    assert!(answer.ends_with(&body));
    assert_eq!(hash(&upstream.last().body), hash(&body));
    // A service that answers in chunks: what a client of HTTP/1.0 is sent ends with the connection.
    let upstream =
        Upstream::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    let gateway = start(&upstream).await;
    let mut client = gateway.client().await;
    client.send("POST /x HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi").await;
    let answer = String::from_utf8(client.rest().await).unwrap();
    assert!(answer.ends_with("\r\n\r\nabc") && !answer.to_ascii_lowercase().contains("chunked"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_passes_the_filter_and_its_messages_pass_both_ways() {
    let upstream = websocket::echo().await;
    let gateway = start(&upstream).await;
    let mut socket = websocket::connect(&gateway, "/chat").await.unwrap();
    for message in [Message::text("hello"), Message::binary(noise(OWN + 1)), Message::binary(noise(1_000_000))] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(websocket::next(&mut socket).await, message);
    }
    // One that the filter refuses never gets there.
    assert!(websocket::connect(&gateway, "/json").await.is_err());
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_with_a_body_does_not_hang() {
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream).await;
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: 70000";
    let body = noise(70_000);
    let mut client = gateway.client().await;
    client.send([head("/x", fields).as_bytes(), &body].concat()).await;
    assert_eq!(hash(&client.response().await.body), hash(&body));
    assert_eq!(hash(&upstream.only().body), hash(&body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_the_service_thinks_is_noticed() {
    let upstream = Upstream::silent().await;
    let gateway = start(&upstream).await;
    let body = noise(OWN + 1);
    let mut client = gateway.client().await;
    client.send([head("/x", &format!("Content-Length: {}", body.len())).as_bytes(), &body].concat()).await;
    assert_eq!(hash(&upstream.received(1).await[0].body), hash(&body));
    drop(client);
    settled(&gateway, "all").await;
    // The same while the service does not even take the body.
    let upstream = Upstream::scripted(|conn| async move {
        std::future::pending::<()>().await;
        drop(conn);
    })
    .await;
    let yaml = to(&upstream).replace("1MiB", "20MiB").replace("2MiB", "20MiB");
    let gateway = Gateway::start(&yaml).await;
    let body = noise(20 * MAX);
    let mut client = gateway.client().await;
    client.send([head("/x", &format!("Content-Length: {}", body.len())).as_bytes(), &body].concat()).await;
    gateway.counts(&[("tollgate_request_bytes_total{route=\"all\"}", 0.0)]).await;
    drop(client);
    settled(&gateway, "all").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_answer_is_given_up() {
    let upstream = Upstream::silent().await;
    let keys = format!("timeouts: {{ first_byte: 1s }}, targets: [{{ address: \"{}\" }}]", upstream.address);
    let gateway = Gateway::start(&gathering(&keys)).await;
    for size in [0, 1, OWN + 1, MAX] {
        for _ in 0..3 {
            gateway.post("/x", &noise(size)).await.refused(504, "GATEWAY_TIMEOUT");
        }
    }
}
