//! From `health` as it is written to what it means.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use regex::bytes::{Regex, RegexBuilder};

use super::verdict::Thresholds;
use crate::config::{self, AllUnhealthy, HealthBody, OutlierFailure, SlowTargets, Statuses};
use crate::head::{HeaderName, HeaderValue, Method};
use crate::types::{Percent, Period};
use crate::yaml::{Located, Place, Problem};

const INTERVAL: Duration = Duration::from_secs(5);
const INTERVAL_LEAST: Period = Period(Duration::from_millis(100));
const TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT_MOST: Period = Period(Duration::from_secs(60));
const LEAST: Period = Period(Duration::from_millis(1));
const LONGEST: Period = Period(Duration::from_secs(3600));
const UNHEALTHY_AFTER: u32 = 3;
const HEALTHY_AFTER: u32 = 2;
const CHECKS_MAX: u32 = 100;
const FAILURES: u32 = 5;
const FAILURES_MAX: u32 = 1_000;
const REQUESTS_MIN: u32 = 20;
const REQUESTS_MIN_MAX: u32 = 1_000_000;
const WINDOW: Duration = Duration::from_secs(10);
const WINDOW_LEAST: Period = Period(Duration::from_secs(1));
const EJECT_FOR: Duration = Duration::from_secs(30);
const EJECT_FOR_MAX: Duration = Duration::from_secs(300);
const EJECT_FOR_LEAST: Period = Period(Duration::from_millis(100));
const HALF: u32 = 500_000;
const FAILING: [u16; 4] = [500, 502, 503, 504];
/// Memory that a compiled regular expression may take.
const REGEX_BYTES_MAX: usize = 1024 * 1024;
/// Longest name of a gRPC service, in bytes.
const SERVICE_BYTES_MAX: usize = 1024;

/// What is written of the health of an upstream, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub check: Option<Arc<Check>>,
    pub outliers: Option<Arc<OutlierRules>>,
    /// With a smaller share of healthy targets, in millionths, health is ignored.
    pub panic: Option<u32>,
    pub all_unhealthy: AllUnhealthy,
}

/// How each target is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub ask: Ask,
    pub port: Option<u16>,
    pub interval: Duration,
    pub timeout: Duration,
    pub thresholds: Thresholds,
}

/// What a target is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Tcp,
    Http(Box<HttpAsk>),
    Grpc { service: String, host: Option<HeaderValue> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAsk {
    pub method: Method,
    pub path: PathAndQuery,
    pub host: Option<HeaderValue>,
    pub fields: Vec<(HeaderName, HeaderValue)>,
    pub statuses: Vec<Statuses>,
    pub body: Option<Body>,
}

/// What a body must hold.
#[derive(Clone, Debug)]
pub struct Body(Regex);

/// When a target is ejected, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierRules {
    pub failures: Option<u32>,
    /// In millionths, as all shares here.
    pub rate: Option<u32>,
    pub latency: Option<Latency>,
    pub requests_min: u32,
    pub window: Duration,
    pub statuses: Vec<u16>,
    pub connect: bool,
    pub timeout: bool,
    pub reset: bool,
    pub eject_for: Duration,
    pub eject_for_max: Duration,
    pub ejected_max: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    pub over: Option<Duration>,
    pub times: Option<u32>,
    pub share: u32,
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Body {}

impl Body {
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.0.is_match(bytes)
    }
}

impl Check {
    /// Whether both ask the same of a target, however often.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        (&self.ask, self.port) == (&other.ask, other.port)
    }

    /// What is asked, for people.
    pub fn name(&self) -> String {
        match &self.ask {
            Ask::Tcp => "tcp".to_owned(),
            // Without the query: it may hold a credential.
            Ask::Http(http) => format!("{} {}", http.method, http.path.path()),
            Ask::Grpc { service, .. } if service.is_empty() => "grpc".to_owned(),
            Ask::Grpc { service, .. } => format!("grpc {service}"),
        }
    }
}

