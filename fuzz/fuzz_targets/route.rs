//! The match table against a matcher so plain that it can be checked by eye: it looks at every route.
#![no_main]

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tollgate::head::{HeaderName, HeaderValue, Headers, RequestBuf};
use tollgate::route::{Captures, Found, HostPattern, MatchSpec, PathPattern, Table, TrailingSlash, ValueMatch};

/// Few words, so that routes and requests meet; beginnings of each other, so that they can be mixed up.
const WORDS: [&str; 8] = ["a", "b", "ab", "aa", ".a", "a.", "%2A", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"];
const HOSTS: [&str; 6] = ["c", "b.c", "a.b.c", "*.c", "*.b.c", "*.a.b.c"];
const REQUEST_HOSTS: [&str; 9] = ["", "c", "b.c", "a.b.c", "x.c", "x.b.c", "x.a.b.c", "x.x.a.b.c", "xb.c"];
const METHODS: [&str; 4] = ["GET", "PUT", "PURGE", "POST"];
const NAMES: [&str; 2] = ["x-k", "x-l"];
const VALUES: [&str; 3] = ["1", "2", "12"];

/// Compiled once: that takes longer than all the rest.
static REGEX: LazyLock<ValueMatch> = LazyLock::new(|| ValueMatch::regex("1.*").expect("a valid expression"));

#[derive(Arbitrary, Debug)]
struct Input {
    routes: Vec<Route>,
    requests: Vec<Request>,
}

#[derive(Clone, Debug)]
struct Route {
    hosts: BTreeSet<usize>,
    methods: BTreeSet<usize>,
    /// `None`: a parameter.
    segments: Vec<Option<usize>>,
    tail: Tail,
    slash: bool,
    strict: bool,
    headers: Vec<(usize, Condition)>,
    query: Vec<(usize, Condition)>,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Tail {
    End,
    Optional,
    Rest,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Condition {
    Present,
    Absent,
    One,
    Two,
    /// Begins with `1`.
    Regex,
}

#[derive(Debug)]
struct Request {
    host: &'static str,
    method: &'static str,
    words: Vec<usize>,
    slash: bool,
    header: Option<(usize, usize)>,
    query: Vec<(usize, usize)>,
}

fn some<'a, T>(
    u: &mut Unstructured<'a>,
    max: usize,
    one: impl Fn(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=max)?;
    (0..count).map(|_| one(u)).collect()
}

impl<'a> Arbitrary<'a> for Route {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let condition = |u: &mut Unstructured<'a>| Ok((u.choose_index(NAMES.len())?, Condition::arbitrary(u)?));
        Ok(Self {
            hosts: some(u, 2, |u| u.choose_index(HOSTS.len()))?.into_iter().collect(),
            methods: some(u, 2, |u| u.choose_index(METHODS.len()))?.into_iter().collect(),
            segments: some(u, 5, |u| Ok(u.int_in_range(0..=WORDS.len())?.checked_sub(1)))?,
            tail: u.arbitrary()?,
            slash: u.arbitrary()?,
            strict: u.arbitrary()?,
            headers: some(u, 2, condition)?,
            query: some(u, 2, condition)?,
        })
    }
}

impl<'a> Arbitrary<'a> for Request {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let pair = |u: &mut Unstructured<'a>| Ok((u.choose_index(NAMES.len())?, u.choose_index(VALUES.len())?));
        Ok(Self {
            host: u.choose(&REQUEST_HOSTS)?,
            method: u.choose(&METHODS)?,
            words: some(u, 6, |u| u.choose_index(WORDS.len()))?,
            slash: u.arbitrary()?,
            header: if u.arbitrary()? { Some(pair(u)?) } else { None },
            query: some(u, 2, pair)?,
        })
    }
}

fuzz_target!(|input: Input| {
    let (routes, table) = without_ties(input.routes.into_iter().take(40).collect());
    for request in input.requests.iter().take(20) {
        let buffer = request.buffer();
        let mut captures = Captures::default();
        let found = table.find(&buffer, &buffer.method, &mut captures);
        let wanted = reference(&routes, request);
        assert_eq!(found, wanted, "{request:?} in {routes:#?}");

        let trace = table.trace(&buffer, &buffer.method);
        let winners: Vec<usize> = trace.iter().filter(|one| one.won).map(|one| one.route).collect();
        match wanted {
            Found::Route(route) => {
                assert_eq!(winners, [route], "{request:?} in {routes:#?}");
                assert_eq!(rebuilt(&routes[route], &captures, &buffer.path), buffer.path.trim_end_matches('/'));
            }
            Found::MethodNotAllowed(_) | Found::NotFound => assert!(winners.is_empty(), "{trace:?}"),
        }
    }
});

