//! The snapshot: one compiled, immutable configuration. A request keeps the one it started with to its end.

mod acme;
mod buckets;
mod callers;
mod chains;
mod compile;
mod expectations;
mod fallbacks;
mod identity;
mod inboxes;
mod listeners;
mod logs;
mod matching;
mod mirror;
mod overload;
pub mod preview;
mod registry;
#[cfg(test)]
mod testing;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use crate::acme::{Acme, Site};
use crate::chain::Chain;
use crate::client::Guarded;
use crate::config;
use crate::context::{self, Context, Standing};
use crate::handlers::Action;
use crate::head::{Method, RequestHead};
use crate::identity::{Identity, Shared};
use crate::inbox::Inboxes;
use crate::limits;
use crate::observe::access::{AccessSettings, Hidden};
use crate::observe::audit::AuditSettings;
use crate::observe::metrics::{LimitMetrics, Metrics, RouteMetrics};
use crate::observe::webhooks::WebhookLogSettings;
use crate::overload::{Bounds, Priority};
use crate::replay::Replay;
use crate::reply::{Code, ErrorStyle, Rejection};
use crate::route::{Captures, Found, Table};
use crate::state::Backend;
use crate::upstream::discovery::Discovery;
use crate::upstream::{Slot, Upstream};
#[cfg(feature = "plugins")]
use crate::wasm::plugins::Plugins;
use crate::yaml::{Place, Sources};

pub use compile::compile;
pub use fallbacks::Fallback;
use fallbacks::Fallbacks;
pub use inboxes::Inbox;
pub use listeners::{Listener, Tls};
pub use mirror::{Mirror, Ticket};
pub use registry::{Registry, Token as RegistryToken};

/// What all snapshots of a process have in common.
#[derive(Clone)]
pub struct Services {
    pub metrics: Arc<Metrics>,
    pub identity: Arc<Shared>,
    pub limits: Arc<limits::Limits>,
    pub replay: Arc<Replay>,
    pub inboxes: Arc<Inboxes>,
    pub acme: Arc<Acme>,
    pub discovery: Arc<Discovery>,
    #[cfg(feature = "plugins")]
    pub plugins: Arc<Plugins>,
}

impl Services {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let inboxes = Inboxes::default();
        inboxes.attach_metrics(Arc::clone(&metrics));
        Self {
            metrics,
            identity: Arc::default(),
            limits: Arc::default(),
            replay: Arc::default(),
            inboxes: Arc::new(inboxes),
            acme: Arc::default(),
            discovery: Arc::default(),
            #[cfg(feature = "plugins")]
            plugins: Arc::default(),
        }
    }
}

/// One compiled configuration.
pub struct Gateway {
    pub settings: Settings,
    /// The files it was compiled from.
    pub sources: Arc<Sources>,
    /// SHA-256 over all files, the first 16 hexadecimal digits.
    pub hash: String,
    pub loaded_at: SystemTime,
    /// What the operator expects of it.
    pub tests: Vec<config::Test>,
    /// Consumers, issuers and roles.
    pub identity: Arc<Identity>,
    /// Fields that only the gateway may set.
    pub guarded: Guarded,
    /// Query parameters whose values no log shows.
    pub hidden: Hidden,
    /// The certificates that come by ACME. `None`: none does.
    pub acme: Option<Arc<Site>>,
    table: Table,
    routes: Vec<Arc<Route>>,
    /// Stands for what no route matches: only the default filters.
    fallback: Arc<Route>,
    slots: Vec<Arc<Slot>>,
    inboxes: Vec<Arc<Inbox>>,
    fallbacks: Fallbacks,
}

/// What belongs to the gateway as a whole.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listeners: Vec<Listener>,
    pub admin: Option<SocketAddr>,
    /// Worker threads; fixed at start.
    pub threads: usize,
    pub trusted_proxies: Vec<IpNet>,
    pub limits: Limits,
    pub errors: ErrorStyle,
    pub drain_timeout: Duration,
    /// `None`: no access log.
    pub access_log: Option<AccessSettings>,
    /// `None`: no audit log.
    pub audit_log: Option<AuditSettings>,
    /// `None`: no webhook log.
    pub webhook_log: Option<WebhookLogSettings>,
    pub log: config::Log,
    /// Where state is kept.
    pub state: Backend,
    /// Who may register services. `None`: nobody.
    pub registry: Option<Registry>,
}

impl Settings {
    /// The keys that are read at start only and differ in `new`.
    pub fn changed_in(&self, new: &Self) -> Vec<&'static str> {
        let keys = [
            ("admin", self.admin != new.admin),
            ("threads", self.threads != new.threads),
            ("log", self.log != new.log),
            ("access_log", self.access_log != new.access_log),
            ("audit_log", self.audit_log != new.audit_log),
            ("webhook_log", self.webhook_log != new.webhook_log),
            ("state", self.state != new.state),
        ];
        keys.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
    }
}

