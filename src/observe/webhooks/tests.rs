use std::fs;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

fn event(what: What<'_>) -> Event<'_> {
    Event {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_007),
        request_id: Some("req-1"),
        route: Some("hooks"),
        provider: Some("github"),
        delivery: Some("5f9c"),
        what,
    }
}

fn received() -> Received<'static> {
    Received {
        result: "accepted",
        status: 202,
        code: None,
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        bytes: 7112,
        duration: Duration::from_micros(2417),
    }
}

fn written(events: &[Event<'_>]) -> String {
    let folder = TempDir::new().unwrap();
    let target = Target::File(folder.path().join("webhooks.log"));
    let log = WebhookLog::open(&WebhookLogSettings { target, rotate_bytes: 0, keep: 0 }, None).unwrap();
    events.iter().for_each(|event| log.record(event));
    assert!(log.flush(Duration::from_secs(30)));
    assert_eq!(log.dropped(), 0);
    fs::read_to_string(folder.path().join("webhooks.log")).unwrap()
}

fn lines(events: &[Event<'_>]) -> Vec<Value> {
    written(events).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_says_what_arrived_and_how_it_was_answered() {
    let refused = Received { result: "signature_invalid", status: 401, code: Some("SIGNATURE_INVALID"), ..received() };
    let unknown = Event { delivery: None, provider: Some("git\"hub\n"), ..event(What::Received(refused)) };
    assert_eq!(
        lines(&[event(What::Received(received())), unknown]),
        [
            json!({"time": "2026-01-01T00:00:00.007Z", "event": "received", "request_id": "req-1", "route": "hooks",
                "provider": "github", "delivery": "5f9c", "result": "accepted", "status": 202,
                "client": "192.0.2.1", "bytes": 7112, "duration_ms": 2.417}),
            json!({"time": "2026-01-01T00:00:00.007Z", "event": "received", "request_id": "req-1", "route": "hooks",
                "provider": "git\"hub\n", "result": "signature_invalid", "code": "SIGNATURE_INVALID", "status": 401,
                "client": "192.0.2.1", "bytes": 7112, "duration_ms": 2.417}),
        ]
    );
}

#[test]
fn a_line_says_what_an_inbox_did() {
    let due = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_610_000);
    let failed = Kept {
        attempt: Some(2),
        status: Some(503),
        why: Some("it answered 503"),
        target: Some("10.0.0.7:9000".parse().unwrap()),
        due: Some(due),
        age: Some(Duration::from_millis(12_500)),
        ..Kept::new(Step::Retry, "hooks", "0192")
    };
    let bare =
        Event { request_id: None, route: None, provider: None, delivery: None, ..event(What::Received(received())) };
    let dropped = Event { what: What::Kept(Kept::new(Step::Discarded, "hooks", "0192")), ..bare };
    assert_eq!(
        lines(&[event(What::Kept(failed)), dropped]),
        [
            json!({"time": "2026-01-01T00:00:00.007Z", "event": "retry", "request_id": "req-1", "route": "hooks",
                "provider": "github", "delivery": "5f9c", "inbox": "hooks", "id": "0192", "attempt": 2, "status": 503,
                "why": "it answered 503", "target": "10.0.0.7:9000", "due": "2026-01-01T00:00:10.000Z",
                "age_ms": 12500.0}),
            json!({"time": "2026-01-01T00:00:00.007Z", "event": "discarded", "inbox": "hooks", "id": "0192"}),
        ]
    );
}

#[test]
fn every_step_has_a_word_of_its_own() {
    let steps = [Step::Stored, Step::Delivered, Step::Retry, Step::Dead, Step::Replayed, Step::Discarded];
    let mut words: Vec<&str> = steps.map(Step::as_str).to_vec();
    words.push("received");
    words.dedup();
    assert_eq!(words.len(), 7);
    let page = include_str!("../../../docs/operations.md");
    for word in words {
        assert!(page.contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    for (bytes, kept) in [(WHY_BYTES_MAX, WHY_BYTES_MAX), (WHY_BYTES_MAX + 1, WHY_BYTES_MAX)] {
        let why = "x".repeat(bytes);
        let dead = Kept { why: Some(&why), ..Kept::new(Step::Dead, "hooks", "1") };
        assert_eq!(lines(&[event(What::Kept(dead))])[0]["why"].as_str().unwrap().len(), kept);
    }
    let why = "ü".repeat(300);
    let dead = Kept { why: Some(why.as_str()), ..Kept::new(Step::Dead, "hooks", "1") };
    assert_eq!(lines(&[event(What::Kept(dead))])[0]["why"], "ü".repeat(250));
}

/// The examples of the page are what is written.
#[test]
fn the_page_shows_lines_as_they_are() {
    let retry = Kept {
        attempt: Some(1),
        status: Some(503),
        why: Some("the service answered 503"),
        target: Some("10.0.0.7:9000".parse().unwrap()),
        due: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_605_012)),
        age: Some(Duration::from_millis(5)),
        ..Kept::new(Step::Retry, "github", "0192f3a1")
    };
    let page = include_str!("../../../docs/operations.md");
    for line in written(&[event(What::Received(received())), event(What::Kept(retry))]).lines() {
        assert!(page.contains(&format!("{line}\n")), "docs/operations.md shows\n{line}");
    }
}
