//! Memory that really grows: bodies that are gathered, and do not end.

use std::time::Duration;

use crate::harness::{Client, Gateway, within};

const MIB: usize = 1024 * 1024;
/// Far above what a gateway takes at rest.
const MEMORY_MAX_MIB: u64 = 256;

async fn gateway() -> Gateway {
    let route = |priority: &str| {
        format!("  - {{ name: {priority}, match: \"/{priority}\", priority: {priority}, respond: {{ body: fine }} }}\n")
    };
    Gateway::start(&format!(
        "admin: {{ bind: 127.0.0.1:0 }}\n\
         limits: {{ memory_max: {MEMORY_MAX_MIB}MiB, body_memory_max: 2GiB, body_timeout: 1h }}\nroutes:\n\
         \x20 - {{ name: health, match: GET /health, health: {{}} }}\n\
         \x20 - name: gathered\n    match: POST /gathered\n    body_max: 64MiB\n    priority: critical\n    \
         filters: [{{ validate: {{ body: {{ type: object }} }} }}]\n    respond: {{ body: fine }}\n{}",
        ["critical", "high", "normal", "low"].map(route).concat()
    ))
    .await
}

/// Sends all of a body but its last byte.
async fn held_body(gateway: &Gateway, bytes: usize) -> Client {
    let mut client = gateway.client().await;
    let head = "POST /gathered HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    client.send(format!("{head}Content-Length: {}\r\n\r\n", bytes + 1)).await;
    client.send(vec![b' '; bytes]).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_shed_while_memory_is_short_and_served_when_it_is_back() {
    let mut gateway = gateway().await;
    assert!(gateway.memory_kib("VmRSS") * 100 < MEMORY_MAX_MIB * 1024 * 60, "no room for this test");
    let mut asking = gateway.client().await;
    for priority in ["low", "normal", "high", "critical"] {
        assert_eq!(asking.get(&format!("/{priority}")).await.status, 200);
    }
    let mut bodies = Vec::new();
    let grow = async {
        // Low goes at 70 %: the others have to be there still.
        let mut others = None;
        while asking.get("/critical").await.status == 200 {
            if asking.get("/low").await.status == 503 && others.is_none() {
                others = Some(asking.get("/high").await.status);
            }
            if bodies.len() < 64 {
                bodies.push(held_body(&gateway, 8 * MIB).await);
                // It looks at its memory ten times a second, and nobody is told when: a fast machine would leap over a bound.
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
        others
    };
    let others = within("a lack of memory", grow).await;
    assert_eq!(others, Some(200), "low is shed before high");
    for priority in ["low", "normal", "high", "critical"] {
        asking.get(&format!("/{priority}")).await.refused(503, "OVERLOADED");
    }
    assert_eq!(asking.get("/health").await.status, 200, "never shed");
    gateway.counts(&[("tollgate_shedding{reason=\"memory_max\"}", 1.0)]).await;
    gateway.logged("shedding requests").await;
    drop(bodies);
    within("an end of it", async { while asking.get("/low").await.status != 200 {} }).await;
    gateway.logged("no longer shedding requests").await;
}
