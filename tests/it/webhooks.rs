//! Webhooks from outside: what is signed arrives byte for byte, and of a forgery nothing does.

mod again;
mod ways;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::harness::{Gateway, Response, Upstream, noise};

const SECRET: &str = "an example and no secret at all";

async fn gateway(upstream: &Upstream) -> Gateway {
    gateway_with(upstream, "").await
}

/// `head` is more of the configuration: `limits: {}`, a line.
async fn gateway_with(upstream: &Upstream, head: &str) -> Gateway {
    let address = upstream.address;
    Gateway::start(&format!(
        "{head}admin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n  main: {{ targets: [{{ address: \"{address}\" }}] }}\n\
         routes:\n  - name: hooks\n    match: POST,HEAD /hooks/{{service}}\n    filters:\n      - webhook:\n          by: service\n          \
         body_max: 200KiB\n          providers:\n            \
         github: {{ preset: github, secrets: [\"{SECRET}\"] }}\n            \
         slack: {{ preset: slack, secrets: [\"{SECRET} of slack\"] }}\n            \
         trello: {{ preset: trello, secrets: [\"{SECRET} of trello\"], callback_url: \"https://a.test/hooks/trello\" }}\n            \
         jira: {{ preset: jira, enabled: false }}\n    upstream: main\n"
    ))
    .await
}

fn signed(secret: &str, pieces: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    pieces.iter().for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sends a body to a provider with these lines of the head.
async fn post(gateway: &Gateway, provider: &str, lines: &str, body: &[u8]) -> Response {
    let length = body.len();
    let mut client = gateway.client().await;
    let head = format!("POST /hooks/{provider} HTTP/1.1\r\nHost: a.test\r\n{lines}Content-Length: {length}\r\n\r\n");
    client.send([head.as_bytes(), body].concat()).await;
    client.response().await
}

fn by_github(body: &[u8]) -> String {
    format!("X-Hub-Signature-256: sha256={}\r\n", signed(SECRET, &[body]))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_arrives_byte_for_byte() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    for length in [0, 1, 1024, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 200 * 1024] {
        let body = noise(length);
        let response = post(&gateway, "github", &by_github(&body), &body).await;
        assert_eq!((response.status, response.body == body), (200, true), "{length}");
    }
    let body = noise(200 * 1024 + 1);
    post(&gateway, "github", &by_github(&body), &body).await.refused(413, "BODY_TOO_LARGE");
    assert_eq!(upstream.requests().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_forgery_arrives() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let body = noise(100_000);
    let genuine = by_github(&body);
    let mut other = body.clone();
    other[99_999] ^= 1;
    post(&gateway, "github", &genuine, &other).await.refused(401, "SIGNATURE_INVALID");
    post(&gateway, "github", &genuine, &body[..99_999]).await.refused(401, "SIGNATURE_INVALID");
    post(&gateway, "github", &format!("{genuine}{genuine}"), &body).await.refused(401, "SIGNATURE_MISSING");
    let joined = genuine.trim_end().to_owned() + ", " + genuine.split_once(": ").unwrap().1;
    post(&gateway, "github", &joined, &body).await.refused(401, "SIGNATURE_MISSING");
    let in_capitals = genuine.to_ascii_uppercase().replace("SHA256=", "sha256=");
    post(&gateway, "github", &in_capitals, &body).await.refused(401, "SIGNATURE_MISSING");
    let folded = genuine.replace("sha256=", "sha256=\r\n ");
    assert!(post(&gateway, "github", &folded, &body).await.status >= 400);
    post(&gateway, "slack", &genuine, &body).await.refused(401, "SIGNATURE_MISSING");
    post(&gateway, "jira", &genuine, &body).await.refused(404, "NOT_FOUND");
    post(&gateway, "unheard-of", &genuine, &body).await.refused(404, "NOT_FOUND");
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(post(&gateway, "github", &genuine, &body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_head_decides_is_refused_before_the_body_comes() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let zeros = "0".repeat(64);
    let stale = format!("X-Slack-Signature: v0={zeros}\r\nX-Slack-Request-Timestamp: 1531420618\r\n");
    for (provider, lines, status, code) in [
        ("github", "", 401, "SIGNATURE_MISSING"),
        ("slack", stale.as_str(), 401, "SIGNATURE_EXPIRED"),
        ("jira", "", 404, "NOT_FOUND"),
    ] {
        let mut client = gateway.client().await;
        let head = format!("POST /hooks/{provider} HTTP/1.1\r\nHost: a.test\r\n{lines}Content-Length: 100000\r\n\r\n");
        client.send(head).await;
        let response = client.response().await;
        response.refused(status, code);
        assert_eq!(response.head.all("www-authenticate").len(), usize::from(status == 401));
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_at_the_door() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream).await;
    let mut client = gateway.client().await;
    client.send("HEAD /hooks/trello HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response_to_head().await.status, 200);
    client.send("HEAD /hooks/github HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response_to_head().await.status, 401);

    let question = br#"{"token": "t", "challenge": "3eZbrw1aBm2rZgRNFdxV", "type": "url_verification"}"#;
    let time = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().to_string();
    let by_slack = |secret: &str| {
        let signature = signed(secret, &[b"v0:", time.as_bytes(), b":", question]);
        format!("X-Slack-Signature: v0={signature}\r\nX-Slack-Request-Timestamp: {time}\r\n")
    };
    for _ in 0..2 {
        let response = post(&gateway, "slack", &by_slack(&format!("{SECRET} of slack")), question).await;
        assert_eq!((response.status, response.text()), (200, "3eZbrw1aBm2rZgRNFdxV"));
        assert_eq!(response.head.all("content-type"), ["text/plain; charset=utf-8"]);
    }
    post(&gateway, "slack", &by_slack(SECRET), question).await.refused(401, "SIGNATURE_INVALID");
    assert_eq!(upstream.requests().len(), 0);
}
