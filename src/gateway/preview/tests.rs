use super::*;
use crate::gateway::testing::{gateway, try_gateway};
use crate::observe::metrics::Metrics;

const CONFIG: &str = r#"version: 1
listeners: [{ bind: 127.0.0.1:8000 }]
trusted_proxies: [10.0.0.0/8]
defaults:
  filters: [security_headers]
upstreams:
  tasks: { targets: [{ address: 127.0.0.1:9101 }], host: target }
  users: { targets: [{ address: 127.0.0.1:9102 }] }
routes:
  - name: tasks
    match: /tasks/{*rest}
    filters:
      - headers: { request: { set: { X-Client: "{client_ip}" }, remove: [X-Internal-*] } }
      - rewrite: { strip_prefix: /tasks }
      - headers: { response: { set: { X-Behind: "yes" } } }
    upstream: tasks
  - name: users
    match: { path: /users, hosts: [users.example.com] }
    body_max: 10B
    upstream: users
  - name: inner
    match: GET /inner
    filters:
      - headers: { response: { set: { X-Before: "yes" } } }
      - allow_ips: { allow: [10.0.0.0/8] }
      - headers: { response: { set: { X-After: "yes" } } }
    upstream: users
  - name: hello
    match: GET /hello
    respond: { status: 201, body: hello }
"#;

fn ask(line: &str, from: &str, fields: &[(&str, &str)]) -> Ask {
    let mut ask = Ask::parse(line, from.parse().unwrap()).unwrap();
    for (name, value) in fields {
        ask.add(name, value).unwrap();
    }
    ask
}

fn run(line: &str, from: &str, fields: &[(&str, &str)]) -> Preview {
    preview(&gateway(CONFIG), ask(line, from, fields))
}

fn text<'h>(head: &'h dyn Headers, name: &'static str) -> Option<&'h str> {
    head.text(&HeaderName::from_static(name))
}

fn upstream(preview: &Preview) -> (&str, &RequestBuf) {
    match &preview.outcome {
        Outcome::Upstream { name, request, .. } => (name, request),
        Outcome::Reply(reply) => panic!("answered {:?}", reply.code),
    }
}

fn refusal(preview: &Preview) -> (u16, &str) {
    (preview.response.status.as_u16(), preview.code().map_or("", |code| code.name))
}

