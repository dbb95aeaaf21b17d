//! Where a route finds its upstream: always the same one, or one whose targets come and go.
//!
//! A request takes the [`Upstream`] of a [`Slot`] once, when it enters, and keeps it to its end: what a discovery changes
//! meanwhile is for the requests behind it. A change compiles this one upstream anew, away from the threads that serve
//! requests, with everything its targets were.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::discovery::{Discovery, Endpoint, Settings, Source};
use super::{Tls, Upstream, resolve_new};
use crate::config;
use crate::config::load::Attached;
use crate::observe::metrics::Metrics;
use crate::yaml::{Located, Problem};

/// How long a changed set waits for the addresses of names that are new in it.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(2);

/// What upstreams are compiled with.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    pub metrics: &'a Arc<Metrics>,
    pub discovery: &'a Discovery,
    /// The folder of `gateway.yaml`.
    pub base: &'a Path,
    /// What certificates and keys name.
    pub files: &'a Attached,
}

/// The place of an upstream in a snapshot.
pub struct Slot {
    pub name: Arc<str>,
    held: Held,
}

enum Held {
    Fixed(Arc<Upstream>),
    Found(Box<Found>),
}

/// An upstream whose targets are found.
struct Found {
    current: ArcSwap<Upstream>,
    source: Arc<Source>,
    name: Located<String>,
    written: config::Upstream,
    metrics: Arc<Metrics>,
    /// Those of its own TLS.
    files: Attached,
    /// What was found when the set was made. Held while it is exchanged.
    taken: Mutex<Option<Arc<[Endpoint]>>>,
}

