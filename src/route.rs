//! The compiled match table: which route takes a request.
//!
//! The most specific route wins, whatever the order they were written in. Compared are, in this order:
//!
//! 1. the host: exact, longer wildcard, shorter wildcard, any;
//! 2. the path from left to right: literal, parameter, rest;
//! 3. the number of header and query conditions: more first;
//! 4. the method: named, any.
//!
//! A route that does not accept the request is passed over, and the next one is tried. Two routes that a request could
//! match with equal rank are an error ([`Tie`]), so there is never a choice to be made at request time.
//!
//! A lookup costs a hash per path segment, however many routes there are. Methods match by name: `HEAD` is not `GET`.

mod condition;
mod path;
mod pattern;
mod tie;
mod trace;
mod trie;

use std::collections::BTreeSet;

use smallvec::SmallVec;

pub use self::condition::ValueMatch;
pub use self::path::{PathError, normalise};
pub use self::pattern::{HostPattern, PathPattern};
pub use self::tie::Tie;
pub use self::trace::Considered;

use self::condition::Conditions;
use self::pattern::Shape;
use self::trie::{Candidate, Search, Trie};
use crate::head::{HeaderName, Method, RequestHead};

/// Path segments, of a pattern and of a request. A request with more matches no route.
pub const SEGMENTS_MAX: usize = 256;

/// What a request must look like. Empty `hosts` and empty `methods` mean any.
#[derive(Clone, Debug)]
pub struct MatchSpec {
    pub hosts: Vec<HostPattern>,
    pub methods: Vec<Method>,
    pub path: PathPattern,
    pub trailing_slash: TrailingSlash,
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// Names and values are compared with the request's after these are percent-decoded once.
    pub query: Vec<(String, ValueMatch)>,
}

/// What a `/` at the end of a path means. `{*rest}` takes it either way, and `/` alone has just one form.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TrailingSlash {
    /// `/tasks` and `/tasks/` are the same.
    #[default]
    Ignore,
    /// As the pattern is written.
    Strict,
}

/// What [`Table::find`] found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// The index of the route, as given to [`Table::build`].
    Route(usize),
    /// Some routes would take the request with another method: the value of `Allow`, sorted
    /// ([RFC 9110 §10.2.1](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.1)).
    MethodNotAllowed(String),
    NotFound,
}

/// Immutable; shared by all requests of a snapshot.
#[derive(Debug)]
pub struct Table {
    specs: Vec<MatchSpec>,
    trie: Trie,
}

impl Table {
    /// Compiles the routes, or names the pairs of which neither is more specific. A route that ties with several others
    /// in one place is named once there.
    pub fn build(specs: Vec<MatchSpec>) -> Result<Self, Vec<Tie>> {
        let mut trie = Trie::default();
        for (route, spec) in specs.iter().enumerate() {
            for shape in spec.path.shapes() {
                let candidate = spec.candidate(route, shape);
                if spec.hosts.is_empty() {
                    trie.insert(None, shape, candidate);
                    continue;
                }
                for (index, host) in spec.hosts.iter().enumerate() {
                    if !spec.hosts.iter().take(index).any(|earlier| earlier == host) {
                        trie.insert(Some(host), shape, candidate.clone());
                    }
                }
            }
        }
        trie.sort();
        let ties = tie::ties(&specs, trie.places());
        if ties.is_empty() { Ok(Self { specs, trie }) } else { Err(ties) }
    }

    /// The route that takes `request`, as if it came with `method` (which differs from its own when a CORS preflight
    /// asks for another one). `captures` is emptied, and filled when a route is found.
    pub fn find(&self, request: &dyn RequestHead, method: &Method, captures: &mut Captures) -> Found {
        captures.clear();
        let conditions_hold = |route: usize| self.specs.get(route).is_some_and(|spec| spec.conditions().hold(request));
        let Some(mut search) = Search::new(&self.trie, request.path(), method, captures, conditions_hold) else {
            return Found::NotFound;
        };
        let route = if self.trie.knows_hosts() {
            self.trie.roots(request.host()).find_map(|root| search.walk(root, 1))
        } else {
            self.trie.any().and_then(|root| search.walk(root, 1))
        };
        match route {
            Some(route) => Found::Route(route),
            None => search.allowed.header().map_or(Found::NotFound, Found::MethodNotAllowed),
        }
    }

