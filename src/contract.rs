//! What a filter and a handler are.
//!
//! A filter's settings are parsed ([`Settings`]) and built into an immutable [`Step`]; nothing can hold one that is half
//! built. Hooks are synchronous and see only [`RequestHead`], [`ResponseHead`] and [`Context`]. A filter that must wait is an
//! [`AsyncFilter`], one that looks at the body a [`BodyFilter`], and one that sees bodies of both directions pass a
//! [`StreamFilter`]; only requests that meet one pay for it. Hooks must not block: what waits on the network for its own sake
//! (a key set, a resolver) happens beside the request path.

mod body;
mod inbox;
mod json;
mod limits;
mod ranges;
mod stream;
mod upstreams;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::head::{HeaderName, RequestHead, ResponseHead, StatusCode};
use crate::identity::{Identity, TokenService};
use crate::inbox::Inboxes;
use crate::limits::Limits;
use crate::replay::Replay;
use crate::reply::websocket::POLICY_VIOLATION;
use crate::reply::{Rejection, Reply};
use crate::template::{FieldTemplate, Template};
#[cfg(feature = "plugins")]
use crate::wasm::plugins::Plugins;
use crate::yaml::{Located, Node, Place, Problem, decode};

pub use body::BodyFilter;
pub use inbox::{InboxUse, Terms};
pub use json::{json_body, no_credentials_in_query};
pub use limits::{Counts, Limit, QuotaCounts};
pub use stream::{Ending, Onward, Outset, Passed, Released, Setting, StreamFilter};

/// What a request hook decides.
#[derive(Debug)]
pub enum Verdict {
    /// The request goes on, perhaps changed.
    Continue,
    /// The filter answers the request itself; later filters and the handler never see it.
    Reply(Box<Reply>),
    /// The filter refuses the request; the gateway words the answer in its error shape.
    Reject(Box<Rejection>),
}

impl Verdict {
    /// A refusal because of who calls. Where `auth` asked for it (`websocket_refusal: close`), a WebSocket is accepted and
    /// closed with it; any other request gets the plain refusal.
    pub fn refuse(rejection: Rejection, request: &dyn RequestHead, context: &Context) -> Self {
        if !context.closes_refused_sockets {
            return Self::Reject(Box::new(rejection));
        }
        match rejection.into_websocket_close(request, POLICY_VIOLATION) {
            Ok(reply) => Self::Reply(Box::new(reply)),
            Err(rejection) => Self::Reject(Box::new(rejection)),
        }
    }
}

/// Which hooks a filter has, so that a chain skips the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hooks {
    pub request: bool,
    pub response: bool,
    /// Answers CORS preflights. A route without such a filter does not take preflights.
    pub preflight: bool,
}

impl Hooks {
    pub const REQUEST: Self = Self { request: true, response: false, preflight: false };
    pub const RESPONSE: Self = Self { request: false, response: true, preflight: false };
    pub const BOTH: Self = Self { request: true, response: true, preflight: false };
}

/// A compiled filter.
pub trait Filter: Send + Sync + 'static {
    fn hooks(&self) -> Hooks;

    /// Called on the way in, in the order of the list.
    fn on_request(&self, _request: &mut dyn RequestHead, _context: &mut Context) -> Verdict {
        Verdict::Continue
    }

    /// What the request hook would do, for `tollgate test`, `explain` and the tests of a reload: whoever changes something
    /// beyond the request (takes from a bucket, that is) must not do so here.
    fn preview(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        self.on_request(request, context)
    }

    /// Called on the way out, in reverse order, for every response: the upstream's, a handler's, a later filter's refusal.
    /// Not called on the response this filter authored itself. `request` is the request as the chain left it.
    fn on_response(&self, _request: &dyn RequestHead, _response: &mut dyn ResponseHead, _context: &Context) {}
}

/// What an [`AsyncFilter`] returns.
pub type Pending<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// A compiled filter whose decision has to wait for something.
pub trait AsyncFilter: Send + Sync + 'static {
    fn hooks(&self) -> Hooks {
        Hooks::REQUEST
    }

    /// Called on the way in, in the order of the list. Must end in bounded time.
    fn on_request<'a>(&'a self, request: &'a mut dyn RequestHead, context: &'a mut Context) -> Pending<'a>;

    /// What it would do, for `tollgate test` and `explain`, where nothing is waited for.
    fn preview(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict;

    /// As [`Filter::on_response`].
    fn on_response(&self, _request: &dyn RequestHead, _response: &mut dyn ResponseHead, _context: &Context) {}
}

