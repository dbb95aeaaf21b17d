//! What a configuration says about identity, from all its files.

use std::sync::Arc;

use super::compile::{all, unique};
use crate::config::Tls;
use crate::config::load::Config;
use crate::identity::{CertificateSettings, ConsumerSettings, Identity, Shared, Written};
use crate::yaml::Problem;

pub fn identity(config: &Config, shared: &Arc<Shared>, problems: &mut Vec<Problem>) -> Arc<Identity> {
    let root = &config.root;
    let roles = unique("role", root.roles.iter().map(|(name, role)| (name, role)), problems);
    let issuers = unique("issuer", root.issuers.iter().map(|(name, issuer)| (name, issuer)), problems);
    let consumers = all(config, |fragment| &fragment.consumers, &root.consumers);
    let consumers = unique("consumer", consumers.map(|consumer| (&consumer.name, consumer)), problems);
    let consumers: Vec<&ConsumerSettings> = consumers.into_iter().map(|(_, consumer)| consumer).collect();
    check_authorities(config, &consumers, problems);
    let users = all(config, |fragment| &fragment.users, &root.users).collect();
    let services = root.token_services.iter().map(|(name, service)| (name, service));
    let token_services = unique("token service", services, problems);
    Identity::compile(
        &Written { roles, issuers, consumers, base: config.base.clone(), users, token_services },
        shared,
        problems,
    )
}

/// A name in a certificate is worth what its authority is. Where listeners trust different ones, the authority of one could
/// name the consumers of the other: then only a fingerprint says who somebody is.
fn check_authorities(config: &Config, consumers: &[&ConsumerSettings], problems: &mut Vec<Problem>) {
    let listeners = config.root.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let mut authorities = listeners.filter_map(|tls: &Tls| tls.client_ca.as_ref());
    let Some(first) = authorities.next() else { return };
    let Some(other) = authorities.find(|other| other.value != first.value) else { return };
    for certificate in consumers.iter().flat_map(|consumer| &consumer.certificates) {
        let (CertificateSettings::Subject(name) | CertificateSettings::San(name)) = certificate else { continue };
        let message = format!("`{}` may be given to anybody by the authorities of two listeners", name.value);
        let hint = "name the certificate by its `sha256`, or let all listeners have one `client_ca`";
        problems.push(Problem::new(name.place, message).with_hint(hint).with_related("the other one", other.place));
    }
}
