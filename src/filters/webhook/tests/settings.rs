//! What is refused when the configuration is read.

use super::*;

fn refused(text: &str) -> String {
    match try_webhook(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(problems) => problems.join("\n"),
    }
}

const SECRETS: &str = "secrets: [\"an example and no secret at all\"]";

/// The message must say this.
fn says(settings: &str, message: &str) {
    let told = refused(&settings.replace("SECRETS", SECRETS));
    assert!(told.contains(message), "{settings}: {told}");
}

#[test]
fn secrets() {
    says("{ preset: github }", "`secrets` is missing");
    says("{ preset: github, secrets: [] }", "1 to 8 secrets, not 0");
    says("{ preset: github, secrets: [\"\"] }", "the secret is empty");
    says("{ preset: github, secrets: [fifteen-bytes-0] }", "at least 16 bytes");
    assert!(try_webhook("{ preset: github, secrets: [sixteen-bytes-01] }").is_ok());
    says("{ preset: github, secrets: [\"sixteen-bytes-01\\n\"] }", "blanks around the secret");
    says("{ preset: github, secrets: [sixteen-bytes-01, sixteen-bytes-01] }", "stands here twice");
    let many = |count: usize| (0..count).map(|index| format!("sixteen-bytes-0{index}")).collect::<Vec<_>>().join(", ");
    assert!(try_webhook(&format!("{{ preset: github, secrets: [{}] }}", many(8))).is_ok());
    says(&format!("{{ preset: github, secrets: [{}] }}", many(9)), "1 to 8 secrets, not 9");
    says("{ by: s, providers: { a: { preset: github, SECRETS }, b: { preset: jira, SECRETS } } }", "stands here twice");
}

#[test]
fn secrets_of_standard_webhooks() {
    for good in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
        assert!(try_webhook(&format!("{{ preset: standard_webhooks, secrets: [{good}] }}")).is_ok(), "{good}");
    }
    for bad in ["whsec_a-b_", "whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS"] {
        let told = refused(&format!("{{ preset: standard_webhooks, secrets: [{bad}] }}"));
        assert!(told.contains("no secret of Standard Webhooks") && !told.contains(bad), "{told}");
    }
    says("{ preset: standard_webhooks, secrets: [whsec_c2hvcnQ=] }", "at least 16 bytes");
    // The same key in both spellings.
    let twice = "{ preset: standard_webhooks, secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw] }";
    says(twice, "stands here twice");
}

#[test]
fn presets_and_what_belongs_to_them() {
    says("{ SECRETS }", "`preset` is missing");
    says("{ preset: gitlab, SECRETS }", "gitlab");
    says("{ preset: trello, SECRETS }", "`callback_url` is missing");
    says("{ preset: trello, SECRETS, callback_url: hooks.example.com }", "no callback URL");
    says("{ preset: github, SECRETS, callback_url: \"https://a.example\" }", "a setting of `trello`");
    says("{ preset: github, SECRETS, answer_challenge: true }", "a setting of `slack`");
    says("{ preset: github, SECRETS, header: X-Sign }", "a setting of `custom`");
    says("{ preset: github, SECRETS, signed: \"{body}\" }", "a setting of `custom`");
}

#[test]
fn custom() {
    says("{ preset: custom, SECRETS }", "in which field the signature stands");
    says("{ preset: custom, SECRETS, header: Content-Length }", "cannot be changed");
    says("{ preset: custom, SECRETS, header: X-Webhook-Timestamp }", "one field cannot hold two");
    says("{ preset: custom, SECRETS, header: X, prefix: \"a b\" }", "visible ASCII");
    let signed = |signed: &str, more: &str, message: &str| {
        says(&format!("{{ preset: custom, SECRETS, header: X, signed: \"{signed}\"{more} }}"), message);
    };
    signed("{timestamp}", "", "lacks `{body}`");
    signed("{body}.{body}", "", "`{body}` twice");
    signed("{timestamp}.{timestamp}.{body}", "", "a part twice");
    signed("{timestamp}{body}", "", "text has to stand between");
    signed("{timestamp}0{body}", "", "a digit beside");
    signed("{body}7{timestamp}", "", "a digit beside");
    signed("{body", "", "is not closed");
    signed("{url}.{body}", "", "knows `{timestamp}`, `{id}` and `{body}` only");
    signed("{id}.{body}", "", "in which field it stands");
    signed("{body}", ", timestamp_header: X-Time", "the timestamp is not signed");
    signed("{body}", ", id_header: X-Id", "the id is not signed");
    signed("{id}.{timestamp}.{body}", ", id_header: X-Id, timestamp_header: x-id", "one field cannot hold two");
}

#[test]
fn providers() {
    says("{ by: service, preset: github, SECRETS }", "there are no `providers`");
    says("{ providers: { a: { preset: github, SECRETS } } }", "which of the providers");
    says("{ by: service, preset: github, providers: { a: { preset: github, SECRETS } } }", "belongs to one provider");
    says("{ by: service, providers: {} }", "1 to 64 providers, not 0");
    says("{ by: service, providers: { \"a/b\": { preset: github, SECRETS } } }", "a segment of a path");
    says("{ by: service, providers: { a: { SECRETS } } }", "`preset` is missing");
    says("{ by: service, providers: { a: { preset: github, SECRETS, replay_window: 1h } } }", "replay_window");
}

#[test]
fn who_is_not_enabled_needs_no_secret_and_everything_else() {
    assert!(try_webhook("{ preset: github, enabled: false }").is_ok());
    assert!(try_webhook("{ preset: github, enabled: false, secrets: [\"\"] }").is_ok());
    says("{ preset: trello, enabled: false }", "`callback_url` is missing");
}

#[test]
fn times_and_sizes() {
    for (tolerance, is_taken) in [("1s", true), ("1h", true), ("0s", false), ("3601s", false), ("1500ms", false)] {
        let settings = format!("{{ preset: slack, {SECRETS}, tolerance: {tolerance} }}");
        assert_eq!(try_webhook(&settings).is_ok(), is_taken, "{tolerance}");
    }
    says("{ preset: slack, SECRETS, replay_window: 599s }", "`replay_window` is 10m to 30d here, not 599s");
    assert!(try_webhook(&format!("{{ preset: slack, {SECRETS}, replay_window: 10m }}")).is_ok());
    assert!(try_webhook(&format!("{{ preset: github, {SECRETS}, replay_window: 1s }}")).is_ok());
    says("{ preset: github, SECRETS, replay_window: 31d }", "not 31d");
    says("{ preset: github, SECRETS, tolerance: 5m, replay: off }", "signs no timestamp");
    says("{ preset: custom, header: X, signed: \"{body}\", SECRETS, replay: off }", "signs no timestamp");
    assert!(try_webhook(&format!("{{ preset: custom, header: X, {SECRETS}, replay: off }}")).is_ok());
    says("{ preset: github, SECRETS, body_max: 65MiB }", "`body_max` is 1B to 64MiB");
    says("{ preset: github, SECRETS, body_max: 0B }", "`body_max` is 1B to 64MiB");
    let filter = webhook(&format!("{{ preset: github, {SECRETS}, body_max: 256KiB }}"));
    assert_eq!(filter.body_bytes_max(), 256 * 1024);
    let by = "{ by: s, providers: { a: { preset: github, SECRETS, tolerance: 1m } } }";
    says(by, "no timestamp that could be tolerated");
}
