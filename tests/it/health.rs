//! Health from outside: who is not well gets no requests, and gets them again when it is.

mod grpc;
mod outliers;
mod secured;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::harness::{Folder, Gateway, Upstream, answer, within};

/// A service that answers `/health` as it is told, and everything else with 200.
struct Service {
    upstream: Upstream,
    health: watch::Sender<(u16, &'static str)>,
}

impl Service {
    async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn start_at(address: SocketAddr) -> Self {
        let (health, told) = watch::channel((200, "ok"));
        let upstream = Upstream::scripted_at(address, move |mut conn| {
            let told = told.clone();
            async move {
                while let Some(request) = conn.request().await {
                    let (status, body) = if request.target.starts_with("/health") { *told.borrow() } else { (200, "") };
                    conn.send(answer(status, body.as_bytes())).await;
                }
            }
        })
        .await;
        Self { upstream, health }
    }

    fn becomes(&self, status: u16) {
        self.health.send_replace((status, ""));
    }

    fn checks(&self) -> usize {
        self.upstream.requests().iter().filter(|request| request.target.starts_with("/health")).count()
    }

    /// Requests of clients that reached it.
    fn served(&self) -> usize {
        self.upstream.requests().len() - self.checks()
    }

    /// Waits until so many more checks were answered: a further one has begun.
    async fn checked(&self, more: usize) {
        let wanted = self.checks() + more + 1;
        within("checks", async {
            while self.checks() < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

fn config(targets: &[SocketAddr], health: &str) -> String {
    let targets: Vec<String> = targets.iter().map(|address| format!("{{ address: \"{address}\" }}")).collect();
    format!(
        "admin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n  main:\n    targets: [{}]\n    health: {health}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n",
        targets.join(", ")
    )
}

/// The upstream on `/status`.
async fn shown(gateway: &Gateway) -> Value {
    gateway.ask_admin("GET /status").await.json()["upstreams"][0].take()
}

/// Waits until exactly these targets are healthy.
async fn healthy(gateway: &Gateway, wanted: &[bool]) -> Value {
    within("health", async {
        loop {
            let shown = shown(gateway).await;
            let targets = shown["targets"].as_array().expect("targets");
            if targets.iter().map(|target| target["health"]["healthy"].as_bool()).eq(wanted.iter().copied().map(Some)) {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Lines of the log about the health of targets.
fn told(gateway: &Gateway) -> Vec<String> {
    let about = ["is unhealthy", "is healthy", "are healthy", "is ejected", "ejected target"];
    gateway.lines().into_iter().filter(|line| about.iter().any(|text| line.contains(text))).collect()
}

fn change(gateway: &Gateway, from: &str, to: &str) {
    let text = gateway.folder.read("gateway.yaml");
    assert!(text.contains(from), "{text}");
    gateway.folder.write("gateway.yaml", &text.replace(from, to));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_target_gets_no_requests_until_it_is_well() {
    let (fine, ill) = (Service::start().await, Service::start().await);
    let targets = [fine.upstream.address, ill.upstream.address];
    let health = "{ path: /health, interval: 100ms, unhealthy_after: 2, healthy_after: 2 }";
    let mut gateway = Gateway::start(&config(&targets, health)).await;
    fine.upstream.received(1).await;
    ill.checked(1).await;
    let mut client = gateway.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    assert_eq!((fine.served(), ill.served()), (5, 5));
    ill.becomes(503);
    let shown = healthy(&gateway, &[true, false]).await;
    assert_eq!(shown["health"], "heeded");
    assert_eq!(shown["targets"][1]["health"]["check"]["error"], "status 503, not 200-399");
    for _ in 0..10 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    assert_eq!((fine.served(), ill.served()), (15, 5));
    let series = |address, name: &str| format!("tollgate_{name}{{target=\"{address}\",upstream=\"main\"}}");
    gateway
        .counts(&[
            (&series(targets[0], "target_healthy"), 1.0),
            (&series(targets[1], "target_healthy"), 0.0),
            ("tollgate_upstream_health_ignored{upstream=\"main\"}", 0.0),
        ])
        .await;
    let scrape = gateway.scrape().await;
    let failed =
        format!("tollgate_health_checks_total{{result=\"failed\",target=\"{}\",upstream=\"main\"}}", targets[1]);
    assert!(scrape.get(&failed) >= Some(2.0));
    ill.becomes(204);
    healthy(&gateway, &[true, true]).await;
    for _ in 0..10 {
        client.get("/x").await;
    }
    assert_eq!(ill.served(), 10);
    let line = gateway.logged("is unhealthy").await;
    assert!(line.contains("GET /health") && line.contains("status 503"), "{line}");
    gateway.logged("is healthy again").await;
    assert_eq!(told(&gateway).len(), 2, "each change once: {:#?}", told(&gateway));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_it_is_and_asks_what_it_is_told() {
    let service = Service::start().await;
    let health = "{ path: \"/health?deep=1\", method: POST, host: tasks.test, headers: { X-Probe: \"a b\" } }";
    let gateway = Gateway::start(&config(&[service.upstream.address], health)).await;
    let request = service.upstream.received(1).await.remove(0);
    assert_eq!((&*request.method, &*request.target), ("POST", "/health?deep=1"));
    assert_eq!(request.head.get("host"), Some("tasks.test"));
    assert_eq!(request.head.get("x-probe"), Some("a b"));
    assert_eq!(request.head.get("user-agent"), Some("tollgate-health"));
    gateway.stop().await;
}

/// Whether a target is healthy for this check, after it was asked once.
async fn verdict(address: SocketAddr, health: &str) -> (bool, Value) {
    let gateway = Gateway::start(&config(&[address], health)).await;
    within("a check", async {
        loop {
            let mut check = shown(&gateway).await["targets"][0]["health"]["check"].take();
            if check["last"].is_string() {
                return (check["healthy"].as_bool().unwrap(), check["error"].take());
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_body_have_to_be_as_expected() {
    let service = Service::start().await;
    let address = service.upstream.address;
    for (status, body, settings, fine) in [
        (199 + 1, "", "", true),
        (399, "", "", true),
        (400, "", "", false),
        (204, "", "status: [200]", false),
        (204, "", "status: [200, 204]", true),
        (299, "", "status: [\"200-299\", 401]", true),
        (300, "", "status: [\"200-299\", 401]", false),
        (401, "", "status: [\"200-299\", 401]", true),
        (200, "all is well", "body: { contains: is well }", true),
        (200, "all is ill", "body: { contains: is well }", false),
        (200, "{\"db\": \"up\"}", "body: { matches: '\"db\":\\s*\"up\"' }", true),
        (200, "{\"db\": \"down\"}", "body: { matches: '\"db\":\\s*\"up\"' }", false),
    ] {
        service.health.send_replace((status, body));
        let (healthy, error) = verdict(address, &format!("{{ path: /health, {settings} }}")).await;
        assert_eq!((healthy, error.is_null()), (fine, fine), "{status} {body} {settings}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_looked_at_up_to_its_bound() {
    for (before, fine) in [(64 * 1024 - 2, true), (64 * 1024 - 1, false)] {
        let body = [".".repeat(before).as_bytes(), b"ok", &[b'.'; 100_000]].concat();
        let service = Upstream::answering(answer(200, &body)).await;
        let (healthy, error) = verdict(service.address, "{ path: /health, body: { contains: ok } }").await;
        assert_eq!(healthy, fine, "{before}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_answer_as_it_should_is_unhealthy() {
    let dead = Upstream::dead_address().await;
    let silent = Upstream::silent().await;
    let garbage = Upstream::answering_once("this is no HTTP\r\n\r\n").await;
    let endless = Upstream::answering(["HTTP/1.1 200 OK\r\nX: ", &"x".repeat(200_000)].concat()).await;
    for (address, why) in [
        (dead, "cannot connect"),
        (silent.address, "no answer within 300ms"),
        (garbage.address, ""),
        (endless.address, ""),
    ] {
        let (healthy, error) = verdict(address, "{ path: /health, timeout: 300ms }").await;
        assert!(!healthy && error.as_str().is_some_and(|error| error.contains(why)), "{why}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_asks_for_a_connection_and_another_port_can_be_asked() {
    let fine = Upstream::echo().await;
    let dead = Upstream::dead_address().await;
    assert!(verdict(fine.address, "{ tcp: true }").await.0);
    assert!(!verdict(dead, "{ tcp: true }").await.0);
    // The target is alive; what tells of its health is not, and the other way round.
    let other = TcpListener::bind((dead.ip(), 0)).await.unwrap().local_addr().unwrap();
    let side = Service::start_at(SocketAddr::new(dead.ip(), 0)).await;
    let port = side.upstream.address.port();
    assert!(verdict(dead, &format!("{{ path: /health, port: {port} }}")).await.0);
    assert!(!verdict(side.upstream.address, &format!("{{ tcp: true, port: {} }}", other.port())).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_unhealthy_is_refused_or_ignored_and_either_ends() {
    for refuse in [false, true] {
        let service = Service::start().await;
        service.becomes(500);
        let all = if refuse { "refuse" } else { "use_all" };
        let health = format!("{{ path: /health, interval: 100ms, all_unhealthy: {all} }}");
        let mut gateway = Gateway::start(&config(&[service.upstream.address], &health)).await;
        // The first check decides alone.
        let shown = healthy(&gateway, &[false]).await;
        assert_eq!(shown["health"], if refuse { "refusing" } else { "ignored" });
        let response = gateway.get("/x").await;
        if refuse {
            response.refused(503, "UPSTREAM_UNAVAILABLE");
            gateway.h2().await.get("/x").await.refused(503, "UPSTREAM_UNAVAILABLE");
            assert_eq!(service.served(), 0);
            gateway.logged("no target is healthy").await;
        } else {
            assert_eq!((response.status, service.served()), (200, 1));
            gateway.logged("too few targets are healthy").await;
        }
        let ignored = f64::from(u8::from(!refuse));
        gateway.counts(&[("tollgate_upstream_health_ignored{upstream=\"main\"}", ignored)]).await;
        service.becomes(200);
        healthy(&gateway, &[true]).await;
        assert_eq!(gateway.get("/x").await.status, 200);
        gateway.logged("enough targets are healthy again").await;
        assert_eq!(told(&gateway).len(), 4, "{:#?}", told(&gateway));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_panic_threshold_all_are_asked() {
    let services = [Service::start().await, Service::start().await, Service::start().await];
    let targets: Vec<SocketAddr> = services.iter().map(|service| service.upstream.address).collect();
    let health = "{ path: /health, interval: 100ms, unhealthy_after: 1, panic_threshold: 50% }";
    let gateway = Gateway::start(&config(&targets, health)).await;
    services[0].becomes(500);
    healthy(&gateway, &[false, true, true]).await;
    let mut client = gateway.client().await;
    for _ in 0..6 {
        client.get("/x").await;
    }
    assert_eq!(services.each_ref().map(Service::served), [0, 3, 3]);
    services[1].becomes(500);
    let shown = healthy(&gateway, &[false, false, true]).await;
    assert_eq!(shown["health"], "ignored");
    for _ in 0..6 {
        client.get("/x").await;
    }
    assert_eq!(services.each_ref().map(Service::served), [2, 5, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_health_and_the_pace_of_checks() {
    let (fine, ill) = (Service::start().await, Service::start().await);
    ill.becomes(500);
    let targets = [fine.upstream.address, ill.upstream.address];
    // An hour: whatever is asked after the first check is asked because something changed.
    let mut gateway = Gateway::start(&config(&targets, "{ path: /health, interval: 1h }")).await;
    healthy(&gateway, &[true, false]).await;
    fine.upstream.received(1).await;
    change(&gateway, "    health:", "    timeouts: { connect: 1s }\n    health:");
    gateway.reload_well().await;
    healthy(&gateway, &[true, false]).await;
    for _ in 0..6 {
        assert_eq!(gateway.get("/x").await.status, 200);
    }
    assert_eq!((fine.served(), ill.served()), (6, 0));
    assert_eq!((fine.checks(), ill.checks()), (1, 1), "a reload asks nobody again");
    // A new target is asked at once, the others are not.
    let new = Service::start().await;
    change(&gateway, "targets: [", &format!("targets: [{{ address: \"{}\" }}, ", new.upstream.address));
    gateway.reload_well().await;
    new.upstream.received(1).await;
    assert_eq!((fine.checks(), ill.checks(), new.checks()), (1, 1, 1));
    healthy(&gateway, &[true, true, false]).await;
    // Asked something else, all are asked at once, and the first answer decides.
    ill.health.send_replace((200, ""));
    change(&gateway, "path: /health,", "path: /healthz,");
    gateway.reload_well().await;
    healthy(&gateway, &[true, true, true]).await;
    gateway.logged("is healthy again").await;
    assert_eq!((ill.checks(), told(&gateway).len()), (2, 2), "{:#?}", told(&gateway));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_not_checked_any_more() {
    let service = Service::start().await;
    let health = "{ path: /health, interval: 100ms }";
    let gateway = Gateway::start(&config(&[service.upstream.address], health)).await;
    service.checked(2).await;
    change(&gateway, &format!("    health: {health}\n"), "");
    gateway.reload_well().await;
    assert!(shown(&gateway).await["health"].is_null());
    let asked = service.checks();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // One may have been on its way.
    assert!(service.checks() <= asked + 1, "{asked} and now {}", service.checks());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_targets_are_not_checked_at_once_nor_twice() {
    const TARGETS: usize = 300;
    let (open, most) = (watch::Sender::new(0_usize), watch::Sender::new(0_usize));
    let (now, peak) = (open.clone(), most.clone());
    let service = Upstream::scripted_at(SocketAddr::from(([0, 0, 0, 0], 0)), move |mut conn| {
        let (now, peak) = (now.clone(), peak.clone());
        async move {
            now.send_modify(|open| *open += 1);
            let open = *now.borrow();
            peak.send_modify(|most| *most = (*most).max(open));
            while conn.request().await.is_some() {
                // Long enough for others to begin, if they may.
                tokio::time::sleep(Duration::from_millis(200)).await;
                now.send_modify(|open| *open -= 1);
                conn.send(answer(200, b"")).await;
            }
        }
    })
    .await;
    let port = service.address.port();
    let address = |number: usize| format!("127.9.{}.{}:{port}", number / 250, number % 250 + 1).parse().unwrap();
    let targets: Vec<SocketAddr> = (0..TARGETS).map(address).collect();
    let gateway = Gateway::start(&config(&targets, "{ path: /health, interval: 1h, timeout: 1m }")).await;
    service.received(TARGETS).await;
    assert!(*most.borrow() <= 256, "{} at once", *most.borrow());
    within("answers", open.subscribe().wait_for(|open| *open == 0)).await.unwrap();
    assert_eq!(service.requests().len(), TARGETS, "each once");
    healthy(&gateway, &[true; TARGETS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_waits_for_a_healthy_target() {
    let service = Service::start().await;
    service.becomes(500);
    let state_file = Folder::with(&[]);
    let file = state_file.path("tollgate.db");
    let health = "{ path: /health, interval: 100ms, healthy_after: 1, all_unhealthy: refuse }";
    let yaml = config(&[service.upstream.address], health).replace(
        "routes:\n",
        "routes:\n  - { name: hooks, match: POST /hooks, inbox: { upstream: main, attempts: 1 } }\n",
    );
    let gateway = Gateway::start(&format!("state: {{ file: {} }}\n{yaml}", file.display())).await;
    healthy(&gateway, &[false]).await;
    assert_eq!(gateway.post("/hooks", b"1").await.status, 202);
    gateway.counts(&[("tollgate_inbox_paused{inbox=\"hooks\"}", 1.0)]).await;
    service.checked(2).await;
    assert_eq!(service.served(), 0);
    service.becomes(200);
    // With one attempt only: waiting used up none.
    gateway.counts(&[("tollgate_inbox_delivered_total{inbox=\"hooks\"}", 1.0)]).await;
    assert_eq!(service.served(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_who_it_is_where_clients_are_told_of() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut first) = watch::channel(String::new());
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            sender.send_replace(line);
            let _ = stream.write_all(&answer(200, b"")).await;
        }
    });
    let yaml = config(&[address], "{ path: /health }").replace("    health:", "    proxy_protocol: v1\n    health:");
    let gateway = Gateway::start(&yaml).await;
    let line = within("a check", first.wait_for(|line| !line.is_empty())).await.unwrap().clone();
    assert!(line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{line}");
    assert!(line.ends_with(&format!(" {}\r\n", address.port())), "{line}");
    gateway.stop().await;
    task.abort();
}
