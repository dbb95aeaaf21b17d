//! The segment tries, one for each host pattern, in one arena.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use smallvec::SmallVec;

use super::pattern::{HOST_BYTES_MAX, HostPattern, Shape, Step};
use super::{Captures, MethodSet, SEGMENTS_MAX};
use crate::head::Method;

/// A map whose keys come from the configuration. A client chooses what is looked up, never what is stored, so it
/// cannot make keys collide, and the hash need not resist that.
type Fixed<V> = HashMap<Key, V, BuildHasherDefault<FoldHasher>>;

/// A segment or a host. Most stand where they are stored: among thousands of routes, each pointer followed is a wait
/// for memory.
type Key = SmallVec<[u8; 16]>;

#[derive(Debug, Default)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    exact: Fixed<usize>,
    /// By what follows `*.`.
    wildcard: Fixed<usize>,
    any: Option<usize>,
}

/// What can follow some segments.
#[derive(Debug, Default)]
pub(super) struct Node {
    literals: Literals,
    parameter: Option<usize>,
    /// Routes whose pattern ends here, best first.
    here: Vec<Candidate>,
    /// Routes whose pattern goes on with `{*rest}`, best first.
    rest: Vec<Candidate>,
}

/// The children by literal segment. Most nodes have none or one, which then needs no table.
#[derive(Debug, Default)]
enum Literals {
    #[default]
    None,
    One(Key, usize),
    Many(Box<Fixed<usize>>),
}

impl Literals {
    fn get(&self, segment: &[u8]) -> Option<usize> {
        match self {
            Self::None => None,
            Self::One(key, child) => (key.as_slice() == segment).then_some(*child),
            Self::Many(children) => children.get(segment).copied(),
        }
    }

    /// The child of `segment`, which becomes `child` when there is none yet.
    fn get_or_insert(&mut self, segment: &[u8], child: usize) -> usize {
        if let Some(existing) = self.get(segment) {
            return existing;
        }
        *self = match std::mem::take(self) {
            Self::None => Self::One(segment.into(), child),
            Self::One(key, first) => {
                Self::Many(Box::new([(key, first), (segment.into(), child)].into_iter().collect()))
            }
            Self::Many(mut children) => {
                children.insert(segment.into(), child);
                Self::Many(children)
            }
        };
        child
    }
}

/// A route at a node: what decides, without a look at the route itself in the plain case.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub route: usize,
    /// How the path must end; `None` when it does not matter.
    pub slash: Option<bool>,
    pub methods: MethodSet,
    /// Header and query conditions.
    pub conditions: usize,
}

impl Candidate {
    /// Smaller is more specific; only candidates of one node compare.
    pub fn rank(&self) -> (std::cmp::Reverse<usize>, bool) {
        (std::cmp::Reverse(self.conditions), self.methods.is_any())
    }
}

impl Trie {
    /// Adds a candidate below `host` (`None` is any host).
    pub fn insert(&mut self, host: Option<&HostPattern>, shape: Shape<'_>, candidate: Candidate) {
        let mut at = self.root(host);
        for step in shape.steps {
            at = self.child(at, step);
        }
        if let Some(node) = self.nodes.get_mut(at) {
            let list = if shape.rest { &mut node.rest } else { &mut node.here };
            list.push(candidate);
        }
    }

    /// Brings the best candidate of each place to the front; call it once, after the last insert.
    pub fn sort(&mut self) {
        for node in &mut self.nodes {
            node.here.sort_by_key(|candidate| (candidate.rank(), candidate.route));
            node.rest.sort_by_key(|candidate| (candidate.rank(), candidate.route));
        }
    }

    /// Candidates that share host and shape, one place after the other.
    pub fn places(&self) -> impl Iterator<Item = &[Candidate]> {
        self.nodes.iter().flat_map(|node| [node.here.as_slice(), node.rest.as_slice()])
    }

    pub fn knows_hosts(&self) -> bool {
        !self.exact.is_empty() || !self.wildcard.is_empty()
    }

    /// The trie for any host.
    pub fn any(&self) -> Option<usize> {
        self.any
    }

    /// The tries to look into for `host`, the most specific first.
    pub fn roots<'a>(&'a self, host: &'a str) -> impl Iterator<Item = usize> + 'a {
        let host = host.strip_suffix('.').unwrap_or(host);
        // A longer one is no name; and each label costs a hash of all that follow it.
        let host = if host.len() > HOST_BYTES_MAX { "" } else { host };
        let labels = if self.wildcard.is_empty() { "" } else { host };
        let dots = labels.match_indices('.').filter(|&(dot, _)| dot > 0);
        let suffixes = dots.filter_map(move |(dot, _)| labels.get(dot.saturating_add(1)..));
        let wildcards = suffixes.filter_map(|suffix| self.wildcard.get(suffix.as_bytes()).copied());
        self.exact.get(host.as_bytes()).copied().into_iter().chain(wildcards).chain(self.any)
    }

