//! A message passes once.

use super::sender::{Sender, Sent};
use super::*;
use crate::head::{ResponseBuf, StatusCode};

const SECRET: &str = "an example and no secret at all";

fn now() -> u64 {
    seconds(clock::wall())
}

fn github(body: &str) -> Sent {
    Sender::Github.send(SECRET, body.as_bytes(), 0, "")
}

fn filter_with(more: &str) -> WebhookFilter {
    webhook(&Sender::Github.settings(&[SECRET]).replace("secrets", &format!("{more} secrets")))
}

/// Sends a message through both hooks.
async fn send(filter: &WebhookFilter, sent: &Sent) -> (String, Context) {
    let mut context = context();
    let mut request = request(&sent.fields).unwrap();
    let body = Bytes::copy_from_slice(&sent.body);
    let verdict = match filter.on_head(&mut request, &mut context) {
        Verdict::Continue => filter.on_body(&mut request, &body, &mut context).await,
        verdict => verdict,
    };
    (word(&verdict), context)
}

/// Tells the filter how the request ended.
fn end(filter: &WebhookFilter, context: &Context, status: StatusCode) {
    filter.on_response(&request(&[]).unwrap(), &mut ResponseBuf::new(status), context);
}

fn result(context: &Context) -> &'static str {
    context.webhook.as_ref().unwrap().result
}

#[tokio::test]
async fn what_was_delivered_is_accepted_and_goes_nowhere() {
    let filter = filter_with("");
    let (outcome, context) = send(&filter, &github("a")).await;
    assert_eq!((outcome.as_str(), result(&context)), ("ok", "accepted"));
    end(&filter, &context, StatusCode::ACCEPTED);
    let (outcome, context) = send(&filter, &github("a")).await;
    assert_eq!((outcome.as_str(), result(&context)), ("200", "duplicate"));
    assert!(context.webhook.unwrap().once.is_empty());
    assert_eq!(send(&filter, &github("b")).await.0, "ok");
}

#[tokio::test]
async fn or_refused_when_that_is_wanted() {
    let filter = filter_with("on_replay: refuse,");
    let (_, context) = send(&filter, &github("a")).await;
    end(&filter, &context, StatusCode::OK);
    let (outcome, context) = send(&filter, &github("a")).await;
    assert_eq!((outcome.as_str(), result(&context)), ("REPLAYED", "duplicate"));
}

#[tokio::test]
async fn what_was_not_delivered_may_come_again() {
    let filter = filter_with("");
    for status in [StatusCode::BAD_GATEWAY, StatusCode::BAD_REQUEST, StatusCode::FOUND, StatusCode::CONFLICT] {
        let (outcome, context) = send(&filter, &github("a")).await;
        assert_eq!(outcome, "ok", "{status}");
        end(&filter, &context, status);
    }
    let (outcome, context) = send(&filter, &github("a")).await;
    assert_eq!(outcome, "ok");
    // The client went away: nobody answered.
    drop(context);
    assert_eq!(send(&filter, &github("a")).await.0, "ok");
}

#[tokio::test]
async fn while_it_is_on_its_way_it_has_to_wait() {
    let filter = filter_with("");
    let (_, first) = send(&filter, &github("a")).await;
    let mut context = context();
    let sent = github("a");
    let mut again = request(&sent.fields).unwrap();
    let Verdict::Reject(rejection) = filter.on_body(&mut again, &sent.body.into(), &mut context).await else {
        panic!("it is refused")
    };
    assert_eq!((rejection.code.name, result(&context)), ("IN_PROGRESS", "in_progress"));
    assert!(rejection.fields.iter().any(|(name, value)| name == "retry-after" && value == "1"));
    end(&filter, &first, StatusCode::OK);
    assert_eq!(send(&filter, &github("a")).await.0, "200");
}

#[tokio::test]
async fn of_twenty_at_once_one_passes() {
    let filter = filter_with("");
    let sent = github("a");
    let all = futures_util::future::join_all((0..20).map(|_| send(&filter, &sent))).await;
    let count = |word: &str| all.iter().filter(|(outcome, _)| outcome == word).count();
    assert_eq!((count("ok"), count("IN_PROGRESS")), (1, 19));
}

#[tokio::test]
async fn a_forgery_takes_nothing() {
    let filter = filter_with("");
    let mut forged = github("a");
    forged.fields[0].1[10] ^= 1;
    for _ in 0..3 {
        let outcome = send(&filter, &forged).await.0;
        assert!(outcome.starts_with("SIGNATURE_"), "{outcome}");
    }
    assert_eq!(send(&filter, &github("a")).await.0, "ok");
}

