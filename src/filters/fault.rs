//! `fault`: delays requests or answers them with an error, to see how clients take it.
//!
//! Use it to rehearse a slow or failing service without touching the service. It is the one filter that waits; routes
//! without it pay nothing for that. Its neighbour is the handler `respond`, which always answers and never waits.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `delay` | how long the request is held back, at most `5m` | none |
//! | `abort` | status of the answer, 400 to 599, with the code `FAULT_INJECTED`; after the delay | none |
//! | `share` | share of the requests that are struck | `100%` |
//! | `header` | only requests that have this field | all requests |
//!
//! Whether a request is struck depends on its request id alone (its SHA-256, and the place of the filter, so that two filters
//! strike independently): a request that is tried again under the id of a trusted proxy meets the same fate.
//!
//! `tollgate test` and `explain` wait for nothing and abort only where `share` is `100%`: what happens to some requests is no
//! property of one.
//!
//! Refused when the configuration is read: neither `delay` nor `abort`, or either out of its bounds.
//!
//! Modelled on the [fault filter of Envoy](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/fault_filter).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! routes:
//!   - name: tasks
//!     match: GET /tasks
//!     filters:
//!       - fault: { delay: 200ms, abort: 503, header: X-Rehearsal }
//!     respond: { json: { tasks: [] } }
//! tests:
//!   - request: GET /tasks
//!     headers: { X-Rehearsal: "1" }
//!     expect: { status: 503, code: FAULT_INJECTED }
//!   - { request: GET /tasks, expect: { status: 200 } }
//! ```

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::context::{Context, RequestId};
use crate::contract::{AsyncFilter, Compiler, Pending, Settings, Step, Verdict};
use crate::head::{HeaderName, RequestHead, StatusCode};
use crate::reply::{Code, Rejection};
use crate::types::{Percent, Period};
use crate::yaml::{Located, Place, Problem};

const DELAY_MAX: Duration = Duration::from_secs(300);

/// Delays requests or answers them with an error.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FaultSettings {
    /// How long the request is held back, at most 5m.
    delay: Option<Located<Period>>,
    /// Status of the answer, 400 to 599; after the delay.
    #[schemars(range(min = 400, max = 599))]
    abort: Option<Located<u16>>,
    /// Share of the requests that are struck. Default 100%.
    share: Option<Percent>,
    /// Only requests that have this field.
    header: Option<Located<String>>,
}

impl Settings for FaultSettings {
    const NAME: &'static str = "fault";
    const SUMMARY: &'static str = "delays requests or answers them with an error, for rehearsals";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        if self.delay.is_none() && self.abort.is_none() {
            let problem = Problem::new(compiler.place(), "`fault` needs `delay` or `abort`");
            compiler.report(problem.with_hint("write `delay: 200ms` or `abort: 503`"));
        }
        if let Some(delay) = self.delay.filter(|delay| delay.value.0 > DELAY_MAX) {
            compiler.report(
                Problem::new(delay.place, format!("a delay of {} is too long", delay.value)).with_hint("at most 5m"),
            );
        }
        let abort = self.abort.and_then(|abort| {
            let status = StatusCode::from_u16(abort.value).ok().filter(|_| (400..=599).contains(&abort.value));
            if status.is_none() {
                let message = format!("{} is no status of an error", abort.value);
                compiler.report(Problem::new(abort.place, message).with_hint("400 to 599"));
            }
            status
        });
        let header = match &self.header {
            Some(name) => Some(compiler.field_name(name, name.place)?),
            None => None,
        };
        Some(Step::Async(Arc::new(Fault {
            delay: self.delay.map(|delay| delay.value.0),
            abort,
            share: self.share.map_or(1.0, Percent::fraction),
            header,
            salt: salt(compiler.place()),
        })))
    }
}

struct Fault {
    delay: Option<Duration>,
    abort: Option<StatusCode>,
    /// 0 to 1.
    share: f64,
    header: Option<HeaderName>,
    salt: [u8; 8],
}

impl AsyncFilter for Fault {
    fn on_request<'a>(&'a self, request: &'a mut dyn RequestHead, context: &'a mut Context) -> Pending<'a> {
        if !self.concerns(request) || !self.strikes(&context.request_id) {
            return Box::pin(std::future::ready(Verdict::Continue));
        }
        Box::pin(async {
            if let Some(delay) = self.delay {
                tokio::time::sleep(delay).await;
            }
            self.verdict()
        })
    }

    fn preview(&self, request: &mut dyn RequestHead, _: &mut Context) -> Verdict {
        if self.share >= 1.0 && self.concerns(request) { self.verdict() } else { Verdict::Continue }
    }
}

impl Fault {
    fn concerns(&self, request: &dyn RequestHead) -> bool {
        self.header.as_ref().is_none_or(|name| request.has(name))
    }

