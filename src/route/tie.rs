//! Pairs of routes of which neither is more specific.

use std::collections::BTreeMap;

use super::MatchSpec;
use super::trie::Candidate;

/// Two routes that one request could match with equal rank.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tie {
    /// Index of the route written first.
    pub first: usize,
    pub second: usize,
    /// What they share, and how to part them.
    pub why: String,
}

/// `places` are the candidates that share host and shape, sorted by rank: only those can tie, so the work grows with
/// the square of the largest place, not of all routes.
pub(super) fn ties<'a>(specs: &[MatchSpec], places: impl Iterator<Item = &'a [Candidate]>) -> Vec<Tie> {
    let mut found = BTreeMap::new();
    for place in places {
        for equals in place.chunk_by(|one, two| one.rank() == two.rank()) {
            for (index, second) in equals.iter().enumerate() {
                // One partner is enough: a thousand copies of a route are a thousand errors, not half a million.
                let Some(first) = equals.iter().take(index).find(|first| collide(specs, first, second)) else {
                    continue;
                };
                let pair = (first.route, second.route);
                found.entry(pair).or_insert_with(|| explain(specs, first, second));
            }
        }
    }
    found.into_iter().map(|((first, second), why)| Tie { first, second, why }).collect()
}

fn collide(specs: &[MatchSpec], one: &Candidate, two: &Candidate) -> bool {
    let slash_parts = matches!((one.slash, two.slash), (Some(one), Some(two)) if one != two);
    if slash_parts || !one.methods.overlaps(&two.methods) {
        return false;
    }
    match (specs.get(one.route), specs.get(two.route)) {
        (Some(one), Some(two)) => !one.conditions().exclude(&two.conditions()),
        _ => false,
    }
}

fn explain(specs: &[MatchSpec], one: &Candidate, two: &Candidate) -> String {
    let (Some(first), Some(second)) = (specs.get(one.route), specs.get(two.route)) else {
        return String::new();
    };
    let method = match first.methods.iter().find(|method| two.methods.contains(method)) {
        Some(method) => method.to_string(),
        None => "any method".to_owned(),
    };
    let host = match first.hosts.iter().find(|host| second.hosts.contains(host)) {
        Some(host) => format!("host `{host}`"),
        None => "any host".to_owned(),
    };
    let conditions = match one.conditions {
        0 => String::new(),
        1 => ", each with one header or query condition".to_owned(),
        count => format!(", each with {count} header and query conditions"),
    };
    format!(
        "`{}` and `{}` match the same {method} requests on {host}{conditions}, and neither is more specific; \
         part them by path, host, method, or a header or query condition",
        first.path, second.path
    )
}
