//! From `match` as it is written to what the route table takes.

use http::HeaderName;

use crate::config::{Condition, Match, Route, TrailingSlash};
use crate::head::Method;
use crate::route::{self, HostPattern, MatchSpec, PathPattern, ValueMatch};
use crate::yaml::{Located, Named, Node, Place, Problem, decode};

/// Reads both forms of `match`; mistakes go to `problems`.
pub fn spec(route: &Route, problems: &mut Vec<Problem>) -> Option<MatchSpec> {
    let before = problems.len();
    let spec = match route.matches.as_str() {
        Some(text) => short(text, route, problems),
        None => match decode::<Match>(&route.matches) {
            Ok(written) => long(&written, route, problems),
            Err(found) => {
                problems.extend(found);
                None
            }
        },
    };
    spec.filter(|_| problems.len() == before)
}

/// `GET /path`, `GET,POST /path` or `/path`.
fn short(text: &str, route: &Route, problems: &mut Vec<Problem>) -> Option<MatchSpec> {
    let place = route.matches.place;
    let (methods, path) = match text.trim().rsplit_once(char::is_whitespace) {
        Some((methods, path)) => (methods.trim(), path),
        None => ("", text.trim()),
    };
    let methods = methods.split(',').map(str::trim).filter(|method| !method.is_empty());
    let methods = methods.filter_map(|name| method(name, place, problems)).collect();
    Some(MatchSpec {
        hosts: Vec::new(),
        methods,
        path: path_pattern(path, place, problems)?,
        trailing_slash: trailing_slash(route),
        headers: Vec::new(),
        query: Vec::new(),
    })
}

fn long(written: &Match, route: &Route, problems: &mut Vec<Problem>) -> Option<MatchSpec> {
    let path = path_pattern(&written.path, written.path.place, problems);
    let mut hosts = Vec::new();
    for host in &written.hosts {
        match HostPattern::parse(host) {
            Ok(pattern) => hosts.push(pattern),
            Err(message) => problems.push(Problem::new(host.place, message)),
        }
    }
    let methods = written.methods.iter().filter_map(|name| method(name, name.place, problems)).collect();
    let mut headers = Vec::new();
    for (name, value) in conditions(&written.headers, problems) {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(header) => headers.push((header, value)),
            Err(_) => problems.push(Problem::new(name.place, format!("`{}` is no header name", name.value))),
        }
    }
    let query = conditions(&written.query, problems).into_iter().map(|(name, value)| (name.value, value)).collect();
    Some(MatchSpec { hosts, methods, path: path?, trailing_slash: trailing_slash(route), headers, query })
}

fn trailing_slash(route: &Route) -> route::TrailingSlash {
    match route.trailing_slash {
        TrailingSlash::Ignore => route::TrailingSlash::Ignore,
        TrailingSlash::Strict => route::TrailingSlash::Strict,
    }
}

fn path_pattern(text: &str, place: Place, problems: &mut Vec<Problem>) -> Option<PathPattern> {
    PathPattern::parse(text).map_err(|message| problems.push(Problem::new(place, message))).ok()
}

/// A method name. They are case-sensitive (RFC 9110 §9.1), so a lower-case one is a mistake that would match nothing.
fn method(name: &str, place: Place, problems: &mut Vec<Problem>) -> Option<Method> {
    let upper = name.to_ascii_uppercase();
    let problem = match Method::from_bytes(name.as_bytes()) {
        Ok(_) if name != upper => {
            Problem::new(place, format!("method `{name}` is not in upper case")).with_hint(format!("write {upper}"))
        }
        Ok(Method::CONNECT) => Problem::new(place, "a gateway does not offer CONNECT"),
        Ok(method) => return Some(method),
        Err(_) => Problem::new(place, format!("`{name}` is no method")),
    };
    problems.push(problem);
    None
}

fn conditions(written: &Named<Node>, problems: &mut Vec<Problem>) -> Vec<(Located<String>, ValueMatch)> {
    let mut conditions = Vec::new();
    for (name, node) in written.iter() {
        let condition = match node.as_str() {
            Some(text) => Ok(ValueMatch::Exact(text.to_owned())),
            None => decode::<Condition>(node).and_then(|condition| match condition {
                Condition::Present(true) => Ok(ValueMatch::Present),
                Condition::Present(false) => Ok(ValueMatch::Absent),
                Condition::Regex(pattern) => {
                    ValueMatch::regex(&pattern).map_err(|message| vec![Problem::new(pattern.place, message)])
                }
            }),
        };
        match condition {
            Ok(condition) => conditions.push((name.clone(), condition)),
            Err(found) => problems.extend(found),
        }
    }
    conditions
}
