//! From a [`Config`] to a [`Gateway`]. Every mistake is reported, not only the first.

mod forward;
mod known;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use known::known;

use super::buckets;
use super::callers;
use super::chains::{Built, Chains};
use super::expectations::{self, Names};
use super::fallbacks::{Fallbacks, fallbacks};
use super::identity::identity;
use super::inboxes::Inboxes;
use super::listeners::listeners;
use super::registry::registry;
use super::{Gateway, Limits, Route, Services, Settings, acme, logs, matching, overload};
use crate::chain::{Chain, Link};
use crate::client::Guarded;
use crate::clock;
use crate::config::load::Config;
use crate::config::{self, Errors};
use crate::context::Context;
use crate::contract::{Compiler, Handler, Known};
use crate::handlers::{self, Action, HANDLERS};
use crate::head::{HeaderName, RequestHead};
use crate::observe::access::Hidden;
use crate::observe::metrics::{LimitMetrics, Metrics};
use crate::reply::{Code, ErrorStyle, Rejection, Reply};
use crate::route::Table;
use crate::state::{Backend, redis};
use crate::upstream::{Around, Slot};
use crate::yaml::{Located, Node, Place, Problem, Sources};

/// Largest request body when nothing is said, in bytes.
const BODY_BYTES_MAX: u64 = 1024 * 1024;
/// How long a service may take to begin its answer when nothing is said.
const TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Pingora reads no request with more fields.
const HEADERS_MAX: u16 = 256;
const THREADS_MAX: u16 = 1024;
/// With fewer buckets of limits, chance would decide which one makes place.
const BUCKETS_LEAST: u32 = 1_000;
/// Room for a body of the default `body_max`.
const BODY_MEMORY_LEAST: u64 = 1024 * 1024;

/// Compiles a configuration. State of `previous` is kept for what did not change.
pub fn compile(
    config: &Config,
    sources: Sources,
    hash: String,
    previous: Option<&Gateway>,
    services: &Services,
) -> Result<Gateway, (Sources, Vec<Problem>)> {
    let metrics = &services.metrics;
    let mut problems = Vec::new();
    let identity = identity(config, &services.identity, &mut problems);
    let mut acme = acme::Compiler::new(&services.acme, config, &mut problems);
    let settings = settings(config, previous, &mut acme, &mut problems);
    metrics.set_series_max(usize::try_from(config.root.metrics.series_max).unwrap_or(usize::MAX));
    let upstreams = upstreams(config, previous, services, &mut problems);
    let known = known(config, &identity, services);
    let mut chains = named_chains(config, &known, &mut problems);
    chains.build_all(&mut problems);
    let defaults = chains.list(&config.root.defaults.filters, "defaults", Some(&Arc::from("defaults")), &mut problems);
    let mut building = Routes {
        config,
        known: &known,
        chains,
        defaults,
        upstreams: &upstreams,
        metrics,
        inboxes: Inboxes::default(),
        guarded: Vec::new(),
        problems,
    };
    let fallback = building.fallback();
    let fallbacks = building.fallbacks();
    let (routes, table) = building.build();
    let Routes { mut problems, chains, inboxes, guarded, .. } = building;
    let inboxes = inboxes.finish(&mut problems);
    let guarded = Guarded::new(chains.guarded().chain(&guarded));
    let hidden = Hidden::new(chains.hidden());
    buckets::check(chains.buckets(), config, &mut problems);
    let tests: Vec<&config::Test> = all(config, |fragment| &fragment.tests, &config.root.tests).collect();
    expectations::check(&tests, &names(config), &mut problems);
    let acme = acme.finish();
    problems.sort_by_key(|problem| problem.place);
    match (table, settings) {
        (Some(table), Some(settings)) if problems.is_empty() => Ok(Gateway {
            settings,
            sources: Arc::new(sources),
            hash,
            loaded_at: clock::wall(),
            tests: tests.into_iter().cloned().collect(),
            guarded,
            hidden,
            identity: Arc::clone(&identity),
            table,
            routes,
            fallback: Arc::new(fallback),
            slots: in_order(config, &upstreams),
            inboxes,
            fallbacks,
            acme,
        }),
        _ => Err((sources, problems)),
    }
}