    fn strikes(&self, id: &RequestId) -> bool {
        self.share >= 1.0 || lot(id, self.salt) < self.share
    }

    fn verdict(&self) -> Verdict {
        let Some(status) = self.abort else {
            return Verdict::Continue;
        };
        let mut rejection = Rejection::new(Code::FAULT_INJECTED, "a fault was injected on purpose");
        rejection.status = status;
        Verdict::Reject(Box::new(rejection))
    }
}

/// The lot a request draws: from 0 to below 1, evenly spread.
fn lot(id: &RequestId, salt: [u8; 8]) -> f64 {
    let digest = Sha256::new().chain_update(salt).chain_update(id.as_str()).finalize();
    let bits = digest.iter().take(4).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

fn salt(place: Place) -> [u8; 8] {
    (u64::from(place.line) << 32 | u64::from(place.column)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::testing::{async_filter, context, get, refused, request};
    use crate::head::Method;
    use std::task::{Poll, Waker};

    fn status(verdict: &Verdict) -> Option<u16> {
        match verdict {
            Verdict::Continue => None,
            Verdict::Reject(rejection) => {
                assert_eq!(rejection.code, Code::FAULT_INJECTED);
                Some(rejection.status.as_u16())
            }
            Verdict::Reply(reply) => panic!("{reply:?}"),
        }
    }

    #[tokio::test]
    async fn an_abort_follows_the_delay() {
        let filter = async_filter::<FaultSettings>("{ delay: 1ms, abort: 503 }");
        let (mut request, mut context) = (get("/"), context());
        let mut pending = filter.on_request(&mut request, &mut context);
        let mut task = std::task::Context::from_waker(Waker::noop());
        assert!(matches!(pending.as_mut().poll(&mut task), Poll::Pending));
        assert_eq!(status(&pending.await), Some(503));
    }

    #[tokio::test]
    async fn a_delay_alone_lets_the_request_go_on() {
        let filter = async_filter::<FaultSettings>("{ delay: 1ms }");
        assert_eq!(status(&filter.on_request(&mut get("/"), &mut context()).await), None);
    }

    #[tokio::test]
    async fn only_requests_with_the_field_are_struck() {
        let filter = async_filter::<FaultSettings>("{ abort: 599, header: X-Rehearsal }");
        assert_eq!(status(&filter.on_request(&mut get("/"), &mut context()).await), None);
        let mut struck = request(Method::GET, "/", &[("x-rehearsal", "")]);
        assert_eq!(status(&filter.on_request(&mut struck, &mut context()).await), Some(599));
    }

    #[tokio::test]
    async fn a_share_strikes_about_so_many_and_the_same_ones_again() {
        let filter = async_filter::<FaultSettings>("{ abort: 500, share: 10% }");
        let mut struck = Vec::new();
        for _ in 0..2 {
            let mut count = 0;
            for bits in 0..2000_u128 {
                let mut context = context();
                context.request_id = RequestId::from_bits(bits);
                count += usize::from(status(&filter.on_request(&mut get("/"), &mut context).await).is_some());
            }
            struck.push(count);
        }
        assert!((140..=260).contains(&struck[0]), "{struck:?}");
        assert_eq!(struck[0], struck[1]);
        let never = async_filter::<FaultSettings>("{ abort: 500, share: 0% }");
        assert_eq!(status(&never.on_request(&mut get("/"), &mut context()).await), None);
    }

    #[test]
    fn filters_at_different_places_strike_independently() {
        let id = RequestId::from_bits(7);
        let at = |line| salt(Place { line, ..Place::UNKNOWN });
        assert!((lot(&id, at(1)) - lot(&id, at(2))).abs() > f64::EPSILON);
    }

    #[test]
    fn a_preview_aborts_at_once_and_only_where_every_request_is_struck() {
        let preview =
            |settings| status(&async_filter::<FaultSettings>(settings).preview(&mut get("/"), &mut context()));
        assert_eq!(preview("{ delay: 5m, abort: 400 }"), Some(400));
        assert_eq!(preview("{ delay: 5m }"), None);
        assert_eq!(preview("{ abort: 503, share: 99.9% }"), None);
        assert_eq!(preview("{ abort: 503, header: X-A }"), None);
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        assert!(refused::<FaultSettings>("{ share: 10% }").contains("needs `delay` or `abort`"));
        assert!(refused::<FaultSettings>("{ delay: 300001ms }").contains("at most 5m"));
        for status in ["399", "600", "200"] {
            assert!(refused::<FaultSettings>(&format!("{{ abort: {status} }}")).contains("400 to 599"), "{status}");
        }
        assert!(refused::<FaultSettings>("{ abort: 500, header: a b }").contains("no field name"));
        assert!(refused::<FaultSettings>("{ abort: 500, share: 101% }").contains("above 100%"));
    }
}