impl Slot {
    /// Compiles `written`; takes over `previous` when nothing changed.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(
        name: &Located<String>,
        written: &config::Upstream,
        previous: Option<&Arc<Self>>,
        around: Around<'_>,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let mut problems = Vec::new();
        let settings = written.discovery.as_ref();
        let settings = settings.and_then(|written| Settings::check(name, written, around.base, &mut problems));
        let source = settings.and_then(|settings| around.discovery.source(settings, &mut problems));
        let before = previous.map(|previous| previous.load());
        let taken = source.as_ref().and_then(|source| source.endpoints());
        let passed_on = |source: &Arc<Source>| previous?.source()?.passed_on_to(source);
        let full = source.as_ref().map(|source| {
            let known = taken.clone().or_else(|| passed_on(source));
            with(name, written, &known.unwrap_or_default())
        });
        let compiled =
            Upstream::compile(name, full.as_ref().unwrap_or(written), before.as_ref(), around.metrics, around.files);
        let upstream = match compiled {
            Ok(upstream) if problems.is_empty() => upstream,
            compiled => {
                problems.extend(compiled.err().unwrap_or_default());
                return Err(problems);
            }
        };
        let same_source = |previous: &&Arc<Self>| match (previous.source(), &source) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        let is_same = before.is_some_and(|before| Arc::ptr_eq(&before, &upstream));
        if let Some(previous) = previous.filter(|_| is_same).filter(same_source) {
            return Ok(Arc::clone(previous));
        }
        let own_name = Arc::clone(&upstream.name);
        let Some(source) = source else {
            return Ok(Arc::new(Self { name: own_name, held: Held::Fixed(upstream) }));
        };
        let found = Found {
            current: ArcSwap::new(upstream),
            source: Arc::clone(&source),
            name: name.clone(),
            written: written.clone(),
            metrics: Arc::clone(around.metrics),
            files: own_files(written, around.files),
            taken: Mutex::new(taken),
        };
        let slot = Arc::new(Self { name: own_name, held: Held::Found(Box::new(found)) });
        source.tell(&slot);
        Ok(slot)
    }

    /// The upstream with the targets that it has now. Ask once for each request, and keep it.
    pub fn load(&self) -> Arc<Upstream> {
        match &self.held {
            Held::Fixed(upstream) => Arc::clone(upstream),
            Held::Found(found) => found.current.load_full(),
        }
    }

    /// Where its targets come from, if they are found.
    pub fn source(&self) -> Option<&Arc<Source>> {
        match &self.held {
            Held::Fixed(_) => None,
            Held::Found(found) => Some(&found.source),
        }
    }

    /// Takes the targets that its source has found. Where they are those in use nothing changes.
    pub(super) async fn follow(self: Arc<Self>) {
        let Held::Found(found) = &self.held else { return };
        let mut taken = found.taken.lock().await;
        let Some(endpoints) = found.source.endpoints() else { return };
        if taken.as_ref().is_some_and(|taken| Arc::ptr_eq(taken, &endpoints)) {
            return;
        }
        let before = found.current.load_full();
        match self.compiled(&endpoints, &before).await {
            Err(why) => warn!(upstream = &*self.name, why, "the targets found cannot be used; those in use stay"),
            Ok(upstream) if Arc::ptr_eq(&upstream, &before) => {}
            Ok(upstream) => {
                resolve_new(std::iter::once(Arc::clone(&upstream)), RESOLVE_PATIENCE).await;
                let (added, removed) = (new_in(&upstream, &before), new_in(&before, &upstream));
                let targets = upstream.targets().len();
                found.current.store(upstream);
                info!(upstream = &*self.name, targets, added, removed, "the targets changed");
            }
        }
        // Last: whoever waited for this and was dropped has taken nothing.
        *taken = Some(endpoints);
    }

    /// The upstream with these targets, compiled where nobody waits for the thread.
    async fn compiled(
        self: &Arc<Self>,
        endpoints: &Arc<[Endpoint]>,
        before: &Arc<Upstream>,
    ) -> Result<Arc<Upstream>, String> {
        let (slot, endpoints, before) = (Arc::clone(self), Arc::clone(endpoints), Arc::clone(before));
        let compile = move || match &slot.held {
            Held::Fixed(upstream) => Ok(Arc::clone(upstream)),
            Held::Found(found) => found.compile(&endpoints, &before),
        };
        match tokio::task::spawn_blocking(compile).await {
            Ok(compiled) => {
                compiled.map_err(|problems| problems.first().map(|problem| problem.message.clone()).unwrap_or_default())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Takes what was found while these were being made: until then nobody could tell them.
pub async fn catch_up(slots: &[Arc<Slot>]) {
    for slot in slots {
        Arc::clone(slot).follow().await;
    }
}

impl Found {
    fn compile(&self, endpoints: &[Endpoint], previous: &Arc<Upstream>) -> Result<Arc<Upstream>, Vec<Problem>> {
        let full = with(&self.name, &self.written, endpoints);
        Upstream::compile(&self.name, &full, Some(previous), &self.metrics, &self.files)
    }
}

/// The certificates and keys that `written` names.
fn own_files(written: &config::Upstream, files: &Attached) -> Attached {
    let names = written.tls.iter().flat_map(config::UpstreamTls::files);
    names.filter_map(|name| files.get_key_value(&name.value)).map(|(name, file)| (name.clone(), file.clone())).collect()
}

/// How many targets of `one` are not in `other`.
fn new_in(one: &Upstream, other: &Upstream) -> usize {
    let known: std::collections::HashSet<&str> = other.targets().iter().map(|target| &*target.label).collect();
    one.targets().iter().filter(|target| !known.contains(&*target.label)).count()
}

/// What is written, with the targets that were found besides. One that is written out is as it is written. One that no
/// certificate can be for is left out: it must not take the others with it.
fn with(name: &Located<String>, written: &config::Upstream, endpoints: &[Endpoint]) -> config::Upstream {
    let mut full = written.clone();
    let place = full.targets.place;
    let fixed: Vec<&str> = written.targets.iter().map(|target| target.address.value.as_str()).collect();
    let by_address = Tls::goes_by_address(written);
    let usable = |endpoint: &&Endpoint| {
        let usable = !by_address || Tls::can_be_at(&endpoint.address);
        if !usable {
            let (upstream, address) = (&name.value, &endpoint.address);
            warn!(upstream, %address, "no certificate can be for a target that was found: it is left out; write `server_name`");
        }
        usable
    };
    let found = endpoints.iter().filter(|endpoint| !fixed.contains(&&*endpoint.address)).filter(usable);
    full.targets.value.extend(found.map(|endpoint| config::Target {
        address: Located::new(endpoint.address.to_string(), place),
        weight: Some(Located::new(endpoint.weight, place)),
        backup: endpoint.backup,
        in_flight_max: endpoint.in_flight_max.map(|max| Located::new(max, place)),
    }));
    full.targets.value.truncate(super::spec::TARGETS_MAX);
    full
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Sources, decode, parse};

    #[test]
    fn a_target_that_no_certificate_can_be_for_takes_no_other_with_it() {
        let found = ["a.test:443", "a_b.test:443", "10.0.0.1:443"].map(Endpoint::new);
        for (tls, expected) in [("true", 2), ("false", 3), ("{ server_name: a.test }", 3), ("{ verify: off }", 2)] {
            let mut sources = Sources::new();
            let file = sources.add("gateway.yaml", format!("discovery: {{ file: a.yaml }}\ntls: {tls}\n"));
            let written: config::Upstream = decode(&parse(&sources, file).unwrap()).unwrap();
            let name = Located::new("main".to_owned(), written.targets.place);
            let full = with(&name, &written, &found);
            assert_eq!(full.targets.len(), expected, "{tls}");
            let metrics = Metrics::new(1000);
            assert!(Upstream::compile(&name, &full, None, &metrics, &Attached::new()).is_ok(), "{tls}");
        }
    }
}
