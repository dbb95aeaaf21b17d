//! What unit tests of other layers need of this one.

use std::sync::Arc;

use super::Live;
use crate::config::load::Overrides;
use crate::gateway::Gateway;

impl Live {
    /// Puts in place what the files hold, changed so; tells nobody.
    pub fn place(&self, change: impl FnOnce(&mut Gateway)) {
        let made = self.build.make(&Overrides::new(), None);
        let mut gateway = made.map_err(|failed| failed.rendered()).unwrap().gateway;
        change(&mut gateway);
        self.current.store(Arc::new(gateway));
    }
}
