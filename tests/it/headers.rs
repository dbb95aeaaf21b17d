//! What the upstream learns of the client, and what nobody may say.

use crate::harness::{Gateway, Upstream, all_to, answer};

const TRUSTING: &str = "trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_announced() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let response = gateway.ask("GET /a HTTP/1.1\r\nHost: Api.Test:8000\r\nX-Api-Key: k\r\n\r\n").await;
    let head = upstream.only().head;
    assert_eq!(head.get("host"), Some("api.test:8000"));
    assert_eq!(head.get("x-api-key"), Some("k"));
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.get("x-forwarded-host"), Some("api.test:8000"));
    assert_eq!(head.get("x-forwarded-proto"), Some("http"));
    assert_eq!(head.get("forwarded"), Some("for=127.0.0.1;host=\"api.test:8000\";proto=http"));
    let id = head.get("x-request-id").expect("a request id");
    assert_eq!(response.head.get("x-request-id"), Some(id), "client and upstream learn the same id");
    assert!(head.get("traceparent").unwrap().starts_with(&format!("00-{id}-")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_speak_for_itself() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    gateway
        .ask(
            "GET /a HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 1.2.3.4\r\nx_forwarded_for: 1.2.3.4\r\n\
             X_Forwarded-Proto: evil\r\nX-FORWARDED-PORT: evil\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\
             x_real_ip: 1.2.3.4\r\nTrue-Client-IP: 1.2.3.4\r\nX-Request-ID: evil\r\nX_Request_Id: evil\r\n\
             X-Forwarded-Prefix: evil\r\nX-Forwarded-Host: evil\r\nMy_Field: stays\r\n\r\n",
        )
        .await;
    let head = upstream.only().head;
    for (name, value) in &head.fields {
        let value = String::from_utf8_lossy(value);
        assert!(!value.contains("1.2.3.4") && !value.contains("evil"), "{name}: {value}");
    }
    assert_eq!(head.get("my_field"), Some("stays"));
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_believed() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&[TRUSTING, &all_to(&upstream)].concat()).await;
    let response = gateway
        .ask(
            "GET /a HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 192.0.2.9, 10.1.1.1\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Host: site.test\r\nForwarded: for=192.0.2.9\r\n\
             X-Request-ID: given-1\r\nx_forwarded_for: evil\r\n\
             traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n",
        )
        .await;
    assert_eq!(response.head.get("x-request-id"), Some("given-1"));
    let head = upstream.only().head;
    assert_eq!(head.all("x-forwarded-for").join(", "), "1.2.3.4, 192.0.2.9, 10.1.1.1, 127.0.0.1");
    assert_eq!(head.get("x-forwarded-proto"), Some("https"));
    assert_eq!(head.get("x-forwarded-host"), Some("site.test"));
    assert_eq!(head.all("forwarded").join(", "), "for=192.0.2.9, for=127.0.0.1;host=\"a.test\";proto=https");
    assert_eq!(head.get("x-request-id"), Some("given-1"));
    assert_eq!(head.get("traceparent"), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    assert!(!head.has("x_forwarded_for"), "a disguise is never let through");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_id_or_trace_is_replaced() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&[TRUSTING, &all_to(&upstream)].concat()).await;
    let long = "x".repeat(300);
    for id in ["", "two words", "<script>", &long] {
        gateway
            .ask(&format!("GET /a HTTP/1.1\r\nHost: a.test\r\nX-Request-ID: {id}\r\ntraceparent: 00-zz-1-01\r\n\r\n"))
            .await;
        let head = upstream.last().head;
        let made = head.get("x-request-id").unwrap();
        assert!(made.len() == 32 && made != id, "{made}");
        assert!(head.get("traceparent").unwrap().contains(made));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_end_here() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.send(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: secret\r\n\
                 Keep-Alive: timeout=5\r\nX-Stays: yes\r\n\r\nok",
            )
            .await;
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let response = gateway
        .ask(
            "GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Nominated\r\nX-Nominated: gone\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers, deflate\r\n\
             Proxy-Authorization: Basic x\r\nUpgrade-Insecure-Requests: 1\r\n\r\n",
        )
        .await;
    let head = upstream.only().head;
    for name in ["x-nominated", "keep-alive", "proxy-connection"] {
        assert!(!head.has(name), "{name} went through: {:?}", head.fields);
    }
    assert_eq!(head.get("upgrade-insecure-requests"), Some("1"));
    assert_eq!(response.head.get("x-stays"), Some("yes"));
    for name in ["x-hop", "keep-alive"] {
        assert!(!response.head.has(name), "{name} came back: {:?}", response.head.fields);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_is_passed_or_replaced_as_the_upstream_wants() {
    let upstream = Upstream::echo().await;
    let yaml = crate::harness::routed(&upstream, "host: target");
    let gateway = Gateway::start(&yaml).await;
    gateway.get("/a").await;
    let head = upstream.only().head;
    assert_eq!(head.get("host"), Some(&*upstream.address.to_string()));
    assert_eq!(head.get("x-forwarded-host"), Some("a.test"), "the service can still learn the name clients use");
    assert_eq!(head.get("forwarded"), Some("for=127.0.0.1;host=\"a.test\";proto=http"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_sees_the_client_a_trusted_proxy_names() {
    let upstream = Upstream::answering(answer(200, b"in")).await;
    let yaml = all_to(&upstream)
        .replace(", upstream: main", ", filters: [{ allow_ips: { allow: [192.0.2.0/24] } }], upstream: main");
    let gateway = Gateway::start(&[TRUSTING, &yaml].concat()).await;
    for (list, status) in [
        ("192.0.2.7", 200),
        ("192.0.2.7, 10.0.0.1", 200),
        ("192.0.2.7, 1.2.3.4", 403),
        ("1.2.3.4, 192.0.2.7", 200),
        ("192.0.2.7, garbage, 10.0.0.1", 403),
    ] {
        let response = gateway.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {list}\r\n\r\n")).await;
        assert_eq!(response.status, status, "{list}");
    }
}
