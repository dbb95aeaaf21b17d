//! The configuration as it is written: typed, with places, without behaviour.
//!
//! [`load`](load::load) reads `gateway.yaml` and what it includes; [`crate::gateway`] compiles the result. What is typed
//! [`Node`] here is decoded later by whoever knows its type: the settings of filters and handlers, and `match`.

mod acme;
mod balance;
mod circuit_breaker;
mod discovery;
mod health;
mod https_redirect;
pub mod load;
mod logs;
pub mod pem;
mod proxy_protocol;
mod registry;
mod retry;
mod traffic;
mod upstream;
mod upstream_tls;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::identity::{ConsumerSettings, IssuerSettings, RoleSettings, TokenServiceSettings, UserSettings};
use crate::overload::Priority;
use crate::state::redis::RedisForm;
use crate::types::{Address, Bind, Network, Period, Size};
use crate::yaml::{Located, Named, Node, Place, Rest};

pub use acme::{Acme, AcmeCertificate, AcmeChallenge, Eab};
pub use balance::{Balance, HashBy, SameSite, Sticky};
pub use circuit_breaker::{BreakerFallback, BreakerPer, CircuitBreaker, CircuitBreakers, StaleFallback};
pub use discovery::{
    ConsulDiscovery, Discovery, DiscoverySource, DnsDiscovery, DnsRecords, RegistryDiscovery, TargetsFile,
};
pub use health::{AllUnhealthy, GrpcHealth, Health, HealthBody, OutlierFailure, Outliers, SlowTargets, Statuses};
pub use https_redirect::HttpsRedirect;
pub use logs::{AccessFormat, AccessLog, AuditLog, AuditOnly, Log, LogFormat, WebhookLog};
pub use proxy_protocol::{From as ProxyProtocolFrom, ProxyProtocol, TellClient};
pub use registry::{Registry, RegistryToken};
pub use retry::{Backoff, Retry, UnsafeMethods};
pub use traffic::{Mirror, Split, SplitPart, SplitWhen};
pub use upstream::{Protocol, Target, Timeouts, Upstream, UpstreamHost};
pub use upstream_tls::{ClientCert, TlsVersion, UpstreamTls, UpstreamTlsSettings, Verify};

/// `gateway.yaml`: what belongs to the gateway, and everything an included file may hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Root {
    /// Version of this format.
    pub version: Located<u32>,
    /// Worker threads; default: as many as the machine has cores.
    pub threads: Option<Located<u16>>,
    /// Addresses where clients connect.
    pub listeners: Vec<Listener>,
    /// The admin address: `/health`, `/ready`, `/status`, `/metrics`, `/limits`, `POST /reload`. Without it there is none.
    pub admin: Option<Admin>,
    /// Files to include: paths or `*` patterns, relative to this file.
    #[serde(default)]
    pub include: Vec<Located<String>>,
    /// The authority that certificates come from which listeners get by themselves.
    pub acme: Option<Acme>,
    /// Networks whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` are believed.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// What routes and upstreams have when they say nothing.
    #[serde(default)]
    pub defaults: Defaults,
    /// Bounds on what clients may do.
    #[serde(default)]
    pub limits: Limits,
    /// How errors are written.
    #[serde(default)]
    pub errors: Errors,
    /// The error log.
    #[serde(default)]
    pub log: Log,
    /// The access log; default: JSON to standard output. `access_log: { to: none }` switches it off.
    #[serde(default)]
    pub access_log: AccessLog,
    /// The audit log; default: none.
    #[serde(default)]
    pub audit_log: AuditLog,
    /// The webhook log; default: none.
    #[serde(default)]
    pub webhook_log: WebhookLog,
    /// Bounds of `/metrics`.
    #[serde(default)]
    pub metrics: Metrics,
    /// How long requests in flight may take to end after SIGTERM. Default 30s.
    pub drain_timeout: Option<Period>,
    /// Where managed keys, refresh tokens and revocations are kept: `memory` (default), `{ file: data/tollgate.db }`, or
    /// `{ redis: redis://cache:6379 }` for several gateways.
    #[serde(default)]
    pub state: State,
    /// Who may register services at the admin address. Default: nobody.
    pub registry: Option<Registry>,
    /// Who signs the tokens that are accepted.
    #[serde(default)]
    pub issuers: Named<IssuerSettings>,
    /// Who gives out tokens to users that log in.
    #[serde(default)]
    pub token_services: Named<TokenServiceSettings>,
    /// What roles bring.
    #[serde(default)]
    pub roles: Named<RoleSettings>,
    /// Who calls, with which keys.
    #[serde(default)]
    pub consumers: Vec<ConsumerSettings>,
    /// Who logs in with a password.
    #[serde(default)]
    pub users: Vec<UserSettings>,
    /// Named lists of filters that routes reuse.
    #[serde(default)]
    pub chains: Named<Vec<Node>>,
    /// Named sets of targets.
    #[serde(default)]
    pub upstreams: Named<Upstream>,
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Requests and what must become of them.
    #[serde(default)]
    pub tests: Vec<Test>,
}

