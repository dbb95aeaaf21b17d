//! The table against a matcher so plain that it can be checked by eye: it looks at every route.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::route::pattern::Step;

/// Smaller is more specific.
type Rank = (usize, Vec<u8>, usize, bool);

enum Verdict {
    Accepts(Rank),
    OtherMethod,
    No,
}

fn host_rank(pattern: &HostPattern, host: &str) -> Option<usize> {
    let text = pattern.to_string();
    match text.strip_prefix('*') {
        None => (text == host).then_some(0),
        Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then(|| 1_000 - suffix.len()),
    }
}

fn path_rank(steps: &[Step], rest: bool, segments: &[&str]) -> Option<Vec<u8>> {
    match (steps.split_first(), segments.split_first()) {
        (None, None) => Some(vec![if rest { 3 } else { 2 }]),
        (None, Some(_)) => rest.then(|| vec![3]),
        (Some(_), None) => None,
        (Some((step, steps)), Some((segment, segments))) => {
            let first = match step {
                Step::Literal(text) if **text == **segment => 0,
                Step::Literal(_) => return None,
                Step::Parameter => 1,
            };
            let mut rank = path_rank(steps, rest, segments)?;
            rank.insert(0, first);
            Some(rank)
        }
    }
}

fn accepts(wanted: &ValueMatch, value: Option<&str>) -> bool {
    match wanted {
        ValueMatch::Present => value.is_some(),
        ValueMatch::Absent => value.is_none(),
        ValueMatch::Exact(text) => value == Some(text),
        ValueMatch::Regex(regex) => value.is_some_and(|value| regex.is_match(value)),
    }
}

fn judge(spec: &MatchSpec, request: &RequestBuf) -> Verdict {
    let host = match spec.hosts.iter().filter_map(|pattern| host_rank(pattern, &request.host)).min() {
        Some(rank) => rank,
        None if spec.hosts.is_empty() => 1_001,
        None => return Verdict::No,
    };
    let segments: Vec<&str> = request.path.split('/').filter(|segment| !segment.is_empty()).collect();
    let slash = |shape: &Shape<'_>| {
        spec.trailing_slash == TrailingSlash::Ignore
            || shape.rest
            || shape.steps.is_empty()
            || spec.path.to_string().ends_with('/') == request.path.ends_with('/')
    };
    let shapes = spec.path.shapes().filter(slash);
    let Some(path) = shapes.filter_map(|shape| path_rank(shape.steps, shape.rest, &segments)).min() else {
        return Verdict::No;
    };
    let query = |name: &str| crate::head::query_parameter(request.query.as_deref(), name);
    if !spec.headers.iter().all(|(name, wanted)| accepts(wanted, request.text(name)))
        || !spec.query.iter().all(|(name, wanted)| accepts(wanted, query(name)))
    {
        return Verdict::No;
    }
    if !spec.methods.is_empty() && !spec.methods.contains(&request.method) {
        return Verdict::OtherMethod;
    }
    Verdict::Accepts((host, path, 100 - spec.headers.len() - spec.query.len(), spec.methods.is_empty()))
}

/// The answer, and whether more than one route has the best rank.
fn reference(specs: &[MatchSpec], request: &RequestBuf) -> (Found, bool) {
    let mut best: Option<(Rank, usize)> = None;
    let mut tied = false;
    let mut allow = BTreeSet::new();
    for (route, spec) in specs.iter().enumerate() {
        match judge(spec, request) {
            Verdict::No => {}
            Verdict::OtherMethod => allow.extend(spec.methods.iter().map(Method::as_str)),
            Verdict::Accepts(rank) => match &best {
                Some((other, _)) if *other < rank => {}
                Some((other, _)) if *other == rank => tied = true,
                _ => (best, tied) = (Some((rank, route)), false),
            },
        }
    }
    let found = match best {
        Some((_, route)) => Found::Route(route),
        None if allow.is_empty() => Found::NotFound,
        None => Found::MethodNotAllowed(allow.into_iter().collect::<Vec<_>>().join(", ")),
    };
    (found, tied)
}

fn value_match() -> impl Strategy<Value = ValueMatch> {
    let regex = || ValueMatch::regex("[1-2]").unwrap();
    select(vec![ValueMatch::Present, ValueMatch::Absent, exact("1"), exact("2"), exact("3"), regex()])
}

