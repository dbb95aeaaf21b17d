//! Services that are wrong about when: too early, too late, between two requests.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::harness::{Gateway, Upstream, all_to, answer, within};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_when_nobody_asked_reaches_nobody() {
    let extra_is_sent = Arc::new(Notify::new());
    let sent = Arc::clone(&extra_is_sent);
    let upstream = Upstream::scripted(move |mut conn| {
        let sent = Arc::clone(&sent);
        async move {
            while let Some(request) = conn.request().await {
                conn.send(answer(200, request.target.as_bytes())).await;
                if request.target == "/first" {
                    conn.send(answer(200, b"stolen")).await;
                    // The gateway has noticed, or else it would use the connection again.
                    conn.closed().await;
                    sent.notify_one();
                    return;
                }
            }
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/first").await.text(), "/first");
        within("the end of that connection", extra_is_sent.notified()).await;
        assert_eq!(gateway.get("/second").await.text(), "/second");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_answers_before_it_has_read_the_request_crosses_nothing() {
    let upstream = Upstream::scripted(|mut conn| async move {
        // The head says enough; the body is never read.
        if let Some(request) = conn.head().await {
            conn.send(answer(413, request.target.as_bytes())).await;
        }
        conn.closed().await;
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    for number in 0..10 {
        let target = format!("/{number}");
        let mut client = gateway.client().await;
        client.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n")).await;
        client.send(vec![b'x'; 250_000]).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (413, &*target));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_closed_while_idle_cost_no_get() {
    let upstream = Upstream::scripted(|mut conn| async move {
        for _ in 0..2 {
            let Some(request) = conn.request().await else { return };
            conn.send(answer(200, request.target.as_bytes())).await;
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let asking = (0..8).map(|who| {
        let gateway = &gateway;
        async move {
            let mut client = gateway.client().await;
            for turn in 0..50 {
                let target = format!("/{who}/{turn}");
                assert_eq!(client.get(&target).await.text(), target);
            }
        }
    });
    futures_util::future::join_all(asking).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_refuses_connections_is_502_until_it_is_there() {
    let address = Upstream::dead_address().await;
    let yaml = format!(
        "upstreams:\n  main: {{ targets: [{{ address: \"{address}\" }}] }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n"
    );
    let gateway = Gateway::start(&yaml).await;
    for _ in 0..3 {
        gateway.get("/x").await.refused(502, "BAD_GATEWAY");
    }
    let _upstream = Upstream::scripted_at(address, |mut conn| async move {
        while conn.request().await.is_some() {
            conn.send(answer(200, b"there")).await;
        }
    })
    .await;
    assert_eq!(gateway.get("/x").await.text(), "there");
}
