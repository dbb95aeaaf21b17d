//! `tls` of an upstream, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::yaml::{Kind, Located, Node, Place, Problem, decode};

/// `true`, or how TLS is spoken.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "Form")]
pub struct UpstreamTls(Node);

/// TLS to the targets. Files are PEM, named relative to gateway.yaml; a change in one is a reload.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UpstreamTlsSettings {
    /// The name the certificate has to be for, and that targets are sent (SNI). Default: the host of each target; an IP address
    /// has to stand in the certificate as one.
    pub server_name: Option<Located<String>>,
    /// Certificates of the authorities that are trusted. Default: those of the system.
    pub ca: Option<Located<String>>,
    /// What the gateway shows of itself (mTLS). Default: nothing.
    pub client_cert: Option<ClientCert>,
    /// What has to hold of the certificate of a target. Default `full`.
    pub verify: Option<Located<Verify>>,
    /// The oldest version that is spoken. Default `"1.2"`.
    pub min_version: TlsVersion,
}

/// A certificate of the gateway.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ClientCert {
    /// The certificate, then those that lead to its authority.
    pub cert: Located<String>,
    /// Its private key, without a password.
    pub key: Located<String>,
}

/// What has to hold of a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// A trusted authority has signed it, it is within its period, and it is for the name.
    #[default]
    Full,
    /// The same without the name. Needs a `ca` of your own: everybody can have a certificate of a public authority.
    Ca,
    /// Nothing: whoever stands in between can read and change everything. For tries only.
    Off,
}

/// A version of TLS, in quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    V12,
    #[serde(rename = "1.3")]
    V13,
}

impl UpstreamTls {
    pub fn place(&self) -> Place {
        self.0.place
    }

    /// What is written; `None` for `false`.
    pub fn settings(&self) -> Result<Option<UpstreamTlsSettings>, Vec<Problem>> {
        match &self.0.kind {
            Kind::Bool(true) => Ok(Some(UpstreamTlsSettings::default())),
            Kind::Bool(false) => Ok(None),
            Kind::Map(_) => decode(&self.0).map(Some),
            _ => {
                let problem = Problem::new(self.0.place, "`tls` of an upstream is `true` or a map");
                Err(vec![problem.with_hint("write `tls: true` or `tls: { ca: ca.pem }`")])
            }
        }
    }

    /// Every file it names. What cannot be read as settings is told when they are compiled.
    pub fn files(&self) -> Vec<Located<String>> {
        let Ok(Some(settings)) = self.settings() else { return Vec::new() };
        let pair = settings.client_cert.into_iter().flat_map(|pair| [pair.cert, pair.key]);
        settings.ca.into_iter().chain(pair).collect()
    }
}

#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[allow(dead_code, reason = "describes the format; never built")]
enum Form {
    Plain(bool),
    Settings(Box<UpstreamTlsSettings>),
}
