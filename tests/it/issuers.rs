//! Issuers of tokens: key sets that are fetched beside the requests, or read from a file.

use std::time::Duration;

use crate::harness::{Folder, Gateway, Upstream, answer};

const ROUTE: &str = "routes: [{ name: all, match: \"/{*rest}\", respond: { status: 200 } }]\n";
const KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn root(issuer: &str) -> String {
    format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nadmin: {{ bind: 127.0.0.1:0 }}\nthreads: 2\n\
         access_log: {{ to: none }}\nissuers:\n  corp: {{ {issuer}, algorithms: [EdDSA] }}\n{ROUTE}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_starts_without_its_provider_and_says_so() {
    let nobody = Upstream::dead_address().await;
    let yaml = root(&format!("jwks: \"http://{nobody}/jwks.json?token=hidden\""));
    let gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", &yaml)])).await;
    assert_eq!(gateway.get("/").await.status, 200);
    let issuer = gateway.ask_admin("GET /status").await.json()["issuers"][0].take();
    assert_eq!((&issuer["name"], &issuer["keys"]), (&"corp".into(), &serde_json::Value::Null));
    assert_eq!(issuer["jwks"], format!("http://{nobody}/jwks.json"));
    assert!(issuer["error"].as_str().unwrap().starts_with("cannot connect"), "{issuer}");
    let scrape = gateway.scrape().await;
    assert!(scrape.get("tollgate_jwks_fetches_total{issuer=\"corp\",result=\"failed\"}") >= Some(1.0));
    assert_eq!(scrape.get("tollgate_jwks_keys{issuer=\"corp\"}"), Some(0.0));
    assert!(!gateway.lines().concat().contains("hidden"), "{:#?}", gateway.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_there_with_the_first_request() {
    let provider = Upstream::answering(answer(200, KEYS.as_bytes())).await;
    let yaml = root(&format!("jwks: \"http://{}/jwks.json\"", provider.address));
    let mut gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", &yaml)])).await;
    let status = gateway.ask_admin("GET /status").await.json();
    assert_eq!(status["issuers"][0]["keys"], 1, "{status:#}");
    assert_eq!(provider.only().target, "/jwks.json");
    // A reload keeps them: nothing is fetched, and nothing is forgotten.
    gateway
        .folder
        .write("gateway.yaml", &root(&format!("jwks: \"http://{}/jwks.json\", leeway: 1s", provider.address)));
    gateway.logged("configuration reloaded").await;
    gateway.counts(&[("tollgate_jwks_fetches_total{issuer=\"corp\",result=\"ok\"}", 1.0)]).await;
    gateway.counts(&[("tollgate_jwks_keys{issuer=\"corp\"}", 1.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_in_a_file_is_read_again_when_it_changes() {
    let yaml = root("jwks_file: keys.json");
    let mut gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", &yaml), ("keys.json", KEYS)])).await;
    gateway.folder.write("keys.json", "{\"keys\": []}");
    gateway.logged("reload refused").await;
    let seen = gateway.lines().len();
    gateway.folder.write("keys.json", &KEYS.replace("\"a\"", "\"b\""));
    gateway.logged_after(seen, "configuration reloaded").await;
}

/// A provider that takes its time is waited for, so that the first token of a new issuer finds its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_waits_for_the_keys_of_a_new_issuer_but_not_for_ever() {
    let slow = Upstream::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(300)).await;
            if !conn.send(answer(200, KEYS.as_bytes())).await {
                return;
            }
        }
    })
    .await;
    let provider = Upstream::answering(answer(200, KEYS.as_bytes())).await;
    let silent = Upstream::silent().await;
    let jwks = |upstream: &Upstream| root(&format!("jwks: \"http://{}/jwks.json\"", upstream.address));
    let gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", &jwks(&provider))])).await;
    gateway.folder.write("gateway.yaml", &jwks(&slow));
    gateway.reload_well().await;
    let issuer = gateway.ask_admin("GET /status").await.json()["issuers"][0].take();
    assert_eq!((&issuer["keys"], &issuer["jwks"]), (&1.into(), &format!("http://{}/jwks.json", slow.address).into()));
    gateway.folder.write("gateway.yaml", &jwks(&silent));
    gateway.reload_well().await;
    let issuer = gateway.ask_admin("GET /status").await.json()["issuers"][0].take();
    assert_eq!(issuer["keys"], serde_json::Value::Null);
    assert_eq!(gateway.get("/").await.status, 200);
}
