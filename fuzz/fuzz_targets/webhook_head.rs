//! What a webhook says of its signature, in the form of every preset: nothing panics, and nothing that is not signed passes.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tollgate::config::load::{Attached, Config};
use tollgate::gateway::preview::{Ask, preview};
use tollgate::gateway::{self, Gateway, Services};
use tollgate::head::{HeaderName, HeaderValue, Headers};
use tollgate::observe::metrics::Metrics;
use tollgate::yaml::{Sources, decode, parse};

/// By the name in the path: its fields of signature, timestamp and id, as far as it has them.
const SENDERS: [(&str, &[&str], &[&str]); 9] = [
    ("slack", &["x-slack-signature"], &["x-slack-request-timestamp"]),
    ("github", &["x-hub-signature-256", "x-hub-signature"], &[]),
    ("stripe", &["stripe-signature"], &[]),
    ("shopify", &["x-shopify-hmac-sha256"], &[]),
    ("jira", &["x-hub-signature"], &[]),
    ("trello", &["x-trello-webhook"], &[]),
    ("standard", &["webhook-signature", "webhook-id"], &["webhook-timestamp"]),
    ("svix", &["svix-signature", "svix-id"], &["svix-timestamp"]),
    ("custom", &["x-sign", "x-id"], &["x-time"]),
];

/// Nobody has the secrets: what passes was not signed with them.
const TEXT: &str = r#"
version: 1
listeners: [{ bind: 127.0.0.1:8000 }]
routes:
  - name: hooks
    match: POST /{sender}
    filters:
      - webhook:
          by: sender
          providers:
            slack: { preset: slack, secrets: [&secret "a secret that the one who sends does not have"] }
            github: { preset: github, secrets: [*secret] }
            stripe: { preset: stripe, secrets: [*secret] }
            shopify: { preset: shopify, secrets: [*secret] }
            jira: { preset: jira, secrets: [*secret] }
            trello: { preset: trello, secrets: [*secret], callback_url: "https://a.example/trello" }
            standard: { preset: standard_webhooks, secrets: &base64 ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] }
            svix: { preset: standard_webhooks, secrets: *base64 }
            custom: { preset: custom, secrets: [*secret], header: X-Sign, signed: "{id}.{timestamp}.{body}", id_header: X-Id, timestamp_header: X-Time }
    respond: { status: 202 }
"#;

static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| {
    let mut sources = Sources::new();
    let file = sources.add("gateway.yaml", TEXT);
    let tree = parse(&sources, file).unwrap_or_else(|problems| panic!("{problems:?}"));
    let root = decode(&tree).unwrap_or_else(|problems| panic!("{problems:?}"));
    let config = Config { root, fragments: Vec::new(), base: PathBuf::new(), attached: Attached::new() };
    let services = Services::new(Metrics::new(100));
    let compiled = gateway::compile(&config, sources, String::new(), None, &services);
    compiled.unwrap_or_else(|(_, problems)| panic!("{problems:?}"))
});

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    sender: u8,
    /// Of the fields of the sender, in their order; more of them stand there again.
    values: Vec<&'a [u8]>,
    timestamp: &'a [u8],
    /// Timestamps are of this moment: what is behind them is read too.
    is_fresh: bool,
    body: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let (sender, fields, times) = SENDERS[usize::from(input.sender) % SENDERS.len()];
    let mut ask = Ask::parse(&format!("POST /{sender}"), IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    let mut add = |name: &'static str, value: &[u8]| {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            ask.request.append(&HeaderName::from_static(name), value);
        }
    };
    for (name, value) in fields.iter().cycle().zip(&input.values) {
        match (sender, input.is_fresh) {
            ("stripe", true) => add(name, &[b"t=", seconds.as_bytes(), b",", value].concat()),
            _ => add(name, value),
        }
    }
    let timestamp = if input.is_fresh { seconds.as_bytes() } else { input.timestamp };
    times.iter().for_each(|name| add(name, timestamp));
    ask.set_body(input.body.to_vec().into());
    let code = preview(&GATEWAY, ask).code().map(|code| code.name);
    let refusals = ["SIGNATURE_MISSING", "SIGNATURE_INVALID", "SIGNATURE_EXPIRED"];
    assert!(code.is_some_and(|code| refusals.contains(&code)), "{sender}: {code:?}");
});
