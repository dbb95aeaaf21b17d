//! Targets from the DNS: every address of a name, or what its SRV records say.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{TokioResolver, proto::op::ResponseCode};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Endpoint;
use super::endpoint::settled;
use super::follow::Looked;
use super::settings::STALE;
use crate::clock;
use crate::config::{DnsDiscovery, DnsRecords};
use crate::types::Period;
use crate::upstream::spec::TARGETS_MAX;
use crate::yaml::Problem;

/// How long one name server is waited for.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one look-up may take in all.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(8);
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(300);
/// Most names that SRV records lead to.
const NAMES_MAX: usize = 256;
/// Most name servers.
const SERVERS_MAX: usize = 8;
const TTL_LEAST: Period = Period(Duration::from_millis(100));
const HOUR: Period = Period(Duration::from_secs(3600));
const DAY: Period = Period(Duration::from_secs(24 * 3600));

/// The settings, checked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    name: String,
    port: u16,
    records: DnsRecords,
    servers: Vec<SocketAddr>,
    ttl_min: Duration,
    ttl_max: Duration,
    stale_max: Option<Duration>,
}

impl Settings {
    pub fn check(written: &DnsDiscovery, problems: &mut Vec<Problem>) -> Self {
        let name = &written.name;
        if !is_name(&name.value) {
            let problem = Problem::new(name.place, format!("`{}` is no name of the DNS", name.value));
            problems.push(problem.with_hint("write a name such as tasks.internal; an address needs no discovery"));
        }
        let port = written.port.as_ref();
        match (written.records, port) {
            (DnsRecords::Srv, Some(port)) => {
                problems
                    .push(Problem::new(port.place, "SRV records bring their own ports").with_hint("leave `port` out"));
            }
            (DnsRecords::Srv, None) => {}
            (_, None) => {
                let problem = Problem::new(name.place, "addresses of the DNS need a `port`");
                problems.push(problem.with_hint("write `port: 9101`, or `type: srv` for records that bring one"));
            }
            (_, Some(port)) if port.value == 0 => {
                problems.push(Problem::new(port.place, "port 0 cannot be connected to"));
            }
            (_, Some(_)) => {}
        }
        let servers = written.resolver.as_ref();
        if let Some(servers) = servers.filter(|servers| servers.is_empty() || servers.len() > SERVERS_MAX) {
            let message = format!("`resolver` takes 1 to {SERVERS_MAX} name servers, not {}", servers.len());
            problems.push(Problem::new(servers.place, message).with_hint("leave it out for those of the system"));
        }
        let ttl_min = written.ttl_min.map_or(TTL_MIN, |it| it.within("ttl_min", TTL_LEAST..=HOUR, problems).0);
        let ttl_max = written.ttl_max.map(|it| it.within("ttl_max", TTL_LEAST..=DAY, problems).0);
        if let (Some(written), Some(max)) = (&written.ttl_max, ttl_max.filter(|max| *max < ttl_min)) {
            let message = format!("`ttl_max` ({max:?}) is less than `ttl_min` ({ttl_min:?})");
            problems.push(Problem::new(written.place, message));
        }
        Self {
            // One that ends in a dot is the same; which one was meant, the resolver says.
            name: name.value.to_ascii_lowercase(),
            port: port.map_or(0, |port| port.value),
            records: written.records,
            servers: servers.map(|servers| servers.iter().map(|server| server.0).collect()).unwrap_or_default(),
            ttl_min,
            ttl_max: ttl_max.unwrap_or(TTL_MAX.max(ttl_min)),
            stale_max: written.stale_max.map(|it| it.within("stale_max", STALE, problems).0),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn stale_max(&self) -> Option<Duration> {
        self.stale_max
    }

    /// As it is asked for: where the name servers are named, a name is whole and no search list counts.
    fn asked(&self) -> String {
        if self.servers.is_empty() || self.name.ends_with('.') { self.name.clone() } else { format!("{}.", self.name) }
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self.servers.iter().map(|address| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = address.port();
                    connection
                });
                NameServerConfig::new(address.ip(), true, connections.to_vec())
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = SERVER_TIMEOUT;
        options.attempts = 1;
        // What is asked here is asked when its time has come.
        options.cache_size = 0;
        if !self.servers.is_empty() {
            options.use_hosts_file = ResolveHosts::Never;
        }
        builder.build()
    }
}

/// A name, asked for again and again.
pub struct Dns {
    settings: Settings,
    /// Made anew after a failure: the name servers of the system may be others by now.
    resolver: Option<TokioResolver>,
    /// The last good answers by name and type, for those that give none.
    known: HashMap<Question, Known<IpAddr>>,
    known_services: Known<Service>,
}

type Question = (String, RecordType);

/// A good answer, and when it came.
#[derive(Clone)]
struct Known<T> {
    found: Vec<T>,
    at: Instant,
}

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    priority: u16,
    weight: u16,
    port: u16,
    host: String,
}

