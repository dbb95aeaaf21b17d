//! The first question about a request whose route is known: can the gateway take it on at all?

use http::HeaderValue;
use http::header::RETRY_AFTER;

use super::decide::Decision;
use super::exchange::Exchange;
use super::phases::App;
use crate::reply::{Code, Rejection};

/// When to ask again, in seconds.
const AGAIN: HeaderValue = HeaderValue::from_static("1");

impl App {
    /// Takes a place for a request, or refuses it. Nothing of its chain has run by then.
    pub(super) fn shed(&self, x: &mut Exchange) -> Option<Decision> {
        let route = x.route.as_ref()?;
        let reason = match self.overload.admit(route.priority?) {
            Ok(place) => {
                x.place = place;
                return None;
            }
            Err(reason) => reason,
        };
        route.metrics.shed(reason.name());
        // As for every refusal before a filter ran: the response hooks of the default ones, which each chain begins with.
        x.reached = x.gateway.fallback().chain.links().len();
        let rejection = Rejection::new(Code::OVERLOADED, "the gateway has as much to do as it may have");
        Some(Decision::Refuse(Box::new(rejection.with_field(RETRY_AFTER, AGAIN))))
    }
}