/// An included file: one service's business.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Fragment {
    /// Who calls, with which keys.
    #[serde(default)]
    pub consumers: Vec<ConsumerSettings>,
    /// Who logs in with a password.
    #[serde(default)]
    pub users: Vec<UserSettings>,
    /// Named lists of filters that routes reuse.
    #[serde(default)]
    pub chains: Named<Vec<Node>>,
    /// Named sets of targets.
    #[serde(default)]
    pub upstreams: Named<Upstream>,
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Requests and what must become of them.
    #[serde(default)]
    pub tests: Vec<Test>,
}

/// An address where clients connect: HTTP/1.1, and HTTP/2 with prior knowledge or, with `tls`, as agreed by ALPN.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Listener {
    /// `0.0.0.0:8000`, `[::]:8000`.
    pub bind: Located<Bind>,
    /// TLS 1.2 and 1.3. Without it the listener speaks plain HTTP.
    pub tls: Option<Tls>,
    /// Connections begin with a header of the PROXY protocol: `true` from `trusted_proxies`, or `{ from: [10.0.0.0/8] }`.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Redirects every request to HTTPS: `true` to port 443, or to this port. What ACME asks for over plain HTTP stays.
    pub https_redirect: Option<Located<HttpsRedirect>>,
}

/// TLS of a listener. Files are PEM, named relative to gateway.yaml; a change in one is a reload.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Tls {
    /// Chosen by the name that the client asks for (SNI) among the DNS names of each; the first one for all other names.
    #[serde(default = "none_written")]
    pub certificates: Located<Vec<Certificate>>,
    /// Certificates that the gateway gets and renews by itself, by ACME; see `acme` of gateway.yaml.
    #[serde(default)]
    pub acme: Vec<AcmeCertificate>,
    /// Certificates of the authorities that issue those of clients.
    pub client_ca: Option<Located<String>>,
    /// Whether a client has to have a certificate. Default: `required` with `client_ca`, otherwise `none`.
    pub client_auth: Option<Located<ClientAuth>>,
    /// Lists of certificates that the authorities of clients have revoked, one for each authority. Default: none is asked.
    pub crl: Option<Located<String>>,
    /// The oldest version that is spoken. Default `"1.2"`.
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// A certificate of a listener.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Certificate {
    /// The certificate, then those that lead to its authority.
    pub cert: Located<String>,
    /// Its private key, without a password.
    pub key: Located<String>,
    /// What its authority says of it (OCSP), in DER: sent along in the handshake. Default: nothing.
    pub ocsp: Option<Located<String>>,
}

/// Whether a client has to have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// It is not asked for one.
    None,
    /// It may do without; one that it sends has to be right.
    Optional,
    Required,
}