/// An answer, and how long it is good.
struct Answer<T> {
    found: Vec<T>,
    ttl: Duration,
}

/// What was answered to a question for one type of records.
type Answered = (RecordType, Result<Answer<IpAddr>, NoAnswer>);

/// Why there is no answer.
#[derive(Clone, Debug)]
enum NoAnswer {
    /// The name has no such record, or is not there at all.
    Empty(&'static str),
    Failed(String),
}

impl Dns {
    pub fn new(settings: &Settings) -> Self {
        let known_services = Known { found: Vec::new(), at: clock::now() };
        Self { settings: settings.clone(), resolver: None, known: HashMap::new(), known_services }
    }

    pub async fn look(&mut self) -> Result<Looked, String> {
        if self.resolver.is_none() {
            let made = self.settings.resolver().map_err(|error| format!("there is no name server to ask: {error}"))?;
            self.resolver = Some(made);
        }
        let Some(resolver) = self.resolver.clone() else { return Err("there is no name server to ask".to_owned()) };
        let looked = match self.settings.records {
            DnsRecords::Srv => self.services(&resolver).await,
            DnsRecords::Both | DnsRecords::A | DnsRecords::Aaaa => self.addresses(&resolver).await,
        };
        if !looked.as_ref().is_ok_and(|looked| looked.lacking.is_none()) {
            self.resolver = None;
        }
        looked
    }

    async fn addresses(&mut self, resolver: &TokioResolver) -> Result<Looked, String> {
        let name = self.settings.asked();
        let found = self.resolve(resolver, vec![name.clone()]).await;
        let Some(addresses) = found.by_name.get(&name).filter(|addresses| !addresses.is_empty()) else {
            return Err(found.lacking.unwrap_or_else(|| format!("`{name}` has no address")));
        };
        let port = self.settings.port;
        let endpoint = |address: &IpAddr| Endpoint::new(SocketAddr::new(*address, port).to_string());
        let endpoints = settled(addresses.iter().map(endpoint).collect());
        Ok(Looked { endpoints, lacking: found.lacking, pause: self.bounded(found.ttl) })
    }

    async fn services(&mut self, resolver: &TokioResolver) -> Result<Looked, String> {
        let asked = self.settings.asked();
        let answer = lookup(resolver, &asked, RecordType::SRV).await;
        let answer = answer.and_then(|lookup| records(&lookup, service, "it has no SRV record"));
        let (mut ttl, mut lacking) = (self.settings.ttl_max, None);
        match answer {
            Ok(answer) => {
                ttl = answer.ttl;
                self.known_services = Known { found: answer.found, at: clock::now() };
            }
            Err(why) if self.usable(&self.known_services).is_empty() => return Err(why.words(&asked)),
            Err(why) => lacking = Some(why.words(&asked)),
        }
        let services = self.known_services.found.clone();
        let mut names: Vec<String> = services.iter().map(|service| service.host.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(NAMES_MAX);
        let found = self.resolve(resolver, names).await;
        ttl = ttl.min(found.ttl);
        lacking = lacking.or(found.lacking);
        let endpoints = endpoints(&services, &found.by_name);
        if endpoints.is_empty() {
            return Err(lacking.unwrap_or_else(|| format!("the SRV records of `{asked}` lead to no address")));
        }
        Ok(Looked { endpoints, lacking, pause: self.bounded(ttl) })
    }

    /// The addresses of these names; of one that gives none, what it gave last.
    async fn resolve(&mut self, resolver: &TokioResolver, names: Vec<String>) -> Resolved {
        let types: &[RecordType] = match self.settings.records {
            DnsRecords::A => &[RecordType::A],
            DnsRecords::Aaaa => &[RecordType::AAAA],
            DnsRecords::Both | DnsRecords::Srv => &[RecordType::A, RecordType::AAAA],
        };
        let mut lookups = JoinSet::new();
        for name in names {
            for kind in types.iter().copied() {
                let (resolver, name) = (resolver.clone(), name.clone());
                lookups.spawn(async move {
                    let answer = lookup(&resolver, &name, kind).await;
                    (answer.and_then(|lookup| records(&lookup, address, "it has no address")), (name, kind))
                });
            }
        }
        let mut answers: HashMap<String, Vec<Answered>> = HashMap::new();
        for (answer, (name, kind)) in lookups.join_all().await {
            answers.entry(name).or_default().push((kind, answer));
        }
        let mut resolved = Resolved { by_name: HashMap::new(), ttl: self.settings.ttl_max, lacking: None };
        let known = std::mem::take(&mut self.known);
        for (name, answers) in answers {
            let addresses = self.of_one_name(&name, answers, &known, &mut resolved);
            resolved.by_name.insert(name, addresses);
        }
        resolved
    }

    fn of_one_name(
        &mut self,
        name: &str,
        answers: Vec<Answered>,
        known: &HashMap<Question, Known<IpAddr>>,
        resolved: &mut Resolved,
    ) -> Vec<IpAddr> {
        // A name without addresses of one kind is sound as long as it has some of the other.
        let any = answers.iter().any(|(_, answer)| answer.is_ok());
        let mut addresses = Vec::new();
        for (kind, answer) in answers {
            let question = (name.to_owned(), kind);
            let before = known.get(&question).filter(|known| !self.usable(known).is_empty());
            let found = match answer {
                Ok(answer) => {
                    resolved.ttl = resolved.ttl.min(answer.ttl);
                    Known { found: answer.found, at: clock::now() }
                }
                Err(NoAnswer::Empty(_)) if any => continue,
                // A server that cannot be asked for the one kind, and never could.
                Err(NoAnswer::Failed(_)) if any && before.is_none() => continue,
                Err(why) => {
                    resolved.lacking.get_or_insert_with(|| why.words(name));
                    let Some(before) = before else { continue };
                    before.clone()
                }
            };
            addresses.extend(found.found.iter().copied());
            self.known.insert(question, found);
        }
        addresses
    }

    /// What was answered before, unless it is too old.
    fn usable<'a, T>(&self, known: &'a Known<T>) -> &'a [T] {
        let age = clock::now().saturating_duration_since(known.at);
        if self.settings.stale_max.is_some_and(|max| age >= max) { &[] } else { &known.found }
    }

