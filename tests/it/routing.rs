//! Which route takes a request, seen through the wire.

use crate::harness::{Gateway, Upstream, all_to};

/// Upstreams that answer with their names, and routes that tell apart by everything there is.
async fn table() -> (Gateway, Vec<Upstream>) {
    let mut upstreams = Vec::new();
    let mut yaml = String::from("upstreams:\n");
    for name in ["exact", "wild", "get", "post", "v2", "beta", "any"] {
        let body = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        let upstream = Upstream::answering(body).await;
        yaml.push_str(&format!("  {name}: {{ targets: [{{ address: \"{}\" }}] }}\n", upstream.address));
        upstreams.push(upstream);
    }
    yaml.push_str(
        r#"routes:
  - { name: exact, match: { hosts: [api.test], path: /host }, upstream: exact }
  - { name: wild, match: { hosts: ["*.test"], path: /host }, upstream: wild }
  - { name: any, match: /host, upstream: any }
  - { name: get, match: "GET /method", upstream: get }
  - { name: post, match: "POST /method", upstream: post }
  - { name: v2, match: { path: /header, headers: { x-version: "2" } }, upstream: v2 }
  - { name: v1, match: /header, upstream: any }
  - { name: beta, match: { path: /query, query: { beta: { present: true } } }, upstream: beta }
  - { name: stable, match: /query, upstream: any }
  - { name: item, match: "GET /items/{id?}", upstream: any }
  - { name: strict, match: "GET /strict", trailing_slash: strict, upstream: any }
"#,
    );
    (Gateway::start(&yaml).await, upstreams)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_specific_route_takes_the_request() {
    let (gateway, _upstreams) = table().await;
    for (request, taken) in [
        ("GET /host HTTP/1.1\r\nHost: api.test\r\n\r\n", "exact"),
        ("GET /host HTTP/1.1\r\nHost: API.Test:8000\r\n\r\n", "exact"),
        ("GET /host HTTP/1.1\r\nHost: other.test\r\n\r\n", "wild"),
        ("GET /host HTTP/1.1\r\nHost: test\r\n\r\n", "any"),
        ("GET /host HTTP/1.1\r\nHost: example.org\r\n\r\n", "any"),
        ("GET http://api.test/host HTTP/1.1\r\nHost: api.test\r\n\r\n", "exact"),
        ("GET /method HTTP/1.1\r\nHost: a\r\n\r\n", "get"),
        ("POST /method HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "post"),
        ("GET /header HTTP/1.1\r\nHost: a\r\nX-Version: 2\r\n\r\n", "v2"),
        ("GET /header HTTP/1.1\r\nHost: a\r\nX-Version: 3\r\n\r\n", "any"),
        ("GET /query?a=1&beta HTTP/1.1\r\nHost: a\r\n\r\n", "beta"),
        ("GET /query?betas=1 HTTP/1.1\r\nHost: a\r\n\r\n", "any"),
        ("GET /items HTTP/1.1\r\nHost: a\r\n\r\n", "any"),
        ("GET /items/7/ HTTP/1.1\r\nHost: a\r\n\r\n", "any"),
        ("GET /strict HTTP/1.1\r\nHost: a\r\n\r\n", "any"),
    ] {
        let response = gateway.ask(request).await;
        assert_eq!((response.status, response.text()), (200, taken), "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_route_takes_is_404_in_the_one_shape() {
    let (gateway, upstreams) = table().await;
    for path in ["/", "/nothing", "/strict/", "/items/7/8", "/host/x", "*"] {
        gateway.get(path).await.refused(404, "NOT_FOUND");
    }
    assert!(upstreams.iter().all(|upstream| upstream.connections() == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_method_is_405_with_the_methods_there_are() {
    let (gateway, _upstreams) = table().await;
    let response = gateway.ask("DELETE /method HTTP/1.1\r\nHost: a\r\n\r\n").await;
    response.refused(405, "METHOD_NOT_ALLOWED");
    let mut allowed: Vec<_> = response.head.get("allow").unwrap().split(", ").collect();
    allowed.sort_unstable();
    assert!(allowed.contains(&"GET") && allowed.contains(&"POST"), "{allowed:?}");
    let lower = gateway.ask("get /method HTTP/1.1\r\nHost: a\r\n\r\n").await;
    lower.refused(405, "METHOD_NOT_ALLOWED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_keeps_the_connection() {
    let upstream = Upstream::echo().await;
    let yaml = all_to(&upstream).replace("/{*rest}", "POST /only");
    let gateway = Gateway::start(&yaml).await;
    let mut client = gateway.client().await;
    client.get("/nothing").await.refused(404, "NOT_FOUND");
    client.get("/only").await.refused(405, "METHOD_NOT_ALLOWED");
    assert_eq!(client.post("/only", b"body").await.text(), "body");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_matched_is_what_is_forwarded() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    for (sent, forwarded) in [
        ("/a/b", "/a/b"),
        ("/a//b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/x/../b?q=//..", "/a/b?q=//.."),
        ("/%61/%7Eb", "/a/~b"),
        ("/a%20b?x=%2f%00", "/a%20b?x=%2f%00"),
        ("/?", "/?"),
        ("/a/b/", "/a/b/"),
    ] {
        assert_eq!(gateway.get(sent).await.status, 200, "{sent}");
        assert_eq!(upstream.last().target, forwarded, "{sent}");
    }
}
