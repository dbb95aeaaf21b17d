//! Plugins under the engine for plain requests, beside the other one: hooks come to the same in both, and a connection goes on
//! behind whatever they do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::calls::{Auth, asking, yaml};
use super::guests;
use super::waiting::guest::{Place, holds};
use crate::harness::{Client, Folder, Framing, Gateway, Response, Upstream, answer, within};

/// What makes a plain request one for the other engine.
const OTHER: &str = "TE: trailers\r\nConnection: TE\r\n";

/// A plugin on a route of its own, what it is asked, and what comes of it.
struct Case {
    name: &'static str,
    guest: Vec<u8>,
    more: &'static str,
    fields: &'static str,
    status: u16,
    /// Empty where the answer is a refusal of the gateway.
    text: &'static str,
}

impl Case {
    fn request(&self, fields: &str) -> String {
        format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n{}{fields}\r\n", self.name, self.fields)
    }

    fn check(&self, response: &Response) {
        let name = self.name;
        assert_eq!(response.status, self.status, "{name}");
        if self.status == 503 {
            response.refused(503, "PLUGIN_FAILED");
        } else {
            assert_eq!(response.text(), self.text, "{name}");
        }
        assert_eq!(response.head.all("x-plugin"), ["yes"], "{name}: it passes the plugin before this one");
    }
}

fn cases() -> Vec<Case> {
    let skips = ", on_failure: skip";
    let case = |name, guest, more, fields, status, text| Case { name, guest, more, fields, status, text };
    vec![
        case("marks", guests::marks_nothing(), "", "", 200, "fine"),
        case("refused", guests::refuses(), "", "", 403, "no"),
        case("let-in", guests::refuses(), "", "X-Ok: 1\r\n", 200, "fine"),
        case("replaced", guests::replaces(), "", "", 403, "no"),
        case("fails-in-request", guests::fails(), "", "X-Fail: 1\r\n", 503, ""),
        case("fails-in-response", guests::fails(), "", "X-Fail: 3\r\n", 503, ""),
        case("fails-in-log", guests::fails(), "", "X-Fail: 5\r\n", 200, "fine"),
        case("skipped-in-request", guests::fails(), skips, "X-Fail: 1\r\n", 200, "fine"),
        case("skipped-in-response", guests::fails(), skips, "X-Fail: 3\r\n", 200, "fine"),
        case("skipped-in-body", guests::fails(), skips, "X-Fail: 4\r\n", 200, "fine"),
        case("no-body-to-fail-in", guests::fails(), "", "X-Fail: 2\r\n", 200, "fine"),
        case("pauses", guests::pauses(), "", "", 503, ""),
        case("pauses-skipped", guests::pauses(), skips, "", 200, "fine"),
        case("quotes", guests::quotes(), "", "", 200, ">fine"),
        case("unmeasured", guests::unmeasures(), "", "", 200, "fine"),
        case("restated", guests::restates("404"), "", "", 404, "fine"),
        case("emptied", guests::restates("204"), "", "", 204, ""),
    ]
}