/// What tests may name.
fn names(config: &Config) -> Names<'_> {
    let upstreams = all(config, |fragment| &fragment.upstreams, &config.root.upstreams);
    Names {
        routes: all(config, |fragment| &fragment.routes, &config.root.routes).map(|route| &*route.name.value).collect(),
        upstreams: upstreams.map(|(name, _)| &*name.value).collect(),
    }
}

/// The items of `gateway.yaml`, then those of the fragments.
pub(super) fn all<'a, T>(
    config: &'a Config,
    of: fn(&'a config::Fragment) -> &'a [T],
    root: &'a [T],
) -> impl Iterator<Item = &'a T> {
    root.iter().chain(config.fragments.iter().flat_map(of))
}

/// Items by name; a name that stands twice is reported.
pub(super) fn unique<'a, T>(
    what: &str,
    items: impl Iterator<Item = (&'a Located<String>, T)>,
    problems: &mut Vec<Problem>,
) -> Vec<(&'a Located<String>, T)> {
    let mut seen: HashMap<&str, Place> = HashMap::new();
    let mut kept = Vec::new();
    for (name, item) in items {
        if let Some(first) = seen.get(name.value.as_str()) {
            problems.push(
                Problem::new(name.place, format!("{what} `{}` is defined twice", name.value))
                    .with_related("first defined", *first),
            );
            continue;
        }
        if let Err(message) = check_name(&name.value) {
            problems.push(Problem::new(name.place, format!("{what} `{}`: {message}", name.value)));
        }
        seen.insert(&name.value, name.place);
        kept.push((name, item));
    }
    kept
}

/// Names end up in logs, metrics and addresses of the admin API.
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 128 {
        return Err("a name has 1 to 128 characters");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err("a name holds letters, digits, `.`, `_` and `-`");
    }
    Ok(())
}

type Upstreams = HashMap<String, Arc<Slot>>;

fn upstreams(
    config: &Config,
    previous: Option<&Gateway>,
    services: &Services,
    problems: &mut Vec<Problem>,
) -> Upstreams {
    let (metrics, discovery) = (&services.metrics, &services.discovery);
    let around = Around { metrics, discovery, base: &config.base, files: &config.attached };
    let written = all(config, |fragment| &fragment.upstreams, &config.root.upstreams);
    let written = unique("upstream", written.map(|(name, upstream)| (name, upstream)), problems);
    let known = previous.map(Gateway::slots).unwrap_or_default();
    let known: HashMap<&str, &Arc<Slot>> = known.iter().map(|upstream| (&*upstream.name, upstream)).collect();
    let mut compiled = Upstreams::new();
    for (name, upstream) in written {
        match Slot::compile(name, upstream, known.get(name.value.as_str()).copied(), around) {
            Ok(upstream) => drop(compiled.insert(name.value.clone(), upstream)),
            Err(found) => problems.extend(found),
        }
    }
    compiled
}

fn in_order(config: &Config, upstreams: &Upstreams) -> Vec<Arc<Slot>> {
    let written = all(config, |fragment| &fragment.upstreams, &config.root.upstreams);
    written.filter_map(|(name, _)| upstreams.get(&name.value).cloned()).collect()
}

fn named_chains<'a>(config: &'a Config, known: &'a Known, problems: &mut Vec<Problem>) -> Chains<'a> {
    let written = all(config, |fragment| &fragment.chains, &config.root.chains);
    let written = unique("chain", written.map(|(name, nodes)| (name, nodes)), problems);
    Chains::new(written.into_iter(), known)
}

