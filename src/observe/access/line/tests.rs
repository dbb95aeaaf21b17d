use std::net::Ipv4Addr;
use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

static NOTHING: Hidden = Hidden::NONE;

fn entry() -> Entry<'static> {
    Entry {
        time: UNIX_EPOCH + Duration::from_millis(1_767_225_600_007),
        request_id: "req-1",
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        method: "GET",
        host: "api.example.com",
        path: "/a",
        query: None,
        hidden: &NOTHING,
        version: "HTTP/1.1",
        status: 200,
        code: None,
        route: None,
        consumer: None,
        upstream: None,
        target: None,
        duration: Duration::from_micros(12_045),
        upstream_duration: None,
        bytes_in: 0,
        bytes_out: 42,
        referer: None,
        user_agent: None,
        attempts: 0,
    }
}

fn line(format: AccessFormat, entry: &Entry<'_>) -> String {
    let mut out = Vec::new();
    write(format, &mut out, &mut Stamp::default(), entry);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_bare_request_as_json() {
    assert_eq!(
        line(AccessFormat::Json, &entry()),
        "{\"time\":\"2026-01-01T00:00:00.007Z\",\"request_id\":\"req-1\",\"client\":\"192.0.2.1\",\"method\":\"GET\",\
         \"host\":\"api.example.com\",\"path\":\"/a\",\"version\":\"HTTP/1.1\",\"status\":200,\"duration_ms\":12.045,\
         \"bytes_in\":0,\"bytes_out\":42,\"attempts\":0}\n"
    );
}

#[test]
fn every_field_as_json() {
    let entry = Entry {
        query: Some("page=2&token=hush"),
        code: Some("RATE_LIMITED"),
        route: Some("tasks"),
        consumer: Some("dash\"board"),
        upstream: Some("task-service"),
        target: Some("[::1]:8080".parse().unwrap()),
        upstream_duration: Some(Duration::from_micros(999)),
        referer: Some(b"https://me:hush@example.com/?code=hush"),
        user_agent: Some(b"curl/8"),
        attempts: 2,
        ..entry()
    };
    let shown: Value = serde_json::from_str(&line(AccessFormat::Json, &entry)).unwrap();
    assert_eq!(shown["query"], "page=2&token=[redacted]");
    assert_eq!(shown["error"], "RATE_LIMITED");
    assert_eq!(shown["route"], "tasks");
    assert_eq!(shown["consumer"], "dash\"board");
    assert_eq!(shown["upstream"], "task-service");
    assert_eq!(shown["target"], "[::1]:8080");
    assert_eq!(shown["upstream_duration_ms"], 0.999);
    assert_eq!(shown["referer"], "https://example.com/?code=[redacted]");
    assert_eq!(shown["user_agent"], "curl/8");
    assert_eq!(shown["attempts"], 2);
}

#[test]
fn the_combined_format() {
    assert_eq!(
        line(AccessFormat::Combined, &entry()),
        "192.0.2.1 - - [01/Jan/2026:00:00:00 +0000] \"GET /a HTTP/1.1\" 200 42 \"-\" \"-\"\n"
    );
    let entry = Entry {
        query: Some("a=\"&secret=hush"),
        referer: Some(b""),
        user_agent: Some(b"x\" \\ \n\x7f\xff~"),
        ..entry()
    };
    assert_eq!(
        line(AccessFormat::Combined, &entry),
        "192.0.2.1 - - [01/Jan/2026:00:00:00 +0000] \"GET /a?a=\\x22&secret=[redacted] HTTP/1.1\" 200 42 \"-\" \
         \"x\\x22 \\x5C \\x0A\\x7F\\xFF~\"\n"
    );
}

#[test]
fn the_caller_stands_in_the_place_of_the_user() {
    let user = |consumer: &str| {
        let line = line(AccessFormat::Combined, &Entry { consumer: Some(consumer), ..entry() });
        line.strip_prefix("192.0.2.1 - ").unwrap().split_once(" [").unwrap().0.to_owned()
    };
    assert_eq!(user("dashboard"), "dashboard");
    assert_eq!(user(""), "-");
    assert_eq!(user("-"), "\\x2D", "somebody of that name is not nobody");
    assert_eq!(user(" a [b\" c\n"), "\\x20a\\x20[b\\x22\\x20c\\x0A");
}

#[test]
fn what_terminals_and_viewers_act_on_is_escaped() {
    let agent = "\u{1b}[2J\u{9b}31m\u{7f}\u{2028}é\0".as_bytes();
    let shown = line(AccessFormat::Json, &Entry { user_agent: Some(agent), ..entry() });
    assert!(shown.contains("\"\\u001b[2J\\u009b31m\\u007f\\u2028é\\u0000\""), "{shown}");
}

#[test]
fn the_second_is_kept_only_for_its_second() {
    let mut stamp = Stamp::default();
    for (millis, shown) in [
        (999, "1970-01-01T00:00:00.999Z"),
        (1000, "1970-01-01T00:00:01.000Z"),
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
    ] {
        let mut out = Vec::new();
        let entry = Entry { time: UNIX_EPOCH + Duration::from_millis(millis), ..entry() };
        write(AccessFormat::Json, &mut out, &mut stamp, &entry);
        let parsed: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(parsed["time"], shown);
    }
    let mut out = Vec::new();
    let entry = Entry { time: UNIX_EPOCH - Duration::from_secs(1), ..entry() };
    write(AccessFormat::Json, &mut out, &mut stamp, &entry);
    assert!(out.starts_with(b"{\"time\":\"1970-01-01T00:00:00.000Z\""));
}

proptest! {
    #[test]
    fn any_bytes_make_one_line_that_parses(
        agent in proptest::collection::vec(any::<u8>(), 0..200),
        referer in proptest::collection::vec(any::<u8>(), 0..200),
        query in any::<String>(),
        path in any::<String>(),
    ) {
        let entry =
            Entry { user_agent: Some(&agent), referer: Some(&referer), query: Some(&query), path: &path, ..entry() };
        let json = line(AccessFormat::Json, &entry);
        prop_assert!(!json.trim_end_matches('\n').chars().any(char::is_control));
        let parsed: Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(parsed["user_agent"].as_str().unwrap(), String::from_utf8_lossy(&agent));
        prop_assert_eq!(parsed["path"].as_str().unwrap(), &path);
        prop_assert_eq!(parsed["query"].as_str().unwrap(), redact::redact_query(&query, &Hidden::NONE));
        let combined = line(AccessFormat::Combined, &entry);
        prop_assert!(combined.trim_end_matches('\n').bytes().all(|byte| matches!(byte, b' '..=b'~')));
        prop_assert_eq!(combined.matches('"').count(), 6);
    }
}