    /// Every route whose host and path match, or nearly do, with the reason why it won or lost; the winner first, then
    /// by specificity. Walks all routes: for people who ask, not for requests.
    pub fn trace(&self, request: &dyn RequestHead, method: &Method) -> Vec<Considered> {
        let winner = match self.find(request, method, &mut Captures::default()) {
            Found::Route(route) => Some(route),
            Found::MethodNotAllowed(_) | Found::NotFound => None,
        };
        trace::trace(&self.specs, request, method, winner)
    }

    /// The names of the parameters of a route, in the order of their [`Captures`]. Empty for an unknown route.
    pub fn parameters(&self, route: usize) -> &[Box<str>] {
        self.specs.get(route).map_or(&[], |spec| spec.path.parameters())
    }
}

impl MatchSpec {
    fn conditions(&self) -> Conditions<'_> {
        Conditions { headers: &self.headers, query: &self.query }
    }

    fn candidate(&self, route: usize, shape: Shape<'_>) -> Candidate {
        Candidate {
            route,
            slash: self.slash(shape),
            methods: MethodSet::of(&self.methods),
            conditions: self.conditions().count(),
        }
    }

    /// How a path of this shape must end; `None` when both will do.
    fn slash(&self, shape: Shape<'_>) -> Option<bool> {
        let matters = self.trailing_slash == TrailingSlash::Strict && !shape.rest && !shape.steps.is_empty();
        matters.then(|| self.path.ends_with_slash())
    }
}

/// What the parameters of the found route stand for: positions in the path that was looked up, so nothing is copied.
#[derive(Clone, Debug, Default)]
pub struct Captures(SmallVec<[(u32, u32); 8]>);

impl Captures {
    /// The text of the parameter number `index` in `path`, which must be the path that was looked up; it is still
    /// percent-encoded. `None` when an optional parameter is missing; a rest of zero segments is empty.
    pub fn get<'p>(&self, index: usize, path: &'p str) -> Option<&'p str> {
        let &(start, end) = self.0.get(index)?;
        path.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn push(&mut self, start: usize, end: usize) {
        // A longer path never gets here: `Search::new` refuses it.
        let position = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.0.push((position(start), position(end)));
    }

    fn pop(&mut self) {
        self.0.pop();
    }
}

/// Methods as bits, with a list for those that only their users know.
#[derive(Clone, Debug)]
struct MethodSet {
    any: bool,
    known: u16,
    others: Vec<Method>,
}

/// The methods that have a bit.
static KNOWN: [Method; 9] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
    Method::CONNECT,
    Method::PATCH,
    Method::TRACE,
];

impl MethodSet {
    fn none() -> Self {
        Self { any: false, known: 0, others: Vec::new() }
    }

    /// No methods mean any.
    fn of(methods: &[Method]) -> Self {
        let mut set = Self { any: methods.is_empty(), ..Self::none() };
        for method in methods {
            match Self::bit(method) {
                0 => set.others.push(method.clone()),
                bit => set.known |= bit,
            }
        }
        set
    }

    fn is_any(&self) -> bool {
        self.any
    }

    fn contains(&self, method: &Method) -> bool {
        self.any || self.known & Self::bit(method) != 0 || self.others.contains(method)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let shares_other = || self.others.iter().any(|method| other.others.contains(method));
        self.any || other.any || self.known & other.known != 0 || shares_other()
    }

    fn add_all(&mut self, other: &Self) {
        self.known |= other.known;
        self.others.extend_from_slice(&other.others);
    }

    /// As the value of a header, sorted; `None` when empty.
    fn header(&self) -> Option<String> {
        let known = KNOWN.iter().filter(|method| self.known & Self::bit(method) != 0);
        let names: BTreeSet<&str> = known.chain(&self.others).map(Method::as_str).collect();
        (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join(", "))
    }

    /// 0 for a method without a bit.
    fn bit(method: &Method) -> u16 {
        KNOWN.iter().position(|known| known == method).map_or(0, |index| 1 << index)
    }
}

#[cfg(test)]
mod tests;