impl Tls {
    /// Every file it names.
    pub fn files(&self) -> impl Iterator<Item = &Located<String>> {
        let certificates = self.certificates.value.iter();
        let pairs = certificates.flat_map(|pair| [&pair.cert, &pair.key].into_iter().chain(&pair.ocsp));
        pairs.chain(&self.client_ca).chain(&self.crl)
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Admin {
    /// `127.0.0.1:9900`. Who can connect here can see routes and reload: keep it private.
    pub bind: Located<Bind>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Defaults {
    /// How long a service may take to begin its answer. Default 30s.
    pub timeout: Option<Period>,
    /// Largest request body. Default 1MiB.
    pub body_max: Option<Size>,
    /// Filters that run before every route's own.
    #[serde(default)]
    pub filters: Vec<Node>,
}

/// Bounds on what clients may do.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Largest request head (request line and fields), in bytes. Default 32KiB.
    pub header_bytes_max: Size,
    /// Most header fields of a request. Default 100, at most 256.
    pub headers_max: Located<u16>,
    /// From the first byte of a request (or the start of the connection) to the end of its head. Default 10s.
    pub header_timeout: Period,
    /// Between two reads of a request body, for the whole of one that is gathered, for each write of a response. Default 30s.
    pub body_timeout: Period,
    /// How fast a request body has to come on average that streams for longer than `body_timeout`; 0: as slowly as it likes.
    /// Not asked of HTTP/2 without a length, such as streams of gRPC. Default 100.
    pub body_bytes_per_second_min: u32,
    /// How long a connection may stay open without a request. Default 75s.
    pub idle_timeout: Period,
    /// How long an upgraded connection (WebSocket) may stay silent. Default 1h.
    pub upgrade_idle_timeout: Period,
    /// Connections in all. Default 10000.
    pub connections_max: Located<u32>,
    /// Connections of one client address. Default 1000.
    pub connections_per_address_max: Located<u32>,
    /// Buckets of rate limits in memory. Default 1000000, at least 1000.
    pub buckets_max: Located<u32>,
    /// Memory for request bodies that are gathered for filters and handlers, all together. Default 128MiB, at least 1MiB.
    pub body_memory_max: Located<Size>,
    /// Requests in flight in all, at least 1; beyond, requests are shed by the `priority` of their routes. Default: no limit.
    pub in_flight_max: Option<Located<u32>>,
    /// Memory of the process, at least 64MiB; near it requests are shed by the `priority` of their routes. Default: no limit.
    pub memory_max: Option<Located<Size>>,
    /// How late a worker may be with its work, 10ms to 60s; near it requests are shed by the `priority` of their routes.
    /// Default: no limit.
    pub lag_max: Option<Located<Period>>,
}

/// How errors are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Errors {
    /// `{"error": {"code", "message", "details"}, "timestamp", "request_id"}`
    #[default]
    Envelope,
    /// `application/problem+json` (RFC 9457)
    Problem,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Metrics {
    /// Most label combinations; what comes later is counted under `(other)`. Default 10000.
    pub series_max: u32,
}

/// Where that is kept which outlives a request and a reload.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// In memory: gone when the gateway ends.
    #[default]
    Memory,
    /// A file, relative to `gateway.yaml`; of this gateway alone. The last folder of its path is made when it is not there.
    File(String),
    /// A Redis or Valkey server that several gateways share: `redis://cache:6379`, or a map.
    #[schemars(with = "RedisForm")]
    Redis(Node),
}

impl State {
    /// Whether several gateways may use it at a time.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Memory | Self::File(_) => false,
            Self::Redis(_) => true,
        }
    }
}

