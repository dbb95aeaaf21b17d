//! Senders that sign as providers do, written from their documentation and apart from what is tested.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The first one holds the signature.
    pub fields: Vec<(&'static str, Vec<u8>)>,
    pub body: Vec<u8>,
}

/// Somebody who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Slack,
    Github,
    Stripe,
    Shopify,
    Jira,
    Trello,
    StandardWebhooks,
    Svix,
    CustomTimestamp,
    CustomId,
    CustomBody,
}

impl Sender {
    pub const ALL: [Self; 11] = [
        Self::Slack,
        Self::Github,
        Self::Stripe,
        Self::Shopify,
        Self::Jira,
        Self::Trello,
        Self::StandardWebhooks,
        Self::Svix,
        Self::CustomTimestamp,
        Self::CustomId,
        Self::CustomBody,
    ];

    /// The settings of a filter that takes its messages, signed with any of `secrets`.
    pub fn settings(self, secrets: &[&str]) -> String {
        let secrets: Vec<String> = secrets.iter().map(|secret| format!("\"{}\"", self.shown(secret))).collect();
        let secrets = secrets.join(", ");
        let own = match self {
            Self::Slack => "preset: slack",
            Self::Github => "preset: github",
            Self::Stripe => "preset: stripe",
            Self::Shopify => "preset: shopify",
            Self::Jira => "preset: jira",
            Self::Trello => "preset: trello, callback_url: \"https://hooks.example.com/trello\"",
            Self::StandardWebhooks | Self::Svix => "preset: standard_webhooks",
            Self::CustomTimestamp => "preset: custom, header: X-Webhook-Signature, prefix: \"sha256=\"",
            Self::CustomId => {
                "preset: custom, header: X-Sign, algorithm: sha512, encoding: base64, \
                 signed: \"v2;{id};{timestamp};{body}\", timestamp_header: X-Time, id_header: X-Id"
            }
            Self::CustomBody => "preset: custom, header: X-Sign, algorithm: sha1, signed: \"{body}\"",
        };
        format!("{{ {own}, secrets: [{secrets}] }}")
    }

    /// A secret as the sender shows it.
    fn shown(self, secret: &str) -> String {
        match self {
            Self::StandardWebhooks | Self::Svix => format!("whsec_{}", STANDARD.encode(secret)),
            _ => secret.to_owned(),
        }
    }

    pub fn signs_time(self) -> bool {
        !matches!(self, Self::Github | Self::Shopify | Self::Jira | Self::Trello | Self::CustomBody)
    }

    pub fn writes_base64(self) -> bool {
        matches!(self, Self::Shopify | Self::Trello | Self::StandardWebhooks | Self::Svix | Self::CustomId)
    }

    /// What stands before a signature.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Slack => "v0=",
            Self::Github | Self::Jira | Self::CustomTimestamp => "sha256=",
            Self::Stripe => "v1=",
            Self::StandardWebhooks | Self::Svix => "v1,",
            Self::Shopify | Self::Trello | Self::CustomId | Self::CustomBody => "",
        }
    }

    /// A signature without what stands before it.
    pub fn sign(self, secret: &str, body: &[u8], time: u64, id: &str) -> String {
        let time = time.to_string();
        let time = time.as_bytes();
        let id = id.as_bytes();
        let key = secret.as_bytes();
        match self {
            Self::Slack => hex(&sha256(key, &[b"v0:", time, b":", body])),
            Self::Github | Self::Jira => hex(&sha256(key, &[body])),
            Self::Stripe | Self::CustomTimestamp => hex(&sha256(key, &[time, b".", body])),
            Self::Shopify => STANDARD.encode(sha256(key, &[body])),
            Self::Trello => STANDARD.encode(sha1(key, &[body, b"https://hooks.example.com/trello"])),
            Self::StandardWebhooks | Self::Svix => STANDARD.encode(sha256(key, &[id, b".", time, b".", body])),
            Self::CustomId => STANDARD.encode(sha512(key, &[b"v2;", id, b";", time, b";", body])),
            Self::CustomBody => hex(&sha1(key, &[body])),
        }
    }

    pub fn send(self, secret: &str, body: &[u8], time: u64, id: &str) -> Sent {
        self.send_with(&[self.sign(secret, body, time, id)], body, time, id)
    }

    /// A message with these signatures.
    pub fn send_with(self, signatures: &[String], body: &[u8], time: u64, id: &str) -> Sent {
        let signature = format!("{}{}", self.prefix(), signatures[0]);
        let (time, id) = (time.to_string(), id.to_owned());
        let fields = match self {
            Self::Slack => vec![("x-slack-signature", signature), ("x-slack-request-timestamp", time)],
            Self::Github => vec![("x-hub-signature-256", signature)],
            Self::Jira => vec![("x-hub-signature", signature)],
            Self::Shopify => vec![("x-shopify-hmac-sha256", signature)],
            Self::Trello => vec![("x-trello-webhook", signature)],
            Self::Stripe => {
                let signatures: Vec<String> = signatures.iter().map(|signature| format!("v1={signature}")).collect();
                vec![("stripe-signature", format!("t={time},{}", signatures.join(",")))]
            }
            Self::StandardWebhooks | Self::Svix => {
                let signatures: Vec<String> = signatures.iter().map(|signature| format!("v1,{signature}")).collect();
                let names = match self {
                    Self::Svix => ["svix-signature", "svix-timestamp", "svix-id"],
                    _ => ["webhook-signature", "webhook-timestamp", "webhook-id"],
                };
                names.into_iter().zip([signatures.join(" "), time, id]).collect()
            }
            Self::CustomTimestamp => vec![("x-webhook-signature", signature), ("x-webhook-timestamp", time)],
            Self::CustomId => vec![("x-sign", signature), ("x-time", time), ("x-id", id)],
            Self::CustomBody => vec![("x-sign", signature)],
        };
        let fields = fields.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        Sent { fields, body: body.to_vec() }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

macro_rules! hmac_of {
    ($name:ident, $hash:ty) => {
        pub fn $name(key: &[u8], pieces: &[&[u8]]) -> Vec<u8> {
            let mut mac = Hmac::<$hash>::new_from_slice(key).unwrap();
            pieces.iter().for_each(|piece| mac.update(piece));
            mac.finalize().into_bytes().to_vec()
        }
    };
}

hmac_of!(sha1, Sha1);
hmac_of!(sha256, Sha256);
hmac_of!(sha512, Sha512);
