//! `webhook`: lets webhooks through that their provider signed, each once.
//!
//! Place it first: the signature is the credential, and nothing of a message that has none reaches anybody. What the message has to
//! be is asked by its neighbour `validate`, behind it.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `preset` | `slack`, `github`, `stripe`, `shopify`, `jira`, `trello`, `standard_webhooks` (Svix and others) or `custom` | required, or `by` and `providers` |
//! | `secrets` | 1 to 8 secrets of at least 16 bytes, of which each verifies: while one is replaced, both | required |
//! | `enabled` | `false`: 404, as if it were not there; takes `${SLACK_ENABLED:-true}`, and `secrets` are not looked at | `true` |
//! | `tolerance` | how far a signed timestamp may lie from now, past and future; whole seconds, at most `1h` | `5m` |
//! | `callback_url` | Trello: the URL, exactly as it was registered | required there |
//! | `answer_challenge` | Slack: its `url_verification` is answered here | `true` |
//! | `by`, `providers` | a path parameter, and what it may be: each with the settings above and below this line | one provider |
//! | `body_max` | largest body; it is held in memory until it is verified. At most `64MiB`; that of the route counts too | `1MiB` |
//! | `replay` | `on`: a message passes once. `off` only where a timestamp is signed | `on` |
//! | `replay_window` | how long a message is known that was delivered; at least twice the tolerance, at most `30d` | `24h` |
//! | `on_replay` | `accept`: one that was delivered before gets 200 and goes nowhere; `refuse`: 409 `REPLAYED` | `accept` |
//! | `on_store_error` | while the state store cannot be reached: `local` (each gateway goes by what it knows), `allow`, `deny` (503 `STATE_UNAVAILABLE`) | `local` |
//!
//! What `custom` says of itself:
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `header` | the field with the signature | required |
//! | `prefix` | what stands before it: `sha256=` | nothing |
//! | `encoding` | `hex` (all lower or all upper case) or `base64` (with padding) | `hex` |
//! | `algorithm` | hash of the HMAC: `sha1`, `sha256`, `sha512` | `sha256` |
//! | `signed` | what is signed: `{timestamp}`, `{id}`, `{body}`, and text between them so that they can be cut in one way only | `{timestamp}.{body}` |
//! | `timestamp_header` | the field with the timestamp, in seconds since 1970 | `X-Webhook-Timestamp` |
//! | `id_header` | the field with the id of the message | required for `{id}` |
//!
//! How each preset signs, all with HMAC-SHA256 but Trello, and what names a message of it:
//!
//! | preset | field | signed | named by |
//! |---|---|---|---|
//! | [`slack`](https://api.slack.com/authentication/verifying-requests-from-slack) | `X-Slack-Signature: v0=<hex>`, `X-Slack-Request-Timestamp` | `v0:{timestamp}:{body}` | `event_id`, or the body |
//! | [`github`](https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries) | `X-Hub-Signature-256: sha256=<hex>`; that of SHA-1 is not looked at | `{body}` | the body |
//! | [`stripe`](https://docs.stripe.com/webhooks/signature) | `Stripe-Signature: t=…,v1=<hex>,v1=<hex>` | `{timestamp}.{body}` | `id`, or the body |
//! | [`shopify`](https://shopify.dev/docs/apps/build/webhooks/verify-deliveries) | `X-Shopify-Hmac-SHA256: <base64>` | `{body}` | the body |
//! | [`jira`](https://developer.atlassian.com/cloud/jira/platform/webhooks/#secure-admin-webhooks) | `X-Hub-Signature: sha256=<hex>` | `{body}` | the body |
//! | [`trello`](https://developer.atlassian.com/cloud/trello/guides/rest-api/webhooks/#webhook-signatures) | `X-Trello-Webhook: <base64>` of HMAC-SHA1 | `{body}` and the callback URL | the body |
//! | [`standard_webhooks`](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md) | `webhook-signature: v1,<base64> v1,…`, `webhook-timestamp`, `webhook-id`; or the same with `svix-` | `{id}.{timestamp}.{body}` | the id |
//! | `custom` | as it says | as it says | the id, or all that is signed |
//!
//! * Before a byte of the body is read, a request gets 404 `NOT_FOUND` when its provider is unknown or not enabled, 401 `SIGNATURE_MISSING`
//!   when a field is missing, stands there twice, or is not in its one form, and 401 `SIGNATURE_EXPIRED` when its timestamp is too old or lies
//!   in the future. A body that none of the secrets signed is 401 `SIGNATURE_INVALID`.
//! * The bytes count as they came: a body that was parsed and written again is another one. Hexadecimal digits of the presets are in lower
//!   case; base64 is that of RFC 4648 §4 in its canonical form; a field has at most 4096 bytes and 16 signatures, an id 256 bytes. Signatures
//!   are compared in constant time, and all secrets are tried. Each secret costs the hash of the body once more.
//! * A message is known by what its sender signed, never by a delivery id that anybody can change. When its response is 2xx it is
//!   remembered; otherwise it may come again. Sent again after that, it is answered with 200 and goes nowhere; while it is on its way, 409
//!   `IN_PROGRESS` with `Retry-After`, for a minute at most: a service that takes longer to answer may get it again. Two messages of GitHub or Shopify with the same bytes are the same message.
//! * Each route knows its own messages, also where several `use` one chain: what is sent to two of them arrives at both. Path and query are
//!   signed by nobody: two destinations of one sender need two routes or two providers, not two values of a path parameter. A route that is
//!   renamed begins anew.
//! * Whoever cannot sign can still send bodies that are held until they are complete: where strangers reach the route, put
//!   `concurrency: { max: 8, per: ip }` before it, so that one address does not take all of `limits.body_memory_max`.
//! * Slack's `url_verification` is answered with the challenge once its signature is verified; slash commands and other forms are
//!   verified as any body. Trello asks with `HEAD` before it registers a webhook, and gets 200: let the route take `HEAD` too.
//! * The response to a webhook is for its provider: most want a 2xx within seconds, and send again otherwise.
//!
//! Refused when the configuration is read: a secret that is short, empty or used twice; settings of another preset; a `signed` without
//! `{body}`, or that could be cut in two ways; an id or timestamp that is not signed; a window shorter than twice the tolerance.
//!
//! Source: the documentation of each provider, linked above; [RFC 2104](https://www.rfc-editor.org/rfc/rfc2104) (HMAC).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! routes:
//!   - name: hooks.github
//!     match: POST /hooks/github
//!     filters:
//!       - webhook: { preset: github, secrets: ["It's a Secret to Everybody"], body_max: 256KiB }
//!     respond: { status: 202 }
//!   - name: hooks
//!     match: POST /webhooks/{service}
//!     filters:
//!       - webhook:
//!           by: service
//!           providers:
//!             slack: { preset: slack, secrets: ["8f742231b10e8888abcd99yyyzzz85a5"] }
//!             jira: { preset: jira, secrets: ["an example and no secret"], enabled: false }
//!             ci: { preset: custom, secrets: ["another example and no secret"], header: X-Webhook-Signature, prefix: "sha256=" }
//!     respond: { status: 202 }
//! tests:
//!   - request: POST /hooks/github
//!     headers: { X-Hub-Signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17 }
//!     body: "Hello, World!"
//!     expect: { status: 202 }
//!   - request: POST /hooks/github
//!     headers: { X-Hub-Signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17 }
//!     body: "Hello, World?"
//!     expect: { status: 401, code: SIGNATURE_INVALID }
//!   - request: POST /hooks/github
//!     headers: { X-Hub-Signature: sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59 }
//!     expect: { status: 401, code: SIGNATURE_MISSING }
//!   - request: POST /webhooks/slack
//!     headers:
//!       X-Slack-Signature: v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503
//!       X-Slack-Request-Timestamp: "1531420618"
//!     expect: { status: 401, code: SIGNATURE_EXPIRED }
//!   - { request: POST /webhooks/jira, expect: { status: 404, code: NOT_FOUND } }
//!   - { request: POST /webhooks/unheard-of, expect: { status: 404, code: NOT_FOUND } }
//! ```

