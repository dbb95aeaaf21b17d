use super::*;
use crate::contract::testing::{context, get, refused, step_on, values};
use crate::contract::{Settings as _, Step};
use crate::head::{ResponseBuf, StatusCode};
use crate::limits::{Limits, Shared};
use crate::state::{self, Memory};

fn limits() -> Arc<Limits> {
    let limits = Arc::new(Limits::default());
    limits.attach(Shared { store: Arc::new(Memory::new(state::Limits::default())), limiter: None });
    limits
}

fn on(settings: &str, limits: &Arc<Limits>) -> Arc<dyn AsyncFilter> {
    match step_on::<QuotaSettings>(settings, limits) {
        Ok(Step::Async(filter)) => filter,
        Ok(Step::Sync(_) | Step::Body(_) | Step::Stream(_)) => panic!("{} is switched off", QuotaSettings::NAME),
        Err(problems) => panic!("{problems:#?}"),
    }
}

async fn ask(filter: &dyn AsyncFilter) -> (Verdict, Context) {
    let mut context = context();
    let verdict = filter.on_request(&mut get("/"), &mut context).await;
    (verdict, context)
}

fn rejection(verdict: Verdict) -> Rejection {
    match verdict {
        Verdict::Reject(rejection) => *rejection,
        other => panic!("{other:?}"),
    }
}

