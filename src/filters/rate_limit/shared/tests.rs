use std::sync::Arc;

use super::super::RateLimitSettings;
use super::*;
use crate::buckets::{self, Limiter, LimiterError, Seen};
use crate::contract::testing::{context, get, node, outcome, refused, values};
use crate::contract::{Known, Settings, Step};
use crate::head::{ResponseBuf, StatusCode};
use crate::limits::{Limits, Shared};
use crate::rates::{Ask, Drawn, Rates};
use crate::state::{self, Memory};
use crate::yaml::Place;

/// Nobody is there.
struct Away;

impl Limiter for Away {
    fn draw<'a>(&'a self, _: Key<'a>, _: &'a Rates, _: Ask) -> buckets::Pending<'a, Drawn> {
        Box::pin(async { Err(LimiterError("nobody is there".into())) })
    }

    fn show<'a>(&'a self, _: Key<'a>) -> buckets::Pending<'a, Option<Seen>> {
        Box::pin(async { Err(LimiterError("nobody is there".into())) })
    }

    fn reset<'a>(&'a self, _: Key<'a>) -> buckets::Pending<'a, bool> {
        Box::pin(async { Err(LimiterError("nobody is there".into())) })
    }

    fn top<'a>(&'a self, _: &'a str, _: usize) -> buckets::Pending<'a, Vec<Seen>> {
        Box::pin(async { Err(LimiterError("nobody is there".into())) })
    }
}

/// The filter in a gateway that shares its state with others.
fn step(text: &str) -> Result<Step, Vec<String>> {
    let limits = Limits::default();
    limits.attach(Shared { store: Arc::new(Memory::new(state::Limits::default())), limiter: Some(Arc::new(Away)) });
    let known = Known { limits: Arc::new(limits), is_shared: true, ..Known::default() };
    let mut compiler = Compiler::at(Place::UNKNOWN, "test".to_owned(), &known);
    let built = compiler.settings::<RateLimitSettings>(&node(text)).and_then(|settings| settings.build(&mut compiler));
    outcome(built, compiler)
}

fn filter(text: &str) -> Arc<dyn AsyncFilter> {
    match step(text) {
        Ok(Step::Async(filter)) => filter,
        Ok(Step::Sync(_) | Step::Body(_) | Step::Stream(_)) => panic!("it waits for nobody"),
        Err(problems) => panic!("{problems:#?}"),
    }
}

#[tokio::test]
async fn without_the_store_each_policy_does_what_it_says() {
    let local = filter("{ per: ip, rates: [2/hour] }");
    for expected in [true, true, false] {
        let verdict = local.on_request(&mut get("/"), &mut context()).await;
        assert_eq!(matches!(verdict, Verdict::Continue), expected, "{verdict:?}");
    }
    let allow = filter("{ per: ip, rates: [1/hour], on_store_error: allow }");
    for _ in 0..3 {
        let mut context = context();
        assert!(matches!(allow.on_request(&mut get("/"), &mut context).await, Verdict::Continue));
        assert_eq!(context.standings[0].outcome, Limited::Allowed);
        let mut response = ResponseBuf::new(StatusCode::OK);
        allow.on_response(&get("/"), &mut response, &context);
        assert_eq!(values(&response, "x-ratelimit-limit"), [""; 0], "nobody knows");
    }
    let deny = filter("{ per: ip, rates: [1/hour], on_store_error: deny, lease: 1 }");
    let mut context = context();
    let Verdict::Reject(rejection) = deny.on_request(&mut get("/"), &mut context).await else { panic!("it passed") };
    assert_eq!(rejection.code, Code::STATE_UNAVAILABLE);
    assert!(rejection.fields.contains(&(RETRY_AFTER, HeaderValue::from_static("1"))));
    assert_eq!(context.standings[0].outcome, Limited::Refused);
}

#[tokio::test]
async fn who_only_observes_refuses_nobody() {
    let deny = filter("{ per: ip, rates: [1/hour], on_store_error: deny, mode: observe }");
    let mut context = context();
    assert!(matches!(deny.on_request(&mut get("/"), &mut context).await, Verdict::Continue));
    assert_eq!(context.standings[0].outcome, Limited::Observed);
}

#[test]
fn what_is_not_shared_waits_for_nobody() {
    let local = |text| matches!(step(text), Ok(Step::Sync(_)));
    assert!(local("{ per: ip, rates: [10/min], store: local }"));
    assert!(local("{ per: ip, rates: [10/min], mode: off }"));
    assert!(!local("{ per: ip, rates: [10/min] }"));
    let alone = crate::contract::testing::step::<RateLimitSettings>("{ per: ip, rates: [10/min], lease: 2 }");
    assert!(matches!(alone, Ok(Step::Sync(_))), "the same fragment serves one gateway and many");
    assert!(refused::<RateLimitSettings>("{ per: ip, rates: [10/min], store: shared }").contains("no state store"));
}

#[test]
fn a_lease_has_bounds() {
    let leased = |lease: &str| step(&format!("{{ per: ip, rates: [100/min], lease: {lease} }}")).is_ok();
    for (lease, is_sound) in [
        ("1", true),
        ("0", false),
        ("100", true),
        ("101", false),
        ("{ size: 10, for: 10ms }", true),
        ("{ size: 10, for: 9ms }", false),
        ("{ size: 10, for: 60s }", true),
        ("{ size: 10, for: 61s }", false),
        ("{ for: 1s }", false),
        ("[10]", false),
    ] {
        assert_eq!(leased(lease), is_sound, "{lease}");
    }
    assert!(step("{ per: ip, rates: [1000000/min], lease: 100000 }").is_ok());
    assert!(step("{ per: ip, rates: [1000000/min], lease: 100001 }").is_err());
}