impl Rules {
    /// Reports what cannot be.
    pub fn check(written: Option<&Located<config::Health>>, problems: &mut Vec<Problem>) -> Option<Arc<Self>> {
        let written = written?;
        let panic = written.panic_threshold.as_ref().map(|share| share.millionths());
        Some(Arc::new(Self {
            check: check(written, problems).map(Arc::new),
            outliers: written.outliers.as_ref().map(|written| Arc::new(outliers(written, problems))),
            panic: panic.filter(|share| *share > 0),
            all_unhealthy: written.all_unhealthy,
        }))
    }
}

fn check(written: &Located<config::Health>, problems: &mut Vec<Problem>) -> Option<Check> {
    let kinds = [
        written.path.as_ref().map(|it| ("path", it.place)),
        written.tcp.as_ref().filter(|tcp| tcp.value).map(|it| ("tcp", it.place)),
        written.grpc.as_ref().map(|it| ("grpc", it.place)),
    ];
    let mut kinds = kinds.into_iter().flatten();
    let kind = kinds.next();
    if let (Some((first, at)), Some((second, place))) = (kind, kinds.next()) {
        let problem = Problem::new(place, format!("targets are checked by `{first}` or by `{second}`, not by both"));
        problems.push(problem.with_related("the other one", at));
    }
    only(written, kind.map(|(name, _)| name), problems);
    if kind.is_none() {
        if written.outliers.is_none() {
            let problem = Problem::new(written.place, "nothing says how targets are found to be unhealthy");
            problems.push(problem.with_hint("add `path: /health`, `tcp: true`, `grpc: {}` or `outliers: {}`"));
        }
        return None;
    }
    let ask = match (&written.path, &written.grpc) {
        (Some(path), _) => http(path, written, problems).map(|http| Ask::Http(Box::new(http))),
        (None, Some(grpc)) => {
            if grpc.service.len() > SERVICE_BYTES_MAX {
                let message = format!("`service` has at most {SERVICE_BYTES_MAX} bytes");
                problems.push(Problem::new(grpc.place, message));
            }
            Some(Ask::Grpc { service: grpc.service.clone(), host: host(written, problems) })
        }
        (None, None) => Some(Ask::Tcp),
    };
    if let Some(port) = written.port.as_ref().filter(|port| port.value == 0) {
        problems.push(Problem::new(port.place, "port 0 cannot be connected to"));
    }
    let interval = written.interval.map_or(INTERVAL, |it| it.within("interval", INTERVAL_LEAST..=LONGEST, problems).0);
    let timeout = written.timeout.map_or(TIMEOUT, |it| it.within("timeout", LEAST..=TIMEOUT_MOST, problems).0);
    let unhealthy_after =
        written.unhealthy_after.map_or(UNHEALTHY_AFTER, |it| it.within("unhealthy_after", 1..=CHECKS_MAX, problems));
    let healthy_after =
        written.healthy_after.map_or(HEALTHY_AFTER, |it| it.within("healthy_after", 1..=CHECKS_MAX, problems));
    Some(Check {
        ask: ask?,
        port: written.port.map(|port| port.value),
        interval,
        timeout,
        thresholds: Thresholds { unhealthy_after, healthy_after },
    })
}

/// Reports settings that say something about another kind of check, or about none.
fn only(written: &config::Health, kind: Option<&str>, problems: &mut Vec<Problem>) {
    let headers = written.headers.first().map(|(name, _)| name.place);
    let of_http = [
        ("method", written.method.as_ref().map(|it| it.place)),
        ("status", written.status.as_ref().map(|it| it.place)),
        ("body", written.body.as_ref().map(|it| it.place)),
        ("headers", headers),
    ];
    let of_any = [
        ("port", written.port.as_ref().map(|it| it.place)),
        ("interval", written.interval.as_ref().map(|it| it.place)),
        ("timeout", written.timeout.as_ref().map(|it| it.place)),
        ("unhealthy_after", written.unhealthy_after.as_ref().map(|it| it.place)),
        ("healthy_after", written.healthy_after.as_ref().map(|it| it.place)),
    ];
    let of_host = [("host", written.host.as_ref().map(|it| it.place))];
    let mut report = |keys: &[(&str, Option<Place>)], needs: &str| {
        for (key, place) in keys.iter().filter_map(|(key, place)| Some((key, (*place)?))) {
            let problem = Problem::new(place, format!("`{key}` belongs to a check by {needs}, and there is none"));
            problems.push(problem.with_hint("add `path: /health`, or drop it"));
        }
    };
    if kind != Some("path") {
        report(&of_http, "`path`");
    }
    if !matches!(kind, Some("path" | "grpc")) {
        report(&of_host, "`path` or `grpc`");
    }
    if kind.is_none() {
        report(&of_any, "`path`, `tcp` or `grpc`");
    }
}

