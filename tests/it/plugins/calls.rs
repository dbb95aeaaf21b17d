//! Plugins that ask another service, as filters for external authorisation do.

mod guest;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::harness::{Folder, Gateway, Response, Upstream, answer, within};

/// Long enough never to pass within a test.
const LONG: u32 = 600_000;

/// A service that is asked with the `x-id` of a request as body. It answers with it, and with 200, or as the text before its
/// first `-` says.
pub struct Auth {
    pub upstream: Upstream,
    letting_go: watch::Sender<bool>,
}

impl Auth {
    pub async fn start() -> Self {
        let (letting_go, held) = watch::channel(false);
        let held = Arc::new(held);
        let upstream = Upstream::scripted(move |mut conn| {
            let mut held = (*held).clone();
            async move {
                while let Some(request) = conn.request().await {
                    let id = String::from_utf8(request.body.clone()).unwrap();
                    let status = match id.split('-').next() {
                        Some("held") => {
                            let _ = held.wait_for(|go| *go).await;
                            200
                        }
                        Some("cut") => return conn.reset(),
                        Some("half") => {
                            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
                            return conn.reset();
                        }
                        Some("large") => {
                            conn.send(answer(200, &vec![b'a'; 5000])).await;
                            continue;
                        }
                        Some(status) => status.parse().unwrap_or(200),
                        None => 200,
                    };
                    conn.send(answer(status, id.as_bytes())).await;
                }
            }
        })
        .await;
        Self { upstream, letting_go }
    }

    fn asked(&self) -> usize {
        self.upstream.requests().len()
    }
}

struct Site {
    main: Upstream,
    auth: Auth,
    gateway: Gateway,
}

impl Site {
    /// The plugin waits for so many milliseconds; `more` are further settings of it, `of_auth` of the upstream it calls.
    async fn start(timeout: u32, more: &str, of_auth: &str) -> Self {
        let (main, auth) = (Upstream::echo().await, Auth::start().await);
        let yaml = yaml(&main, &auth.upstream.address.to_string(), more, of_auth);
        let folder = Folder::with(&[("gateway.yaml", &yaml)]);
        std::fs::write(folder.path("auth.wasm"), guest::asks(timeout)).unwrap();
        Self { main, auth, gateway: Gateway::start_in(folder).await }
    }

    async fn ask(&self, id: &str) -> Response {
        self.gateway.ask(&asking(id)).await
    }
}

pub fn asking(id: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: a.test\r\nX-Id: {id}\r\n\r\n")
}

