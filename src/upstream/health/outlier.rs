//! How clients fare with a target, and its ejection when that is much worse than with others.
//!
//! What is not set up is not counted. A request that goes well adds to no more than two counters, and takes no lock; the lock is
//! for going out and coming back.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::Subject;
use super::compile::OutlierRules;
use crate::observe::metrics::UpstreamError;
use crate::upstream::breaker::tally::Tally;

/// How much an answer counts in the average of a target.
const ANSWER_SHARE: f32 = 1.0 / 16.0;
/// The lower bits of [`Outlier::slow_over`] are a time in microseconds, the others the slot it was worked out in.
const MICROS_BITS: u32 = 40;
const MICROS_MAX: u64 = (1 << MICROS_BITS) - 1;

/// Why a target was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// So many failures in a row.
    Failures,
    /// Such a share of failures.
    Rate,
    /// Such a share of slow answers.
    Latency,
}

/// All reasons, in the order of their numbers.
pub const REASONS: [Reason; 3] = [Reason::Failures, Reason::Rate, Reason::Latency];

/// What one target did, and whether it is out for it.
pub struct Outlier {
    rules: Arc<OutlierRules>,
    subject: Subject,
    epoch: Instant,
    /// Until when it is out, in milliseconds since `epoch`. Zero: it is in.
    until: AtomicU64,
    in_a_row: AtomicU32,
    succeeded: Tally,
    failed: Tally,
    answered: Tally,
    slow: Tally,
    /// The average of its answers in microseconds, as the bits of an `f32`. Zero: there was none.
    usual: AtomicU32,
    /// What was too slow, and in which slot that was worked out.
    slow_over: AtomicU64,
    ejections: Mutex<Ejections>,
    counts: [AtomicU64; REASONS.len()],
}

/// How it stands with the ejections of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionView {
    pub until: Instant,
    pub since: Instant,
    pub reason: Reason,
    /// How many times the first ejection lasts.
    pub times: u32,
}

/// The ejections of one target, as a function of when they are. Nothing here reads a clock or logs.
#[derive(Debug, Default)]
struct Ejections {
    last: Option<EjectionView>,
    out: bool,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Rate => "rate",
            Self::Latency => "latency",
        }
    }
}

impl Outlier {
    pub fn new(rules: Arc<OutlierRules>, subject: Subject, now: Instant) -> Self {
        let tally = || Tally::new(rules.window, now);
        Self {
            succeeded: tally(),
            failed: tally(),
            answered: tally(),
            slow: tally(),
            rules,
            subject,
            epoch: now,
            until: AtomicU64::new(0),
            in_a_row: AtomicU32::new(0),
            usual: AtomicU32::new(0),
            slow_over: AtomicU64::new(u64::MAX),
            ejections: Mutex::default(),
            counts: Default::default(),
        }
    }

    pub fn goes_by(&self, rules: &OutlierRules) -> bool {
        *self.rules == *rules
    }

    /// Whether it is not ejected. Who finds that its time is over brings it back.
    pub fn is_in(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until == 0 || (self.millis(now) >= until && self.bring_back(now))
    }

    pub fn fails_with(&self, status: u16) -> bool {
        self.rules.statuses.contains(&status)
    }

    pub fn fails_by(&self, kind: UpstreamError) -> bool {
        match kind {
            UpstreamError::Connect | UpstreamError::Tls => self.rules.connect,
            UpstreamError::Timeout => self.rules.timeout,
            UpstreamError::Reset | UpstreamError::Protocol | UpstreamError::Other => self.rules.reset,
        }
    }

    /// A failure. Gives why it is an outlier, if this made it one.
    pub fn failed(&self, now: Instant) -> Option<Reason> {
        if self.is_out() {
            // What goes to it all the same says nothing that is not known.
            return None;
        }
        if let Some(max) = self.rules.failures
            && self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= max
        {
            return Some(Reason::Failures);
        }
        let share = self.rules.rate?;
        self.failed.add(now);
        let failed = self.failed.sum(now);
        let all = failed.saturating_add(self.succeeded.sum(now));
        self.is_too_much(failed, all, share).then_some(Reason::Rate)
    }

    pub fn succeeded(&self, now: Instant) {
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        if self.rules.rate.is_some() && !self.is_out() {
            self.succeeded.add(now);
        }
    }

    /// Counts an answer; whether it is one slow answer too many. `others` says what is usual with the other targets.
    pub fn is_slow(&self, took: Duration, others: impl FnOnce() -> Option<f32>, now: Instant) -> bool {
        let Some(latency) = self.rules.latency.as_ref().filter(|_| !self.is_out()) else { return false };
        self.answered.add(now);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let is_slow = latency.over.is_none_or(|over| took > over)
            && latency.times.is_none_or(|times| micros > self.slow_over(times, others, now));
        if !is_slow {
            return false;
        }
        self.slow.add(now);
        self.is_too_much(self.slow.sum(now), self.answered.sum(now), latency.share)
    }

