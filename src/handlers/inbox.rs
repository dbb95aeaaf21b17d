//! `inbox`: stores a request, acknowledges it at once, and delivers it to a service afterwards, as often as it takes.
//!
//! For webhooks above all: their senders wait a few seconds and try again a few times, whatever the service behind does
//! meanwhile. What passed the filters is written to the state store, answered with 202 once it is kept there, and delivered by
//! a worker beside the requests. Put a `webhook` filter in front, so that only genuine messages are stored; a request that
//! has to be answered by the service itself goes to `upstream` instead.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `upstream` | who gets the messages | required |
//! | `name` | the inbox in logs, metrics and the store; unique. One that is renamed is a new one: messages under the old name stay where they are | the route's name |
//! | `path` | the path they are delivered to (a template: `/hooks/{path.service}`); the query stays | as the filters left it |
//! | `order_by` | a request field (`X-Order-Key`), or `{ member: /repository/full_name }`, a pointer ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)) to a text, number or boolean in a JSON body: messages with the same value are delivered one after the other | in any order |
//! | `attempts` | deliveries of a message, 1 to 1000; when the last one fails it is dead: kept, but not tried again | `10` |
//! | `schedule` | the pauses between them, 1 to 32, each at most `24h`; the last one repeats | `[5s, 30s, 2m, 10m, 30m, 1h]` |
//! | `jitter` | by what share each pause is longer or shorter, at random | `20%` |
//! | `timeout` | how long one delivery may take until the answer begins, at most `10m` | `30s` |
//! | `concurrency` | deliveries at once, of one gateway; 1 to 1000 | `8` |
//! | `messages_max` | messages that are kept at most, dead ones included | `100000` |
//! | `bytes_max` | what they may take, heads and bodies together | `1GiB` |
//! | `status` | of the acknowledgement: 200, 202 or 204. Some senders (Slack's slash commands) insist on 200 | `202` |
//!
//! Needs `state` in a file or in Redis; `memory` would lose what was acknowledged, and is refused. With Redis, the gateways
//! that share it deliver together, and a message that one of them had when it died is taken over by another.
//!
//! **What the sender gets.** The acknowledgement has no body and the field `X-Message-Id`. Before it nothing was lost, and
//! after it nothing will be, as far as the store keeps what it promised. An inbox that is full answers 503 `INBOX_FULL`, a store that does
//! not answer 503 `STATE_UNAVAILABLE`, both with `Retry-After`. A body is at most as large as `body_max` of the route, `bytes_max` and 64 MiB.
//!
//! **What the service gets.** Method, path, query, fields and body as `upstream` would send them, without what belongs to a
//! single connection ([RFC 9110 §7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1)), plus the
//! three below. Credentials that no filter took out are stored and delivered with the rest.
//!
//! | field | value |
//! |---|---|
//! | `Idempotency-Key` | the same for every delivery of the same thing: of a verified webhook made of what its sender signed, so that a repetition of the sender has the same one; otherwise the id of the message. Replaces what the client sent |
//! | `X-Delivery-Id` | the id of the message, as in `X-Message-Id` |
//! | `X-Delivery-Attempt` | `1`; from `2` on the message may have been delivered before |
//!
//! Clients cannot send the last two, on any route. **Delivery is at least once:** an answer that is lost, a gateway that is killed between
//! the answer and its note of it: both mean another delivery. A service that keeps the `Idempotency-Key` of what it did is
//! safe. With `order_by`, a message waits until those before it with the same key are delivered or dead.
//!
//! An answer of 2xx is a delivery; its body is not looked at. Anything else is a failure, redirects included: they are not followed.
//! `Retry-After` of a 429 or 503 is respected up to an hour where it is longer than the schedule. Of the upstream's settings, its targets,
//! `protocol`, `host`, `timeouts.connect` and `timeouts.keepalive` count; a target that takes no connection is skipped at once for the next one.
//!
//! **While the service is away** nothing is used up. When no target takes a connection, or five deliveries in a row end in a timeout, a
//! broken connection, 502, 503 or 504, the inbox pauses: for a second, then twice as long each time, up to a minute. Then one message is tried;
//! when it is answered, all go on. Deliveries that reached nobody do not count as attempts.
//!
//! A reload changes the settings from the next message on. An inbox that is taken out of the configuration keeps its messages until it
//! is there again; the log says how many. When the gateway is told to stop, deliveries under way may end within `drain_timeout`; the rest
//! is delivered by the next start.
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! state: { file: data/tollgate.db }
//! upstreams:
//!   tasks: { targets: [{ address: 127.0.0.1:9101 }] }
//! routes:
//!   - name: hooks.deploy
//!     match: POST /webhooks/deploy/{service}
//!     inbox:
//!       upstream: tasks
//!       path: /internal/deployed/{path.service}
//!       order_by: { member: /repository/full_name }
//!       attempts: 12
//!       schedule: [5s, 30s, 2m, 10m, 1h]
//! tests:
//!   - request: POST /webhooks/deploy/billing
//!     body: '{"repository": {"full_name": "acme/billing"}}'
//!     expect: { route: hooks.deploy, status: 202 }
//! ```

