//! From lists of filters as they are written to chains.

use std::collections::HashMap;
use std::sync::Arc;

use crate::chain::Link;
use crate::contract::{BucketUse, Compiler, Findings, Known};
use crate::filters::{self, FILTERS};
use crate::head::HeaderName;
use crate::yaml::{Kind, Located, Node, Place, Problem};

/// A list of filters that is built, and the path parameters its templates need.
#[derive(Clone, Default)]
pub struct Built {
    pub links: Vec<Arc<Link>>,
    pub parameters: Vec<Located<String>>,
    /// Some filter could not be built: what its absence seems to mean is no mistake of its own.
    pub incomplete: bool,
}

/// The named chains, each built once however many routes use it.
pub struct Chains<'a> {
    written: HashMap<&'a str, &'a [Node]>,
    built: HashMap<&'a str, Built>,
    /// Chains that are being built, to find a circle.
    open: Vec<&'a str>,
    known: &'a Known,
    /// Fields that some filter keeps for the gateway.
    guarded: Vec<HeaderName>,
    /// Query parameters that no log shows.
    hidden: Vec<Box<str>>,
    /// In which buckets limits count.
    buckets: Buckets,
}

/// In which buckets limits count.
#[derive(Default)]
pub struct Buckets {
    /// With the name of the filter.
    pub uses: Vec<(&'static str, BucketUse)>,
    /// Names that stand in filters that could not be built.
    pub broken: Vec<String>,
    /// Some entry could not even be read: it may have any bucket.
    pub has_unreadable: bool,
}

/// One entry of a list of filters: `name: settings`, or just `name`.
struct Entry<'a> {
    name: &'a str,
    place: Place,
    settings: Node,
}

impl<'a> Chains<'a> {
    pub fn new(written: impl Iterator<Item = (&'a Located<String>, &'a Vec<Node>)>, known: &'a Known) -> Self {
        let written = written.map(|(name, nodes)| (name.value.as_str(), nodes.as_slice())).collect();
        Self {
            written,
            built: HashMap::new(),
            open: Vec::new(),
            known,
            guarded: Vec::new(),
            hidden: Vec::new(),
            buckets: Buckets::default(),
        }
    }

    /// The fields that filters of all lists built so far keep for the gateway.
    pub fn guarded(&self) -> impl Iterator<Item = &HeaderName> {
        self.guarded.iter()
    }

    /// The query parameters that filters of all lists built so far keep out of logs.
    pub fn hidden(&self) -> impl Iterator<Item = &str> {
        self.hidden.iter().map(|name| &**name)
    }

    /// In which buckets limits of all lists built so far count.
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// Builds every named chain, so that a mistake in one that no route uses is found too.
    pub fn build_all(&mut self, problems: &mut Vec<Problem>) {
        let mut names: Vec<&'a str> = self.written.keys().copied().collect();
        names.sort_unstable();
        for name in names {
            self.named(name, problems);
        }
    }

    /// Builds a list of filters. `via` names the chain it belongs to, `owner` the chain or route it is written in.
    pub fn list(
        &mut self,
        nodes: &'a [Node],
        owner: &str,
        via: Option<&Arc<str>>,
        problems: &mut Vec<Problem>,
    ) -> Built {
        let mut built = Built::default();
        let mut times: HashMap<&str, usize> = HashMap::new();
        for node in nodes {
            let entry = match Entry::read(node) {
                Ok(entry) => entry,
                Err(problem) => {
                    built.incomplete = true;
                    self.buckets.has_unreadable = true;
                    problems.push(problem);
                    continue;
                }
            };
            if entry.name == "use" {
                self.used(node, &entry, &mut built, problems);
                continue;
            }
            match FILTERS.iter().find(|filter| filter.name == entry.name) {
                Some(filter) => {
                    let count = times.entry(filter.name).or_default();
                    *count = count.saturating_add(1);
                    let owner = if *count == 1 { owner.to_owned() } else { format!("{owner}#{count}") };
                    let mut compiler = Compiler::at(entry.place, owner, self.known);
                    let step = (filter.build)(&entry.settings, &mut compiler);
                    let mut findings = compiler.finish();
                    self.buckets.noted(filter.name, findings.shared_bucket.take());
                    let Findings {
                        problems: found,
                        path_parameters,
                        guarded,
                        hidden,
                        calling,
                        bucket,
                        number,
                        limit,
                        ..
                    } = findings;
                    self.guarded.extend(guarded);
                    self.hidden.extend(hidden);
                    problems.extend(without_consequences(found, entry.place));
                    built.parameters.extend(path_parameters);
                    if step.is_none() {
                        built.incomplete = true;
                        self.buckets.broken(&entry.settings);
                    }
                    built.links.extend(step.map(|step| {
                        let link = Link::new(filter.name, entry.place, via.cloned(), step).with_calling(calling);
                        let bucket = bucket.as_ref().map(|bucket| Arc::from(bucket.name.as_str()));
                        Arc::new(link.with_bucket(bucket, number).with_limit(limit))
                    }));
                    self.buckets.noted(filter.name, bucket);
                }
                None => {
                    built.incomplete = true;
                    self.buckets.broken(&entry.settings);
                    let known = filters::names().chain(["use"]);
                    problems.push(Problem::unknown(entry.place, "filter", entry.name, known));
                }
            }
        }
        built
    }