/// One compiled step of a chain.
#[derive(Clone)]
pub enum Step {
    Sync(Arc<dyn Filter>),
    Async(Arc<dyn AsyncFilter>),
    /// Looks at the body.
    Body(Arc<dyn BodyFilter>),
    /// Accompanies the exchange.
    Stream(Arc<dyn StreamFilter>),
}

impl Step {
    pub fn filter(filter: impl Filter) -> Self {
        Self::Sync(Arc::new(filter))
    }
}

/// A handler that answers a request itself.
pub trait Handler: Send + Sync + 'static {
    /// The answer, or a refusal that the gateway words in its error shape.
    fn answer(&self, request: &dyn RequestHead, context: &Context) -> Result<Reply, Box<Rejection>>;
}

/// What an [`AsyncHandler`] returns.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Reply, Box<Rejection>>> + Send + 'a>>;

/// A handler that takes a body, or has to wait for its answer.
pub trait AsyncHandler: Send + Sync + 'static {
    /// Largest request body, in bytes; a larger one is refused with 413 before [`AsyncHandler::answer`] is called. The
    /// `body_max` of the route counts too.
    fn body_bytes_max(&self) -> usize;

    /// The status of its answer when all is well, for `tollgate test` and `explain`, where nothing is waited for.
    fn status(&self) -> StatusCode {
        StatusCode::OK
    }

    /// The answer, or a refusal. Must end in bounded time.
    fn answer<'a>(&'a self, request: &'a dyn RequestHead, body: Bytes, context: &'a Context) -> Answering<'a>;
}

/// A handler of either kind.
#[derive(Clone)]
pub enum AnyHandler {
    Sync(Arc<dyn Handler>),
    Async(Arc<dyn AsyncHandler>),
}

impl AnyHandler {
    pub fn of(handler: impl Handler) -> Self {
        Self::Sync(Arc::new(handler))
    }

    pub fn waiting(handler: impl AsyncHandler) -> Self {
        Self::Async(Arc::new(handler))
    }
}

/// The settings of a filter as they stand in YAML.
pub trait Settings: DeserializeOwned + JsonSchema {
    /// The key in YAML.
    const NAME: &'static str;
    /// One line for the table of filters.
    const SUMMARY: &'static str;

    /// Builds the filter, or reports to `compiler` why that cannot be.
    fn build(self, compiler: &mut Compiler) -> Option<Step>;
}

/// What building a filter or handler may use, and where it reports mistakes.
#[derive(Default)]
pub struct Compiler {
    place: Option<Place>,
    problems: Vec<Problem>,
    path_parameters: Vec<Located<String>>,
    guarded: Vec<HeaderName>,
    hidden: Vec<Box<str>>,
    calling: Calling,
    bucket: Option<BucketUse>,
    shared_bucket: Option<BucketUse>,
    limit: Option<Limit>,
    inbox: Option<InboxUse>,
    number: u64,
    owner: String,
    known: Known,
}

/// What filters and handlers are compiled against.
#[derive(Clone, Default)]
pub struct Known {
    /// Consumers, issuers and roles of the configuration.
    pub identity: Arc<Identity>,
    /// What limits know beyond one snapshot.
    pub limits: Arc<Limits>,
    /// What messages must not pass twice.
    pub replay: Arc<Replay>,
    /// Where messages are stored.
    pub inboxes: Arc<Inboxes>,
    /// Gateways share their state: limits are kept where all of them look.
    pub is_shared: bool,
    /// State outlives the process: messages can be stored.
    pub keeps_messages: bool,
    /// The names of the upstreams of the configuration.
    pub upstreams: Arc<[String]>,
    /// What files hold, by their names as written; or why they cannot be read.
    pub files: Arc<BTreeMap<String, Result<Vec<u8>, String>>>,
    /// The plugins that run.
    #[cfg(feature = "plugins")]
    pub plugins: Arc<Plugins>,
}

/// How a limit uses its bucket. Several may use one, in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUse {
    pub name: Located<String>,
    /// What has to be the same for all, in words.
    pub terms: String,
    /// Whether it goes by the rates of consumers and keys that have their own.
    pub takes_rates: bool,
}

