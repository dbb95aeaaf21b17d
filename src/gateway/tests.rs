use super::testing::{gateway, try_gateway};
use super::*;
use crate::clock;
use crate::context::RequestId;
use crate::head::{HeaderName, HeaderValue, Headers, RequestBuf};
use crate::observe::metrics::Metrics;
use std::net::Ipv4Addr;

const BASE: &str = r#"version: 1
listeners: [{ bind: 127.0.0.1:8000 }]
trusted_proxies: [10.0.0.0/8, 2001:db8::/32]
upstreams:
  tasks: { targets: [{ address: 127.0.0.1:9101 }] }
  users: { targets: [{ address: 127.0.0.1:9102 }] }
"#;

fn with(routes: &str) -> String {
    format!("{BASE}{routes}")
}

fn found(gateway: &Gateway, request: &RequestBuf) -> (Result<String, Rejection>, Context) {
    let mut context = Context::detached(IpAddr::V4(Ipv4Addr::LOCALHOST), RequestId::from_bits(1), clock::now());
    let matched = match gateway.find(request, &mut context) {
        Matched::Route(route) => Ok(route.name.to_string()),
        Matched::Refused(rejection) => Err(rejection),
    };
    (matched, context)
}

#[test]
fn captures_are_kept_only_for_routes_that_use_them() {
    let gateway = gateway(&with(
        r#"routes:
  - name: used
    match: GET /used/{id}
    filters: [{ headers: { request: { set: { X-Id: "{path.id}" } } } }]
    upstream: tasks
  - name: unused
    match: GET /unused/{id}
    upstream: tasks
"#,
    ));
    let (name, context) = found(&gateway, &RequestBuf::new(Method::GET, "/used/7"));
    assert_eq!((name.unwrap(), context.captures.get("id"), &*context.route), ("used".into(), Some("7"), "used"));
    let (name, context) = found(&gateway, &RequestBuf::new(Method::GET, "/unused/7"));
    assert_eq!((name.unwrap(), context.captures.get("id")), ("unused".into(), None));
}

#[test]
fn a_refusal_names_the_methods_there_are() {
    let gateway = gateway(&with("routes:\n  - { name: a, match: \"GET,POST /a\", upstream: tasks }\n"));
    let (refused, _) = found(&gateway, &RequestBuf::new(Method::PUT, "/a"));
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.code, &refused.fields[0].1),
        (Code::METHOD_NOT_ALLOWED, &HeaderValue::from_static("GET, POST"))
    );
    let (refused, _) = found(&gateway, &RequestBuf::new(Method::PUT, "/b"));
    assert_eq!(refused.unwrap_err().code, Code::NOT_FOUND);
}

#[test]
fn a_preflight_goes_to_the_route_of_the_method_it_asks_for_when_that_answers_preflights() {
    let gateway = gateway(&with(
        r#"routes:
  - name: shared
    match: PUT /shared
    filters: [{ cors: { origins: ["https://a.example"] } }]
    upstream: tasks
  - name: private
    match: PUT /private
    upstream: tasks
"#,
    ));
    let preflight = |path: &str, method: &'static str| {
        let mut request = RequestBuf::new(Method::OPTIONS, path);
        request.set(&http::header::ORIGIN, HeaderValue::from_static("https://a.example"));
        request.set(&http::header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static(method));
        request
    };
    let (name, context) = found(&gateway, &preflight("/shared", "PUT"));
    assert_eq!((name.unwrap(), context.preflight), ("shared".to_owned(), true));
    assert_eq!(found(&gateway, &preflight("/shared", "POST")).0.unwrap_err().code, Code::METHOD_NOT_ALLOWED);
    assert_eq!(found(&gateway, &preflight("/private", "PUT")).0.unwrap_err().code, Code::METHOD_NOT_ALLOWED);
    // Without an Origin it is an OPTIONS like any other.
    let mut plain = preflight("/shared", "PUT");
    plain.remove(&HeaderName::from_static("origin"));
    assert_eq!(found(&gateway, &plain).0.unwrap_err().code, Code::METHOD_NOT_ALLOWED);
}

#[test]
fn peers_are_trusted_by_network_also_when_ipv4_comes_as_ipv6() {
    let gateway = gateway(BASE);
    for (peer, trusted) in [
        ("10.255.255.255", true),
        ("11.0.0.0", false),
        ("::ffff:10.0.0.1", true),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
    ] {
        assert_eq!(gateway.trusts(peer.parse().unwrap()), trusted, "{peer}");
    }
}

#[test]
fn a_reload_keeps_the_upstreams_that_did_not_change() {
    let metrics = Metrics::new(100);
    let first = try_gateway(BASE, None, &metrics).unwrap();
    let second = try_gateway(&BASE.replace(":9102", ":9103"), Some(&first), &metrics).unwrap();
    let kept = |index: usize| Arc::ptr_eq(&first.upstreams()[index], &second.upstreams()[index]);
    assert_eq!((&*first.upstreams()[0].name, kept(0), kept(1)), ("tasks", true, false));
}

#[test]
fn a_route_takes_its_timeout_from_itself_then_its_upstream_then_the_defaults() {
    let timeouts = |text: &str| {
        let gateway = gateway(text);
        gateway.routes().iter().map(|route| route.first_byte.as_secs()).collect::<Vec<_>>()
    };
    let text = r#"version: 1
listeners: [{ bind: 127.0.0.1:8000 }]
defaults: { timeout: 3s }
upstreams:
  slow: { targets: [{ address: 127.0.0.1:9101 }], timeouts: { first_byte: 2s } }
  plain: { targets: [{ address: 127.0.0.1:9102 }] }
routes:
  - { name: a, match: GET /a, upstream: slow, timeout: 1s }
  - { name: b, match: GET /b, upstream: slow }
  - { name: c, match: GET /c, upstream: plain }
"#;
    assert_eq!(timeouts(text), [1, 2, 3]);
    assert_eq!(timeouts(&text.replace("defaults: { timeout: 3s }\n", "")), [1, 2, 30]);
}