    fn bounded(&self, ttl: Duration) -> Duration {
        ttl.clamp(self.settings.ttl_min, self.settings.ttl_max)
    }
}

/// What names came to.
struct Resolved {
    by_name: HashMap<String, Vec<IpAddr>>,
    ttl: Duration,
    /// Why some of it is what was known before, or missing.
    lacking: Option<String>,
}

impl NoAnswer {
    fn words(&self, name: &str) -> String {
        match self {
            Self::Empty(why) => format!("`{name}`: {why}"),
            Self::Failed(why) => format!("`{name}`: {why}"),
        }
    }
}

async fn lookup(resolver: &TokioResolver, name: &str, kind: RecordType) -> Result<Lookup, NoAnswer> {
    match timeout(LOOKUP_TIMEOUT, resolver.lookup(name, kind)).await {
        Ok(Ok(lookup)) => Ok(lookup),
        Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => match none.response_code {
            ResponseCode::NXDomain => Err(NoAnswer::Empty("there is no such name (NXDOMAIN)")),
            ResponseCode::NoError => Err(NoAnswer::Empty("it has no such record")),
            code => Err(NoAnswer::Failed(format!("the name server answers {code}"))),
        },
        Ok(Err(NetError::Dns(DnsError::ResponseCode(code)))) => {
            Err(NoAnswer::Failed(format!("the name server answers {code}")))
        }
        Ok(Err(NetError::Timeout)) | Err(_) => Err(NoAnswer::Failed("no name server answers in time".to_owned())),
        Ok(Err(error)) => Err(NoAnswer::Failed(error.to_string())),
    }
}

/// The records of one kind in an answer, and the shortest time that any of it is good.
fn records<T>(lookup: &Lookup, of: fn(&RData) -> Option<T>, empty: &'static str) -> Result<Answer<T>, NoAnswer> {
    let found: Vec<T> = lookup.answers().iter().filter_map(|record| of(&record.data)).take(TARGETS_MAX).collect();
    // Names that lead to others count: they, too, have their time.
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
    if found.is_empty() {
        return Err(NoAnswer::Empty(empty));
    }
    Ok(Answer { found, ttl: Duration::from_secs(ttl.into()) })
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

fn service(data: &RData) -> Option<Service> {
    let RData::SRV(record) = data else { return None };
    // `.`: the service is decidedly not there (RFC 2782).
    if record.target.is_root() || record.port == 0 {
        return None;
    }
    let host = record.target.to_ascii().to_ascii_lowercase();
    Some(Service { priority: record.priority, weight: record.weight, port: record.port, host })
}

/// Each address of each record. The lowest priority of those that have one is for all requests, others are backups.
fn endpoints(services: &[Service], addresses: &HashMap<String, Vec<IpAddr>>) -> Vec<Endpoint> {
    let all = services.iter().flat_map(|service| {
        let addresses = addresses.get(&service.host).map(Vec::as_slice).unwrap_or_default();
        addresses.iter().map(move |address| (service, SocketAddr::new(*address, service.port)))
    });
    let lowest = all.clone().map(|(service, _)| service.priority).min().unwrap_or_default();
    let endpoint = |(service, address): (&Service, SocketAddr)| Endpoint {
        backup: service.priority > lowest,
        weight: service.weight,
        ..Endpoint::new(address.to_string())
    };
    settled(all.map(endpoint).collect())
}

/// Whether it can be asked for: labels of letters, digits, `-` and `_`, and no address.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label) && name.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests;