/// What a filter has to do with who calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calling {
    #[default]
    Nothing,
    /// It finds out.
    Finds,
    /// It has to know: some filter before it must find out.
    Needs,
}

impl Compiler {
    /// `place` is where the filter or handler stands in YAML; `owner` is unique to the entry of the list and stays the same
    /// when others change: `chain:api`, `route:tasks.read`, `defaults`, with `#2` behind the second of its kind; of a handler
    /// the name of its route.
    pub fn at(place: Place, owner: String, known: &Known) -> Self {
        Self { place: Some(place), owner, number: known.limits.number(), known: known.clone(), ..Self::default() }
    }

    /// Consumers, issuers and roles of the configuration.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.known.identity
    }

    /// What limits know beyond one snapshot.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.known.limits
    }

    /// What messages must not pass twice.
    pub fn replay(&self) -> &Arc<Replay> {
        &self.known.replay
    }

    /// Where messages are stored.
    pub fn inboxes(&self) -> &Arc<Inboxes> {
        &self.known.inboxes
    }

    /// What a file holds that the settings name; reports why it cannot be read.
    pub fn file(&mut self, name: &Located<String>) -> Option<&[u8]> {
        match self.known.files.get(&name.value) {
            Some(Ok(_)) => {}
            Some(Err(why)) => {
                self.problems.push(Problem::new(name.place, format!("cannot read `{}`: {why}", name.value)));
                return None;
            }
            None => {
                self.problems.push(Problem::new(name.place, format!("`{}` was not read", name.value)));
                return None;
            }
        }
        self.known.files.get(&name.value)?.as_deref().ok()
    }

    /// The plugins that run.
    #[cfg(feature = "plugins")]
    pub fn plugins(&self) -> &Arc<Plugins> {
        &self.known.plugins
    }

    /// Whether gateways share their state.
    pub fn is_shared(&self) -> bool {
        self.known.is_shared
    }

    /// The bucket of a limit that names none: its own.
    pub fn own_bucket(&self) -> &str {
        &self.owner
    }

    /// The number of the filter: what it writes into [`Standing::filter`](crate::context::Standing::filter).
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Notes in which bucket the filter counts.
    pub fn bucket(&mut self, bucket: BucketUse) {
        self.bucket = Some(bucket);
    }

    /// Notes a bucket that others may use in the same way only, by a filter that leaves no
    /// [`Standing`](crate::context::Standing).
    pub fn shared_bucket(&mut self, bucket: BucketUse) {
        self.shared_bucket = Some(bucket);
    }

    /// Says what the filter limits, for those who operate it.
    pub fn limit(&mut self, limit: Limit) {
        self.limit = Some(limit);
    }

    /// The token service that a handler speaks for, or reports that there is none.
    pub fn token_service(&mut self, name: Option<&Located<String>>) -> Option<Arc<TokenService>> {
        let found = self.known.identity.token_service(name, self.place());
        found.map_err(|problem| self.problems.extend(problem)).ok()
    }

    /// Keeps a field for the gateway: what clients send under this name is removed on every route, in every spelling.
    pub fn guard(&mut self, field: HeaderName) {
        self.guarded.push(field);
    }

    /// Keeps the values of a query parameter out of logs, on every route.
    pub fn hide(&mut self, parameter: &str) {
        self.hidden.push(parameter.into());
    }

    /// Says what it has to do with who calls. A chain that cannot work is then refused.
    pub fn calling(&mut self, calling: Calling) {
        self.calling = calling;
    }

    /// Where the filter or handler stands: the place of a problem that no single setting has.
    pub fn place(&self) -> Place {
        self.place.unwrap_or(Place::UNKNOWN)
    }

    /// Decodes settings, or reports what is wrong with them. What is written without any has default ones.
    pub fn settings<S: DeserializeOwned>(&mut self, node: &Node) -> Option<S> {
        let decoded = if node.is_null() { decode(&Node::empty_map(node.place)) } else { decode(node) };
        decoded.map_err(|problems: Vec<Problem>| self.problems.extend(problems)).ok()
    }

    pub fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Notes that the route must have a path parameter of this name.
    pub fn path_parameter(&mut self, name: &str) {
        self.path_parameters.push(Located { value: name.to_owned(), place: self.place() });
    }

    /// The same, of a name that stands in the settings.
    pub fn located_path_parameter(&mut self, name: &Located<String>) {
        self.path_parameters.push(name.clone());
    }

    /// Parses a template and notes which path parameters it needs.
    pub fn template(&mut self, text: &Located<String>) -> Option<Template> {
        match Template::parse(text) {
            Ok(template) => {
                let parameters = template.path_parameters();
                self.path_parameters
                    .extend(parameters.map(|name| Located { value: name.to_owned(), place: text.place }));
                Some(template)
            }
            Err(message) => {
                self.report(Problem::new(text.place, message));
                None
            }
        }
    }

    /// Parses a template for the value of a header field; text that no field may hold is reported.
    pub fn field_value(&mut self, text: &Located<String>) -> Option<FieldTemplate> {
        let template = self.template(text)?;
        let value = FieldTemplate::new(template);
        if value.is_none() {
            let problem = Problem::new(text.place, "a field value holds no line break and no other control character");
            self.report(problem.with_hint("a field is one line; join the parts with `, ` or `; `"));
        }
        value
    }

    /// The name of a field that an operator may set or remove. The others belong to the gateway: changing them would change
    /// where a message ends or how a connection is used.
    pub fn field_name(&mut self, name: &str, place: Place) -> Option<HeaderName> {
        let Ok(known) = HeaderName::from_bytes(name.as_bytes()) else {
            let problem = Problem::new(place, format!("`{name}` is no field name"));
            self.report(problem.with_hint("a name holds letters, digits and `!#$%&'*+-.^_`|~`"));
            return None;
        };
        if let Some(reason) = reserved(&known) {
            self.report(Problem::new(place, format!("`{name}` cannot be changed: {reason}")));
            return None;
        }
        Some(known)
    }

    /// What building it came to.
    pub fn finish(self) -> Findings {
        Findings {
            problems: self.problems,
            path_parameters: self.path_parameters,
            guarded: self.guarded,
            hidden: self.hidden,
            calling: self.calling,
            bucket: self.bucket,
            shared_bucket: self.shared_bucket,
            limit: self.limit,
            inbox: self.inbox,
            number: self.number,
        }
    }
}

