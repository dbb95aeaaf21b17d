//! The limits of a snapshot, from its routes.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::chain::Link;
use crate::contract::Limit;
use crate::gateway::Gateway;

/// A bucket, and the filters that count in it.
pub struct Listed<'a> {
    /// The name of the filter.
    pub kind: &'static str,
    /// As the first filter says it.
    pub limit: &'a Limit,
    pub uses: Vec<Used<'a>>,
}

/// A filter that counts in a bucket.
pub struct Used<'a> {
    pub link: &'a Link,
    pub limit: &'a Limit,
    pub routes: Vec<&'a str>,
}

/// Every limit that a route has, in the order of the routes. Two filters of one kind and bucket are one limit.
pub fn all(gateway: &Gateway) -> Vec<Listed<'_>> {
    let mut found: IndexMap<(&str, &str), IndexMap<u64, Used<'_>>> = IndexMap::new();
    for route in gateway.routes().iter().chain([gateway.fallback()]) {
        for link in route.chain.links() {
            let link: &Arc<Link> = link;
            let Some(limit) = &link.limit else { continue };
            let uses = found.entry((link.name, &limit.bucket)).or_default();
            let used = uses.entry(link.number).or_insert_with(|| Used { link, limit, routes: Vec::new() });
            // A route may use a chain twice.
            if used.routes.last() != Some(&&*route.name) {
                used.routes.push(&route.name);
            }
        }
    }
    let listed = found.into_values().filter_map(|uses| {
        let uses: Vec<Used<'_>> = uses.into_values().collect();
        let first = uses.first()?;
        Some(Listed { kind: first.link.name, limit: first.limit, uses })
    });
    listed.collect()
}
