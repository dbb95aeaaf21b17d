//! What a request meets, without a socket: admission, refusals, the line, and that every end gives back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Poll, Waker};

use super::*;
use crate::contract::testing::{async_filter, context, filter, get, refused, request, step};
use crate::head::{Method, RequestBuf};

fn admitted(filter: &dyn Filter, request: &mut RequestBuf) -> Option<Context> {
    let mut context = context();
    match filter.on_request(request, &mut context) {
        Verdict::Continue => Some(context),
        Verdict::Reject(_) => None,
        Verdict::Reply(reply) => panic!("{reply:?}"),
    }
}

fn refusal(verdict: Verdict) -> Rejection {
    match verdict {
        Verdict::Reject(rejection) => *rejection,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_limit_gets_in_and_one_more_does_not_until_one_ends() {
    let filter = filter::<ConcurrencySettings>("{ max: 2 }");
    let first = admitted(&*filter, &mut get("/")).unwrap();
    let second = admitted(&*filter, &mut get("/")).unwrap();
    assert!(admitted(&*filter, &mut get("/")).is_none());
    drop(first);
    let third = admitted(&*filter, &mut get("/")).unwrap();
    assert!(admitted(&*filter, &mut get("/")).is_none());
    drop((second, third));
    assert!(admitted(&*filter, &mut get("/")).is_some());
}

#[test]
fn callers_are_counted_apart_and_told_so() {
    let filter = filter::<ConcurrencySettings>("{ max: 1, per: { header: X-Tenant } }");
    let of = |tenant| request(Method::GET, "/", &[("x-tenant", tenant)]);
    let _one = admitted(&*filter, &mut of("a")).unwrap();
    let _other = admitted(&*filter, &mut of("b")).unwrap();
    let rejection = refusal(filter.on_request(&mut of("a"), &mut context()));
    assert_eq!((rejection.code, rejection.status.as_u16()), (Code::CONCURRENCY_LIMITED, 429));
    assert_eq!(rejection.details["max"], 1);
    assert!(rejection.fields.is_empty());
}

#[test]
fn where_others_are_to_blame_the_gateway_is_overloaded() {
    for settings in ["{ max: 1 }", "{ max: 1, per: route }"] {
        let filter = filter::<ConcurrencySettings>(settings);
        let _one = admitted(&*filter, &mut get("/")).unwrap();
        let rejection = refusal(filter.on_request(&mut get("/"), &mut context()));
        assert_eq!((rejection.code, rejection.status.as_u16()), (Code::OVERLOADED, 503));
        assert_eq!(rejection.fields, [(RETRY_AFTER, HeaderValue::from_static("1"))]);
    }
}

#[tokio::test]
async fn who_waits_gets_in_or_is_refused_when_the_time_is_over() {
    let filter = async_filter::<ConcurrencySettings>("{ max: 1, queue: 1, wait: 50ms }");
    let (mut request, mut first) = (get("/"), context());
    assert!(matches!(filter.on_request(&mut request, &mut first).await, Verdict::Continue));
    let (mut request, mut second) = (get("/"), context());
    let mut waits = filter.on_request(&mut request, &mut second);
    let mut task = std::task::Context::from_waker(Waker::noop());
    assert!(matches!(waits.as_mut().poll(&mut task), Poll::Pending));
    let one_more = refusal(filter.on_request(&mut get("/"), &mut context()).await);
    assert_eq!(one_more.code, Code::OVERLOADED, "the line is full");
    drop(first);
    assert!(matches!(waits.await, Verdict::Continue));
    assert_eq!(refusal(filter.on_request(&mut get("/"), &mut context()).await).code, Code::OVERLOADED);
    drop(second);
    assert!(matches!(filter.on_request(&mut get("/"), &mut context()).await, Verdict::Continue));
}

#[tokio::test]
async fn who_goes_away_leaves_the_line() {
    let filter = async_filter::<ConcurrencySettings>("{ max: 1, queue: 1, wait: 1m }");
    let (mut request, mut first) = (get("/"), context());
    assert!(matches!(filter.on_request(&mut request, &mut first).await, Verdict::Continue));
    for _ in 0..3 {
        let (mut request, mut context) = (get("/"), context());
        let mut waits = filter.on_request(&mut request, &mut context);
        let mut task = std::task::Context::from_waker(Waker::noop());
        assert!(matches!(waits.as_mut().poll(&mut task), Poll::Pending));
    }
    drop(first);
    assert!(matches!(filter.on_request(&mut get("/"), &mut context()).await, Verdict::Continue));
}

#[test]
fn a_panic_gives_back() {
    let filter = filter::<ConcurrencySettings>("{ max: 1 }");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _context = admitted(&*filter, &mut get("/")).unwrap();
        panic!("in a later filter");
    }));
    assert!(panicked.is_err());
    assert!(admitted(&*filter, &mut get("/")).is_some());
}

#[test]
fn a_preview_counts_nothing() {
    let filter = filter::<ConcurrencySettings>("{ max: 1 }");
    let contexts = [(); 3].map(|()| {
        let mut context = context();
        assert!(matches!(filter.preview(&mut get("/"), &mut context), Verdict::Continue));
        context
    });
    assert!(admitted(&*filter, &mut get("/")).is_some());
    drop(contexts);
}

#[test]
fn only_a_queue_makes_it_wait() {
    assert!(matches!(step::<ConcurrencySettings>("{ max: 1 }"), Ok(Step::Sync(_))));
    assert!(matches!(step::<ConcurrencySettings>("{ max: 1, queue: 0 }"), Ok(Step::Sync(_))));
    assert!(matches!(step::<ConcurrencySettings>("{ max: 1, queue: 10000, wait: 1m }"), Ok(Step::Async(_))));
}

#[test]
fn settings_out_of_bounds_are_refused() {
    for (settings, why) in [
        ("{ max: 0 }", "at least 1"),
        ("{ max: 1, queue: 10001 }", "at most 10000"),
        ("{ max: 1, wait: 1s }", "`queue: 10`"),
        ("{ max: 1, queue: 0, wait: 1s }", "`queue: 10`"),
        ("{ max: 1, queue: 1, wait: 60001ms }", "at most 1m"),
        ("{ max: 1, queue: 1, wait: 0s }", "more than 0"),
        ("{ max: 1, per: rout }", "route"),
        ("{ max: 1, bucket: 'a:b' }", "no name of a bucket"),
        ("{ max: 1, bucket: '' }", "no name of a bucket"),
        ("{}", "max"),
    ] {
        let problems = refused::<ConcurrencySettings>(settings);
        assert!(problems.contains(why), "{settings}: {problems}");
    }
}