    fn root(&mut self, host: Option<&HostPattern>) -> usize {
        let next = self.nodes.len();
        let root = match host {
            None => *self.any.get_or_insert(next),
            Some(host) => match host.suffix() {
                Some(suffix) => *self.wildcard.entry(suffix.as_bytes().into()).or_insert(next),
                None => *self.exact.entry(host.name().as_bytes().into()).or_insert(next),
            },
        };
        self.grow_to(root);
        root
    }

    fn child(&mut self, parent: usize, step: &Step) -> usize {
        let next = self.nodes.len();
        let Some(node) = self.nodes.get_mut(parent) else {
            return next;
        };
        let child = match step {
            Step::Literal(text) => node.literals.get_or_insert(text.as_bytes(), next),
            Step::Parameter => *node.parameter.get_or_insert(next),
        };
        self.grow_to(child);
        child
    }

    fn grow_to(&mut self, node: usize) {
        if node == self.nodes.len() {
            self.nodes.push(Node::default());
        }
    }
}

/// One path on its way through the tries. A trie is a tree, so each node is entered at most once per host pattern:
/// a lookup costs at most the nodes that the path's segments can reach, and usually one per segment.
pub(super) struct Search<'a, F> {
    nodes: &'a [Node],
    path: &'a str,
    /// Where the last segment ends, without a final slash.
    end: usize,
    slash: bool,
    method: &'a Method,
    captures: &'a mut Captures,
    /// Whether the header and query conditions of a route hold.
    conditions_hold: F,
    /// Methods of the routes that would have taken the request but for its method.
    pub allowed: MethodSet,
}

impl<'a, F: Fn(usize) -> bool> Search<'a, F> {
    /// `None` when `path` is not one that any pattern could match.
    pub fn new(
        trie: &'a Trie,
        path: &'a str,
        method: &'a Method,
        captures: &'a mut Captures,
        conditions_hold: F,
    ) -> Option<Self> {
        let body = path.strip_prefix('/')?;
        let body = body.strip_suffix('/').unwrap_or(body);
        // One slash less than segments; an empty body is no segment.
        let slashes = body.bytes().filter(|&byte| byte == b'/').count();
        if slashes >= SEGMENTS_MAX || u32::try_from(path.len()).is_err() {
            return None;
        }
        let slash = path.ends_with('/');
        let end = path.len().saturating_sub(usize::from(slash));
        let allowed = MethodSet::none();
        Some(Self { nodes: &trie.nodes, path, end, slash, method, captures, conditions_hold, allowed })
    }

    /// The best route at or below `node` for the segments from byte `at` on, where a segment starts.
    /// Recursion is as deep as the longest pattern, which [`SEGMENTS_MAX`] bounds.
    pub fn walk(&mut self, node: usize, at: usize) -> Option<usize> {
        let node = self.nodes.get(node)?;
        if at > self.end {
            return self.choose(&node.here).or_else(|| self.choose_rest(node, at));
        }
        let segment = self.path.get(at..self.end)?;
        // Byte by byte: segments are short, and a search made for long texts takes its time to begin.
        let first = segment.bytes().position(|byte| byte == b'/').and_then(|slash| segment.get(..slash));
        let segment = first.unwrap_or(segment);
        let next = at.saturating_add(segment.len()).saturating_add(1);
        if let Some(child) = node.literals.get(segment.as_bytes())
            && let Some(route) = self.walk(child, next)
        {
            return Some(route);
        }
        if let Some(child) = node.parameter
            && !segment.is_empty()
        {
            self.captures.push(at, at.saturating_add(segment.len()));
            if let Some(route) = self.walk(child, next) {
                return Some(route);
            }
            self.captures.pop();
        }
        self.choose_rest(node, at)
    }

    fn choose_rest(&mut self, node: &'a Node, at: usize) -> Option<usize> {
        let route = self.choose(&node.rest)?;
        self.captures.push(at.min(self.path.len()), self.path.len());
        Some(route)
    }

    fn choose(&mut self, candidates: &'a [Candidate]) -> Option<usize> {
        for candidate in candidates {
            if candidate.slash.is_some_and(|slash| slash != self.slash) {
                continue;
            }
            if candidate.conditions > 0 && !(self.conditions_hold)(candidate.route) {
                continue;
            }
            if candidate.methods.contains(self.method) {
                return Some(candidate.route);
            }
            self.allowed.add_all(&candidate.methods);
        }
        None
    }
}

/// Eight bytes at a time: rotate, xor, multiply; a folded multiplication at the end spreads the result over all bits.
#[derive(Default)]
struct FoldHasher(u64);

/// 2^64 divided by the golden ratio, odd.
const FOLD: u64 = 0x9e37_79b9_7f4a_7c15;

impl FoldHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(FOLD);
    }
}

impl Hasher for FoldHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        // The length parts a short key from the same key with zero bytes behind it.
        let last = tail.iter().fold(bytes.len() as u64, |last, &byte| last << 8 | u64::from(byte));
        self.add(last);
    }

    fn write_usize(&mut self, _: usize) {
        // The length that a slice puts before its bytes: `write` sees to it.
    }

    fn finish(&self) -> u64 {
        let wide = u128::from(self.0) * u128::from(FOLD);
        (wide as u64) ^ ((wide >> 64) as u64)
    }
}
