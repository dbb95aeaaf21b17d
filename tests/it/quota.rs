//! Quotas from outside: counted exactly, kept over reloads, restarts and kills.

mod shared;

use crate::harness::{Folder, Gateway, Response};

/// Of a month: the tests must not cross a midnight that matters. The state lies beside what a gateway owns, so that it outlives it.
fn files(state: &std::path::Path, limit: u64) -> [(&'static str, String); 2] {
    let state = state.display();
    let root = format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nadmin: {{ bind: 127.0.0.1:0 }}\nthreads: 2\naccess_log: {{ to: none }}\n\
         audit_log: {{ to: none }}\nstate: {{ file: {state} }}\ninclude: [routes.d/*.yaml]\n"
    );
    [("gateway.yaml", root), ("routes.d/main.yaml", routes(limit))]
}

fn routes(limit: u64) -> String {
    format!(
        "routes:\n  - name: maps\n    match: GET /maps\n    \
         filters: [quota: {{ limit: {limit}, period: month, time_zone: Europe/Berlin, per: ip }}]\n    respond: {{ body: map }}\n"
    )
}

async fn start(state: &std::path::Path, limit: u64) -> Gateway {
    let files = files(state, limit);
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    Gateway::start_in(Folder::with(&files)).await
}

fn remaining(response: &Response) -> u64 {
    assert_eq!(response.status, 200, "{}", response.text());
    response.head.get("x-ratelimit-remaining").unwrap().parse().unwrap()
}

/// Asks so often; what is left after the last one.
async fn ask(gateway: &Gateway, times: u64) -> u64 {
    let mut client = gateway.client().await;
    let mut left = 0;
    for _ in 0..times {
        left = remaining(&client.get("/maps").await);
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_restart_keeps_what_was_used_exactly_and_a_kill_loses_a_block_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let gateway = start(&state, 1000).await;
    assert_eq!(ask(&gateway, 25).await, 975);
    gateway.stop().await;

    let mut gateway = start(&state, 1000).await;
    assert_eq!(ask(&gateway, 4).await, 971);
    gateway.signal("KILL");
    gateway.ended().await;

    let gateway = start(&state, 1000).await;
    let left = ask(&gateway, 1).await;
    assert!((960..=970).contains(&left), "a block has 10 units: {left}");
    assert_eq!(ask(&gateway, 3).await, left - 3);
    gateway.stop().await;
    let gateway = start(&state, 1000).await;
    assert_eq!(ask(&gateway, 1).await, left - 4, "what was lost is lost once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_was_used_also_when_the_limit_changes() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = start(&folder.path().join("state.db"), 1000).await;
    assert_eq!(ask(&gateway, 30).await, 970);
    gateway.reload_well().await;
    assert_eq!(ask(&gateway, 1).await, 969);
    gateway.folder.write("routes.d/main.yaml", &routes(2000));
    gateway.reload_well().await;
    assert_eq!(ask(&gateway, 1).await, 1968);
    gateway.folder.write("routes.d/main.yaml", &routes(32));
    gateway.reload_well().await;
    let refused = gateway.get("/maps").await;
    refused.refused(429, "QUOTA_EXCEEDED");
    let details = &refused.json()["error"]["details"];
    assert_eq!((&details["limit"], &details["period"]), (&32.into(), &"month".into()), "{details}");
    let seconds: u64 = refused.head.get("retry-after").unwrap().parse().unwrap();
    assert!((1..=31 * 86_400 + 3600).contains(&seconds), "{seconds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_exactly_the_limit_passes() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = start(&folder.path().join("state.db"), 300).await;
    let mut clients = Vec::new();
    for _ in 0..16 {
        let mut client = gateway.client().await;
        clients.push(tokio::spawn(async move {
            let mut admitted = 0;
            for _ in 0..25 {
                let response = client.get("/maps").await;
                match response.status {
                    200 => admitted += 1,
                    _ => drop(response.refused(429, "QUOTA_EXCEEDED")),
                }
            }
            admitted
        }));
    }
    let mut admitted = 0;
    for client in clients {
        admitted += client.await.unwrap();
    }
    assert_eq!(admitted, 300);
}
