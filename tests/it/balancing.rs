//! Which of several services gets a request.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::harness::{Client, Conn, Folder, Gateway, Upstream, answer, within};

const ROOT: &str = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nadmin: { bind: 127.0.0.1:0 }\nthreads: 2\n\
                    access_log: { to: none }\ntrusted_proxies: [127.0.0.1]\ninclude: [routes.d/*.yaml]\n";
const WAYS: [&str; 4] = ["round_robin", "least_connections", "random", "{ hash: path }"];

/// Everything goes to these targets, each `127.0.0.1:9101` or with settings: `127.0.0.1:9101, backup: true`.
fn fragment(targets: &[String], keys: &str) -> String {
    let targets: Vec<String> = targets.iter().map(|target| format!("{{ address: {target} }}")).collect();
    format!(
        "upstreams:\n  main: {{ targets: [{}], {keys} }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n",
        targets.join(", ")
    )
}

async fn gateway(targets: &[String], keys: &str) -> Gateway {
    let fragment = fragment(targets, keys);
    Gateway::start_in(Folder::with(&[("gateway.yaml", ROOT), ("routes.d/main.yaml", &fragment)])).await
}

/// Services that answer `/hold` when they are told to, and everything else at once with their number.
struct Services {
    all: Vec<Upstream>,
    go: Arc<Semaphore>,
}

impl Services {
    async fn start(count: usize) -> Self {
        let go = Arc::new(Semaphore::new(0));
        let mut all = Vec::new();
        for number in 0..count {
            let go = Arc::clone(&go);
            let script = move |mut conn: Conn| {
                let go = Arc::clone(&go);
                async move {
                    while let Some(request) = conn.request().await {
                        if request.target.starts_with("/upgrade") {
                            let head =
                                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                            conn.send(head).await;
                            return conn.closed().await;
                        }
                        if request.target.starts_with("/hold") {
                            tokio::select! {
                                permit = go.acquire() => permit.unwrap().forget(),
                                () = conn.closed() => return,
                            }
                        }
                        conn.send(answer(200, number.to_string().as_bytes())).await;
                    }
                }
            };
            all.push(Upstream::scripted(script).await);
        }
        Self { all, go }
    }

    fn addresses(&self) -> Vec<String> {
        self.all.iter().map(|upstream| upstream.address.to_string()).collect()
    }

    fn counts(&self) -> Vec<usize> {
        self.all.iter().map(|upstream| upstream.requests().len()).collect()
    }

    /// Sends a request that stays, and waits until a service has it.
    async fn hold(&self, gateway: &Gateway) -> Client {
        let before = self.counts().iter().sum::<usize>();
        let arrived = async {
            while self.counts().iter().sum::<usize>() == before {
                tokio::task::yield_now().await;
            }
        };
        let mut client = gateway.client().await;
        client.send("GET /hold HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        tokio::select! {
            () = within("a held request", arrived) => client,
            response = client.response() => panic!("{response:?}"),
        }
    }
}

/// Asks until the answer is 200: what was in flight is over as soon as the gateway knows.
async fn until_served(gateway: &Gateway) {
    within("room at a target", async { while gateway.get("/x").await.status != 200 {} }).await;
}

async fn ask(client: &mut Client, path: &str, fields: &str) -> String {
    let response = client.ask(&format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).await;
    assert_eq!(response.status, 200);
    response.text().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_uses_every_service() {
    for way in WAYS {
        let services = Services::start(3).await;
        let gateway = gateway(&services.addresses(), &format!("balance: {way}")).await;
        let mut client = gateway.client().await;
        for number in 0..300 {
            ask(&mut client, &format!("/{number}"), "").await;
        }
        let counts = services.counts();
        assert_eq!(counts.iter().sum::<usize>(), 300, "{way}");
        // One after the other: nothing is in flight, so that those who look at it take turns. Of two that are drawn the
        // faster one gets the request, and which that is only they know.
        let (least, most) = match way {
            "round_robin" | "least_connections" => (100, 100),
            "random" => (1, 298),
            _ => (60, 140),
        };
        assert!(counts.iter().all(|count| (least..=most).contains(count)), "{way}: {counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_spread() {
    for way in ["least_connections", "random", "{ hash: path }"] {
        let services = Services::start(3).await;
        let gateway = gateway(&services.addresses(), &format!("balance: {way}")).await;
        let mut held = Vec::new();
        for _ in 0..30 {
            held.push(services.hold(&gateway).await);
        }
        let counts = services.counts();
        // All have one key: two targets take as much as they may, the third one what is left.
        let (least, most) = match way {
            "least_connections" => (10, 10),
            "random" => (6, 14),
            _ => (4, 13),
        };
        assert!(counts.iter().all(|count| (least..=most).contains(count)), "{way}: {counts:?}");
        services.go.add_permits(30);
        for client in &mut held {
            assert_eq!(client.response().await.status, 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_reaches_the_same_service() {
    for (by, field) in [
        ("{ header: X-Tenant }", "X-Tenant: tenant-"),
        ("{ cookie: sid }", "Cookie: a=b; sid=session-"),
        ("ip", "X-Forwarded-For: 192.0.2."),
    ] {
        let services = Services::start(3).await;
        let gateway = gateway(&services.addresses(), &format!("balance: {{ hash: {by} }}")).await;
        let mut first = Vec::new();
        for round in 0..3 {
            let mut client = gateway.client().await;
            // So many that none of the services goes without a key, wherever its port puts it.
            for key in 0..80 {
                let service = ask(&mut client, &format!("/{round}"), &format!("{field}{key}\r\n")).await;
                if round == 0 {
                    first.push(service);
                } else {
                    assert_eq!(service, first[key as usize], "{by} {key}");
                }
            }
        }
        assert!(services.counts().iter().all(|count| *count > 0), "{by}: {:?}", services.counts());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sticky_cookie_leads_back_and_is_renewed_when_its_target_is_gone() {
    let services = Services::start(3).await;
    let keys = "sticky: { cookie: lb, max_age: 1h, secret: sixteen-characters }";
    let gateway = gateway(&services.addresses(), keys).await;
    let response = gateway.get("/x").await;
    let cookie = response.head.get("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600"), "{cookie}");
    let pair = cookie.split(';').next().unwrap().to_owned();
    let service = response.text().to_owned();
    let own = services.all[service.parse::<usize>().unwrap()].address;
    assert!(!cookie.contains(&own.port().to_string()) && !cookie.contains("127"), "{cookie}");
    // The proxy in front says that the client came by HTTPS.
    let https = gateway.ask("GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n").await;
    assert!(https.head.get("set-cookie").unwrap().ends_with("; Secure"));
    let with_cookie = format!("GET /x HTTP/1.1\r\nHost: a.test\r\nCookie: {pair}\r\n\r\n");
    for _ in 0..10 {
        let response = gateway.ask(&with_cookie).await;
        assert_eq!((response.text(), response.head.get("set-cookie")), (&*service, None));
    }
    let others: Vec<String> = services.addresses().into_iter().filter(|address| *address != own.to_string()).collect();
    gateway.folder.write("routes.d/main.yaml", &fragment(&others, keys));
    gateway.reload_well().await;
    let moved = gateway.ask(&with_cookie).await;
    let renewed = moved.head.get("set-cookie").expect("a new cookie").to_owned();
    assert!(moved.text() != service && !renewed.starts_with(&pair));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_target_is_away_is_led_to_another() {
    let services = Services::start(1).await;
    let dead = Upstream::dead_address().await.to_string();
    let targets = [dead, services.addresses()[0].clone()];
    let gateway = gateway(&targets, "sticky: { cookie: lb }").await;
    for _ in 0..4 {
        let response = gateway.get("/x").await;
        assert_eq!(response.status, 200);
        // The cookie is that of the target that answered, not of the one that was tried first.
        let pair = response.head.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let again = gateway.ask(&format!("GET /x HTTP/1.1\r\nHost: a\r\nCookie: {pair}\r\n\r\n")).await;
        assert_eq!((again.status, again.head.get("set-cookie")), (200, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_refused_until_something_ends() {
    for way in WAYS {
        let services = Services::start(2).await;
        let gateway = gateway(&services.addresses(), &format!("balance: {way}, target_in_flight_max: 1")).await;
        let mut first = services.hold(&gateway).await;
        let second = services.hold(&gateway).await;
        assert_eq!(services.counts(), [1, 1], "{way}");
        let refused = gateway.get("/x").await;
        refused.refused(503, "OVERLOADED");
        assert_eq!(refused.head.get("retry-after"), Some("1"));
        gateway.h2().await.get("/x").await.refused(503, "OVERLOADED");
        // An answer, and a client that leaves without one.
        services.go.add_permits(1);
        assert_eq!(first.response().await.status, 200);
        until_served(&gateway).await;
        let third = services.hold(&gateway).await;
        gateway.get("/x").await.refused(503, "OVERLOADED");
        drop((second, third));
        until_served(&gateway).await;
        let _fourth = services.hold(&gateway).await;
        let _fifth = services.hold(&gateway).await;
        gateway.get("/x").await.refused(503, "OVERLOADED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_in_flight_to_its_end() {
    let services = Services::start(1).await;
    let gateway = gateway(&services.addresses(), "balance: least_connections, target_in_flight_max: 1").await;
    let mut client = gateway.client().await;
    client
        .send(
            "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        .await;
    assert_eq!(client.response_head().await.unwrap().0, 101);
    gateway.get("/x").await.refused(503, "OVERLOADED");
    drop(client);
    until_served(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_is_in_flight() {
    let services = Services::start(2).await;
    let gateway = gateway(&services.addresses(), "balance: least_connections").await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(services.hold(&gateway).await);
    }
    assert_eq!(services.counts(), [2, 2]);
    let changed = "balance: random, target_in_flight_max: 2, timeouts: { idle: 30s }";
    gateway.folder.write("routes.d/main.yaml", &fragment(&services.addresses(), changed));
    gateway.reload_well().await;
    gateway.get("/x").await.refused(503, "OVERLOADED");
    // Those of the old snapshot end, and make room in the new one.
    services.go.add_permits(4);
    for client in &mut held {
        assert_eq!(client.response().await.status, 200);
    }
    until_served(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_target_is_tried_twice_while_others_are_left() {
    let services = Services::start(1).await;
    let mut targets = services.addresses();
    for _ in 0..3 {
        targets.push(Upstream::dead_address().await.to_string());
    }
    for way in WAYS {
        // Four tries reach the only living one of four for certain, and only if no try is wasted.
        let keys = format!("balance: {way}, retry: {{ attempts: 4 }}");
        let gateway = gateway(&targets, &keys).await;
        for number in 0..20 {
            assert_eq!(gateway.get(&format!("/{number}")).await.status, 200, "{way} {number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_gets_requests_only_when_no_other_target_can() {
    let services = Services::start(2).await;
    let addresses = services.addresses();
    let backup = format!("{}, backup: true", addresses[1]);
    for way in WAYS {
        let before = services.counts()[1];
        let both = gateway(&[addresses[0].clone(), backup.clone()], &format!("balance: {way}")).await;
        for number in 0..10 {
            assert_eq!(both.get(&format!("/{number}")).await.text(), "0", "{way}");
        }
        assert_eq!(services.counts()[1], before, "{way}");
        let dead: SocketAddr = Upstream::dead_address().await;
        let one = gateway(&[dead.to_string(), backup.clone()], &format!("balance: {way}")).await;
        for number in 0..10 {
            assert_eq!(one.get(&format!("/{number}")).await.text(), "1", "{way}");
        }
    }
}
