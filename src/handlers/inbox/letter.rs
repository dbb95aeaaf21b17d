//! From a request to the message that is stored.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::CONNECTION;

use super::order::Order;
use crate::client::{self, Guarded, PeerText};
use crate::context::{Context, hex};
use crate::head::{Fields, HeaderName, HeaderValue, Headers, OF_THE_CONNECTION, RequestHead, is_normal_path};
use crate::inbox::Message;
use crate::reply::{Code, Rejection};
use crate::template::{Escape, Template};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How a message is made.
pub struct Letter<'a> {
    pub inbox: &'a Arc<str>,
    pub path: Option<&'a Template>,
    pub order: &'a Order,
}

impl Letter<'_> {
    /// The message of a request that arrived `now`.
    pub fn write(
        &self,
        request: &dyn RequestHead,
        body: Bytes,
        context: &Context,
        now: SystemTime,
    ) -> Result<Message, Box<Rejection>> {
        let millis = u64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let id = id(millis, fastrand::u128(..));
        let webhook = context.webhook.as_deref();
        let delivery = webhook.and_then(|webhook| webhook.delivery.as_deref()).unwrap_or(&id).to_owned();
        Ok(Message {
            inbox: Arc::clone(self.inbox),
            delivery,
            order: self.order.key(request, &body),
            received: UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(now),
            request_id: context.request_id.as_str().to_owned(),
            route: context.route.to_string(),
            provider: webhook.map(|webhook| webhook.provider.to_string()),
            method: request.method().to_string(),
            target: self.target(request, context)?,
            fields: fields(request, context),
            id,
            body,
        })
    }

    fn target(&self, request: &dyn RequestHead, context: &Context) -> Result<String, Box<Rejection>> {
        let path = match self.path {
            None => request.path().to_owned(),
            Some(template) => {
                let mut path = Vec::new();
                template.render(request, context, Escape::None, &mut path);
                let path = String::from_utf8(path).ok().filter(|path| is_normal_path(path));
                path.ok_or_else(|| {
                    Box::new(Rejection::new(Code::BAD_REQUEST, "this request would be delivered to no sound path"))
                })?
            }
        };
        Ok(match request.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        })
    }
}

/// 48 bits of milliseconds, then chance: in the order of arrival as far as clocks agree.
fn id(millis: u64, chance: u128) -> String {
    let bits = u128::from(millis) << 80 | chance >> 48;
    String::from_utf8_lossy(&hex(bits)).into_owned()
}

/// The fields as an upstream would get them.
fn fields(request: &dyn RequestHead, context: &Context) -> Vec<(String, Vec<u8>)> {
    let mut fields = Fields::default();
    request.all(&mut |name, value| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            fields.append(&name, value);
        }
    });
    let mut nominated = Vec::new();
    request.each(&CONNECTION, &mut |value| {
        let names = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        nominated.extend(names.filter_map(|name| HeaderName::from_bytes(name).ok()));
    });
    nominated.iter().chain(&OF_THE_CONNECTION).for_each(|name| fields.remove(name));
    // The worker's own: in no spelling that a service may take for it.
    Guarded::new([IDEMPOTENCY_KEY].iter()).strip(&mut fields);
    client::announce(&mut fields, context, &PeerText::new(context.peer));
    let mut kept = Vec::new();
    fields.all(&mut |name, value| kept.push((name.to_owned(), value.to_vec())));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_digits_and_sort_by_time() {
        assert_eq!(id(1, 0), "00000000000100000000000000000000");
        assert_eq!(id(1_767_268_800_123, u128::MAX), "019b796dd67bffffffffffffffffffff");
        assert!(id(1, u128::MAX) < id(2, 0));
    }
}
