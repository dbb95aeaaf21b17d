//! The settings of `inbox`, and what they are compiled to.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Inbox;
use super::order::{Order, OrderForm};
use crate::contract::{AnyHandler, Compiler, InboxUse, Terms};
use crate::handlers::Settings;
use crate::head::{HeaderName, StatusCode};
use crate::inbox::{Account, Bounds};
use crate::template::Template;
use crate::types::{Percent, Period, Size};
use crate::yaml::{Located, Node, Problem};

const ATTEMPTS: u32 = 10;
const ATTEMPTS_MAX: u32 = 1000;
const CONCURRENCY: u32 = 8;
const CONCURRENCY_MAX: u32 = 1000;
const PAUSES_MAX: usize = 32;
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Almost five hours from the first attempt to the tenth.
const SCHEDULE: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
    Duration::from_secs(1800),
    Duration::from_secs(3600),
];
const JITTER: f64 = 0.2;
const TIMEOUT: Period = Period(Duration::from_secs(30));
const TIMEOUT_LEAST: Period = Period(Duration::from_millis(1));
const TIMEOUT_MAX: Period = Period(Duration::from_secs(600));
const MESSAGES_MAX: u64 = 100_000;
const MESSAGES_MOST: u64 = 1_000_000_000;
const BYTES_MAX: Size = Size(1024 * 1024 * 1024);
/// What a file of messages holds at most.
const BYTES_MOST: Size = Size(64 * 1024 * 1024 * 1024);
/// What a message takes besides its body, at least.
const BYTES_LEAST: Size = Size(64 * 1024);

/// What only the worker sets on a request.
const GUARDED: [HeaderName; 2] =
    [HeaderName::from_static("x-delivery-id"), HeaderName::from_static("x-delivery-attempt")];

/// Stores requests, acknowledges them at once, and delivers them afterwards.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct InboxSettings {
    /// Who gets the messages.
    upstream: Located<String>,
    /// Unique; names the inbox in logs, metrics and the store. Default: the route's name.
    name: Option<Located<String>>,
    /// The path they are delivered to; a template. Default: as the filters left it.
    path: Option<Located<String>>,
    /// Messages with the same value are delivered one after the other: a request field, or `{ member: /pointer }` into a JSON body.
    #[schemars(with = "Option<OrderForm>")]
    order_by: Option<Node>,
    /// Deliveries of a message until it is dead. Default 10.
    attempts: Option<Located<u32>>,
    /// The pauses between them; the last one repeats. Default `[5s, 30s, 2m, 10m, 30m, 1h]`.
    schedule: Option<Located<Vec<Located<Period>>>>,
    /// By what share each pause is longer or shorter, at random. Default 20%.
    jitter: Option<Percent>,
    /// How long one delivery may take until the answer begins. Default 30s.
    timeout: Option<Located<Period>>,
    /// Deliveries at once, of one gateway. Default 8.
    concurrency: Option<Located<u32>>,
    /// Messages that are kept at most, dead ones included. Default 100000.
    messages_max: Option<Located<u64>>,
    /// What they may take, heads and bodies together. Default 1GiB.
    bytes_max: Option<Located<Size>>,
    /// Of the acknowledgement: 200, 202 (default) or 204.
    status: Option<Located<u16>>,
}

impl Settings for InboxSettings {
    const NAME: &'static str = "inbox";
    const SUMMARY: &'static str = "stores requests, acknowledges them at once, and delivers them afterwards";

