//! Copies of requests, which make no difference to anybody.

use crate::harness::{Client, Gateway, Upstream, answer, chunked, noise, within};

const KEPT: usize = 64 * 1024;

fn config(main: &Upstream, shadow: &str, mirror: &str, keys: &str) -> String {
    format!(
        "admin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n  main: {{ targets: [{{ address: \"{}\" }}] }}\n  \
         shadow: {{ targets: [{{ address: \"{shadow}\" }}], {keys} }}\nroutes:\n  \
         - {{ name: gathered, match: \"/gathered/{{*rest}}\", filters: [{{ validate: {{ body_max: 1MiB }} }}], mirror: {{ upstream: shadow{mirror} }}, upstream: main }}\n  \
         - {{ name: all, match: \"/{{*rest}}\", filters: [{{ headers: {{ request: {{ set: {{ X-By: filter }}, remove: [X-Secret] }} }} }}], mirror: {{ upstream: shadow{mirror} }}, upstream: main }}\n",
        main.address
    )
}

struct Site {
    main: Upstream,
    shadow: Upstream,
    gateway: Gateway,
}

impl Site {
    async fn start(shadow: Upstream, mirror: &str, keys: &str) -> Self {
        let main = Upstream::echo().await;
        let gateway = Gateway::start(&config(&main, &shadow.address.to_string(), mirror, keys)).await;
        Self { main, shadow, gateway }
    }

    async fn counts(&self, route: &str, result: &str, count: f64) {
        let series = format!("tollgate_mirrored_requests_total{{result=\"{result}\",route=\"{route}\"}}");
        self.gateway.counts(&[(&series, count)]).await;
    }
}

async fn post(client: &mut Client, path: &str, body: &[u8], in_chunks: bool) {
    let head = |framing: &str| format!("POST {path} HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n");
    if in_chunks {
        client.send(head("Transfer-Encoding: chunked")).await;
        client.send(chunked(body, 1000)).await;
    } else {
        client.send(head(&format!("Content-Length: {}", body.len()))).await;
        client.send(body).await;
    }
    let response = client.response().await;
    assert_eq!(response.status, 200);
    assert!(response.body == body, "the answer of the service, and of nobody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_what_the_filters_let_through() {
    // What the shadow answers is not for the client.
    let site = Site::start(Upstream::answering(answer(500, b"nobody sees this")).await, "", "").await;
    let request = "PATCH /a%20b?c=d HTTP/1.1\r\nHost: a.test\r\nX-Secret: 1\r\nX-Own: 2\r\nX-Hop: 3\r\nConnection: X-Hop\r\nContent-Length: 4\r\n\r\nbody";
    let response = site.gateway.ask(request).await;
    assert_eq!((response.status, response.text()), (200, "body"));
    site.shadow.received(1).await;
    let (original, copy) = (site.main.only(), site.shadow.only());
    assert_eq!((&copy.method, &copy.target, &copy.body), (&original.method, &original.target, &original.body));
    for name in ["host", "x-own", "x-by", "x-request-id", "x-forwarded-for", "content-length"] {
        assert_eq!(copy.head.get(name), original.head.get(name), "{name}");
        assert!(copy.head.has(name), "{name}");
    }
    for name in ["x-secret", "x-hop", "x-delivery-id", "x-delivery-attempt", "idempotency-key"] {
        assert!(!copy.head.has(name), "{name}");
    }
    site.counts("all", "sent", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_copied_up_to_the_bound() {
    let site = Site::start(Upstream::echo().await, "", "").await;
    let mut copies = 0;
    let mut client = site.gateway.client().await;
    for path in ["/x", "/gathered/x"] {
        for in_chunks in [false, true] {
            for size in [0, 1, KEPT, KEPT + 1, 3 * KEPT] {
                let body = noise(size);
                post(&mut client, path, &body, in_chunks).await;
                if size <= KEPT {
                    copies += 1;
                    let copy = site.shadow.received(copies).await.pop().unwrap();
                    assert!(copy.body == body, "{path} {size}");
                }
            }
        }
    }
    for route in ["all", "gathered"] {
        site.counts(route, "sent", 6.0).await;
        site.counts(route, "dropped", 4.0).await;
    }
    let h2 = site.gateway.h2().await;
    assert_eq!(h2.post("/x", b"over http/2".to_vec()).await.body, b"over http/2");
    assert_eq!(site.shadow.received(copies + 1).await.pop().unwrap().body, b"over http/2");
    assert_eq!(site.shadow.requests().len(), copies + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_shadow_delays_nobody_and_holds_no_more_than_it_may() {
    let site = Site::start(Upstream::silent().await, ", in_flight_max: 3", "timeouts: { first_byte: 1h }").await;
    let mut client = site.gateway.client().await;
    for number in 0..20 {
        assert_eq!(client.get("/x").await.status, 200, "{number}");
        post(&mut client, "/x", b"body", false).await;
    }
    site.shadow.received(3).await;
    site.counts("all", "dropped", 37.0).await;
    assert_eq!((site.main.requests().len(), site.shadow.requests().len()), (40, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_fails_fails_nobody() {
    let main = Upstream::echo().await;
    let dead = Upstream::dead_address().await;
    let gateway = Gateway::start(&config(&main, &dead.to_string(), "", "retry: { attempts: 1 }")).await;
    let mut client = gateway.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    gateway.counts(&[("tollgate_mirrored_requests_total{result=\"failed\",route=\"all\"}", 10.0)]).await;
    // One whose time is over is as good as one that fails.
    let site = Site::start(Upstream::silent().await, "", "timeouts: { first_byte: 100ms }").await;
    assert_eq!(site.gateway.get("/x").await.status, 200);
    site.counts("all", "failed", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn none_of_nothing_is_copied() {
    let site = Site::start(Upstream::echo().await, ", share: 0%", "").await;
    let mut client = site.gateway.client().await;
    for _ in 0..50 {
        post(&mut client, "/x", b"body", false).await;
    }
    assert!(site.shadow.requests().is_empty());
    assert_eq!(site.main.requests().len(), 50);
    // A part of many is drawn: about half of two hundred, within seven standard deviations.
    let site = Site::start(Upstream::echo().await, ", share: 50%", "").await;
    let mut client = site.gateway.client().await;
    for _ in 0..200 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    within("half of the copies", async {
        while site.shadow.requests().len() < 50 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(site.shadow.requests().len() <= 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_tried_again_is_copied_once() {
    let failing = Upstream::answering(answer(503, b"no")).await;
    let (main, shadow) = (Upstream::echo().await, Upstream::echo().await);
    let yaml = config(&main, &shadow.address.to_string(), "", "");
    let own = format!("targets: [{{ address: \"{}\" }}]", main.address);
    let both = format!(
        "targets: [{{ address: \"{}\" }}, {{ address: \"{}\" }}], retry: {{ on: [503], backoff: {{ first: 1ms }} }}",
        failing.address, main.address
    );
    let gateway = Gateway::start(&yaml.replacen(&own, &both, 1)).await;
    let body = "x".repeat(1000);
    let request = format!("PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\n{body}");
    let mut client = gateway.client().await;
    for _ in 0..10 {
        assert_eq!(client.ask(&request).await.text(), body);
    }
    gateway.counts(&[("tollgate_mirrored_requests_total{result=\"sent\",route=\"all\"}", 10.0)]).await;
    assert_eq!(failing.requests().len(), 10);
    assert!(shadow.requests().len() == 10 && shadow.requests().iter().all(|copy| copy.body == body.as_bytes()));
}