mod compile;
mod custom;
mod gate;
mod message;
mod presets;
mod provider;
mod refusal;
mod scheme;
mod settings;
mod sign;
mod signature;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use self::gate::Gate;
use self::provider::Provider;
use self::refusal::Refusal;
pub use self::settings::WebhookSettings;
pub use self::sign::{Signer, Signing};
use crate::clock;
use crate::context::{Context, Webhook, results};
use crate::contract::{BodyFilter, Hooks, Pending, Verdict};
use crate::head::{RequestHead, ResponseHead};
use crate::reply::{Code, Rejection};

/// The provider of a request that names none which is known: whoever asks chooses that name, and it stands in metrics.
static UNKNOWN: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("unknown"));

struct WebhookFilter {
    known: Known,
    gate: Gate,
    body_bytes_max: u64,
}

/// Whose webhooks it takes.
enum Known {
    One(Slot),
    /// Those of the provider that the path parameter names.
    By {
        parameter: Box<str>,
        providers: HashMap<Box<str>, Slot>,
    },
}

/// A provider, or the place of one that is switched off.
enum Slot {
    Enabled(Box<Provider>),
    Disabled(Arc<str>),
}

impl BodyFilter for WebhookFilter {
    fn hooks(&self) -> Hooks {
        Hooks::BOTH
    }

