//! Calls in single frames: what real clients and services do not let themselves be made to do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;

use crate::harness::{Gateway, H2Client, within};

/// A service over HTTP/2 that runs `script` for each request; the second argument counts them over all connections, from 0.
pub async fn service<F, Fut>(script: F) -> SocketAddr
where
    F: Fn(Request<RecvStream>, usize, SendResponse<Bytes>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (script, count) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (script, count) = (Arc::clone(&script), Arc::clone(&count));
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(script(request, count.fetch_add(1, Ordering::Relaxed), respond));
                }
            });
        }
    });
    address
}

fn to(address: SocketAddr, keys: &str) -> String {
    format!(
        "upstreams:\n  main: {{ protocol: h2c, targets: [{{ address: \"{address}\" }}]{keys} }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", body_max: 1MiB, upstream: main }}\n"
    )
}

fn call(timeout: &str) -> Request<()> {
    let request =
        Request::post("http://a.test/a.B/C").header("content-type", "application/grpc").header("te", "trailers");
    let request = if timeout.is_empty() { request } else { request.header("grpc-timeout", timeout) };
    request.body(()).unwrap()
}

pub async fn body_of(request: Request<RecvStream>) -> Vec<u8> {
    let mut body = request.into_body();
    let mut received = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        received.extend_from_slice(&data);
    }
    received
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers
}

/// The status of a call that the gateway ended, in the head alone or behind what came.
fn status(response: &crate::harness::H2Response) -> (&str, &str) {
    let fields = response.trailers.as_ref().unwrap_or(&response.fields);
    (fields["grpc-status"].to_str().unwrap(), fields["x-error-code"].to_str().unwrap())
}

/// A client that does not look at its own clock: the gateway does.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_call_whatever_the_service_has_said_by_then() {
    let address = service(|request, _, mut respond| async move {
        if request.uri().path().ends_with("/C") {
            // Silent.
            std::future::pending::<()>().await;
        }
        let mut stream = respond.send_response(head(), false).unwrap();
        stream.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false).unwrap();
        if request.uri().path().ends_with("/Drops") {
            let _ = stream.send_data(Bytes::new(), false);
        }
        std::future::pending::<()>().await;
    })
    .await;
    let gateway = Gateway::start(&to(address, "")).await;
    let client = gateway.h2().await;
    let response = client.ask(call("300m"), b"request".to_vec()).await.unwrap();
    assert_eq!((response.status.as_u16(), status(&response)), (200, ("4", "GATEWAY_TIMEOUT")));
    assert!(response.trailers.is_none() && response.body.is_empty(), "trailers alone: {response:?}");
    assert!(!response.fields.contains_key("content-length"));
    assert_eq!(response.fields["content-type"], "application/grpc");
    assert!(response.fields.contains_key("x-request-id"));
    let mut begun = call("300m");
    *begun.uri_mut() = "http://a.test/a.B/Begun".parse().unwrap();
    let response = client.ask(begun, b"request".to_vec()).await.unwrap();
    assert_eq!((response.body.as_slice(), status(&response)), (b"\0\0\0\0\x01x".as_slice(), ("4", "GATEWAY_TIMEOUT")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_that_is_none_is_refused_and_zero_is_over_at_once() {
    let address = service(|_, _, mut respond| async move {
        drop(respond.send_response(head(), true));
    })
    .await;
    let gateway = Gateway::start(&to(address, "")).await;
    let client = gateway.h2().await;
    for timeout in ["1", "S", "123456789S", "1s", "-1S", "1.5S"] {
        let response = client.ask(call(timeout), Vec::new()).await.unwrap();
        assert_eq!(status(&response), ("13", "BAD_REQUEST"), "{timeout}");
    }
    let mut twice = call("1S");
    twice.headers_mut().append("grpc-timeout", "2S".parse().unwrap());
    assert_eq!(status(&client.ask(twice, Vec::new()).await.unwrap()), ("13", "BAD_REQUEST"));
    assert_eq!(status(&client.ask(call("0S"), Vec::new()).await.unwrap()), ("4", "GATEWAY_TIMEOUT"));
    let response = client.ask(call("99999999H"), Vec::new()).await.unwrap();
    assert!(!response.fields.contains_key("x-error-code"), "{response:?}");
}

/// What is sent on is what is left, not what was sent.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_told_what_is_left() {
    let address = service(|request, _, mut respond| async move {
        let told =
            request.headers().get("grpc-timeout").map_or("none".into(), |told| told.to_str().unwrap().to_owned());
        let head = Response::builder().header("content-type", "application/grpc").header("x-told", told);
        drop(respond.send_response(head.body(()).unwrap(), true));
    })
    .await;
    let gateway = Gateway::start(&to(address, "")).await;
    let client = gateway.h2().await;
    let told = |response: crate::harness::H2Response| response.fields["x-told"].to_str().unwrap().to_owned();
    assert_eq!(told(client.ask(call(""), Vec::new()).await.unwrap()), "none");
    let left = told(client.ask(call("90S"), Vec::new()).await.unwrap());
    let micros: u64 = left.strip_suffix('u').unwrap_or_else(|| panic!("{left}")).parse().unwrap();
    assert!(micros < 90_000_000, "{left}");
    // Requests that are no calls keep their field as it is.
    let request = Request::get("http://a.test/x").header("grpc-timeout", "whatever").body(()).unwrap();
    assert_eq!(told(client.ask(request, Vec::new()).await.unwrap()), "whatever");
    let capped = Gateway::start(&to(address, ", timeouts: { total: 3s }")).await;
    let left = told(capped.h2().await.ask(call("90S"), Vec::new()).await.unwrap());
    let micros: u64 = left.strip_suffix('u').unwrap_or_else(|| panic!("{left}")).parse().unwrap();
    assert!(micros < 3_000_000, "{left}");
}

/// RFC 9113 §8.7: what a service says it has not touched is sent again, POST or not. What it may have touched is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_refused_is_tried_again_and_no_other() {
    let address = service(|request, number, mut respond| async move {
        let path = request.uri().path().to_owned();
        let body = body_of(request).await;
        match (path.as_str(), number) {
            ("/a.B/C", 0) => respond.send_reset(Reason::REFUSED_STREAM),
            ("/broken", _) => respond.send_reset(Reason::INTERNAL_ERROR),
            ("/never", _) => respond.send_reset(Reason::REFUSED_STREAM),
            _ => {
                let head = Response::builder().header("x-number", number).header("content-type", "application/grpc");
                let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
                stream.send_data(body.into(), false).unwrap();
                stream.send_trailers(trailers("0")).unwrap();
            }
        }
    })
    .await;
    let gateway = Gateway::start(&to(address, "")).await;
    let client = gateway.h2().await;
    let response = client.ask(call(""), b"message".to_vec()).await.unwrap();
    assert_eq!(
        (response.body.as_slice(), &response.fields["x-number"]),
        (b"message".as_slice(), &"1".parse().unwrap())
    );
    client.post("/broken", b"message".to_vec()).await.refused(502, "BAD_GATEWAY");
    client.post("/never", b"message".to_vec()).await.refused(502, "BAD_GATEWAY");
    let response = client.ask(call(""), b"message".to_vec()).await.unwrap();
    assert_eq!(response.fields["x-number"], "5", "one try for what was broken, two for what was refused");
    // Nobody asked for it: not tried again.
    let once = Gateway::start(&to(address, ", retry: { attempts: 1 }")).await;
    once.post("/never", b"message").await.refused(502, "BAD_GATEWAY");
    let response = client.ask(call(""), b"message".to_vec()).await.unwrap();
    assert_eq!(response.fields["x-number"], "7");
}

