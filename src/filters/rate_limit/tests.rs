use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::caller::{CallerFields, Credential, Level as Trust, Scopes};
use crate::contract::Step;
use crate::contract::testing::{context, filter, filter_knowing, get, refused, step, values};
use crate::head::{ResponseBuf, StatusCode};
use crate::identity::fixture::identity;
use crate::rates::{Own, OwnRates};

fn caller(name: &str, roles: &[&str], own: Option<OwnRates>) -> Arc<Caller> {
    Arc::new(Caller {
        name: name.into(),
        credential: Credential::Key { id: format!("{name}-1").into(), managed: false, version: 1 },
        level: Trust::User,
        roles: roles.iter().map(|role| Box::from(*role)).collect(),
        scopes: Scopes::default(),
        claims: serde_json::Map::new(),
        expires: None,
        fields: CallerFields::new(name, &[], &Scopes::default()).unwrap(),
        rates: own.map(Arc::new),
    })
}

/// One of these keys of the consumer `a`.
fn key(id: &str, own: Option<OwnRates>) -> Arc<Caller> {
    let credential = Credential::Key { id: id.into(), managed: false, version: 1 };
    Arc::new(Caller { credential, ..(*caller("a", &[], own)).clone() })
}

fn token(roles: &[&str]) -> Arc<Caller> {
    let credential = Credential::Token { issuer: "main".into(), id: None, key: 1 };
    Arc::new(Caller { credential, ..(*caller("ann", roles, None)).clone() })
}

fn rates(text: &str) -> Option<Own> {
    Rates::new([text.parse().unwrap()], None).map(|rates| Own { rates, is_of_key: false })
}

fn every(text: &str) -> OwnRates {
    OwnRates { every: rates(text), by_bucket: Box::default() }
}

/// Requests of one caller until one is refused, at one moment; and the refusal.
fn until_refused(filter: &Arc<dyn Filter>, caller: Option<&Arc<Caller>>) -> (usize, Rejection) {
    let now = context().now;
    for count in 0..10_000 {
        let mut context = Context { now, caller: caller.cloned(), ..context() };
        match filter.on_request(&mut get("/"), &mut context) {
            Verdict::Continue => assert_eq!(context.standings.len(), 1),
            Verdict::Reject(rejection) => return (count, *rejection),
            Verdict::Reply(_) => panic!("it has no answers"),
        }
    }
    panic!("it is never refused")
}

fn passes(filter: &Arc<dyn Filter>, caller: Option<&Arc<Caller>>) -> usize {
    until_refused(filter, caller).0
}

fn at(filter: &Arc<dyn Filter>, base: &Context, after: Duration) -> Verdict {
    let mut context = Context { now: base.now + after, ..base.clone() };
    filter.on_request(&mut get("/"), &mut context)
}

#[test]
fn as_many_pass_as_the_rate_says_and_the_next_is_told_when_to_come_again() {
    let limit = filter::<RateLimitSettings>("{ rates: [5/min], bucket: heavy }");
    let (passed, rejection) = until_refused(&limit, None);
    assert_eq!((passed, rejection.code, rejection.status), (5, Code::RATE_LIMITED, StatusCode::TOO_MANY_REQUESTS));
    let details = serde_json::json!({ "limit": 5, "remaining": 0, "retry_after": 12, "bucket": "heavy" });
    assert_eq!(serde_json::Value::Object(rejection.details), details);
    let field = |name: &str| {
        let found = rejection.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.to_str().unwrap().to_owned())
    };
    assert_eq!(field("retry-after").as_deref(), Some("12"));
    assert_eq!(field("x-ratelimit-limit").as_deref(), Some("5"));
    assert_eq!(field("ratelimit-policy").as_deref(), Some("\"heavy-minute\";q=5;w=60"));
    assert_eq!(field("ratelimit").as_deref(), Some("\"heavy-minute\";r=0;t=12"));
}

#[test]
fn tokens_flow_back_all_the_time() {
    let limit = filter::<RateLimitSettings>("{ rates: [60/min], burst: 2 }");
    let base = context();
    for (millis, passes) in [
        (0, true),
        (0, true),
        (0, false),
        (999, false),
        (1000, true),
        (1000, false),
        (9000, true),
        (9000, true),
        (9000, false),
    ] {
        let verdict = at(&limit, &base, Duration::from_millis(millis));
        assert_eq!(matches!(verdict, Verdict::Continue), passes, "{millis}");
    }
}

