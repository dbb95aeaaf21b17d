//! What retries may cost.

use super::{Does, config, gateway, service};
use crate::harness::{Folder, Gateway, Upstream};

const ROOT: &str = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nadmin: { bind: 127.0.0.1:0 }\nthreads: 2\n\
                    access_log: { to: none }\ninclude: [routes.d/*.yaml]\n";

fn retry(more: &str) -> String {
    format!(
        "retry: {{ attempts: 3, on: [connect, 503], backoff: {{ first: 1ms, max: 1ms }}, budget_min: 6/min{more} }}"
    )
}

/// Sends requests one after the other; all have to be answered like this.
async fn ask(gateway: &Gateway, count: usize, status: u16) {
    let mut client = gateway.client().await;
    for _ in 0..count {
        let response = client.get("/x").await;
        assert_eq!(response.status, status);
        if response.head.get("connection") == Some("close") {
            client = gateway.client().await;
        }
    }
}

/// How many requests were tried again so far, at most what all of them together may cost.
fn bound(requests: usize, share: usize, windows: usize) -> usize {
    requests * share / 100 + windows
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_share_is_tried_again() {
    let failing = service(Does::Refuses(503)).await;
    let gateway = gateway(&[failing.address], &retry(", budget: 20%")).await;
    // The share counts the request itself: with the fifth one there is one more.
    let mut expected = Vec::new();
    let mut counted = Vec::new();
    let start = std::time::Instant::now();
    for requests in 1..=30 {
        ask(&gateway, 1, 503).await;
        counted.push(failing.requests().len());
        expected.push(requests + bound(requests, 20, 1));
    }
    // A machine that takes longer sees more windows than one.
    if start.elapsed().as_secs() < 8 {
        assert_eq!(counted, expected);
    }
    let windows = 1 + start.elapsed().as_secs() as usize / 10 + 1;
    assert!(failing.requests().len() <= 30 + bound(30, 20, windows));
    let refused = gateway.scrape().await.get("tollgate_upstream_retries_refused_total{upstream=\"main\"}");
    assert!(refused.is_some_and(|refused| refused >= 20.0), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_nothing_leaves_what_is_there_beside_it() {
    let failing = service(Does::Refuses(503)).await;
    let gateway = gateway(&[failing.address], &retry(", budget: 0%")).await;
    let start = std::time::Instant::now();
    ask(&gateway, 20, 503).await;
    let windows = 1 + (start.elapsed().as_secs() as usize + 1) / 10;
    assert!((21..=20 + windows).contains(&failing.requests().len()), "{}", failing.requests().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_service_is_asked_once_a_request_beyond_the_budget() {
    // A connection that is refused is nothing a test could count: it is counted by the gateway.
    let dead = Upstream::dead_address().await;
    let gateway = gateway(&[dead], &retry(", budget: 10%")).await;
    let start = std::time::Instant::now();
    ask(&gateway, 100, 502).await;
    let windows = 1 + start.elapsed().as_secs() as usize / 10 + 1;
    let failed = format!("tollgate_upstream_errors_total{{kind=\"connect\",target=\"{dead}\",upstream=\"main\"}}");
    let tries = gateway.scrape().await.get(&failed).unwrap() as usize;
    assert!((101..=100 + bound(100, 10, windows)).contains(&tries), "{tries}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_target_costs_nothing_where_nothing_was_sent() {
    let living = service(Does::Answers).await;
    let dead = [Upstream::dead_address().await, Upstream::dead_address().await];
    let gateway = gateway(&[dead[0], dead[1], living.address], &retry(", budget: 0%")).await;
    ask(&gateway, 60, 200).await;
    assert_eq!(living.requests().len(), 60);
    gateway.counts(&[("tollgate_upstream_retries_refused_total{upstream=\"main\"}", 0.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_up_stays_so_over_reloads() {
    let failing = service(Does::Refuses(503)).await;
    let fragment = |more: &str| {
        let all = config(&[failing.address], &retry(&format!(", budget: 0%{more}")));
        all.strip_prefix("admin: { bind: 127.0.0.1:0 }\n").unwrap().to_owned()
    };
    let files = [("gateway.yaml", ROOT), ("routes.d/main.yaml", &fragment(""))];
    let gateway = Gateway::start_in(Folder::with(&files)).await;
    let start = std::time::Instant::now();
    ask(&gateway, 5, 503).await;
    for reload in 1..=5 {
        gateway.folder.write("routes.d/main.yaml", &fragment(&format!(", try_timeout: {reload}s")));
        assert_eq!(gateway.ask_admin("POST /reload").await.status, 200);
        ask(&gateway, 5, 503).await;
    }
    let windows = 1 + (start.elapsed().as_secs() as usize + 1) / 10;
    assert!((31..=30 + windows).contains(&failing.requests().len()), "{}", failing.requests().len());
}
