//! Quotas that gateways share: on a real redis-server, which dies and comes back.

use tokio::task::JoinSet;

use crate::harness::{Client, Gateway, RedisServer, Response, within};
use crate::shared_limits::Load;

const UP: &str = "tollgate_state_up";
const BEGINS: &str = "quotas cannot be counted";
const ENDS: &str = "quotas are counted in the state store again";

/// A route that counts by the field `X-Run`.
fn route(name: &str, limit: u64, policy: &str) -> String {
    format!(
        "  - name: {name}\n    match: GET /{name}\n    filters:\n      \
         - quota: {{ per: {{ header: X-Run }}, bucket: {name}, limit: {limit}, period: month, on_store_error: {policy} }}\n    \
         respond: {{ body: {name} }}\n"
    )
}

async fn gateway(redis: &RedisServer, routes: &[String]) -> Gateway {
    let (state, routes) = (redis.state("5s"), routes.concat());
    Gateway::start(&format!("admin: {{ bind: 127.0.0.1:0 }}\n{state}routes:\n{routes}")).await
}

async fn ask(client: &mut Client, path: &str) -> Response {
    client.ask(&format!("GET /{path} HTTP/1.1\r\nHost: a.test\r\nX-Run: one\r\n\r\n")).await
}

async fn statuses(gateway: &Gateway, path: &str, count: usize) -> Vec<u16> {
    let mut client = gateway.client().await;
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(ask(&mut client, path).await.status);
    }
    seen
}

/// Asks until it is refused again and again: how many requests passed.
async fn exhausted(mut client: Client, path: &str) -> u64 {
    const REFUSALS: u32 = 20;
    let (mut passed, mut refused) = (0, 0);
    while refused < REFUSALS {
        match ask(&mut client, path).await.status {
            200 => passed += 1,
            429 => refused += 1,
            other => panic!("{other} while the store is well"),
        }
    }
    passed
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_admit_no_more_than_the_limit() {
    const LIMIT: u64 = 600;
    let redis = RedisServer::start().await;
    let routes = [route("all", LIMIT, "deny")];
    let gateways = [gateway(&redis, &routes).await, gateway(&redis, &routes).await];
    let mut clients = JoinSet::new();
    for gateway in gateways.iter().cycle().take(8) {
        let client = gateway.client().await;
        clients.spawn(exhausted(client, "all"));
    }
    let passed: u64 = clients.join_all().await.iter().sum();
    // At the end one of them may have taken a block ahead that no client came for any more.
    assert!((LIMIT - LIMIT / 100..=LIMIT).contains(&passed), "{passed} of {LIMIT} passed");
    for gateway in &gateways {
        gateway.counts(&[(UP, 1.0), ("tollgate_state_errors_total", 0.0)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_loses_its_block_and_one_that_is_stopped_loses_nothing() {
    const LIMIT: u64 = 1000;
    const BLOCK: u64 = 10;
    let redis = RedisServer::start().await;
    for (path, signal, lost_max) in [("stopped", "TERM", 0), ("killed", "KILL", BLOCK)] {
        let routes = [route(path, LIMIT, "deny")];
        let (mut first, second) = (gateway(&redis, &routes).await, gateway(&redis, &routes).await);
        // Not a whole number of blocks: something is held when it ends.
        assert_eq!(statuses(&first, path, 123).await, [200; 123]);
        assert_eq!(statuses(&second, path, 104).await, [200; 104]);
        first.signal(signal);
        first.ended().await;
        let passed = 123 + 104 + exhausted(second.client().await, path).await;
        assert!((LIMIT - lost_max..=LIMIT).contains(&passed), "{path}: {passed} of {LIMIT} passed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_killed_and_started_again_fails_no_request_but_those_it_should() {
    const PLENTY: u64 = 1_000_000_000;
    let mut redis = RedisServer::start().await;
    let few = ["local", "allow", "deny"].map(|policy| route(policy, 5, policy));
    let many = [route("many.local", PLENTY, "local"), route("many.allow", PLENTY, "allow")];
    let mut gateway = gateway(&redis, &[few.to_vec(), many.to_vec()].concat()).await;
    for path in ["local", "allow", "deny"] {
        assert_eq!(statuses(&gateway, path, 2).await, [200; 2], "{path}");
    }
    let load = Load::on(gateway.address, &["many.local", "many.allow"], 3);
    load.goes_on(300).await;
    redis.kill();
    gateway.counts(&[(UP, 0.0)]).await;
    assert_eq!(statuses(&gateway, "local", 5).await, [200, 200, 200, 429, 429], "by what it knows");
    assert_eq!(statuses(&gateway, "allow", 7).await, [200; 7]);
    let denied = ask(&mut gateway.client().await, "deny").await;
    denied.refused(503, "STATE_UNAVAILABLE");
    assert_eq!(denied.head.get("retry-after"), Some("1"));
    load.goes_on(3000).await;
    redis.run().await;
    let mut client = gateway.client().await;
    let recovered = async { while ask(&mut client, "deny").await.status != 200 {} };
    within("a quota that is counted again", recovered).await;
    // The server lost what it knew of; the three that passed meanwhile are counted, and this one.
    let counted = async {
        loop {
            let response = ask(&mut client, "local").await;
            if response.status == 200 {
                return response;
            }
            response.refused(429, "QUOTA_EXCEEDED");
        }
    };
    let counted = within("what was admitted without the store to be counted in it", counted).await;
    assert_eq!(counted.head.get("x-ratelimit-remaining"), Some("1"));
    load.goes_on(300).await;
    let (seen, _) = load.end().await;
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [200], "{seen:?}");
    let scrape = gateway.scrape().await;
    let without = |policy| scrape.get(&format!("tollgate_limits_without_store_total{{policy=\"{policy}\"}}"));
    assert!(
        without("deny") >= Some(1.0) && without("local") >= Some(5.0) && without("allow") >= Some(7.0),
        "{scrape:?}"
    );
    assert!(scrape.get("tollgate_state_errors_total") >= Some(1.0), "{scrape:?}");
    gateway.logged(ENDS).await;
    gateway.counts(&[(UP, 1.0)]).await;
    let count = |text: &str| gateway.lines().iter().filter(|line| line.contains(text)).count();
    assert_eq!((count(BEGINS), count(ENDS)), (1, 1), "{:#?}", gateway.lines());
}
