//! One service of three is killed again and again, without a word, under load.
//!
//! `TOLLGATE_CHAOS_SECONDS=600 cargo test --test it -- chaos_targets --nocapture` is the real thing; without it some seconds.

mod network;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Client, Folder, Gateway, Upstream, within};

const SERVICES: usize = 3;
const CLIENTS: u64 = 8;

/// How long it lasts.
fn duration() -> Duration {
    let seconds = std::env::var("TOLLGATE_CHAOS_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(15))
}

/// A service that is a process of its own: it answers with the path it was asked for.
async fn service(address: SocketAddr) -> Gateway {
    let yaml = format!(
        "version: 1\nlisteners: [{{ bind: \"{address}\" }}]\nthreads: 1\naccess_log: {{ to: none }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", respond: {{ body: \"{{path}}\" }} }}\n"
    );
    Gateway::start_in(Folder::with(&[("gateway.yaml", &yaml)])).await
}

#[derive(Default)]
struct Tally {
    gets: AtomicU64,
    posts: AtomicU64,
    gets_lost: AtomicU64,
    posts_lost: AtomicU64,
}

/// Asks until it is told to stop; every answer has to be the own one, or a refusal that says so.
async fn client(who: u64, address: SocketAddr, tally: Arc<Tally>, stop: Arc<AtomicBool>) {
    let mut client = Client::connect(address).await;
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let is_post = number.is_multiple_of(4);
        let target = format!("/{who}/{number}");
        let response = if is_post { client.post(&target, b"body").await } else { client.get(&target).await };
        let (sent, lost) = if is_post { (&tally.posts, &tally.posts_lost) } else { (&tally.gets, &tally.gets_lost) };
        sent.fetch_add(1, Ordering::Relaxed);
        if response.status == 200 {
            assert_eq!(response.text(), target, "the answer to another request");
        } else {
            response.refused(502, "BAD_GATEWAY");
            lost.fetch_add(1, Ordering::Relaxed);
        }
        if response.head.get("connection") == Some("close") {
            client = Client::connect(address).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_services_lose_no_get_and_cross_nothing() {
    let mut services = Vec::new();
    let mut targets = String::new();
    for _ in 0..SERVICES {
        let address = Upstream::dead_address().await;
        services.push((address, service(address).await));
        targets += &format!("{{ address: \"{address}\" }}, ");
    }
    let gateway = Gateway::start(&format!(
        "upstreams:\n  main: {{ targets: [{targets}], timeouts: {{ first_byte: 100s }}, retry: {{ attempts: 3, on: [connect, reset] }} }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n"
    ))
    .await;
    let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|who| tokio::spawn(client(who, gateway.address, Arc::clone(&tally), Arc::clone(&stop))))
        .collect();
    let (start, mut kills) = (Instant::now(), 0_usize);
    while start.elapsed() < duration() {
        // So many answers between two kills that all of the services are in use again.
        let before = tally.gets.load(Ordering::Relaxed);
        within("answers", async {
            while tally.gets.load(Ordering::Relaxed) < before + 300 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let (address, victim) = &mut services[kills % SERVICES];
        victim.signal("KILL");
        victim.ended().await;
        kills += 1;
        *victim = service(*address).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        within("the last answers", client).await.unwrap();
    }
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (gets_lost, posts_lost) = (count(&tally.gets_lost), count(&tally.posts_lost));
    eprintln!(
        "{kills} kills; {} GETs, {gets_lost} lost; {} POSTs, {posts_lost} lost",
        count(&tally.gets),
        count(&tally.posts)
    );
    assert!(kills > 0);
    assert_eq!(gets_lost, 0, "of {kills} kills");
    // A client has one request in flight: a kill cannot cost more than that of each. What was in flight may have been done.
    assert!(posts_lost <= kills as u64 * CLIENTS, "{posts_lost} POSTs of {kills} kills");
}
