//! Why a route won, and why its neighbours did not.

use std::cmp::Reverse;

use super::pattern::{Shape, Step};
use super::{HostPattern, MatchSpec};
use crate::head::{Method, RequestHead};

/// Routes that miss the path by one segment are named as possible typing errors, at most this many.
const NEAR_MAX: usize = 8;

/// A route that [`super::Table::trace`] looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Considered {
    pub route: usize,
    pub won: bool,
    /// In words, such as "method: the route accepts POST, not GET".
    pub why: String,
}

/// How specific a match is; smaller is more specific, and the order of the fields is that of the comparison.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Rank {
    host: HostRank,
    path: Vec<StepRank>,
    conditions: Reverse<usize>,
    any_method: bool,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum HostRank {
    Exact,
    /// By the length of the name behind `*.`.
    Wildcard(Reverse<usize>),
    Any,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum StepRank {
    Literal,
    Parameter,
    End,
    Rest,
}

/// `winner` is the route that the table found.
pub(super) fn trace(
    specs: &[MatchSpec],
    request: &dyn RequestHead,
    method: &Method,
    winner: Option<usize>,
) -> Vec<Considered> {
    let best = winner.and_then(|route| specs.get(route)).and_then(|spec| rank(spec, request));
    let mut ranked = Vec::new();
    let mut near = Vec::new();
    for (route, spec) in specs.iter().enumerate() {
        if let Some(rank) = rank(spec, request) {
            let won = winner == Some(route);
            let why = match refusal(spec, request, method) {
                Some(why) => why,
                None if won => "the most specific route that accepts the request".to_owned(),
                None => outranked(&rank, best.as_ref()),
            };
            ranked.push((!won, rank, Considered { route, won, why }));
        } else if let Some(why) = near_miss(spec, request) {
            near.push(Considered { route, won: false, why });
        }
    }
    ranked.sort_by(|one, two| (one.0, &one.1, one.2.route).cmp(&(two.0, &two.1, two.2.route)));
    near.truncate(NEAR_MAX);
    ranked.into_iter().map(|(_, _, considered)| considered).chain(near).collect()
}

/// Why a route whose host and path match does not take the request.
fn refusal(spec: &MatchSpec, request: &dyn RequestHead, method: &Method) -> Option<String> {
    if !spec.path.shapes().any(|shape| path_rank(shape, request.path()).is_some() && slash_fits(spec, shape, request)) {
        let wanted = if spec.path.ends_with_slash() { "with" } else { "without" };
        return Some(format!("slash: `{}` is strict and ends {wanted} a slash", spec.path));
    }
    if !spec.methods.is_empty() && !spec.methods.contains(method) {
        let names: Vec<&str> = spec.methods.iter().map(Method::as_str).collect();
        return Some(format!("method: the route accepts {}, not {method}", names.join(", ")));
    }
    spec.conditions().failing(request)
}

fn slash_fits(spec: &MatchSpec, shape: Shape<'_>, request: &dyn RequestHead) -> bool {
    spec.slash(shape).is_none_or(|slash| slash == request.path().ends_with('/'))
}

fn outranked(rank: &Rank, best: Option<&Rank>) -> String {
    let Some(best) = best else {
        return "no route was chosen: the path is over a limit".to_owned();
    };
    let by = if rank.host != best.host {
        "its host is more specific"
    } else if rank.path != best.path {
        "its path is more specific"
    } else if rank.conditions != best.conditions {
        "it has more header and query conditions"
    } else {
        "it names the method"
    };
    format!("less specific than the chosen route: {by}")
}

/// `None` when host or path do not match.
fn rank(spec: &MatchSpec, request: &dyn RequestHead) -> Option<Rank> {
    let path = spec.path.shapes().filter_map(|shape| path_rank(shape, request.path())).min()?;
    Some(Rank {
        host: host_rank(&spec.hosts, request.host())?,
        path,
        conditions: Reverse(spec.conditions().count()),
        any_method: spec.methods.is_empty(),
    })
}

fn host_rank(hosts: &[HostPattern], host: &str) -> Option<HostRank> {
    if hosts.is_empty() {
        return Some(HostRank::Any);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let ranks = hosts.iter().filter_map(|pattern| match pattern.suffix() {
        None => (pattern.name() == host).then_some(HostRank::Exact),
        Some(suffix) => {
            let front = host.strip_suffix(suffix)?;
            (front.len() > 1 && front.ends_with('.')).then_some(HostRank::Wildcard(Reverse(suffix.len())))
        }
    });
    ranks.min()
}

fn segments(path: &str) -> Vec<&str> {
    let body = path.strip_prefix('/').unwrap_or(path);
    let body = body.strip_suffix('/').unwrap_or(body);
    if body.is_empty() { Vec::new() } else { body.split('/').collect() }
}

fn path_rank(shape: Shape<'_>, path: &str) -> Option<Vec<StepRank>> {
    let segments = segments(path);
    if segments.len() < shape.steps.len() || (!shape.rest && segments.len() > shape.steps.len()) {
        return None;
    }
    let steps = shape.steps.iter().zip(segments).map(|(step, segment)| match step {
        Step::Literal(text) => (**text == *segment).then_some(StepRank::Literal),
        Step::Parameter => (!segment.is_empty()).then_some(StepRank::Parameter),
    });
    let end = if shape.rest { StepRank::Rest } else { StepRank::End };
    steps.chain([Some(end)]).collect()
}

/// Why a route does not match, when it is close enough to be the one that was meant.
fn near_miss(spec: &MatchSpec, request: &dyn RequestHead) -> Option<String> {
    let path = request.path();
    if spec.path.shapes().any(|shape| path_rank(shape, path).is_some()) {
        let hosts: Vec<String> = spec.hosts.iter().map(ToString::to_string).collect();
        return Some(format!("host: the route is for {}, not `{}`", hosts.join(", "), request.host()));
    }
    host_rank(&spec.hosts, request.host())?;
    let segments = segments(path);
    let differs = |step: &Step, segment: &str| matches!(step, Step::Literal(text) if **text != *segment);
    let one_off = spec.path.shapes().any(|shape| {
        let reachable = segments.len() == shape.steps.len() || (shape.rest && segments.len() > shape.steps.len());
        // With a single segment, "one differs" says nothing.
        let pairs = || shape.steps.iter().zip(&segments);
        reachable && shape.steps.len() > 1 && pairs().filter(|(step, segment)| differs(step, segment)).count() == 1
    });
    one_off.then(|| format!("path: `{}` differs in one segment", spec.path))
}
