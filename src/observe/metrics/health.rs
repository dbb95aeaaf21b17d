//! What is shown of the health of targets.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::series::{counter, counters, gauge, gauges};

/// How it stands with the health of an upstream.
pub struct HealthSample {
    pub upstream: Arc<str>,
    /// Too few targets are healthy: it counts for nothing.
    pub ignored: bool,
    /// Outliers that were not ejected because enough others were; where there are outliers.
    pub spared: Option<u64>,
    pub targets: Vec<TargetHealthSample>,
}

/// How it stands with one of its targets.
pub struct TargetHealthSample {
    pub target: Arc<str>,
    pub healthy: bool,
    /// That succeeded and that failed.
    pub checks: Option<(u64, u64)>,
    /// By reason.
    pub ejections: Vec<(&'static str, u64)>,
}

pub(super) fn families(samples: &[HealthSample]) -> Vec<MetricFamily> {
    let all = || samples.iter().flat_map(|sample| sample.targets.iter().map(|target| (&*sample.upstream, target)));
    let healthy = all().map(|(upstream, target)| {
        gauge(&[("target", &target.target), ("upstream", upstream)], f64::from(u8::from(target.healthy)))
    });
    let checks = all().filter_map(|(upstream, target)| Some((upstream, target, target.checks?)));
    let checks = checks.flat_map(|(upstream, target, (good, bad))| {
        [("failed", bad), ("ok", good)].map(|(result, count)| {
            counter(&[("result", result), ("target", &target.target), ("upstream", upstream)], count)
        })
    });
    let ejections = all().flat_map(|(upstream, target)| {
        let labelled = move |(reason, count): &(&'static str, u64)| {
            counter(&[("reason", reason), ("target", &target.target), ("upstream", upstream)], *count)
        };
        target.ejections.iter().map(labelled)
    });
    let ignored =
        samples.iter().map(|sample| gauge(&[("upstream", &sample.upstream)], f64::from(u8::from(sample.ignored))));
    let spared = samples.iter().filter_map(|sample| Some(counter(&[("upstream", &sample.upstream)], sample.spared?)));
    vec![
        gauges("tollgate_target_healthy", "1 while a target is neither unhealthy nor ejected.", healthy),
        counters("tollgate_health_checks_total", "Checks of targets, by result.", checks),
        counters("tollgate_target_ejections_total", "Ejections of targets, by reason.", ejections),
        counters(
            "tollgate_target_ejections_spared_total",
            "Outliers that were not ejected because enough targets were.",
            spared,
        ),
        gauges(
            "tollgate_upstream_health_ignored",
            "1 while too few targets of an upstream are healthy, so that requests go to all.",
            ignored,
        ),
    ]
}