/// Every case behind a route of its own, and a plugin that marks heads before it.
async fn start(cases: &[Case], upstream: &Upstream) -> Gateway {
    let route = |case: &Case| {
        let Case { name, more, .. } = case;
        format!(
            "  - name: {name}\n    match: /{name}\n    filters: [{{ plugin: {{ file: mark.wasm }} }}, \
             {{ plugin: {{ file: {name}.wasm{more} }} }}]\n    upstream: main\n"
        )
    };
    let routes: String = cases.iter().map(route).collect();
    let yaml = format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nadmin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n  \
         main: {{ targets: [{{ address: \"{}\" }}] }}\nroutes:\n{routes}",
        upstream.address
    );
    let folder = Folder::with(&[("gateway.yaml", &yaml)]);
    std::fs::write(folder.path("mark.wasm"), guests::marks()).unwrap();
    for Case { name, guest, .. } in cases {
        std::fs::write(folder.path(&format!("{name}.wasm")), guest).unwrap();
    }
    Gateway::start_in(folder).await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_come_to_the_same() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nX-Ok: 1\r\nContent-Length: 4\r\n\r\nfine").await;
    let cases = cases();
    let gateway = start(&cases, &upstream).await;
    // One connection for all of them: it goes on behind each.
    let mut client = gateway.client().await;
    for case in cases.iter().chain(&cases) {
        let response = client.ask(&case.request("")).await;
        case.check(&response);
        assert!(!response.head.has("connection"), "{}", case.name);
        if case.name == "unmeasured" {
            assert_eq!(response.framing, Framing::Chunked);
        }
    }
    for case in &cases {
        let response = gateway.ask(&case.request(OTHER)).await;
        case.check(&response);
        // By this it is seen which engine it was.
        let closes = matches!(case.name, "replaced" | "fails-in-response");
        assert_eq!(response.head.get("connection"), Some(if closes { "close" } else { "keep-alive" }), "{}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_sent_ahead_are_answered_in_turn() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nX-Ok: 1\r\nContent-Length: 4\r\n\r\nfine").await;
    let cases = cases();
    let gateway = start(&cases, &upstream).await;
    let mut client = gateway.client().await;
    let all: String = cases.iter().map(|case| case.request("")).collect();
    client.send(&all).await;
    for case in &cases {
        case.check(&client.response().await);
    }
    // Those that change engines as well, where the other one does not close.
    let stay = |case: &&Case| !matches!(case.name, "replaced" | "fails-in-response" | "emptied");
    let all = cases.iter().filter(stay).flat_map(|case| [case.request(""), case.request(OTHER)]);
    for request in all {
        let response = client.ask(&request).await;
        assert_eq!(response.head.get("connection"), request.contains("TE").then_some("keep-alive"), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_exchange_is_told_with_its_answer() {
    let upstream = Upstream::answering(answer(200, b"fine")).await;
    let plugins = [("tells", guests::tells_status(), ""), ("gate", guests::refuses(), "")];
    let mut gateway = super::start(&upstream, &plugins).await;
    for engine in ["", OTHER] {
        let mut client = gateway.client().await;
        let before = gateway.lines().len();
        assert_eq!(super::ask(&mut client, engine).await.status, 403);
        gateway.logged_after(before, "status 403").await;
        assert_eq!(super::ask(&mut client, &format!("{engine}X-Ok: 1\r\n")).await.status, 200);
        gateway.logged_after(before, "status 200").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_looked_at_streams() {
    for engine in ["", OTHER] {
        let go = Arc::new(Notify::new());
        let waits = Arc::clone(&go);
        let upstream = Upstream::scripted(move |mut conn| {
            let go = Arc::clone(&waits);
            async move {
                conn.request().await;
                conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
                go.notified().await;
                conn.send("6\r\nsecond\r\n0\r\n\r\n").await;
                conn.request().await;
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
                go.notified().await;
            }
        })
        .await;
        let gateway = super::start(&upstream, &[("fail", guests::fails(), "")]).await;
        let mut client = gateway.client().await;
        client.send(format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{engine}\r\n")).await;
        assert_eq!(client.response_head().await.unwrap().0, 200);
        assert_eq!(within("a piece", client.0.chunk()).await.unwrap(), b"first");
        go.notify_one();
        assert_eq!(within("a piece", client.0.chunk()).await.unwrap(), b"second");
        assert_eq!(within("the end", client.0.chunk()).await.unwrap(), b"");
        assert!(within("the end", client.0.fields()).await.unwrap().is_empty());
        // One that breaks off is seen to.
        client.send(format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{engine}\r\n")).await;
        assert_eq!(client.response_head().await.unwrap().0, 200);
        go.notify_one();
        assert_eq!(client.rest().await, b"half");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_a_plugin_that_holds_an_answer_of_the_gateway() {
    let auth = Auth::start().await;
    let text = yaml(&auth.upstream, &auth.upstream.address.to_string(), ", limits: { instances: 1, held: 5m }", "");
    let text = text.replace("    upstream: main\n", "    respond: { body: own }\n");
    let folder = Folder::with(&[("gateway.yaml", &text)]);
    std::fs::write(folder.path("auth.wasm"), holds(Place::Head)).unwrap();
    let gateway = Gateway::start_in(folder).await;
    let mut client = gateway.client().await;
    let leaving = tokio::spawn(async move { drop(client.ask(&asking("held-1")).await) });
    auth.upstream.received(1).await;
    gateway.ask(&asking("alice")).await.refused(503, "PLUGIN_FAILED");
    leaving.abort();
    let freed = async {
        while gateway.ask(&asking("alice")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the instance", freed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_response_does_not_mind_what_comes_ahead() {
    let (main, auth) = (Upstream::answering(answer(200, b"the answer")).await, Auth::start().await);
    for place in [Place::Head, Place::WholeBody] {
        let folder = Folder::with(&[("gateway.yaml", &yaml(&main, &auth.upstream.address.to_string(), "", ""))]);
        std::fs::write(folder.path("auth.wasm"), holds(place)).unwrap();
        let gateway = Gateway::start_in(folder).await;
        let mut client = Client::connect(gateway.address).await;
        // All of it is there while the first one is held.
        let ids = ["alice", "403-x", "bob", "cut", "carol"];
        client.send(ids.map(asking).concat()).await;
        for id in ids {
            let response = client.response().await;
            let expected = match (id, place) {
                ("403-x", _) => (403, "no".to_owned()),
                ("cut", _) => (503, "down".to_owned()),
                (_, Place::Head) => (200, "the answer".to_owned()),
                _ => (200, format!("{id}the answer")),
            };
            assert_eq!((response.status, response.text().to_owned()), expected, "{id}");
        }
    }
}
