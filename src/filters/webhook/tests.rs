//! What the tests of `webhook` share.

mod bounds;
mod examples;
mod forgeries;
mod passing;
mod providers;
mod sender;
mod settings;
mod signing;

use std::time::Duration;

use super::*;
use crate::contract::testing::{context, node, outcome};
use crate::contract::{Compiler, Known as CompiledAgainst};
use crate::head::{HeaderName, HeaderValue, Headers as _, Method, RequestBuf};
use crate::yaml::Place;

/// Some time: 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600;

/// A filter of which the tests choose the time.
fn webhook(text: &str) -> WebhookFilter {
    match try_webhook(text) {
        Ok(filter) => filter,
        Err(problems) => panic!("{problems:#?}"),
    }
}

fn try_webhook(text: &str) -> Result<WebhookFilter, Vec<String>> {
    let mut compiler = Compiler::at(Place::UNKNOWN, "test".to_owned(), &CompiledAgainst::default());
    let settings: Option<WebhookSettings> = compiler.settings(&node(text));
    let built = settings.and_then(|settings| settings.compile(&mut compiler));
    outcome(built, compiler)
}

/// A request with these fields, and others in any bytes that a field may have. `None`: no field may.
fn request(fields: &[(&str, Vec<u8>)]) -> Option<RequestBuf> {
    let mut request = RequestBuf::new(Method::POST, "/hooks");
    for (name, value) in fields {
        request.append(&HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).ok()?);
    }
    Some(request)
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What a verdict is, in a word: the code of a refusal, or the status of an answer.
fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Continue => "ok".to_owned(),
        Verdict::Reply(reply) => reply.status.as_u16().to_string(),
        Verdict::Reject(rejection) => rejection.code.name.to_owned(),
    }
}

/// What becomes of a request, and what the filter says of it.
fn judge(filter: &WebhookFilter, request: &RequestBuf, body: &[u8], now: u64) -> (String, Webhook) {
    let mut context = context();
    let verdict = match filter.check_head(request, &mut context, at(now)) {
        Verdict::Continue => {
            let verified = filter.verify(request, &Bytes::copy_from_slice(body), &mut context, at(now));
            verified.err().unwrap_or(Verdict::Continue)
        }
        verdict => verdict,
    };
    let webhook = *context.webhook.expect("what becomes of it is noted");
    assert_eq!(webhook.delivery.is_some(), matches!(webhook.result, "accepted" | "handshake"), "{webhook:?}");
    assert!(results::ALL.iter().any(|(name, _)| *name == webhook.result), "{webhook:?}");
    (word(&verdict), webhook)
}
