//! Limits that several gateways keep together, on a real redis-server that dies, hangs and comes back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::{Client, Gateway, RedisServer, Response, within};

const UP: &str = "tollgate_state_up";
const BEGINS: &str = "shared limits cannot be kept";
const ENDS: &str = "shared limits are kept again";
/// What nobody reaches.
const PLENTY: &str = "1000000/hour";

/// A route that counts by the field `X-Run`.
fn route(name: &str, rates: &str, more: &str) -> String {
    format!(
        "  - name: {name}\n    match: GET /{name}\n    filters:\n      \
         - rate_limit: {{ per: {{ header: X-Run }}, bucket: {name}, rates: [{rates}]{more} }}\n    \
         respond: {{ body: {name} }}\n"
    )
}

/// `timeout` is for Redis: long where a busy machine must not look like a store that is away.
async fn gateway(redis: &RedisServer, timeout: &str, routes: &[String]) -> Gateway {
    let (state, routes) = (redis.state(timeout), routes.concat());
    Gateway::start(&format!("admin: {{ bind: 127.0.0.1:0 }}\n{state}routes:\n{routes}")).await
}

/// One route for each policy, with a limit of `rates`.
fn policies(rates: &str) -> [String; 3] {
    ["local", "allow", "deny"].map(|policy| route(policy, rates, &format!(", on_store_error: {policy}")))
}

async fn ask(client: &mut Client, path: &str, run: &str) -> Response {
    client.ask(&format!("GET /{path} HTTP/1.1\r\nHost: a.test\r\nX-Run: {run}\r\n\r\n")).await
}

/// What became of so many requests, one after the other.
async fn statuses(gateway: &Gateway, path: &str, run: &str, count: usize) -> Vec<u16> {
    let mut client = gateway.client().await;
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(ask(&mut client, path, run).await.status);
    }
    seen
}