fn http(path: &Located<String>, written: &config::Health, problems: &mut Vec<Problem>) -> Option<HttpAsk> {
    let found = PathAndQuery::try_from(path.value.as_str()).ok().filter(|_| path.value.starts_with('/'));
    if found.is_none() {
        let problem = Problem::new(path.place, format!("`{}` is no path", path.value));
        problems.push(problem.with_hint("write /health"));
    }
    let method = written.method.as_ref().and_then(|method| {
        let found = Method::from_bytes(method.value.as_bytes()).ok();
        let found = found.filter(|found| *found != Method::CONNECT && method.value == method.value.to_uppercase());
        if found.is_none() {
            let problem = Problem::new(method.place, format!("`{}` is no method to check with", method.value));
            problems.push(problem.with_hint("write GET or HEAD"));
        }
        found
    });
    if let Some(status) = written.status.as_ref().filter(|status| status.is_empty()) {
        let problem = Problem::new(status.place, "no status would be that of a healthy target");
        problems.push(problem.with_hint("write [200], or [\"200-399\"]"));
    }
    let statuses = written.status.as_ref().map(|status| status.value.clone());
    let (host, fields) = (host(written, problems), fields(written, problems));
    let body = written.body.as_ref().and_then(|body| body_is(body, problems));
    Some(HttpAsk {
        method: method.unwrap_or(Method::GET),
        path: found?,
        host,
        fields,
        statuses: statuses.unwrap_or_else(|| vec![Statuses { first: 200, last: 399 }]),
        body,
    })
}

fn body_is(written: &Located<HealthBody>, problems: &mut Vec<Problem>) -> Option<Body> {
    let (pattern, place) = match &written.value {
        HealthBody::Contains(text) => (regex::escape(text), written.place),
        HealthBody::Matches(pattern) => (pattern.value.clone(), pattern.place),
    };
    match RegexBuilder::new(&pattern).size_limit(REGEX_BYTES_MAX).build() {
        Ok(regex) => Some(Body(regex)),
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            problems.push(Problem::new(place, format!("this is no regular expression: {why}")));
            None
        }
    }
}

fn host(written: &config::Health, problems: &mut Vec<Problem>) -> Option<HeaderValue> {
    let host = written.host.as_ref()?;
    let found = http::uri::Authority::try_from(host.value.as_str()).ok().filter(|it| !it.as_str().contains('@'));
    if found.is_none() {
        problems.push(Problem::new(host.place, format!("`{}` is no host", host.value)));
    }
    HeaderValue::try_from(found?.as_str()).ok()
}

fn fields(written: &config::Health, problems: &mut Vec<Problem>) -> Vec<(HeaderName, HeaderValue)> {
    const OURS: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "upgrade"];
    let mut fields = Vec::with_capacity(written.headers.len());
    for (name, value) in written.headers.iter() {
        let found = HeaderName::from_bytes(name.value.as_bytes()).ok();
        let Some(found) = found.filter(|found| !OURS.contains(&found.as_str())) else {
            let problem = Problem::new(name.place, format!("`{}` is no field that can be set here", name.value));
            problems.push(problem.with_hint("the Host has a setting of its own: `host`"));
            continue;
        };
        match HeaderValue::try_from(value.expose()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                fields.push((found, value));
            }
            Err(_) => problems.push(Problem::new(value.place, "this is no value of a field")),
        }
    }
    fields
}

