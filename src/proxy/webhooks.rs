//! What became of webhooks: counted, and told to the webhook log.

use std::time::Duration;

use super::exchange::Exchange;
use crate::clock;
use crate::context::results::ACCEPTED;
use crate::observe::webhooks::{Event, Received, WebhookLog, What};

/// Records the webhook that a request was, once it is answered with `status`.
pub fn record(x: &Exchange, status: u16, duration: Duration, log: Option<&WebhookLog>) {
    let (Some(context), Some(route)) = (&x.context, &x.route) else { return };
    let Some(webhook) = &context.webhook else { return };
    route.metrics.webhook(&webhook.provider, webhook.result);
    if webhook.result == ACCEPTED {
        route.metrics.webhook_answered(&webhook.provider, (200..300).contains(&status));
    }
    let Some(log) = log else { return };
    log.record(&Event {
        time: clock::wall().checked_sub(duration).unwrap_or(std::time::UNIX_EPOCH),
        request_id: Some(context.request_id.as_str()),
        route: Some(&context.route),
        provider: Some(&webhook.provider),
        delivery: webhook.delivery.as_deref(),
        what: What::Received(Received {
            result: webhook.result,
            status,
            code: x.code.map(|code| code.name),
            client: context.client,
            bytes: x.body_bytes_in,
            duration,
        }),
    });
}

#[cfg(test)]
mod tests {
    use crate::context::results;

    #[test]
    fn the_page_explains_every_result() {
        let page = include_str!("../../docs/operations.md");
        for (result, _) in results::ALL {
            let row = |line: &&str| line.starts_with("| `") && line.contains(&format!("`{result}`"));
            assert!(page.lines().any(|line| row(&line)), "{result}");
        }
    }
}