    fn body_bytes_max(&self) -> u64 {
        self.body_bytes_max
    }

    fn on_head(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        self.check_head(request, context, clock::wall())
    }

    fn on_body<'a>(
        &'a self,
        request: &'a mut dyn RequestHead,
        body: &'a Bytes,
        context: &'a mut Context,
    ) -> Pending<'a> {
        Box::pin(async move {
            match self.verify(request, body, context, clock::wall()) {
                Ok(message) => self.pass(message, context).await,
                Err(verdict) => verdict,
            }
        })
    }

    fn preview(&self, request: &mut dyn RequestHead, body: &Bytes, context: &mut Context) -> Verdict {
        let now = clock::wall();
        match self.check_head(request, context, now) {
            Verdict::Continue => self.verify(request, body, context, now).err().unwrap_or(Verdict::Continue),
            verdict => verdict,
        }
    }

    fn on_response(&self, _: &dyn RequestHead, response: &mut dyn ResponseHead, context: &Context) {
        if response.status().is_success() {
            context.webhook.iter().flat_map(|webhook| &webhook.once).for_each(|once| once.delivered());
        }
    }
}

/// A message that is verified. `None`: it is not one, and goes on as it is.
type Message<'f> = Option<(&'f Provider, Arc<str>)>;

impl WebhookFilter {
    fn check_head(&self, request: &dyn RequestHead, context: &mut Context, now: SystemTime) -> Verdict {
        if context.preflight {
            // A filter behind this one answers it: no handler ever sees it.
            return Verdict::Continue;
        }
        let provider = match self.provider(context) {
            Ok(provider) => provider,
            Err(verdict) => return verdict,
        };
        if let Some(reply) = provider.answer_head(request) {
            note(context, &provider.name, results::HANDSHAKE, None);
            return Verdict::Reply(Box::new(reply));
        }
        match provider.check_head(request, seconds(now)) {
            Ok(_) => Verdict::Continue,
            Err(refusal) => refuse(provider, refusal, context),
        }
    }

    /// Verifies a request with its body.
    ///
    /// # Errors
    /// What becomes of it, when it does not go on.
    fn verify(
        &self,
        request: &dyn RequestHead,
        body: &Bytes,
        context: &mut Context,
        now: SystemTime,
    ) -> Result<Message<'_>, Verdict> {
        if context.preflight {
            return Ok(None);
        }
        let provider = self.provider(context)?;
        let verified = provider.verify(request, body, seconds(now));
        let delivery = verified.map_err(|refusal| refuse(provider, refusal, context))?;
        if let Some(reply) = provider.answer_body(body) {
            note(context, &provider.name, results::HANDSHAKE, Some(&delivery));
            return Err(Verdict::Reply(Box::new(reply)));
        }
        note(context, &provider.name, results::ACCEPTED, Some(&delivery));
        Ok(Some((provider, delivery)))
    }

    /// Lets a verified message through, once.
    async fn pass(&self, message: Message<'_>, context: &mut Context) -> Verdict {
        let Some((provider, delivery)) = message else { return Verdict::Continue };
        let passage = self.gate.pass(&context.route, &provider.name, &delivery).await;
        if let Some(webhook) = &mut context.webhook {
            webhook.result = passage.result;
            webhook.once.extend(passage.once);
        }
        passage.verdict
    }

    /// Whose webhook a request is.
    fn provider(&self, context: &mut Context) -> Result<&Provider, Verdict> {
        let slot = match &self.known {
            Known::One(slot) => Some(slot),
            Known::By { parameter, providers } => context.captures.get(parameter).and_then(|name| providers.get(name)),
        };
        let (name, result) = match slot {
            Some(Slot::Enabled(provider)) => return Ok(provider),
            Some(Slot::Disabled(name)) => (name, results::DISABLED),
            None => (&*UNKNOWN, results::UNKNOWN_PROVIDER),
        };
        note(context, name, result, None);
        // The same for both: nobody has to know which are switched off.
        Err(Verdict::Reject(Box::new(Rejection::new(Code::NOT_FOUND, "there is no such webhook"))))
    }
}

fn refuse(provider: &Provider, refusal: Refusal, context: &mut Context) -> Verdict {
    note(context, &provider.name, refusal.result, None);
    Verdict::Reject(Box::new(refusal.into_rejection(&provider.challenge)))
}

fn note(context: &mut Context, provider: &Arc<str>, result: &'static str, delivery: Option<&Arc<str>>) {
    let (provider, delivery) = (Arc::clone(provider), delivery.map(Arc::clone));
    // What a filter before this one holds is held until the response.
    let once = context.webhook.take().map(|webhook| webhook.once).unwrap_or_default();
    context.webhook = Some(Box::new(Webhook { provider, result, delivery, once }));
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