/// Routes in the making.
struct Routes<'a> {
    config: &'a Config,
    known: &'a Known,
    chains: Chains<'a>,
    defaults: Built,
    upstreams: &'a Upstreams,
    metrics: &'a Arc<Metrics>,
    inboxes: Inboxes,
    /// Fields that handlers keep for the gateway.
    guarded: Vec<HeaderName>,
    problems: Vec<Problem>,
}

impl<'a> Routes<'a> {
    /// What stands for a route when none matches.
    fn fallback(&self) -> Route {
        let nothing: Arc<dyn Handler> = Arc::new(Nothing);
        Route {
            name: Arc::from("(none)"),
            place: Place::UNKNOWN,
            chain: Chain::new(self.defaults.links.clone()),
            action: Action::Answer(nothing),
            first_byte: TIMEOUT,
            body_bytes_max: self.config.root.defaults.body_max.map_or(BODY_BYTES_MAX, |size| size.0),
            mirror: None,
            priority: None,
            metrics: self.metrics.route("(none)"),
            limits: self.limits("(none)", &self.defaults.links),
            captures: None,
        }
    }

    /// What stands for upstreams whose breakers let nothing through.
    fn fallbacks(&mut self) -> Fallbacks {
        let written = all(self.config, |fragment| &fragment.upstreams, &self.config.root.upstreams);
        let mut missing = Vec::new();
        let found =
            fallbacks(written.map(|(name, upstream)| (name, upstream)), self.known, &mut self.problems, |name| {
                let found = self.upstreams.get(&name.value).cloned();
                if found.is_none() {
                    missing.push(name.clone());
                }
                found
            });
        for name in missing {
            self.upstream(&name.value, name.place);
        }
        found
    }

    fn build(&mut self) -> (Vec<Arc<Route>>, Option<Table>) {
        let written = all(self.config, |fragment| &fragment.routes, &self.config.root.routes);
        let written = unique("route", written.map(|route| (&route.name, route)), &mut self.problems);
        let mut routes = Vec::with_capacity(written.len());
        let mut specs = Vec::with_capacity(written.len());
        for (_, route) in written {
            let spec = matching::spec(route, &mut self.problems);
            let names: Vec<Box<str>> = spec.as_ref().map(|spec| spec.path.parameters().to_vec()).unwrap_or_default();
            let compiled = self.route(route, names, spec.is_some());
            if let (Some(spec), Some(compiled)) = (spec, compiled) {
                specs.push(spec);
                routes.push(Arc::new(compiled));
            }
        }
        let table = Table::build(specs);
        let table = table.map_err(|ties| {
            for tie in ties {
                let (Some(first), Some(second)) = (routes.get(tie.first), routes.get(tie.second)) else { continue };
                self.problems.push(
                    Problem::new(
                        second.place,
                        format!("route `{}` ties with `{}`: {}", second.name, first.name, tie.why),
                    )
                    .with_related("the other one", first.place),
                );
            }
        });
        (routes, table.ok())
    }

    fn route(&mut self, written: &'a config::Route, names: Vec<Box<str>>, names_are_known: bool) -> Option<Route> {
        let owner = format!("route:{}", written.name.value);
        let own = self.chains.list(&written.filters, &owner, None, &mut self.problems);
        let (action, mut parameters) = self.action(written);
        parameters.extend(self.defaults.parameters.iter().chain(&own.parameters).cloned());
        for parameter in parameters.iter().filter(|_| names_are_known) {
            if !names.iter().any(|name| **name == *parameter.value) {
                let known = names.iter().map(|name| &**name);
                self.problems.push(
                    Problem::unknown(parameter.place, "path parameter", &parameter.value, known).with_related(
                        format!("route `{}` has no such parameter", written.name.value),
                        written.name.place,
                    ),
                );
            }
        }
        let links: Vec<Arc<Link>> = self.defaults.links.iter().chain(&own.links).cloned().collect();
        if !self.defaults.incomplete && !own.incomplete {
            callers::check(&written.name, links.iter(), &mut self.problems);
        }
        let mirror = self.mirror(written, action.as_ref());
        let action = action?;
        let defaults = &self.config.root.defaults;
        let timeout = written.timeout.map(|period| period.0).or(action.first_byte());
        Some(Route {
            name: Arc::from(written.name.value.as_str()),
            place: written.name.place,
            limits: self.limits(&written.name.value, &links),
            chain: Chain::new(links),
            action,
            first_byte: timeout.or(defaults.timeout.map(|period| period.0)).unwrap_or(TIMEOUT),
            body_bytes_max: written.body_max.or(defaults.body_max).map_or(BODY_BYTES_MAX, |size| size.0),
            mirror,
            priority: overload::priority(written),
            metrics: self.metrics.route(&written.name.value),
            captures: (!parameters.is_empty()).then(|| names.into()),
        })
    }

