//! A disk that is full.

use std::time::Duration;

use super::{Behaviour, Crowd, Figures, Service, Site, emptied, held, signed};
use crate::harness::{Disk, Gateway};

/// With the state file and the inbox on this disk.
fn site(disk: &Disk, service: &Service) -> Site {
    Site::new(format!("state: {{ file: {} }}\n", disk.path().join("tollgate.db").display()), service.upstream.address)
}

/// Others fill the disk in the middle of a burst, twice; when there is room again it works, without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_loses_nothing() {
    let Some(disk) = Disk::mount("24m") else { return };
    let service = Service::start(Behaviour::Busy).await;
    let gateway = site(&disk, &service).start().await;
    let crowd = Crowd::gather(6);
    crowd.send_to(&[gateway.address]);
    for _ in 0..2 {
        crowd.heard_acknowledged(60).await;
        disk.fill();
        crowd.heard_refused("STATE_UNAVAILABLE", 100).await;
        disk.free();
    }
    crowd.heard_acknowledged(60).await;
    let told = crowd.finish().await;
    emptied(&gateway).await;
    gateway.stop().await;
    let figures = Figures::of(&told, &service.arrivals(), |_| false);
    eprintln!("a full disk: {figures}");
    assert_eq!((figures.cut, figures.stored_again), (0, 0), "what was refused was not stored: {figures}");
}

/// The inbox itself fills the disk, as its service is away: what is kept free is enough to deliver what is stored.
#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_that_fills_the_disk_can_be_emptied() {
    let Some(disk) = Disk::mount("16m") else { return };
    let address = crate::harness::Upstream::dead_address().await;
    let mut site = Site::new(format!("state: {{ file: {} }}\n", disk.path().join("tollgate.db").display()), address);
    site.inbox = ", concurrency: 16";
    let gateway = site.start().await;
    let crowd = Crowd::gather(6);
    crowd.send_to(&[gateway.address]);
    crowd.heard_refused("STATE_UNAVAILABLE", 200).await;
    let stored = held(&gateway).await.0;
    assert!(stored > 200, "{stored}");
    let service = Service::start_at(address, Behaviour::Slow(Duration::ZERO)).await;
    let told = crowd.finish().await;
    emptied(&gateway).await;
    gateway.stop().await;
    let figures = Figures::of(&told, &service.arrivals(), |_| false);
    eprintln!("an inbox that fills the disk: {figures}");
    assert_eq!((figures.cut, figures.stored_again), (0, 0), "what was refused was not stored: {figures}");
}

/// Killed on a full disk. Whether the next one can start is said; what was acknowledged is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_on_a_full_disk_loses_nothing() {
    let Some(disk) = Disk::mount("24m") else { return };
    let service = Service::start(Behaviour::Slow(Duration::from_millis(100))).await;
    let site = site(&disk, &service);
    let gateway = site.start().await;
    let crowd = Crowd::gather(6);
    crowd.send_to(&[gateway.address]);
    crowd.heard_acknowledged(60).await;
    disk.fill();
    crowd.heard_refused("STATE_UNAVAILABLE", 20).await;
    kill(gateway).await;
    // The next one starts, or says why not.
    let mut gateway = Gateway::spawn_in(site.folder());
    if gateway.logged("").await.contains("database or disk is full") {
        assert!(!gateway.ended().await.success());
    } else {
        kill(gateway).await;
    }
    disk.free();
    let gateway = site.start().await;
    crowd.send_to(&[gateway.address]);
    crowd.heard_acknowledged(60).await;
    kill(gateway).await;
    super::kills::a_minute_passes(disk.path());
    let gateway = site.start().await;
    crowd.send_to(&[gateway.address]);
    let told = crowd.finish().await;
    emptied(&gateway).await;
    gateway.stop().await;
    let figures = Figures::of(&told, &service.arrivals(), |_| false);
    eprintln!("a kill on a full disk: {figures}");
}

async fn kill(mut gateway: Gateway) {
    gateway.signal("KILL");
    gateway.ended().await;
}

/// There is no inbox yet, and no room for one.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_message_on_a_full_disk_is_refused_until_there_is_room() {
    let Some(disk) = Disk::mount("8m") else { return };
    let service = Service::start(Behaviour::Busy).await;
    let gateway = site(&disk, &service).start().await;
    disk.fill();
    let (head, body) = signed("m-1");
    let mut client = gateway.client().await;
    for _ in 0..2 {
        client.send(&head).await;
        client.send(&body).await;
        client.response().await.refused(503, "STATE_UNAVAILABLE");
    }
    disk.free();
    client.send(&head).await;
    client.send(&body).await;
    assert_eq!(client.response().await.status, 202);
    emptied(&gateway).await;
    gateway.stop().await;
    assert_eq!(service.arrivals().iter().filter(|arrival| arrival.is_done).count(), 1);
}
