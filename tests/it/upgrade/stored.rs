//! What is kept in a file: two gateways have it open for a while.

use std::collections::HashSet;

use super::Line;
use crate::harness::{Client, Upstream, answer, within};

#[tokio::test(flavor = "multi_thread")]
async fn no_message_of_an_inbox_is_lost() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.send(answer(200, b"")).await;
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (file, main) = (folder.path().join("tollgate.db"), upstream.address);
    let mut line = Line::start(&format!(
        "state: {{ file: {} }}\nupstreams:\n  main: {{ targets: [{{ address: \"{main}\" }}] }}\n\
         routes:\n  - {{ name: hooks, match: \"POST /hooks/{{*rest}}\", inbox: {{ upstream: main }} }}\n",
        file.display()
    ))
    .await;
    let address = line.gateway.address;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        // An upload that the old gateway stores after the new one serves.
        let body = format!("late-{round}");
        let mut late = Client::connect(address).await;
        late.send(format!("POST /hooks/x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).await;
        let posts: Vec<_> = (0..4).map(|client| tokio::spawn(post(address, format!("{round}-{client}")))).collect();
        line.upgrade().await;
        late.send(&body).await;
        assert_eq!(late.response().await.status, 202);
        acknowledged.push(body);
        for client in posts {
            acknowledged.extend(within("a client", client).await.unwrap());
        }
    }
    let arrived = within("every message", async {
        for count in acknowledged.len().. {
            let arrived: HashSet<String> = upstream
                .received(count)
                .await
                .into_iter()
                .map(|request| String::from_utf8(request.body).unwrap())
                .collect();
            if acknowledged.iter().all(|body| arrived.contains(body)) {
                return arrived;
            }
        }
        HashSet::new()
    })
    .await;
    assert_eq!(arrived.len(), acknowledged.len());
    let log = line.gateway.lines();
    assert!(!log.iter().any(|line| line.contains("failed") || line.contains("ERROR")), "{log:#?}");
    line.stop().await;
}

/// Posts one message after the other, each on a connection of its own.
async fn post(address: std::net::SocketAddr, name: String) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0..40 {
        let body = format!("{name}-{number}");
        assert_eq!(Client::connect(address).await.post("/hooks/x", body.as_bytes()).await.status, 202);
        acknowledged.push(body);
    }
    acknowledged
}
