//! However a request ends, nothing of it is in flight afterwards.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::Request;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{IN_FLIGHT, Slow, WAITING, ask, gateway, gateway_with};
use crate::harness::{Gateway, Upstream, within};
use crate::websocket::{connect, echo, next};

/// Nobody is in flight, and the only place there is can be had.
async fn free(gateway: &Gateway, slow: &Slow) {
    gateway.counts(&[(IN_FLIGHT, 0.0), (WAITING, 0.0)]).await;
    slow.answer(1);
    assert_eq!(gateway.get("/x").await.status, 200);
    gateway.counts(&[(IN_FLIGHT, 0.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_the_service_works() {
    let slow = Slow::start().await;
    let gateway = gateway(slow.address(), "max: 1").await;
    for reset in [false, true] {
        let client = slow.busy(&gateway, 1).await.remove(0);
        match reset {
            true => client.0.reset(),
            false => drop(client),
        }
        gateway.counts(&[(IN_FLIGHT, 0.0)]).await;
    }
    free(&gateway, &slow).await;
}

/// The wait is bounded by `wait`; who left in the line is gone at the latest then, or when its turn comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_it_waits() {
    let slow = Slow::start().await;
    let gateway = gateway(slow.address(), "max: 1, queue: 2, wait: 60s").await;
    let mut busy = slow.busy(&gateway, 1).await;
    let waits = ask(&gateway).await;
    gateway.counts(&[(WAITING, 1.0)]).await;
    waits.0.reset();
    let mut next = ask(&gateway).await;
    slow.answer(1);
    assert_eq!(busy[0].response().await.status, 200);
    // Its turn came and was passed on; the service may have seen the beginning of it.
    slow.answer(2);
    assert_eq!(next.response().await.status, 200);
    gateway.counts(&[(IN_FLIGHT, 0.0), (WAITING, 0.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_of_its_body() {
    let slow = Slow::start().await;
    let gateway = gateway(slow.address(), "max: 1").await;
    let mut client = gateway.client().await;
    client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nhalf").await;
    gateway.counts(&[(IN_FLIGHT, 1.0)]).await;
    drop(client);
    free(&gateway, &slow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_of_the_answer() {
    let upstream = Upstream::scripted(|mut conn| async move {
        if conn.request().await.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nbegun").await;
            while conn.send([b'x'; 65_536]).await {}
        }
    })
    .await;
    let gateway = gateway(upstream.address, "max: 1").await;
    let mut client = ask(&gateway).await;
    assert_eq!(client.response_head().await.unwrap().0, 200);
    gateway.counts(&[(IN_FLIGHT, 1.0)]).await;
    drop(client);
    gateway.counts(&[(IN_FLIGHT, 0.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies() {
    let upstream = Upstream::scripted(|mut conn| async move {
        if let Some(request) = conn.request().await {
            if request.target == "/half" {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
            }
            conn.reset();
        }
    })
    .await;
    let gateway = gateway(upstream.address, "max: 1").await;
    for _ in 0..3 {
        gateway.get("/x").await.refused(502, "BAD_GATEWAY");
        gateway.counts(&[(IN_FLIGHT, 0.0)]).await;
        let mut client = gateway.client().await;
        client.send("GET /half HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert!(client.try_response(false).await.is_err());
        gateway.counts(&[(IN_FLIGHT, 0.0)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_service_at_all() {
    let gateway = gateway(Upstream::dead_address().await, "max: 1").await;
    for _ in 0..3 {
        gateway.get("/x").await.refused(502, "BAD_GATEWAY");
        gateway.counts(&[(IN_FLIGHT, 0.0)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_a_later_filter() {
    let slow = Slow::start().await;
    let deny = "      - allow_ips: { deny: [127.0.0.1] }\n";
    let gateway = gateway_with(slow.address(), "max: 1", deny).await;
    // Also when a body was announced that never comes whole.
    for request in
        ["GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nx"]
    {
        for _ in 0..3 {
            let mut client = gateway.client().await;
            client.ask(request).await.refused(403, "FORBIDDEN");
            let free = gateway.counts(&[(IN_FLIGHT, 0.0)]);
            tokio::time::timeout(Duration::from_secs(3), free).await.expect("its place is free, connected or not");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_handler() {
    let gateway = Gateway::start(
        "admin: { bind: 127.0.0.1:0 }\nroutes:\n  - name: all\n    match: \"/{*rest}\"\n    filters:\n      \
         - concurrency: { max: 1, bucket: c }\n    respond: { body: here }\n",
    )
    .await;
    let mut client = gateway.client().await;
    for _ in 0..20 {
        // On one connection the next request never comes too early.
        assert_eq!(client.get("/x").await.status, 200);
    }
    gateway.counts(&[(IN_FLIGHT, 0.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_holds_its_place_until_it_closes() {
    let upstream = echo().await;
    let gateway = gateway(upstream.address, "max: 1").await;
    for polite in [true, false] {
        let mut socket = connect(&gateway, "/chat").await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::text("hello"));
        gateway.counts(&[(IN_FLIGHT, 1.0)]).await;
        match connect(&gateway, "/chat").await {
            Err(Error::Http(response)) => assert_eq!(response.status(), 503),
            other => panic!("{other:?}"),
        }
        if polite {
            socket.close(None).await.unwrap();
            while within("the end", socket.next()).await.is_some() {}
        }
        drop(socket);
        gateway.counts(&[(IN_FLIGHT, 0.0)]).await;
    }
    assert!(connect(&gateway, "/chat").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_http_2_that_is_reset() {
    let slow = Slow::start().await;
    let gateway = gateway(slow.address(), "max: 1").await;
    let client = gateway.h2().await;
    let request = || Request::get("http://a.test/x").body(()).unwrap();
    for _ in 0..3 {
        let mut sender = within("a free stream", client.0.clone().ready()).await.unwrap();
        let (response, mut stream) = sender.send_request(request(), true).unwrap();
        within("a request at the service", slow.begun.notified()).await;
        client.get("/x").await.refused(503, "OVERLOADED");
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        gateway.counts(&[(IN_FLIGHT, 0.0)]).await;
    }
    // The whole connection goes.
    let mut sender = within("a free stream", client.0.clone().ready()).await.unwrap();
    let waits = sender.send_request(request(), true).unwrap();
    within("a request at the service", slow.begun.notified()).await;
    gateway.counts(&[(IN_FLIGHT, 1.0)]).await;
    drop((waits, sender, client));
    free(&gateway, &slow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_http_2_that_is_reset_while_it_waits() {
    let slow = Slow::start().await;
    let gateway = gateway(slow.address(), "max: 1, queue: 1, wait: 2s").await;
    let mut busy = slow.busy(&gateway, 1).await;
    let client = gateway.h2().await;
    let mut sender = within("a free stream", client.0.clone().ready()).await.unwrap();
    let request = Request::get("http://a.test/x").body(()).unwrap();
    let (response, mut stream) = sender.send_request(request, true).unwrap();
    gateway.counts(&[(WAITING, 1.0)]).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    gateway.counts(&[(IN_FLIGHT, 1.0), (WAITING, 0.0)]).await;
    slow.answer(1);
    assert_eq!(busy[0].response().await.status, 200);
    free(&gateway, &slow).await;
}

/// A storm of clients that go away at any moment.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_many_that_leave() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(upstream.address, "max: 4, queue: 4, wait: 50ms").await;
    let address = gateway.address;
    let tasks: Vec<_> = (0..8_u64)
        .map(|seed| {
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..60 {
                    let mut client = crate::harness::Client::connect(address).await;
                    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
                    let patience = Duration::from_micros(random.u64(..3_000));
                    let _ = tokio::time::timeout(patience, client.try_response(false)).await;
                    if random.bool() {
                        client.0.reset();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        within("a client", task).await.unwrap();
    }
    gateway.counts(&[(IN_FLIGHT, 0.0), (WAITING, 0.0)]).await;
}
