//! What is not valid is refused at the door, and what is valid arrives byte for byte.

use std::process::Command;

use crate::harness::{Folder, Gateway, Response, Upstream};

/// A route that validates, to one upstream.
fn yaml(upstream: &Upstream, validate: &str) -> String {
    format!(
        "defaults: {{ body_max: 1MiB }}\n\
         upstreams:\n  main: {{ targets: [{{ address: \"{}\" }}] }}\n\
         routes:\n  - name: commits\n    match: \"/commits/{{commit_id}}\"\n    filters:\n      - validate: {validate}\n    upstream: main\n",
        upstream.address
    )
}

const RULES: &str = r#"{ path: { commit_id: { pattern: "^[0-9a-f]{40}$" } }, body_max: 200KiB, depth_max: 3, body: { type: object, required: [branch], properties: { branch: { type: string } } } }"#;
const GOOD_PATH: &str = "/commits/4b825dc642cb6eb9a060e54bf8d69288fbee4904";

async fn post(gateway: &Gateway, path: &str, content_type: &str, body: &[u8]) -> Response {
    let mut client = gateway.client().await;
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    );
    client.send(head).await;
    client.send(body).await;
    client.response().await
}

/// A body of this many bytes.
fn body(bytes: usize) -> Vec<u8> {
    let frame = "{ \"branch\" :\t\"\"}\n".len();
    format!("{{ \"branch\" :\t\"{}\"}}\n", "é".repeat((bytes - frame) / 2) + &"x".repeat((bytes - frame) % 2))
        .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_body_arrives_byte_for_byte() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&upstream, RULES)).await;
    for bytes in [17, 1000, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 200 * 1024] {
        let body = body(bytes);
        assert_eq!(body.len(), bytes);
        let response = post(&gateway, GOOD_PATH, "application/json; charset=utf-8", &body).await;
        assert_eq!((response.status, response.body == body), (200, true), "{bytes}");
        assert!(upstream.last().body == body, "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_id_that_is_none_is_told_with_field_value_and_expectation() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&upstream, RULES)).await;
    let response = post(&gateway, "/commits/HEAD", "application/json", br#"{"branch": "main"}"#).await;
    let details = response.refused(400, "VALIDATION_ERROR").json()["error"]["details"].clone();
    assert_eq!(details["field"], "path.commit_id");
    assert_eq!(details["value"], "HEAD");
    assert_eq!(details["expected"], "a string of the pattern ^[0-9a-f]{40}$");
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_bad_body_reaches_the_service() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&upstream, RULES)).await;
    for (content_type, body, status, code) in [
        ("application/json", body(200 * 1024 + 1), 413, "BODY_TOO_LARGE"),
        ("application/json", br#"{"branch": "a", "x": [[[]]]}"#.to_vec(), 400, "VALIDATION_ERROR"),
        ("application/json", br#"{"branch": 7}"#.to_vec(), 400, "VALIDATION_ERROR"),
        ("application/json", br#"{"branch": "a", "branch": "b"}"#.to_vec(), 400, "VALIDATION_ERROR"),
        ("application/json", br#"{"branch": "a"}x"#.to_vec(), 400, "VALIDATION_ERROR"),
        ("application/json", Vec::new(), 400, "VALIDATION_ERROR"),
        ("text/plain", br#"{"branch": "a"}"#.to_vec(), 415, "UNSUPPORTED_MEDIA_TYPE"),
    ] {
        post(&gateway, GOOD_PATH, content_type, &body).await.refused(status, code);
    }
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(post(&gateway, GOOD_PATH, "application/json", br#"{"branch": "a", "x": [[]]}"#).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_good_for_the_next_request_after_a_refusal() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&yaml(&upstream, RULES)).await;
    let mut client = gateway.client().await;
    for (body, status) in [("{}", 400), (r#"{"branch": "a"}"#, 200), ("[]", 400), (r#"{"branch": "b"}"#, 200)] {
        let length = body.len();
        let head = format!(
            "POST {GOOD_PATH} HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        let response = client.ask(&format!("{head}{body}")).await;
        assert_eq!(response.status, status, "{}", response.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_for_path_and_query_leave_the_body_streaming() {
    let upstream = Upstream::echo().await;
    let rules = "{ query: { limit: { type: integer, maximum: 100 } }, query_unknown: refuse }";
    let gateway = Gateway::start(&yaml(&upstream, rules)).await;
    // The service answers before the client has sent its body: nobody gathers it.
    let mut client = gateway.client().await;
    client.send("POST /commits/a?limit=5 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\na").await;
    upstream_has_begun(&upstream).await;
    client.send("b").await;
    assert_eq!(client.response().await.body, b"ab");
    gateway.get("/commits/a?limit=101").await.refused(400, "VALIDATION_ERROR");
    gateway.get("/commits/a?other=1").await.refused(400, "VALIDATION_ERROR");
}

/// Awaits that a connection to the upstream is there.
async fn upstream_has_begun(upstream: &Upstream) {
    crate::harness::within("a connection to the upstream", async {
        while upstream.connections() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn with_file(upstream: &Upstream, schema: &str) -> Folder {
    let root = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nadmin: { bind: 127.0.0.1:0 }\n\
                access_log: { to: none }\ninclude: [routes.d/*.yaml]\n";
    let route = yaml(upstream, "{ body: \"${file:commit.json}\" }");
    let route = route.lines().skip(1).collect::<Vec<_>>().join("\n");
    Folder::with(&[("gateway.yaml", root), ("routes.d/commits.yaml", &route), ("routes.d/commit.json", schema)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_in_a_file_of_its_own_is_watched() {
    let upstream = Upstream::echo().await;
    let mut gateway = Gateway::start_in(with_file(&upstream, r#"{"type": "object"}"#)).await;
    post(&gateway, GOOD_PATH, "application/json", b"[]").await.refused(400, "VALIDATION_ERROR");
    gateway.folder.write("routes.d/commit.json", r#"{"type": "array"}"#);
    gateway.logged("cause=\"watch\"").await;
    assert_eq!(post(&gateway, GOOD_PATH, "application/json", b"[]").await.status, 200);
    gateway.folder.write("routes.d/commit.json", r#"{"type": "aray"}"#);
    let (status, outcome) = gateway.reload().await;
    assert_eq!(status, 422, "{outcome:#}");
    assert!(outcome.to_string().contains("JSON Schema"), "{outcome:#}");
    assert_eq!(post(&gateway, GOOD_PATH, "application/json", b"[]").await.status, 200, "the last good one stays");
    post(&gateway, GOOD_PATH, "application/json", b"{}").await.refused(400, "VALIDATION_ERROR");
}

#[test]
fn explain_sends_a_body() {
    let folder = Folder::with(&[
        (
            "gateway.yaml",
            "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nroutes:\n  - name: a\n    match: POST /a\n    filters:\n      - validate: { body: { required: [id] }, body_max: 20B }\n    respond: { status: 204 }\n",
        ),
        ("good.json", "{\"id\": 1}\n"),
    ]);
    let explain = |data: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(["explain", "POST /a", "-H", "Content-Type: application/json", "--json", "--data", data]);
        let output = command.current_dir(folder.path("")).output().unwrap();
        let told = String::from_utf8(if output.status.success() { output.stdout } else { output.stderr }).unwrap();
        (output.status.code(), told)
    };
    let status = |told: &str| serde_json::from_str::<serde_json::Value>(told).unwrap()["response"]["status"].clone();
    for (data, expected) in [
        ("@good.json", 204),
        (r#"{"id":1}"#, 204),
        ("{}", 400),
        (&format!("\"{}\"", "x".repeat(18)), 204),
        (&format!("\"{}\"", "x".repeat(19)), 413),
        ("", 400),
    ] {
        let (code, told) = explain(data);
        assert_eq!((code, status(&told)), (Some(0), expected.into()), "{data}: {told}");
    }
    let (code, told) = explain("@none.json");
    assert_eq!(code, Some(2));
    assert!(told.contains("cannot read none.json"), "{told}");
}