    fn used(&mut self, node: &'a Node, entry: &Entry<'a>, built: &mut Built, problems: &mut Vec<Problem>) {
        let name = match node.entries() {
            [entry] => entry.value.as_str(),
            _ => None,
        };
        let complete_before = !std::mem::replace(&mut built.incomplete, true);
        let Some(name) = name else {
            let problem = Problem::new(entry.settings.place, "`use` takes the name of a chain");
            problems.push(problem.with_hint("write `- use: NAME`"));
            return;
        };
        let place = entry.settings.place;
        let Some((&known, _)) = self.written.get_key_value(name) else {
            problems.push(Problem::unknown(place, "chain", name, self.written.keys().copied()));
            return;
        };
        if self.open.contains(&known) {
            let circle = self.open.join(" → ");
            problems.push(Problem::new(place, format!("chains use each other in a circle: {circle} → {known}")));
            return;
        }
        let chain = self.named(known, problems);
        built.links.extend(chain.links);
        built.parameters.extend(chain.parameters);
        built.incomplete = !complete_before || chain.incomplete;
    }

    fn named(&mut self, name: &'a str, problems: &mut Vec<Problem>) -> Built {
        if let Some(built) = self.built.get(name) {
            return built.clone();
        }
        self.open.push(name);
        let nodes = self.written.get(name).copied().unwrap_or_default();
        let built = self.list(nodes, &format!("chain:{name}"), Some(&Arc::from(name)), problems);
        self.open.pop();
        self.built.insert(name, built.clone());
        built
    }
}

/// What a filter at `place` says of itself as a whole may only follow from a mistake in one of its settings.
fn without_consequences(mut found: Vec<Problem>, place: Place) -> Vec<Problem> {
    if found.iter().any(|problem| problem.place != place) {
        found.retain(|problem| problem.place != place);
    }
    found
}

impl Buckets {
    fn noted(&mut self, filter: &'static str, bucket: Option<BucketUse>) {
        self.uses.extend(bucket.map(|bucket| (filter, bucket)));
    }

    fn broken(&mut self, settings: &Node) {
        let named = settings.entries().iter().find(|entry| *entry.key.text == *"bucket");
        self.broken.extend(named.and_then(|entry| entry.value.as_str()).map(str::to_owned));
    }
}

impl<'a> Entry<'a> {
    fn read(node: &'a Node) -> Result<Self, Problem> {
        if let Some(name) = node.as_str() {
            return Ok(Self { name, place: node.place, settings: Node::new(node.place, Kind::Null) });
        }
        match node.entries() {
            [entry] => Ok(Self { name: &entry.key.text, place: entry.key.place, settings: entry.value.clone() }),
            [first, second, ..] => {
                let message = format!("one entry holds both `{}` and `{}`", first.key.text, second.key.text);
                Err(Problem::new(second.key.place, message)
                    .with_hint("begin each filter with its own `-`; indent the settings of one below its name"))
            }
            [] => {
                Err(Problem::new(node.place, "this is no filter").with_hint("write `- name` or `- name: { settings }`"))
            }
        }
    }
}