/// What building a filter or handler came to, besides itself.
pub struct Findings {
    pub problems: Vec<Problem>,
    /// Path parameters that the route must have.
    pub path_parameters: Vec<Located<String>>,
    /// Fields that clients may not send.
    pub guarded: Vec<HeaderName>,
    /// Query parameters that no log shows.
    pub hidden: Vec<Box<str>>,
    pub calling: Calling,
    pub bucket: Option<BucketUse>,
    /// A bucket that others may use, of a filter that leaves no standing.
    pub shared_bucket: Option<BucketUse>,
    /// What it limits.
    pub limit: Option<Limit>,
    /// The inbox it fills.
    pub inbox: Option<InboxUse>,
    /// The number of the filter.
    pub number: u64,
}

/// Why a field belongs to the gateway alone, when it does.
fn reserved(name: &HeaderName) -> Option<&'static str> {
    match name.as_str() {
        "content-length" | "transfer-encoding" => Some("it says where the message ends, and the gateway writes it"),
        "host" => Some("it belongs to the gateway; the filter `headers` may `set` it on a request"),
        "connection" | "http2-settings" | "keep-alive" | "te" | "trailer" | "upgrade" => {
            Some("it belongs to one connection (RFC 9110 §7.6.1), and the gateway writes it")
        }
        name if name.starts_with("proxy-") => Some("it belongs to one connection (RFC 9110 §7.6.1 and §11.7)"),
        _ => None,
    }
}

/// A row of the registry of filters.
pub struct Entry {
    pub name: &'static str,
    pub summary: &'static str,
    pub build: fn(&Node, &mut Compiler) -> Option<Step>,
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

impl Entry {
    pub const fn of<S: Settings>() -> Self {
        Self { name: S::NAME, summary: S::SUMMARY, build: build::<S>, schema: |generator| S::json_schema(generator) }
    }
}

/// Builds the filter. One that is named without settings (`- security_headers`) has default ones.
fn build<S: Settings>(node: &Node, compiler: &mut Compiler) -> Option<Step> {
    compiler.settings::<S>(node)?.build(compiler)
}

#[cfg(test)]
pub mod testing;

#[cfg(test)]
mod tests;