/// Bounds on what clients may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub header_bytes_max: u64,
    pub headers_max: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    /// How fast a body has to come that streams for longer than that; 0: as slowly as it likes.
    pub body_bytes_per_second_min: u64,
    pub idle_timeout: Duration,
    pub upgrade_idle_timeout: Duration,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub buckets_max: usize,
    /// Most bytes of memory for gathered request bodies, all together.
    pub body_memory_max: u64,
    /// Beyond these, requests are shed.
    pub overload: Bounds,
}

/// A compiled route.
pub struct Route {
    pub name: Arc<str>,
    pub place: Place,
    pub chain: Chain,
    pub action: Action,
    /// How long the upstream may take to begin its answer.
    pub first_byte: Duration,
    pub body_bytes_max: u64,
    /// Who gets copies of its requests.
    pub mirror: Option<Arc<Mirror>>,
    /// How long it is served when requests are shed; `None`: always.
    pub priority: Option<Priority>,
    pub metrics: Arc<RouteMetrics>,
    /// Counters of its limits, by the number of the filter.
    limits: Box<[(u64, Arc<LimitMetrics>)]>,
    /// Names of the path parameters, when a template of this route uses one.
    captures: Option<Arc<[Box<str>]>>,
}

/// What became of the look-up.
pub enum Matched<'a> {
    Route(&'a Arc<Route>),
    /// No route takes it; the answer in its place.
    Refused(Rejection),
}

impl Gateway {
    /// Finds the route of a request and writes its name and captures into `context`.
    ///
    /// A CORS preflight (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) that no route names itself is given to
    /// the route of the method it asks for, when that route has a filter that answers preflights.
    pub fn find(&self, request: &dyn RequestHead, context: &mut Context) -> Matched<'_> {
        let mut captures = Captures::default();
        let mut found = self.table.find(request, request.method(), &mut captures);
        if !matches!(found, Found::Route(_))
            && let Some(asked) = preflight_for(request)
            && let Found::Route(index) = self.table.find(request, &asked, &mut captures)
            && self.routes.get(index).is_some_and(|route| route.chain.takes_preflight())
        {
            context.preflight = true;
            found = Found::Route(index);
        }
        match found {
            Found::Route(index) => match self.routes.get(index) {
                Some(route) => {
                    // One that the route names itself is answered by the same filter: those before it have to know.
                    context.preflight |= route.chain.takes_preflight() && preflight_for(request).is_some();
                    route.enter(request, &captures, context);
                    Matched::Route(route)
                }
                None => Matched::Refused(Rejection::new(Code::INTERNAL, "the route table is damaged")),
            },
            Found::MethodNotAllowed(allow) => {
                let mut rejection =
                    Rejection::new(Code::METHOD_NOT_ALLOWED, format!("this path is there for {allow} only"));
                if let Ok(value) = allow.parse() {
                    rejection = rejection.with_field(http::header::ALLOW, value);
                }
                Matched::Refused(rejection)
            }
            Found::NotFound => Matched::Refused(Rejection::new(Code::NOT_FOUND, "no route matches this request")),
        }
    }

    /// What stands for a route when there is none.
    pub fn fallback(&self) -> &Arc<Route> {
        &self.fallback
    }

    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// All upstreams, with the targets they have now.
    pub fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.slots.iter().map(|slot| slot.load()).collect()
    }

    /// The places of the upstreams, in the same order.
    pub fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// What stands for the answer of the upstream `name` while its breakers let nothing through.
    pub fn fallback_of(&self, name: &str) -> Option<&Fallback> {
        self.fallbacks.get(name)
    }

    pub fn inboxes(&self) -> &[Arc<Inbox>] {
        &self.inboxes
    }

    /// Whether this peer's word about the client is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.settings.trusted_proxies.iter().any(|network| network.contains(&peer))
    }
}

impl Route {
    /// Counts what limits said about a request.
    pub fn count_limits(&self, standings: &[Standing]) {
        for standing in standings {
            if let Some((_, metrics)) = self.limits.iter().find(|(number, _)| *number == standing.filter) {
                metrics.count(standing.outcome);
            }
        }
    }

    fn enter(&self, request: &dyn RequestHead, captures: &Captures, context: &mut Context) {
        context.route = Arc::clone(&self.name);
        if let Some(names) = &self.captures {
            let value = |index| captures.get(index, request.path()).map(Box::from);
            context.captures = context::Captures::new(Arc::clone(names), (0..names.len()).map(value).collect());
        }
    }
}

/// The method a CORS preflight asks for.
fn preflight_for(request: &dyn RequestHead) -> Option<Method> {
    if request.method() != Method::OPTIONS || !request.has(&http::header::ORIGIN) {
        return None;
    }
    Method::from_bytes(request.get(&http::header::ACCESS_CONTROL_REQUEST_METHOD)?).ok()
}

#[cfg(test)]
mod tests;
