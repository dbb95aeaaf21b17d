//! Messages that providers publish, signature and all.

use super::*;
use crate::contract::testing::request as text_request;

fn judge_text(settings: &str, fields: &[(&str, &str)], body: &str, now: u64) -> String {
    judge(&webhook(settings), &text_request(Method::POST, "/hooks", fields), body.as_bytes(), now).0
}

#[test]
fn github() {
    // docs.github.com, "Validating webhook deliveries", "Testing the webhook payload validation".
    let settings = "{ preset: github, secrets: [\"It's a Secret to Everybody\"] }";
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let fields = [("X-Hub-Signature-256", signature)];
    assert_eq!(judge_text(settings, &fields, "Hello, World!", NOW), "ok");
    assert_eq!(judge_text(settings, &fields, "Hello World!", NOW), "SIGNATURE_INVALID");
}

#[test]
fn jira() {
    // developer.atlassian.com, Jira Cloud platform, "Webhooks", "Secure admin webhooks".
    let settings = "{ preset: jira, secrets: [\"It's a Secret to Everybody\"] }";
    let signature = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9";
    let fields = [("X-Hub-Signature", signature)];
    assert_eq!(judge_text(settings, &fields, "Hello World!", NOW), "ok");
    assert_eq!(judge_text(settings, &fields, "Hello, World!", NOW), "SIGNATURE_INVALID");
}

const SLACK_BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
                          channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&\
                          response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F\
                          96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";

#[test]
fn slack_with_a_slash_command_as_a_form() {
    // api.slack.com, "Verifying requests from Slack", "Step-by-step walk-through".
    let settings = "{ preset: slack, secrets: [8f742231b10e8888abcd99yyyzzz85a5] }";
    let fields = [
        ("X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        ("X-Slack-Request-Timestamp", "1531420618"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    assert_eq!(judge_text(settings, &fields, SLACK_BODY, 1_531_420_618), "ok");
    assert_eq!(judge_text(settings, &fields, &SLACK_BODY.replace("%2F", "/"), 1_531_420_618), "SIGNATURE_INVALID");
    assert_eq!(judge_text(settings, &fields, SLACK_BODY, NOW), "SIGNATURE_EXPIRED");
}

#[test]
fn standard_webhooks_by_both_families_of_names() {
    // The signature that the reference libraries of github.com/standard-webhooks and docs.svix.com are tested with.
    let settings = "{ preset: standard_webhooks, secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw] }";
    let body = "{\"test\": 2432232314}";
    let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    for family in ["webhook", "svix"] {
        let (id, timestamp, field) =
            (format!("{family}-id"), format!("{family}-timestamp"), format!("{family}-signature"));
        let fields = [
            (id.as_str(), "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            (timestamp.as_str(), "1614265330"),
            (field.as_str(), signature),
        ];
        assert_eq!(judge_text(settings, &fields, body, 1_614_265_330), "ok", "{family}");
        let other = [fields[0], fields[1], (field.as_str(), "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")];
        assert_eq!(judge_text(settings, &other, body, 1_614_265_330), "SIGNATURE_MISSING", "{family}");
        let several = format!(
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg== v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4= {signature}"
        );
        let several = [fields[0], fields[1], (field.as_str(), several.as_str())];
        assert_eq!(judge_text(settings, &several, body, 1_614_265_330), "ok", "{family}");
    }
}

#[test]
fn fields_of_two_families_are_never_mixed() {
    let settings = "{ preset: standard_webhooks, secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw] }";
    let fields = [
        ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    assert_eq!(judge_text(settings, &fields, "{\"test\": 2432232314}", 1_614_265_330), "SIGNATURE_MISSING");
}
