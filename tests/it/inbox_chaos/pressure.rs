//! A service that is away for long, and one that never takes some messages.

use super::service::is_hopeless;
use super::{Behaviour, Crowd, Figures, Service, Site, emptied, held};
use crate::harness::{Upstream, within};

fn site(folder: &tempfile::TempDir, service: std::net::SocketAddr, inbox: &'static str) -> Site {
    let state = format!("state: {{ file: {} }}\n", folder.path().join("tollgate.db").display());
    Site { inbox, ..Site::new(state, service) }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_service_is_away_the_inbox_fills_and_then_says_so() {
    let (folder, address) = (tempfile::tempdir().unwrap(), Upstream::dead_address().await);
    let site = site(&folder, address, ", messages_max: 50");
    let mut gateway = site.start().await;
    let crowd = Crowd::gather(6);
    crowd.send_to(&[gateway.address]);
    crowd.heard_refused("INBOX_FULL", 100).await;
    assert_eq!((held(&gateway).await, crowd.told().acknowledged), ((50, 0), 50));
    gateway.logged("deliveries pause").await;
    // Full it stays.
    crowd.send_to(&[]);
    gateway.stop().await;
    let gateway = site.start().await;
    crowd.send_to(&[gateway.address]);
    crowd.heard_refused("INBOX_FULL", 100).await;
    assert_eq!((held(&gateway).await, crowd.told().acknowledged), ((50, 0), 50));
    let service = Service::start_at(address, Behaviour::Busy).await;
    crowd.heard_acknowledged(100).await;
    let told = crowd.finish().await;
    emptied(&gateway).await;
    gateway.stop().await;
    let figures = Figures::of(&told, &service.arrivals(), |_| false);
    eprintln!("a service that was away: {figures}");
    assert_eq!((figures.known, figures.stored_again), (0, 0), "{figures}");
}

/// Messages that the service never takes are dead after their last attempt: counted, kept, and taking their room.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_never_takes_is_dead_and_counted() {
    let (folder, service) = (tempfile::tempdir().unwrap(), Service::start(Behaviour::Picky).await);
    let site = site(&folder, service.upstream.address, ", attempts: 3, schedule: [5ms], messages_max: 60");
    let gateway = site.start().await;
    let crowd = Crowd::gather(6);
    crowd.send_to(&[gateway.address]);
    // In the end nothing but dead ones.
    within("an inbox full of dead messages", async { while held(&gateway).await != (0, 60) {} }).await;
    crowd.heard_refused("INBOX_FULL", 50).await;
    gateway
        .counts(&[
            ("tollgate_inbox_dead_total{inbox=\"hooks\"}", 60.0),
            ("tollgate_inbox_messages{inbox=\"hooks\",standing=\"dead\"}", 60.0),
        ])
        .await;
    let ids: Vec<String> = gateway.ask_admin("GET /inboxes/hooks?standing=dead&limit=100").await.json()["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 60);
    let arrivals = service.arrivals();
    for id in &ids {
        let attempts: Vec<u32> = arrivals.iter().filter(|one| one.id == *id).map(|one| one.attempt).collect();
        assert_eq!(attempts, [1, 2, 3], "{id}");
    }
    // Room for the rest.
    let mut dropped = ids.len();
    for id in &ids {
        let gone = gateway.ask_admin(&format!("DELETE /inboxes/hooks/{id}")).await;
        dropped -= usize::from(gone.status == 200 || gone.status == 204);
    }
    assert_eq!(dropped, 0);
    gateway.stop().await;
    let gateway = Site { inbox: ", attempts: 3, schedule: [5ms]", ..site }.start().await;
    crowd.send_to(&[gateway.address]);
    let told = crowd.finish().await;
    emptied(&gateway).await;
    gateway.stop().await;
    let figures = Figures::of(&told, &service.arrivals(), is_hopeless);
    eprintln!("a picky service: {figures}");
    assert!(figures.delivered < figures.messages, "{figures}");
}