/// Drops routes until none tie.
fn without_ties(mut routes: Vec<Route>) -> (Vec<Route>, Table) {
    loop {
        match Table::build(routes.iter().map(Route::spec).collect()) {
            Ok(table) => return (routes, table),
            Err(ties) => {
                for tie in &ties {
                    let (one, two) = (&routes[tie.first], &routes[tie.second]);
                    assert!(tie.first < tie.second && one.may_tie(two), "no tie: {one:?} and {two:?}");
                }
                let doomed: BTreeSet<usize> = ties.iter().map(|tie| tie.second).collect();
                let kept = routes.into_iter().enumerate().filter(|(index, _)| !doomed.contains(index));
                routes = kept.map(|(_, route)| route).collect();
            }
        }
    }
}

impl Route {
    fn pattern(&self) -> String {
        let mut text = String::new();
        let last = self.segments.len().checked_sub(1).filter(|_| self.tail == Tail::Optional);
        for (index, segment) in self.segments.iter().enumerate() {
            text += &match segment {
                Some(word) if last != Some(index) => format!("/{}", WORDS[*word]),
                Some(_) => format!("/{{p{index}?}}"),
                None if last == Some(index) => format!("/{{p{index}?}}"),
                None => format!("/{{p{index}}}"),
            };
        }
        match self.tail {
            Tail::Rest => text + "/{*rest}",
            _ if self.slash || text.is_empty() => text + "/",
            _ => text,
        }
    }

    fn spec(&self) -> MatchSpec {
        let condition = |condition: &Condition| match condition {
            Condition::Present => ValueMatch::Present,
            Condition::Absent => ValueMatch::Absent,
            Condition::One => ValueMatch::Exact("1".to_owned()),
            Condition::Two => ValueMatch::Exact("2".to_owned()),
            Condition::Regex => REGEX.clone(),
        };
        MatchSpec {
            hosts: self.hosts.iter().map(|host| HostPattern::parse(HOSTS[*host]).expect("a host")).collect(),
            methods: self.methods.iter().map(|method| METHODS[*method].parse().expect("a method")).collect(),
            path: PathPattern::parse(&self.pattern()).expect("a pattern"),
            trailing_slash: if self.strict { TrailingSlash::Strict } else { TrailingSlash::Ignore },
            headers: self
                .headers
                .iter()
                .map(|(name, wanted)| (HeaderName::from_static(NAMES[*name]), condition(wanted)))
                .collect(),
            query: self.query.iter().map(|(name, wanted)| (NAMES[*name].to_owned(), condition(wanted))).collect(),
        }
    }

    /// The ways to fulfil the pattern: segments, and whether more may follow.
    fn shapes(&self) -> Vec<(Vec<Option<usize>>, bool)> {
        let mut whole = self.segments.clone();
        match (self.tail, whole.pop()) {
            (Tail::Optional, Some(_)) => {
                let shorter = whole.clone();
                whole.push(None);
                vec![(whole, false), (shorter, false)]
            }
            (tail, _) => vec![(self.segments.clone(), tail == Tail::Rest)],
        }
    }

    fn condition_count(&self) -> usize {
        self.headers.len() + self.query.len()
    }

    /// What two routes that tie have in common at least.
    fn may_tie(&self, other: &Self) -> bool {
        let any_both = self.hosts.is_empty() && other.hosts.is_empty();
        (any_both || !self.hosts.is_disjoint(&other.hosts))
            && self.condition_count() == other.condition_count()
            && self.methods.is_empty() == other.methods.is_empty()
            && (self.methods.is_empty() || !self.methods.is_disjoint(&other.methods))
            && self.shapes().iter().any(|shape| other.shapes().contains(shape))
    }
}

impl Request {
    fn buffer(&self) -> RequestBuf {
        let mut target: String = self.words.iter().map(|word| format!("/{}", WORDS[*word])).collect();
        if self.slash || self.words.is_empty() {
            target.push('/');
        }
        let pairs: Vec<String> =
            self.query.iter().map(|(name, value)| format!("{}={}", NAMES[*name], VALUES[*value])).collect();
        if !pairs.is_empty() {
            target = format!("{target}?{}", pairs.join("&"));
        }
        let mut buffer = RequestBuf::new(self.method.parse().expect("a method"), &target);
        buffer.host = self.host.to_owned();
        if let Some((name, value)) = self.header {
            buffer.append(&HeaderName::from_static(NAMES[name]), HeaderValue::from_static(VALUES[value]));
        }
        buffer
    }
}