/// A service that shuts down: streams it has taken end well, those it has not go to a new connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_goes_away_loses_no_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                let mut served = 0;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    served += 1;
                    if served == 3 {
                        connection.graceful_shutdown();
                    }
                    tokio::spawn(async move {
                        let body = body_of(request).await;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        let Ok(mut stream) = respond.send_response(head(), false) else { return };
                        let _ = stream.send_data(body.into(), false);
                        let _ = stream.send_trailers(trailers("0"));
                    });
                }
            });
        }
    });
    let gateway = Gateway::start(&to(address, "")).await;
    let client = gateway.h2().await;
    let one = |number: u32| {
        let client: H2Client = client.clone();
        tokio::spawn(async move {
            let body = number.to_string().into_bytes();
            let response = client.ask(call(""), body.clone()).await.unwrap();
            assert_eq!(response.body, body, "{response:?}");
            assert_eq!(response.trailers.unwrap()["grpc-status"], "0");
        })
    };
    for call in (0..60).map(one).collect::<Vec<_>>() {
        within("a call", call).await.unwrap();
    }
    // All of them may have come before it said so: then those that follow find out.
    within("another connection", async {
        while connections.load(Ordering::Relaxed) == 1 {
            one(60).await.unwrap();
        }
    })
    .await;
}

/// A service that dies in the middle of an answer: the call ends with a status, not with a stream that is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_service_dies_ends_with_unavailable() {
    let address = service(|_, _, mut respond| async move {
        let mut stream = respond.send_response(head(), false).unwrap();
        stream.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let gateway = Gateway::start(&to(address, "")).await;
    let client = gateway.h2().await;
    let response = client.ask(call(""), b"message".to_vec()).await.unwrap();
    assert_eq!(status(&response), ("14", "BAD_GATEWAY"));
    assert_eq!(response.body, b"\0\0\0\0\x01x");
    // What is no call is cut off, so that nobody takes a half for the whole.
    let request = Request::post("http://a.test/x").body(()).unwrap();
    assert!(client.ask(request, Vec::new()).await.is_err());
    assert!(client.ask(call(""), Vec::new()).await.is_ok(), "the connection goes on");
}

/// Refusals look as they do for everybody where nobody speaks gRPC.
#[tokio::test(flavor = "multi_thread")]
async fn only_calls_are_refused_as_calls() {
    let address = service(|_, _, mut respond| async move { drop(respond.send_response(head(), true)) }).await;
    let yaml = to(address, "").replace("/{*rest}", "/only");
    let gateway = Gateway::start(&yaml).await;
    let client = gateway.h2().await;
    assert_eq!(status(&client.ask(call(""), Vec::new()).await.unwrap()), ("12", "NOT_FOUND"));
    client.get("/x").await.refused(404, "NOT_FOUND");
    // There is no gRPC over HTTP/1.1.
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
    gateway.ask(request).await.refused(404, "NOT_FOUND");
}