pub fn yaml(main: &Upstream, auth: &str, more: &str, of_auth: &str) -> String {
    format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nadmin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n  \
         main: {{ targets: [{{ address: \"{}\" }}] }}\n  auth: {{ targets: [{{ address: \"{auth}\" }}]{of_auth} }}\n\
         routes:\n  - name: all\n    match: \"/{{*rest}}\"\n    filters:\n      \
         - plugin: {{ file: auth.wasm, calls: [auth]{more} }}\n    upstream: main\n",
        main.address
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_a_service_decides_and_goes_on_with_the_request() {
    let site = Site::start(LONG, "", "").await;
    let mut client = site.gateway.client().await;
    for id in ["alice", "bob"] {
        assert_eq!(client.ask(&asking(id)).await.status, 200);
        assert_eq!(site.main.last().head.all("x-user"), [id]);
        let call = site.auth.upstream.last();
        assert_eq!((&*call.method, &*call.target, &call.body[..]), ("POST", "/check?a=b", id.as_bytes()));
        assert_eq!((call.head.get("host"), call.head.get("x-own")), (Some("auth.test"), Some("1")));
        for name in ["x-delivery-id", "idempotency-key", "x-request-id", "x-id"] {
            assert!(!call.head.has(name), "{name}: nothing is sent that the plugin did not write");
        }
    }
    let denied = client.ask(&asking("403-x")).await;
    assert_eq!((denied.status, denied.text()), (403, "no"));
    assert_eq!(site.main.requests().len(), 2, "nothing of it reached the service");
    assert_eq!(site.auth.upstream.connections(), 1, "its connection is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_body_waits_as_well() {
    let site = Site::start(LONG, "", "").await;
    let mut client = site.gateway.client().await;
    for (framing, body) in [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")] {
        let head = format!("POST /x HTTP/1.1\r\nHost: a.test\r\nX-Id: alice\r\n{framing}\r\n\r\n{body}");
        let response = client.ask(&head).await;
        assert_eq!((response.status, response.text()), (200, "hello"));
        assert_eq!(site.main.last().head.get("x-user"), Some("alice"));
    }
    let h2 = site.gateway.h2().await;
    let request = http::Request::post("http://a.test/x").header("x-id", "carol").body(()).unwrap();
    let response = within("an answer", h2.ask(request, b"hello".to_vec())).await.unwrap();
    assert_eq!((response.status.as_u16(), &response.body[..]), (200, &b"hello"[..]));
    assert_eq!(site.main.last().head.get("x-user"), Some("carol"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_is_told_as_that() {
    let site = Site::start(LONG, ", limits: { body: 4KiB }", "").await;
    for id in ["cut", "half", "large"] {
        let response = site.ask(id).await;
        assert_eq!((response.status, response.text()), (503, "down"), "{id}");
    }
    assert_eq!(site.ask("alice").await.status, 200);
    // One that hangs.
    let site = Site::start(200, "", "").await;
    assert_eq!(site.ask("held").await.text(), "down");
    assert_eq!(site.ask("alice").await.status, 200);
    // However long the plugin would wait: no longer than it may hold a request.
    let site = Site::start(LONG, ", limits: { held: 200ms }", "").await;
    assert_eq!(site.ask("held").await.status, 503);
    assert_eq!(site.ask("alice").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_gone_is_told_as_that() {
    let main = Upstream::echo().await;
    let yaml = yaml(&main, &Upstream::dead_address().await.to_string(), "", "");
    let folder = Folder::with(&[("gateway.yaml", &yaml)]);
    std::fs::write(folder.path("auth.wasm"), guest::asks(LONG)).unwrap();
    let gateway = Gateway::start_in(folder).await;
    assert_eq!(gateway.ask(&asking("alice")).await.text(), "down");
    assert!(main.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_breaker_counts_for_calls_too() {
    let breaker = ", circuit_breaker: { failures: 2, open_for: 1h }";
    let site = Site::start(LONG, "", breaker).await;
    for _ in 0..2 {
        assert_eq!(site.ask("503-x").await.text(), "no", "the service has said no");
    }
    assert_eq!(site.ask("alice").await.text(), "down", "it is not asked any more");
    assert_eq!(site.auth.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_upstreams_that_are_named_can_be_called() {
    let (main, auth) = (Upstream::echo().await, Auth::start().await);
    let own = yaml(&main, &auth.upstream.address.to_string(), "", "");
    let start = |calls: &str| {
        let folder = Folder::with(&[("gateway.yaml", &own.replace("calls: [auth]", calls))]);
        std::fs::write(folder.path("auth.wasm"), guest::asks(LONG)).unwrap();
        folder
    };
    for calls in ["calls: [main]", "calls: []"] {
        let mut gateway = Gateway::start_in(start(calls)).await;
        assert_eq!(gateway.ask(&asking("alice")).await.text(), "refused", "{calls}");
        gateway.logged("`calls` do not name").await;
    }
    assert_eq!((auth.asked(), main.requests().len()), (0, 0));
    let folder = start("calls: [auth, other]");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["check", "--config"])
        .arg(folder.path("gateway.yaml"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("gateway.yaml:11:") && text.contains("unknown upstream `other`"), "{text}");
    assert_eq!(output.status.code(), Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_each_get_their_own_answer() {
    const REQUESTS: usize = 200;
    let site = Site::start(LONG, "", "").await;
    let mut asked = Vec::new();
    for number in 0..REQUESTS {
        let address = site.gateway.address;
        asked.push(tokio::spawn(async move {
            let mut client = crate::harness::Client::connect(address).await;
            for round in 0..3 {
                let id = if round == 0 { format!("held-{number}") } else { format!("r{round}-{number}") };
                let response = client.ask(&asking(&id)).await;
                assert_eq!((response.status, response.head.get("x-told")), (200, Some(&*id)));
            }
        }));
    }
    // All of them wait at the same time.
    site.auth.upstream.received(REQUESTS).await;
    site.auth.letting_go.send_replace(true);
    for asked in asked {
        asked.await.unwrap();
    }
    let users = site.main.requests();
    assert_eq!(users.len(), 3 * REQUESTS);
    for request in users {
        assert_eq!(request.head.get("x-user"), request.head.get("x-id"), "answers are never crossed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_the_plugin() {
    for is_h2 in [false, true] {
        let site = Site::start(LONG, ", limits: { instances: 1, held: 5m }", "").await;
        let leaving = if is_h2 {
            let h2 = site.gateway.h2().await;
            let request = http::Request::get("http://a.test/x").header("x-id", "held-1").body(()).unwrap();
            tokio::spawn(async move { drop(h2.ask(request, Vec::new()).await) })
        } else {
            let mut client = site.gateway.client().await;
            tokio::spawn(async move { drop(client.ask(&asking("held-1")).await) })
        };
        site.auth.upstream.received(1).await;
        site.ask("alice").await.refused(503, "PLUGIN_FAILED");
        leaving.abort();
        // Its call is given up, and the only instance is free again.
        let freed = async {
            while site.ask("alice").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within("the instance", freed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_while_it_waits_changes_nothing_for_the_request() {
    let site = Site::start(LONG, "", "").await;
    let mut client = site.gateway.client().await;
    client.send(asking("held-1")).await;
    site.auth.upstream.received(1).await;
    // Neither the plugin nor the service that it waits for is there any more.
    let folder = &site.gateway.folder;
    let before = folder.read("gateway.yaml");
    let without: Vec<&str> = before.lines().filter(|line| !line.contains("auth")).collect();
    let without = without.join("\n").replace("    filters:\n", "");
    folder.write("gateway.yaml", &without);
    site.gateway.reload_well().await;
    assert_eq!(site.ask("bob").await.head.get("x-told"), None);
    site.auth.letting_go.send_replace(true);
    let response = client.response().await;
    assert_eq!((response.status, response.head.get("x-told")), (200, Some("held-1")));
    // It comes back, elsewhere.
    let other = Auth::start().await;
    folder.write("gateway.yaml", &yaml(&site.main, &other.upstream.address.to_string(), "", ""));
    site.gateway.reload_well().await;
    assert_eq!(site.ask("carol").await.head.get("x-told"), Some("carol"));
    assert_eq!(other.asked(), 1);
}
