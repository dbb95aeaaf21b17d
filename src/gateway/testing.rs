//! What unit tests of this layer share.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Gateway, Services, compile};
use crate::chain::{Chain, Link};
use crate::config::load::{Environment, Overrides, load};
use crate::contract::{Filter, Step};
use crate::observe::metrics::Metrics;
use crate::yaml::Place;

/// Compiles the text of a `gateway.yaml`; `Err` holds every problem as it is rendered.
pub fn try_gateway(text: &str, previous: Option<&Gateway>, metrics: &Arc<Metrics>) -> Result<Gateway, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    std::fs::write(&path, text).unwrap();
    let loaded = load(&path, &Environment::Fixed(HashMap::new()), &Overrides::new());
    let (sources, problems) = match loaded.config {
        Ok(config) => {
            match compile(&config, loaded.sources, loaded.hash, previous, &Services::new(Arc::clone(metrics))) {
                Ok(gateway) => return Ok(gateway),
                Err(broken) => broken,
            }
        }
        Err(problems) => (loaded.sources, problems),
    };
    Err(problems.iter().map(|problem| sources.render(problem)).collect::<Vec<_>>().join("\n"))
}

pub fn gateway(text: &str) -> Gateway {
    try_gateway(text, None, &Metrics::new(100)).unwrap_or_else(|problems| panic!("{problems}"))
}

impl Gateway {
    /// Puts a filter before those of every route.
    pub fn put_first(&mut self, filter: impl Filter) {
        let first = Arc::new(Link::new("first", Place::UNKNOWN, None, Step::filter(filter)));
        for route in self.routes.iter_mut().filter_map(Arc::get_mut) {
            route.chain = Chain::new(std::iter::once(&first).chain(route.chain.links()).cloned().collect());
        }
    }
}
