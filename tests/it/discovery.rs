//! Targets that come and go without a reload: nothing is lost for it, and what was found last stays in use.

mod consul;
mod dns;
mod file;
mod name_server;
mod registry;
mod traffic;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;

use crate::harness::{Gateway, Upstream, answer, within};

/// Services that say who they are, at one port of several addresses: the DNS tells addresses only.
struct Fleet {
    port: u16,
    network: [u8; 2],
    services: Vec<Upstream>,
}

impl Fleet {
    async fn of(count: u8) -> Self {
        let SocketAddr::V4(free) = Upstream::dead_address().await else { panic!("an address of IPv4") };
        let [_, process, number, low] = free.ip().octets();
        // No other fleet of this process begins with these.
        let network = [process, number ^ 0x80 ^ low];
        let mut fleet = Self { port: free.port(), network, services: Vec::new() };
        for number in 1..=count {
            let address = fleet.address(number);
            let script = move |mut conn: crate::harness::Conn| async move {
                while let Some(request) = conn.request().await {
                    if request.target.starts_with("/slow") {
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    }
                    conn.send(answer(200, address.to_string().as_bytes())).await;
                }
            };
            fleet.services.push(Upstream::scripted_at(address, script).await);
        }
        fleet
    }

    fn ip(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.network[0], self.network[1], number)
    }

    fn address(&self, number: u8) -> SocketAddr {
        SocketAddr::from((self.ip(number), self.port))
    }
}

/// A gateway whose upstream `main` has these keys; everything leads to it.
fn routed(keys: &str) -> String {
    format!(
        "admin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n  main: {{ {keys} }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n"
    )
}

/// `upstreams[0]` on `/status`.
async fn shown(gateway: &Gateway) -> Value {
    gateway.ask_admin("GET /status").await.json()["upstreams"][0].take()
}

/// The targets it has now.
async fn targets(gateway: &Gateway) -> Vec<String> {
    let shown = shown(gateway).await;
    let targets = shown["targets"].as_array().unwrap().iter();
    targets.map(|target| target["address"].as_str().unwrap().to_owned()).collect()
}

/// Waits until it has these targets and no others.
async fn has(gateway: &Gateway, wanted: &[SocketAddr]) {
    let wanted: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
    let mut last = Vec::new();
    let right = async {
        loop {
            last = targets(gateway).await;
            if last.iter().cloned().collect::<BTreeSet<_>>() == wanted {
                return;
            }
        }
    };
    if tokio::time::timeout(crate::harness::PATIENCE, right).await.is_err() {
        panic!("the targets never became {wanted:?}, they are {last:?}");
    }
}

/// Waits until the discovery is up, or down.
async fn is_up(gateway: &Gateway, up: bool) {
    within("the discovery to turn", async { while shown(gateway).await["discovery"]["up"] != up {} }).await;
}

/// Who answers so many requests, and how often.
async fn served(gateway: &Gateway, requests: usize) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    let mut client = gateway.client().await;
    for number in 0..requests {
        let response = client.get(&format!("/{number}")).await;
        assert_eq!(response.status, 200, "{}", response.text());
        *counts.entry(response.text().to_owned()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

/// How many lines of the log hold this.
fn lines(gateway: &Gateway, text: &str) -> usize {
    gateway.lines().iter().filter(|line| line.contains(text)).count()
}

fn series(name: &str, source: &str) -> String {
    format!("tollgate_discovery_{name}{{source=\"{source}\",upstream=\"main\"}}")
}
