//! What is tried again, and what is not.

use std::time::{Duration, Instant};

use super::{Does, Pair, gateway, post, service};
use crate::harness::{Upstream, answer};

#[tokio::test(flavor = "multi_thread")]
async fn each_condition_holds_for_itself_only() {
    let failures = [
        (Does::Resets, "reset", 502),
        (Does::IsSilent, "timeout", 504),
        (Does::Refuses(503), "503", 503),
        (Does::Refuses(429), "429", 429),
        (Does::Refuses(404), "404", 404),
    ];
    for (does, word, status) in failures {
        let listed = Pair::start(does, &format!("try_timeout: 300ms, on: [{word}]")).await;
        assert_eq!(listed.gateway.get("/x").await.status, 200, "{word}");
        assert_eq!(listed.asked(), (1, 1), "{word}");
        listed.retried(if word.parse::<u16>().is_ok() { "status" } else { word }, 1.0).await;
        let others: Vec<&str> = failures.iter().map(|(_, other, _)| *other).filter(|other| *other != word).collect();
        let unlisted = Pair::start(does, &format!("try_timeout: 300ms, on: [connect, {}]", others.join(", "))).await;
        assert_eq!(unlisted.gateway.get("/x").await.status, status, "{word}");
        assert_eq!(unlisted.asked(), (1, 0), "{word}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_is_tried_again_for_every_method_when_it_is_listed() {
    let second = service(Does::Answers).await;
    let targets = [Upstream::dead_address().await, second.address];
    let listed = gateway(&targets, "retry: { on: [connect], unsafe_methods: never }").await;
    assert_eq!(listed.post("/x", b"body").await.text(), "body");
    let unlisted = gateway(&targets, "retry: { on: [reset, timeout, 502, 503, 504] }").await;
    unlisted.post("/x", b"body").await.refused(502, "BAD_GATEWAY");
    assert_eq!(second.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_happen_twice_is_sent_twice_only_with_a_key() {
    for (does, status) in [(Does::Refuses(503), 503), (Does::Resets, 502), (Does::IsSilent, 504)] {
        let pair = Pair::start(does, "try_timeout: 300ms, on: [reset, timeout, 503]").await;
        assert_eq!(pair.gateway.ask(&post("/x", "", "body")).await.status, status, "{does:?}");
        assert_eq!(pair.asked(), (1, 0));
        // The rotation stands at the second one now.
        assert_eq!(pair.gateway.get("/x").await.status, 200);
        let keyed = pair.gateway.ask(&post("/x", "Idempotency-Key: 7\r\n", "body")).await;
        assert_eq!((keyed.status, keyed.text()), (200, "body"), "{does:?}");
        assert_eq!(pair.asked(), (2, 2), "{does:?}");
        let both = (pair.first.last(), pair.second.last());
        assert_eq!((both.0.body.as_slice(), both.1.body.as_slice()), (&b"body"[..], &b"body"[..]));
        assert_eq!(both.1.head.get("idempotency-key"), Some("7"));
    }
    let never = Pair::start(Does::Refuses(503), "on: [503], unsafe_methods: never").await;
    assert_eq!(never.gateway.ask(&post("/x", "Idempotency-Key: 7\r\n", "body")).await.status, 503);
    let always = Pair::start(Does::Refuses(503), "on: [503], unsafe_methods: always").await;
    assert_eq!(always.gateway.ask(&post("/x", "", "body")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_answer_of_the_service_is_passed_on() {
    let mut services = Vec::new();
    for status in [503, 502, 503, 504] {
        services.push(service(Does::Refuses(status)).await);
    }
    let addresses: Vec<_> = services.iter().map(|service| service.address).collect();
    for (attempts, last) in [(1, 503), (2, 502), (3, 503)] {
        let keys = format!("retry: {{ attempts: {attempts}, on: [502, 503, 504], backoff: {{ first: 1ms }} }}");
        let gateway = gateway(&addresses[..=attempts], &keys).await;
        let mut client = gateway.client().await;
        let response = client.get("/x").await;
        assert_eq!((response.status, response.text()), (last, "the service says no"), "{attempts}");
        let series = "tollgate_upstream_retries_total{reason=\"status\",upstream=\"main\"}";
        gateway.counts(&[(series, (attempts - 1) as f64)]).await;
        // The exchange ended well: the connection serves on.
        assert!(client.is_usable("/x").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_target_comes_before_one_is_asked_again() {
    let (first, second, third) =
        (service(Does::Refuses(503)).await, service(Does::Refuses(503)).await, service(Does::Refuses(503)).await);
    let all = [first.address, second.address, third.address];
    for way in ["round_robin", "least_connections", "random", "{ hash: path }"] {
        let before = [&first, &second, &third].map(|one| one.requests().len());
        let keys = format!("balance: {way}, retry: {{ attempts: 3, on: [503], backoff: {{ first: 1ms }} }}");
        assert_eq!(gateway(&all, &keys).await.get("/x").await.status, 503);
        let after = [&first, &second, &third].map(|one| one.requests().len());
        assert_eq!(after, before.map(|count| count + 1), "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_tried_again_once_an_answer_has_begun() {
    let pair = Pair::start(Does::ResetsLater, "on: [connect, reset, timeout, 502], unsafe_methods: always").await;
    let mut client = pair.gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let all = String::from_utf8(client.rest().await).unwrap();
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
    assert!(all.ends_with("\r\n\r\nhalf"), "{all}");
    assert_eq!(pair.asked(), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_http_2_are_served_alike() {
    let pair = Pair::start(Does::Refuses(503), "on: [reset, 503]").await;
    let client = pair.gateway.h2().await;
    assert_eq!(client.get("/x").await.status, 200);
    let request = http::Request::post("http://a.test/x").header("idempotency-key", "7").body(()).unwrap();
    let body = client.ask(request, vec![b'x'; 1000]).await.unwrap();
    assert_eq!((body.status.as_u16(), body.body.len()), (200, 1000));
    assert_eq!(client.post("/x", b"body".to_vec()).await.status, 503);
    let reset = Pair::start(Does::Resets, "on: [reset]").await;
    assert_eq!(reset.gateway.h2().await.get("/x").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_has_its_time_and_all_of_them_have_theirs() {
    let silent = [service(Does::IsSilent).await, service(Does::IsSilent).await, service(Does::IsSilent).await];
    let addresses = silent.each_ref().map(|one| one.address);
    let asked = || silent.iter().map(|one| one.requests().len()).sum::<usize>();
    let retry = "retry: { attempts: 3, on: [timeout], try_timeout: 300ms, backoff: { first: 1ms } }";
    let start = Instant::now();
    let tries = gateway(&addresses, retry).await;
    tries.get("/x").await.refused(504, "GATEWAY_TIMEOUT");
    assert!(start.elapsed() >= Duration::from_millis(890), "{:?}", start.elapsed());
    assert_eq!(asked(), 3);
    // There is time for the whole of the first try and for a part of the second one.
    let total = gateway(&addresses, &format!("{retry}, timeouts: {{ total: 450ms }}")).await;
    let start = Instant::now();
    total.get("/x").await.refused(504, "GATEWAY_TIMEOUT");
    assert!(start.elapsed() >= Duration::from_millis(440), "{:?}", start.elapsed());
    assert_eq!(asked(), 5);
    // A body that was sent whole is sent again, and the time begins again with it.
    let body = post("/x", "Idempotency-Key: 7\r\n", "body");
    tries.ask(&body).await.refused(504, "GATEWAY_TIMEOUT");
    assert_eq!(asked(), 8);
    tries.ask(&post("/gathered/x", "Idempotency-Key: 7\r\n", "body")).await.refused(504, "GATEWAY_TIMEOUT");
    assert_eq!(asked(), 11);
    assert!(silent.iter().all(|one| one.requests().iter().skip(3).all(|request| request.body == b"body")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_not_cut_by_the_time_of_a_try() {
    let slow = Upstream::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha").await;
            tokio::time::sleep(Duration::from_millis(700)).await;
            conn.send("lf").await;
        }
    })
    .await;
    let gateway = gateway(&[slow.address], "retry: { on: [timeout], try_timeout: 300ms }").await;
    assert_eq!(gateway.get("/x").await.text(), "half");
    assert_eq!(gateway.h2().await.get("/x").await.body, b"half");
    assert_eq!(slow.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_waited_for_or_passed_on() {
    // The word of one target binds nobody who asks another one.
    let pair = Pair::start(Does::RefusesFor(503, 3600), "on: [503]").await;
    assert_eq!(pair.gateway.get("/x").await.status, 200);
    // 429 speaks of the client: whoever is asked next would say the same.
    let pair = Pair::start(Does::RefusesFor(429, 3600), "on: [429]").await;
    let response = pair.gateway.get("/x").await;
    assert_eq!((response.status, response.head.get("retry-after")), (429, Some("3600")));
    assert_eq!(pair.asked(), (1, 0));
    // The same target is given the time that it asks for.
    let alone = service(Does::RefusesFor(503, 1)).await;
    let waits = gateway(&[alone.address], "retry: { on: [503], backoff: { first: 1ms, max: 1s } }").await;
    let start = Instant::now();
    assert_eq!(waits.get("/x").await.text(), "later");
    assert!(start.elapsed() >= Duration::from_millis(990), "{:?}", start.elapsed());
    assert_eq!(alone.requests().len(), 2);
    let leaves = gateway(&[alone.address], "retry: { on: [503], backoff: { first: 1ms, max: 999ms } }").await;
    assert_eq!(leaves.get("/x").await.text(), "later");
    assert_eq!(alone.requests().len(), 3, "it asks for more than there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_a_try_is_waited_for_ends_it() {
    let alone = service(Does::RefusesFor(503, 50)).await;
    let gateway = gateway(&[alone.address], "retry: { on: [503], backoff: { first: 1ms, max: 1m } }").await;
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    alone.received(1).await;
    gateway.counts(&[("tollgate_upstream_retries_total{reason=\"status\",upstream=\"main\"}", 1.0)]).await;
    let start = Instant::now();
    drop(client);
    gateway.counts(&[("tollgate_requests_in_flight{route=\"all\"}", 0.0)]).await;
    assert!(start.elapsed() < Duration::from_secs(45), "it was not waited for");
    assert_eq!(alone.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_given_up_leaves_no_trace_on_a_connection() {
    // A body that nobody reads must never be taken for the next answer.
    let first = Upstream::scripted(|mut conn| async move {
        let mut count = 0;
        while conn.request().await.is_some() {
            count += 1;
            let body = format!("answer {count} of connection {}", conn.number);
            conn.send(answer(503, body.repeat(2000).as_bytes())).await;
        }
    })
    .await;
    let second = service(Does::Answers).await;
    let gateway = gateway(&[first.address, second.address], "retry: { on: [503], backoff: { first: 1ms } }").await;
    let mut client = gateway.client().await;
    for number in 0..40 {
        let body = format!("request {number}");
        let request = format!("PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let response = client.ask(&request).await;
        assert_eq!((response.status, response.text()), (200, &*body));
    }
    assert_eq!(first.connections(), first.requests().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_try_counts_for_its_target_and_the_request_once_for_the_upstream() {
    let breakers = "circuit_breaker: [{ per: target, failures: 2, window: 1m, open_for: 1h }, { failures: 1, window: 1m, open_for: 1h }]";
    let keys = format!("{breakers}, retry: {{ on: [503], backoff: {{ first: 1ms }} }}");
    let pair = Pair::with(Does::Refuses(503), &keys).await;
    // The breaker of the upstream sees only what the client sees.
    for _ in 0..6 {
        assert_eq!(pair.gateway.get("/x").await.status, 200);
    }
    assert_eq!(pair.asked(), (2, 6), "two failures open the breaker of the target");
    let own = pair.gateway.ask_admin("GET /status").await.json()["upstreams"][0]["circuit_breaker"]["state"].clone();
    assert_eq!(own, "closed");
    let answered = |upstream: &Upstream, status: &str| {
        format!(
            "tollgate_upstream_requests_total{{status=\"{status}\",target=\"{}\",upstream=\"main\"}}",
            upstream.address
        )
    };
    pair.gateway.counts(&[(&answered(&pair.first, "5xx"), 2.0), (&answered(&pair.second, "2xx"), 6.0)]).await;
    // With nobody else to ask, the answer of the service is passed on, although it could be tried again.
    let alone = service(Does::Refuses(503)).await;
    let keys = "circuit_breaker: { per: target, failures: 1, window: 1m, open_for: 1h }, retry: { on: [503] }";
    let gateway = gateway(&[alone.address], keys).await;
    assert_eq!(gateway.get("/x").await.text(), "the service says no");
    gateway.get("/x").await.refused(503, "CIRCUIT_OPEN");
    assert_eq!(alone.requests().len(), 1);
}