/// Smaller is more specific: host, path from left to right, conditions, method.
type Rank = (usize, Vec<u8>, Reverse<usize>, bool);

fn reference(routes: &[Route], request: &Request) -> Found {
    let mut best: Option<(Rank, usize)> = None;
    let mut allow = BTreeSet::new();
    for (index, route) in routes.iter().enumerate() {
        let Some(rank) = rank(route, request) else { continue };
        let named = route.methods.iter().any(|method| METHODS[*method] == request.method);
        if !named && !route.methods.is_empty() {
            allow.extend(route.methods.iter().map(|method| METHODS[*method]));
            continue;
        }
        if let Some((other, earlier)) = &best {
            assert_ne!(*other, rank, "{earlier} and {index} tie unnoticed for {request:?} in {routes:#?}");
        }
        if best.as_ref().is_none_or(|(other, _)| rank < *other) {
            best = Some((rank, index));
        }
    }
    match best {
        Some((_, route)) => Found::Route(route),
        None if allow.is_empty() => Found::NotFound,
        None => Found::MethodNotAllowed(allow.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// `None` when something other than the method does not fit.
fn rank(route: &Route, request: &Request) -> Option<Rank> {
    let host_rank = |host: &usize| match HOSTS[*host].strip_prefix('*') {
        None => (HOSTS[*host] == request.host).then_some(0),
        Some(suffix) => {
            let longer = request.host.len() > suffix.len();
            (longer && request.host.ends_with(suffix)).then(|| 100 - suffix.len())
        }
    };
    let host = if route.hosts.is_empty() { 100 } else { route.hosts.iter().filter_map(host_rank).min()? };
    let paths = route.shapes().into_iter().filter_map(|(steps, rest)| {
        let end_matters = route.strict && !rest && !steps.is_empty();
        let ends_with_slash = request.slash || request.words.is_empty();
        if end_matters && route.pattern().ends_with('/') != ends_with_slash {
            return None;
        }
        path_rank(&steps, rest, &request.words)
    });
    let path = paths.min()?;
    let header = |name: usize| request.header.filter(|(sent, _)| *sent == name).map(|(_, value)| VALUES[value]);
    let query = |name: usize| request.query.iter().find(|(sent, _)| *sent == name).map(|(_, value)| VALUES[*value]);
    let hold = route.headers.iter().all(|(name, wanted)| holds(*wanted, header(*name)))
        && route.query.iter().all(|(name, wanted)| holds(*wanted, query(*name)));
    hold.then(|| (host, path, Reverse(route.condition_count()), route.methods.is_empty()))
}

fn path_rank(steps: &[Option<usize>], rest: bool, words: &[usize]) -> Option<Vec<u8>> {
    if words.len() < steps.len() || (!rest && words.len() > steps.len()) {
        return None;
    }
    let ranks = steps.iter().zip(words).map(|(step, word)| match step {
        Some(literal) => (literal == word).then_some(0),
        None => Some(1),
    });
    ranks.chain([Some(if rest { 3 } else { 2 })]).collect()
}

fn holds(wanted: Condition, value: Option<&str>) -> bool {
    match wanted {
        Condition::Present => value.is_some(),
        Condition::Absent => value.is_none(),
        Condition::One => value == Some("1"),
        Condition::Two => value == Some("2"),
        Condition::Regex => value.is_some_and(|value| value.starts_with('1')),
    }
}

/// The path as the pattern gives it with the captures put in, without a slash at its end.
fn rebuilt(route: &Route, captures: &Captures, path: &str) -> String {
    let mut text = route.pattern();
    let parameters = route.segments.iter().enumerate();
    let optional = |index: usize| route.tail == Tail::Optional && index + 1 == route.segments.len();
    let named = parameters.filter(|(index, segment)| segment.is_none() || optional(*index));
    let names =
        named.map(|(index, _)| format!("p{index}")).chain((route.tail == Tail::Rest).then(|| "rest".to_owned()));
    for (number, name) in names.enumerate() {
        let value = captures.get(number, path).unwrap_or_default();
        for form in [format!("{{{name}}}"), format!("{{{name}?}}"), format!("{{*{name}}}")] {
            text = text.replace(&form, value);
        }
    }
    text.trim_end_matches('/').to_owned()
}
