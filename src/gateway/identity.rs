//! What a configuration says about identity, from all its files.

use std::sync::Arc;

use super::compile::{all, unique};
use crate::config::load::Config;
use crate::identity::{Identity, Shared, Written};
use crate::yaml::Problem;

pub fn identity(config: &Config, shared: &Arc<Shared>, problems: &mut Vec<Problem>) -> Arc<Identity> {
    let root = &config.root;
    let roles = unique("role", root.roles.iter().map(|(name, role)| (name, role)), problems);
    let issuers = unique("issuer", root.issuers.iter().map(|(name, issuer)| (name, issuer)), problems);
    let consumers = all(config, |fragment| &fragment.consumers, &root.consumers);
    let consumers = unique("consumer", consumers.map(|consumer| (&consumer.name, consumer)), problems);
    let consumers = consumers.into_iter().map(|(_, consumer)| consumer).collect();
    let users = all(config, |fragment| &fragment.users, &root.users).collect();
    let services = root.token_services.iter().map(|(name, service)| (name, service));
    let token_services = unique("token service", services, problems);
    Identity::compile(
        &Written { roles, issuers, consumers, base: config.base.clone(), users, token_services },
        shared,
        problems,
    )
}
