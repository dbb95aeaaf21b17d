//! Where valid turns invalid.

use super::sender::{Sender, Sent};
use super::*;

const SECRET: &str = "an example and no secret at all";
const NEXT_SECRET: &str = "the example that takes its place";
const BODY: &[u8] = b"{\"id\": \"evt_1\"}";

fn judge_sent(filter: &WebhookFilter, sent: &Sent, now: u64) -> String {
    judge(filter, &request(&sent.fields).unwrap(), &sent.body, now).0
}

/// What becomes of a message with these fields instead.
fn judge_with(sender: Sender, change: impl FnOnce(&mut Sent)) -> String {
    let mut sent = sender.send(SECRET, BODY, NOW, "msg_1");
    change(&mut sent);
    judge_sent(&webhook(&sender.settings(&[SECRET])), &sent, NOW)
}

#[test]
fn a_timestamp_is_tolerated_to_the_second_in_both_directions() {
    for sender in Sender::ALL.into_iter().filter(|sender| sender.signs_time()) {
        let usual = webhook(&sender.settings(&[SECRET]));
        let short = webhook(&sender.settings(&[SECRET]).replace("secrets", "tolerance: 1s, secrets"));
        let cases = [(NOW - 300, "ok"), (NOW + 300, "ok"), (NOW - 301, "late"), (NOW + 301, "late"), (0, "late")];
        for (time, expected) in cases {
            let expected = if expected == "ok" { "ok" } else { "SIGNATURE_EXPIRED" };
            let sent = sender.send(SECRET, BODY, time, "msg_1");
            assert_eq!(judge_sent(&usual, &sent, NOW), expected, "{sender:?} {time}");
        }
        for (time, expected) in [(NOW - 1, "ok"), (NOW + 1, "ok"), (NOW - 2, "late"), (NOW + 2, "late")] {
            let expected = if expected == "ok" { "ok" } else { "SIGNATURE_EXPIRED" };
            let sent = sender.send(SECRET, BODY, time, "msg_1");
            assert_eq!(judge_sent(&short, &sent, NOW), expected, "{sender:?} {time}");
        }
    }
}

#[test]
fn a_message_that_became_stale_while_its_body_came_is_refused() {
    let filter = webhook(&Sender::Slack.settings(&[SECRET]));
    let sent = Sender::Slack.send(SECRET, BODY, NOW, "");
    let request = request(&sent.fields).unwrap();
    let mut context = context();
    assert_eq!(word(&filter.check_head(&request, &mut context, at(NOW + 300))), "ok");
    let verdict = filter.verify(&request, &Bytes::from_static(BODY), &mut context, at(NOW + 301)).err().unwrap();
    assert_eq!(word(&verdict), "SIGNATURE_EXPIRED");
}

#[test]
fn what_is_no_number_of_seconds_is_no_timestamp() {
    let cases = ["", " ", "+1767225600", "-1", "1767225600.0", "0x6955", "1e9", "1767225600 ", "١٧٦٧", "1767225600000"];
    for text in cases {
        let outcome = judge_with(Sender::Slack, |sent| sent.fields[1].1 = text.as_bytes().to_vec());
        assert_eq!(outcome, "SIGNATURE_MISSING", "{text:?}");
        let stripe = judge_with(Sender::Stripe, |sent| {
            let old = String::from_utf8(sent.fields[0].1.clone()).unwrap();
            sent.fields[0].1 = old.replace(&NOW.to_string(), text).into_bytes();
        });
        assert_eq!(stripe, "SIGNATURE_MISSING", "{text:?}");
    }
    // Twelve digits are a number, of a time that is far away.
    let outcome = judge_with(Sender::Slack, |sent| sent.fields[1].1 = b"999999999999".to_vec());
    assert_eq!(outcome, "SIGNATURE_EXPIRED");
    // A number that is written otherwise is not the text that was signed.
    let outcome = judge_with(Sender::Slack, |sent| sent.fields[1].1.insert(0, b'0'));
    assert_eq!(outcome, "SIGNATURE_INVALID");
}

