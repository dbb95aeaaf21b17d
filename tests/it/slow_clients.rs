//! Hundreds of clients that are as slow as they can: good requests do not notice, and each of the slow ones is cut off.

mod http2;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Client, Gateway, Upstream, answer, noise, within};

const SLOW: usize = 500;
/// More than fits into the buffers of sockets.
const LARGE: usize = 32 * 1024 * 1024;
/// Between two bytes of a slow client.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers with the body it was sent; under `/large` with more than anybody can hold who does not read.
async fn service() -> Upstream {
    let large = Arc::new(answer(200, &noise(LARGE)));
    Upstream::scripted(move |mut conn| {
        let large = Arc::clone(&large);
        async move {
            while let Some(request) = conn.request().await {
                if request.target == "/large" {
                    conn.send(&*large).await;
                } else {
                    conn.send(answer(200, &request.body)).await;
                }
            }
        }
    })
    .await
}

async fn gateway(service: &Upstream, first_byte: &str) -> Gateway {
    let address = service.address;
    // Much shorter than in practice, and still an age for a good client on a busy machine that sends all at once.
    Gateway::start(&format!(
        "limits: {{ header_timeout: 2s, body_timeout: 2s, connections_per_address_max: 2000 }}\n\
         upstreams:\n  main: {{ targets: [{{ address: \"{address}\" }}], timeouts: {{ first_byte: {first_byte}, idle: 2s }} }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n\
         \x20 - name: gathered\n    match: POST /gathered\n    upstream: main\n    \
         filters: [{{ validate: {{ body: {{ type: object }} }} }}]\n"
    ))
    .await
}

/// Sends byte by byte until the gateway has had enough: what it says then, and closes.
async fn drip(mut client: Client, bytes: impl Iterator<Item = u8>) -> Vec<u8> {
    let (mut reading, mut writing) = client.0.stream.split();
    let mut told = Vec::new();
    let dripping = async {
        for byte in bytes {
            if tokio::io::AsyncWriteExt::write_all(&mut writing, &[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        std::future::pending::<()>().await;
    };
    let listening = async {
        let mut read = [0_u8; 1024];
        while let Ok(length @ 1..) = tokio::io::AsyncReadExt::read(&mut reading, &mut read).await {
            told.extend_from_slice(&read[..length]);
        }
    };
    tokio::select! {
        () = dripping => {}
        () = within("an end of a slow client", listening) => {}
    }
    told
}

/// One slow client of each kind in turn. On return the gateway has ended it.
async fn slow(number: usize, address: std::net::SocketAddr) {
    let mut client = Client::connect(address).await;
    let forever = std::iter::repeat(b'x');
    match number % 5 {
        0 => {
            let head = b"GET /x HTTP/1.1\r\nHost: a.test\r\nX-Slow: ".iter().copied();
            let told = drip(client, head.chain(forever)).await;
            assert!(told.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&told));
        }
        1 => {
            client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n").await;
            let told = drip(client, forever).await;
            assert!(told.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&told));
        }
        2 => {
            client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let told = drip(client, b"1\r\nx\r\n".iter().copied().cycle()).await;
            assert!(told.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&told));
        }
        3 => {
            let head = "POST /gathered HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\n";
            client.send(format!("{head}Content-Length: 100000\r\n\r\n")).await;
            let told = drip(client, forever).await;
            assert!(told.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&told));
        }
        _ => {
            client.send("GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            // Nothing is read until the gateway has given up: then there is an end, and not all of it is there.
            within("an end of who does not read", async {
                while client.send("x").await {
                    tokio::time::sleep(PAUSE).await;
                }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn good_requests_do_not_notice_five_hundred_slow_clients() {
    let service = service().await;
    let gateway = gateway(&service, "100s").await;
    let done = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let good: Vec<_> = (0..4)
        .map(|who| {
            let (done, served, address) = (Arc::clone(&done), Arc::clone(&served), gateway.address);
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                while !done.load(Ordering::Relaxed) {
                    let body = format!("{who}/{}", served.fetch_add(1, Ordering::Relaxed));
                    let response = client.post("/x", body.as_bytes()).await;
                    assert_eq!((response.status, response.text()), (200, &*body));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
        .collect();
    let slow: Vec<_> = (0..SLOW).map(|number| tokio::spawn(slow(number, gateway.address))).collect();
    for client in slow {
        client.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for client in good {
        client.await.unwrap();
    }
    assert!(served.load(Ordering::Relaxed) >= 4);
    assert_eq!(gateway.get("/x").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_may_take_its_time_where_nobody_minds() {
    let service = service().await;
    let address = service.address;
    let gateway = Gateway::start(&format!(
        "limits: {{ body_timeout: 1s, body_bytes_per_second_min: 0 }}\n\
         upstreams:\n  main: {{ targets: [{{ address: \"{address}\" }}] }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n"
    ))
    .await;
    let mut client = gateway.client().await;
    client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 20\r\n\r\n").await;
    for _ in 0..20 {
        client.send("x").await;
        tokio::time::sleep(PAUSE).await;
    }
    assert_eq!(client.response().await.text(), "x".repeat(20));
}