#[test]
fn the_upstream_sees_what_the_chain_made_of_the_request() {
    let preview =
        run("POST /tasks//7/../8?a=b", "192.0.2.7", &[("X-Internal-Id", "1"), ("X-Forwarded-For", "1.1.1.1")]);
    let (name, request) = upstream(&preview);
    assert_eq!((name, target(request)), ("tasks", "/8?a=b".to_owned()));
    assert_eq!(text(request, "x-client"), Some("192.0.2.7"));
    assert_eq!(text(request, "x-internal-id"), None);
    assert_eq!(text(request, "x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(text(request, "x-forwarded-host"), Some("localhost"));
    assert_eq!(text(request, "host"), Some("127.0.0.1:9101"));
    assert_eq!(text(&preview.response, "x-behind"), Some("yes"));
    assert_eq!(text(&preview.response, "x-content-type-options"), Some("nosniff"));
    assert_eq!(preview.response.status, StatusCode::OK);
}

#[test]
fn each_filter_reports_what_it_changed() {
    let preview = run("GET /tasks/7", "192.0.2.7", &[("X-Internal-Id", "1"), ("Cookie", "a=b")]);
    let steps: Vec<_> =
        preview.steps.iter().map(|step| (step.name, step.response_only, step.changes.clone())).collect();
    let field = |name: &str, values: &[&str]| Change::Field {
        name: name.to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let moved = Change::Target { from: "/tasks/7".to_owned(), to: "/7".to_owned() };
    assert_eq!(
        steps,
        [
            ("security_headers", true, vec![]),
            ("headers", false, vec![field("x-internal-id", &[]), field("x-client", &["192.0.2.7"])]),
            ("rewrite", false, vec![moved]),
            ("headers", true, vec![]),
        ]
    );
}

#[test]
fn a_trusted_proxy_says_who_the_client_is_and_nobody_else() {
    let fields = [("X-Forwarded-For", "203.0.113.9"), ("X-Request-Id", "given"), ("X_Forwarded_For", "6.6.6.6")];
    let trusted = run("GET /tasks/7", "10.1.1.1", &fields);
    let (_, request) = upstream(&trusted);
    assert_eq!(trusted.client.to_string(), "203.0.113.9");
    assert_eq!(text(request, "x-client"), Some("203.0.113.9"));
    assert_eq!(text(request, "x-forwarded-for"), Some("203.0.113.9, 10.1.1.1"));
    assert_eq!(text(&trusted.response, "x-request-id"), Some("given"));
    assert_eq!(text(request, "x_forwarded_for"), None);
    let stranger = run("GET /tasks/7", "192.0.2.7", &fields);
    assert_eq!(stranger.client.to_string(), "192.0.2.7");
    assert_ne!(text(&stranger.response, "x-request-id"), Some("given"));
}

#[test]
fn a_refusal_passes_the_response_hooks_of_the_filters_before_it() {
    let preview = run("GET /inner", "192.0.2.7", &[]);
    assert_eq!(refusal(&preview), (403, "FORBIDDEN"));
    assert_eq!((text(&preview.response, "x-before"), text(&preview.response, "x-after")), (Some("yes"), None));
    assert_eq!(preview.steps.last().unwrap().verdict, StepVerdict::Rejected(Code::FORBIDDEN, StatusCode::FORBIDDEN));
    assert_eq!(preview.steps.len(), 3);
    let allowed = run("GET /inner", "10.0.0.1", &[]);
    assert_eq!(upstream(&allowed).0, "users");
    assert_eq!(text(&allowed.response, "x-after"), Some("yes"));
}

#[test]
fn errors_of_the_gateway_pass_the_default_response_hooks() {
    for (line, expected) in [
        ("GET /nowhere", (404, "NOT_FOUND")),
        ("PUT /hello", (405, "METHOD_NOT_ALLOWED")),
        ("GET /tasks/a%2Fb", (400, "BAD_REQUEST")),
        ("GET /../x", (400, "BAD_REQUEST")),
        ("GET relative", (400, "BAD_REQUEST")),
        ("OPTIONS *", (404, "NOT_FOUND")),
    ] {
        let preview = run(line, "192.0.2.7", &[]);
        assert_eq!(refusal(&preview), expected, "{line}");
        assert_eq!(text(&preview.response, "x-content-type-options"), Some("nosniff"), "{line}");
        assert!(preview.route.is_none() && preview.steps.is_empty(), "{line}");
    }
}

#[test]
fn the_host_is_compared_in_lower_case_and_without_port() {
    assert_eq!(upstream(&run("GET /users", "192.0.2.7", &[("Host", "Users.Example.com:8000")])).0, "users");
    assert_eq!(refusal(&run("GET /users", "192.0.2.7", &[])), (404, "NOT_FOUND"));
    assert_eq!(refusal(&run("GET /users", "192.0.2.7", &[("Host", "a/b")])), (400, "BAD_REQUEST"));
}

#[test]
fn a_body_that_says_it_is_too_large_is_refused() {
    let length = |bytes| {
        refusal(&run("POST /users", "192.0.2.7", &[("Host", "users.example.com"), ("Content-Length", bytes)])).0
    };
    assert_eq!((length("10"), length("11")), (200, 413));
}

#[test]
fn a_handler_answers() {
    let preview = run("GET /hello", "192.0.2.7", &[]);
    assert_eq!(preview.response.status.as_u16(), 201);
    assert_eq!(text(&preview.response, "content-length"), Some("5"));
    assert!(matches!(&preview.outcome, Outcome::Reply(reply) if reply.body == "hello"));
    assert_eq!(preview.considered[0].why, "the most specific route that accepts the request");
}

#[test]
fn lines_that_are_no_requests_say_what_to_write() {
    let why = |line: &str| Ask::parse(line, CLIENT).unwrap_err();
    assert!(why("/tasks").contains("write a method and a path"));
    assert!(why("GET /tasks HTTP/1.1").contains("write a method and a path"));
    assert_eq!(why("get /tasks"), "method `get` is not in upper case; write GET");
    assert_eq!(why("G(T /tasks"), "`G(T` is no method");
    assert!(why("CONNECT example.com:443").contains("does not offer CONNECT"));
    let mut ask = Ask::parse("GET /", CLIENT).unwrap();
    assert!(ask.add("a b", "1").unwrap_err().contains("no header name"));
    assert!(ask.add("a", "1\r\nb: 2").unwrap_err().contains("control character"));
}

/// The differences of one test entry.
fn differences(test: &str) -> Option<String> {
    let gateway = gateway(&format!("{CONFIG}tests:\n  - {test}\n"));
    let failures = run_tests(&gateway);
    assert_eq!(failures.len(), check_tests(&gateway).len());
    failures.into_iter().next().map(|failure| failure.summary)
}

#[test]
fn every_expectation_can_fail() {
    let request = "request: GET /tasks/7?q=1, headers: { X-Internal-Id: \"1\" }";
    for (expect, failure) in [
        ("status: 404", "status: expected 404, got 200"),
        ("code: NOT_FOUND", "code: expected NOT_FOUND, got nothing"),
        ("route: users", "route: expected users, got tasks"),
        ("upstream: users", "upstream: expected users, got tasks"),
        ("target: /tasks/7", "target: expected /tasks/7, got /7?q=1"),
        ("headers: { X-Behind: \"no\" }", "header X-Behind: expected no, got yes"),
        ("headers: { X-Behind: ~ }", "header X-Behind: expected nothing, got yes"),
        ("headers: { X-Absent: \"1\" }", "header X-Absent: expected 1, got nothing"),
        ("upstream_headers: { X-Client: 1.1.1.1 }", "upstream header X-Client: expected 1.1.1.1, got 192.0.2.1"),
        ("upstream_headers: { X-Internal-Id: \"1\" }", "upstream header X-Internal-Id: expected 1, got nothing"),
    ] {
        let got = differences(&format!("{{ {request}, expect: {{ {expect} }} }}"));
        assert_eq!(got.as_deref(), Some(&*format!("GET /tasks/7?q=1; {failure}")));
    }
    let all = "status: 200, route: tasks, upstream: tasks, target: \"/7?q=1\", headers: { X-Behind: \"yes\", X-Absent: ~ }, \
               upstream_headers: { X-Client: 192.0.2.1, X-Internal-Id: ~ }";
    assert_eq!(differences(&format!("{{ {request}, expect: {{ {all} }} }}")), None);
}

#[test]
fn what_was_never_forwarded_has_no_upstream_headers() {
    let test = "{ request: GET /hello, expect: { upstream: tasks, upstream_headers: { X-A: ~ } } }";
    let expected = "GET /hello; upstream: expected tasks, got nothing; \
                    upstream header X-A: expected nothing, got no request to an upstream";
    assert_eq!(differences(test).as_deref(), Some(expected));
}

#[test]
fn a_secret_in_a_field_is_not_told() {
    let secret = CONFIG.replace("X-Client: \"{client_ip}\"", "Authorization: Bearer hunter2");
    let gateway = gateway(&format!(
        "{secret}tests:\n  - {{ request: GET /tasks/7, expect: {{ upstream_headers: {{ Authorization: hunter3 }} }} }}\n"
    ));
    let failures = run_tests(&gateway);
    let message = &failures[0].message;
    assert!(message.contains("[redacted]") && message.contains("another value"), "{message}");
    assert!(!message.contains("hunter"), "{message}");
}

#[test]
fn a_test_that_could_never_pass_is_a_mistake_of_the_configuration() {
    let problems = |test: &str| {
        let text = format!("{CONFIG}tests:\n  - {test}\n");
        try_gateway(&text, None, &Metrics::new(100)).err().unwrap_or_default()
    };
    for (test, problem) in [
        ("{ request: /x, expect: { status: 200 } }", "`/x` is no request"),
        ("{ request: GET /x, expect: {} }", "this test expects nothing"),
        ("{ request: GET /x, expect: { status: 99 } }", "99 is no status"),
        ("{ request: GET /x, expect: { status: 600 } }", "600 is no status"),
        ("{ request: GET /x, expect: { code: NOTFOUND } }", "unknown code `NOTFOUND`"),
        ("{ request: GET /x, expect: { route: task } }", "unknown route `task`"),
        ("{ request: GET /x, expect: { upstream: task } }", "unknown upstream `task`"),
        ("{ request: GET /x, expect: { headers: { \"a b\": x } } }", "`a b` is no header name"),
        ("{ request: GET /x, headers: { \"a b\": x }, expect: { status: 200 } }", "`a b` is no header name"),
    ] {
        assert!(problems(test).contains(problem), "{test}: {}", problems(test));
    }
    for test in ["{ request: GET /x, expect: { status: 100 } }", "{ request: GET /x, expect: { status: 599 } }"] {
        assert_eq!(problems(test), "");
    }
}

#[test]
fn a_preview_knows_who_calls_and_writes_no_log() {
    let gateway = gateway(
        r#"version: 1
listeners: [{ bind: 127.0.0.1:8000 }]
consumers:
  - name: dashboard
    scopes: [read:tasks]
    keys: [{ id: k-1, sha256: 770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c }]
routes:
  - name: tasks
    match: /tasks
    filters: [{ auth: { accept: [api_key], forward: { name: X-Consumer } } }, { require: { scopes: [write:tasks] } }]
    respond: { status: 204 }
"#,
    );
    let seen = preview(&gateway, ask("GET /tasks", "192.0.2.7", &[("X-API-Key", "good"), ("X-Consumer", "root")]));
    assert_eq!(seen.caller.as_ref().map(|caller| &*caller.name), Some("dashboard"));
    let decided: Vec<_> = seen.steps.iter().filter_map(|step| step.decision).map(|it| (it.by, it.reason)).collect();
    assert_eq!(decided, [("auth", "ok"), ("require", "scope")]);
    assert_eq!(seen.code(), Some(Code::FORBIDDEN));
    assert_eq!(seen.request.text(&HeaderName::from_static("x-consumer")), Some("dashboard"));
    let nobody = preview(&gateway, ask("GET /tasks", "192.0.2.7", &[]));
    assert_eq!((nobody.code(), nobody.caller.is_none()), (Some(Code::UNAUTHORIZED), true));
}

const BODIES: &str = r#"version: 1
listeners: [{ bind: 127.0.0.1:8000 }]
defaults: { body_max: 40B }
upstreams:
  tasks: { targets: [{ address: 127.0.0.1:9101 }] }
routes:
  - name: tasks
    match: POST /tasks/{id}
    filters:
      - validate: { body: { type: object, required: [name] }, body_max: 20B, path: { id: { type: integer } } }
    upstream: tasks
  - name: wide
    match: POST /wide
    filters: [{ validate: { body: true, body_max: 1MiB } }]
    respond: { status: 204 }
"#;

fn with_body(line: &str, body: &str) -> Preview {
    let mut ask = ask(line, "192.0.2.7", &[("Content-Type", "application/json"), ("Content-Length", "3")]);
    ask.set_body(body.to_owned().into());
    preview(&gateway(BODIES), ask)
}

#[test]
fn filters_see_the_body_and_it_is_announced() {
    let good = with_body("POST /tasks/7", r#"{"name": "a"}"#);
    assert_eq!(text(upstream(&good).1, "content-length"), Some("13"), "in place of the one that was given");
    let bad = with_body("POST /tasks/7", "{}");
    assert_eq!(refusal(&bad), (400, "VALIDATION_ERROR"));
    let body = match &bad.outcome {
        Outcome::Reply(reply) => String::from_utf8_lossy(&reply.body).into_owned(),
        Outcome::Upstream { .. } => panic!("it got through"),
    };
    assert!(body.contains(r#""field":"body.name""#), "{body}");
    assert_eq!(refusal(&with_body("POST /tasks/x", r#"{"name": "a"}"#)), (400, "VALIDATION_ERROR"));
}

#[test]
fn a_body_that_is_too_large_for_a_filter_is_refused_before_it() {
    let of = |bytes: usize| format!("{{\"name\": \"{}\"}}", "a".repeat(bytes - 12));
    assert!(matches!(with_body("POST /tasks/7", &of(20)).outcome, Outcome::Upstream { .. }));
    let preview = with_body("POST /tasks/7", &of(21));
    assert_eq!(refusal(&preview), (413, "BODY_TOO_LARGE"));
    assert_eq!(preview.steps.len(), 1, "told of the filter that would have looked at it");
    assert_eq!(with_body("POST /wide", &of(40)).response.status, StatusCode::NO_CONTENT);
    assert_eq!(refusal(&with_body("POST /wide", &of(41))), (413, "BODY_TOO_LARGE"), "the route counts too");
}

#[test]
fn tests_of_a_configuration_send_bodies() {
    let tests = |body: &str, status: u16| {
        format!(
            "{BODIES}tests:\n  - request: POST /wide\n    headers: {{ Content-Type: application/json }}\n    body: '{body}'\n    expect: {{ status: {status} }}\n"
        )
    };
    assert_eq!(run_tests(&gateway(&tests("[1]", 204))), []);
    let failures = run_tests(&gateway(&tests("[1", 204)));
    assert!(failures[0].summary.contains("expected 204, got 400"), "{}", failures[0].summary);
}