#[tokio::test]
async fn a_preview_takes_nothing() {
    let filter = filter_with("");
    let sent = github("a");
    let mut request = request(&sent.fields).unwrap();
    let body = Bytes::copy_from_slice(&sent.body);
    for _ in 0..3 {
        assert_eq!(word(&filter.preview(&mut request, &body, &mut context())), "ok");
    }
    assert_eq!(word(&filter.preview(&mut request, &Bytes::from_static(b"b"), &mut context())), "SIGNATURE_INVALID");
    assert_eq!(send(&filter, &sent).await.0, "ok");
}

#[tokio::test]
async fn providers_of_one_filter_do_not_meet() {
    let filter = webhook(
        "{ by: service, providers: {
            a: { preset: github, secrets: [\"an example and no secret at all\"] },
            b: { preset: github, secrets: [\"another example and no secret\"] } } }",
    );
    for (service, secret) in [("a", SECRET), ("b", "another example and no secret")] {
        let sent = Sender::Github.send(secret, b"x", 0, "");
        let names: Arc<[Box<str>]> = Arc::from(["service".into()]);
        let captures = crate::context::Captures::new(names, vec![Some(service.into())]);
        let mut context = Context { captures, ..context() };
        let mut request = request(&sent.fields).unwrap();
        let verdict = filter.on_body(&mut request, &Bytes::from_static(b"x"), &mut context).await;
        assert_eq!(word(&verdict), "ok", "{service}");
        end(&filter, &context, StatusCode::OK);
    }
}

#[tokio::test]
async fn without_protection_a_signed_timestamp_alone_decides() {
    let settings = Sender::Slack.settings(&[SECRET]).replace("secrets", "replay: off, secrets");
    let filter = webhook(&settings);
    let sent = Sender::Slack.send(SECRET, b"text=a", now(), "");
    for _ in 0..2 {
        let (outcome, context) = send(&filter, &sent).await;
        assert_eq!((outcome.as_str(), result(&context)), ("ok", "accepted"));
        end(&filter, &context, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_answered_challenge_is_answered_again() {
    let filter = webhook(&Sender::Slack.settings(&[SECRET]));
    let sent = Sender::Slack.send(SECRET, b"{\"type\": \"url_verification\", \"challenge\": \"c\"}", now(), "");
    for _ in 0..2 {
        let (outcome, context) = send(&filter, &sent).await;
        assert_eq!((outcome.as_str(), result(&context)), ("200", "handshake"));
    }
}

/// Two services may be told of the same thing by the same sender, with the same bytes.
#[tokio::test]
async fn a_message_to_one_route_is_none_to_another_that_uses_the_same_chain() {
    let filter = filter_with("");
    let sent = github("a");
    for (route, outcome) in [("billing", "ok"), ("audit", "ok"), ("billing", "200"), ("audit", "200")] {
        let mut context = Context { route: route.into(), ..context() };
        let mut request = request(&sent.fields).unwrap();
        let verdict = filter.on_body(&mut request, &Bytes::from_static(b"a"), &mut context).await;
        assert_eq!(word(&verdict), outcome, "{route}");
        end(&filter, &context, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_second_filter_of_the_chain_does_not_lose_the_right_of_the_first() {
    let first = filter_with("");
    let settings = Sender::CustomTimestamp.settings(&["another example and no secret"]);
    let second = webhook(&settings.replace("secrets", "replay: off, secrets"));
    let mut sent = github("a");
    let time = now();
    sent.fields.extend(Sender::CustomTimestamp.send("another example and no secret", b"a", time, "").fields);
    let body = Bytes::from_static(b"a");
    for outcome in ["ok", "200"] {
        let mut context = context();
        let mut request = request(&sent.fields).unwrap();
        let verdict = first.on_body(&mut request, &body, &mut context).await;
        assert_eq!(word(&verdict), outcome);
        if outcome == "ok" {
            assert_eq!(word(&second.on_body(&mut request, &body, &mut context).await), "ok");
            let again = first.on_body(&mut request, &body, &mut crate::contract::testing::context()).await;
            assert_eq!(word(&again), "IN_PROGRESS", "the right is still held");
            end(&second, &context, StatusCode::OK);
            end(&first, &context, StatusCode::OK);
        }
    }
}
