//! `https_redirect` of a listener, as it is written.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// `true` for port 443, or the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "Form")]
pub struct HttpsRedirect(Option<u16>);

impl HttpsRedirect {
    /// The port of HTTPS; `None` for `false`.
    pub fn port(self) -> Option<u16> {
        self.0
    }
}

impl<'de> Deserialize<'de> for HttpsRedirect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl Visitor<'_> for Either {
    type Value = HttpsRedirect;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`true`, `false` or a port")
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<HttpsRedirect, E> {
        Ok(HttpsRedirect(on.then_some(443)))
    }

    fn visit_u64<E: Error>(self, port: u64) -> Result<HttpsRedirect, E> {
        let port = u16::try_from(port).map_err(|_| E::invalid_value(Unexpected::Unsigned(port), &self))?;
        Ok(HttpsRedirect(Some(port)))
    }

    fn visit_i64<E: Error>(self, port: i64) -> Result<HttpsRedirect, E> {
        let port = u16::try_from(port).map_err(|_| E::invalid_value(Unexpected::Signed(port), &self))?;
        Ok(HttpsRedirect(Some(port)))
    }
}

#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[allow(dead_code, reason = "describes the format; never built")]
enum Form {
    On(bool),
    Port(u16),
}
