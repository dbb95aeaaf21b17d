//! Filters that accompany an exchange: heads and bodies of both directions pass them.

use bytes::Bytes;

use super::{Hooks, Verdict};
use crate::context::Context;
use crate::head::{RequestHead, ResponseHead};
use crate::reply::{Rejection, Reply};

/// What a [`StreamFilter`] decides about the head of a request.
#[derive(Debug)]
pub enum Outset {
    Decided(Verdict),
    /// Before it decides it has to see the whole body, of at most so many bytes.
    Body(u64),
}

/// What [`StreamFilter::on_request`] returns.
pub type Setting<'a> = std::pin::Pin<Box<dyn Future<Output = Outset> + Send + 'a>>;

/// What became of a piece of a body: what goes on in its place (nothing while it is held back), or why nothing may go on.
pub type Passed = Result<Bytes, Box<Rejection>>;

/// A compiled filter that accompanies an exchange. What it has to remember of one is kept in
/// [`Context::kept`].
pub trait StreamFilter: Send + Sync + 'static {
    fn hooks(&self) -> Hooks {
        Hooks::BOTH
    }

    /// Called on the way in. `ends`: the request has no body. Must end in bounded time.
    fn on_request<'a>(&'a self, request: &'a mut dyn RequestHead, ends: bool, context: &'a mut Context) -> Setting<'a>;

    /// Called after [`Outset::Body`] with the whole body. The body may be changed; what it is afterwards goes on.
    fn on_whole_body<'a>(
        &'a self,
        request: &'a mut dyn RequestHead,
        body: &'a mut Bytes,
        context: &'a mut Context,
    ) -> super::Pending<'a>;

    /// What the request hook would do, for `tollgate test` and `explain`, where nothing is waited for.
    fn preview(&self, request: &mut dyn RequestHead, body: &Bytes, context: &mut Context) -> Verdict;

    /// Whether it looks at the pieces of a request body: what it has seen cannot be sent a second time.
    fn watches_request_body(&self, context: &Context) -> bool;

    /// Called with each piece of a request body on its way to the service, in order; `ends` with the last one.
    fn on_request_piece(&self, request: &dyn RequestHead, piece: Bytes, ends: bool, context: &Context) -> Passed;

    /// Called on the way out, as [`Filter::on_response`](super::Filter::on_response). `ends`: no body follows. With an
    /// answer of its own the filter replaces the response.
    fn on_response(
        &self,
        request: &dyn RequestHead,
        response: &mut dyn ResponseHead,
        ends: bool,
        context: &Context,
    ) -> Result<Option<Box<Reply>>, Box<Rejection>>;

    /// Called with each piece of a response body, in order; `ends` with the last one. A refusal breaks the response off.
    fn on_response_piece(&self, request: &dyn RequestHead, piece: Bytes, ends: bool, context: &Context) -> Passed;

    /// Called when the exchange is over. `response` is the head that the client was sent.
    fn on_end(&self, request: &dyn RequestHead, response: Option<&dyn ResponseHead>, context: &Context);
}
