//! Consul, played by a server that speaks its protocol as the documentation of blocking queries has it: no package of the real
//! one is to be had for this machine.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Fleet, has, is_up, lines, routed, served, shown};
use crate::harness::{Gateway, Upstream, within};

/// What it says, and with which index.
#[derive(Clone)]
struct Catalogue {
    index: u64,
    status: u16,
    instances: Value,
}

struct Consul {
    server: Upstream,
    catalogue: Arc<watch::Sender<Catalogue>>,
}

impl Consul {
    async fn start(instances: Value) -> Self {
        let catalogue = Arc::new(watch::Sender::new(Catalogue { index: 7, status: 200, instances }));
        let known = Arc::clone(&catalogue);
        let server = Upstream::scripted(move |mut conn| {
            let mut followed = known.subscribe();
            async move {
                while let Some(request) = conn.request().await {
                    let index = request.target.split_once("index=").map(|(_, index)| index.parse::<u64>().unwrap());
                    // Held until there is something else than the asker knows.
                    let changed = async {
                        followed.wait_for(|now| index.is_none_or(|index| now.index != index)).await.unwrap().clone()
                    };
                    let Catalogue { index, status, instances } = tokio::select! {
                        now = changed => now,
                        () = conn.closed() => return,
                    };
                    let body = instances.to_string();
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status} Said\r\nX-Consul-Index: {index}\r\nContent-Length: {length}\r\n\r\n"
                    );
                    conn.send([head, body].concat()).await;
                }
            }
        })
        .await;
        Self { server, catalogue }
    }

    fn say(&self, index: u64, status: u16, instances: Value) {
        self.catalogue.send_replace(Catalogue { index, status, instances });
    }

    /// Waits for a question whose target ends like this.
    async fn asked(&self, end: &str) {
        let asked = async {
            while !self.server.requests().last().is_some_and(|request| request.target.ends_with(end)) {
                tokio::task::yield_now().await;
            }
        };
        within(end, asked).await;
    }
}

fn instance(fleet: &Fleet, number: u8) -> Value {
    json!({
        "Node": { "Node": "n", "Address": "10.9.9.9" },
        "Service": { "ID": format!("s{number}"), "Service": "tasks", "Address": fleet.ip(number).to_string(),
                     "Port": fleet.port, "Weights": { "Passing": 1, "Warning": 1 } },
        "Checks": [{ "Status": "passing" }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_changes_and_outlives_its_absence() {
    let fleet = Fleet::of(3).await;
    let consul = Consul::start(json!([instance(&fleet, 1)])).await;
    let keys = format!(
        "discovery: {{ consul: {{ address: \"http://{}\", service: tasks, tag: v1, datacenter: dc1, token: a-secret }} }}",
        consul.server.address
    );
    let mut gateway = Gateway::start(&routed(&keys)).await;
    served(&gateway, 2).await;
    let first = consul.server.received(1).await.remove(0);
    assert_eq!(first.target, "/v1/health/service/tasks?passing=1&tag=v1&dc=dc1&wait=55s");
    assert_eq!(first.head.get("x-consul-token"), Some("a-secret"));
    consul.asked("wait=55s&index=7").await;
    // It hangs in Consul: what changes is there at once.
    consul.say(8, 200, json!([instance(&fleet, 1), instance(&fleet, 2)]));
    has(&gateway, &[fleet.address(1), fleet.address(2)]).await;
    consul.asked("index=8").await;
    // An index that goes backwards is forgotten.
    consul.say(3, 200, json!([instance(&fleet, 2)]));
    has(&gateway, &[fleet.address(2)]).await;
    consul.asked("index=3").await;
    let indices: Vec<bool> = consul.server.requests().iter().map(|it| it.target.contains("index=")).collect();
    assert_eq!(indices, [false, true, true, false, true], "asked anew without waiting");
    // 0 is no index to wait behind.
    consul.say(0, 200, json!([instance(&fleet, 3)]));
    has(&gateway, &[fleet.address(3)]).await;
    consul.say(9, 500, json!("no cluster leader"));
    is_up(&gateway, false).await;
    assert_eq!(shown(&gateway).await["discovery"]["error"], "Consul answers 500 Internal Server Error");
    assert_eq!(served(&gateway, 2).await, [(fleet.address(3).to_string(), 2)]);
    consul.say(10, 403, json!("Permission denied"));
    within("the refusal", async {
        while shown(&gateway).await["discovery"]["error"] != "Consul refuses the token (403)" {}
    })
    .await;
    consul.say(11, 200, json!([instance(&fleet, 1)]));
    has(&gateway, &[fleet.address(1)]).await;
    is_up(&gateway, true).await;
    gateway.logged_times(1, "discovery works again").await;
    assert_eq!((lines(&gateway, "discovery fails"), lines(&gateway, "discovery works again")), (1, 1));
    // None that passes is an answer.
    consul.say(12, 200, json!([]));
    has(&gateway, &[]).await;
    gateway.get("/").await.refused(503, "UPSTREAM_UNAVAILABLE");
    assert!(!gateway.lines().iter().any(|line| line.contains("a-secret")));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_without_consul() {
    let fleet = Fleet::of(1).await;
    let address = Upstream::dead_address().await;
    let keys = format!("discovery: {{ consul: {{ address: \"http://{address}\", service: tasks }} }}");
    let gateway = Gateway::start(&routed(&keys)).await;
    gateway.get("/").await.refused(503, "UPSTREAM_UNAVAILABLE");
    let body = json!([instance(&fleet, 1)]).to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nX-Consul-Index: 5\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _consul = Upstream::scripted_at(address, move |mut conn| {
        let answer = answer.clone();
        async move {
            while let Some(request) = conn.request().await {
                if request.target.contains("index=") {
                    return conn.closed().await;
                }
                conn.send(&answer).await;
            }
        }
    })
    .await;
    has(&gateway, &[fleet.address(1)]).await;
    served(&gateway, 2).await;
}