/// A match, an ordered list of filters, and exactly one handler.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Route {
    /// Unique; names the route in logs and metrics.
    pub name: Located<String>,
    /// `GET /api/v1/tasks/{id?}`, or a map.
    #[serde(rename = "match")]
    #[schemars(with = "MatchForm")]
    pub matches: Node,
    #[serde(default)]
    pub filters: Vec<Node>,
    #[serde(default)]
    pub trailing_slash: TrailingSlash,
    /// How long the service may take to begin its answer. Default: that of the upstream, then that of `defaults`.
    pub timeout: Option<Period>,
    /// Largest request body. Default: that of `defaults`.
    pub body_max: Option<Size>,
    /// Sends copies of requests to another upstream as well. Default: none.
    pub mirror: Option<Mirror>,
    /// How long it is served when requests are shed: `critical`, `high`, `normal`, `low`. Default `normal`.
    pub priority: Option<Priority>,
    /// The handler: `upstream: NAME`, `respond: {…}`, …
    #[serde(rename = "$rest", default)]
    #[schemars(skip)]
    pub handler: Rest,
}

/// What a request must be like. Everything that is given must hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Match {
    /// Exact (`api.example.com`) or with a leading wildcard (`*.example.com`). Default: any host.
    #[serde(default)]
    pub hosts: Vec<Located<String>>,
    /// Default: any method.
    #[serde(default)]
    pub methods: Vec<Located<String>>,
    /// Literal segments, `{name}`, a last `{name?}` or `{*rest}`.
    pub path: Located<String>,
    /// Header fields and what they must be.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, ConditionForm>")]
    pub headers: Named<Node>,
    /// Query parameters and what they must be.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, ConditionForm>")]
    pub query: Named<Node>,
}

/// What a header field or query parameter must be, in its long form. The short form is the exact text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The whole value must match this regular expression.
    Regex(Located<String>),
    /// It must be there, or must not.
    Present(bool),
}

/// The two forms of `match`, for the schema.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "describes the format; never built")]
enum MatchForm {
    /// `GET /path`, `GET,POST /path` or `/path`
    Short(String),
    Long(Match),
}

/// The two forms of a condition, for the schema.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "describes the format; never built")]
enum ConditionForm {
    /// The exact value.
    Exact(String),
    Long(Condition),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrailingSlash {
    /// `/tasks` and `/tasks/` are the same.
    #[default]
    Ignore,
    /// Only the form that is written.
    Strict,
}

/// A request and what must become of it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Test {
    /// `GET /api/v1/tasks`
    pub request: Located<String>,
    #[serde(default)]
    pub headers: Named<Located<String>>,
    /// The body, as it is sent. Default: none.
    #[serde(default)]
    pub body: Option<String>,
    /// Address of the client. Default 192.0.2.1.
    pub from: Option<Address>,
    pub expect: Expect,
}

/// What must become of a request. Everything that is given must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Expect {
    /// Status of the answer; 200 when the upstream is reached.
    pub status: Option<Located<u16>>,
    /// Code of the refusal.
    pub code: Option<Located<String>>,
    /// Name of the matched route.
    pub route: Option<Located<String>>,
    /// Name of the upstream that is reached.
    pub upstream: Option<Located<String>>,
    /// Path and query that the upstream is sent.
    pub target: Option<Located<String>>,
    /// Fields of the answer, exact; `null` for one that must not be there.
    pub headers: Named<Option<Located<String>>>,
    /// Fields that the upstream is sent, exact; `null` for one that must not be there.
    pub upstream_headers: Named<Option<Located<String>>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes_max: Size(32 * 1024),
            headers_max: built_in(100),
            header_timeout: seconds(10),
            body_timeout: seconds(30),
            body_bytes_per_second_min: 100,
            idle_timeout: seconds(75),
            upgrade_idle_timeout: seconds(3600),
            connections_max: built_in(10_000),
            connections_per_address_max: built_in(1_000),
            buckets_max: built_in(1_000_000),
            body_memory_max: built_in(Size(128 * 1024 * 1024)),
            in_flight_max: None,
            memory_max: None,
            lag_max: None,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { series_max: 10_000 }
    }
}

fn seconds(seconds: u64) -> Period {
    Period(Duration::from_secs(seconds))
}

/// A value that no file holds.
fn built_in<T>(value: T) -> Located<T> {
    Located::new(value, Place::UNKNOWN)
}

fn none_written() -> Located<Vec<Certificate>> {
    built_in(Vec::new())
}
