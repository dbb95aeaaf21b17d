//! The DNS: what it says, how long that is good, and what happens while it says nothing.

use std::time::Duration;

use super::name_server::{Mood, NameServer, Record};
use super::{Fleet, has, is_up, lines, routed, series, served, shown, targets};
use crate::harness::{Gateway, Upstream, within};

const NAME: &str = "tasks.test";

fn dns(server: &NameServer, fleet: &Fleet, keys: &str) -> String {
    let (resolver, port) = (server.address, fleet.port);
    format!("discovery: {{ dns: {{ name: {NAME}, port: {port}, resolver: [\"{resolver}\"]{keys} }} }}")
}

fn addresses(fleet: &Fleet, numbers: &[u8]) -> Vec<Record> {
    numbers.iter().map(|number| Record::A(fleet.ip(*number))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_come_and_go_with_their_time() {
    let (fleet, server) = (Fleet::of(3).await, NameServer::start().await);
    server.set(NAME, 1, addresses(&fleet, &[1]));
    let gateway = Gateway::start(&routed(&dns(&server, &fleet, ""))).await;
    let one = fleet.address(1).to_string();
    assert_eq!(served(&gateway, 4).await, [(one.clone(), 4)], "the start waits for the first answer");
    // In any order: a set is a set.
    server.set(NAME, 1, addresses(&fleet, &[3, 1, 2]));
    has(&gateway, &[fleet.address(1), fleet.address(2), fleet.address(3)]).await;
    let counts: Vec<usize> = served(&gateway, 30).await.into_iter().map(|(_, count)| count).collect();
    assert_eq!(counts, [10, 10, 10]);
    assert!(gateway.scrape().await.has(&format!("target=\"{one}\"")));
    server.set(NAME, 1, addresses(&fleet, &[2]));
    has(&gateway, &[fleet.address(2)]).await;
    assert_eq!(served(&gateway, 4).await, [(fleet.address(2).to_string(), 4)]);
    // What is gone gives its series back.
    gateway.never_counts(&format!("target=\"{one}\"")).await;
    let (up, endpoints) = (series("up", "dns"), series("endpoints", "dns"));
    gateway.counts(&[(&up, 1.0), (&endpoints, 1.0)]).await;
    assert_eq!(gateway.status().await["generation"], 1, "without a reload");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_good_for_its_time_within_bounds() {
    let (fleet, server) = (Fleet::of(2).await, NameServer::start().await);
    server.set(NAME, 3600, addresses(&fleet, &[1]));
    let gateway = Gateway::start(&routed(&dns(&server, &fleet, ", type: a"))).await;
    assert_eq!(targets(&gateway).await.len(), 1);
    let asked = server.asked();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.asked(), asked, "an hour is not over, nor are five minutes");
    let short = NameServer::start().await;
    short.set(NAME, 3600, addresses(&fleet, &[1]));
    let gateway = Gateway::start(&routed(&dns(&short, &fleet, ", type: a, ttl_max: 1s"))).await;
    short.asked_again(3).await;
    short.set(NAME, 0, addresses(&fleet, &[2]));
    has(&gateway, &[fleet.address(2)]).await;
    // A time of 0 is a second here.
    let (asked, begun) = (short.asked(), std::time::Instant::now());
    short.asked_again(3).await;
    assert!(begun.elapsed() > Duration::from_secs(2) && short.asked() >= asked + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_last_stays_while_there_is_no_answer() {
    let (fleet, server) = (Fleet::of(2).await, NameServer::start().await);
    server.set(NAME, 1, addresses(&fleet, &[1]));
    let mut gateway = Gateway::start(&routed(&dns(&server, &fleet, ", type: a"))).await;
    let all = [fleet.address(1).to_string()];
    let up = series("up", "dns");
    for (episode, (mood, why)) in [
        (Mood::Code(2), "Server Failure"),
        (Mood::Code(3), "NXDOMAIN"),
        (Mood::Silent, "no name server answers in time"),
        (Mood::Well, "no such record"),
    ]
    .into_iter()
    .enumerate()
    {
        if mood == Mood::Well {
            server.set(NAME, 1, Vec::new());
        }
        server.be(mood);
        is_up(&gateway, false).await;
        let error = shown(&gateway).await["discovery"]["error"].as_str().unwrap().to_owned();
        assert!(error.contains(why), "{mood:?}: {error}");
        server.asked_again(3).await;
        gateway.counts(&[(&up, 0.0)]).await;
        assert_eq!(targets(&gateway).await, all, "{mood:?}");
        served(&gateway, 3).await;
        server.set(NAME, 1, addresses(&fleet, &[1]));
        server.be(Mood::Well);
        is_up(&gateway, true).await;
        gateway.counts(&[(&up, 1.0)]).await;
        // The counter moves a moment before the line is written.
        gateway.logged_times(episode + 1, "discovery works again").await;
        let told = (lines(&gateway, "discovery fails"), lines(&gateway, "discovery works again"));
        assert_eq!(told, (episode + 1, episode + 1), "one line for each episode");
    }
    server.set(NAME, 1, addresses(&fleet, &[2]));
    has(&gateway, &[fleet.address(2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_used_no_more() {
    let (fleet, server) = (Fleet::of(1).await, NameServer::start().await);
    server.set(NAME, 1, addresses(&fleet, &[1]));
    let gateway = Gateway::start(&routed(&dns(&server, &fleet, ", type: a, stale_max: 2s"))).await;
    served(&gateway, 1).await;
    server.be(Mood::Code(2));
    has(&gateway, &[]).await;
    gateway.get("/").await.refused(503, "UPSTREAM_UNAVAILABLE");
    server.be(Mood::Well);
    has(&gateway, &[fleet.address(1)]).await;
    served(&gateway, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_without_a_name_server_and_needs_no_restart() {
    let fleet = Fleet::of(1).await;
    let resolver = Upstream::dead_address().await;
    let keys = format!("discovery: {{ dns: {{ name: {NAME}, port: {}, resolver: [\"{resolver}\"] }} }}", fleet.port);
    let gateway = Gateway::start(&routed(&keys)).await;
    gateway.get("/").await.refused(503, "UPSTREAM_UNAVAILABLE");
    let server = NameServer::start_at(resolver).await;
    server.set(NAME, 1, addresses(&fleet, &[1]));
    has(&gateway, &[fleet.address(1)]).await;
    served(&gateway, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn srv_records_say_ports_weights_and_who_stands_by() {
    let (fleet, server) = (Fleet::of(3).await, NameServer::start().await);
    let hosts = ["a.test", "b.test", "c.test"];
    for (host, number) in hosts.iter().zip(1..) {
        server.set(host, 1, addresses(&fleet, &[number]));
    }
    let record = |priority, weight, host| Record::Srv(priority, weight, fleet.port, host);
    server.set("_http._tcp.test", 1, vec![record(10, 3, "a.test"), record(10, 1, "b.test"), record(20, 9, "c.test")]);
    let resolver = server.address;
    let keys = format!("discovery: {{ dns: {{ name: _http._tcp.test, type: srv, resolver: [\"{resolver}\"] }} }}");
    let gateway = Gateway::start(&routed(&keys)).await;
    let [a, b, c] = [1, 2, 3].map(|number| fleet.address(number));
    has(&gateway, &[a, b, c]).await;
    let mut counts = served(&gateway, 40).await;
    counts.sort_by_key(|(_, count)| *count);
    assert_eq!(counts, [(b.to_string(), 10), (a.to_string(), 30)], "the third one stands by");
    // Those of the lowest priority that have an address get the requests.
    server.set("_http._tcp.test", 1, vec![record(20, 9, "c.test"), record(10, 1, "gone.test")]);
    has(&gateway, &[c]).await;
    assert_eq!(served(&gateway, 4).await, [(c.to_string(), 4)]);
    is_up(&gateway, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_kind_of_address_that_fails_takes_nothing_from_the_other() {
    let (fleet, server) = (Fleet::of(2).await, NameServer::start().await);
    let local = std::net::Ipv6Addr::LOCALHOST;
    server.set(NAME, 1, vec![Record::A(fleet.ip(1)), Record::Aaaa(local)]);
    let gateway = Gateway::start(&routed(&dns(&server, &fleet, ""))).await;
    let six = std::net::SocketAddr::from((local, fleet.port));
    has(&gateway, &[fleet.address(1), six]).await;
    // A name may lose all of one kind.
    server.set(NAME, 1, addresses(&fleet, &[1, 2]));
    has(&gateway, &[fleet.address(1), fleet.address(2)]).await;
    is_up(&gateway, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_was_found() {
    let (fleet, server) = (Fleet::of(2).await, NameServer::start().await);
    server.set(NAME, 1, addresses(&fleet, &[1, 2]));
    let both = [fleet.address(1), fleet.address(2)];
    let gateway = Gateway::start(&routed(&dns(&server, &fleet, ""))).await;
    has(&gateway, &both).await;
    server.be(Mood::Silent);
    let yaml = gateway.folder.read("gateway.yaml");
    for keys in ["balance: random", "balance: { hash: path }, retry: { attempts: 3 }", "slow_start: 1s"] {
        gateway.folder.write("gateway.yaml", &yaml.replace("main: { ", &format!("main: {{ {keys}, ")));
        gateway.reload_well().await;
        assert_eq!(targets(&gateway).await.len(), 2, "{keys}");
        served(&gateway, 4).await;
    }
    // Another way to ask for the same.
    gateway.folder.write("gateway.yaml", &yaml.replace(", port:", ", ttl_max: 2s, port:"));
    gateway.reload_well().await;
    assert_eq!(targets(&gateway).await.len(), 2);
    served(&gateway, 4).await;
    // Something else: nothing is known of it.
    gateway.folder.write("gateway.yaml", &yaml.replace(NAME, "other.test"));
    gateway.reload_well().await;
    assert!(targets(&gateway).await.is_empty());
    gateway.get("/").await.refused(503, "UPSTREAM_UNAVAILABLE");
    server.set("other.test", 1, addresses(&fleet, &[1, 2]));
    server.be(Mood::Well);
    has(&gateway, &both).await;
    within("an answer", served(&gateway, 2)).await;
}
