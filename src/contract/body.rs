//! Filters that look at the body of a request.

use bytes::Bytes;

use super::{Hooks, Pending, Verdict};
use crate::context::Context;
use crate::head::{RequestHead, ResponseHead};

/// A compiled filter that decides on the head and the whole body of a request.
///
/// The body is gathered once, however many such filters a chain has, and then sent on byte for byte. Nothing of a request
/// reaches an upstream before every filter let it go on.
pub trait BodyFilter: Send + Sync + 'static {
    fn hooks(&self) -> Hooks {
        Hooks::REQUEST
    }

    /// Largest request body, in bytes; a larger one is refused with 413. The `body_max` of the route counts too.
    fn body_bytes_max(&self) -> u64;

    /// Called before the body is read: what the head alone decides costs no memory.
    fn on_head(&self, _request: &mut dyn RequestHead, _context: &mut Context) -> Verdict {
        Verdict::Continue
    }

    /// Called with the whole body when [`BodyFilter::on_head`] let the request go on. Must end in bounded time.
    fn on_body<'a>(
        &'a self,
        request: &'a mut dyn RequestHead,
        body: &'a Bytes,
        context: &'a mut Context,
    ) -> Pending<'a>;

    /// What both hooks would do, for `tollgate test` and `explain`, where nothing is waited for and nothing is changed.
    fn preview(&self, request: &mut dyn RequestHead, body: &Bytes, context: &mut Context) -> Verdict;

    /// As [`Filter::on_response`](super::Filter::on_response).
    fn on_response(&self, _request: &dyn RequestHead, _response: &mut dyn ResponseHead, _context: &Context) {}
}