#[test]
fn all_rates_have_to_have_room_or_none_is_charged() {
    let limit = filter::<RateLimitSettings>("{ rates: [4/hour, 3/min] }");
    let base = context();
    for (seconds, passes) in
        [(0, true), (0, true), (0, true), (0, false), (20, true), (20, false), (40, false), (60, false)]
    {
        let verdict = at(&limit, &base, Duration::from_secs(seconds));
        assert_eq!(matches!(verdict, Verdict::Continue), passes, "{seconds}");
    }
    let Verdict::Reject(rejection) = at(&limit, &base, Duration::from_secs(60)) else { panic!("the hour is used up") };
    assert_eq!(rejection.details["limit"], 4, "the hour makes it wait");
    assert_eq!(rejection.details["retry_after"], 840, "of the 900 s that one of 4 in an hour takes");
}

#[test]
fn callers_count_apart_and_strangers_by_address() {
    let limit = filter::<RateLimitSettings>("{ rates: [3/min] }");
    let (one, other) = (caller("one", &[], None), caller("other", &[], None));
    assert_eq!((passes(&limit, Some(&one)), passes(&limit, Some(&other)), passes(&limit, None)), (3, 3, 3));
    assert_eq!(passes(&limit, Some(&one)), 0);
}

#[test]
fn roles_have_their_share() {
    let roles = identity("roles: { admin: {}, viewer: {}, user: {} }");
    let limit = "{ rates: [100/min], by_role: { viewer: 0.5, admin: 2 }, burst: 10, per: consumer }";
    let limit = filter_knowing::<RateLimitSettings>(limit, &roles);
    let passes = |name: &str, roles: &[&str]| passes(&limit, Some(&caller(name, roles, None)));
    assert_eq!(passes("u", &["user"]), 10);
    assert_eq!(passes("a", &["admin"]), 20);
    assert_eq!(passes("v", &["user", "viewer"]), 5);
    assert_eq!(passes("b", &["viewer", "admin"]), 20, "the largest counts");
}

#[test]
fn own_rates_come_before_those_of_the_role() {
    let roles = identity("roles: { admin: {} }");
    let settings = |per: &str| format!("{{ rates: [10/min], by_role: {{ admin: 2.0 }}, bucket: reads, per: {per} }}");
    let every = every("3/min");
    let named = |bucket: &str| OwnRates { every: None, by_bucket: [(bucket.into(), rates("4/min").unwrap())].into() };
    for per in ["consumer", "key", "[route, consumer]"] {
        let limit = filter_knowing::<RateLimitSettings>(&settings(per), &roles);
        assert_eq!(passes(&limit, Some(&caller("a", &["admin"], Some(every.clone())))), 3, "{per}");
        assert_eq!(passes(&limit, Some(&caller("b", &["admin"], Some(named("reads"))))), 4, "{per}");
        assert_eq!(passes(&limit, Some(&caller("c", &["admin"], Some(named("writes"))))), 20, "{per}");
    }
    let limit = filter_knowing::<RateLimitSettings>(&settings("ip"), &roles);
    assert_eq!(passes(&limit, Some(&caller("a", &[], Some(every)))), 10, "an address has no rates of its own");
}

#[test]
fn a_request_takes_its_cost_and_no_more_than_own_rates_can_hold() {
    let limit = filter::<RateLimitSettings>("{ rates: [10/min], cost: 3 }");
    assert_eq!(passes(&limit, None), 3);
    assert_eq!(passes(&limit, Some(&caller("small", &[], Some(every("2/min"))))), 1);
}

#[test]
fn changed_rates_keep_what_is_used() {
    let small = caller("a", &[], Some(every("6/min")));
    let large = caller("a", &[], Some(every("10/min")));
    let limit = filter::<RateLimitSettings>("{ rates: [3/min] }");
    assert_eq!((passes(&limit, Some(&small)), passes(&limit, Some(&large))), (6, 4));
    assert_eq!(passes(&limit, Some(&caller("a", &[], None))), 0);
}

