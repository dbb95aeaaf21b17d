//! Who may register which services, and where these may be.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::compile::all;
use crate::config::load::Config;
use crate::config::{self, DiscoverySource};
use crate::types::Period;
use crate::upstream::discovery::registry::check_service;
use crate::yaml::Problem;

/// How long a service is taken to be there at most.
const TTL_MAX: Duration = Duration::from_secs(300);
/// What `ttl_max` may be.
const TTL_LEAST: Period = Period(Duration::from_secs(1));
const TTL_MOST: Period = Period(Duration::from_secs(24 * 3600));
/// Shortest token, in characters.
const TOKEN_CHARS_MIN: usize = 16;

/// What services need to register themselves.
#[derive(Clone, Debug)]
pub struct Registry {
    tokens: Vec<Token>,
    allow: Vec<IpNet>,
    /// Where this gateway listens.
    own: Vec<SocketAddr>,
    pub ttl_max: Duration,
}

/// A token that services register with.
#[derive(Clone, Debug)]
pub struct Token {
    digest: [u8; 32],
    /// `None`: all.
    services: Option<Vec<String>>,
}

impl Token {
    /// Whether it is good for this service.
    pub fn covers(&self, service: &str) -> bool {
        self.services.as_ref().is_none_or(|services| services.iter().any(|known| known == service))
    }
}

impl Registry {
    /// The token that was presented, if it is one. All are compared, each in the same time.
    pub fn token(&self, presented: &str) -> Option<&Token> {
        let digest = Sha256::digest(presented.as_bytes());
        let mut found = None;
        for token in &self.tokens {
            if bool::from(token.digest.as_slice().ct_eq(digest.as_slice())) {
                found = Some(token);
            }
        }
        found
    }

    /// Whether a service may be at this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow.iter().any(|network| network.contains(&address))
    }

    /// Whether connections to this address would come back to the gateway, perhaps to its admin address, which asks nobody who
    /// he is. Of the addresses of this machine only loopback is known.
    pub fn is_own(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let leads_to = |own: &SocketAddr| {
            let bound = own.ip().to_canonical();
            bound == ip || (bound.is_unspecified() && ip.is_loopback())
        };
        self.own.iter().any(|own| own.port() == address.port() && leads_to(own))
    }
}

/// Compiles `registry`, and says where services are asked for that nobody could register.
pub fn registry(config: &Config, problems: &mut Vec<Problem>) -> Option<Registry> {
    let Some(written) = &config.root.registry else {
        if !config.root.state.is_shared() {
            check_unregistered(config, problems);
        }
        return None;
    };
    let (tokens, allow) = (&written.tokens, &written.allow);
    if tokens.is_empty() {
        let problem = Problem::new(tokens.place, "nobody can register without a token");
        problems.push(problem.with_hint("write `tokens: [{ token: \"${REGISTRY_TOKEN}\" }]`"));
    }
    if allow.is_empty() {
        let problem = Problem::new(allow.place, "no address can be registered");
        problems.push(problem.with_hint("name the networks that services are in, such as 10.0.0.0/8"));
    }
    if config.root.admin.is_none() {
        let problem = Problem::new(tokens.place, "services register at the admin address, and there is none");
        problems.push(problem.with_hint("add `admin: { bind: … }`"));
    }
    let ttl_max = written.ttl_max.map_or(TTL_MAX, |ttl| ttl.within("ttl_max", TTL_LEAST..=TTL_MOST, problems).0);
    let admin = config.root.admin.iter().map(|admin| admin.bind.value.0);
    let listeners = config.root.listeners.iter().map(|listener| listener.bind.value.0);
    Some(Registry {
        tokens: tokens.iter().map(|token| compile(token, problems)).collect(),
        allow: allow.iter().map(|network| network.0).collect(),
        own: admin.chain(listeners).collect(),
        ttl_max,
    })
}

fn compile(written: &config::RegistryToken, problems: &mut Vec<Problem>) -> Token {
    let token = written.token.value.expose();
    if token.chars().count() < TOKEN_CHARS_MIN {
        let message = format!("the token of a registry has {TOKEN_CHARS_MIN} characters or more");
        problems.push(Problem::new(written.token.place, message).with_hint("make one with: openssl rand -base64 32"));
    }
    for service in written.services.iter().flat_map(|services| &services.value) {
        check_service(service, problems);
    }
    let services = written.services.as_ref();
    Token {
        digest: Sha256::digest(token.as_bytes()).into(),
        services: services.map(|services| services.iter().map(|service| service.value.clone()).collect()),
    }
}

/// Upstreams whose services nobody can register: neither here, nor at another gateway with the same store.
fn check_unregistered(config: &Config, problems: &mut Vec<Problem>) {
    for (name, upstream) in all(config, |fragment| &fragment.upstreams, &config.root.upstreams) {
        let source = upstream.discovery.as_ref().and_then(|discovery| discovery.read().ok());
        let Some(source) = source.filter(|source| matches!(source.value, DiscoverySource::Registry(_))) else {
            continue;
        };
        let message = format!("nobody can register a service for upstream `{}`", name.value);
        let hint = "add `registry: { tokens: […], allow: […] }` to gateway.yaml";
        problems.push(Problem::new(source.place, message).with_hint(hint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_gateway_listens_on_all_addresses_loopback_is_its_own() {
        let own = ["0.0.0.0:8000", "[::]:9000", "10.0.0.1:9900"].map(|own| own.parse().unwrap()).to_vec();
        let registry = Registry { tokens: Vec::new(), allow: Vec::new(), own, ttl_max: TTL_MAX };
        let is_own = |address: &str| registry.is_own(address.parse().unwrap());
        for own in ["127.0.0.1:8000", "127.9.9.9:9000", "[::1]:8000", "[::ffff:127.0.0.1]:9000", "10.0.0.1:9900"] {
            assert!(is_own(own), "{own}");
        }
        for other in ["127.0.0.1:9900", "10.0.0.2:8000", "10.0.0.2:9900", "10.0.0.1:9901", "[fd00::1]:9000"] {
            assert!(!is_own(other), "{other}");
        }
    }
}