#[test]
fn while_a_secret_is_replaced_both_verify() {
    for sender in Sender::ALL {
        let (old, both, new) = (
            webhook(&sender.settings(&[SECRET])),
            webhook(&sender.settings(&[SECRET, NEXT_SECRET])),
            webhook(&sender.settings(&[NEXT_SECRET])),
        );
        let by_old = sender.send(SECRET, BODY, NOW, "msg_1");
        let by_new = sender.send(NEXT_SECRET, BODY, NOW, "msg_1");
        let outcomes = |sent| [&old, &both, &new].map(|filter| judge_sent(filter, sent, NOW));
        assert_eq!(outcomes(&by_old), ["ok", "ok", "SIGNATURE_INVALID"], "{sender:?}");
        assert_eq!(outcomes(&by_new), ["SIGNATURE_INVALID", "ok", "ok"], "{sender:?}");
    }
}

#[test]
fn one_of_several_signatures_is_enough_wherever_it_stands() {
    for sender in [Sender::Stripe, Sender::StandardWebhooks, Sender::Svix] {
        let filter = webhook(&sender.settings(&[SECRET]));
        let right = sender.sign(SECRET, BODY, NOW, "msg_1");
        let wrong = sender.sign(NEXT_SECRET, BODY, NOW, "msg_1");
        for (count, place) in [(2, 0), (2, 1), (16, 0), (16, 7), (16, 15)] {
            let mut signatures = vec![wrong.clone(); count];
            signatures[place] = right.clone();
            let sent = sender.send_with(&signatures, BODY, NOW, "msg_1");
            assert_eq!(judge_sent(&filter, &sent, NOW), "ok", "{sender:?} {count} {place}");
        }
        let sent = sender.send_with(&vec![wrong.clone(); 16], BODY, NOW, "msg_1");
        assert_eq!(judge_sent(&filter, &sent, NOW), "SIGNATURE_INVALID", "{sender:?}");
        let mut signatures = vec![wrong; 16];
        signatures.push(right);
        let sent = sender.send_with(&signatures, BODY, NOW, "msg_1");
        assert_eq!(judge_sent(&filter, &sent, NOW), "SIGNATURE_MISSING", "{sender:?}: 17");
    }
}

#[test]
fn other_schemes_in_one_field_are_not_looked_at_and_no_timestamp_stands_there_twice() {
    let with = |change: fn(String) -> String| {
        judge_with(Sender::Stripe, |sent| {
            sent.fields[0].1 = change(String::from_utf8(sent.fields[0].1.clone()).unwrap()).into_bytes();
        })
    };
    assert_eq!(with(|text| text + ",v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"), "ok");
    assert_eq!(with(|text| text + ",v2=something"), "ok");
    assert_eq!(with(|text| text + ",v1=something"), "SIGNATURE_MISSING");
    assert_eq!(with(|text| text.replace("v1=", "v0=")), "SIGNATURE_MISSING");
    assert_eq!(with(|text| format!("t={NOW},{text}")), "SIGNATURE_MISSING");
    assert_eq!(with(|text| text.replace(',', ", ")), "SIGNATURE_MISSING");
    assert_eq!(with(|text| text.replace(',', ";")), "SIGNATURE_MISSING");
    assert_eq!(with(|text| text + ","), "SIGNATURE_MISSING");
    assert_eq!(with(|text| text.split_once(',').unwrap().1.to_owned()), "SIGNATURE_MISSING");
}

#[test]
fn a_field_has_4096_bytes_at_most() {
    let padded = |length: usize| {
        judge_with(Sender::Stripe, |sent| {
            sent.fields[0].1.extend_from_slice(b",v9=");
            sent.fields[0].1.resize(length, b'x');
        })
    };
    assert_eq!([padded(4096), padded(4097)], ["ok", "SIGNATURE_MISSING"]);
}

