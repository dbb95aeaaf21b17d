//! The end of an exchange: counted, logged, and all that it held let go.

use http::request::Parts;

use super::exchange::Exchange;
use super::phases::App;
use super::report::{self, Answered};
use super::webhooks;
use crate::caller::Credential;
use crate::clock;

impl App {
    /// Called once for every request that had a head, whichever engine drove it. `head`: as the chain left it.
    pub(super) fn finished(&self, head: &Parts, answered: Answered, x: &mut Exchange) {
        let status = answered.status;
        let now = clock::now();
        x.finished = Some(now);
        let duration = now.saturating_duration_since(x.started);
        if let Some(route) = &x.route {
            route.metrics.finished(&head.method, status, duration, x.body_bytes_in, answered.bytes);
            if let Some(code) = x.code {
                route.metrics.refused(code.name);
            }
            if let Some(context) = &x.context {
                route.count_limits(&context.standings);
            }
        }
        webhooks::record(x, status, duration, self.webhook_log.as_deref());
        x.in_flight = None;
        if let Some(forward) = &mut x.forward {
            forward.end();
        }
        if let Some(context) = &x.context
            && let Some(Credential::Key { id, managed: true, .. }) =
                context.caller.as_ref().map(|caller| &caller.credential)
        {
            let managed = x.gateway.identity.shared().managed();
            managed.count(id, &context.route, status, clock::wall());
        }
        if let Some(log) = &self.access_log {
            report::access(log, head, x, answered, duration);
        }
    }
}
