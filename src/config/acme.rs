//! `acme`: where certificates of listeners are got from, and which.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::types::{Period, Secret};
use crate::yaml::Located;

/// The authority that issues certificates (RFC 8555).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Acme {
    /// `https://acme-v02.api.letsencrypt.org/directory`
    pub directory: Located<String>,
    /// Where the authority writes when something is wrong: `mailto:ops@example.com`.
    #[serde(default)]
    pub contact: Vec<Located<String>>,
    /// That the terms of service of the authority were read and are agreed to.
    pub terms_agreed: Located<bool>,
    /// The folder for the account and the certificates, relative to gateway.yaml. Made when it is not there. Default `data/acme`.
    pub storage: Option<String>,
    /// How long before its end a certificate is renewed; at half of its life when that is later. Default `30d`.
    pub renew_before: Option<Located<Period>>,
    /// The pause after a failure, 1s to 6h; it doubles with each, up to 6h. Default `5m`.
    pub retry_min: Option<Located<Period>>,
    /// Certificates of the authorities that vouch for the directory itself, for private ones. Default: those of the system.
    pub ca: Option<Located<String>>,
    /// The account at the authority that this one belongs to, where it wants to know (external account binding).
    pub eab: Option<Eab>,
}

/// An account that is known to the authority already.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Eab {
    pub key_id: String,
    /// In base64url, as authorities give it out.
    pub hmac_key: Located<Secret>,
}

/// A certificate that the gateway gets by itself.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct AcmeCertificate {
    /// The names it is for, 1 to 100.
    pub domains: Located<Vec<Located<String>>>,
    /// How the authority is shown that the names lead here.
    pub challenge: Option<Located<AcmeChallenge>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum AcmeChallenge {
    /// In a handshake on port 443.
    #[default]
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// By a request to port 80, which a listener without `tls` answers.
    #[serde(rename = "http-01")]
    Http01,
}