/// Clients ask every gateway until all are refused again and again: how many requests passed, and how long it took.
async fn admitted(gateways: &[Gateway], path: &'static str, run: &str) -> (u64, Duration) {
    const CLIENTS: usize = 4;
    const REFUSALS: u32 = 20;
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for address in gateways.iter().map(|gateway| gateway.address) {
        for _ in 0..CLIENTS {
            let run = run.to_owned();
            clients.spawn(async move {
                let mut client = Client::connect(address).await;
                let (mut passed, mut refused) = (0_u64, 0);
                while refused < REFUSALS {
                    match ask(&mut client, path, &run).await.status {
                        200 => (passed, refused) = (passed + 1, 0),
                        429 => refused += 1,
                        other => panic!("{other} while the store is well"),
                    }
                }
                passed
            });
        }
    }
    let mut total = clients.join_all().await.iter().sum();
    // What one of them took ahead when its last client had left.
    for gateway in gateways {
        total += statuses(gateway, path, run, 20).await.iter().filter(|status| **status == 200).count() as u64;
    }
    (total, began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_gateways_keep_one_limit() {
    const LIMIT: u64 = 300;
    let redis = RedisServer::start().await;
    // Next to nothing flows back while the test runs.
    let rates = format!("{LIMIT}/hour");
    let routes = [
        route("exact", &rates, ", on_store_error: deny"),
        route("leased", &rates, ", on_store_error: deny, lease: { size: 10, for: 1s }"),
    ];
    let gateways = [
        gateway(&redis, "5s", &routes).await,
        gateway(&redis, "5s", &routes).await,
        gateway(&redis, "5s", &routes).await,
    ];
    for run in 0..5 {
        for (path, lifetime) in [("exact", 0.0), ("leased", 1.0)] {
            let (passed, took) = admitted(&gateways, path, &format!("run-{run}")).await;
            let flown_back = (took.as_secs_f64() + lifetime) * LIMIT as f64 / 3600.0;
            let most = (LIMIT as f64 + flown_back).ceil() as u64;
            assert!((LIMIT - 1..=most).contains(&passed), "{path}, run {run}: {passed} of {LIMIT} passed in {took:?}");
        }
    }
    for gateway in &gateways {
        gateway.counts(&[(UP, 1.0), ("tollgate_state_errors_total", 0.0)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_let_more_pass_in_no_second_than_is_promised() {
    const LIMIT: u64 = 200;
    const LEASE: u64 = 20;
    let redis = RedisServer::start().await;
    let routes = [route("leased", "200/s", ", on_store_error: deny, lease: { size: 20, for: 500ms }")];
    let gateways = [
        gateway(&redis, "5s", &routes).await,
        gateway(&redis, "5s", &routes).await,
        gateway(&redis, "5s", &routes).await,
    ];
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for address in gateways.iter().flat_map(|gateway| [gateway.address; 3]) {
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            let mut passed = Vec::new();
            // Crowds with pauses: what is held meets a bucket that is full again.
            while began.elapsed() < Duration::from_secs(6) {
                let sent = began.elapsed();
                match ask(&mut client, "leased", "all").await.status {
                    200 => passed.push((sent, began.elapsed())),
                    429 => tokio::time::sleep(Duration::from_millis(100)).await,
                    other => panic!("{other} while the store is well"),
                }
            }
            passed
        });
    }
    let passed: Vec<_> = clients.join_all().await.concat();
    assert!(passed.len() as u64 > 5 * LIMIT, "{} passed", passed.len());
    // The promise: 3 leases, or what flows back while one lasts.
    let excess = (3 * LEASE).min(LIMIT / 2);
    for (from, _) in &passed {
        for window in [100, 500, 1000, 3000].map(Duration::from_millis) {
            // Only those that were decided within it for sure.
            let count = passed.iter().filter(|(sent, done)| sent >= from && *done <= *from + window).count() as f64;
            let most = LIMIT as f64 * (1.0 + window.as_secs_f64()) + excess as f64;
            assert!(count <= most, "{count} passed within {window:?}, more than {most}");
        }
    }
}

/// Clients that ask until they are told to stop, and what they saw.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<(BTreeMap<u16, u64>, Duration)>,
    asked: watch::Sender<u64>,
}

impl Load {
    pub fn on(address: SocketAddr, paths: &[&'static str], each: usize) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), watch::Sender::new(0));
        let mut clients = JoinSet::new();
        for path in paths.iter().flat_map(|path| std::iter::repeat_n(*path, each)) {
            let (stop, asked) = (Arc::clone(&stop), asked.clone());
            clients.spawn(async move {
                let mut client = Client::connect(address).await;
                let (mut seen, mut slowest) = (BTreeMap::new(), Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    *seen.entry(ask(&mut client, path, "load").await.status).or_default() += 1;
                    slowest = slowest.max(began.elapsed());
                    asked.send_modify(|asked| *asked += 1);
                }
                (seen, slowest)
            });
        }
        Self { stop, clients, asked }
    }

    /// Waits until so many more requests have been answered.
    pub async fn goes_on(&self, more: u64) {
        let mut asked = self.asked.subscribe();
        let until = *asked.borrow() + more;
        within("requests under load", asked.wait_for(|asked| *asked >= until)).await.unwrap();
    }

    /// How often each status was seen, and how long the slowest request took.
    pub async fn end(self) -> (BTreeMap<u16, u64>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = (BTreeMap::new(), Duration::ZERO);
        for (seen, slowest) in self.clients.join_all().await {
            seen.into_iter().for_each(|(status, count)| *all.0.entry(status).or_default() += count);
            all.1 = all.1.max(slowest);
        }
        all
    }
}

fn count(gateway: &Gateway, text: &str) -> usize {
    gateway.lines().iter().filter(|line| line.contains(text)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_killed_and_started_again_fails_no_request() {
    let mut redis = RedisServer::start().await;
    let few = policies("5/hour");
    let many = [
        route("many.local", PLENTY, ""),
        route("many.allow", PLENTY, ", on_store_error: allow"),
        route("many.leased", PLENTY, ", lease: 20"),
    ];
    let mut gateway = gateway(&redis, "2s", &[few, many].concat()).await;
    for path in ["local", "allow", "deny"] {
        assert_eq!(statuses(&gateway, path, "a", 7).await, [200, 200, 200, 200, 200, 429, 429], "{path}");
    }
    let load = Load::on(gateway.address, &["many.local", "many.allow", "many.leased"], 3);
    load.goes_on(300).await;
    for round in 1..=2 {
        redis.kill();
        gateway.counts(&[(UP, 0.0)]).await;
        let run = format!("round-{round}");
        assert_eq!(
            statuses(&gateway, "local", &run, 6).await,
            [200, 200, 200, 200, 200, 429],
            "alone it keeps the limit"
        );
        assert_eq!(statuses(&gateway, "allow", "a", 7).await, [200; 7]);
        let denied = ask(&mut gateway.client().await, "deny", "a").await;
        denied.refused(503, "STATE_UNAVAILABLE");
        assert_eq!(denied.head.get("retry-after"), Some("1"));
        assert_eq!(denied.head.get("ratelimit"), None, "nobody knows what is left");
        load.goes_on(300).await;
        redis.run().await;
        gateway.counts(&[(UP, 1.0)]).await;
        assert_eq!(statuses(&gateway, "deny", "a", 6).await, [200, 200, 200, 200, 200, 429], "the store was empty");
        load.goes_on(300).await;
        gateway.logged(ENDS).await;
        assert_eq!((count(&gateway, BEGINS), count(&gateway, ENDS)), (round, round), "{:#?}", gateway.lines());
    }
    let (seen, _) = load.end().await;
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [200], "{seen:?}");
    let scrape = gateway.scrape().await;
    let without = |policy| scrape.get(&format!("tollgate_limits_without_store_total{{policy=\"{policy}\"}}"));
    assert_eq!(without("deny"), Some(2.0));
    assert!(without("local") >= Some(12.0) && without("allow") >= Some(14.0), "{scrape:?}");
    assert!(scrape.get("tollgate_state_errors_total") >= Some(2.0), "{scrape:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_is_not_waited_for() {
    let redis = RedisServer::start().await;
    let gateway = gateway(&redis, "50ms", &[route("all", PLENTY, ", on_store_error: allow")]).await;
    let load = Load::on(gateway.address, &["all"], 8);
    load.goes_on(100).await;
    redis.signal("STOP");
    gateway.counts(&[(UP, 0.0)]).await;
    load.goes_on(6000).await;
    // Each one that waited would have ended as an error; besides the first ones only those are that look whether it is back.
    let waited = gateway.scrape().await.get("tollgate_state_errors_total").unwrap_or_default();
    assert!(waited < 3000.0, "{waited} of 6000 waited");
    redis.signal("CONT");
    gateway.counts(&[(UP, 1.0)]).await;
    let (seen, slowest) = load.end().await;
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [200], "{seen:?}");
    println!("{waited} waited; the slowest request took {slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_without_its_store() {
    let mut redis = RedisServer::stopped();
    let mut gateway = gateway(&redis, "2s", &policies("2/hour")).await;
    gateway.counts(&[(UP, 0.0)]).await;
    assert_eq!(statuses(&gateway, "local", "a", 3).await, [200, 200, 429]);
    assert_eq!(statuses(&gateway, "allow", "a", 3).await, [200; 3]);
    assert_eq!(statuses(&gateway, "deny", "a", 1).await, [503]);
    redis.run().await;
    gateway.counts(&[(UP, 1.0)]).await;
    for path in ["local", "allow", "deny"] {
        assert_eq!(statuses(&gateway, path, "a", 3).await, [200, 200, 429], "{path}");
    }
    gateway.logged(ENDS).await;
    assert_eq!((count(&gateway, BEGINS), count(&gateway, ENDS)), (1, 1));
}