#[test]
fn limits_turn_invalid_one_beyond_their_range() {
    let limit = |text: &str| try_gateway(&format!("{BASE}{text}\n"), None, &Metrics::new(100)).is_ok();
    for (good, bad) in [
        ("threads: 1", "threads: 0"),
        ("threads: 1024", "threads: 1025"),
        ("limits: { headers_max: 1 }", "limits: { headers_max: 0 }"),
        ("limits: { headers_max: 256 }", "limits: { headers_max: 257 }"),
        ("limits: { connections_max: 1 }", "limits: { connections_max: 0 }"),
        ("limits: { buckets_max: 1000 }", "limits: { buckets_max: 999 }"),
        ("limits: { body_memory_max: 1MiB }", "limits: { body_memory_max: 1023KiB }"),
        ("limits: { connections_per_address_max: 1 }", "limits: { connections_per_address_max: 0 }"),
    ] {
        assert_eq!((limit(good), limit(bad)), (true, false), "{good} / {bad}");
    }
}

#[test]
fn chains_are_put_in_place_and_say_where_they_came_from() {
    let gateway = gateway(&with(
        r#"defaults: { filters: [security_headers] }
chains:
  outer: [{ use: inner }, { headers: { response: { remove: [X-B] } } }]
  inner: [{ headers: { response: { remove: [X-A] } } }]
routes:
  - name: a
    match: GET /a
    filters: [{ use: outer }, { headers: { response: { remove: [X-C] } } }]
    upstream: tasks
"#,
    ));
    let links = gateway.routes()[0].chain.links();
    let seen: Vec<_> = links.iter().map(|link| (link.name, link.via.as_deref(), link.place.line)).collect();
    assert_eq!(
        seen,
        [
            ("security_headers", Some("defaults"), 7),
            ("headers", Some("inner"), 10),
            ("headers", Some("outer"), 9),
            ("headers", None, 14),
        ]
    );
}

const WITH_AUTH: &str = r#"consumers:
  - name: dashboard
    scopes: [read:tasks]
    keys: [{ id: k-1, sha256: 770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c }]
"#;

#[test]
fn what_has_to_know_the_caller_stands_behind_what_finds_out() {
    let problems = |filters: &str, chains: &str| {
        let route = format!("routes:\n  - {{ name: a, match: /a, filters: {filters}, respond: {{ status: 204 }} }}\n");
        try_gateway(&with(&[WITH_AUTH, chains, &route].concat()), None, &Metrics::new(10)).err().unwrap_or_default()
    };
    let known = "chains:\n  known: [auth: { accept: [api_key] }]\n";
    for sound in ["[{ use: known }, require: {}]", "[auth: { accept: [api_key] }, require: {}]", "[]"] {
        assert_eq!(problems(sound, known), "", "{sound}");
    }
    for unsound in ["[require: {}]", "[require: {}, use: known]", "[security_headers, require: {}]"] {
        assert!(problems(unsound, known).contains("no `auth` before it finds out"), "{unsound}");
    }
    assert!(problems("[{ use: known }, auth: { accept: [api_key] }]", known).contains("a second `auth`"));
    let broken = problems("[{ use: broken }, require: {}]", "chains:\n  broken: [auth: { accept: [] }]\n");
    assert!(broken.contains("nobody could get in") && !broken.contains("no `auth` before"), "{broken}");
}

#[test]
fn where_listeners_trust_different_authorities_only_a_fingerprint_names_a_consumer() {
    let problems = |second: &str, certificate: &str| {
        let listener = |port: u16, ca: &str| {
            let files = "certificates: [{ cert: c.pem, key: c.key }]";
            format!("  - {{ bind: 127.0.0.1:{port}, tls: {{ {files}, client_ca: {ca} }} }}\n")
        };
        let text = format!(
            "version: 1\nlisteners:\n{}{}consumers:\n  - {{ name: a, certificates: [{certificate}] }}\n",
            listener(1, "one.pem"),
            listener(2, second)
        );
        // The files are not there; that is said as well.
        try_gateway(&text, None, &Metrics::new(10)).err().unwrap().contains("the authorities of two listeners")
    };
    let fingerprint = format!("{{ sha256: {} }}", "ab".repeat(32));
    for name in ["{ subject: 'CN=a' }", "{ san: a.example }"] {
        assert!(problems("two.pem", name), "{name}");
        assert!(!problems("one.pem", name), "{name}");
    }
    assert!(!problems("two.pem", &fingerprint));
}

#[test]
fn a_preflight_is_known_as_one_on_a_route_that_takes_every_method() {
    let route = |filters: &str| format!("routes:\n  - {{ name: a, match: /a, filters: {filters}, upstream: tasks }}\n");
    let mut request = RequestBuf::new(Method::OPTIONS, "/a");
    request.set(&http::header::ORIGIN, HeaderValue::from_static("https://a.example"));
    request.set(&http::header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT"));
    let open = gateway(&with(&route("[cors: { origins: ['https://a.example'] }]")));
    assert!(found(&open, &request).1.preflight);
    assert!(!found(&gateway(&with(&route("[]"))), &request).1.preflight, "nobody would answer it");
}
