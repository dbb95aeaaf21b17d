mod faults;
mod site;

use std::time::Duration;

use self::site::{Act, Service, Site, status, within, yaml};
use crate::clock;
use crate::inbox::{Counts, Queue as _, Standing};

#[tokio::test]
async fn a_message_is_delivered_once_as_it_was_stored() {
    let service = Service::start(|_, _| status(204)).await;
    let site = Site::start(service.address, "");
    let sent = site.put("body", None).await;
    site.until_empty().await;
    let requests = service.received(1).await;
    let [request] = requests.as_slice() else { panic!("{requests:#?}") };
    assert_eq!((&*request.start, &*request.body), ("POST /hooks/a%20b?q='x'&p=%2f HTTP/1.1", "body"));
    assert_eq!(request.field("host"), "api.example.com");
    assert_eq!(request.field("idempotency-key"), "delivery-of-body");
    assert_eq!(request.field("x-delivery-id"), sent.id);
    assert_eq!(request.attempt(), 1);
    let custom: Vec<&[u8]> =
        request.fields.iter().filter(|(name, _)| name == "x-custom").map(|(_, value)| value.as_slice()).collect();
    assert_eq!(custom, [&b"1"[..], b"\xff2"]);
    let names: Vec<&str> = request.fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), 7, "nothing else is added: {names:?}");
}

#[tokio::test]
async fn the_host_is_the_target_where_the_upstream_says_so() {
    let service = Service::start(|_, _| status(200)).await;
    let site = Site::start_with(service.address, "", "host: target");
    site.put("body", None).await;
    assert_eq!(service.received(1).await[0].field("host"), service.address.to_string());
    site.until_empty().await;
}

#[tokio::test]
async fn order_holds_while_the_first_fails_and_others_go_past() {
    let service =
        Service::start(|seen, _| status(if seen.body == "a1" && seen.attempt() < 3 { 500 } else { 200 })).await;
    let site = Site::start(service.address, "schedule: [50ms], concurrency: 4");
    for body in ["a1", "a2", "a3"] {
        site.put(body, Some("a")).await;
    }
    site.put("b1", Some("b")).await;
    site.put("c", None).await;
    site.until_empty().await;
    let bodies: Vec<String> = service.requests().into_iter().map(|seen| seen.body).collect();
    let of_a: Vec<&str> = bodies.iter().map(String::as_str).filter(|body| body.starts_with('a')).collect();
    assert_eq!(of_a, ["a1", "a1", "a1", "a2", "a3"]);
    let first = |body: &str| bodies.iter().position(|known| known == body).unwrap();
    assert!(first("b1") < first("a2") && first("c") < first("a2"), "{bodies:?}");
}

#[tokio::test]
async fn attempts_follow_the_schedule_and_the_last_one_is_the_end() {
    let service = Service::start(|_, _| status(500)).await;
    let site = Site::start(service.address, "attempts: 4, schedule: [100ms, 300ms], jitter: 0%");
    let sent = site.put("body", None).await;
    let counts = site.until("a dead message", |counts| counts.dead == 1).await;
    assert_eq!((counts.ready, counts.delayed, counts.claimed), (0, 0, 0));
    let requests = service.requests();
    assert_eq!(requests.iter().map(site::Seen::attempt).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let pauses: Vec<Duration> = requests.windows(2).map(|two| two[1].at - two[0].at).collect();
    for (pause, least) in pauses.iter().zip([100, 300, 300]) {
        let least = Duration::from_millis(least - 5);
        assert!(*pause >= least && *pause < least + Duration::from_millis(250), "{pauses:?}");
    }
    let entry = site.entry(&sent).await;
    assert_eq!((entry.standing, entry.attempts), (Standing::Dead, 4));
    assert_eq!(entry.why.as_deref(), Some("the service answered 500"));
    // Somebody says so: from the beginning.
    assert!(site.queue.replay("hooks", &sent.id, clock::wall()).await.unwrap());
    service.received(5).await;
}

#[tokio::test]
async fn no_more_are_under_way_than_may_be() {
    let service = Service::start(|_, _| Act::Wait(Duration::from_millis(300))).await;
    let site = Site::start(service.address, "concurrency: 2");
    for body in ["1", "2", "3", "4"] {
        site.put(body, None).await;
    }
    let requests = service.received(4).await;
    assert!(requests[2].at - requests[0].at >= Duration::from_millis(290), "{requests:#?}");
    site.until_empty().await;
}

#[tokio::test]
async fn a_reload_counts_from_the_next_message_on() {
    let old = Service::start(|_, _| status(200)).await;
    let new = Service::start(|_, _| status(200)).await;
    let site = Site::start(old.address, "");
    site.put("1", None).await;
    old.received(1).await;
    site.reload(&yaml(new.address, "", "")).await;
    site.until_empty().await;
    site.put("2", None).await;
    assert_eq!(new.received(1).await[0].body, "2");
    assert_eq!(old.requests().len(), 1);
}

#[tokio::test]
async fn an_inbox_that_left_keeps_its_messages_until_it_is_there_again() {
    let service = Service::start(|_, _| status(200)).await;
    let with = yaml(service.address, "", "");
    let without = with.split("routes:").next().unwrap().to_owned();
    let site = Site::start(service.address, "");
    site.put("1", None).await;
    site.until_empty().await;
    site.reload(&without).await;
    // The worker may claim until it hears of it.
    tokio::time::sleep(Duration::from_millis(100)).await;
    site.put("2", None).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let counts = site.queue.counts("hooks", clock::wall()).await.unwrap();
    assert_eq!(Counts { bytes: 0, oldest: None, ..counts }, Counts { ready: 1, ..Counts::default() });
    site.reload(&with).await;
    assert_eq!(service.received(2).await[1].body, "2");
    site.until_empty().await;
}

#[tokio::test]
async fn the_end_waits_for_what_is_under_way_and_claims_nothing_more() {
    let service = Service::start(|_, _| Act::Wait(Duration::from_millis(300))).await;
    let site = Site::start(service.address, "concurrency: 1");
    site.put("1", None).await;
    site.put("2", None).await;
    service.received(1).await;
    within("the end", site.delivery.finish()).await;
    let counts = site.queue.counts("hooks", clock::wall()).await.unwrap();
    assert_eq!((counts.ready, counts.claimed), (1, 0));
    assert_eq!(service.requests().len(), 1);
}

#[tokio::test]
async fn what_is_cut_off_is_ready_for_the_next_start_as_another_attempt() {
    let service = Service::start(|_, _| Act::Wait(Duration::from_secs(60))).await;
    let site = Site::start(service.address, "");
    site.put("1", None).await;
    service.received(1).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), site.delivery.finish()).await.is_err());
    within("the end", site.delivery.cut()).await;
    within("the end", site.delivery.finish()).await;
    let claims = site.queue.claim("hooks", 10, Duration::from_secs(9), clock::wall()).await.unwrap();
    assert_eq!(claims.messages.iter().map(|claimed| claimed.attempt).collect::<Vec<_>>(), [2]);
}
