use super::*;
use crate::head::{HeaderValue, Headers as _, Method, RequestBuf};
use crate::yaml::{Sources, decode, parse};

fn check(yaml: &str) -> (Rules, Vec<Problem>) {
    let mut sources = Sources::new();
    let file = sources.add("test.yaml", yaml);
    let written: config::Retry = decode(&parse(&sources, file).unwrap()).unwrap();
    let mut problems = Vec::new();
    (Rules::check(&written, &mut problems), problems)
}

fn rules(yaml: &str) -> Rules {
    let (rules, problems) = check(yaml);
    assert!(problems.is_empty(), "{yaml}: {problems:?}");
    rules
}

#[test]
fn only_what_is_listed_is_tried_again() {
    let all = [Reason::Connect, Reason::Reset, Reason::Timeout, Reason::Status(429), Reason::Status(503)];
    for (yaml, expected) in [
        ("{}", [true, false, false, false, false]),
        ("on: []", [false; 5]),
        ("on: [reset]", [false, true, false, false, false]),
        ("on: [timeout, 503]", [false, false, true, false, true]),
        ("on: [connect, reset, timeout, 429, 503]", [true; 5]),
    ] {
        assert_eq!(all.map(|reason| rules(yaml).covers(reason)), expected, "{yaml}");
    }
}

#[test]
fn what_may_happen_twice_needs_a_key_or_a_word() {
    let with = |method: &str, key: Option<&'static str>| {
        let mut head = RequestBuf::new(Method::from_bytes(method.as_bytes()).unwrap(), "/");
        if let Some(key) = key {
            head.set(&IDEMPOTENCY_KEY, HeaderValue::from_static(key));
        }
        head
    };
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        assert!(rules("unsafe_methods: never").allow(&with(method, None)), "{method}");
    }
    for method in ["POST", "PATCH", "LOCK"] {
        let allowed = |yaml| [None, Some(""), Some("key-1")].map(|key| rules(yaml).allow(&with(method, key)));
        assert_eq!(allowed("{}"), [false, false, true], "{method}");
        assert_eq!(allowed("unsafe_methods: never"), [false; 3]);
        assert_eq!(allowed("unsafe_methods: always"), [true; 3]);
    }
}

#[test]
fn pauses_double_up_to_the_longest() {
    let rules = rules("backoff: { first: 100ms, max: 350ms }");
    let longest: Vec<u128> = (1..=5).map(|tries| rules.pause(tries, 1.0).as_millis()).collect();
    assert_eq!(longest, [100, 200, 350, 350, 350]);
    assert_eq!((rules.pause(2, 0.0), rules.pause(2, 0.5)), (Duration::ZERO, Duration::from_millis(100)));
    assert_eq!(rules.pause(usize::MAX, 1.0), Duration::from_millis(350));
}

#[test]
fn mistakes_are_said() {
    for (yaml, message) in [
        ("attempts: 0", "`attempts` must be 1 to 10, not 0"),
        ("attempts: 11", "`attempts` must be 1 to 10, not 11"),
        ("on: [conect]", "unknown condition `conect`"),
        ("on: [200]", "200 is no status of a failure"),
        ("on: [600]", "600 is no status of a failure"),
        ("on: [[503]]", "`on` lists words and statuses, such as [connect, reset, 503]"),
        ("try_timeout: 0s", "`try_timeout` must be more than nothing and at most 1h"),
        ("backoff: { max: 61s }", "`max` must be more than nothing and at most 1m"),
        ("backoff: { first: 2s }", "`first` is longer than `max`"),
        ("budget_min: 5/min", "`budget_min` gives less than one retry in ten seconds"),
    ] {
        let (_, problems) = check(yaml);
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(messages, [message], "{yaml}");
    }
    assert_eq!(rules("budget_min: 6/min").least, 1);
    assert_eq!(rules("{ budget_min: 2/s, budget: 0.5% }").least, 20);
}
