//! Routes whose requests are shared by several upstreams.

use crate::harness::{Gateway, Upstream, answer};

struct Sides {
    stable: Upstream,
    canary: Upstream,
    gateway: Gateway,
}

impl Sides {
    async fn start(weights: (u32, u32), keys: &str) -> Self {
        let (stable, canary) =
            (Upstream::answering(answer(200, b"stable")).await, Upstream::answering(answer(200, b"canary")).await);
        let (heavy, light) = weights;
        let gateway = Gateway::start(&format!(
            "admin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n  stable: {{ targets: [{{ address: \"{}\" }}] }}\n  \
             canary: {{ targets: [{{ address: \"{}\" }}] }}\nroutes:\n  - name: all\n    match: \"/{{*rest}}\"\n    upstream:\n      \
             split:\n        - {{ upstream: stable, weight: {heavy} }}\n        - {{ upstream: canary, weight: {light}, when: {{ header: X-Canary, value: \"1\" }} }}\n      {keys}\n",
            stable.address, canary.address
        ))
        .await;
        Self { stable, canary, gateway }
    }

    fn asked(&self) -> (usize, usize) {
        (self.stable.requests().len(), self.canary.requests().len())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gets_exactly_its_share() {
    let sides = Sides::start((95, 5), "").await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = sides.gateway.client().await;
        clients.push(tokio::spawn(async move {
            for _ in 0..500 {
                assert_eq!(client.get("/x").await.status, 200);
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(sides.asked(), (1900, 100));
    let shown = &sides.gateway.ask_admin("GET /status").await.json()["routes"][0]["upstream"];
    assert_eq!(shown, "stable, canary");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_client_stays_on_its_side_and_testers_choose_theirs() {
    let sides = Sides::start((50, 50), "by: { cookie: sid }").await;
    let mut client = sides.gateway.client().await;
    let mut on_canary = 0;
    for user in 0..100 {
        let request = format!("GET /x HTTP/1.1\r\nHost: a.test\r\nCookie: a=b; sid=user-{user}\r\n\r\n");
        let side = client.ask(&request).await.text().to_owned();
        on_canary += usize::from(side == "canary");
        for _ in 0..3 {
            assert_eq!(client.ask(&request).await.text(), side);
        }
    }
    assert!((20..=80).contains(&on_canary), "{on_canary}");
    for user in 0..20 {
        let request = format!("GET /x HTTP/1.1\r\nHost: a.test\r\nCookie: sid=user-{user}\r\nX-Canary: 1\r\n\r\n");
        assert_eq!(client.ask(&request).await.text(), "canary");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_without_weight_gets_only_those_who_ask_for_it() {
    let sides = Sides::start((1, 0), "").await;
    let mut client = sides.gateway.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/x").await.text(), "stable");
    }
    assert_eq!(client.ask("GET /x HTTP/1.1\r\nHost: a.test\r\nX-Canary: 1\r\n\r\n").await.text(), "canary");
    assert_eq!(sides.gateway.h2().await.get("/x").await.body, b"stable");
    assert_eq!(sides.asked(), (51, 1));
}
