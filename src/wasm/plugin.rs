//! A plugin as a filter has it: its program, its terms, and the instances that serve requests.
//!
//! An instance serves one request at a time, from its head to the last byte of its answer: it never sees two at once, and when
//! it fails, one request is what it costs. A request takes the instance that the same thread used last, or a new one; there
//! are no more than `instances_max`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::call::Outlet;
use super::instance::{Failure, Vm};
use super::program::Program;
use super::record::{Record, record};
use super::shared::{Space, space};
use super::stock::Stock;
use super::timers;
use crate::clock;

/// Bounds of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory of one instance, in bytes.
    pub memory_max: usize,
    /// How long one callback may run.
    pub time_max: Duration,
    /// How long an instance may take to start.
    pub start_time_max: Duration,
    /// How long a request may be held.
    pub held_max: Duration,
    /// What is kept of a body while it is held, and what a plugin may make of it, in bytes.
    pub body_max: usize,
    /// Instances at once.
    pub instances_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_max: 32 << 20,
            time_max: Duration::from_millis(5),
            start_time_max: Duration::from_secs(1),
            held_max: Duration::from_secs(30),
            body_max: 1 << 20,
            instances_max: 1024,
        }
    }
}

/// What a plugin is run with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Its name in log lines and metrics.
    pub name: Box<str>,
    /// Which of the plugins in one file it is, for those that ask; most files hold one and need no name for it.
    pub root_id: Box<str>,
    /// `config`, as text.
    pub configuration: Bytes,
    pub vm_configuration: Bytes,
    pub limits: Limits,
    /// Upstreams that it may call, by name.
    pub calls: Box<[Box<str>]>,
}

/// A plugin that requests can be given to.
pub struct Plugin {
    program: Arc<Program>,
    terms: Arc<Terms>,
    stock: Arc<Stock>,
    rest: Mutex<Rest>,
    record: Arc<Record>,
    /// Held so that what its instances share outlives each of them.
    _space: Arc<Space>,
    outlet: Outlet,
}

/// An instance, for one request at a time.
pub type Instance = Arc<Mutex<Vm>>;

/// When instances may be started again.
#[derive(Debug, Default)]
struct Rest {
    /// Starts that failed, in a row.
    failures: u32,
    /// None before this: a start that fails costs as much as one that does not.
    until: Option<Instant>,
    /// Since when failures behind the start are counted, and how many there were.
    second: Option<Instant>,
    crashes: u32,
}

/// The first pause after a start that failed; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// So many starts that fail in a row cost no pause.
const FAILURES_FREE: u32 = 3;
/// So many instances that failed are replaced within a second. Whoever finds a request that a plugin fails on cannot keep the
/// gateway busy with starts; nor are others refused because of the first few.
const CRASHES_MAX: u32 = 500;