fn outliers(written: &Located<config::Outliers>, problems: &mut Vec<Problem>) -> OutlierRules {
    let rate = written.rate.map(|rate| share("rate", rate, problems));
    let latency = written.latency.as_ref().map(|written| latency(written, problems));
    let by_share = rate.is_some() || latency.is_some();
    let alone = [
        ("requests_min", written.requests_min.as_ref().map(|it| it.place)),
        ("window", written.window.as_ref().map(|it| it.place)),
    ];
    for (key, place) in alone.iter().filter(|_| !by_share).filter_map(|(key, place)| Some((key, (*place)?))) {
        let problem = Problem::new(place, format!("`{key}` belongs to `rate` and `latency`, and there is neither"));
        problems.push(problem.with_hint("add `rate: 50%`, or drop it"));
    }
    if let Some(on) = written.on.as_ref().filter(|on| on.is_empty()) {
        problems.push(Problem::new(on.place, "nothing would be a failure").with_hint("write [connect, 503]"));
    }
    let failures = written.failures.map(|it| it.within("failures", 1..=FAILURES_MAX, problems));
    let on = written.on.as_ref().map(|on| on.iter().map(|it| it.value).collect::<Vec<_>>());
    let has = |kind| on.as_ref().is_none_or(|on| on.contains(&kind));
    let statuses = on.as_ref().map(|on| {
        let status = |failure: &OutlierFailure| match failure {
            OutlierFailure::Status(status) => Some(*status),
            OutlierFailure::Connect | OutlierFailure::Timeout | OutlierFailure::Reset => None,
        };
        on.iter().filter_map(status).collect()
    });
    let eject_for =
        written.eject_for.map_or(EJECT_FOR, |it| it.within("eject_for", EJECT_FOR_LEAST..=LONGEST, problems).0);
    let longest = written.eject_for_max.map(|it| it.within("eject_for_max", EJECT_FOR_LEAST..=LONGEST, problems).0);
    if let (Some(longest), Some(written)) = (longest, written.eject_for_max.filter(|it| it.value.0 < eject_for)) {
        let message = format!("`eject_for_max` is {}, less than `eject_for`", Period(longest));
        problems.push(Problem::new(written.place, message));
    }
    OutlierRules {
        failures: failures.or((!by_share).then_some(FAILURES)),
        rate,
        latency,
        requests_min: written
            .requests_min
            .map_or(REQUESTS_MIN, |it| it.within("requests_min", 1..=REQUESTS_MIN_MAX, problems)),
        window: written.window.map_or(WINDOW, |it| it.within("window", WINDOW_LEAST..=LONGEST, problems).0),
        connect: has(OutlierFailure::Connect),
        timeout: has(OutlierFailure::Timeout),
        reset: has(OutlierFailure::Reset),
        statuses: statuses.unwrap_or_else(|| FAILING.to_vec()),
        eject_for,
        eject_for_max: longest.unwrap_or(EJECT_FOR_MAX).max(eject_for),
        ejected_max: written.ejected_max.map_or(HALF, |max| share("ejected_max", max, problems)),
    }
}

fn latency(written: &Located<SlowTargets>, problems: &mut Vec<Problem>) -> Latency {
    if written.over.is_none() && written.times.is_none() {
        let problem = Problem::new(written.place, "nothing says what is slow");
        problems.push(problem.with_hint("add `over: 1s`, `times: 3`, or both"));
    }
    Latency {
        over: written.over.map(|it| it.within("over", LEAST..=LONGEST, problems).0),
        times: written.times.map(|it| it.within("times", 2..=100, problems)),
        share: written.share.map_or(HALF, |it| share("share", it, problems)),
    }
}

fn share(name: &str, written: Located<Percent>, problems: &mut Vec<Problem>) -> u32 {
    let share = written.millionths();
    if share == 0 {
        let problem = Problem::new(written.place, format!("`{name}` of 0% makes no sense"));
        problems.push(problem.with_hint("write 50%"));
    }
    share
}