    /// An answer that was no failure took so long.
    pub fn took(&self, took: Duration) {
        if self.rules.latency.as_ref().is_none_or(|latency| latency.times.is_none()) {
            return;
        }
        let micros = (took.as_secs_f32() * 1e6).max(1.0);
        // Of two at the same time one may be lost.
        let average = self.usual().map_or(micros, |average| average + (micros - average) * ANSWER_SHARE);
        self.usual.store(average.to_bits(), Ordering::Relaxed);
    }

    /// How long its answers take, as a rule, in microseconds.
    pub fn usual(&self) -> Option<f32> {
        Some(self.usual.load(Ordering::Relaxed)).filter(|bits| *bits != 0).map(f32::from_bits)
    }

    /// Takes it out, longer each time.
    pub fn eject(&self, reason: Reason, now: Instant) {
        let mut ejections = self.lock();
        let Some(ejected) = ejections.eject(reason, &self.rules, now) else { return };
        // Rounded up, so that it is never back before its time.
        self.until.store(self.millis(ejected.until).saturating_add(1), Ordering::Relaxed);
        drop(ejections);
        if let Some(count) = self.counts.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.forget();
        self.subject.shared.changed();
        let period = ejected.until.saturating_duration_since(now);
        warn!(
            upstream = &*self.subject.upstream,
            // Not `target`: in JSON that is the module which speaks.
            address = &*self.subject.address,
            reason = reason.name(),
            for_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX),
            "the target is ejected: it does much worse than it may; see why"
        );
    }

    /// It stays, as enough others are out; what it did is forgotten, so that it takes as much again to be looked at.
    pub fn spare(&self) {
        self.forget();
    }

    /// That of the last ejection, while it lasts.
    pub fn view(&self, now: Instant) -> Option<EjectionView> {
        if self.is_in(now) { None } else { self.lock().last }
    }

    /// How often it was ejected, by reason.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        REASONS.iter().map(|reason| reason.name()).zip(counts).collect()
    }

    fn is_out(&self) -> bool {
        self.until.load(Ordering::Relaxed) != 0
    }

    /// Whether it is in: the one who brings it back, or whoever was faster.
    fn bring_back(&self, now: Instant) -> bool {
        let mut ejections = self.lock();
        if !ejections.bring_back(now) {
            return !ejections.out;
        }
        self.forget();
        self.subject.state.warm_up(now);
        self.until.store(0, Ordering::Relaxed);
        drop(ejections);
        self.subject.shared.changed();
        let (upstream, address) = (&*self.subject.upstream, &*self.subject.address);
        info!(upstream, address, "the ejected target gets requests again");
        true
    }

    /// What is slow with this target: so many times what is usual for the others. Worked out once for each tenth of the window.
    fn slow_over(&self, times: u32, others: impl FnOnce() -> Option<f32>, now: Instant) -> u64 {
        let slot = self.answered.number(now) & (u64::MAX >> MICROS_BITS);
        let known = self.slow_over.load(Ordering::Relaxed);
        if known >> MICROS_BITS == slot {
            return known & MICROS_MAX;
        }
        // Without others there is nothing to compare with.
        let limit = others().map_or(MICROS_MAX, |usual| ((f64::from(usual) * f64::from(times)) as u64).min(MICROS_MAX));
        self.slow_over.store(slot << MICROS_BITS | limit, Ordering::Relaxed);
        limit
    }

    fn is_too_much(&self, some: u64, all: u64, millionths: u32) -> bool {
        all >= u64::from(self.rules.requests_min)
            && u128::from(some).saturating_mul(1_000_000) >= u128::from(all).saturating_mul(millionths.into())
    }

    fn forget(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        for tally in [&self.succeeded, &self.failed, &self.answered, &self.slow] {
            tally.clear();
        }
    }

    fn millis(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Ejections> {
        self.ejections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ejections {
    /// `None`: it is out already.
    fn eject(&mut self, reason: Reason, rules: &OutlierRules, now: Instant) -> Option<EjectionView> {
        if self.out {
            return None;
        }
        let times = self.last.map_or(0, |last| {
            // One less for each while, as long as the longest ejection, in which it did well.
            let well = now.saturating_duration_since(last.until).as_nanos();
            let whiles = well.checked_div(rules.eject_for_max.as_nanos()).unwrap_or_default();
            last.times.saturating_sub(u32::try_from(whiles).unwrap_or(u32::MAX))
        });
        // No more than lead to the longest one: otherwise it would take for ever to be forgotten.
        let most = rules.eject_for_max.as_nanos().div_ceil(rules.eject_for.as_nanos().max(1));
        let times = times.saturating_add(1).min(u32::try_from(most).unwrap_or(u32::MAX).max(1));
        let period = rules.eject_for.saturating_mul(times).min(rules.eject_for_max);
        let ejected = EjectionView { until: now.checked_add(period).unwrap_or(now), since: now, reason, times };
        self.last = Some(ejected);
        self.out = true;
        Some(ejected)
    }

    /// Whether its time is over, and it was out until now.
    fn bring_back(&mut self, now: Instant) -> bool {
        let over = self.out && self.last.is_none_or(|last| now >= last.until);
        self.out &= !over;
        over
    }
}

#[cfg(test)]
mod tests;
