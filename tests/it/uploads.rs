//! Bodies that stream to services which do not answer, or do not even read: deadlines hold, and a client that leaves is
//! noticed, however many pieces a body comes in.
//!
//! The engine holds four pieces between the two sides. A body whose last one fell into the last place used to hang for ever.

mod windows;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;

use crate::harness::{Client, Folder, Framing, Gateway, Response, Upstream, answer, chunked, noise, within};

const PIECE: usize = 64 * 1024;
const CHUNKED: &str = "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";

fn post(length: usize) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n")
}

/// Both kinds of uploads: those that stream, and those that are gathered first, under `/gathered`.
fn config(address: SocketAddr, protocol: &str, timeouts: &str) -> String {
    format!(
        "admin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n\
         \x20 main: {{ protocol: {protocol}, targets: [{{ address: \"{address}\" }}], timeouts: {{ {timeouts} }} }}\nroutes:\n\
         \x20 - {{ name: all, match: \"/{{*rest}}\", body_max: 64MiB, upstream: main }}\n\
         \x20 - {{ name: gathered, match: /gathered, body_max: 64MiB, filters: [{{ validate: {{ body_max: 64MiB }} }}], upstream: main }}\n"
    )
}

async fn start(address: SocketAddr, protocol: &str, timeouts: &str) -> Gateway {
    Gateway::start(&config(address, protocol, timeouts)).await
}

/// Takes connections and reads nothing, ever.
async fn deaf() -> Upstream {
    Upstream::scripted(|conn| async move {
        std::future::pending::<()>().await;
        drop(conn);
    })
    .await
}

/// A service over HTTP/2 that reads all it is sent and never answers.
async fn silent_h2c() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                        }
                        std::future::pending::<()>().await;
                        drop(respond);
                    });
                }
            });
        }
    });
    address
}

