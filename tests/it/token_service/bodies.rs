//! Bodies that a handler takes: how large, how framed, how slow.

use http::Request;
use serde_json::json;

use super::{configuration, login, post, refused_with};
use crate::harness::{Gateway, chunked};

/// What `login` takes.
const BODY_BYTES_MAX: usize = 8 * 1024;

/// A login with wrong credentials, filled up with spaces.
fn body(length: usize) -> Vec<u8> {
    let mut body = json!({"username": "ann", "password": "wrong"}).to_string().into_bytes();
    body.resize(length, b' ');
    body
}

fn head(framing: &str) -> String {
    format!("POST /auth/login HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\n{framing}\r\n\r\n")
}

fn in_chunks(body: &[u8], size: usize) -> Vec<u8> {
    [head("Transfer-Encoding: chunked").as_bytes(), &chunked(body, size)].concat()
}

/// Failures are what is asked for here.
async fn gateway(limits: &str) -> Gateway {
    let attempts = ", attempts: { failures: 1000, per_user: 1000, per_address: 1000 }";
    Gateway::start(&[limits, &configuration(attempts)].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_up_to_the_limit_is_read_and_one_byte_more_is_not() {
    let gateway = gateway("").await;
    for (length, fits) in [(BODY_BYTES_MAX, true), (BODY_BYTES_MAX + 1, false), (BODY_BYTES_MAX * 20, false)] {
        let body = body(length);
        let known = [head(&format!("Content-Length: {length}")).as_bytes(), &body].concat();
        for bytes in [known, in_chunks(&body, 1000), in_chunks(&body, length)] {
            let mut client = gateway.client().await;
            client.send(&bytes).await;
            let response = client.response().await;
            if fits {
                refused_with(&response, "Invalid credentials");
                assert!(client.is_usable("/nowhere").await, "the connection goes on");
            } else {
                response.refused(413, "BODY_TOO_LARGE");
            }
        }
        let request = Request::post("http://a.test/auth/login").header("content-type", "application/json");
        let response = gateway.h2().await.ask(request.body(()).unwrap(), body).await.unwrap();
        let (status, code) = if fits { (401, "UNAUTHORIZED") } else { (413, "BODY_TOO_LARGE") };
        response.refused(status, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_the_route_counts_too() {
    let yaml = configuration("").replace("login: {}", "body_max: 100B, login: {}");
    let gateway = Gateway::start(&yaml).await;
    for (length, status) in [(100, 401), (101, 413)] {
        let mut client = gateway.client().await;
        client.send(in_chunks(&body(length), 30)).await;
        assert_eq!(client.response().await.status, status, "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let gateway = gateway("limits: { body_timeout: 1s }\n").await;
    for framing in ["Content-Length: 60", "Transfer-Encoding: chunked"] {
        let mut client = gateway.client().await;
        client.send(head(framing)).await;
        client.response().await.refused(408, "REQUEST_TIMEOUT");
        client.closed().await;
    }
    let request = Request::post("http://a.test/auth/login").header("content-type", "application/json");
    let mut sender = gateway.h2().await.0.ready().await.unwrap();
    let (response, _open) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    let response = crate::harness::within("a response over HTTP/2", response).await.unwrap();
    assert_eq!(response.status(), 408);
    // A byte now and then keeps nothing open: the time counts from the first to the last.
    let mut client = gateway.client().await;
    client.send(head("Content-Length: 1000")).await;
    let (reading, mut writing) = client.0.stream.into_split();
    let dripping = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        while writing.write_all(b" ").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    let mut answer = Vec::new();
    let mut reading = reading;
    let read = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answer);
    // The gateway may reset the connection behind its answer, as more comes than it takes.
    let _ = crate::harness::within("the answer", read).await;
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    crate::harness::within("the end of the dripping", dripping).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_to_be_asked_is_asked() {
    let gateway = gateway("").await;
    let body = body(60);
    let mut client = gateway.client().await;
    client.send(head("Content-Length: 60\r\nExpect: 100-continue")).await;
    assert_eq!(client.try_response(false).await.unwrap().status, 100);
    client.send(&body).await;
    refused_with(&client.response().await, "Invalid credentials");
    // The engine ends a connection on which it had to ask.
    client.closed().await;
    let mut client = gateway.client().await;
    client.send(head("Content-Length: 9000\r\nExpect: 100-continue")).await;
    client.response().await.refused(413, "BODY_TOO_LARGE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_harms_nobody() {
    let gateway = gateway("").await;
    for _ in 0..10 {
        let mut client = gateway.client().await;
        client.send(head("Content-Length: 60")).await;
        client.send("{").await;
        drop(client);
    }
    assert_eq!(login(&gateway, "ann", "ann-secret").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_json_in_the_body_is_taken() {
    let gateway = gateway("").await;
    let form = "username=ann&password=ann-secret";
    let request = |content_type: &str, body: &str| {
        let length = body.len();
        format!("POST /auth/login HTTP/1.1\r\nHost: a.test\r\n{content_type}Content-Length: {length}\r\n\r\n{body}")
    };
    let json = r#"{"username": "ann", "password": "ann-secret"}"#;
    for bytes in [
        request("Content-Type: application/x-www-form-urlencoded\r\n", form),
        request("Content-Type: text/plain\r\n", json),
        request("", json),
        request("Content-Type: application/json\r\n", "{"),
        request("Content-Type: application/json\r\n", "[]"),
        request("Content-Type: application/json\r\n", r#"{"username": "ann"}"#),
        request("Content-Type: application/json\r\n", r#"{"username": "ann", "password": 7}"#),
    ] {
        let response = gateway.ask(&bytes).await;
        response.refused(400, "VALIDATION_ERROR");
        assert!(!response.text().contains("secret"), "{}", response.text());
    }
    let right = json!({"username": "ann", "password": "ann-secret"});
    for path in ["/auth/login?password=ann-secret", "/auth/login?username=ann&Password=x", "/auth/refresh?token=x"] {
        let response = post(&gateway, path, &right).await;
        response.refused(400, "VALIDATION_ERROR");
    }
}
