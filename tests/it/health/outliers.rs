//! Targets that are left out for how clients fare with them.

use super::*;

/// A service that answers with the status it is told.
async fn told_to(status: u16) -> (watch::Sender<u16>, Upstream) {
    let (sender, told) = watch::channel(status);
    let upstream = Upstream::scripted(move |mut conn| {
        let told = told.clone();
        async move {
            while conn.request().await.is_some() {
                let status = *told.borrow();
                if status == 0 {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
                    return conn.reset();
                }
                conn.send(answer(status, b"")).await;
            }
        }
    })
    .await;
    (sender, upstream)
}

fn ejections(address: SocketAddr, reason: &str) -> String {
    format!("tollgate_target_ejections_total{{reason=\"{reason}\",target=\"{address}\",upstream=\"main\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nth_failure_in_a_row_ejects_and_none_before() {
    let (status, faulty) = told_to(503).await;
    let (_fine_status, fine) = told_to(200).await;
    let health = "{ outliers: { failures: 3, eject_for: 500ms } }";
    let mut gateway = Gateway::start(&config(&[faulty.address, fine.address], health)).await;
    let mut client = gateway.client().await;
    let mut ask = async |times: usize| {
        for _ in 0..times {
            client.get("/x").await;
        }
    };
    ask(4).await;
    healthy(&gateway, &[true, true]).await;
    status.send_replace(200);
    ask(2).await;
    status.send_replace(503);
    ask(4).await;
    assert_eq!(faulty.requests().len(), 5);
    healthy(&gateway, &[true, true]).await;
    ask(2).await;
    let shown = shown(&gateway).await;
    assert_eq!(shown["targets"][0]["health"]["ejected"]["reason"], "failures", "{shown:#}");
    gateway.counts(&[(&ejections(faulty.address, "failures"), 1.0), (&ejections(faulty.address, "rate"), 0.0)]).await;
    status.send_replace(200);
    healthy(&gateway, &[true, true]).await;
    ask(10).await;
    assert!(faulty.requests().len() > 6, "it gets requests again");
    gateway.logged("is ejected").await;
    gateway.logged("gets requests again").await;
    assert_eq!(told(&gateway).len(), 2, "{:#?}", told(&gateway));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_fail_and_answers_that_break_off_count() {
    let dead = Upstream::dead_address().await;
    let (_status, fine) = told_to(200).await;
    let long = "outliers: { failures: 2, eject_for: 1h, eject_for_max: 1h }";
    let gateway = Gateway::start(&config(&[dead, fine.address], &format!("{{ {long} }}"))).await;
    for _ in 0..8 {
        assert_eq!(gateway.get("/x").await.status, 200, "the other target answers");
    }
    healthy(&gateway, &[false, true]).await;
    let failed = format!("tollgate_upstream_errors_total{{kind=\"connect\",target=\"{dead}\",upstream=\"main\"}}");
    gateway.counts(&[(&failed, 2.0), (&ejections(dead, "failures"), 1.0)]).await;
    // The head of an answer is no success while the rest is missing.
    let (_status, cut) = told_to(0).await;
    let gateway = Gateway::start(&config(&[cut.address, fine.address], &format!("{{ {long} }}"))).await;
    for _ in 0..8 {
        let mut client = gateway.client().await;
        client.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        client.rest().await;
    }
    healthy(&gateway, &[false, true]).await;
    assert_eq!(cut.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_an_ejection_and_no_more_than_a_share_is_out() {
    let (_one_status, one) = told_to(500).await;
    let (_other_status, other) = told_to(500).await;
    let health = "{ outliers: { failures: 1, eject_for: 1h, eject_for_max: 1h } }";
    let gateway = Gateway::start(&config(&[one.address, other.address], health)).await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/x").await.status, 500);
    }
    healthy(&gateway, &[false, true]).await;
    assert_eq!((one.requests().len(), other.requests().len()), (1, 4), "the last one of two stays");
    gateway.counts(&[("tollgate_target_ejections_spared_total{upstream=\"main\"}", 4.0)]).await;
    change(&gateway, "    health:", "    timeouts: { connect: 1s }\n    health:");
    gateway.reload_well().await;
    healthy(&gateway, &[false, true]).await;
    gateway.get("/x").await;
    assert_eq!(one.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_target_is_ejected() {
    let slow = Upstream::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(600)).await;
            conn.send(answer(200, b"")).await;
        }
    })
    .await;
    let (_status, fine) = told_to(200).await;
    let latency = "latency: { over: 500ms, times: 2 }, requests_min: 2, window: 1m, eject_for: 1h, eject_for_max: 1h";
    let health = format!("{{ outliers: {{ {latency} }} }}");
    let gateway = Gateway::start(&config(&[fine.address, slow.address], &health)).await;
    for _ in 0..8 {
        assert_eq!(gateway.get("/x").await.status, 200);
    }
    let shown = healthy(&gateway, &[true, false]).await;
    assert_eq!(shown["targets"][1]["health"]["ejected"]["reason"], "latency");
    assert_eq!((fine.requests().len(), slow.requests().len()), (6, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_count_as_requests_do() {
    let (_status, faulty) = told_to(503).await;
    let (_fine_status, fine) = told_to(200).await;
    let state_file = Folder::with(&[]);
    let file = state_file.path("tollgate.db");
    let health = "{ outliers: { failures: 2, eject_for: 1h, eject_for_max: 1h } }";
    let yaml = config(&[faulty.address, fine.address], health).replace(
        "routes:\n",
        "routes:\n  - { name: hooks, match: POST /hooks, inbox: { upstream: main, attempts: 9, schedule: [1ms] } }\n",
    );
    let gateway = Gateway::start(&format!("state: {{ file: {} }}\n{yaml}", file.display())).await;
    for _ in 0..6 {
        assert_eq!(gateway.post("/hooks", b"1").await.status, 202);
    }
    gateway.counts(&[("tollgate_inbox_delivered_total{inbox=\"hooks\"}", 6.0)]).await;
    healthy(&gateway, &[false, true]).await;
    assert_eq!(fine.requests().len(), 6);
}
