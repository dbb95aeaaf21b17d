//! Whose webhook it is, what names it, and questions that are answered here.

use super::sender::{Sender, Sent, hex};
use super::*;
use crate::context::Captures;
use sha2::{Digest as _, Sha256};

const SECRET: &str = "an example and no secret at all";

const SEVERAL: &str = "{ by: service, providers: {
    github: { preset: github, secrets: [\"an example and no secret at all\"] },
    hub: { preset: jira, secrets: [\"another example and no secret\"] },
    slack: { preset: slack, enabled: false },
    trello: { preset: trello, enabled: false, callback_url: \"https://hooks.example.com/trello\", secrets: [\"\"] } } }";

fn of_service(service: Option<&str>) -> Context {
    let names: Arc<[Box<str>]> = Arc::from(["service".into()]);
    Context { captures: Captures::new(names, vec![service.map(Into::into)]), ..context() }
}

#[test]
fn a_path_parameter_names_the_provider_and_who_is_unknown_or_disabled_is_not_found() {
    let filter = webhook(SEVERAL);
    let sent = Sender::Github.send(SECRET, b"x", NOW, "");
    let request = request(&sent.fields).unwrap();
    for (service, outcome, provider, result) in [
        (Some("github"), "ok", "", ""),
        (Some("hub"), "SIGNATURE_MISSING", "hub", "signature_missing"),
        (Some("slack"), "NOT_FOUND", "slack", "disabled"),
        (Some("GitHub"), "NOT_FOUND", "unknown", "unknown_provider"),
        (Some("stripe"), "NOT_FOUND", "unknown", "unknown_provider"),
        (Some(""), "NOT_FOUND", "unknown", "unknown_provider"),
        (None, "NOT_FOUND", "unknown", "unknown_provider"),
    ] {
        let mut context = of_service(service);
        let verdict = filter.check_head(&request, &mut context, at(NOW));
        assert_eq!(word(&verdict), outcome, "{service:?}");
        let webhook = context.webhook.as_ref();
        assert_eq!(webhook.map_or("", |webhook| &webhook.provider), provider, "{service:?}");
        assert_eq!(webhook.map_or("", |webhook| webhook.result), result, "{service:?}");
    }
    let mut context = of_service(Some("github"));
    assert!(filter.verify(&request, &Bytes::from_static(b"x"), &mut context, at(NOW)).is_ok());
    assert_eq!(&*context.webhook.unwrap().provider, "github");
}

#[test]
fn who_is_disabled_is_told_apart_from_who_is_unknown_by_nobody() {
    let filter = webhook(SEVERAL);
    let told = |service| {
        let mut context = of_service(Some(service));
        let Verdict::Reject(rejection) = filter.check_head(&request(&[]).unwrap(), &mut context, at(NOW)) else {
            panic!("{service} is answered")
        };
        format!("{rejection:?}")
    };
    assert_eq!(told("slack"), told("stripe"));
}

fn delivery(sender: Sender, sent: &Sent) -> String {
    let filter = webhook(&sender.settings(&[SECRET]));
    let (outcome, webhook) = judge(&filter, &request(&sent.fields).unwrap(), &sent.body, NOW);
    assert_eq!(outcome, "ok");
    webhook.delivery.unwrap().to_string()
}

/// The name of a message that is named by this.
fn named(by: &[u8]) -> String {
    hex(&Sha256::digest(by)).split_at(32).0.to_owned()
}

#[test]
fn a_message_is_named_by_what_is_signed() {
    let body = b"{\"id\": \"evt_1\", \"event_id\": \"Ev1\"}";
    let of = |sender: Sender| delivery(sender, &sender.send(SECRET, body, NOW, "msg_1"));
    for sender in [Sender::Github, Sender::Shopify, Sender::Jira, Sender::Trello, Sender::CustomBody] {
        assert_eq!(of(sender), named(body), "{sender:?}");
    }
    assert_eq!(of(Sender::Stripe), named(b"evt_1"));
    assert_eq!(of(Sender::Slack), named(b"Ev1"));
    for sender in [Sender::StandardWebhooks, Sender::Svix, Sender::CustomId] {
        assert_eq!(of(sender), named(b"msg_1"), "{sender:?}");
    }
    assert_eq!(of(Sender::CustomTimestamp), named(&[format!("{NOW}.").as_bytes(), body].concat()));
}

#[test]
fn a_body_without_such_a_member_names_itself() {
    let bodies: [&[u8]; 8] = [
        b"",
        b"token=a&event_id=Ev1",
        b"[1]",
        b"{\"id\": 7, \"event_id\": 7}",
        b"{\"id\": \"\", \"event_id\": \"\"}",
        b"{\"id\": null, \"event_id\": null}",
        b"{\"id\": \"a\", \"id\": \"b\", \"event_id\": \"a\", \"event_id\": \"b\"}",
        b"{\"data\": {\"id\": \"a\", \"event_id\": \"a\"}}",
    ];
    for body in bodies {
        for sender in [Sender::Stripe, Sender::Slack] {
            assert_eq!(delivery(sender, &sender.send(SECRET, body, NOW, "")), named(body), "{sender:?} {body:?}");
        }
    }
}

#[test]
fn the_same_event_sent_anew_has_the_same_name() {
    for sender in [Sender::Stripe, Sender::Slack, Sender::StandardWebhooks, Sender::CustomId] {
        let first = sender.send(SECRET, b"{\"id\": \"e\", \"event_id\": \"e\"}", NOW - 60, "msg_1");
        let again = sender.send(SECRET, b"{\"id\": \"e\", \"event_id\": \"e\", \"try\": 2}", NOW, "msg_1");
        assert_eq!(delivery(sender, &first), delivery(sender, &again), "{sender:?}");
    }
}

#[test]
fn fields_that_nobody_signed_change_no_name() {
    for sender in Sender::ALL {
        let plain = sender.send(SECRET, b"{}", NOW, "msg_1");
        let mut dressed = plain.clone();
        for name in ["x-github-delivery", "x-shopify-webhook-id", "x-slack-retry-num", "idempotency-key"] {
            dressed.fields.push((name, b"other".to_vec()));
        }
        assert_eq!(delivery(sender, &plain), delivery(sender, &dressed), "{sender:?}");
    }
}

const QUESTION: &[u8] = b"{\"token\": \"t\", \"challenge\": \"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P\", \"type\": \"url_verification\"}";

#[test]
fn the_challenge_of_slack_is_answered_once_it_is_verified() {
    let settings = Sender::Slack.settings(&[SECRET]);
    let answer = |settings: &str, sent: &Sent| {
        let mut context = context();
        let request = request(&sent.fields).unwrap();
        let filter = webhook(settings);
        let verdict = filter.verify(&request, &Bytes::copy_from_slice(&sent.body), &mut context, at(NOW)).err();
        (verdict, context.webhook.unwrap().result)
    };
    let sent = Sender::Slack.send(SECRET, QUESTION, NOW, "");
    let (Some(Verdict::Reply(reply)), "handshake") = answer(&settings, &sent) else { panic!("it is answered") };
    assert_eq!(reply.status.as_u16(), 200);
    assert_eq!(reply.body, "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P");
    assert_eq!(reply.fields[0].1, "text/plain; charset=utf-8");

    let forged = Sender::Slack.send("somebody else's secret, not ours", QUESTION, NOW, "");
    let (Some(verdict), "signature_invalid") = answer(&settings, &forged) else { panic!("it is refused") };
    assert_eq!(word(&verdict), "SIGNATURE_INVALID");

    let silent = settings.replace("secrets", "answer_challenge: false, secrets");
    assert!(matches!(answer(&silent, &sent), (None, "accepted")));

    for other in
        [&b"{\"type\": \"event_callback\", \"challenge\": \"x\"}"[..], b"{\"type\": \"url_verification\"}", b"[]"]
    {
        let sent = Sender::Slack.send(SECRET, other, NOW, "");
        assert!(matches!(answer(&settings, &sent), (None, "accepted")), "{other:?}");
    }
    let github = Sender::Github.send(SECRET, QUESTION, NOW, "");
    assert!(matches!(answer(&Sender::Github.settings(&[SECRET]), &github), (None, "accepted")));
}

#[test]
fn only_trello_may_ask_with_head() {
    for sender in Sender::ALL {
        let filter = webhook(&sender.settings(&[SECRET]));
        let mut context = context();
        let mut head = request(&[]).unwrap();
        head.method = Method::HEAD;
        let verdict = filter.check_head(&head, &mut context, at(NOW));
        if sender == Sender::Trello {
            let Verdict::Reply(reply) = verdict else { panic!("Trello is answered") };
            assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
            assert_eq!(context.webhook.unwrap().result, "handshake");
        } else {
            assert_eq!(word(&verdict), "SIGNATURE_MISSING", "{sender:?}");
        }
    }
    let mut head = request(&[]).unwrap();
    head.method = Method::HEAD;
    assert_eq!(word(&webhook(SEVERAL).check_head(&head, &mut of_service(Some("trello")), at(NOW))), "NOT_FOUND");
}

#[test]
fn a_preflight_is_left_to_the_filter_that_answers_it() {
    let filter = webhook(SEVERAL);
    let mut context = Context { preflight: true, ..context() };
    let mut request = request(&[]).unwrap();
    request.method = Method::OPTIONS;
    assert_eq!(word(&filter.check_head(&request, &mut context, at(NOW))), "ok");
    assert!(matches!(filter.verify(&request, &Bytes::new(), &mut context, at(NOW)), Ok(None)));
    assert!(context.webhook.is_none());
}
