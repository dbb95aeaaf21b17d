//! The same over HTTP/2, where a connection is slow in other ways.

use bytes::Bytes;
use http::Request;
use tokio::net::TcpStream;

use super::{PAUSE, drip, gateway, service};
use crate::harness::{Client, within};

/// How many there are of each kind.
const SLOW: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_preface_that_comes_byte_by_byte_is_cut_off() {
    let service = service().await;
    let gateway = gateway(&service, "100s").await;
    let good = gateway.h2().await;
    let slow = (0..SLOW).map(|_| async {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().copied();
        drip(Client::connect(gateway.address).await, preface).await
    });
    let all = async { tokio::join!(futures_util::future::join_all(slow), good.post("/x", b"good".to_vec())) };
    let (_, response) = within("an end of slow prefaces", all).await;
    assert_eq!(response.body, b"good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_its_data_is_ended_and_the_connection_goes_on() {
    let service = service().await;
    // Over HTTP/2 the larger of `first_byte` and `idle` bounds the pauses of a body that streams.
    let gateway = gateway(&service, "10s").await;
    for target in ["/x", "/gathered"] {
        let client = gateway.h2().await;
        let mut streams = Vec::new();
        for _ in 0..SLOW {
            let mut sender = client.0.clone().ready().await.unwrap();
            let request = Request::post(format!("http://a.test{target}")).header("content-type", "application/json");
            streams.push(sender.send_request(request.body(()).unwrap(), false).unwrap());
        }
        assert_eq!(client.post("/x", b"good".to_vec()).await.body, b"good");
        for (response, _open) in streams {
            // An answer that says so, or a reset.
            if let Ok(response) = within("an end of the stream", response).await {
                assert!([408, 504].contains(&response.status().as_u16()), "{}", response.status());
            }
        }
        assert_eq!(client.post("/x", b"good".to_vec()).await.body, b"good");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_no_window_is_cut_off() {
    let service = service().await;
    let gateway = gateway(&service, "100s").await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let (mut sender, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::get("http://a.test/large").body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let good = gateway.h2().await;
    let mut body = within("a head", response).await.unwrap().into_body();
    let end = within("an end of the stream", body.data());
    let (end, ()) = tokio::join!(end, async {
        for _ in 0..20 {
            assert_eq!(good.post("/x", b"good".to_vec()).await.body, b"good");
            tokio::time::sleep(PAUSE).await;
        }
    });
    assert!(end.is_none_or(|data| data.is_err()), "no byte may have come");
}
