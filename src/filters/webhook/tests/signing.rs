//! What `tollgate webhook sign` prints is what senders send, and what the filter takes.

use super::sender::Sender;
use super::*;

const SECRET: &str = "a secret that nobody uses";
const BODY: &[u8] = b"{\"id\": \"evt_1\"}\xff\0";

fn signer(sender: Sender) -> Signer {
    let signing = match sender {
        Sender::Slack => Signing { preset: "slack", ..Signing::default() },
        Sender::Github => Signing { preset: "github", ..Signing::default() },
        Sender::Stripe => Signing { preset: "stripe", ..Signing::default() },
        Sender::Shopify => Signing { preset: "shopify", ..Signing::default() },
        Sender::Jira => Signing { preset: "jira", ..Signing::default() },
        Sender::Trello => {
            Signing { preset: "trello", callback_url: Some("https://hooks.example.com/trello"), ..Signing::default() }
        }
        Sender::StandardWebhooks | Sender::Svix => Signing { preset: "standard_webhooks", ..Signing::default() },
        Sender::CustomTimestamp => Signing {
            preset: "custom",
            header: Some("X-Webhook-Signature"),
            prefix: Some("sha256="),
            ..Signing::default()
        },
        Sender::CustomId => Signing {
            preset: "custom",
            header: Some("X-Sign"),
            algorithm: Some("sha512"),
            encoding: Some("base64"),
            signed: Some("v2;{id};{timestamp};{body}"),
            timestamp_header: Some("X-Time"),
            id_header: Some("X-Id"),
            ..Signing::default()
        },
        Sender::CustomBody => Signing {
            preset: "custom",
            header: Some("X-Sign"),
            algorithm: Some("sha1"),
            signed: Some("{body}"),
            ..Signing::default()
        },
    };
    let secret = sender.settings(&[SECRET]);
    let secret = secret.split("secrets: [\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    Signer::new(&signing, secret.parse().unwrap()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// Names in lower case, and sorted.
fn sorted(fields: impl Iterator<Item = (String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<_> = fields.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    fields.sort();
    fields
}

#[test]
fn it_signs_as_every_sender_does() {
    for sender in Sender::ALL.into_iter().filter(|sender| *sender != Sender::Svix) {
        let signer = signer(sender);
        let made = signer.sign(BODY, NOW, "msg_1").unwrap();
        let sent = sender.send(SECRET, BODY, NOW, "msg_1");
        let made = sorted(made.into_iter().map(|(name, value)| (name, value.into_bytes())));
        let expected = sorted(sent.fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(made, expected, "{sender:?}");
        let borrowed: Vec<(&str, Vec<u8>)> = made.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let filter = webhook(&sender.settings(&[SECRET]));
        assert_eq!(judge(&filter, &request(&borrowed).unwrap(), BODY, NOW).0, "ok", "{sender:?}");
        assert_eq!(signer.signs_time(), sender.signs_time(), "{sender:?}");
    }
}

#[test]
fn it_makes_the_signatures_that_providers_publish() {
    let sign = |preset, secret: &str, body: &[u8], time, id| {
        let signer = Signer::new(&Signing { preset, ..Signing::default() }, secret.parse().unwrap()).unwrap();
        signer.sign(body, time, id).unwrap()
    };
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        sign("github", "It's a Secret to Everybody", b"Hello, World!", 0, ""),
        [field("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")]
    );
    assert_eq!(
        sign("jira", "It's a Secret to Everybody", b"Hello World!", 0, ""),
        [field("X-Hub-Signature", "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9")]
    );
    assert_eq!(
        sign(
            "standard_webhooks",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            b"{\"test\": 2432232314}",
            1_614_265_330,
            "msg_p5jXN8AQM9LWM0D4loKWxJek"
        ),
        [
            field("Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            field("Webhook-Timestamp", "1614265330"),
            field("Webhook-Signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ]
    );
}

#[test]
fn mistakes_are_told_without_the_secret() {
    let told = |signing: Signing<'_>, secret: &str| {
        let told = Signer::new(&signing, secret.parse().unwrap()).err().unwrap_or_default().join("\n");
        assert!(!told.is_empty() && !told.contains(secret), "{told}");
        told
    };
    let preset = |preset| Signing { preset, ..Signing::default() };
    assert!(told(preset("githup"), SECRET).contains("unknown variant `githup`"));
    assert!(told(preset("github"), "hunter2").contains("too short"));
    assert!(told(preset("trello"), SECRET).contains("`callback_url` is missing"));
    assert!(told(preset("custom"), SECRET).contains("in which field"));
    assert!(told(preset("standard_webhooks"), SECRET).contains("no secret of Standard Webhooks"));
    let strange = Signing { header: Some("X-Sign"), ..preset("github") };
    assert!(told(strange, SECRET).contains("`header` is a setting of `custom`"));
    for id in ["", "a.b", "a b", &"a".repeat(257)] {
        assert!(signer(Sender::StandardWebhooks).sign(BODY, NOW, id).is_err(), "{id}");
    }
    assert!(signer(Sender::StandardWebhooks).sign(BODY, NOW, &"a".repeat(256)).is_ok());
    assert!(signer(Sender::Stripe).sign(BODY, 1_000_000_000_000, "").is_err(), "13 digits");
    assert!(signer(Sender::Stripe).sign(BODY, 999_999_999_999, "").is_ok());
}
