//! Plugins that hold a response, or a body on its way, until another service has answered.

pub mod guest;

use std::time::Duration;

use guest::{Place, holds};

use super::calls::Auth;
use crate::harness::{Folder, Gateway, Response, Upstream, answer, chunked, noise, within};

struct Site {
    auth: Auth,
    gateway: Gateway,
}

impl Site {
    async fn start(place: Place, main: &Upstream, more: &str) -> Self {
        let auth = Auth::start().await;
        let yaml = super::calls::yaml(main, &auth.upstream.address.to_string(), more, "");
        let folder = Folder::with(&[("gateway.yaml", &yaml)]);
        std::fs::write(folder.path("auth.wasm"), holds(place)).unwrap();
        Self { auth, gateway: Gateway::start_in(folder).await }
    }

    async fn ask(&self, id: &str) -> Response {
        self.gateway.ask(&super::calls::asking(id)).await
    }
}

/// What is left of an answer that was held: either the plugin's own, or, when its head was sent already, half of one.
async fn broken_off(site: &Site, id: &str) {
    let mut client = site.gateway.client().await;
    let head = format!("POST /x HTTP/1.1\r\nHost: a.test\r\nX-Id: {id}\r\nContent-Length: 5\r\n\r\nhello");
    client.send(head).await;
    if let Ok(response) = client.try_response(false).await {
        assert_ne!(response.status, 200, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_of_a_response_is_held_until_the_answer_is_there() {
    let main = Upstream::echo().await;
    let site = Site::start(Place::Head, &main, "").await;
    let mut client = site.gateway.client().await;
    for id in ["alice", "bob"] {
        let response = client.ask(&super::calls::asking(id)).await;
        assert_eq!((response.status, response.head.all("x-told")), (200, vec![id]));
    }
    let body = noise(100_000);
    let head = format!("POST /x HTTP/1.1\r\nHost: a.test\r\nX-Id: carol\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send([head.as_bytes(), &body].concat()).await;
    let response = client.response().await;
    assert_eq!((response.status, response.head.all("x-told"), response.body == body), (200, vec!["carol"], true));
    let h2 = site.gateway.h2().await;
    let request = http::Request::post("http://a.test/x").header("x-id", "dave").body(()).unwrap();
    let response = within("an answer", h2.ask(request, b"hello".to_vec())).await.unwrap();
    assert_eq!((&response.fields["x-told"], &response.body[..]), (&"dave".parse().unwrap(), &b"hello"[..]));
    for (id, status, text) in [("403-x", 403, "no"), ("cut", 503, "down")] {
        let response = site.ask(id).await;
        assert_eq!((response.status, response.text()), (status, text), "{id}");
    }
    assert_eq!(site.gateway.get("/x").await.status, 200, "it need not ask");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_of_an_answer_of_the_gateway_is_held_as_well() {
    let auth = Auth::start().await;
    let yaml = super::calls::yaml(&auth.upstream, &auth.upstream.address.to_string(), "", "");
    let yaml = yaml.replace("    upstream: main\n", "    respond: { body: own }\n");
    for (place, told) in [(Place::Head, "own"), (Place::WholeBody, "aliceown")] {
        let folder = Folder::with(&[("gateway.yaml", &yaml)]);
        std::fs::write(folder.path("auth.wasm"), holds(place)).unwrap();
        let gateway = Gateway::start_in(folder).await;
        let mut client = gateway.client().await;
        for _ in 0..2 {
            let response = client.ask(&super::calls::asking("alice")).await;
            assert_eq!((response.status, response.text()), (200, told));
            assert_eq!(response.head.has("x-told"), place == Place::Head);
        }
        let response = client.ask(&super::calls::asking("403-x")).await;
        assert_eq!((response.status, response.text()), (403, "no"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_held_for_longer_than_it_may_be() {
    let main = Upstream::echo().await;
    for (more, status) in [("", 503), (", on_failure: skip", 200)] {
        let more = format!(", limits: {{ held: 200ms }}{more}");
        let site = Site::start(Place::Head, &main, &more).await;
        assert_eq!(site.ask("held").await.status, status);
        site.gateway.counts(&[("tollgate_plugin_failures_total{plugin=\"auth\",reason=\"held\"}", 1.0)]).await;
        assert_eq!(site.ask("alice").await.head.get("x-told"), Some("alice"));
    }
    let main = Upstream::answering(answer(200, b"the answer")).await;
    let site = Site::start(Place::WholeBody, &main, ", limits: { held: 200ms }").await;
    broken_off(&site, "held").await;
    assert_eq!(site.ask("alice").await.text(), "alicethe answer");
    let site = Site::start(Place::WholeBody, &main, ", on_failure: skip, limits: { held: 200ms }").await;
    assert_eq!(site.ask("held").await.text(), "the answer", "what was held goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_response_is_held_and_changed() {
    for place in [Place::Body, Place::WholeBody] {
        let main = Upstream::echo().await;
        let site = Site::start(place, &main, "").await;
        let mut client = site.gateway.client().await;
        for size in [1, 1000, 300_000] {
            let body = noise(size);
            let head = format!("POST /x HTTP/1.1\r\nHost: a.test\r\nX-Id: alice\r\nContent-Length: {size}\r\n\r\n");
            client.send([head.as_bytes(), &body].concat()).await;
            let response = client.response().await;
            assert!(response.status == 200 && response.body == [b"alice", &body[..]].concat(), "{size}");
            let head = "POST /x HTTP/1.1\r\nHost: a.test\r\nX-Id: bob\r\nTransfer-Encoding: chunked\r\n\r\n";
            client.send([head.as_bytes(), &chunked(&body, 5000)].concat()).await;
            assert!(client.response().await.body == [b"bob", &body[..]].concat(), "{size} in chunks");
        }
        let h2 = site.gateway.h2().await;
        let request = http::Request::post("http://a.test/x").header("x-id", "carol").body(()).unwrap();
        let response = within("an answer", h2.ask(request, noise(100_000))).await.unwrap();
        assert!(response.body == [b"carol", &noise(100_000)[..]].concat());
        for id in ["403-x", "cut"] {
            broken_off(&site, id).await;
        }
        let response = client.post("/x", b"as it is").await;
        assert_eq!(
            (response.text(), response.head.get("content-length")),
            ("as it is", Some("8")),
            "nothing was asked"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_head_has_gone_on_is_held_within_its_body() {
    for place in [Place::RequestBody, Place::WholeRequestBody] {
        let main = Upstream::echo().await;
        let site = Site::start(place, &main, "").await;
        let mut client = site.gateway.client().await;
        for size in [1, 1000, 300_000] {
            let body = noise(size);
            let head = format!("POST /x HTTP/1.1\r\nHost: a.test\r\nX-Id: alice\r\nContent-Length: {size}\r\n\r\n");
            client.send([head.as_bytes(), &body].concat()).await;
            let response = client.response().await;
            assert!(response.status == 200 && response.body == [b"alice", &body[..]].concat(), "{size}");
        }
        let denied = {
            let head = "POST /x HTTP/1.1\r\nHost: a.test\r\nX-Id: 403-x\r\nContent-Length: 5\r\n\r\nhello";
            site.gateway.ask(head).await
        };
        assert_eq!((denied.status, denied.text()), (403, "no"));
        assert_eq!(main.requests().len(), 3, "none of it is a whole request to the service");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_a_plugin_that_holds_its_response() {
    for (place, is_h2) in [(Place::Head, false), (Place::Head, true), (Place::WholeBody, false)] {
        let main = Upstream::answering(answer(200, b"the answer")).await;
        let site = Site::start(place, &main, ", limits: { instances: 1, held: 5m }").await;
        let leaving = if is_h2 {
            let h2 = site.gateway.h2().await;
            let request = http::Request::get("http://a.test/x").header("x-id", "held-1").body(()).unwrap();
            tokio::spawn(async move { drop(h2.ask(request, Vec::new()).await) })
        } else {
            let mut client = site.gateway.client().await;
            tokio::spawn(async move { drop(client.ask(&super::calls::asking("held-1")).await) })
        };
        site.auth.upstream.received(1).await;
        site.ask("alice").await.refused(503, "PLUGIN_FAILED");
        leaving.abort();
        let freed = async {
            while site.ask("alice").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within("the instance", freed).await;
    }
}