mod letter;
mod order;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::RETRY_AFTER;

use crate::clock;
use crate::context::Context;
use crate::contract::{Answering, AsyncHandler};
use crate::head::{HeaderName, HeaderValue, RequestHead, StatusCode};
use crate::inbox::{Account, Bounds, Inboxes, Put};
use crate::reply::{Code, Rejection, Reply};
use crate::template::Template;
use letter::Letter;
use order::Order;
pub use settings::InboxSettings;

/// Largest body, in bytes: several are in memory at once, on both sides of the store.
const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
const X_MESSAGE_ID: HeaderName = HeaderName::from_static("x-message-id");
/// Seconds until a sender is to try again: an inbox empties slowly.
const FULL_FOR: HeaderValue = HeaderValue::from_static("30");
const AWAY_FOR: HeaderValue = HeaderValue::from_static("5");

struct Inbox {
    name: Arc<str>,
    path: Option<Template>,
    order: Order,
    bounds: Bounds,
    status: StatusCode,
    inboxes: Arc<Inboxes>,
    account: Arc<Account>,
    /// Whether the last message could not be stored, and the log says so.
    is_away: AtomicBool,
}

impl AsyncHandler for Inbox {
    fn body_bytes_max(&self) -> usize {
        // A larger one would never fit.
        usize::try_from(self.bounds.bytes_max.min(BODY_BYTES_MAX)).unwrap_or(usize::MAX)
    }

    fn status(&self) -> StatusCode {
        self.status
    }

    fn answer<'a>(&'a self, request: &'a dyn RequestHead, body: Bytes, context: &'a Context) -> Answering<'a> {
        Box::pin(async move {
            let letter = Letter { path: self.path.as_ref(), order: &self.order, inbox: &self.name };
            let message = letter.write(request, body, context, clock::wall())?;
            let id = HeaderValue::try_from(&message.id).ok();
            let Some(queue) = self.inboxes.queue() else { return Err(self.away()) };
            let names = self.account.names(&message);
            match queue.put(message, self.bounds).await {
                Ok(Put::Stored) => {
                    self.is_there();
                    self.account.stored(names.as_ref(), clock::wall());
                    let reply = Reply::new(self.status);
                    Ok(id.into_iter().fold(reply, |reply, id| reply.with_field(X_MESSAGE_ID, id)))
                }
                Ok(Put::Full) => {
                    self.is_there();
                    self.account.refused("full");
                    let rejection = Rejection::new(Code::INBOX_FULL, "the inbox is full");
                    Err(Box::new(rejection.with_field(RETRY_AFTER, FULL_FOR)))
                }
                Err(error) => {
                    // Senders that come again and again would fill the log with it.
                    if !self.is_away.swap(true, Ordering::Relaxed) {
                        tracing::error!(
                            inbox = &*self.name, %error,
                            "a message could not be stored; until one can be, senders are told so, and the log says no more of it"
                        );
                    }
                    Err(self.away())
                }
            }
        })
    }
}

impl Inbox {
    fn is_there(&self) {
        if self.is_away.load(Ordering::Relaxed) && self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!(inbox = &*self.name, "the store takes messages again");
        }
    }

    fn away(&self) -> Box<Rejection> {
        self.account.refused("unavailable");
        let rejection = Rejection::new(Code::STATE_UNAVAILABLE, "the message cannot be stored now");
        Box::new(rejection.with_field(RETRY_AFTER, AWAY_FOR))
    }
}

#[cfg(test)]
mod tests;
