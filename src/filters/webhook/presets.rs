//! How each provider signs, by its own documentation.

use schemars::JsonSchema;
use serde::Deserialize;

use super::message::Naming;
use super::scheme::{Fields, Form, Part, Scheme, Signed};
use super::signature::{Algorithm, Encoding};
use crate::head::HeaderName;

/// A provider that the gateway knows, or one of your own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    Slack,
    Github,
    Stripe,
    Shopify,
    Jira,
    Trello,
    /// The specification of that name; Svix and all who send through it.
    StandardWebhooks,
    /// Says itself how it signs.
    Custom,
}

impl Preset {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Github => "github",
            Self::Stripe => "stripe",
            Self::Shopify => "shopify",
            Self::Jira => "jira",
            Self::Trello => "trello",
            Self::StandardWebhooks => "standard_webhooks",
            Self::Custom => "custom",
        }
    }

    /// How it signs; `None` for `custom`. `callback_url` is what Trello was told.
    pub fn scheme(self, callback_url: &str) -> Option<(Scheme, Naming)> {
        let body = || Signed::new(vec![Part::Body]);
        let built = match self {
            Self::Custom => return None,
            Self::Slack => {
                let form = single("x-slack-signature", "v0=", Some("x-slack-request-timestamp"));
                let signed = Signed::new(vec![text("v0:"), Part::Timestamp, text(":"), Part::Body]);
                (form, Algorithm::Sha256, Encoding::LowerHex, signed, Naming::MemberEventId)
            }
            Self::Github => {
                // The field without `-256` has a SHA-1, and is there for those who have not moved on.
                let form = single("x-hub-signature-256", "sha256=", None);
                (form, Algorithm::Sha256, Encoding::LowerHex, body(), Naming::Body)
            }
            Self::Jira => {
                let form = single("x-hub-signature", "sha256=", None);
                (form, Algorithm::Sha256, Encoding::LowerHex, body(), Naming::Body)
            }
            Self::Shopify => {
                let form = single("x-shopify-hmac-sha256", "", None);
                (form, Algorithm::Sha256, Encoding::Base64, body(), Naming::Body)
            }
            Self::Trello => {
                let signed = Signed::new(vec![Part::Body, text(callback_url)]);
                (single("x-trello-webhook", "", None), Algorithm::Sha1, Encoding::Base64, signed, Naming::Body)
            }
            Self::Stripe => {
                let form = Form::Stripe { field: HeaderName::from_static("stripe-signature") };
                let signed = Signed::new(vec![Part::Timestamp, text("."), Part::Body]);
                (form, Algorithm::Sha256, Encoding::LowerHex, signed, Naming::MemberId)
            }
            Self::StandardWebhooks => {
                let fields = |signature, timestamp, id| Fields {
                    signature: HeaderName::from_static(signature),
                    timestamp: Some(HeaderName::from_static(timestamp)),
                    id: Some(HeaderName::from_static(id)),
                };
                let form = Form::Standard {
                    fields: [
                        fields("webhook-signature", "webhook-timestamp", "webhook-id"),
                        fields("svix-signature", "svix-timestamp", "svix-id"),
                    ],
                };
                let signed = Signed::new(vec![Part::Id, text("."), Part::Timestamp, text("."), Part::Body]);
                (form, Algorithm::Sha256, Encoding::Base64, signed, Naming::Id)
            }
        };
        let (form, algorithm, encoding, signed, naming) = built;
        Some((Scheme { form, algorithm, encoding, signed: signed.ok()? }, naming))
    }
}

fn single(signature: &'static str, prefix: &str, timestamp: Option<&'static str>) -> Form {
    let fields = Fields {
        signature: HeaderName::from_static(signature),
        timestamp: timestamp.map(HeaderName::from_static),
        id: None,
    };
    Form::Single { fields, prefix: prefix.into() }
}

fn text(text: &str) -> Part {
    Part::Text(text.into())
}
