//! What filters and handlers are compiled against.

use std::sync::Arc;

use crate::config::{self, load::Config};
use crate::contract::Known;
use crate::gateway::Services;
use crate::identity::Identity;

/// The state of the process, and what the configuration says of it.
pub fn known(config: &Config, identity: &Arc<Identity>, services: &Services) -> Known {
    Known {
        identity: Arc::clone(identity),
        limits: Arc::clone(&services.limits),
        replay: Arc::clone(&services.replay),
        inboxes: Arc::clone(&services.inboxes),
        is_shared: config.root.state.is_shared(),
        keeps_messages: !matches!(config.root.state, config::State::Memory),
        upstreams: super::names(config).upstreams.iter().map(|name| (*name).to_owned()).collect(),
        files: Arc::clone(&config.attached),
        #[cfg(feature = "plugins")]
        plugins: Arc::clone(&services.plugins),
    }
}