fn any_path() -> impl Strategy<Value = String> {
    let segments = proptest::collection::vec(select(vec!["a", "b", "{}"]), 0..4);
    (segments, select(vec!["", "", "{}", "{t?}", "{*t}"]), any::<bool>()).prop_map(|(segments, tail, slash)| {
        let mut path = String::new();
        for (index, segment) in segments.into_iter().chain((!tail.is_empty()).then_some(tail)).enumerate() {
            let named = format!("{{p{index}}}");
            path.push('/');
            path.push_str(if segment == "{}" { &named } else { segment });
        }
        if path.is_empty() || (slash && tail != "{*t}") {
            path.push('/');
        }
        path
    })
}

fn any_spec() -> impl Strategy<Value = MatchSpec> {
    let hosts = subsequence(vec!["x.b.c", "b.c", "*.c", "*.b.c"], 0..2);
    let methods = subsequence(vec!["GET", "PUT", "PURGE"], 0..3);
    let headers = proptest::collection::vec((select(vec!["x-k", "x-l"]), value_match()), 0..2);
    let query = proptest::collection::vec((select(vec!["k", "l"]), value_match()), 0..2);
    (hosts, methods, any_path(), any::<bool>(), headers, query).prop_map(
        |(hosts, methods, path, strict, headers, query)| {
            let mut spec = spec(&path);
            spec = hosts.into_iter().fold(spec, MatchSpec::host);
            spec = methods.into_iter().fold(spec, MatchSpec::method);
            spec = headers.into_iter().fold(spec, |spec, (name, value)| spec.header(name, value));
            spec = query.into_iter().fold(spec, |spec, (name, value)| spec.query(name, value));
            if strict { spec.strict() } else { spec }
        },
    )
}

fn any_request() -> impl Strategy<Value = RequestBuf> {
    let path = proptest::collection::vec(select(vec!["a", "b", "c"]), 0..5);
    let host = select(vec!["", "c", "b.c", "x.b.c", "y.b.c", "z.y.b.c", "q.c"]);
    let method = select(vec!["GET", "PUT", "PURGE", "POST"]);
    let header = proptest::option::of((select(vec!["x-k", "x-l"]), select(vec!["1", "2", "3"])));
    let query = select(vec!["", "?k=1", "?l=2", "?k=3&l=1", "?k=2&k=1"]);
    (host, method, path, any::<bool>(), header, query).prop_map(|(host, method, path, slash, header, query)| {
        let end = if slash && !path.is_empty() { "/" } else { "" };
        let mut request = at(host, &format!("/{}{end}{query}", path.join("/")));
        request.method = method.parse().unwrap();
        if let Some((name, value)) = header {
            request.append(&HeaderName::from_static(name), crate::head::HeaderValue::from_static(value));
        }
        request
    })
}

/// Drops routes until none tie.
fn without_ties(mut specs: Vec<MatchSpec>) -> (Vec<MatchSpec>, Table) {
    loop {
        match Table::build(specs.clone()) {
            Ok(table) => return (specs, table),
            Err(ties) => {
                let doomed: BTreeSet<usize> = ties.iter().map(|tie| tie.second).collect();
                let kept = specs.into_iter().enumerate().filter(|(route, _)| !doomed.contains(route));
                specs = kept.map(|(_, spec)| spec).collect();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_table_agrees_with_the_reference(
        specs in proptest::collection::vec(any_spec(), 0..30),
        requests in proptest::collection::vec(any_request(), 30),
    ) {
        let (specs, table) = without_ties(specs);
        for request in &requests {
            let (wanted, tied) = reference(&specs, request);
            prop_assert!(!tied, "an undetected tie for {request:?}");
            prop_assert_eq!(find(&table, request), wanted.clone(), "{:?}", request);
            let trace = table.trace(request, &request.method);
            let winner = trace.iter().find(|considered| considered.won).map(|considered| considered.route);
            let wanted = match wanted {
                Found::Route(route) => Some(route),
                Found::MethodNotAllowed(_) | Found::NotFound => None,
            };
            prop_assert_eq!(winner, wanted);
            prop_assert!(trace.iter().all(|considered| !considered.why.starts_with("no route")), "{:?}", trace);
        }
    }

    #[test]
    fn captures_are_segments_of_the_path(path in any_path(), request in any_request()) {
        let table = table(vec![spec(&path)]);
        let mut captures = Captures::default();
        if table.find(&request, &Method::GET, &mut captures) == Found::Route(0) {
            let mut built = path.clone();
            for (index, name) in table.parameters(0).iter().enumerate() {
                let value = captures.get(index, &request.path).unwrap_or_default();
                for form in [format!("{{{name}}}"), format!("{{{name}?}}"), format!("{{*{name}}}")] {
                    built = built.replace(&form, value);
                }
            }
            prop_assert_eq!(built.trim_end_matches('/'), request.path.trim_end_matches('/'));
        }
    }
}
