//! Services that are not there, or not well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::site::{Act, Service, Site, nowhere, status, within};
use crate::clock;
use crate::inbox::{Outcome, Queue as _, Standing};

#[tokio::test]
async fn while_nobody_is_there_nothing_is_used_up() {
    let address = nowhere().await;
    let site = Site::start(address, "attempts: 1");
    for body in ["1", "2", "3"] {
        site.put(body, Some("key")).await;
    }
    // The first pause, and the probe behind it.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let counts = site.queue.counts("hooks", clock::wall()).await.unwrap();
    assert_eq!((counts.dead, counts.delayed), (0, 0), "{counts:?}");
    let service = Service::start_at(address, |_, _| status(200)).await;
    let requests = service.received(3).await;
    let seen: Vec<(&str, u32)> = requests.iter().map(|seen| (&*seen.body, seen.attempt())).collect();
    assert_eq!(seen, [("1", 1), ("2", 1), ("3", 1)]);
    site.until_empty().await;
}

#[tokio::test]
async fn five_failures_in_a_row_pause_and_one_answer_ends_it() {
    let is_well = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_well);
    let service = Service::start(move |_, _| status(if told.load(Ordering::SeqCst) { 200 } else { 503 })).await;
    let site = Site::start(service.address, "attempts: 100, schedule: [1ms], concurrency: 1");
    for body in ["1", "2", "3"] {
        site.put(body, None).await;
    }
    site.until_paused(true).await;
    is_well.store(true, Ordering::SeqCst);
    site.until_paused(false).await;
    site.until_empty().await;
    let requests = service.requests();
    let pauses: Vec<Duration> = requests.windows(2).map(|two| two[1].at - two[0].at).collect();
    // Not how short the others are: that is up to the machine.
    assert!(pauses[4] >= Duration::from_millis(950), "{pauses:?}");
}

#[tokio::test]
async fn a_refusal_of_the_message_pauses_nothing() {
    let service = Service::start(|seen, _| status(if seen.body == "bad" { 400 } else { 200 })).await;
    let site = Site::start(service.address, "attempts: 20, schedule: [1ms], concurrency: 1");
    site.put("bad", None).await;
    site.put("good", None).await;
    site.until("a dead message", |counts| counts.dead == 1 && counts.ready + counts.delayed + counts.claimed == 0)
        .await;
    // With the pauses of a service that fails it would be longer than anything may take.
    assert_eq!(service.requests().len(), 21);
}

#[tokio::test]
async fn a_service_that_is_too_slow_gets_it_again_and_so_does_one_that_breaks_off() {
    let script = |_: &super::site::Seen, before: usize| match before {
        0 => Act::Wait(Duration::from_secs(60)),
        1 => Act::End(Vec::new()),
        2 => Act::End(b"HTTP/1.1 2".to_vec()),
        3 => Act::Say(b"nonsense\r\n\r\n".to_vec()),
        _ => status(200),
    };
    let service = Service::start(script).await;
    let site = Site::start(service.address, "timeout: 100ms, schedule: [10ms]");
    site.put("1", None).await;
    let requests = service.received(5).await;
    assert_eq!(requests.iter().map(super::site::Seen::attempt).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    site.until_empty().await;
}

#[tokio::test]
async fn a_good_status_is_enough_whatever_follows() {
    let script = |_: &super::site::Seen, before: usize| match before {
        0 => Act::End(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf".to_vec()),
        1 => Act::Flood([&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[b'x'; 65_536]].concat()),
        2 => Act::Say([&b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n"[..], &vec![b'x'; 1 << 20]].concat()),
        _ => status(200),
    };
    let service = Service::start(script).await;
    let site = Site::start(service.address, "concurrency: 1");
    for body in ["1", "2", "3", "4"] {
        site.put(body, Some("key")).await;
    }
    let requests = service.received(4).await;
    let seen: Vec<(&str, u32)> = requests.iter().map(|seen| (&*seen.body, seen.attempt())).collect();
    assert_eq!(seen, [("1", 1), ("2", 1), ("3", 1), ("4", 1)]);
    site.until_empty().await;
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_not_followed() {
    let elsewhere = Service::start(|_, _| status(200)).await;
    let location =
        format!("HTTP/1.1 302 Found\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n", elsewhere.address);
    let service = Service::start(move |_, _| Act::Say(location.clone().into())).await;
    let site = Site::start(service.address, "attempts: 1");
    let sent = site.put("1", None).await;
    site.until("a dead message", |counts| counts.dead == 1).await;
    assert_eq!(site.entry(&sent).await.why.as_deref(), Some("the service answered 302"));
    assert_eq!((service.requests().len(), elsewhere.requests().len()), (1, 0));
}

#[tokio::test]
async fn a_claim_that_was_lost_is_not_settled() {
    let service = Service::start(|_, _| Act::Wait(Duration::from_millis(300))).await;
    let site = Site::start(service.address, "");
    let sent = site.put("1", None).await;
    service.received(1).await;
    // Somebody whose clock is ahead takes it over.
    let later = clock::wall() + Duration::from_secs(120);
    let claims = site.queue.claim("hooks", 1, Duration::from_secs(60), later).await.unwrap();
    let [theirs] = claims.messages.as_slice() else { panic!("{claims:?}") };
    assert_eq!(theirs.attempt, 2);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let entry = site.entry(&sent).await;
    assert_eq!((entry.standing, entry.attempts), (Standing::Claimed, 2));
    assert!(site.queue.settle(theirs, Outcome::Delivered, later).await.unwrap(), "it is still theirs");
}

#[tokio::test]
async fn a_target_that_takes_no_connection_is_skipped() {
    let service = Service::start(|_, _| status(200)).await;
    let dead = nowhere().await;
    let site = Site::start(service.address, "attempts: 1");
    let text = super::yaml(service.address, "attempts: 1", "");
    let two = format!("targets: [{{ address: \"{dead}\" }}, {{ address: \"{}\" }}]", service.address);
    site.reload(&text.replace(&format!("targets: [{{ address: \"{}\" }}]", service.address), &two)).await;
    // Every other one would pause deliveries for a second, if that target spoke against the upstream: longer than anything may take.
    for number in 0..300 {
        site.put(&number.to_string(), None).await;
    }
    let requests = service.received(300).await;
    assert!(requests.iter().all(|seen| seen.attempt() == 1));
    site.until_empty().await;
}

#[tokio::test]
async fn http_2_is_spoken_where_the_upstream_says_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut tell = Some(tell);
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let (head, mut body) = request.into_parts();
            respond.send_response(http::Response::new(()), true).unwrap();
            let tell = tell.take();
            tokio::spawn(async move {
                let piece = body.data().await.unwrap().unwrap();
                if let Some(tell) = tell {
                    let _ = tell.send((head, piece));
                }
            });
        }
    });
    let site = Site::start_with(address, "", "protocol: h2c");
    site.put("body", None).await;
    let (head, body) = within("a request", told).await.unwrap();
    assert_eq!(head.uri.to_string(), "http://api.example.com/hooks/a%20b?q='x'&p=%2f");
    assert_eq!((head.headers["x-delivery-attempt"].to_str().unwrap(), &body[..]), ("1", &b"body"[..]));
    assert!(!head.headers.contains_key("host"), "the authority says it");
    site.until_empty().await;
}