impl Plugin {
    /// Starts a first instance, so that a plugin that does not take its configuration is told of at once.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn new(program: Arc<Program>, terms: Terms) -> Result<Self, Failure> {
        let terms = Arc::new(terms);
        let (record, space) = (record(&terms.name), space(&terms.name));
        let first = Vm::start(&program, Arc::clone(&terms))?;
        let plugin = Self {
            program,
            terms,
            stock: Stock::new(),
            rest: Mutex::default(),
            record,
            _space: space,
            outlet: Outlet::default(),
        };
        plugin.stock.begin(usize::MAX);
        plugin.put_back(first.shared());
        timers::sweep(Arc::downgrade(&plugin.stock));
        Ok(plugin)
    }

    /// The same, sending its calls through this outlet.
    #[must_use]
    pub fn with_outlet(self, outlet: Outlet) -> Self {
        Self { outlet, ..self }
    }

    /// Tells the first instance whose it is: what it asks for from a tick is sent before there is a request.
    pub fn introduce(self: &Arc<Self>) {
        if let Some(instance) = self.stock.take() {
            instance.lock().unwrap_or_else(PoisonError::into_inner).belongs_to(self);
            self.stock.keep(instance);
        }
    }

    pub fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    pub fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// Whether anything may come of the head of a response, and of a body that passes: the plugin looks at it, or may have said
    /// meanwhile what is to become of the exchange.
    pub fn sees_responses(&self) -> (bool, bool) {
        let has = |name: &str| self.program.inspected.exports.iter().any(|export| export == name);
        let is_woken = has("proxy_on_tick")
            || has("proxy_on_queue_ready")
            || (has("proxy_on_http_call_response") && !self.terms.calls.is_empty());
        (is_woken || has("proxy_on_response_headers"), is_woken || has("proxy_on_response_body"))
    }

    /// Whether it is told of nothing behind the head of a request that has no body.
    pub fn sees_heads_of_requests_only(&self) -> bool {
        const LATER: [&str; 4] = ["proxy_on_response_trailers", "proxy_on_done", "proxy_on_log", "proxy_on_delete"];
        let has_later = self.program.inspected.exports.iter().any(|export| LATER.contains(&export.as_str()));
        self.sees_responses() == (false, false) && !has_later
    }

    /// An instance for a request.
    ///
    /// # Errors
    /// [`Failure::Busy`], [`Failure::Resting`], or why none can be started.
    pub fn take(&self) -> Result<Instance, Failure> {
        if let Some(instance) = self.idle(Stock::take) {
            return Ok(instance);
        }
        let taken = if self.stock.begin(self.terms.limits.instances_max) {
            self.start().inspect_err(|_| self.stock.end())
        } else {
            self.idle(Stock::take_from_others).ok_or(Failure::Busy)
        };
        taken.inspect_err(|failure| {
            // A start that fails is counted where it fails.
            if matches!(failure, Failure::Busy | Failure::Resting) {
                self.count(failure);
            }
        })
    }

    /// An idle instance that is well. One may have failed while no request was with it.
    fn idle(&self, take: impl Fn(&Stock) -> Option<Instance>) -> Option<Instance> {
        loop {
            let instance = take(&self.stock)?;
            if !is_dead(&instance) {
                return Some(instance);
            }
            self.failed();
            self.stock.end();
        }
    }

    fn start(&self) -> Result<Instance, Failure> {
        if self.rest().is_on(clock::now()) {
            return Err(Failure::Resting);
        }
        let started = Vm::start(&self.program, Arc::clone(&self.terms));
        self.rest().started(started.is_ok(), clock::now());
        started.map(Vm::shared)
    }

    /// Takes an instance back; one that failed is dropped.
    pub fn put_back(&self, instance: Instance) {
        if is_dead(&instance) {
            self.stock.end();
        } else {
            self.stock.keep(instance);
        }
    }

    /// Counts a failure that is not one of an instance.
    pub fn count(&self, failure: &Failure) {
        self.record.failed(failure.reason());
    }

    /// Notes that an instance failed.
    pub fn failed(&self) {
        self.rest().crashed(clock::now());
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Instances that there are, busy ones included.
    pub fn instances(&self) -> usize {
        self.stock.count()
    }

    /// Lets go of instances that nobody needed since this was called last.
    #[cfg(test)]
    pub(super) fn sweep(&self) {
        self.stock.sweep();
    }
}

fn is_dead(instance: &Instance) -> bool {
    instance.lock().unwrap_or_else(PoisonError::into_inner).is_dead()
}

impl Rest {
    fn is_on(&self, now: Instant) -> bool {
        let crashes_too_often = self.crashes > CRASHES_MAX && self.is_within_second(now);
        crashes_too_often || self.until.is_some_and(|until| now < until)
    }

    fn started(&mut self, well: bool, now: Instant) {
        if well {
            self.failures = 0;
            self.until = None;
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let Some(beyond) = self.failures.checked_sub(FAILURES_FREE) else { return };
        let pause = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(beyond.min(16))).min(PAUSE_MAX);
        self.until = now.checked_add(pause);
    }

    fn crashed(&mut self, now: Instant) {
        if !self.is_within_second(now) {
            self.second = Some(now);
            self.crashes = 0;
        }
        self.crashes = self.crashes.saturating_add(1);
    }

    fn is_within_second(&self, now: Instant) -> bool {
        self.second.is_some_and(|second| now.saturating_duration_since(second) < Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_that_fail_are_tried_less_and_less_often() {
        let (mut rest, mut now) = (Rest::default(), clock::now());
        for _ in 1..FAILURES_FREE {
            rest.started(false, now);
            assert!(!rest.is_on(now));
        }
        for pause in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000].map(Duration::from_millis) {
            rest.started(false, now);
            assert!(rest.is_on(now) && rest.is_on(now + pause - Duration::from_millis(1)), "{pause:?}");
            now += pause;
            assert!(!rest.is_on(now), "{pause:?}");
        }
        rest.started(true, now);
        rest.started(false, now);
        assert!(!rest.is_on(now), "it begins anew");
    }

    #[test]
    fn crashes_are_counted_by_the_second() {
        let (mut rest, now) = (Rest::default(), clock::now());
        for _ in 0..CRASHES_MAX {
            rest.crashed(now);
        }
        assert!(!rest.is_on(now));
        rest.crashed(now);
        assert!(rest.is_on(now + Duration::from_millis(999)));
        assert!(!rest.is_on(now + Duration::from_secs(1)));
    }
}
