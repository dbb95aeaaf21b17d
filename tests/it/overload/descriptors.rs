//! No more file descriptors: connections wait, nothing spins, and it goes on when there are some again.

use std::process::Command;
use std::time::Duration;

use crate::harness::{Client, Gateway, left_out, within};

/// Changes how many files a process may have open. `false`: this machine has no such command.
fn limit_open_files(id: u32, max: &str) -> bool {
    let limited = Command::new("prlimit").args(["--pid", &id.to_string(), &format!("--nofile={max}")]).status();
    limited.is_ok_and(|status| status.success())
}

/// Processor time so far, in the ticks of which there are 100 in a second.
fn ticks(id: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_connections_wait_and_nothing_spins() {
    let yaml = "routes:\n  - { name: all, match: \"/{*rest}\", respond: { body: fine } }\n";
    let mut gateway = Gateway::start(yaml).await;
    let id = gateway.id();
    let open = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    // Only the soft limit: the hard one could not be raised again.
    if !limit_open_files(id, &format!("{}:", open + 20)) {
        left_out("`prlimit` of util-linux is not here, or may not change the limits of a process");
        return;
    }
    let mut served = Vec::new();
    let mut waiting: Vec<Client> = Vec::new();
    for _ in 0..60 {
        let mut client = gateway.client().await;
        client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        waiting.push(client);
    }
    gateway.logged("cannot accept connections").await;
    let before = ticks(id);
    // The one thing to be measured is what is spent in a time.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let spent = ticks(id) - before;
    assert!(spent < 150, "{spent} hundredths of a second of 3 s: it spins");
    let told = gateway.lines().iter().filter(|line| line.contains("cannot accept connections")).count();
    assert!(told <= 4, "{told} lines in some seconds");
    // Who is in is served, again and again; each one that leaves makes room for one that waits.
    within("everybody's turn", async {
        while let Some(mut client) = waiting.pop() {
            match tokio::time::timeout(Duration::from_millis(100), client.try_response(false)).await {
                Ok(response) => {
                    assert_eq!(response.unwrap().text(), "fine");
                    assert_eq!(client.get("/again").await.status, 200);
                    served.push(());
                }
                // Not its turn yet.
                Err(_) => waiting.insert(0, client),
            }
        }
    })
    .await;
    assert_eq!(served.len(), 60);
    assert!(limit_open_files(id, "1024:"));
    assert_eq!(gateway.get("/x").await.status, 200);
}
