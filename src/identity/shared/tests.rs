//! Several gateways on one store.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::caller::{CallerFields, Level, Scopes};
use crate::identity::managed::Record;
use crate::state::Redis;
use crate::state::redis::Settings;
use crate::state::tests::server::{self, PATIENCE, Server};

/// How soon all gateways obey what one of them was told.
const OBEYED_WITHIN: Duration = Duration::from_secs(2);

async fn gateway(settings: &Settings) -> Arc<Shared> {
    let shared = Arc::new(Shared::default());
    shared.attach(Arc::new(server::up(Redis::open(settings).unwrap())));
    shared.load().await.unwrap();
    shared.read_keys().await;
    tokio::spawn(Arc::clone(&shared).keep());
    shared
}

fn record(id: &str, scope: &str) -> Record {
    serde_json::from_value(json!({
        "id": id, "name": id, "prefix": "tg_x", "sha256": "ab".repeat(32), "scopes": [scope], "created_at": 1,
        "created_by": "test", "updated_at": 1, "expires_at": 32_503_680_000_u64,
    }))
    .unwrap()
}

/// A caller with a token, which is `token` of the login `session`.
fn caller(token: &str) -> Caller {
    Caller {
        name: Arc::from("ann"),
        credential: Credential::Token { issuer: Arc::from("main"), id: Some(Box::from(token)), key: 0 },
        level: Level::User,
        roles: Box::default(),
        scopes: Scopes::default(),
        claims: serde_json::Map::new(),
        expires: None,
        fields: CallerFields::new("ann", &[], &Scopes::default()).unwrap(),
        rates: None,
    }
}

/// Waits until it is so, and says how long that took.
async fn soon(is: impl Fn() -> bool) -> Duration {
    let began = clock::now();
    let so = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, so).await.expect("it is never so");
    clock::now().duration_since(began)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_is_told_the_others_obey() {
    let settings = server::shared().settings();
    let (one, other) = (gateway(&settings).await, gateway(&settings).await);
    let store = one.store().unwrap();
    let mut told = other.revoked();
    let scope = |id: &str| other.managed().get(id).map(|key| key.record.scopes.clone());
    for round in 0..2 {
        let (key, token) = (format!("key{round}"), format!("token{round}"));
        one.managed().create(&**store, record(&key, "read:a"), 10).await.unwrap();
        assert!(soon(|| scope(&key).is_some()).await < OBEYED_WITHIN, "made");
        let change = |_: &Record| Ok::<_, ()>(record(&key, "read:b"));
        one.managed().change(&**store, &key, change).await.unwrap().unwrap();
        assert!(soon(|| scope(&key) == Some(vec!["read:b".to_owned()])).await < OBEYED_WITHIN, "changed");
        one.managed().revoke(&**store, &key, |_| Ok::<_, ()>(())).await.unwrap().unwrap();
        assert!(soon(|| scope(&key).is_none()).await < OBEYED_WITHIN, "revoked");
        assert!(told.has_changed().unwrap(), "open connections ask again");
        told.mark_unchanged();
        let now = clock::wall();
        one.revoke(&token, now + Duration::from_secs(60), now).await.unwrap();
        assert!(soon(|| other.check_revoked(&caller(&token)).is_err()).await < OBEYED_WITHIN, "taken back");
        soon(|| told.has_changed().unwrap()).await;
        told.mark_unchanged();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_accepted_before_it_is_known_what_was_taken_back() {
    let mut server = Server::own();
    let settings = server.settings();
    server.kill();
    let shared = Arc::new(Shared::default());
    shared.attach(Arc::new(Redis::open(&settings).unwrap()));
    assert_eq!(shared.check_revoked(&caller("a")), Ok(()), "nothing is served before it was tried");
    assert!(shared.load().await.is_err());
    assert_eq!(shared.check_revoked(&caller("a")), Err(Reason::KeysUnavailable));
    let mut key = caller("a");
    key.credential = Credential::Key { id: Arc::from("a"), managed: false, version: 0 };
    assert_eq!(shared.check_revoked(&key), Ok(()), "a key of the configuration was never taken back");
    tokio::spawn(Arc::clone(&shared).keep());
    server.run();
    soon(|| shared.check_revoked(&caller("a")).is_ok()).await;
    soon(|| shared.managed().is_loaded()).await;
    // Away again: what is known stays known, and tokens are accepted.
    let now = clock::wall();
    shared.revoke("b", now + Duration::from_secs(60), now).await.unwrap();
    server.kill();
    assert_eq!(shared.check_revoked(&caller("b")), Err(Reason::Revoked));
    assert_eq!(shared.check_revoked(&caller("a")), Ok(()));
}
