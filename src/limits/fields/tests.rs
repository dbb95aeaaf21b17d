use std::time::SystemTime;

use super::*;
use crate::context::RequestId;
use crate::head::{ResponseBuf, StatusCode};
use crate::reply::Code;
use crate::types;

fn rates(texts: &[&str], burst: Option<u64>) -> Rates {
    Rates::new(texts.iter().map(|text| text.parse::<types::Rate>().unwrap()), burst).unwrap()
}

fn context() -> Context {
    Context::detached("192.0.2.1".parse().unwrap(), RequestId::from_bits(1), clock::now())
}

fn drawn(limit: f64, remaining: f64, full_in: u64) -> Drawn {
    let full_in = Duration::from_secs(full_in);
    Drawn { got: 1.0, admitted: true, limit, remaining, full_in, retry_in: Duration::ZERO }
}

fn all(head: &dyn Headers) -> Vec<String> {
    let mut seen = Vec::new();
    head.all(&mut |name, value| seen.push(format!("{name}: {}", String::from_utf8_lossy(value))));
    seen
}

fn epoch() -> u64 {
    SystemTime::duration_since(&clock::wall(), UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn a_bucket_is_told_in_both_styles() {
    let rates = rates(&["60/min", "1000/hour"], Some(10));
    let policy = FieldsSetting::All.policy_of("reads", &rates);
    let mut context = context();
    // The hour is the tightest: 7.5 of 1000 left, half a token to the next.
    context.standings.push(standing(1, clock::now(), &drawn(1000.0, 7.5, 3573), &rates, Limited::Allowed, policy));
    let mut response = ResponseBuf::new(StatusCode::OK);
    response.set(&LIMIT, HeaderValue::from_static("the service's own"));
    response.append(&STANDARD, HeaderValue::from_static("\"x\";r=1"));
    response.append(&STANDARD, HeaderValue::from_static("\"y\";r=1"));
    write(&mut response, &context, 2);
    assert_eq!(all(&response).len(), 3, "another filter leaves it to the first");
    write(&mut response, &context, 1);
    let reset = epoch() + 3573;
    let (mut told, mut expected) = (
        all(&response),
        vec![
            "x-ratelimit-limit: 1000".to_owned(),
            "x-ratelimit-remaining: 7".to_owned(),
            format!("x-ratelimit-reset: {}", reset + 1),
            "ratelimit: \"reads-hour\";r=7;t=2".to_owned(),
            "ratelimit-policy: \"reads-minute\";q=60;w=60, \"reads-hour\";q=1000;w=3600".to_owned(),
        ],
    );
    told.retain(|line| !line.starts_with("x-ratelimit-reset"));
    expected.retain(|line| !line.starts_with("x-ratelimit-reset"));
    assert_eq!(told, expected);
    let told: u64 = std::str::from_utf8(response.get(&RESET).unwrap()).unwrap().parse().unwrap();
    assert!((reset..=reset + 2).contains(&told), "{told} is {reset}, rounded up");
}

#[test]
fn of_several_the_tightest_is_told_and_each_has_a_line() {
    let (minute, day) = (rates(&["60/min"], None), rates(&["10/day"], None));
    let mut context = context();
    let policy = |name: &str, rates: &Rates, fields: FieldsSetting| fields.policy_of(name, rates);
    let silent = policy("silent", &day, FieldsSetting::None);
    context.standings.push(standing(1, clock::now(), &drawn(10.0, 0.0, 9), &day, Limited::Observed, silent));
    let ip = policy("ip", &minute, FieldsSetting::All);
    context.standings.push(standing(2, clock::now(), &drawn(60.0, 60.0, 0), &minute, Limited::Allowed, ip));
    let consumer = policy("consumer", &day, FieldsSetting::Legacy);
    context.standings.push(standing(3, clock::now(), &drawn(10.0, 3.0, 60_480), &day, Limited::Allowed, consumer));
    let standard = policy("heavy", &day, FieldsSetting::Standard);
    context.standings.push(standing(4, clock::now(), &drawn(10.0, 1.0, 77_760), &day, Limited::Allowed, standard));
    let mut response = ResponseBuf::new(StatusCode::OK);
    (1..=4).for_each(|filter| write(&mut response, &context, filter));
    let mut told = all(&response);
    told.retain(|line| !line.starts_with("x-ratelimit-reset"));
    told.sort();
    assert_eq!(
        told,
        [
            "ratelimit-policy: \"heavy-day\";q=10;w=86400",
            "ratelimit-policy: \"ip-minute\";q=60;w=60",
            "ratelimit: \"heavy-day\";r=1;t=8640",
            "ratelimit: \"ip-minute\";r=60",
            "x-ratelimit-limit: 10",
            "x-ratelimit-remaining: 3",
        ]
    );
}

#[test]
fn what_the_service_says_is_replaced_in_either_style() {
    let rates = rates(&["60/min"], None);
    for (fields, told) in [(FieldsSetting::Legacy, 3), (FieldsSetting::Standard, 2)] {
        let mut context = context();
        let policy = fields.policy_of("reads", &rates);
        context.standings.push(standing(1, clock::now(), &drawn(60.0, 7.0, 53), &rates, Limited::Allowed, policy));
        let mut response = ResponseBuf::new(StatusCode::OK);
        for name in [LIMIT, REMAINING, RESET, STANDARD_POLICY, STANDARD] {
            response.append(&name, HeaderValue::from_static("the service's own"));
        }
        write(&mut response, &context, 1);
        assert_eq!(all(&response).len(), told, "{:?}", all(&response));
        assert!(!all(&response).iter().any(|line| line.contains("own")), "{:?}", all(&response));
    }
}

#[test]
fn a_refusal_is_told_by_whoever_comes_first() {
    let rates = rates(&["5/min"], None);
    let refused = Drawn { got: 0.0, admitted: false, retry_in: Duration::from_millis(11_200), ..drawn(5.0, 0.06, 60) };
    let policy = FieldsSetting::All.policy_of("heavy", &rates);
    let mut context = context();
    context.standings.push(standing(9, clock::now(), &refused, &rates, Limited::Refused, policy.clone()));
    let rejection = refuse(Rejection::new(Code::RATE_LIMITED, "slow down"), &context, 9);
    let field = |name: &HeaderName| {
        let found = rejection.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.to_str().unwrap().to_owned())
    };
    assert_eq!(field(&REMAINING).as_deref(), Some("0"));
    assert_eq!(field(&STANDARD).as_deref(), Some("\"heavy-minute\";r=0;t=12"));
    context.standings.insert(0, standing(8, clock::now(), &drawn(5.0, 0.0, 60), &rates, Limited::Allowed, policy));
    let rejection = refuse(Rejection::new(Code::RATE_LIMITED, "slow down"), &context, 9);
    assert!(rejection.fields.is_empty(), "the filter before it tells on the way out");
    let mut response = ResponseBuf::new(StatusCode::TOO_MANY_REQUESTS);
    write(&mut response, &context, 8);
    assert_eq!(all(&response).len(), 7);
}

#[test]
fn tokens_are_rounded_down() {
    assert_eq!(whole(2.9999999), 3, "counted in floats");
    assert_eq!((whole(2.999), whole(0.0), whole(-1.0)), (2, 0, 0));
    assert_eq!((whole(1e15), whole(f64::INFINITY), whole(f64::NAN)), (999_999_999_999_999, 999_999_999_999_999, 0));
}

#[test]
fn who_waited_is_told_times_from_there() {
    let rates = rates(&["5/min"], None);
    let context = || Context { started: clock::now() - Duration::from_secs(60), ..context() };
    let refused = Drawn { got: 0.0, admitted: false, retry_in: Duration::from_millis(11_200), ..drawn(5.0, 0.06, 60) };
    let policy = FieldsSetting::All.policy_of("heavy", &rates);
    let mut context = context();
    context.standings.push(standing(9, clock::now(), &refused, &rates, Limited::Refused, policy));
    let mut response = ResponseBuf::new(StatusCode::TOO_MANY_REQUESTS);
    write(&mut response, &context, 9);
    assert_eq!(response.get(&STANDARD), Some(&b"\"heavy-minute\";r=0;t=12"[..]));
    let reset: u64 = std::str::from_utf8(response.get(&RESET).unwrap()).unwrap().parse().unwrap();
    assert!(reset > epoch() + 50, "{reset}");
}
