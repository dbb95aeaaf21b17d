//! When a request may be tried again: on what, how often, after which pause, and at whose expense.

mod budget;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use budget::Budget;

use crate::config::{self, UnsafeMethods};
use crate::head::{HeaderName, RequestHead};
use crate::types::Period;
use crate::yaml::{Kind, Located, Node, Problem};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Most tries of one request.
const ATTEMPTS_MAX: u8 = 10;
/// The words in `on`.
const WORDS: [&str; 3] = ["connect", "reset", "timeout"];
const FIRST: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_secs(1);
const LONGEST_MAX: Duration = Duration::from_secs(60);
const TRY_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// 20%.
const SHARE: u32 = 200_000;
/// 10/s.
const LEAST: u64 = 10 * budget::SECONDS;

/// Why a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There was no connection: nothing was sent.
    Connect,
    /// The connection broke before an answer.
    Reset,
    /// There was no answer in time.
    Timeout,
    /// The answer has a status that is tried again.
    Status(u16),
}

/// What is written of it, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Rules {
    /// Tries in all, at least 1.
    pub attempts: u8,
    /// How long each may take to the head of the answer.
    pub try_timeout: Option<Duration>,
    connect: bool,
    reset: bool,
    timeout: bool,
    statuses: Vec<u16>,
    unsafe_methods: UnsafeMethods,
    first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// Most retries: of the requests in the window, in millionths.
    share: u32,
    /// Retries that are there in each window beside those.
    least: u64,
}

/// The rules of an upstream, and what its requests have used up.
pub struct Retry {
    pub rules: Rules,
    budget: Arc<Budget>,
}

impl Retry {
    /// What was used up under `previous` stays so, whatever the rules are now.
    pub fn compile(rules: &Rules, previous: Option<&Self>, now: Instant) -> Self {
        let budget = previous.map_or_else(|| Arc::new(Budget::new(now)), |previous| Arc::clone(&previous.budget));
        Self { rules: rules.clone(), budget }
    }

    /// A request begins, which retries are a share of.
    pub fn requested(&self, now: Instant) {
        if self.rules.attempts > 1 && self.rules.covers_any() {
            self.budget.requested(now);
        }
    }

    /// Takes one retry out of the budget; whether there was one.
    pub fn charge(&self, now: Instant) -> bool {
        self.budget.charge(self.rules.share, self.rules.least, now)
    }
}

impl Rules {
    pub fn check(written: &config::Retry, problems: &mut Vec<Problem>) -> Self {
        let attempts = written.attempts.within("attempts", 1..=ATTEMPTS_MAX, problems);
        let longest = period("max", written.backoff.max, LONGEST_MAX, problems).unwrap_or(LONGEST);
        let first = period("first", written.backoff.first, LONGEST_MAX, problems);
        if let Some(place) = written.backoff.first.filter(|first| first.value.0 > longest).map(|first| first.place) {
            problems.push(Problem::new(place, "`first` is longer than `max`"));
        }
        let mut rules = Self {
            attempts,
            try_timeout: period("try_timeout", written.try_timeout, TRY_TIMEOUT_MAX, problems),
            connect: written.on.is_none(),
            reset: false,
            timeout: false,
            statuses: Vec::new(),
            unsafe_methods: written.unsafe_methods,
            first: first.unwrap_or(FIRST).min(longest),
            longest,
            share: written.budget.map_or(SHARE, |share| share.millionths()),
            least: LEAST,
        };
        if let Some(rate) = written.budget_min {
            let seconds = rate.value.per.as_secs().max(1);
            let least = rate.value.count.saturating_mul(budget::SECONDS).checked_div(seconds);
            rules.least = least.unwrap_or_default();
            if rules.least == 0 {
                let problem = Problem::new(rate.place, "`budget_min` gives less than one retry in ten seconds");
                problems.push(problem.with_hint("6/min is the least"));
            }
        }
        for node in written.on.iter().flatten() {
            rules.add(node, problems);
        }
        rules
    }

    /// Takes an entry of `on`.
    fn add(&mut self, node: &Node, problems: &mut Vec<Problem>) {
        match (&node.kind, node.as_str()) {
            (_, Some("connect")) => self.connect = true,
            (_, Some("reset")) => self.reset = true,
            (_, Some("timeout")) => self.timeout = true,
            (_, Some(word)) => problems.push(Problem::unknown(node.place, "condition", word, WORDS.into_iter())),
            (Kind::Int(status), _) => match u16::try_from(*status).ok().filter(|it| (400..=599).contains(it)) {
                Some(status) => self.statuses.push(status),
                None => {
                    let problem = Problem::new(node.place, format!("{status} is no status of a failure"));
                    problems.push(problem.with_hint("400 to 599"));
                }
            },
            _ => {
                let message = "`on` lists words and statuses, such as [connect, reset, 503]";
                problems.push(Problem::new(node.place, message));
            }
        }
    }

    /// Whether what failed for this reason is tried again.
    pub fn covers(&self, reason: Reason) -> bool {
        match reason {
            Reason::Connect => self.connect,
            Reason::Reset => self.reset,
            Reason::Timeout => self.timeout,
            Reason::Status(status) => self.statuses.contains(&status),
        }
    }

    fn covers_any(&self) -> bool {
        self.connect || self.reset || self.timeout || !self.statuses.is_empty()
    }

    /// Whether a request that was sent may be sent again, as far as its head says.
    pub fn allow(&self, head: &dyn RequestHead) -> bool {
        let by_key = || match self.unsafe_methods {
            UnsafeMethods::WithIdempotencyKey => head.get(&IDEMPOTENCY_KEY).is_some_and(|key| !key.is_empty()),
            UnsafeMethods::Never => false,
            UnsafeMethods::Always => true,
        };
        head.method().is_idempotent() || by_key()
    }

    /// How long to wait after so many tries: a random part, from 0 to 1, of a time that doubles.
    pub fn pause(&self, tries: usize, random: f64) -> Duration {
        let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.first.saturating_mul(2_u32.saturating_pow(doublings)).min(self.longest);
        longest.mul_f64(random.clamp(0.0, 1.0))
    }
}

fn period(
    name: &str,
    written: Option<Located<Period>>,
    longest: Duration,
    problems: &mut Vec<Problem>,
) -> Option<Duration> {
    let written = written?;
    if written.value.0.is_zero() || written.value.0 > longest {
        let message = format!("`{name}` must be more than nothing and at most {}", Period(longest));
        problems.push(Problem::new(written.place, message));
    }
    Some(written.value.0)
}

#[cfg(test)]
mod tests;