    fn build(self, compiler: &mut Compiler) -> Option<AnyHandler> {
        GUARDED.into_iter().for_each(|field| compiler.guard(field));
        if !compiler.keeps_messages() {
            let message = "an inbox needs a state that outlives the gateway: what it acknowledged would be lost";
            let problem = Problem::new(compiler.place(), message);
            compiler.report(problem.with_hint("write `state: { file: data/tollgate.db }`, or that of Redis"));
        }
        let path = self.path(compiler);
        let order = self.order_by.as_ref().map_or(Some(Order::Any), |order| Order::compile(order, compiler));
        let status = self.status(compiler);
        let terms = self.terms(compiler);
        let name = self.name.unwrap_or_else(|| Located::new(compiler.owner().to_owned(), compiler.place()));
        let (path, order, status, terms) = (path?, order?, status?, terms?);
        let inbox: Arc<str> = Arc::from(name.as_str());
        let account = Arc::new(Account::new(Arc::clone(&inbox), compiler.inboxes()));
        let handler = Inbox {
            name: inbox,
            path,
            order,
            bounds: terms.bounds,
            status,
            inboxes: Arc::clone(compiler.inboxes()),
            account: Arc::clone(&account),
            is_away: AtomicBool::new(false),
        };
        compiler.inbox(InboxUse { name, upstream: self.upstream, terms, account });
        Some(AnyHandler::waiting(handler))
    }
}

impl InboxSettings {
    /// `None` when a problem was reported.
    fn path(&self, compiler: &mut Compiler) -> Option<Option<Template>> {
        let Some(written) = &self.path else { return Some(None) };
        let template = compiler.template(written)?;
        if (written.starts_with('/') || written.starts_with("{path}")) && !written.contains(['?', '#']) {
            return Some(Some(template));
        }
        let problem = Problem::new(written.place, format!("`{}` is no path", written.value.escape_debug()));
        compiler.report(problem.with_hint("begin with a `/`; the query is that of the request"));
        None
    }

    fn status(&self, compiler: &mut Compiler) -> Option<StatusCode> {
        let Some(status) = &self.status else { return Some(StatusCode::ACCEPTED) };
        if let 200 | 202 | 204 = status.value {
            return StatusCode::from_u16(status.value).ok();
        }
        let problem = Problem::new(status.place, format!("{} is no acknowledgement", status.value));
        compiler.report(problem.with_hint("200, 202 or 204"));
        None
    }

    fn terms(&self, compiler: &mut Compiler) -> Option<Terms> {
        let attempts = compiler.within("attempts", self.attempts, ATTEMPTS, 1..=ATTEMPTS_MAX);
        let schedule = self.schedule(compiler);
        let concurrency = compiler.within("concurrency", self.concurrency, CONCURRENCY, 1..=CONCURRENCY_MAX);
        let messages_max = compiler.within("messages_max", self.messages_max, MESSAGES_MAX, 1..=MESSAGES_MOST);
        let timeout = compiler.within("timeout", self.timeout, TIMEOUT, TIMEOUT_LEAST..=TIMEOUT_MAX);
        let bytes_max = compiler.within("bytes_max", self.bytes_max, BYTES_MAX, BYTES_LEAST..=BYTES_MOST);
        Some(Terms {
            bounds: Bounds { messages_max, bytes_max: bytes_max.0 },
            attempts,
            schedule: schedule?,
            jitter: self.jitter.map_or(JITTER, Percent::fraction),
            timeout: timeout.0,
            concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX),
        })
    }

    fn schedule(&self, compiler: &mut Compiler) -> Option<Box<[Duration]>> {
        let Some(written) = &self.schedule else { return Some(SCHEDULE.into()) };
        if !(1..=PAUSES_MAX).contains(&written.len()) {
            let problem = Problem::new(written.place, format!("a schedule has 1 to {PAUSES_MAX} pauses"));
            compiler.report(problem.with_hint("write `schedule: [5s, 30s, 2m, 10m, 1h]`; the last pause repeats"));
            return None;
        }
        let mut is_sound = true;
        for pause in written.iter().filter(|pause| pause.0.is_zero() || pause.0 > PAUSE_MAX) {
            let message = format!("a pause between attempts is 1ms to {}, not {}", Period(PAUSE_MAX), pause.value);
            compiler.report(Problem::new(pause.place, message));
            is_sound = false;
        }
        is_sound.then(|| written.iter().map(|pause| pause.0).collect())
    }
}
