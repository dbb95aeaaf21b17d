//! Filters that accompany an exchange: heads and bodies of both directions pass them.

use bytes::Bytes;

use super::{Hooks, Verdict};
use crate::context::Context;
use crate::head::{Headers, RequestHead, ResponseHead};
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

/// What became of a head, or of a piece of a body.
#[derive(Debug)]
pub enum Onward<T> {
    Passed(T),
    /// It has to be waited for: something was asked whose answer is not here yet.
    Held,
}

/// What is answered when nothing may go on.
pub type Ending = Result<Box<Reply>, Box<Rejection>>;

/// What became of a piece of a body: what goes on in its place (nothing while it is held back), or what ends the exchange.
pub type Passed = Result<Onward<Bytes>, Ending>;

/// What comes of waiting for it.
pub type Released<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, Ending>> + Send + 'a>>;

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

    /// Called when a piece was held; what goes on then. Must end in bounded time.
    fn release_request_piece<'a>(
        &'a self,
        request: &'a dyn RequestHead,
        ends: bool,
        context: &'a Context,
    ) -> Released<'a, Bytes>;

    /// Called on the way out, as [`Filter::on_response`](super::Filter::on_response). `ends`: no body follows. With an
    /// answer of its own the filter replaces the response.
    fn on_response(
        &self,
        request: &dyn RequestHead,
        response: &mut dyn ResponseHead,
        ends: bool,
        context: &Context,
    ) -> Result<Onward<()>, Ending>;

    /// Called when the head of a response was held. Must end in bounded time.
    fn release_response<'a>(
        &'a self,
        request: &'a dyn RequestHead,
        response: &'a mut dyn ResponseHead,
        ends: bool,
        context: &'a Context,
    ) -> Released<'a, ()>;

    /// Whether bodies of responses have to pass it, piece by piece. Asked once, when the chain is compiled.
    fn sees_response_bodies(&self) -> bool;

    /// Whether it has to be called where it can be waited for, and with trailers: what such a session costs is to be worth it.
    /// `trailers`: the service may send some.
    fn may_hold_response_body(&self, trailers: bool, context: &Context) -> bool;

    /// Called with each piece of a response body, in order; `ends` with the last one. An ending breaks the response off.
    fn on_response_piece(&self, request: &dyn RequestHead, piece: Bytes, ends: bool, context: &Context) -> Passed;

    /// Called when a piece was held; what goes on then. Must end in bounded time.
    fn release_response_piece<'a>(
        &'a self,
        request: &'a dyn RequestHead,
        ends: bool,
        context: &'a Context,
    ) -> Released<'a, Bytes>;

    /// Called with the trailers of a response, behind its body. Must end in bounded time.
    fn on_response_trailers<'a>(
        &'a self,
        request: &'a dyn RequestHead,
        trailers: &'a mut dyn Headers,
        context: &'a Context,
    ) -> Released<'a, ()>;

    /// Called when the exchange is over. `response` is the head that the client was sent.
    fn on_end(&self, request: &dyn RequestHead, response: Option<&dyn ResponseHead>, context: &Context);
}
