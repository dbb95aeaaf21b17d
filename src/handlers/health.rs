//! `health`: says that the gateway serves requests.
//!
//! Use it for load balancers and monitors that come in by the front door. It asks no service and needs no credentials. Its
//! neighbours are the admin address, which tells how upstreams are and whether the gateway is draining, and `respond`, which says
//! what you write.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `status` | the word under `status`, 1 to 64 bytes | `healthy` |
//!
//! The answer is 200 with `Cache-Control: no-store` and
//! `{"status":"healthy","version":"…","timestamp":"2026-01-01T12:00:00.000Z"}`: the version of the gateway and the time of the
//! answer ([RFC 3339](https://www.rfc-editor.org/rfc/rfc3339)).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! routes:
//!   - name: health
//!     match: GET /health
//!     health: {}
//! tests:
//!   - request: GET /health
//!     expect: { status: 200, headers: { Cache-Control: no-store, Content-Type: application/json } }
//! ```

use http::header;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::Settings;
use crate::clock;
use crate::context::Context;
use crate::contract::{AnyHandler, Compiler, Handler};
use crate::head::{HeaderValue, RequestHead, StatusCode};
use crate::reply::{Rejection, Reply};
use crate::yaml::{Located, Problem};

const STATUS_BYTES_MAX: usize = 64;

/// Says that the gateway serves requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HealthSettings {
    /// The word under `status`. Default `healthy`.
    status: Option<Located<String>>,
}

impl Settings for HealthSettings {
    const NAME: &'static str = "health";
    const SUMMARY: &'static str = "says that the gateway serves requests";

    fn build(self, compiler: &mut Compiler) -> Option<AnyHandler> {
        if let Some(status) = &self.status
            && !(1..=STATUS_BYTES_MAX).contains(&status.len())
        {
            let problem = Problem::new(status.place, format!("a status of {} bytes", status.len()));
            compiler.report(problem.with_hint(format!("1 to {STATUS_BYTES_MAX}")));
        }
        let status = Value::from(self.status.map_or_else(|| "healthy".to_owned(), |status| status.value));
        let version = env!("CARGO_PKG_VERSION");
        Some(AnyHandler::of(Health { before: format!(r#"{{"status":{status},"version":"{version}","timestamp":""#) }))
    }
}

struct Health {
    /// The body up to the time.
    before: String,
}

impl Handler for Health {
    fn answer(&self, _: &dyn RequestHead, _: &Context) -> Result<Reply, Box<Rejection>> {
        let mut reply = Reply::new(StatusCode::OK)
            .with_field(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .with_field(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        reply.body = format!("{}{}\"}}", self.before, clock::rfc3339(clock::wall())).into();
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::testing::{context, get};
    use crate::handlers::testing::{handler, refused};

    fn body(settings: &str) -> Value {
        let reply = handler::<HealthSettings>(settings).answer(&get("/health"), &context()).unwrap();
        assert_eq!((reply.status, reply.code), (StatusCode::OK, None));
        assert!(reply.fields.contains(&(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))));
        serde_json::from_slice(&reply.body).unwrap()
    }

    #[test]
    fn it_tells_status_version_and_time() {
        let body = body("{}");
        assert_eq!((&body["status"], &body["version"]), (&"healthy".into(), &env!("CARGO_PKG_VERSION").into()));
        let time: jiff::Timestamp = body["timestamp"].as_str().unwrap().parse().unwrap();
        assert!(time.as_second() > 1_700_000_000);
        assert_eq!(body.as_object().unwrap().len(), 3);
    }

    #[test]
    fn the_word_is_quoted_and_bounded() {
        assert_eq!(body(r#"{ status: 'a"b' }"#)["status"], "a\"b");
        assert_eq!(body(&format!("{{ status: {} }}", "a".repeat(64)))["status"], "a".repeat(64));
        assert!(refused::<HealthSettings>(&format!("{{ status: {} }}", "a".repeat(65))).contains("1 to 64"));
        assert!(refused::<HealthSettings>("{ status: '' }").contains("1 to 64"));
    }
}