#[test]
fn an_id_is_1_to_256_visible_characters_without_what_parts_it_from_its_neighbours() {
    let filter = webhook(&Sender::StandardWebhooks.settings(&[SECRET]));
    let long = "m".repeat(256);
    for (id, expected) in [
        (long.as_str(), "ok"),
        (&format!("{long}m"), "SIGNATURE_MISSING"),
        ("", "SIGNATURE_MISSING"),
        ("msg_1:2;3", "ok"),
        ("msg 1", "SIGNATURE_MISSING"),
        // `msg.1767225600` and the rest could be cut elsewhere.
        ("msg.1", "SIGNATURE_MISSING"),
        ("m\u{e9}", "SIGNATURE_MISSING"),
    ] {
        let sent = Sender::StandardWebhooks.send(SECRET, BODY, NOW, id);
        assert_eq!(judge_sent(&filter, &sent, NOW), expected, "{id:?}");
    }
    let custom = webhook(&Sender::CustomId.settings(&[SECRET]));
    for (id, expected) in [("msg.1", "ok"), ("msg;1", "SIGNATURE_MISSING")] {
        let sent = Sender::CustomId.send(SECRET, BODY, NOW, id);
        assert_eq!(judge_sent(&custom, &sent, NOW), expected, "{id:?}");
    }
}

#[test]
fn a_boundary_that_is_moved_changes_what_is_signed() {
    // `1767225600.1.rest` is signed; nobody may read it as the time `1767225600` and the body `1.rest`, or otherwise.
    let filter = webhook(&Sender::StandardWebhooks.settings(&[SECRET]));
    let body = format!("{NOW}.rest");
    let signature = Sender::StandardWebhooks.sign(SECRET, body.as_bytes(), NOW, "msg");
    let sent = Sender::StandardWebhooks.send_with(&[signature], b"rest", NOW, &format!("msg.{NOW}"));
    assert_eq!(judge_sent(&filter, &sent, NOW), "SIGNATURE_MISSING");
}

#[test]
fn own_senders_may_write_hex_in_capitals() {
    let upper = |sent: &mut Sent| {
        let text = String::from_utf8(sent.fields[0].1.clone()).unwrap();
        sent.fields[0].1 = text.to_ascii_uppercase().replace("SHA256=", "sha256=").into_bytes();
    };
    assert_eq!(judge_with(Sender::CustomTimestamp, upper), "ok");
    assert_eq!(judge_with(Sender::CustomBody, upper), "ok");
    assert_eq!(judge_with(Sender::Github, upper), "SIGNATURE_MISSING");
}

#[test]
fn an_empty_body_and_one_of_any_bytes_can_be_signed() {
    let all: Vec<u8> = (0..=255).collect();
    for sender in Sender::ALL {
        let filter = webhook(&sender.settings(&[SECRET]));
        for body in [&b""[..], &all, b"\xff\xfe", "\u{2013} \u{1f980}".as_bytes()] {
            let sent = sender.send(SECRET, body, NOW, "msg_1");
            assert_eq!(judge_sent(&filter, &sent, NOW), "ok", "{sender:?} {body:?}");
        }
    }
}

#[test]
fn a_refusal_says_which_field_and_how_to_sign_and_nothing_else() {
    let filter = webhook(&Sender::Github.settings(&[SECRET]));
    let mut context = context();
    let Verdict::Reject(rejection) = filter.check_head(&request(&[]).unwrap(), &mut context, at(NOW)) else { panic!() };
    assert_eq!(rejection.status.as_u16(), 401);
    assert_eq!(rejection.details["field"], "x-hub-signature-256");
    let challenge = rejection.fields.iter().find(|(name, _)| name == "www-authenticate").unwrap();
    assert_eq!(challenge.1, "Signature realm=\"tollgate\", header=\"x-hub-signature-256\"");
    assert!(!format!("{rejection:?}").contains(SECRET));
}
