//! `kill -9` of the gateway.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Behaviour, Crowd, Figures, Service, Site, emptied, signed};
use crate::harness::{Gateway, Response};

const FILE: &str = "tollgate.db";
const KILLS: usize = 100;

fn site(folder: &TempDir, service: &Service) -> Site {
    Site::new(format!("state: {{ file: {} }}\n", folder.path().join(FILE).display()), service.upstream.address)
}

/// Makes the entries of a state file look as they will in a minute and a second. No gateway has it open.
pub fn a_minute_passes(folder: &Path) {
    let connection = rusqlite::Connection::open(folder.join(FILE)).unwrap();
    connection.execute("UPDATE entries SET expires = expires - 61000 WHERE space = 'replay'", []).unwrap();
}

async fn kill(mut gateway: Gateway) {
    gateway.signal("KILL");
    gateway.ended().await;
}

/// Starts a hundred gateways one after the other on the same files, and kills each at some moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_lose_nothing() {
    let began = Instant::now();
    let (folder, service) = (tempfile::tempdir().unwrap(), Service::start(Behaviour::Busy).await);
    let site = site(&folder, &service);
    let crowd = Crowd::gather(8);
    for round in 0..KILLS {
        if round % 8 == 7 {
            // While it starts, or just when it has.
            let gateway = Gateway::spawn_in(site.folder());
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..120))).await;
            kill(gateway).await;
            continue;
        }
        let gateway = site.start().await;
        crowd.send_to(&[gateway.address]);
        if round % 3 == 0 {
            crowd.heard_acknowledged(1).await;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..350))).await;
        kill(gateway).await;
        if round % 5 == 4 {
            a_minute_passes(folder.path());
        }
    }
    a_minute_passes(folder.path());
    let gateway = site.start().await;
    crowd.send_to(&[gateway.address]);
    let told = crowd.finish().await;
    emptied(&gateway).await;
    gateway.stop().await;
    let figures = Figures::of(&told, &service.arrivals(), |_| false);
    eprintln!("{KILLS} kills in {:?}: {figures}", began.elapsed());
    assert!(figures.cut > KILLS && figures.messages > KILLS * 2, "no burst: {figures}");
    assert!(figures.again + figures.stored_again > 0, "no kill had any effect: {figures}");
}

async fn send(gateway: &Gateway, name: &str) -> Response {
    let (head, body) = signed(name);
    let mut client = gateway.client().await;
    client.send(head).await;
    client.send(body).await;
    client.response().await
}

/// Nothing was stored, and nothing acknowledged: for a minute nobody knows that, then the message passes.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_it_was_stored_it_comes_again_after_a_minute() {
    let (folder, service) = (tempfile::tempdir().unwrap(), Service::start(Behaviour::Slow(Duration::ZERO)).await);
    let mut site = site(&folder, &service);
    site.filters = ", { fault: { delay: 1m, header: X-Rehearsal } }";
    let gateway = site.start().await;
    let (mut client, (head, body)) = (gateway.client().await, signed("m-1"));
    client.send(head.replacen("\r\n", "\r\nX-Rehearsal: 1\r\n", 1)).await;
    client.send(body).await;
    gateway.counts(&[("tollgate_replay_noted", 1.0)]).await;
    // Behind it: when this one is stored, the store has heard of the other.
    assert_eq!(send(&gateway, "m-2").await.status, 202);
    kill(gateway).await;
    let gateway = site.start().await;
    let told = send(&gateway, "m-1").await;
    told.refused(409, "IN_PROGRESS");
    assert_eq!(told.head.get("retry-after"), Some("1"));
    emptied(&gateway).await;
    kill(gateway).await;
    a_minute_passes(folder.path());
    let gateway = site.start().await;
    let told = send(&gateway, "m-1").await;
    assert_eq!(told.status, 202, "{told:?}");
    emptied(&gateway).await;
    gateway.stop().await;
    let arrivals: Vec<_> = service.arrivals().into_iter().filter(|arrival| arrival.name == "m-1").collect();
    assert_eq!(arrivals.len(), 1, "{arrivals:?}");
    assert_eq!((Some(&*arrivals[0].id), arrivals[0].attempt), (told.head.get("x-message-id"), 1));
}

/// It is stored, and its sender does not know: it is delivered; sent again it is not acknowledged without being stored, and
/// what comes of that has the same key.
#[tokio::test(flavor = "multi_thread")]
async fn killed_after_it_was_stored_it_is_delivered_and_comes_again_with_the_same_key() {
    let (folder, service) = (tempfile::tempdir().unwrap(), Service::start(Behaviour::Slow(Duration::ZERO)).await);
    let site = site(&folder, &service);
    let gateway = site.start().await;
    let first = send(&gateway, "m-1").await;
    assert_eq!(first.status, 202, "{first:?}");
    service.arrived(1).await;
    emptied(&gateway).await;
    gateway.stop().await;
    // As a kill leaves it that comes when the message is stored and the store has not heard that it is.
    let connection = rusqlite::Connection::open(folder.path().join(FILE)).unwrap();
    let on_its_way = "UPDATE entries SET value = CAST('p ' || :ends || ' 0.0' AS BLOB), expires = :ends
         WHERE space = 'replay' AND value = CAST('d' AS BLOB)";
    let ends = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() + 60_000;
    assert_eq!(connection.execute(on_its_way, [i64::try_from(ends).unwrap()]).unwrap(), 1);
    drop(connection);
    let gateway = site.start().await;
    send(&gateway, "m-1").await.refused(409, "IN_PROGRESS");
    kill(gateway).await;
    a_minute_passes(folder.path());
    let gateway = site.start().await;
    let second = send(&gateway, "m-1").await;
    assert_eq!(second.status, 202, "{second:?}");
    service.arrived(2).await;
    emptied(&gateway).await;
    assert_eq!(send(&gateway, "m-1").await.status, 200, "from now on it is known");
    gateway.stop().await;
    let arrivals = service.arrivals();
    let ids: Vec<Option<&str>> = arrivals.iter().map(|arrival| Some(&*arrival.id)).collect();
    assert_eq!(ids, [first.head.get("x-message-id"), second.head.get("x-message-id")]);
    assert_eq!((arrivals[0].attempt, arrivals[1].attempt), (1, 1), "two messages of the inbox");
    assert_eq!(arrivals[0].key, arrivals[1].key, "of one thing");
}

/// Whoever is told that a message is known can rely on it: only what is stored is remembered as such.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_known_after_a_kill_or_on_its_way() {
    let (folder, service) = (tempfile::tempdir().unwrap(), Service::start(Behaviour::Slow(Duration::ZERO)).await);
    let site = site(&folder, &service);
    for round in 0..5 {
        let name = format!("m-{round}");
        let gateway = site.start().await;
        assert_eq!(send(&gateway, &name).await.status, 202);
        kill(gateway).await;
        let gateway = site.start().await;
        let told = send(&gateway, &name).await;
        assert!(told.status == 200 || told.is_refusal("IN_PROGRESS"), "{told:?}");
        emptied(&gateway).await;
        kill(gateway).await;
    }
    let arrivals = service.arrivals();
    let ids: std::collections::BTreeSet<&str> = arrivals.iter().map(|arrival| &*arrival.id).collect();
    assert_eq!(ids.len(), 5, "{arrivals:?}");
    assert!(arrivals.iter().all(|arrival| arrival.attempt <= 2), "{arrivals:?}");
}
