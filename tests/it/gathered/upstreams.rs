//! What may go wrong behind the gateway with a body that was gathered.

use super::{CHUNKED, MAX, OWN, chunked, gathering, hash, head, settled, start};
use crate::harness::{Gateway, Upstream, answer, noise};

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_any_size_is_sent_to_another_target_when_one_cannot_be_reached() {
    let upstream = Upstream::echo().await;
    let dead = Upstream::dead_address().await;
    let targets = format!("targets: [{{ address: \"{dead}\" }}, {{ address: \"{}\" }}]", upstream.address);
    let gateway = Gateway::start(&gathering(&targets)).await;
    let mut client = gateway.client().await;
    for size in [0, 1, OWN, OWN + 1, MAX] {
        let body = noise(size);
        // Each target has its turn first.
        for _ in 0..2 {
            let response = client.post("/x", &body).await;
            assert_eq!((response.status, hash(&response.body)), (200, hash(&body)), "{size}");
        }
    }
    let retries = gateway.scrape().await;
    assert!(retries.all("tollgate_upstream_retries_total").iter().any(|(_, count)| *count > 0.0), "{retries:?}");
    // Without any target left the client is told.
    let other = Upstream::dead_address().await;
    let gateway = format!("targets: [{{ address: \"{dead}\" }}, {{ address: \"{other}\" }}]");
    let gateway = Gateway::start(&gathering(&gateway)).await;
    gateway.post("/x", &noise(MAX)).await.refused(502, "BAD_GATEWAY");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_any_size_is_sent_again_when_a_kept_connection_turns_out_dead() {
    // Answers one request on each connection; breaks with the second one, after its head or after some of its body.
    let upstream = Upstream::scripted(|mut conn| async move {
        if let Some(request) = conn.request().await {
            conn.send(answer(200, &request.body)).await;
        }
        if conn.head().await.is_some() {
            if conn.number % 2 == 0 {
                let _ = conn.wire.exactly(OWN / 2).await;
            }
            conn.reset();
        }
    })
    .await;
    let gateway = start(&upstream).await;
    let put = |body: &[u8]| {
        let head = format!("PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    for size in [OWN - 1, OWN + 1, MAX] {
        let body = noise(size);
        for _ in 0..4 {
            let mut client = gateway.client().await;
            client.send(put(&body)).await;
            let response = client.response().await;
            assert_eq!((response.status, hash(&response.body)), (200, hash(&body)), "{size}");
        }
    }
    assert!(upstream.requests().iter().all(|request| request.framing != crate::harness::Framing::None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_body_was_read_reaches_the_client() {
    let upstream = Upstream::scripted(|mut conn| async move {
        if conn.head().await.is_some() {
            conn.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
            // What still comes is swallowed.
            conn.closed().await;
        }
    })
    .await;
    let gateway = start(&upstream).await;
    for size in [1, OWN + 1, MAX] {
        let mut client = gateway.client().await;
        for _ in 0..2 {
            let response = client.post("/x", &noise(size)).await;
            assert_eq!((response.status, response.text()), (403, "no"), "{size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_answers_and_closes_without_reading_harms_nobody() {
    let upstream = Upstream::scripted(|mut conn| async move {
        if conn.head().await.is_some() {
            conn.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
        }
    })
    .await;
    let gateway = start(&upstream).await;
    for _ in 0..5 {
        let response = gateway.post("/x", &noise(MAX)).await;
        // Whether the answer is read before the reset is seen is up to the network.
        assert!([413, 502].contains(&response.status), "{}", response.status);
    }
    settled(&gateway, "all").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_while_it_answers_cuts_the_client_off() {
    let upstream = Upstream::scripted(|mut conn| async move {
        if conn.request().await.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await;
            conn.reset();
        }
    })
    .await;
    let gateway = start(&upstream).await;
    for size in [1, MAX] {
        let mut client = gateway.client().await;
        client.send([head("/x", &format!("Content-Length: {size}")).as_bytes(), &noise(size)].concat()).await;
        assert_eq!(client.response_head().await.unwrap().0, 200);
        assert!(client.rest().await.len() < 100);
    }
    settled(&gateway, "all").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_before_it_answers_is_told_of() {
    let upstream = Upstream::scripted(|mut conn| async move {
        if let Some(request) = conn.head().await {
            if request.target == "/whole" {
                let _ = conn.body(request.framing).await;
            }
            conn.reset();
        }
    })
    .await;
    let gateway = start(&upstream).await;
    for path in ["/head", "/whole"] {
        for size in [1, OWN + 1, MAX] {
            let mut client = gateway.client().await;
            client.post(path, &noise(size)).await.refused(502, "BAD_GATEWAY");
            if size == 1 {
                // It had come whole: nothing of it is left on the way.
                client.get("/head").await.refused(502, "BAD_GATEWAY");
            } else {
                client.closed().await;
            }
            let mut client = gateway.client().await;
            client.send([head(path, CHUNKED).as_bytes(), &chunked(&noise(size), 10_000)].concat()).await;
            client.response().await.refused(502, "BAD_GATEWAY");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_pass() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
            conn.send(answer(200, &request.body)).await;
        }
    })
    .await;
    let gateway = start(&upstream).await;
    let mut client = gateway.client().await;
    let body = noise(OWN + 1);
    for _ in 0..2 {
        client.send([head("/x", &format!("Content-Length: {}", body.len())).as_bytes(), &body].concat()).await;
        assert_eq!(client.try_response(false).await.unwrap().status, 103);
        assert_eq!(hash(&client.response().await.body), hash(&body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_is_counted_once() {
    let upstream = Upstream::echo().await;
    let dead = Upstream::dead_address().await;
    let targets = format!("targets: [{{ address: \"{dead}\" }}, {{ address: \"{}\" }}]", upstream.address);
    let gateway = Gateway::start(&gathering(&targets)).await;
    for _ in 0..2 {
        gateway.post("/x", &noise(100_000)).await;
    }
    gateway.counts(&[("tollgate_request_bytes_total{route=\"all\"}", 200_000.0)]).await;
}

/// Without a filter that looks at it, Pingora replays a body by itself, through the same measure.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_twice_is_measured_once() {
    let upstream = Upstream::scripted(|mut conn| async move {
        if let Some(request) = conn.request().await {
            conn.send(answer(200, &request.body)).await;
        }
        if conn.request().await.is_some() {
            conn.reset();
        }
    })
    .await;
    let yaml = gathering(&format!("targets: [{{ address: \"{}\" }}]", upstream.address))
        .replace("match: /plain,", "match: /plain, body_max: 40000B,");
    let gateway = Gateway::start(&yaml).await;
    let body = noise(40_000);
    for path in ["/plain", "/x"] {
        for _ in 0..6 {
            let mut client = gateway.client().await;
            client.send(format!("PUT {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 40000\r\n\r\n")).await;
            client.send(&body).await;
            let response = client.response().await;
            assert_eq!((response.status, hash(&response.body)), (200, hash(&body)), "{path}");
        }
    }
    assert!(upstream.requests().len() > 12, "some were sent twice");
    gateway.counts(&[("tollgate_request_bytes_total{route=\"plain\"}", 240_000.0)]).await;
}
