//! Tokens of a session that has ended: refused at once, and what they opened is closed.

use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::harness::Upstream;
use crate::websocket::{closed, connect, echo, next};

/// The token service with routes that accept its tokens: `/me`, `/out` (which logs out who is known) and the WebSocket `/chat`.
fn guarded(keys: &str, upstream: Option<&Upstream>) -> String {
    let address = upstream.map_or("127.0.0.1:1".to_owned(), |upstream| upstream.address.to_string());
    format!(
        "issuers: {{ main: {{ token_service: main }} }}\n\
         admin: {{ bind: 127.0.0.1:0 }}\n\
         upstreams: {{ main: {{ targets: [{{ address: \"{address}\" }}] }} }}\n{}\
         \x20 - {{ name: me, match: GET /me, filters: [auth: {{ accept: [jwt] }}], respond: {{ body: \"{{consumer}}\" }} }}\n\
         \x20 - {{ name: out, match: POST /out, filters: [auth: {{ accept: [jwt], jwt: {{ cookie: session }} }}], logout: {{}} }}\n\
         \x20 - name: chat\n    match: /chat\n    upstream: main\n\
         \x20   filters: [auth: {{ accept: [jwt], jwt: {{ query: token }}, close_on: [key_revoked] }}]\n",
        configuration(keys)
    )
}

async fn me(gateway: &Gateway, token: &str) -> Response {
    gateway.ask(&format!("GET /me HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer {token}\r\n\r\n")).await
}

/// More than once: out of the cache of verified tokens too, and on both workers.
async fn passes(gateway: &Gateway, token: &str) {
    for _ in 0..4 {
        let response = me(gateway, token).await;
        assert_eq!((response.status, response.text()), (200, "ann"));
    }
}

async fn is_refused(gateway: &Gateway, token: &str) {
    for _ in 0..4 {
        refused_with(&me(gateway, token).await, "Invalid token");
    }
}

fn private_key(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
    rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem().replace('\n', "\\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_ends_with_its_session_and_no_other_does() {
    let hs256 = guarded("", None);
    let keys = format!("algorithm: HS256, secret: {}", secret());
    let with = |keys_now: &str| {
        assert!(hs256.contains(&keys));
        hs256.replace(&keys, keys_now)
    };
    for yaml in [
        hs256.clone(),
        with(&format!("{keys}, audience: tollgate, kid: k1")),
        with(&format!("algorithm: ES256, key: \"{}\"", private_key(&rcgen::PKCS_ECDSA_P256_SHA256))),
        with(&format!("algorithm: EdDSA, key: \"{}\", kid: k2", private_key(&rcgen::PKCS_ED25519))),
    ] {
        let gateway = Gateway::start(&yaml).await;
        let (ended, refresh_token) = tokens(&login(&gateway, "ann", "ann-secret").await);
        let (kept, _) = tokens(&login(&gateway, "ann", "ann-secret").await);
        passes(&gateway, &ended).await;
        passes(&gateway, &kept).await;
        refused_with(&me(&gateway, &refresh_token).await, "Invalid token");
        assert_eq!(logout(&gateway, &refresh_token).await.status, 204);
        is_refused(&gateway, &ended).await;
        passes(&gateway, &kept).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_refresh_token_ends_the_access_tokens_of_its_session() {
    let gateway = Gateway::start(&guarded(", reuse_grace: 0s", None)).await;
    let (one, first) = tokens(&login(&gateway, "ann", "ann-secret").await);
    let (other, _) = tokens(&refresh(&gateway, &first).await);
    passes(&gateway, &one).await;
    passes(&gateway, &other).await;
    refused_with(&refresh(&gateway, &first).await, "Invalid token");
    is_refused(&gateway, &one).await;
    is_refused(&gateway, &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_by_auth_can_log_out() {
    let gateway = Gateway::start(&guarded("", None)).await;
    let (access, refresh_token) = tokens(&login(&gateway, "ann", "ann-secret").await);
    passes(&gateway, &access).await;
    let out = format!("POST /out HTTP/1.1\r\nHost: a.test\r\nCookie: session={access}\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(gateway.ask(&out).await.status, 204);
    is_refused(&gateway, &access).await;
    refused_with(&refresh(&gateway, &refresh_token).await, "Invalid token");
    refused_with(&gateway.ask(&out).await, "Invalid token");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_stays_so_over_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!("state: {{ file: {}/state.db }}\n{}", folder.path().display(), guarded("", None));
    let mut gateway = Gateway::start(&yaml).await;
    let (kept, _) = tokens(&login(&gateway, "ann", "ann-secret").await);
    let (ended, refresh_token) = tokens(&login(&gateway, "ann", "ann-secret").await);
    assert_eq!(logout(&gateway, &refresh_token).await.status, 204);
    gateway.signal("KILL");
    gateway.ended().await;
    let gateway = Gateway::start(&yaml).await;
    is_refused(&gateway, &ended).await;
    passes(&gateway, &kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_end_with_their_session_and_with_the_key_of_the_service() {
    let upstream = echo().await;
    let gateway = Gateway::start(&guarded("", Some(&upstream))).await;
    let (ended, refresh_token) = tokens(&login(&gateway, "ann", "ann-secret").await);
    let (kept, _) = tokens(&login(&gateway, "ann", "ann-secret").await);
    let mut of_ended = connect(&gateway, &format!("/chat?token={ended}")).await.unwrap();
    let mut of_kept = connect(&gateway, &format!("/chat?token={kept}")).await.unwrap();
    for socket in [&mut of_ended, &mut of_kept] {
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(next(socket).await, Message::text("hello"));
    }
    assert_eq!(logout(&gateway, &refresh_token).await.status, 204);
    assert_eq!(next(&mut of_ended).await, closed("the credential is not valid any more"));
    of_kept.send(Message::text("there?")).await.unwrap();
    assert_eq!(next(&mut of_kept).await, Message::text("there?"));
    gateway.counts(&[("tollgate_websockets_closed_total{reason=\"revoked\"}", 1.0)]).await;

    // A reload that leaves the key alone leaves the socket alone.
    let yaml = gateway.folder.read("gateway.yaml");
    gateway.folder.write("gateway.yaml", &yaml.replace("name: me", "name: myself"));
    gateway.reload_well().await;
    of_kept.send(Message::text("still?")).await.unwrap();
    assert_eq!(next(&mut of_kept).await, Message::text("still?"));
    let other: String = secret().chars().rev().collect();
    gateway.folder.write("gateway.yaml", &yaml.replace(&secret(), &other));
    gateway.reload_well().await;
    assert_eq!(next(&mut of_kept).await, closed("the credential is not valid any more"));
    gateway.counts(&[("tollgate_websockets_closed_total{reason=\"unknown_key\"}", 1.0)]).await;
    refused_with(&me(&gateway, &kept).await, "Invalid token");
}
