//! Health of targets: who is asked at all.
//!
//! Two things take a target out, each for itself: its checks ([`Checked`]), made beside the request path, and how clients fare
//! with it ([`Outlier`]). A request reads one atomic for each that is set up. What the targets of an upstream say together
//! ([`Overall`]) is worked out when one of them goes out or comes back, and read only where one is out.
//!
//! Both kinds of state are kept over reloads by upstream and address. Who is out may be told by any snapshot; each works out
//! for its own targets what that means.

mod ask;
mod checked;
mod compile;
mod grpc;
mod outlier;
mod overall;
mod rounds;
mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Target, Upstream};
use crate::clock;
use crate::observe::metrics::{HealthSample, TargetHealthSample, UpstreamError};

pub use checked::{CheckView, Checked};
pub use compile::Rules;
pub use outlier::{EjectionView, Outlier, REASONS, Reason};
pub use overall::{Overall, Standing};
pub use rounds::keep_checking;

/// What is known of the health of one target.
pub struct Health {
    pub checked: Option<Arc<Checked>>,
    pub outlier: Option<Arc<Outlier>>,
}

/// Whose health it is.
#[derive(Clone)]
pub struct Subject {
    upstream: Arc<str>,
    address: Arc<str>,
    /// Warms up when it comes back.
    state: Arc<super::State>,
    shared: Arc<overall::Shared>,
}

impl Health {
    /// That of the target `address`: what there was is kept where its settings allow it.
    pub fn compile(
        overall: Option<&Overall>,
        known: Option<&Self>,
        address: &Arc<str>,
        state: &Arc<super::State>,
        now: Instant,
    ) -> Option<Box<Self>> {
        let overall = overall?;
        let subject = || Subject {
            upstream: Arc::clone(overall.name()),
            address: Arc::clone(address),
            state: Arc::clone(state),
            shared: Arc::clone(overall.shared()),
        };
        let checked = overall.rules.check.as_ref().map(|_| {
            let known = known.and_then(|known| known.checked.clone());
            known.unwrap_or_else(|| Arc::new(Checked::new(subject(), now)))
        });
        let outlier = overall.rules.outliers.as_ref().map(|rules| {
            let known = known.and_then(|known| known.outlier.clone()).filter(|known| known.goes_by(rules));
            known.unwrap_or_else(|| Arc::new(Outlier::new(Arc::clone(rules), subject(), now)))
        });
        Some(Box::new(Self { checked, outlier }))
    }

    /// Whether neither takes it out.
    pub fn is_in(&self, now: Instant) -> bool {
        self.checked.as_ref().is_none_or(|checked| checked.is_healthy())
            && self.outlier.as_ref().is_none_or(|outlier| outlier.is_in(now))
    }
}

impl Upstream {
    /// Whether its health lets a target be asked.
    pub(super) fn is_in(&self, target: &Target, now: Instant) -> bool {
        target.health.as_ref().is_none_or(|health| health.is_in(now) || self.ignores_health(now))
    }

    pub(super) fn health_of(&self, label: &str) -> Option<&Health> {
        self.targets.iter().find(|target| *target.label == *label)?.health.as_deref()
    }

    /// What the health of its targets comes to; `None` where none is known.
    pub fn standing(&self, now: Instant) -> Option<Standing> {
        self.health.as_ref().map(|overall| overall.standing(self, now))
    }

    /// Whether health counts for nothing now.
    fn ignores_health(&self, now: Instant) -> bool {
        self.standing(now).is_some_and(Standing::is_ignored)
    }

    /// The tiers, by bits, that are asked only after the others: too few of their targets are healthy.
    pub(super) fn passed_over(&self, now: Instant) -> u8 {
        let overall = self.health.as_ref().filter(|overall| overall.rules.panic.is_some());
        overall.map_or(0, |overall| overall.standing(self, now).passed_over())
    }

    /// An answer of a target begins. `true`: when it ends well, [`succeeded`](Self::succeeded) is to be called.
    pub(super) fn health_responded(&self, index: u16, status: u16, took: Duration, now: Instant) -> bool {
        let Some(outlier) = self.outlier(index) else { return false };
        let usual = || self.usual_of_others(index, now);
        if outlier.is_slow(took, usual, now) {
            self.judge(outlier, Reason::Latency, now);
        }
        if outlier.fails_with(status) {
            self.health_bad(outlier, now);
            return false;
        }
        outlier.took(took);
        true
    }

    /// The exchange of an answer that began well is over, and nothing broke off.
    pub fn succeeded(&self, index: u16, now: Instant) {
        if let Some(outlier) = self.outlier(index) {
            outlier.succeeded(now);
        }
    }

    pub(super) fn health_failed(&self, index: u16, kind: UpstreamError, now: Instant) {
        if let Some(outlier) = self.outlier(index).filter(|outlier| outlier.fails_by(kind)) {
            self.health_bad(outlier, now);
        }
    }

    fn health_bad(&self, outlier: &Outlier, now: Instant) {
        if let Some(reason) = outlier.failed(now) {
            self.judge(outlier, reason, now);
        }
    }

    /// Takes a target out, if no more than may be are out already.
    fn judge(&self, outlier: &Outlier, reason: Reason, now: Instant) {
        let Some(overall) = &self.health else { return };
        let ejected = |target: &&Target| {
            target.health.as_ref().and_then(|health| health.outlier.as_ref()).is_some_and(|it| !it.is_in(now))
        };
        let _one_at_a_time = overall.shared().lock();
        let out = self.targets.iter().filter(ejected).count();
        if out < overall.ejected_max(self.targets.len()) {
            outlier.eject(reason, now);
        } else {
            outlier.spare();
            overall.shared().spared();
        }
        // Tells when that leaves too few.
        overall.standing(self, now);
    }

    /// What an answer usually takes with the other targets that are in: the median of their averages, in microseconds.
    fn usual_of_others(&self, index: u16, now: Instant) -> Option<f32> {
        let others = self.targets.iter().zip(0_u16..).filter(|(_, other)| *other != index);
        let healths = others.filter_map(|(target, _)| target.health.as_ref()).filter(|health| health.is_in(now));
        let mut usual: Vec<f32> = healths.filter_map(|health| health.outlier.as_ref()?.usual()).collect();
        usual.sort_unstable_by(f32::total_cmp);
        // Of an even number the faster one of the two in the middle.
        usual.get(usual.len().checked_sub(1)? / 2).copied()
    }

    fn outlier(&self, index: u16) -> Option<&Outlier> {
        self.target(index)?.health.as_ref()?.outlier.as_deref()
    }
}

/// How it stands with the health of these upstreams; nothing of those where none is known.
pub fn health_samples(upstreams: &[Arc<Upstream>]) -> Vec<HealthSample> {
    let now = clock::now();
    let target = |target: &Target| {
        let health = target.health.as_ref()?;
        Some(TargetHealthSample {
            target: Arc::clone(&target.label),
            healthy: health.is_in(now),
            checks: health.checked.as_ref().map(|checked| checked.counts()),
            ejections: health.outlier.as_ref().map(|outlier| outlier.counts()).into_iter().flatten().collect(),
        })
    };
    let sample = |upstream: &Arc<Upstream>| {
        let overall = upstream.health.as_ref()?;
        Some(HealthSample {
            upstream: Arc::clone(&upstream.name),
            ignored: overall.standing(upstream, now).is_ignored(),
            spared: overall.rules.outliers.is_some().then(|| overall.shared().spared_count()),
            targets: upstream.targets.iter().filter_map(target).collect(),
        })
    };
    upstreams.iter().filter_map(sample).collect()
}

#[cfg(test)]
mod tests;
