//! Bodies that are sent again.

use super::{Does, KEPT, Pair};
use crate::harness::noise;

fn put(path: &str, length: usize) -> String {
    format!("PUT {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_body_is_sent_again_as_far_as_it_is_kept() {
    for does in [Does::Refuses(503), Does::Resets, Does::IsSilent] {
        let retry = "on: [reset, timeout, 503], try_timeout: 1s";
        for (size, again) in [(1, true), (KEPT - 1, true), (KEPT, true), (KEPT + 1, false), (10 * KEPT, false)] {
            let pair = Pair::start(does, retry).await;
            let body = noise(size);
            let mut client = pair.gateway.client().await;
            client.send(put("/x", size)).await;
            client.send(&body).await;
            let response = client.response().await;
            assert_eq!(response.status == 200, again, "{does:?} {size}: {}", response.status);
            assert_eq!(pair.asked(), (1, usize::from(again)), "{does:?} {size}");
            if again {
                assert!(response.body == body, "{does:?} {size}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gathered_body_is_sent_again_whatever_its_size() {
    for does in [Does::Refuses(503), Does::Resets, Does::RefusesUnread] {
        for size in [0, 1, KEPT, KEPT + 1, 3 * 1024 * 1024] {
            let pair = Pair::start(does, "on: [reset, 503]").await;
            let body = noise(size);
            let mut client = pair.gateway.client().await;
            client.send(put("/gathered/x", size)).await;
            client.send(&body).await;
            let response = client.response().await;
            assert_eq!(response.status, 200, "{does:?} {size}");
            assert!(response.body == body, "{does:?} {size}");
            assert_eq!(pair.asked(), (1, 1), "{does:?} {size}");
            let request = pair.second.only();
            assert_eq!(request.head.get("content-length"), Some(&*size.to_string()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_still_coming_goes_on_to_the_next_target() {
    // The first one answers before it has the body; what was sent to it is sent again, the rest comes from the client.
    let pair = Pair::start(Does::RefusesUnread, "on: [503]").await;
    let body = noise(KEPT + 1000);
    let mut client = pair.gateway.client().await;
    client.send(put("/x", body.len())).await;
    client.send(&body[..1000]).await;
    pair.first.received(1).await;
    pair.retried("status", 1.0).await;
    client.send(&body[1000..]).await;
    let response = client.response().await;
    assert_eq!(response.status, 200);
    assert!(response.body == body && pair.second.only().body == body);
}
