//! `/metrics` counts exactly what happened.

use super::{documented, gateway};
use crate::harness::{Gateway, Upstream, answer};

/// Routes `echo`, `silent` and `dead`, to upstreams of these names, and `small`, which takes 10 bytes.
async fn everything(connections_max: usize) -> (Gateway, Upstream, Upstream) {
    let (echo, silent) = (Upstream::echo().await, Upstream::silent().await);
    let dead = Upstream::dead_address().await;
    let yaml = format!(
        "limits: {{ connections_per_address_max: {connections_max} }}\nupstreams:\n  echo: {{ targets: [{{ address: \"{}\" }}] }}\n  \
         silent: {{ targets: [{{ address: \"{}\" }}], timeouts: {{ first_byte: 100ms }} }}\n  \
         dead: {{ targets: [{{ address: \"{dead}\" }}] }}\nroutes:\n  \
         - {{ name: echo, match: \"GET,POST /echo\", upstream: echo }}\n  \
         - {{ name: small, match: POST /small, body_max: 10B, upstream: echo }}\n  \
         - {{ name: silent, match: /silent, upstream: silent }}\n  \
         - {{ name: patient, match: /patient, upstream: silent, timeout: 1h }}\n  \
         - {{ name: guarded, match: /guarded, filters: [auth: {{ accept: [api_key] }}], upstream: echo }}\n  \
         - {{ name: dead, match: /dead, upstream: dead }}\n",
        echo.address, silent.address
    );
    // A route's own timeout goes before the upstream's, or there would be no patient one.
    (gateway("to: none", &yaml).await, echo, silent)
}

/// The name of a series.
fn series(name: &str, labels: &[(&str, &str)]) -> String {
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    format!("tollgate_{name}{{{}}}", labels.join(","))
}

