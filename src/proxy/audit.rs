//! What filters decided about the caller: told to the audit log, and counted.

use http::request::Parts;

use super::exchange::Exchange;
use crate::clock;
use crate::observe::audit::Event;

/// Records all decisions of one walk along the chain.
pub fn record(head: &Parts, x: &Exchange) {
    let (Some(context), Some(route)) = (&x.context, &x.route) else { return };
    for decision in &context.decisions {
        route.metrics.decided(decision.by, decision.kind, decision.reason);
    }
    let Some(log) = x.gateway.identity.shared().audit().filter(|_| !context.decisions.is_empty()) else { return };
    let time = clock::wall();
    let target = x.original.as_ref().unwrap_or(&head.uri);
    for decision in &context.decisions {
        log.record(&Event {
            time,
            request_id: context.request_id.as_str(),
            by: decision.by,
            allowed: decision.allowed,
            kind: decision.kind,
            reason: decision.reason,
            consumer: context.caller.as_ref().map(|caller| &*caller.name),
            credential: context.caller.as_ref().and_then(|caller| caller.credential.id()),
            client: context.client,
            method: head.method.as_str(),
            path: target.path(),
            route: Some(&context.route),
        });
    }
}
