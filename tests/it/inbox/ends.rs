//! Gateways that end in the middle.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Site, accepted, told};
use crate::harness::{Client, Gateway, Upstream, answer, within};

/// Answers each request after a moment.
async fn slow() -> Upstream {
    Upstream::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            conn.send(answer(200, b"")).await;
        }
    })
    .await
}

/// Posts until the gateway is gone; the bodies that were acknowledged. They are counted while it does.
async fn post_until_the_end(mut client: Client, name: String, count: watch::Sender<usize>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let body = format!("{name}-{number}");
        let request = format!("POST /hooks/x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if !client.send(request).await {
            break;
        }
        match client.try_response(false).await {
            Ok(response) if response.status == 202 => {
                acknowledged.push(body);
                count.send_modify(|count| *count += 1);
            }
            Ok(response) => panic!("{response:?}"),
            Err(_) => break,
        }
    }
    acknowledged
}

/// A burst that a signal ends; the bodies that were acknowledged.
async fn burst(gateway: &mut Gateway, upstream: &Upstream, name: &str, signal: &str) -> Vec<String> {
    let before = upstream.requests().len();
    let (count, mut counted) = watch::channel(0);
    let mut clients = Vec::new();
    for number in 0..8 {
        let (client, name) = (gateway.client().await, format!("{name}-{number}"));
        clients.push(tokio::spawn(post_until_the_end(client, name, count.clone())));
    }
    within("acknowledgements", counted.wait_for(|count| *count > 20)).await.unwrap();
    upstream.received(before + 20).await;
    gateway.signal(signal);
    gateway.ended().await;
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(within("a client", client).await.unwrap());
    }
    acknowledged
}

/// Each body that was acknowledged has arrived, and whatever arrived again is marked.
fn assert_complete(upstream: &Upstream, acknowledged: &[String]) {
    let mut arrived: HashMap<String, Vec<u32>> = HashMap::new();
    for request in upstream.requests() {
        let (body, attempt) = told(&request);
        arrived.entry(body).or_default().push(attempt);
    }
    for body in acknowledged {
        assert!(arrived.contains_key(body), "{body} is lost");
    }
    for (body, attempts) in arrived {
        let rising = attempts.windows(2).all(|two| two[0] < two[1]);
        assert!(rising, "{body} arrived again without a mark: {attempts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_end_loses_what_was_acknowledged() {
    let upstream = slow().await;
    let site = Site::new(upstream.address);
    let mut acknowledged = Vec::new();
    for (round, signal) in ["KILL", "TERM", "KILL", "TERM", "KILL"].iter().enumerate() {
        let mut gateway = site.start(", concurrency: 16").await;
        acknowledged.extend(burst(&mut gateway, &upstream, &round.to_string(), signal).await);
    }
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    let gateway = site.start(", concurrency: 16").await;
    // The last one is delivered after all others that are free: it was stored last.
    accepted(&gateway.post("/hooks/x", b"last").await);
    let all_there = async {
        loop {
            let requests = upstream.requests();
            let arrived: HashSet<String> = requests.iter().map(|request| told(request).0).collect();
            if acknowledged.iter().all(|body| arrived.contains(body)) && arrived.contains("last") {
                return;
            }
            upstream.received(requests.len() + 1).await;
        }
    };
    within("all that was acknowledged", all_there).await;
    gateway.stop().await;
    assert_complete(&upstream, &acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_a_delivery_under_way_and_cuts_it_at_drain_timeout() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            let pause = if request.body == b"hangs" { 3600 } else { 1 };
            tokio::time::sleep(Duration::from_secs(pause)).await;
            conn.send(answer(200, b"")).await;
        }
    })
    .await;
    let site = Site::new(upstream.address);
    let mut gateway = site.start("").await;
    // However busy the machine is, this one is not cut.
    let text = gateway.folder.read("gateway.yaml");
    gateway.folder.write("gateway.yaml", &text.replace("drain_timeout: 2s", "drain_timeout: 1m"));
    gateway.reload_well().await;
    accepted(&gateway.post("/hooks/x", b"slow").await);
    upstream.received(1).await;
    let start = Instant::now();
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
    assert!(start.elapsed() >= Duration::from_millis(500) && start.elapsed() < Duration::from_secs(30));
    let mut gateway = site.start("").await;
    accepted(&gateway.post("/hooks/x", b"hangs").await);
    upstream.received(2).await;
    let start = Instant::now();
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
    assert!(start.elapsed() >= Duration::from_millis(1900) && start.elapsed() < Duration::from_secs(30));
    let gateway = site.start("").await;
    let arrived: Vec<(String, u32)> = upstream.received(3).await.iter().map(told).collect();
    assert_eq!(arrived, [("slow".to_owned(), 1), ("hangs".to_owned(), 1), ("hangs".to_owned(), 2)]);
    gateway.signal("KILL");
}
