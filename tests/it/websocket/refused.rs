//! Refusals that a script in a browser can read: `websocket_refusal: close`.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn yaml(upstream: &Upstream, auth: &str) -> String {
    format!(
        "admin: {{ bind: 127.0.0.1:0 }}\n\
         upstreams: {{ main: {{ targets: [{{ address: \"{}\" }}] }} }}\n\
         issuers: {{ main: {{ secret: {SECRET}, algorithms: [HS256] }} }}\n\
         chains: {{ api: [auth: {{ accept: [jwt], jwt: {{ query: token }}{auth} }}] }}\n\
         routes:\n\
         \x20 - {{ name: chat, match: /chat, filters: [use: api], upstream: main }}\n\
         \x20 - name: admin\n    match: /admin\n    filters: [{{ use: api }}, {{ require: {{ scopes: [admin:all] }} }}]\n    upstream: main\n",
        upstream.address
    )
}

fn token(exp: u64) -> String {
    encode(&Header::default(), &json!({"sub": "ann", "exp": exp}), &EncodingKey::from_secret(SECRET.as_bytes()))
        .unwrap()
}

const LATER: u64 = 32_000_000_000;

fn targets() -> [(String, u16, &'static str); 5] {
    [
        ("/chat".to_owned(), 401, "a valid credential is needed"),
        ("/chat?token=a.b.c".to_owned(), 401, "Invalid token"),
        (format!("/chat?token={}", token(1_000_000_000)), 401, "Token expired"),
        (format!("/chat?token={0}&token={0}", token(LATER)), 401, "Invalid token"),
        (format!("/admin?token={}", token(LATER)), 403, "a scope is missing"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_socket_is_opened_and_closed_with_the_reason() {
    let upstream = echo().await;
    let gateway = Gateway::start(&yaml(&upstream, ", websocket_refusal: close")).await;
    for (target, status, reason) in targets() {
        let mut socket = connect(&gateway, &target).await.unwrap_or_else(|error| panic!("{target}: {error}"));
        assert_eq!(next(&mut socket).await, closed(reason), "{target}");
        let end = within("the end", socket.next()).await;
        assert!(!matches!(end, Some(Ok(_))), "{end:?}");
        // Anything that is no handshake learns it as ever.
        let response = gateway.get(&target).await;
        response.refused(status, if status == 401 { "UNAUTHORIZED" } else { "FORBIDDEN" });
        assert_eq!(response.json()["error"]["message"], reason);
        let old = format!(
            "GET {target} HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        let response = gateway.ask(&old).await;
        assert_eq!(response.status, status, "{}", response.text());
    }
    assert_eq!(upstream.connections(), 0);
    let denied = |route: &str, filter: &str, kind: &str, reason: &str| {
        format!("tollgate_auth_total{{filter=\"{filter}\",kind=\"{kind}\",reason=\"{reason}\",route=\"{route}\"}}")
    };
    let counts = [
        (denied("chat", "auth", "none", "missing"), 3.0),
        (denied("chat", "auth", "jwt", "malformed"), 6.0),
        (denied("chat", "auth", "jwt", "expired"), 3.0),
        (denied("admin", "require", "jwt", "scope"), 3.0),
    ];
    gateway.counts(&counts.each_ref().map(|(series, count)| (series.as_str(), *count))).await;

    let mut socket = connect(&gateway, &format!("/chat?token={}", token(LATER))).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn otherwise_a_handshake_is_refused_as_any_request() {
    let upstream = echo().await;
    let gateway = Gateway::start(&yaml(&upstream, "")).await;
    for (target, status, _) in targets() {
        match connect(&gateway, &target).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), status, "{target}"),
            other => panic!("{target}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subprotocol_that_is_offered_is_granted() {
    let upstream = echo().await;
    let gateway = Gateway::start(&yaml(&upstream, ", websocket_refusal: close")).await;
    let mut request = "ws://a.test/chat".into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "chat, superchat".parse().unwrap());
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut socket, response) = within("a handshake", client_async(request, stream)).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    assert_eq!(next(&mut socket).await, closed("a valid credential is needed"));
}
