//! Services of HTTP/2 that open no window for a body, open it late, or answer instead.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use serde_json::Value;
use tokio::net::TcpListener;

use super::{PIECE, config, post, start, try_post};
use crate::harness::{Folder, Gateway, noise, within};

/// What may be sent before a window is opened.
const WINDOW: usize = 65_535;

/// A service over HTTP/2: what it does is up to the query.
struct Service {
    address: SocketAddr,
    /// Streams that were given up.
    resets: Arc<AtomicUsize>,
}

impl Service {
    /// `window`: of each stream; that of the connection is the least there can be, or large where this is smaller.
    async fn start(window: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let resets = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&resets);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let resets = Arc::clone(&counted);
                tokio::spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    builder.initial_window_size(u32::try_from(window).unwrap());
                    if window != WINDOW {
                        builder.initial_connection_window_size(1 << 20);
                    }
                    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(serve(request, respond, Arc::clone(&resets)));
                    }
                });
            }
        });
        Self { address, resets }
    }

    /// Waits until so many streams were given up.
    async fn gives_up(&self, count: usize) {
        within("resets", async {
            while self.resets.load(Ordering::Relaxed) < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

async fn serve(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, resets: Arc<AtomicUsize>) {
    let (head, mut body) = request.into_parts();
    let how = match head.uri.query().unwrap_or_default() {
        "second" if resets.load(Ordering::Relaxed) > 0 => "read",
        how => how,
    };
    match how {
        "read" | "slow" => {
            let mut length = 0;
            while let Some(Ok(data)) = body.data().await {
                length += data.len();
                if how == "slow" {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                let _ = body.flow_control().release_capacity(data.len());
            }
            say(&mut respond, 200, &length.to_string());
        }
        // With the body goes whoever might have read it: the stream is reset.
        "early" => say(&mut respond, 413, "early"),
        "early-and-open" => {
            say(&mut respond, 413, "early");
            std::future::pending::<()>().await;
        }
        "half" => {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data("half".into(), false).unwrap();
            let _ = poll_fn(|cx| stream.poll_reset(cx)).await;
        }
        // Neither reads nor answers.
        _ => {
            let reset = poll_fn(|cx| respond.poll_reset(cx)).await;
            if reset.is_ok_and(|reason| reason == Reason::CANCEL) {
                resets.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    drop(body);
}

fn say(respond: &mut SendResponse<Bytes>, status: u16, text: &str) {
    let head = Response::builder().status(status).body(()).unwrap();
    if let Ok(mut stream) = respond.send_response(head, false) {
        let _ = stream.send_data(Bytes::from(text.to_owned()), true);
    }
}

fn timeouts_of(address: SocketAddr) -> String {
    format!("tollgate_upstream_errors_total{{kind=\"timeout\",target=\"{address}\",upstream=\"main\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_opens_no_window_is_given_up() {
    let service = Service::start(WINDOW).await;
    let folder = Folder::with(&[]);
    let log = folder.path("access.log");
    let log = format!("version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\naccess_log: {{ to: {} }}\n", log.display());
    let timeouts = "idle: 1s, first_byte: 1s";
    folder.write("gateway.yaml", &(log + &config(service.address, "h2c", timeouts)));
    let mut gateway = Gateway::start_in(folder).await;
    let cases = [WINDOW, WINDOW + 1, 1 << 20].into_iter().flat_map(|size| [("/x", size), ("/gathered", size)]);
    let cases: Vec<_> = cases.collect();
    let asked = cases.iter().map(|&(path, size)| {
        let gateway = &gateway;
        async move {
            let (status, text) = try_post(&mut gateway.client().await, path, size).await;
            assert!(status == 504 && text.contains("GATEWAY_TIMEOUT"), "{path} {size}: {text:?}");
        }
    });
    futures_util::future::join_all(asked).await;
    service.gives_up(cases.len()).await;
    // There is room again, whatever was left of the windows of those connections.
    for _ in &cases {
        assert_eq!(gateway.post("/x?read", &noise(PIECE)).await.text(), PIECE.to_string());
    }
    gateway
        .counts(&[
            ("tollgate_requests_in_flight{route=\"all\"}", 0.0),
            ("tollgate_requests_in_flight{route=\"gathered\"}", 0.0),
            ("tollgate_refused_total{code=\"GATEWAY_TIMEOUT\",route=\"all\"}", 3.0),
            ("tollgate_refused_total{code=\"GATEWAY_TIMEOUT\",route=\"gathered\"}", 3.0),
            (&timeouts_of(service.address), 6.0),
        ])
        .await;
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
    let log = gateway.folder.read("access.log");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2 * cases.len());
    let given_up = lines.iter().filter(|line| line["status"] == 504 && line["error"] == "GATEWAY_TIMEOUT");
    assert_eq!(given_up.count(), cases.len(), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_opens_its_window_bit_by_bit_gets_all_of_it() {
    let service = Service::start(8 * 1024).await;
    // The second piece takes longer than either; of the first a part may go before the window is known.
    let gateway = start(service.address, "h2c", "idle: 7s, first_byte: 7s").await;
    let sizes = [2 * PIECE, 2 * PIECE + 8 * 1024 + 1];
    let asked = sizes.into_iter().flat_map(|size| [("/x?slow", size), ("/gathered?slow", size)]).map(|(path, size)| {
        let gateway = &gateway;
        async move {
            let response = gateway.post(path, &noise(size)).await;
            assert_eq!((response.status, response.text()), (200, &*size.to_string()), "{path}");
        }
    });
    let client = gateway.h2().await;
    let asked_over_h2 = sizes.into_iter().flat_map(|size| [("/x?slow", size), ("/gathered?slow", size)]);
    let asked_over_h2 = asked_over_h2.map(|(path, size)| {
        let client = &client;
        async move {
            let response = client.post(path, noise(size)).await;
            assert_eq!((response.status.as_u16(), response.body), (200, size.to_string().into_bytes()), "h2 {path}");
        }
    });
    let both = (futures_util::future::join_all(asked), futures_util::future::join_all(asked_over_h2));
    tokio::join!(both.0, both.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_opens_no_window_is_given_up_for_clients_of_http_2_too() {
    let service = Service::start(WINDOW).await;
    let gateway = start(service.address, "h2c", "idle: 1s, first_byte: 1s").await;
    let client = gateway.h2().await;
    let cases = [WINDOW, WINDOW + 1, 1 << 20].into_iter().flat_map(|size| [("/x", size), ("/gathered", size)]);
    let cases: Vec<_> = cases.collect();
    let asked = cases.iter().map(|&(path, size)| {
        let client = &client;
        async move {
            client.post(path, noise(size)).await.refused(504, "GATEWAY_TIMEOUT");
        }
    });
    futures_util::future::join_all(asked).await;
    service.gives_up(cases.len()).await;
    assert_eq!(client.post("/x?read", noise(PIECE)).await.body, PIECE.to_string().as_bytes());
    gateway.counts(&[(&timeouts_of(service.address), 6.0)]).await;
    // Who leaves in the middle of an upload is noticed, as long as the service takes what comes.
    let gateway = start(service.address, "h2c", "idle: 1000s").await;
    let client = gateway.h2().await;
    let request = Request::post("http://a.test/x").body(()).unwrap();
    let (response, mut stream) = client.0.clone().ready().await.unwrap().send_request(request, false).unwrap();
    stream.send_data(noise(1000).into(), false).unwrap();
    gateway.counts(&[("tollgate_requests_in_flight{route=\"all\"}", 1.0)]).await;
    stream.send_reset(Reason::CANCEL);
    drop(response);
    service.gives_up(cases.len() + 1).await;
    gateway.counts(&[("tollgate_requests_in_flight{route=\"all\"}", 0.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_exchange_comes_while_a_window_opens() {
    let service = Service::start(8 * 1024).await;
    let gateway = start(service.address, "h2c", "idle: 100s, first_byte: 100s, total: 3s").await;
    for path in ["/x?slow", "/x", "/gathered"] {
        let (status, text) = try_post(&mut gateway.client().await, path, 1 << 20).await;
        assert!(status == 504 && text.contains("GATEWAY_TIMEOUT"), "{path}: {text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_instead_of_a_window_is_heard() {
    let service = Service::start(WINDOW).await;
    let patient = start(service.address, "h2c", "idle: 1000s").await;
    let (status, text) = try_post(&mut patient.client().await, "/x?early", 1 << 20).await;
    assert!(status == 413 && text.contains("early"), "{text}");
    let response = patient.h2().await.post("/x?early", noise(1 << 20)).await;
    assert_eq!((response.status.as_u16(), &*response.body), (413, &b"early"[..]));
    let gateway = start(service.address, "h2c", "idle: 1s").await;
    let (status, text) = try_post(&mut gateway.client().await, "/x?early-and-open", 1 << 20).await;
    assert!(status == 413 && text.contains("early"), "{text}");
    let response = gateway.h2().await.post("/x?early-and-open", noise(1 << 20)).await;
    assert_eq!((response.status.as_u16(), &*response.body), (413, &b"early"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stops_is_given_up_as_well() {
    let service = Service::start(WINDOW).await;
    let gateway = start(service.address, "h2c", "idle: 1s").await;
    for size in [1, 1 << 20] {
        let (status, text) = try_post(&mut gateway.client().await, "/x?half", size).await;
        assert!(status == 200 && text.contains("half"), "{text}");
    }
    gateway.counts(&[("tollgate_requests_in_flight{route=\"all\"}", 0.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_take_long_while_it_moves() {
    let service = Service::start(WINDOW).await;
    let gateway = start(service.address, "h2c", "idle: 4s, first_byte: 4s").await;
    let client = gateway.h2().await;
    let request = Request::post("http://a.test/x?read").body(()).unwrap();
    let (response, mut stream) = client.0.clone().ready().await.unwrap().send_request(request, false).unwrap();
    for _ in 0..8 {
        stream.send_data(noise(10).into(), false).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stream.send_data(noise(10).into(), true).unwrap();
    let mut response = within("an answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "90");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_try_follows_where_all_of_the_body_is_there() {
    // So much is taken that of a body that streams more has come than is kept for another try.
    for (path, status) in [("/gathered?second", 200), ("/x?second", 504)] {
        let service = Service::start(4 * WINDOW).await;
        let retries = "idle: 1s }, retry: { on: [timeout], attempts: 2, unsafe_methods: always";
        let gateway = start(service.address, "h2c", retries).await;
        let got = if status == 200 {
            gateway.post(path, &noise(1 << 20)).await.status
        } else {
            try_post(&mut gateway.client().await, path, 1 << 20).await.0
        };
        assert_eq!(got, status, "{path}");
        let service = Service::start(4 * WINDOW).await;
        let gateway = start(service.address, "h2c", retries).await;
        let response = gateway.h2().await.post(path, noise(1 << 20)).await;
        assert_eq!(response.status.as_u16(), status, "h2 {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_after_uploads_over_http_2() {
    let service = Service::start(WINDOW).await;
    let gateway = start(service.address, "h2c", "").await;
    let mut client = gateway.client().await;
    for size in [1, WINDOW, PIECE, 1 << 20] {
        client.send([post(size).replace("/x", "/x?read").as_bytes(), &noise(size)].concat()).await;
        assert_eq!(client.response().await.text(), size.to_string());
    }
    let client = gateway.h2().await;
    for size in [1, WINDOW, PIECE, 1 << 20] {
        assert_eq!(client.post("/x?read", noise(size)).await.body, size.to_string().as_bytes());
    }
}