    /// Counters of the limits of a route. One that is switched off counts nothing.
    fn limits(&self, route: &str, links: &[Arc<Link>]) -> Box<[(u64, Arc<LimitMetrics>)]> {
        let counting = links.iter().filter(|link| link.hooks().request);
        let limits = counting.filter_map(|link| Some((link.number, self.metrics.limit(route, link.bucket.as_ref()?))));
        limits.collect()
    }

    /// The one handler of a route, and the path parameters it needs.
    fn action(&mut self, written: &config::Route) -> (Option<Action>, Vec<Located<String>>) {
        let mut handlers = Vec::new();
        for (name, settings) in written.handler.iter() {
            if handlers::names().any(|known| known == name.value) {
                handlers.push((name, settings));
            } else {
                let known = handlers::names().chain(ROUTE_KEYS);
                self.problems.push(Problem::unknown(name.place, "key or handler", &name.value, known));
            }
        }
        match handlers.as_slice() {
            [(name, settings)] => self.handler(&written.name.value, name, settings),
            // A word that is no key may be the handler that was meant: said already.
            [] if !written.handler.is_empty() => (None, Vec::new()),
            [] => {
                let problem =
                    Problem::new(written.name.place, format!("route `{}` has no handler", written.name.value));
                let known: Vec<_> = handlers::names().collect();
                self.problems.push(problem.with_hint(format!("give it one of {}", known.join(", "))));
                (None, Vec::new())
            }
            [(first, _), (second, _), ..] => {
                let message = format!("route `{}` has two handlers", written.name.value);
                self.problems.push(Problem::new(second.place, message).with_related("the other one", first.place));
                (None, Vec::new())
            }
        }
    }

    fn handler(
        &mut self,
        route: &str,
        name: &Located<String>,
        settings: &Node,
    ) -> (Option<Action>, Vec<Located<String>>) {
        if name.value == "upstream" {
            return (self.forward(settings), Vec::new());
        }
        let Some(entry) = HANDLERS.iter().find(|entry| entry.name == name.value) else { return (None, Vec::new()) };
        let mut compiler = Compiler::at(name.place, route.to_owned(), self.known);
        let handler = (entry.build)(settings, &mut compiler);
        let findings = compiler.finish();
        self.problems.extend(findings.problems);
        self.guarded.extend(findings.guarded);
        if let Some(inbox) = findings.inbox
            && let Some(upstream) = self.upstream(&inbox.upstream.value, inbox.upstream.place)
        {
            self.inboxes.add(inbox, upstream);
        }
        (handler.map(Action::from), findings.path_parameters)
    }

    fn upstream(&mut self, name: &str, place: Place) -> Option<Arc<Slot>> {
        let known = self.upstreams.get(name).cloned();
        if known.is_none() {
            let written = all(self.config, |fragment| &fragment.upstreams, &self.config.root.upstreams);
            let names: Vec<&str> = written.map(|(name, _)| name.value.as_str()).collect();
            // One that is defined but broken has its problem already.
            if !names.contains(&name) {
                self.problems.push(Problem::unknown(place, "upstream", name, names.iter().copied()));
            }
        }
        known
    }
}