/// A body in so many chunks, with its head, all at once: each chunk is a piece, and so is the end.
async fn chunks(gateway: &Gateway, count: usize) -> Client {
    let mut client = gateway.client().await;
    client.send([CHUNKED.as_bytes(), &chunked(&vec![b'x'; count], 1)].concat()).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_service_is_given_up_however_many_pieces_a_body_has() {
    let upstream = Upstream::silent().await;
    let others = [(upstream.address, "http1"), (silent_h2c().await, "h2c")];
    for (address, protocol) in others {
        let gateway = start(address, protocol, "first_byte: 1s").await;
        let asked = (1..=12).map(|count| {
            let gateway = &gateway;
            async move { chunks(gateway, count).await.response().await.refused(504, "GATEWAY_TIMEOUT").status }
        });
        futures_util::future::join_all(asked).await;
        let sizes = (0..=10).flat_map(|count| [count * PIECE + 1, (count + 1) * PIECE]);
        let asked = sizes.flat_map(|size| [(size, "/x"), (size, "/gathered")]).map(|(size, path)| {
            let gateway = &gateway;
            async move { gateway.post(path, &noise(size)).await.refused(504, "GATEWAY_TIMEOUT").status }
        });
        futures_util::future::join_all(asked).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_silent_service_is_noticed_however_many_pieces_its_body_had() {
    for count in 1..=6 {
        let upstream = Upstream::silent().await;
        let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\naccess_log: { to: DIRaccess.log }\n";
        let folder = Folder::with(&[]);
        let to = folder.path("access.log");
        let yaml = [head, &config(upstream.address, "http1", "")].concat();
        let yaml =
            yaml.replace("DIRaccess.log", to.to_str().unwrap()).replace("timeouts: {  }", "timeouts: { idle: 60s }");
        folder.write("gateway.yaml", &yaml);
        let mut gateway = Gateway::start_in(folder).await;
        let client = chunks(&gateway, count).await;
        upstream.received(1).await;
        drop(client);
        gateway.counts(&[("tollgate_requests_in_flight{route=\"all\"}", 0.0)]).await;
        gateway.signal("TERM");
        assert!(gateway.ended().await.success());
        let log = gateway.folder.read("access.log");
        let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        assert_eq!(line["status"], 499, "{count}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_reads_nothing_is_given_up_at_any_point_of_a_body() {
    let upstream = deaf().await;
    let gateway = start(upstream.address, "http1", "idle: 1s, first_byte: 1s").await;
    for size in [1, 4 * PIECE, 5 * PIECE, 20 * 1024 * 1024] {
        for path in ["/x", "/gathered"] {
            let (status, text) = try_post(&mut gateway.client().await, path, size).await;
            assert_eq!(status, 504, "{path} {size}: {text:?}");
        }
    }
    gateway.counts(&[("tollgate_requests_in_flight{route=\"all\"}", 0.0)]).await;
}

/// Sends for as long as the gateway takes it, and reads what it says meanwhile.
async fn try_post(client: &mut Client, path: &str, size: usize) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let head = format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n");
    let (mut reading, mut writing) = client.0.stream.split();
    let body = noise(size);
    let sending = async {
        let _ = writing.write_all(head.as_bytes()).await;
        let _ = writing.write_all(&body).await;
        std::future::pending::<()>().await;
    };
    let receiving = async {
        let mut answer = Vec::new();
        // The gateway may reset the connection behind its answer, as more comes than it takes.
        let _ = reading.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let text = tokio::select! {
        text = within("an answer", receiving) => text,
        () = sending => String::new(),
    };
    (text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_asks_for_another_protocol_is_given_up_as_well() {
    let upstream = Upstream::silent().await;
    let gateway = start(upstream.address, "http1", "first_byte: 1s").await;
    for count in 1..=6 {
        let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n";
        let head = CHUNKED.replace("Transfer-Encoding: chunked\r\n", fields);
        let mut client = gateway.client().await;
        client.send([head.as_bytes(), &chunked(&vec![b'x'; count], 1)].concat()).await;
        client.response().await.refused(504, "GATEWAY_TIMEOUT");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_answers_long_before_it_reads_is_heard_to_the_end() {
    // It answers for longer than a piece of the body may take, and reads none of it.
    let upstream = Upstream::scripted(|mut conn| async move {
        if conn.head().await.is_none() {
            return;
        }
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n").await;
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            conn.send("x").await;
        }
        conn.closed().await;
    })
    .await;
    let gateway = start(upstream.address, "http1", "idle: 1s").await;
    let mut client = gateway.client().await;
    let (status, text) = try_post(&mut client, "/x", 20 * 1024 * 1024).await;
    assert!(status == 200 && text.ends_with(&"x".repeat(30)), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_of_every_size_and_number_arrive_in_order() {
    let upstream = Upstream::echo().await;
    let gateway = start(upstream.address, "http1", "").await;
    let mut client = gateway.client().await;
    for (size, chunk) in
        [(1, 1), (4, 1), (5, 1), (1000, 1), (PIECE, 7), (4 * PIECE, PIECE), (20 * PIECE + 1, PIECE + 1)]
    {
        let body = noise(size);
        client.send([CHUNKED.as_bytes(), &chunked(&body, chunk)].concat()).await;
        let response = client.response().await;
        assert!(response.status == 200 && response.body == body, "{size} in {chunk}");
        let response = client.post("/x", &body).await;
        assert!(response.status == 200 && response.body == body, "{size}");
        assert_eq!(upstream.last().framing, Framing::Length(size));
    }
    // Byte by byte, with the next request on the same connection.
    let body = noise(100);
    for byte in [post(100).as_bytes(), &body].concat() {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.response().await.body, body);
    assert_eq!(upstream.connections(), 2, "all over a connection that is kept, one of each engine");
}

/// The answer to a client of HTTP/1.0.
async fn http_1_0(client: &mut Client, path: &str) -> Response {
    let fields = "Host: a.test\r\nConnection: keep-alive\r\nContent-Length: 5";
    client.send(format!("POST {path} HTTP/1.0\r\n{fields}\r\n\r\nhello")).await;
    client.response().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_http_1_0_is_kept_as_far_as_the_end_of_an_answer_can_be_told() {
    let upstream = Upstream::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if request.body == b"hello" && request.head.has("x-chunked") {
                conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
            } else {
                conn.send(answer(200, &request.body)).await;
            }
        }
    })
    .await;
    let gateway = start(upstream.address, "http1", "").await;
    let mut client = gateway.client().await;
    for path in ["/x", "/gathered", "/x"] {
        let response = http_1_0(&mut client, path).await;
        assert_eq!((response.status, response.text()), (200, "hello"), "{path}");
    }
    for path in ["/x", "/gathered"] {
        let mut client = gateway.client().await;
        let fields = "Host: a.test\r\nConnection: keep-alive\r\nX-Chunked: 1\r\nContent-Length: 5";
        client.send(format!("POST {path} HTTP/1.0\r\n{fields}\r\n\r\nhello")).await;
        let text = String::from_utf8(client.rest().await).unwrap();
        assert!(text.ends_with("\r\n\r\nabc") && !text.to_ascii_lowercase().contains("chunked"), "{path}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_its_host_in_it_is_sent_on_as_without() {
    let upstream = Upstream::echo().await;
    let gateway = start(upstream.address, "http1", "").await;
    let request = "POST http://a.test/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(gateway.ask(request).await.text(), "hello");
    let request = upstream.only();
    assert_eq!((request.target.as_str(), request.head.get("host")), ("/x", Some("a.test")));
}
