//! What a provider sends again is answered with 2xx, and is not delivered again: also where it signs anew, or says in fields
//! that nobody signed that it is another one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::harness::answer;

const KEY: &[u8] = b"an example and no secret of a key";

/// How a provider signs at a time, as lines of a head.
type Sign = fn(time: u64, body: &[u8]) -> String;

/// Each with a message, and with lines that differ when it is sent again.
const PROVIDERS: [(&str, Sign, &str, &str); 4] = [
    (
        "github",
        |_, body| by_github(body),
        "{\"ref\": \"refs/heads/main\"}",
        "X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958\r\n",
    ),
    (
        "stripe",
        |time, body| {
            let signature = signed("an example and no secret of stripe", &[format!("{time}.").as_bytes(), body]);
            format!("Stripe-Signature: t={time},v1={signature}\r\n")
        },
        "{\"id\": \"evt_1\", \"type\": \"invoice.paid\"}",
        "",
    ),
    (
        "slack",
        |time, body| {
            let signature = signed("an example and no secret of slack", &[format!("v0:{time}:").as_bytes(), body]);
            format!("X-Slack-Signature: v0={signature}\r\nX-Slack-Request-Timestamp: {time}\r\n")
        },
        "{\"type\": \"event_callback\", \"event_id\": \"Ev08MFMKH6\"}",
        "X-Slack-Retry-Num: 1\r\nX-Slack-Retry-Reason: http_timeout\r\n",
    ),
    (
        "svix",
        |time, body| {
            let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
            mac.update(format!("msg_1.{time}.").as_bytes());
            mac.update(body);
            let signature = STANDARD.encode(mac.finalize().into_bytes());
            format!("svix-id: msg_1\r\nsvix-timestamp: {time}\r\nsvix-signature: v1,{signature}\r\n")
        },
        "{\"type\": \"contact.created\"}",
        "User-Agent: another-one\r\n",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_is_answered_and_not_delivered() {
    let upstream = Upstream::answering(answer(201, b"delivered")).await;
    let gateway = Gateway::start(&format!(
        "upstreams:\n  main: {{ targets: [{{ address: \"{}\" }}] }}\n\
         routes:\n  - name: hooks\n    match: POST /hooks/{{service}}\n    filters:\n      - webhook:\n          by: service\n          \
         providers:\n            github: {{ preset: github, secrets: [\"{SECRET}\"] }}\n            \
         stripe: {{ preset: stripe, secrets: [an example and no secret of stripe] }}\n            \
         slack: {{ preset: slack, secrets: [an example and no secret of slack] }}\n            \
         svix: {{ preset: standard_webhooks, secrets: [whsec_{}] }}\n    upstream: main\n",
        upstream.address,
        STANDARD.encode(KEY)
    ))
    .await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for (number, (provider, sign, body, others)) in PROVIDERS.into_iter().enumerate() {
        let first = post(&gateway, provider, &sign(now - 60, body.as_bytes()), body.as_bytes()).await;
        assert_eq!((first.status, first.text()), (201, "delivered"), "{provider}");
        // The gateway learns of the end a moment after its client did.
        let again = sign(now, body.as_bytes()) + others;
        let told = async {
            loop {
                let told = post(&gateway, provider, &again, body.as_bytes()).await;
                if !told.is_refusal("IN_PROGRESS") {
                    break told;
                }
            }
        };
        let told = crate::harness::within("the end of the first", told).await;
        assert_eq!((told.status, told.text()), (200, ""), "{provider}");
        assert_eq!(upstream.requests().len(), number + 1, "{provider}");
        assert_eq!(upstream.last().body, body.as_bytes(), "{provider}");
    }
}