/// Keys of a route that are no handlers, for hints.
const ROUTE_KEYS: [&str; 8] =
    ["name", "match", "filters", "trailing_slash", "timeout", "body_max", "mirror", "priority"];

/// Stands where no handler is ever asked: the fallback only lends its chain.
struct Nothing;

impl Handler for Nothing {
    fn answer(&self, _: &dyn RequestHead, _: &Context) -> Result<Reply, Box<Rejection>> {
        Err(Box::new(Rejection::new(Code::NOT_FOUND, "no route matches this request")))
    }
}

fn settings(
    config: &Config,
    previous: Option<&Gateway>,
    acme: &mut acme::Compiler<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Settings> {
    let root = &config.root;
    let before = problems.len();
    let listeners = listeners(config, previous, acme, problems);
    let threads = match &root.threads {
        Some(threads) if !(1..=THREADS_MAX).contains(&threads.value) => {
            problems.push(Problem::new(threads.place, format!("`threads` must be 1 to {THREADS_MAX}")));
            1
        }
        Some(threads) => usize::from(threads.value),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let limits = limits(&root.limits, problems);
    let state = state(config, problems);
    let registry = registry(config, problems);
    (problems.len() == before).then_some(())?;
    Some(Settings {
        listeners,
        admin: root.admin.as_ref().map(|admin| admin.bind.value.0),
        threads,
        trusted_proxies: root.trusted_proxies.iter().map(|network| network.0).collect(),
        limits,
        errors: match root.errors {
            Errors::Envelope => ErrorStyle::Envelope,
            Errors::Problem => ErrorStyle::Problem,
        },
        drain_timeout: root.drain_timeout.map_or(DRAIN_TIMEOUT, |period| period.0),
        access_log: logs::access_log(&root.access_log),
        audit_log: logs::audit_log(&root.audit_log),
        webhook_log: logs::webhook_log(&root.webhook_log),
        log: root.log.clone(),
        state: state?,
        registry,
    })
}

fn state(config: &Config, problems: &mut Vec<Problem>) -> Option<Backend> {
    Some(match &config.root.state {
        config::State::Memory => Backend::Memory,
        config::State::File(file) => Backend::File(file.clone()),
        config::State::Redis(written) => {
            Backend::Redis(Box::new(redis::Settings::compile(written, &config.base, problems)?))
        }
    })
}

fn limits(written: &config::Limits, problems: &mut Vec<Problem>) -> Limits {
    if !(1..=HEADERS_MAX).contains(&written.headers_max.value) {
        problems.push(Problem::new(written.headers_max.place, format!("`headers_max` must be 1 to {HEADERS_MAX}")));
    }
    let at_least = |least: u32, number: &Located<u32>, name: &str, problems: &mut Vec<Problem>| {
        if number.value < least {
            problems.push(Problem::new(number.place, format!("`{name}` must be at least {least}")));
        }
        usize::try_from(number.value).unwrap_or(usize::MAX)
    };
    if written.body_memory_max.value.0 < BODY_MEMORY_LEAST {
        problems.push(Problem::new(written.body_memory_max.place, "`body_memory_max` must be at least 1MiB"));
    }
    Limits {
        header_bytes_max: written.header_bytes_max.0,
        headers_max: usize::from(written.headers_max.value),
        header_timeout: written.header_timeout.0,
        body_timeout: written.body_timeout.0,
        body_bytes_per_second_min: u64::from(written.body_bytes_per_second_min),
        idle_timeout: written.idle_timeout.0,
        upgrade_idle_timeout: written.upgrade_idle_timeout.0,
        connections_max: at_least(1, &written.connections_max, "connections_max", problems),
        connections_per_address_max: at_least(
            1,
            &written.connections_per_address_max,
            "connections_per_address_max",
            problems,
        ),
        buckets_max: at_least(BUCKETS_LEAST, &written.buckets_max, "buckets_max", problems),
        body_memory_max: written.body_memory_max.value.0,
        overload: overload::bounds(written, problems),
    }
}