fn field(rejection: &Rejection, name: &str) -> String {
    let found = rejection.fields.iter().find(|(known, _)| known.as_str() == name);
    found.map(|(_, value)| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn the_first_beyond_the_limit_is_refused_and_told_when_the_period_ends() {
    let filter = on("{ limit: 3, period: month, time_zone: Europe/Berlin }", &limits());
    for left in [2, 1, 0] {
        let (verdict, context) = ask(&*filter).await;
        assert!(matches!(verdict, Verdict::Continue));
        let standing = &context.standings[0];
        assert_eq!((standing.outcome, standing.limit, standing.remaining), (Limited::Allowed, 3, left));
        let mut response = ResponseBuf::new(StatusCode::OK);
        filter.on_response(&get("/"), &mut response, &context);
        assert_eq!(values(&response, "x-ratelimit-remaining"), [left.to_string()]);
        assert!(values(&response, "ratelimit-policy")[0].starts_with("\"consumer-month\";q=3;w=2"));
        assert!(values(&response, "ratelimit")[0].starts_with(&format!("\"consumer-month\";r={left};t=")));
    }
    let (verdict, context) = ask(&*filter).await;
    let rejection = rejection(verdict);
    assert_eq!((rejection.code, rejection.status.as_u16()), (Code::QUOTA_EXCEEDED, 429));
    assert_eq!((&rejection.details["limit"], &rejection.details["used"]), (&3.into(), &3.into()));
    assert_eq!(rejection.details["period"], "month");
    let resets: jiff::Timestamp = rejection.details["resets_at"].as_str().unwrap().parse().unwrap();
    let retry: i64 = field(&rejection, "retry-after").parse().unwrap();
    let off = resets.as_second() - (jiff::Timestamp::now().as_second() + retry);
    assert!((-2..=2).contains(&off), "{off}");
    assert_eq!(field(&rejection, "x-ratelimit-remaining"), "0");
    assert_eq!(context.standings[0].outcome, Limited::Refused);
}

#[tokio::test]
async fn filters_of_one_bucket_count_together_and_a_changed_limit_keeps_what_is_used() {
    let limits = limits();
    let one = on("{ limit: 10, period: day, bucket: maps }", &limits);
    let other = on("{ limit: 10, period: day, bucket: maps, cost: 4 }", &limits);
    assert!(matches!(ask(&*one).await.0, Verdict::Continue));
    assert!(matches!(ask(&*other).await.0, Verdict::Continue));
    assert!(matches!(ask(&*other).await.0, Verdict::Continue));
    let refusal = rejection(ask(&*other).await.0);
    assert_eq!((&refusal.details["used"], &refusal.details["bucket"]), (&9.into(), &"maps".into()));
    assert!(matches!(ask(&*one).await.0, Verdict::Continue), "one is left");
    let raised = on("{ limit: 11, period: day, bucket: maps }", &limits);
    assert!(matches!(ask(&*raised).await.0, Verdict::Continue));
    assert_eq!(rejection(ask(&*raised).await.0).details["used"], 11);
}

#[tokio::test]
async fn observe_refuses_nobody_and_tells_nothing_and_off_does_nothing() {
    let filter = on("{ limit: 1, period: day, mode: observe }", &limits());
    for outcome in [Limited::Allowed, Limited::Observed, Limited::Observed] {
        let (verdict, context) = ask(&*filter).await;
        assert!(matches!(verdict, Verdict::Continue));
        assert_eq!((context.standings[0].outcome, &context.standings[0].policy), (outcome, &None));
    }
    assert!(!filter.hooks().response);
    let Ok(Step::Sync(off)) = step_on::<QuotaSettings>("{ limit: 1, period: day, mode: off }", &limits()) else {
        panic!("it waits for nothing")
    };
    assert!(!off.hooks().request && !off.hooks().response);
}

#[tokio::test]
async fn without_a_store_the_setting_decides() {
    let nowhere = Arc::new(Limits::default());
    let deny = on("{ limit: 5, period: day, on_store_error: deny }", &nowhere);
    let rejection = rejection(ask(&*deny).await.0);
    assert_eq!((rejection.code, &*field(&rejection, "retry-after")), (Code::STATE_UNAVAILABLE, "1"));
    let local = on("{ limit: 1, period: day, bucket: b }", &nowhere);
    assert!(matches!(ask(&*local).await.0, Verdict::Continue));
    assert!(matches!(ask(&*local).await.0, Verdict::Reject(_)));
    let allow = on("{ limit: 1, period: day, bucket: c, on_store_error: allow }", &nowhere);
    for _ in 0..3 {
        assert!(matches!(ask(&*allow).await.0, Verdict::Continue));
    }
}

#[tokio::test]
async fn a_preview_and_a_preflight_take_nothing() {
    let filter = on("{ limit: 1, period: day }", &limits());
    for _ in 0..3 {
        let mut context = context();
        assert!(matches!(filter.preview(&mut get("/"), &mut context), Verdict::Continue));
        assert_eq!((context.standings[0].limit, context.standings[0].remaining), (1, 0));
        let mut context = crate::contract::testing::context();
        context.preflight = true;
        assert!(matches!(filter.on_request(&mut get("/"), &mut context).await, Verdict::Continue));
    }
    assert!(matches!(ask(&*filter).await.0, Verdict::Continue));
    assert!(matches!(ask(&*filter).await.0, Verdict::Reject(_)));
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let refused = |settings: &str| refused::<QuotaSettings>(&format!("{{ period: day, {settings} }}"));
    for limit in ["0", "1000000000001"] {
        assert!(refused(&format!("limit: {limit}")).contains("`limit` is 1 to"), "{limit}");
    }
    assert!(refused("limit: 5, cost: 6").contains("`cost` is 1 to 5"));
    assert!(refused("limit: 5, cost: 0").contains("`cost` is 1 to 5"));
    assert!(refused("limit: 5, time_zone: Europe/Berlni").contains("did you mean `Europe/Berlin`?"));
    assert!(refused("limit: 5, time_zone: \"+01:00\"").contains("unknown time zone"));
    assert!(refused("limit: 5, bucket: a b").contains("the name of a bucket"));
    assert!(refused("limit: 5, by_role: { nobody: 2.0 }").contains("unknown role `nobody`"));
    for sound in ["limit: 1", "limit: 1000000000000", "limit: 5, cost: 5"] {
        assert!(step_on::<QuotaSettings>(&format!("{{ period: week, {sound} }}"), &limits()).is_ok(), "{sound}");
    }
}
