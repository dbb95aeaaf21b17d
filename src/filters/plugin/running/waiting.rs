//! Exchanges that a plugin holds: what passes it, and what lets it go on.

use bytes::Bytes;

use super::{Kept, Running, closed, decided, lock};
use crate::context::Context;
use crate::contract::{Ending, Onward, Passed, Verdict};
use crate::head::{Headers, RequestHead, ResponseHead};
use crate::wasm::call::Answered;
use crate::wasm::exchange::{Access, View};
use crate::wasm::instance::{Failure, Head, Outcome};
use crate::wasm::mailbox::Mail;
use crate::wasm::status::Action;
use crate::wasm::stream::{Stream, Way, Wish};

impl Running {
    /// Shows the head of a response. It may have to be waited for.
    pub(super) fn show_response(
        &self,
        request: &dyn RequestHead,
        response: &mut dyn ResponseHead,
        ends: bool,
        context: &Context,
    ) -> Result<Onward<()>, Ending> {
        let Some(kept) = context.kept.of::<Kept>(self.number) else { return Ok(Onward::Passed(())) };
        let mut view = View::behind_request(request, context).with_response(Access::Change(response));
        let stream = &mut lock(kept).stream;
        match stream.head(Head::Response, ends, &mut view) {
            Ok(outcome) => {
                let pauses = outcome.action == Action::Pause && !outcome.wish.resumed.response;
                ending(outcome.wish)?;
                // One that pauses for the body is shown it when it comes.
                let waits = pauses && (stream.expects_answers() || (ends && stream.may_be_woken()));
                Ok(if waits { Onward::Held } else { Onward::Passed(()) })
            }
            Err(failure) => self.failed(&failure).map(Onward::Passed).map_err(Err),
        }
    }

    /// Waits for what lets the head of a response go on.
    pub(super) async fn release_head(
        &self,
        request: &dyn RequestHead,
        response: &mut dyn ResponseHead,
        ends: bool,
        context: &Context,
    ) -> Result<(), Ending> {
        let tell = |stream: &mut Stream, number, answered| {
            let mut view = View::behind_request(request, context).with_response(Access::Change(&mut *response));
            stream.answer(number, answered, None, &mut view)
        };
        match self.wait(Way::Response, ends, context, tell).await {
            Ok(Some(wish)) => ending(wish),
            // The body comes next, and it may be that for which it waits.
            Ok(None) if !ends => Ok(()),
            Ok(None) => self.failed(&self.held()).map_err(Err),
            Err(failure) => self.failed(&failure).map_err(Err),
        }
    }

    /// What the plugin made of a body that it held.
    pub(super) fn take_back(&self, way: Way, body: &mut Bytes, context: &Context) {
        if let Some(kept) = context.kept.of::<Kept>(self.number) {
            *body = lock(kept).stream.take(way);
        }
    }

    /// Waits for what lets a request go on whose plugin pauses. `None`: nothing more will come.
    pub(super) async fn wait_on(
        &self,
        request: &mut dyn RequestHead,
        shown: Option<Way>,
        context: &Context,
        wakes: bool,
    ) -> Result<Option<Verdict>, Failure> {
        let tell = |stream: &mut Stream, number, answered| {
            stream.answer(number, answered, shown, &mut View::of_request(&mut *request, context))
        };
        let wish = self.wait(Way::Request, wakes, context, tell).await?;
        Ok(wish.and_then(|wish| decided(Outcome { action: Action::Pause, wish })))
    }