fn requests(method: &str, route: &str, status: &str) -> String {
    series("requests_total", &[("method", method), ("route", route), ("status", status)])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_counted_and_nothing_else() {
    let (gateway, echo, silent) = everything(100).await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        client.get("/echo").await;
    }
    client.post("/echo", b"12345").await;
    client.post("/small", b"1234567890").await;
    client.ask("DELETE /echo HTTP/1.1\r\nHost: a\r\n\r\n").await.refused(405, "METHOD_NOT_ALLOWED");
    let nowhere = client.get("/nowhere").await;
    nowhere.refused(404, "NOT_FOUND");
    client.ask("BREW /dead HTTP/1.1\r\nHost: a\r\n\r\n").await.refused(502, "BAD_GATEWAY");
    gateway.post("/small", b"12345678901").await.refused(413, "BODY_TOO_LARGE");
    gateway.get("/silent").await.refused(504, "GATEWAY_TIMEOUT");
    gateway.get("/guarded").await.refused(401, "UNAUTHORIZED");
    gateway.ask("no HTTP\r\n\r\n").await.refused(400, "BAD_REQUEST");
    gateway.ask("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").await.refused(405, "METHOD_NOT_ALLOWED");
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(40_000));
    gateway.ask(&long).await.refused(431, "HEADERS_TOO_LARGE");

    let echo_target = echo.address.to_string();
    let silent_target = silent.address.to_string();
    let refused = |code, route| series("refused_total", &[("code", code), ("route", route)]);
    let malformed = |reason| series("malformed_requests_total", &[("reason", reason)]);
    let upstream = |name, target| series(name, &[("status", "2xx"), ("target", target), ("upstream", "echo")]);
    let connections = |reused| series("upstream_connections_total", &[("reused", reused), ("upstream", "echo")]);
    let expected = [
        (requests("GET", "echo", "2xx"), 3.0),
        (requests("POST", "echo", "2xx"), 1.0),
        (requests("POST", "small", "2xx"), 1.0),
        (requests("POST", "small", "4xx"), 1.0),
        (requests("other", "dead", "5xx"), 1.0),
        (requests("GET", "silent", "5xx"), 1.0),
        (requests("GET", "(none)", "4xx"), 1.0),
        (requests("DELETE", "(none)", "4xx"), 1.0),
        (refused("METHOD_NOT_ALLOWED", "(none)"), 1.0),
        (refused("NOT_FOUND", "(none)"), 1.0),
        (refused("BAD_GATEWAY", "dead"), 1.0),
        (refused("BODY_TOO_LARGE", "small"), 1.0),
        (refused("GATEWAY_TIMEOUT", "silent"), 1.0),
        (requests("GET", "guarded", "4xx"), 1.0),
        (refused("UNAUTHORIZED", "guarded"), 1.0),
        (
            series("auth_total", &[("filter", "auth"), ("kind", "none"), ("reason", "missing"), ("route", "guarded")]),
            1.0,
        ),
        (malformed("syntax"), 1.0),
        (malformed("connect"), 1.0),
        (malformed("head_too_large"), 1.0),
        (upstream("upstream_requests_total", &echo_target), 5.0),
        (connections("false"), 1.0),
        (connections("true"), 4.0),
        (series("request_bytes_total", &[("route", "echo")]), 5.0),
        (series("response_bytes_total", &[("route", "echo")]), 5.0),
        (series("request_duration_seconds_count", &[("route", "echo")]), 4.0),
        (series("upstream_duration_seconds_count", &[("upstream", "echo")]), 5.0),
        (
            series("upstream_errors_total", &[("kind", "timeout"), ("target", &silent_target), ("upstream", "silent")]),
            1.0,
        ),
    ];
    let expected: Vec<(&str, f64)> = expected.iter().map(|(series, value)| (&**series, *value)).collect();
    gateway.counts(&expected).await;
    let scrape = gateway.scrape().await;
    for (family, count) in [("requests_total", 9), ("refused_total", 6), ("malformed_requests_total", 3)] {
        assert_eq!(scrape.all(&format!("tollgate_{family}{{")).len(), count, "{family}: {scrape:#?}");
    }
    let errors = scrape.all("tollgate_upstream_errors_total{kind=\"connect\"");
    assert!(matches!(errors.as_slice(), [(_, tries)] if *tries >= 1.0), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_go_up_and_down() {
    let (gateway, _echo, silent) = everything(3).await;
    let listener = [("listener", "127.0.0.1:0")];
    let (in_flight, open) = (series("requests_in_flight", &[("route", "patient")]), series("connections", &listener));
    gateway.counts(&[(&in_flight, 0.0), (&open, 0.0)]).await;
    let mut waiting = gateway.client().await;
    waiting.send("GET /patient HTTP/1.1\r\nHost: a\r\n\r\n").await;
    silent.received(1).await;
    gateway.counts(&[(&in_flight, 1.0), (&open, 1.0)]).await;
    let mut others = [gateway.client().await, gateway.client().await];
    for client in &mut others {
        assert_eq!(client.get("/echo").await.status, 200);
    }
    gateway.client().await.response().await.refused(503, "OVERLOADED");
    let refused = [("listener", "127.0.0.1:0"), ("reason", "connections_per_address_max")];
    gateway.counts(&[(&open, 3.0), (&series("connections_refused_total", &refused), 1.0)]).await;
    drop(waiting);
    gateway.counts(&[(&in_flight, 0.0), (&open, 2.0), (&requests("GET", "patient", "4xx"), 1.0)]).await;
    drop(others);
    gateway.counts(&[(&open, 0.0)]).await;
}

/// Metrics that show only where their feature is in use: in `tls.rs`, in the tests of `proxy/tenure.rs`, in `issuers.rs`, in
/// `breaker.rs`, in `discovery`, in `concurrency.rs`, in `limits/rate_limit.rs`, in `webhooks.rs`, in the tests of `observe/metrics.rs`.
const ELSEWHERE: [&str; 46] = [
    "tollgate_plugin_failures_total",
    "tollgate_plugin_instances",
    "tollgate_plugin_memory_bytes",
    "tollgate_plugin_counter_total",
    "tollgate_plugin_gauge",
    "tollgate_plugin_histogram",
    "tollgate_discovery_age_seconds",
    "tollgate_discovery_endpoints",
    "tollgate_discovery_lookups_total",
    "tollgate_discovery_up",
    "tollgate_target_healthy",
    "tollgate_health_checks_total",
    "tollgate_target_ejections_total",
    "tollgate_target_ejections_spared_total",
    "tollgate_upstream_health_ignored",
    "tollgate_acme_certificate_expires_timestamp_seconds",
    "tollgate_acme_orders_total",
    "tollgate_mirrored_requests_total",
    "tollgate_stale_answers_total",
    "tollgate_stale_bytes",
    "tollgate_circuit_breaker_rejected_total",
    "tollgate_circuit_breaker_state",
    "tollgate_circuit_breaker_transitions_total",
    "tollgate_shed_total",
    "tollgate_tls_handshakes_failed_total",
    "tollgate_websockets_closed_total",
    "tollgate_jwks_fetches_total",
    "tollgate_jwks_keys",
    "tollgate_jwks_loaded_timestamp_seconds",
    "tollgate_concurrency_in_flight",
    "tollgate_concurrency_refused_total",
    "tollgate_concurrency_wait_seconds",
    "tollgate_concurrency_waiting",
    "tollgate_rate_limit_total",
    "tollgate_webhooks_total",
    "tollgate_webhooks_accepted_total",
    "tollgate_inbox_stored_total",
    "tollgate_inbox_refused_total",
    "tollgate_inbox_delivered_total",
    "tollgate_inbox_retried_total",
    "tollgate_inbox_dead_total",
    "tollgate_inbox_delivery_seconds",
    "tollgate_inbox_messages",
    "tollgate_inbox_bytes",
    "tollgate_inbox_oldest_seconds",
    "tollgate_inbox_paused",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_page_lists_every_metric() {
    let (gateway, _echo, silent) = everything(3).await;
    gateway.get("/echo").await;
    gateway.get("/dead").await;
    gateway.get("/guarded").await.refused(401, "UNAUTHORIZED");
    gateway.ask("no HTTP\r\n\r\n").await;
    gateway.counts(&[(&series("connections", &[("listener", "127.0.0.1:0")]), 0.0)]).await;
    let mut waiting = gateway.client().await;
    waiting.send("GET /patient HTTP/1.1\r\nHost: a\r\n\r\n").await;
    silent.received(1).await;
    let mut others = [gateway.client().await, gateway.client().await];
    for client in &mut others {
        client.get("/echo").await;
    }
    gateway.client().await.response().await.refused(503, "OVERLOADED");
    let mut names: Vec<String> = gateway.scrape().await.families.into_keys().collect();
    names.extend(ELSEWHERE.map(str::to_owned));
    names.sort_unstable();
    assert_eq!(names, documented("Metrics"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_breaks_off_is_counted_by_how_it_did() {
    let reset = Upstream::scripted(|mut conn| async move {
        if conn.request().await.is_some() {
            conn.reset();
        }
    })
    .await;
    let garbage = Upstream::answering_once("this is no HTTP\r\n\r\n").await;
    let fine = Upstream::answering(answer(404, b"")).await;
    let target = |name: &str, upstream: &Upstream| {
        format!("  {name}: {{ targets: [{{ address: \"{}\" }}] }}\n", upstream.address)
    };
    let route = |name: &str| format!("  - {{ name: {name}, match: /{name}, upstream: {name} }}\n");
    let upstreams = [target("reset", &reset), target("garbage", &garbage), target("fine", &fine)].concat();
    let routes = ["reset", "garbage", "fine"].map(route).concat();
    let gateway = gateway("to: none", &format!("upstreams:\n{upstreams}routes:\n{routes}")).await;
    gateway.get("/reset").await.refused(502, "BAD_GATEWAY");
    gateway.get("/garbage").await.refused(502, "BAD_GATEWAY");
    assert_eq!(gateway.get("/fine").await.status, 404);
    let error = |kind, name, upstream: &Upstream| {
        let target = upstream.address.to_string();
        series("upstream_errors_total", &[("kind", kind), ("target", &target), ("upstream", name)])
    };
    let answered = [("status", "4xx"), ("target", &*fine.address.to_string()), ("upstream", "fine")];
    gateway
        .counts(&[
            (&error("reset", "reset", &reset), 1.0),
            (&error("protocol", "garbage", &garbage), 1.0),
            (&series("upstream_requests_total", &answered), 1.0),
            (&requests("GET", "fine", "4xx"), 1.0),
        ])
        .await;
    // The service said 404; the gateway refused nothing.
    assert!(!gateway.scrape().await.has("tollgate_refused_total{code=\"NOT_FOUND\""));
}
