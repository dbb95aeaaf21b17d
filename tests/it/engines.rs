//! Requests that one engine serves and requests that the other one serves, on the same connections.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::harness::{Gateway, Upstream, answer, noise, within};

fn yaml(service: &Upstream, limits: &str, upstream: &str) -> String {
    let address = service.address;
    format!(
        "limits: {{ {limits} }}\nupstreams:\n  main: {{ targets: [{{ address: \"{address}\" }}], {upstream} }}\nroutes:\n\
         \x20 - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n\
         \x20 - {{ name: checked, match: \"/checked/{{*rest}}\", filters: [{{ validate: {{ body_max: 1MiB }} }}], upstream: main }}\n\
         \x20 - {{ name: own, match: GET /own, respond: {{ body: ours }} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_changes_engines_with_every_request() {
    let service = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&service, "", "")).await;
    let mut client = gateway.client().await;
    for turn in 0..10 {
        assert_eq!(client.get("/x").await.status, 200);
        assert_eq!(client.get("/own").await.text(), "ours");
        let body = noise(1000 * turn + 1);
        assert!(client.post("/x", &body).await.body == body, "{turn}");
        // Its route is found by the one engine, and it is served by the other.
        assert_eq!(client.get("/checked/x").await.status, 200);
        let asked = client.ask("GET /x HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n").await;
        assert_eq!(asked.status, 200);
        let chunked = "PUT /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(client.ask(chunked).await.text(), "abc");
    }
    let targets: Vec<String> = service.requests().iter().map(|request| request.target.clone()).collect();
    assert_eq!(targets, ["/x", "/x", "/checked/x", "/x", "/x"].repeat(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_was_begun_ahead_has_its_time() {
    let service = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&service, "header_timeout: 500ms, idle_timeout: 100s", "")).await;
    let mut client = gateway.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\nGET /y HTTP/1.1\r\nHost: a").await;
    assert_eq!(client.response().await.status, 200);
    client.response().await.refused(408, "REQUEST_TIMEOUT");
    client.closed().await;
    assert_eq!(service.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_far_ahead_waits_in_its_socket() {
    let service = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&service, "", "")).await;
    let mut client = gateway.client().await;
    const COUNT: usize = 2000;
    let request = format!("GET /x HTTP/1.1\r\nHost: a.test\r\nX-Padding: {}\r\n\r\n", "x".repeat(100));
    let all = request.repeat(COUNT);
    client.send(&all).await;
    for turn in 0..COUNT {
        assert_eq!(client.response().await.status, 200, "{turn}");
    }
    assert_eq!(service.requests().len(), COUNT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_service_closed_is_let_go_of() {
    let ended = Arc::new(Notify::new());
    let counts = Arc::clone(&ended);
    let service = Upstream::scripted(move |mut conn| {
        let ended = Arc::clone(&counts);
        async move {
            conn.request().await;
            conn.send(answer(200, b"last")).await;
            let mut stream = conn.into_stream();
            stream.shutdown().await.unwrap();
            // Until the gateway has closed its side too.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            ended.notify_one();
        }
    })
    .await;
    let gateway = Gateway::start(&yaml(&service, "", "")).await;
    assert_eq!(gateway.get("/x").await.text(), "last");
    // Without another request.
    within("an end of the unused connection", ended.notified()).await;
    assert_eq!(gateway.get("/x").await.text(), "last");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unused_connection_is_kept_for_its_time() {
    let service = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&service, "", "timeouts: { keepalive: 1s }")).await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    let before = service.connections();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(client.get("/x").await.status, 200);
    assert!(service.connections() > before, "{before}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_wait_for_what_was_sent_behind_its_request() {
    let service = Upstream::echo().await;
    let held = "\x20 - { name: held, match: GET /held, filters: [{ fault: { delay: 5m } }], upstream: main }\n";
    let gateway = Gateway::start(&[&*yaml(&service, "", ""), held].concat()).await;
    let mut client = gateway.client().await;
    client.send(["/x", "/held"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).concat()).await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_our_own_answer_too_slowly_is_no_fault_of_a_service() {
    let yaml = format!(
        "admin: {{ bind: 127.0.0.1:0 }}\nlimits: {{ body_timeout: 500ms }}\nroutes:\n\
         \x20 - {{ name: large, match: GET /, respond: {{ body: \"{}\" }} }}\n",
        "x".repeat(1 << 20)
    );
    let gateway = Gateway::start(&yaml).await;
    let mut client = gateway.client().await;
    // More than the sockets between them take.
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".repeat(64)).await;
    client.response_head().await.unwrap();
    gateway.counts(&[("tollgate_connections{listener=\"127.0.0.1:0\"}", 0.0)]).await;
    assert!(!gateway.scrape().await.has("tollgate_refused_total"));
}

/// A request with a body, as clients write it.
fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_arrives_whichever_engine_takes_it() {
    let service = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&service, "", "")).await;
    let mut client = gateway.client().await;
    for size in [1, 2, 1000, 8191, 16_000, 16_383, 16_384, 16_385, 65_536, 300_000] {
        let body = noise(size);
        for path in ["/x", "/checked/x"] {
            let request = post(path, &body);
            // At once; the head first; all but the last byte first.
            for cut in [0, request.len() - body.len(), request.len() - 1] {
                let (first, second) = request.split_at(cut);
                client.send(first).await;
                client.send(second).await;
                assert!(client.response().await.body == body, "{path} {size} {cut}");
            }
        }
        if size > 8191 {
            // The other engine says `Connection: close` where a body is left, and reads nothing that was sent ahead.
            continue;
        }
        // One that we answer without a look at it is not the next request.
        let head = format!("GET /own HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n");
        client.send([head.as_bytes(), &body].concat()).await;
        assert_eq!(client.response().await.text(), "ours");
        // And one behind the other.
        let all = [post("/x", &body), b"GET /y HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(), post("/z", b"end")].concat();
        client.send(all).await;
        assert!(client.response().await.body == body, "{size}");
        assert!(client.response().await.body.is_empty());
        assert_eq!(client.response().await.text(), "end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_body_goes_the_short_way() {
    // Says whether the name of a well-known field has capitals: the other engine writes them.
    let service = Upstream::scripted(|conn| async move {
        let (mut stream, mut bytes) = (conn.into_stream(), Vec::new());
        while !bytes.ends_with(b"end") {
            stream.read_buf(&mut bytes).await.unwrap();
        }
        let is_short = bytes.windows(16).any(|name| name == b"\r\ncontent-length");
        let text: &[u8] = if is_short { b"short" } else { b"long" };
        stream.write_all(&answer(200, text)).await.unwrap();
    })
    .await;
    let gateway = Gateway::start(&yaml(&service, "", "")).await;
    for (path, size, way) in
        [("/x", 10_000, "short"), ("/checked/x", 10_000, "short"), ("/x", 16_384 + 1, "long"), ("/x", 4, "short")]
    {
        let mut client = gateway.client().await;
        let mut body = noise(size);
        body.splice(size - 3.., *b"end");
        client.send(post(path, &body)).await;
        assert_eq!(client.response().await.text(), way, "{path} {size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_answers_before_it_has_read_a_body_is_heard() {
    let service = Upstream::scripted(|mut conn| async move {
        // Not a byte is read: what is closed then is reset.
        conn.send(answer(413, b"too large for me")).await;
        drop(conn);
    })
    .await;
    let gateway = Gateway::start(&yaml(&service, "", "")).await;
    for size in [1, 10_000] {
        let mut client = gateway.client().await;
        client.send(post("/x", &noise(size))).await;
        let heard = client.response().await;
        assert_eq!((heard.status, heard.text()), (413, "too large for me"), "{size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_alike_by_both() {
    let service = Upstream::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            let fields = "X-RateLimit-Limit: its own\r\nRateLimit: its own\r\nX-Other: kept\r\n";
            conn.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok")).await;
        }
    })
    .await;
    let limit = "rate_limit: { per: route, rates: [1000/day, 10/s] }";
    let change = "headers: { response: { remove: [X-RateLimit-Reset], set: { X-RateLimit-Limit: many } } }";
    let routes: String =
        [("told", format!("[{{ {limit} }}]")), ("changed", format!("[{{ {change} }}, {{ {limit} }}]"))]
            .iter()
            .map(|(name, filters)| {
                format!("  - {{ name: {name}, match: GET /{name}, filters: {filters}, upstream: main }}\n")
            })
            .collect();
    let address = service.address;
    let gateway = Gateway::start(&format!(
        "upstreams: {{ main: {{ targets: [{{ address: \"{address}\" }}] }} }}\nroutes:\n{routes}"
    ))
    .await;
    let mut client = gateway.client().await;
    for (path, limits) in [("told", vec!["10"]), ("changed", vec!["many"])] {
        for negotiates in ["", "TE: trailers\r\nConnection: TE\r\n"] {
            let response = client.ask(&format!("GET /{path} HTTP/1.1\r\nHost: a.test\r\n{negotiates}\r\n")).await;
            assert_eq!((response.status, response.text()), (200, "ok"));
            let head = &response.head;
            assert_eq!(head.all("x-ratelimit-limit"), limits, "{path} {negotiates:?}");
            assert_eq!(head.all("x-ratelimit-remaining").len(), 1);
            assert_eq!(head.all("x-ratelimit-reset").len(), usize::from(path == "told"));
            assert_eq!(head.all("x-other"), ["kept"]);
            assert_eq!(head.all("ratelimit-policy"), ["\"route-second\";q=10;w=1, \"route-day\";q=1000;w=86400"]);
            let left = head.get("ratelimit").unwrap();
            assert!(left.starts_with("\"route-second\";r="), "{left}");
        }
    }
}
