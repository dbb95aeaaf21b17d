//! Listeners that come and go.

use std::net::{SocketAddr, TcpListener};

use tokio::net::TcpStream;

use super::{ROOT, forwards, says};
use crate::harness::{Client, Folder, Gateway, Upstream, answer, within};

/// An address that nobody else takes: tests and the system give out ports of 127.0.0.1 only.
fn free(host: u8) -> SocketAddr {
    held(host).local_addr().unwrap()
}

fn held(host: u8) -> TcpListener {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap()
}

/// [`ROOT`] with more listeners.
fn with_listeners(more: &[SocketAddr]) -> String {
    let more: String = more.iter().map(|address| format!(", {{ bind: \"{address}\" }}")).collect();
    ROOT.replace("127.0.0.1:0 }]", &format!("127.0.0.1:0 }}{more}]"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_comes_and_goes_and_its_connections_stay() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let told = std::sync::Arc::clone(&go);
    let upstream = Upstream::scripted(move |mut conn| {
        let told = std::sync::Arc::clone(&told);
        async move {
            while let Some(request) = conn.request().await {
                if request.target == "/a/slow" {
                    told.notified().await;
                }
                conn.send(answer(200, b"done")).await;
            }
        }
    })
    .await;
    let fragment = forwards("a", upstream.address);
    let mut gateway = Gateway::start_in(Folder::with(&[("gateway.yaml", ROOT), ("routes.d/a.yaml", &fragment)])).await;
    let second = free(11);
    gateway.folder.write("gateway.yaml", &with_listeners(&[second]));
    gateway.logged(&format!("listening address={second}")).await;
    let mut idle = Client::connect(second).await;
    assert_eq!(idle.get("/a/quick").await.text(), "done");
    let mut busy = Client::connect(second).await;
    busy.send("GET /a/slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.received(2).await;
    let open = format!("tollgate_connections{{listener=\"{second}\"}}");
    gateway.counts(&[(&open, 2.0)]).await;

    gateway.folder.write("gateway.yaml", ROOT);
    gateway.logged(&format!("no longer listening address={second}")).await;
    within("the end of the listener", async { while TcpStream::connect(second).await.is_ok() {} }).await;
    go.notify_one();
    assert_eq!(busy.response().await.text(), "done");
    for client in [&mut busy, &mut idle] {
        assert_eq!(client.get("/a/quick").await.text(), "done", "a reload closes no connection");
    }
    assert_eq!(gateway.get("/a/quick").await.status, 200, "the other listener was not touched");
    drop((busy, idle));
    gateway.never_counts(&second.to_string()).await;

    let before = gateway.lines().len();
    gateway.folder.write("gateway.yaml", &with_listeners(&[second]));
    gateway.logged_after(before, &format!("listening address={second}")).await;
    assert_eq!(Client::connect(second).await.get("/a/quick").await.status, 200, "it may come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_used_as_soon_as_it_is_free() {
    let mut gateway =
        Gateway::start_in(Folder::with(&[("gateway.yaml", ROOT), ("routes.d/a.yaml", &says("a", "one"))])).await;
    let [first, second] = [12, 13].map(held);
    let [first_address, second_address] = [&first, &second].map(|taken| taken.local_addr().unwrap());
    gateway.folder.write("gateway.yaml", &with_listeners(&[first_address]));
    let cannot = format!("cannot listen; trying again every second address={first_address}");
    assert!(gateway.logged(&cannot).await.contains("ERROR"));
    // One that already fails must not hide another.
    gateway.folder.write("gateway.yaml", &with_listeners(&[first_address, second_address]));
    gateway.logged(&format!("cannot listen; trying again every second address={second_address}")).await;
    assert_eq!(gateway.get("/a").await.text(), "one");
    drop(first);
    gateway.logged(&format!("listening address={first_address}")).await;
    assert_eq!(Client::connect(first_address).await.get("/a").await.text(), "one");
    drop(second);
    gateway.logged(&format!("listening address={second_address}")).await;
    assert_eq!(Client::connect(second_address).await.get("/a").await.text(), "one");
    let told = gateway.lines().iter().filter(|line| line.contains(&cannot)).count();
    assert_eq!(told, 1, "once, not every second");
}