#[test]
fn a_key_with_rates_of_its_own_has_a_bucket_of_its_own() {
    for per in ["consumer", "[consumer, route]", "key"] {
        let limit = filter::<RateLimitSettings>(&format!("{{ rates: [10/min], per: {per} }}"));
        let special = key("special", Some(every("3/min").of_key()));
        assert_eq!(passes(&limit, Some(&special)), 3, "{per}");
        assert_eq!(passes(&limit, Some(&key("plain", None))), 10, "{per}: it took nothing from the others");
        assert_eq!(passes(&limit, Some(&special)), 0, "{per}");
    }
}

/// Two keys of one consumer, one of which has rates with another period. Were both asked of one bucket, it would begin
/// anew with each change from one to the other, as it knows nothing of a period that was not there.
#[test]
fn keys_that_take_turns_do_not_make_a_bucket_forget() {
    for per in ["consumer", "[consumer, route]", "[consumer, ip]"] {
        let limit = filter::<RateLimitSettings>(&format!("{{ rates: [10/hour], per: {per} }}"));
        let (plain, special) = (key("plain", None), key("special", Some(every("5/s").of_key())));
        let base = context();
        let (mut of_plain, mut of_special) = (0, 0);
        // Ten minutes, twice a second: within them two more tokens flow back to the plain key.
        for half in 0..1200 {
            let (caller, count) = if half % 2 == 0 { (&plain, &mut of_plain) } else { (&special, &mut of_special) };
            let now = base.now + Duration::from_millis(half * 500);
            let mut context = Context { now, caller: Some(Arc::clone(caller)), ..base.clone() };
            let verdict = limit.on_request(&mut get("/"), &mut context);
            *count += u32::from(matches!(verdict, Verdict::Continue));
        }
        assert_eq!((of_plain, of_special), (11, 600), "{per}");
    }
}

#[test]
fn tokens_of_one_subject_with_different_roles_share_what_is_used() {
    let roles = identity("roles: { admin: {}, viewer: {} }");
    let limit = "{ rates: [10/min, 100/hour], by_role: { viewer: 0.5, admin: 2 } }";
    let limit = filter_knowing::<RateLimitSettings>(limit, &roles);
    let passes = |roles: &[&str]| passes(&limit, Some(&token(roles)));
    assert_eq!((passes(&["viewer"]), passes(&["admin"])), (5, 15), "20 in all, of which 5 were used");
    for roles in [&["viewer"][..], &["admin"], &[], &["viewer"], &["admin"]] {
        assert_eq!(passes(roles), 0, "{roles:?}");
    }
}

#[test]
fn roles_that_take_turns_get_no_more_than_the_largest() {
    let roles = identity("roles: { admin: {}, viewer: {} }");
    let limit = "{ rates: [10/min], by_role: { viewer: 0.5, admin: 2 } }";
    let limit = filter_knowing::<RateLimitSettings>(limit, &roles);
    let base = context();
    let callers = [token(&["viewer"]), token(&["admin"]), token(&[])];
    let mut passed = 0;
    for (step, caller) in (0..600_u64).zip(callers.iter().cycle()) {
        let now = base.now + Duration::from_millis(step * 100);
        let mut context = Context { now, caller: Some(Arc::clone(caller)), ..base.clone() };
        passed += u32::from(matches!(limit.on_request(&mut get("/"), &mut context), Verdict::Continue));
    }
    assert!((20..=40).contains(&passed), "an admin alone has 20 at once and 20 in that minute: {passed}");
}

#[test]
fn one_that_observes_refuses_nobody_and_tells_nothing() {
    let limit = filter::<RateLimitSettings>("{ rates: [2/min], mode: observe }");
    assert_eq!(limit.hooks(), Hooks::REQUEST);
    let base = context();
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        let mut context = Context { now: base.now, ..context() };
        assert!(matches!(limit.on_request(&mut get("/"), &mut context), Verdict::Continue));
        outcomes.push(context.standings[0].outcome);
        let mut response = ResponseBuf::new(StatusCode::OK);
        limit.on_response(&get("/"), &mut response, &context);
        assert!(values(&response, "ratelimit").is_empty() && values(&response, "x-ratelimit-limit").is_empty());
    }
    assert_eq!(outcomes, [Limited::Allowed, Limited::Allowed, Limited::Observed, Limited::Observed]);
    let off = filter::<RateLimitSettings>("{ rates: [1/min], mode: off }");
    assert_eq!(off.hooks(), Hooks { request: false, response: false, preflight: false });
}