    /// Waits for what a plugin wants that pauses. `None`: nothing more will come. `wakes`: it may be something else than an
    /// answer. `tell` tells it of one.
    pub(super) async fn wait(
        &self,
        way: Way,
        wakes: bool,
        context: &Context,
        mut tell: impl FnMut(&mut Stream, u32, Answered) -> Result<Wish, Failure> + Send,
    ) -> Result<Option<Wish>, Failure> {
        let Some(kept) = context.kept.of::<Kept>(self.number) else { return Ok(None) };
        let (wait, wakes) = {
            let kept = lock(kept);
            (kept.stream.hold(), wakes && kept.stream.may_be_woken())
        };
        let waiting = async {
            while let Some(mail) = wait.next(wakes).await {
                let wish = match mail {
                    Mail::Wish(wish) => wish,
                    Mail::Failure(failure) => return Err(lock(kept).stream.ended(failure)),
                    Mail::Answer(number, answered) => tell(&mut lock(kept).stream, number, answered)?,
                };
                if wish.closes || wish.reply.is_some() || wish.resumed.has(way) {
                    return Ok(Some(wish));
                }
            }
            Ok(None)
        };
        let held_max = self.plugin.terms().limits.held_max;
        let wish = tokio::time::timeout(held_max, waiting).await.unwrap_or_else(|_| Err(self.held()));
        lock(kept).stream.release();
        wish
    }

    /// Shows a piece of a body that is passing.
    pub(super) fn pass(&self, way: Way, mut view: View<'_>, piece: Bytes, ends: bool, context: &Context) -> Passed {
        let Some(kept) = context.kept.of::<Kept>(self.number) else { return Ok(Onward::Passed(piece)) };
        let stream = &mut lock(kept).stream;
        match stream.body(way, piece, ends, &mut view) {
            Ok(passed) => {
                ending(passed.wish)?;
                Ok(if passed.waits { Onward::Held } else { Onward::Passed(passed.bytes) })
            }
            // What it held goes on without it.
            Err(failure) => self.failed(&failure).map(|()| Onward::Passed(stream.take(way))).map_err(Err),
        }
    }

    /// Waits for what lets a piece of a body go on. When nothing more comes, the next piece may be what the plugin waits for.
    pub(super) async fn release(
        &self,
        way: Way,
        request: &dyn RequestHead,
        ends: bool,
        context: &Context,
    ) -> Result<Bytes, Ending> {
        let tell = |stream: &mut Stream, number, answered| {
            stream.answer(number, answered, Some(way), &mut View::behind_request(request, context))
        };
        let failed = match self.wait(way, ends, context, tell).await {
            Ok(Some(wish)) => ending(wish),
            Ok(None) if !ends => return Ok(Bytes::new()),
            Ok(None) => self.failed(&self.held()).map_err(Err),
            Err(failure) => self.failed(&failure).map_err(Err),
        };
        let mut bytes = Bytes::new();
        self.take_back(way, &mut bytes, context);
        failed.map(|()| bytes)
    }

    /// Tells the plugin of the trailers of a response.
    pub(super) async fn end_with(
        &self,
        request: &dyn RequestHead,
        trailers: &mut dyn Headers,
        context: &Context,
    ) -> Result<(), Ending> {
        let Some(kept) = context.kept.of::<Kept>(self.number) else { return Ok(()) };
        let told = {
            let mut view = View::behind_request(request, context);
            view.response_trailers = Some(&mut *trailers);
            lock(kept).stream.head(Head::ResponseTrailers, true, &mut view)
        };
        match told {
            Ok(outcome) => {
                let pauses = outcome.action == Action::Pause && !outcome.wish.resumed.response;
                ending(outcome.wish)?;
                if !pauses || !self.expects_answers(context) {
                    return Ok(());
                }
            }
            Err(failure) => return self.failed(&failure).map_err(Err),
        }
        let tell = |stream: &mut Stream, number, answered| {
            let mut view = View::behind_request(request, context);
            view.response_trailers = Some(&mut *trailers);
            stream.answer(number, answered, None, &mut view)
        };
        match self.wait(Way::Response, false, context, tell).await {
            Ok(Some(wish)) => ending(wish),
            Ok(None) => self.failed(&self.held()).map_err(Err),
            Err(failure) => self.failed(&failure).map_err(Err),
        }
    }
}

/// What the plugin answers in place of what passes, if it does.
fn ending(wish: Wish) -> Result<(), Ending> {
    match wish.reply {
        _ if wish.closes => Err(Err(Box::new(closed()))),
        Some(reply) => Err(Ok(reply)),
        None => Ok(()),
    }
}
