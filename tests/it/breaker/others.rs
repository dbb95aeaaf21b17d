//! What a breaker has to do with other targets, fallbacks, reloads, inboxes and other gateways.

use super::*;
use crate::harness::Folder;

/// A service that answers with 500 until it is told to answer otherwise.
async fn faulty() -> (watch::Sender<u16>, Upstream) {
    let (status, seen) = watch::channel(500);
    let upstream = Upstream::scripted(move |mut conn| {
        let seen = seen.clone();
        async move {
            while conn.request().await.is_some() {
                let status = *seen.borrow();
                conn.send(answer(status, b"")).await;
            }
        }
    })
    .await;
    (status, upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_target_is_left_out_while_others_are_usable() {
    let (status, faulty) = faulty().await;
    let fine = Upstream::answering(answer(200, b"")).await;
    let targets = [faulty.address, fine.address];
    let gateway = Gateway::start(&config(&targets, "{ per: target, failures: 2, window: 1m, open_for: 8s }")).await;
    let mut client = gateway.client().await;
    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(client.get("/x").await.status == 500);
    }
    assert_eq!((failed, faulty.requests().len(), fine.requests().len()), (2, 2, 18));
    let shown = gateway.ask_admin("GET /status").await.json()["upstreams"][0].take();
    assert_eq!(shown["targets"][0]["circuit_breaker"]["state"], "open");
    assert_eq!(shown["targets"][1]["circuit_breaker"]["state"], "closed");
    let series = format!("tollgate_circuit_breaker_state{{target=\"{}\",upstream=\"main\"}}", faulty.address);
    gateway.counts(&[(&series, 2.0), ("tollgate_circuit_breaker_rejected_total{upstream=\"main\"}", 0.0)]).await;
    status.send_replace(200);
    open_for(Duration::from_millis(8050)).await;
    for _ in 0..20 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    assert!(faulty.requests().len() > 10, "it takes its turns again: {}", faulty.requests().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_targets_are_open_nobody_is_asked() {
    let dead = [Upstream::dead_address().await, Upstream::dead_address().await];
    let gateway = Gateway::start(&config(&dead, &format!("{{ per: target, failures: 1, {LONG} }}"))).await;
    // Both attempts of the first request open a breaker each.
    gateway.get("/x").await.refused(502, "BAD_GATEWAY");
    assert!((3000..=3600).contains(&refused(&gateway.get("/x").await)));
    gateway.counts(&[("tollgate_circuit_breaker_rejected_total{upstream=\"main\"}", 1.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_target_of_two_does_not_open_the_breaker_of_the_upstream() {
    let fine = Upstream::answering(answer(200, b"")).await;
    let targets = [Upstream::dead_address().await, fine.address];
    let both = format!("[{{ failures: 2, {LONG} }}, {{ per: target, failures: 3, {LONG} }}]");
    let gateway = Gateway::start(&config(&targets, &both)).await;
    let mut client = gateway.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/x").await.status, 200, "the other target answers");
    }
    let shown = gateway.ask_admin("GET /status").await.json()["upstreams"][0].take();
    assert_eq!(shown["circuit_breaker"]["state"], "closed");
    assert_eq!(shown["circuit_breaker"]["failures"], 0);
    assert_eq!(shown["targets"][0]["circuit_breaker"]["state"], "open");
    assert_eq!(shown["targets"][0]["circuit_breaker"]["failures"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_answers_instead() {
    let service = Service::start().await;
    let fallback = "fallback: { respond: { status: 200, headers: { X-Stale: \"1\" }, json: { tasks: [] } } }";
    let gateway = gateway(&service, &format!("{{ failures: 1, {LONG}, {fallback} }}")).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/500/x").await.status, 500, "a failure is passed on as it is");
    for _ in 0..2 {
        let answer = client.get("/200/x").await;
        assert_eq!((answer.status, answer.text()), (200, "{\"tasks\":[]}"));
        assert_eq!(answer.head.get("x-stale"), Some("1"));
    }
    assert_eq!(service.asked(), 1);
    gateway.counts(&[("tollgate_circuit_breaker_rejected_total{upstream=\"main\"}", 2.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_upstream_stands_in_until_its_own_breaker_opens() {
    let (service, other) = (Service::start().await, Service::start().await);
    let yaml =
        config(&[service.upstream.address], &format!("{{ failures: 1, {LONG}, fallback: {{ upstream: other }} }}"));
    let second = format!(
        "upstreams:\n  other:\n    targets: [{{ address: \"{}\" }}]\n    circuit_breaker: {{ failures: 2, {LONG}, \
         fallback: {{ upstream: main }} }}\n",
        other.upstream.address
    );
    let gateway = Gateway::start(&yaml.replace("upstreams:\n", &second)).await;
    assert_eq!(gateway.get("/500/x").await.status, 500);
    assert_eq!(gateway.post("/200/x", b"body").await.status, 200);
    assert_eq!(other.upstream.last().body, b"body");
    gateway.get("/500/x").await;
    gateway.get("/500/x").await;
    refused(&gateway.get("/200/x").await);
    assert_eq!((service.asked(), other.asked()), (1, 3));
    for upstream in ["main", "other"] {
        let rejected = format!("tollgate_circuit_breaker_rejected_total{{upstream=\"{upstream}\"}}");
        gateway.counts(&[(&rejected, if upstream == "main" { 4.0 } else { 1.0 })]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_share_nothing_decide_alike() {
    let service = Service::start().await;
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(gateway(&service, "{ failures: 3, window: 1m, open_for: 5s }").await);
    }
    for gateway in &gateways {
        for _ in 0..3 {
            assert_eq!(gateway.get("/500/x").await.status, 500);
        }
        refused(&gateway.get("/200/x").await);
    }
    assert_eq!(service.asked(), 9);
    open_for(Duration::from_millis(5050)).await;
    for gateway in &gateways {
        for _ in 0..2 {
            assert_eq!(gateway.get("/200/x").await.status, 200);
        }
        assert_eq!(state(gateway).await, "closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_it_as_it_is() {
    let service = Service::start().await;
    let gateway = gateway(&service, &format!("{{ failures: 3, window: 1m, {LONG} }}")).await;
    let change = |from: &str, to: &str| {
        let text = gateway.folder.read("gateway.yaml");
        assert!(text.contains(from), "{text}");
        gateway.folder.write("gateway.yaml", &text.replace(from, to));
    };
    assert_eq!(gateway.get("/500/x").await.status, 500);
    let mut held = gateway.client().await;
    held.send("GET /held-503/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    service.upstream.received(2).await;
    // The upstream is another one, its breaker is not.
    change("    circuit_breaker", "    timeouts: { connect: 1s }\n    circuit_breaker");
    gateway.reload_well().await;
    assert_eq!(shown(&gateway).await["failures"], 1);
    service.let_go();
    assert_eq!(held.response().await.status, 503);
    assert_eq!(shown(&gateway).await["failures"], 2, "what began before counts");
    assert_eq!(gateway.get("/500/x").await.status, 500);
    refused(&gateway.get("/200/x").await);
    let since = shown(&gateway).await["since"].clone();
    change("connect: 1s", "connect: 2s");
    gateway.reload_well().await;
    refused(&gateway.get("/200/x").await);
    assert_eq!(shown(&gateway).await["state"], "open");
    assert!(since.is_string());
    // With other settings it is another breaker.
    change("failures: 3", "failures: 4");
    gateway.reload_well().await;
    assert_eq!(gateway.get("/200/x").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_waits_while_it_is_open_and_goes_on() {
    let (status, upstream) = faulty().await;
    let state_file = Folder::with(&[]);
    let file = state_file.path("tollgate.db");
    let yaml = config(&[upstream.address], "{ failures: 2, window: 1m, open_for: 8s }").replace(
        "routes:\n",
        "routes:\n  - { name: hooks, match: POST /hooks, inbox: { upstream: main, attempts: 9, schedule: [1ms] } }\n",
    );
    let mut gateway = Gateway::start(&format!("state: {{ file: {} }}\n{yaml}", file.display())).await;
    for body in [b"1", b"2", b"3"] {
        assert_eq!(gateway.post("/hooks", body).await.status, 202);
    }
    gateway.logged("the circuit breaker opens").await;
    gateway.counts(&[("tollgate_inbox_paused{inbox=\"hooks\"}", 1.0)]).await;
    let sent = upstream.requests().len();
    // Requests find it open as well: deliveries count. Those under way when it opened had been sent.
    refused(&gateway.get("/x").await);
    assert!((2..=3).contains(&sent), "{sent}");
    status.send_replace(200);
    gateway
        .counts(&[
            ("tollgate_inbox_delivered_total{inbox=\"hooks\"}", 3.0),
            ("tollgate_inbox_paused{inbox=\"hooks\"}", 0.0),
            ("tollgate_circuit_breaker_transitions_total{to=\"closed\",upstream=\"main\"}", 1.0),
            ("tollgate_inbox_dead_total{inbox=\"hooks\"}", 0.0),
        ])
        .await;
    assert_eq!(gateway.get("/x").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_at_a_target_is_given_back_whatever_became_of_the_request() {
    let service = Service::start().await;
    let yaml = config(&[service.upstream.address], &format!("{{ per: target, failures: 2, window: 1m, {LONG} }}"));
    let yaml = yaml.replace("    circuit_breaker", "    target_in_flight_max: 1\n    circuit_breaker");
    let gateway = Gateway::start(&yaml).await;
    for status in [200, 503, 404, 200, 503] {
        assert_eq!(gateway.get(&format!("/{status}/x")).await.status, status);
    }
    // No place is held by those that are refused, nor one missed by them.
    for _ in 0..3 {
        refused(&gateway.get("/200/x").await);
    }
    assert_eq!(service.asked(), 5);
}