#[test]
fn a_preflight_is_not_counted() {
    let limit = filter::<RateLimitSettings>("{ rates: [1/min] }");
    for _ in 0..3 {
        let mut context = Context { preflight: true, ..context() };
        assert!(matches!(limit.on_request(&mut get("/"), &mut context), Verdict::Continue));
        assert!(context.standings.is_empty());
    }
    assert_eq!(passes(&limit, None), 1);
}

#[test]
fn a_preview_takes_nothing() {
    let limit = filter::<RateLimitSettings>("{ rates: [2/min] }");
    for _ in 0..5 {
        let mut context = context();
        assert!(matches!(limit.preview(&mut get("/"), &mut context), Verdict::Continue));
        assert_eq!((context.standings[0].limit, context.standings[0].remaining), (2, 1));
    }
    assert_eq!(passes(&limit, None), 2);
}

#[test]
fn responses_say_where_the_caller_stands() {
    let limit = filter::<RateLimitSettings>("{ rates: [60/min, 1000/hour], per: [ip, route] }");
    let mut context = context();
    limit.on_request(&mut get("/"), &mut context);
    let mut response = ResponseBuf::new(StatusCode::OK);
    limit.on_response(&get("/"), &mut response, &context);
    let value = |name: &str| values(&response, name).join("|");
    assert_eq!((value("x-ratelimit-limit").as_str(), value("x-ratelimit-remaining").as_str()), ("60", "59"));
    assert_eq!(value("ratelimit-policy"), "\"ip-route-minute\";q=60;w=60, \"ip-route-hour\";q=1000;w=3600");
    assert_eq!(value("ratelimit"), "\"ip-route-minute\";r=59;t=1");
    let legacy = filter::<RateLimitSettings>("{ rates: [60/min], fields: legacy }");
    let mut context = crate::contract::testing::context();
    legacy.on_request(&mut get("/"), &mut context);
    let mut response = ResponseBuf::new(StatusCode::OK);
    legacy.on_response(&get("/"), &mut response, &context);
    assert_eq!((values(&response, "ratelimit").len(), values(&response, "x-ratelimit-reset").len()), (0, 1));
    assert_eq!(filter::<RateLimitSettings>("{ rates: [60/min], fields: none }").hooks(), Hooks::REQUEST);
}

#[test]
fn mistakes_are_reported() {
    for (settings, expected) in [
        ("{}", "rates"),
        ("{ rates: [] }", "1 to 4 rates, not 0"),
        ("{ rates: [1/s, 1/min, 1/hour, 1/day, 2/day] }", "not 5"),
        ("{ rates: [60/min, 1/min] }", "`60/min` and `1/min` are for the same span"),
        ("{ rates: [60] }", "60"),
        ("{ rates: [60/min], burst: 0 }", "`burst` is 1 to"),
        ("{ rates: [1000000001/s] }", "`1000000001/s` is more than 1000000000"),
        ("{ rates: [60/min], cost: 0 }", "`mode: off`"),
        ("{ rates: [60/min], cost: 61 }", "costs 61, and a bucket holds 60"),
        ("{ rates: [60/min, 5/hour], cost: 6 }", "holds 5"),
        ("{ rates: [60/min], burst: 2, cost: 3 }", "holds 2"),
        ("{ rates: [60/min], bucket: \"a b\" }", "name of a bucket"),
        ("{ rates: [60/min], bucket: \"chain:api\" }", "name of a bucket"),
        ("{ rates: [60/min], by_role: { boss: 2 } }", "unknown role `boss`"),
        ("{ rates: [60/min], by_role: { boss: 0 } }", "more than 0"),
        ("{ rates: [60/min], mode: observ }", "did you mean `observe`"),
        ("{ rates: [60/min], per: consumr }", "did you mean `consumer`"),
        ("{ rates: [60/min], bursts: 3 }", "burst"),
    ] {
        let found = refused::<RateLimitSettings>(settings);
        assert!(found.contains(expected), "{settings}: {found}");
    }
    let roles = identity("roles: { viewer: {} }");
    let small = crate::contract::testing::step_knowing::<RateLimitSettings>(
        "{ rates: [1/min], by_role: { viewer: 0.5 } }",
        &roles,
    );
    assert!(small.err().unwrap().join("").contains("the bucket of `viewer` holds 0.5"));
    assert!(matches!(step::<RateLimitSettings>("{ rates: [60/min], cost: 60 }"), Ok(Step::Sync(_))));
}
