//! The filter chain of a route, and the walk along it.
//!
//! The walk is synchronous. It stops where an [`AsyncFilter`] has to be awaited; the caller awaits it and walks on.

use std::sync::Arc;

use bytes::Bytes;

use crate::context::Context;
use crate::contract::{AsyncFilter, BodyFilter, Calling, Ending, Hooks, Limit, Onward, Step, StreamFilter, Verdict};
use crate::head::{Headers, RequestHead, ResponseHead};
use crate::yaml::Place;

/// A step and where it came from.
pub struct Link {
    pub name: &'static str,
    pub place: Place,
    /// The chain it was taken from by `use`, or `defaults`.
    pub via: Option<Arc<str>>,
    pub calling: Calling,
    /// The bucket that a limit counts in; such a filter leaves one [`Standing`](crate::context::Standing) for each request.
    pub bucket: Option<Arc<str>>,
    /// What the filter writes into [`Standing::filter`](crate::context::Standing::filter).
    pub number: u64,
    /// What it limits, if it is a limit.
    pub limit: Option<Limit>,
    hooks: Hooks,
    step: Step,
}

impl Link {
    pub fn new(name: &'static str, place: Place, via: Option<Arc<str>>, step: Step) -> Self {
        let hooks = match &step {
            Step::Sync(filter) => filter.hooks(),
            Step::Async(filter) => filter.hooks(),
            Step::Body(filter) => filter.hooks(),
            Step::Stream(filter) => filter.hooks(),
        };
        Self { name, place, via, calling: Calling::Nothing, bucket: None, number: 0, limit: None, hooks, step }
    }

    /// The same, of a filter that has to do with who calls.
    #[must_use]
    pub fn with_calling(self, calling: Calling) -> Self {
        Self { calling, ..self }
    }

    /// The same, of a filter that counts in this bucket and has this number.
    #[must_use]
    pub fn with_bucket(self, bucket: Option<Arc<str>>, number: u64) -> Self {
        Self { bucket, number, ..self }
    }

    /// The same, of a filter that limits something.
    #[must_use]
    pub fn with_limit(self, limit: Option<Limit>) -> Self {
        Self { limit, ..self }
    }

    pub fn hooks(&self) -> Hooks {
        self.hooks
    }

    /// Largest body that the filter takes, if it looks at one, in bytes.
    pub fn body_bytes_max(&self) -> Option<u64> {
        match &self.step {
            Step::Body(filter) => Some(filter.body_bytes_max()),
            Step::Sync(_) | Step::Async(_) | Step::Stream(_) => None,
        }
    }

    /// Runs the request hook without waiting for anything. `body` is the whole body of the request.
    pub fn preview(&self, request: &mut dyn RequestHead, body: &Bytes, context: &mut Context) -> Verdict {
        match &self.step {
            Step::Sync(filter) if self.hooks.request => filter.preview(request, context),
            Step::Sync(_) => Verdict::Continue,
            Step::Async(filter) => filter.preview(request, context),
            Step::Body(filter) => filter.preview(request, body, context),
            Step::Stream(filter) => filter.preview(request, body, context),
        }
    }

    fn stream(&self) -> Option<&dyn StreamFilter> {
        match &self.step {
            Step::Stream(filter) => Some(filter.as_ref()),
            Step::Sync(_) | Step::Async(_) | Step::Body(_) => None,
        }
    }
}

/// The filters of one route, in the order they run.
#[derive(Clone, Default)]
pub struct Chain {
    links: Arc<[Arc<Link>]>,
    takes_preflight: bool,
    responds: bool,
    accompanies: bool,
    sees_response_bodies: bool,
}

/// Where a walk stopped.
pub enum Stop<'a> {
    /// Every filter let the request go on.
    End,
    /// A filter answered it.
    Verdict(Verdict),
    /// This filter has to be awaited; call [`Chain::advance`] again when it let the request go on.
    Wait(&'a dyn AsyncFilter),
    /// This filter has to be given the body; then the same.
    Body(&'a dyn BodyFilter),
    /// This one has to be awaited, and perhaps be given the body; then the same.
    Stream(&'a dyn StreamFilter),
}

/// What a filter answers in place of a response: it passes those that come before it in the list.
pub struct Instead {
    /// How many these are.
    pub reached: usize,
    pub answer: Ending,
}

/// Where the walk of a response stopped.
pub enum Halt {
    Instead(Instead),
    /// The filter of this index holds it: see [`Chain::respond_held`].
    Held(usize),
}

impl Chain {
    pub fn new(links: Vec<Arc<Link>>) -> Self {
        Self {
            takes_preflight: links.iter().any(|link| link.hooks.preflight),
            responds: links.iter().any(|link| link.hooks.response),
            accompanies: links.iter().any(|link| link.stream().is_some()),
            sees_response_bodies: links.iter().filter_map(|link| link.stream()).any(StreamFilter::sees_response_bodies),
            links: links.into(),
        }
    }

    pub fn links(&self) -> &[Arc<Link>] {
        &self.links
    }

    /// Whether some filter answers CORS preflights.
    pub fn takes_preflight(&self) -> bool {
        self.takes_preflight
    }

    /// Runs request hooks from the link `reached` on. Afterwards `reached` counts the links whose filter let the request go
    /// on: [`Chain::respond`] takes it. A link that has to be awaited is counted already.
    pub fn advance(&self, reached: &mut usize, request: &mut dyn RequestHead, context: &mut Context) -> Stop<'_> {
        while let Some(link) = self.links.get(*reached) {
            match &link.step {
                Step::Sync(filter) => {
                    if link.hooks.request {
                        match filter.on_request(request, context) {
                            Verdict::Continue => {}
                            verdict => return Stop::Verdict(verdict),
                        }
                    }
                    *reached = reached.saturating_add(1);
                }
                Step::Async(filter) => {
                    *reached = reached.saturating_add(1);
                    return Stop::Wait(filter.as_ref());
                }
                Step::Body(filter) => {
                    *reached = reached.saturating_add(1);
                    return Stop::Body(filter.as_ref());
                }
                Step::Stream(filter) => {
                    *reached = reached.saturating_add(1);
                    return Stop::Stream(filter.as_ref());
                }
            }
        }
        Stop::End
    }

    /// Runs the response hooks of the first `reached` links, last one first. `ends`: no body follows. A filter that answers
    /// in place of the response ends the walk.
    pub fn respond(
        &self,
        reached: usize,
        request: &dyn RequestHead,
        response: &mut dyn ResponseHead,
        ends: bool,
        context: &Context,
    ) -> Option<Halt> {
        if !self.responds {
            return None;
        }
        for (index, link) in self.links.iter().enumerate().take(reached).rev() {
            match &link.step {
                _ if !link.hooks.response => {}
                Step::Sync(filter) => filter.on_response(request, response, context),
                Step::Async(filter) => filter.on_response(request, response, context),
                Step::Body(filter) => filter.on_response(request, response, context),
                Step::Stream(filter) => match filter.on_response(request, response, ends, context) {
                    Ok(Onward::Passed(())) => {}
                    Ok(Onward::Held) => return Some(Halt::Held(index)),
                    Err(answer) => return Some(Halt::Instead(Instead { reached: index, answer })),
                },
            }
        }
        None
    }

    /// Waits for a filter that holds a response, and walks on from there.
    pub async fn respond_held(
        &self,
        mut index: usize,
        request: &dyn RequestHead,
        response: &mut dyn ResponseHead,
        ends: bool,
        context: &Context,
    ) -> Option<Instead> {
        loop {
            let filter = self.links.get(index)?.stream()?;
            if let Err(answer) = filter.release_response(request, response, ends, context).await {
                return Some(Instead { reached: index, answer });
            }
            match self.respond(index, request, response, ends, context)? {
                Halt::Instead(instead) => return Some(instead),
                Halt::Held(next) => index = next,
            }
        }
    }

    /// Whether some filter accompanies exchanges.
    pub fn accompanies(&self) -> bool {
        self.accompanies
    }

    /// Whether bodies of responses have to pass one of them.
    pub fn sees_response_bodies(&self) -> bool {
        self.sees_response_bodies
    }

    /// Whether some of them look at the pieces of a request body.
    pub fn watches_request_body(&self, reached: usize, context: &Context) -> bool {
        self.accompanies && self.streams(reached).any(|(_, filter)| filter.watches_request_body(context))
    }

    /// Whether some of them have to be waited for where a response body passes, or see its trailers.
    pub fn may_hold_response_body(&self, reached: usize, trailers: bool, context: &Context) -> bool {
        self.accompanies && self.streams(reached).any(|(_, filter)| filter.may_hold_response_body(trailers, context))
    }

    /// Shows a piece of a request body to the filters that see bodies pass, in order. What comes back goes on.
    ///
    /// # Errors
    /// What is answered when nothing may go on.
    pub async fn request_piece(
        &self,
        reached: usize,
        request: &dyn RequestHead,
        mut piece: Bytes,
        ends: bool,
        context: &Context,
    ) -> Result<Bytes, Instead> {
        for (index, filter) in self.streams(reached) {
            let passed = match filter.on_request_piece(request, piece, ends, context) {
                Ok(Onward::Passed(piece)) => Ok(piece),
                Ok(Onward::Held) => filter.release_request_piece(request, ends, context).await,
                Err(answer) => Err(answer),
            };
            piece = passed.map_err(|answer| Instead { reached: index, answer })?;
        }
        Ok(piece)
    }

    /// Shows a piece of a response body to the same, last one first.
    ///
    /// # Errors
    /// What is answered if nothing of the response has been sent yet; otherwise it has to be broken off.
    pub async fn response_piece(
        &self,
        reached: usize,
        request: &dyn RequestHead,
        mut piece: Bytes,
        ends: bool,
        context: &Context,
    ) -> Result<Bytes, Instead> {
        for (index, filter) in self.streams(reached).rev() {
            let passed = match filter.on_response_piece(request, piece, ends, context) {
                Ok(Onward::Passed(piece)) => Ok(piece),
                Ok(Onward::Held) => filter.release_response_piece(request, ends, context).await,
                Err(answer) => Err(answer),
            };
            piece = passed.map_err(|answer| Instead { reached: index, answer })?;
        }
        Ok(piece)
    }

    /// Shows the trailers of a response to the same.
    ///
    /// # Errors
    /// As [`Chain::response_piece`].
    pub async fn response_trailers(
        &self,
        reached: usize,
        request: &dyn RequestHead,
        trailers: &mut dyn Headers,
        context: &Context,
    ) -> Result<(), Instead> {
        for (index, filter) in self.streams(reached).rev() {
            let passed = filter.on_response_trailers(request, trailers, context).await;
            passed.map_err(|answer| Instead { reached: index, answer })?;
        }
        Ok(())
    }

    /// The filters that accompany exchanges, with their places in the list.
    fn streams(&self, reached: usize) -> impl DoubleEndedIterator<Item = (usize, &dyn StreamFilter)> + Send {
        let links = self.links.get(..reached).unwrap_or(&self.links);
        links.iter().enumerate().filter_map(|(index, link)| Some((index, link.stream()?)))
    }

    /// Tells the same that the exchange is over.
    pub fn end(&self, request: &dyn RequestHead, response: Option<&dyn ResponseHead>, context: &Context) {
        for filter in self.links.iter().filter_map(|link| link.stream()) {
            filter.on_end(request, response, context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::context::RequestId;
    use crate::head::{HeaderName, HeaderValue, Headers, Method, RequestBuf, ResponseBuf, StatusCode};
    use crate::reply::{Code, Rejection, Reply};
    use std::net::{IpAddr, Ipv4Addr};

    /// Appends its name to `x-trace` in both directions; refuses or answers when told so.
    struct Tracer(&'static str, Option<fn() -> Verdict>);

    const TRACE: HeaderName = HeaderName::from_static("x-trace");

    impl Filter for Tracer {
        fn hooks(&self) -> Hooks {
            Hooks::BOTH
        }
        fn on_request(&self, request: &mut dyn RequestHead, _: &mut Context) -> Verdict {
            request.append(&TRACE, HeaderValue::from_static(self.0));
            self.1.map_or(Verdict::Continue, |verdict| verdict())
        }
        fn on_response(&self, _: &dyn RequestHead, response: &mut dyn ResponseHead, _: &Context) {
            response.append(&TRACE, HeaderValue::from_static(self.0));
        }
    }

    use crate::contract::Filter;

    fn walk(filters: Vec<Tracer>) -> (bool, usize, Vec<String>, Vec<String>) {
        let links = filters
            .into_iter()
            .map(|filter| Arc::new(Link::new(filter.0, Place::UNKNOWN, None, Step::filter(filter))))
            .collect();
        let chain = Chain::new(links);
        let mut request = RequestBuf::new(Method::GET, "/");
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut context = Context::detached(peer, RequestId::from_bits(0), clock::now());
        let mut reached = 0;
        let ended = matches!(chain.advance(&mut reached, &mut request, &mut context), Stop::End);
        let mut response = ResponseBuf::new(StatusCode::OK);
        chain.respond(reached, &request, &mut response, true, &context);
        let trace = |head: &dyn Headers| {
            let mut seen = Vec::new();
            head.each(&TRACE, &mut |value| seen.push(String::from_utf8_lossy(value).into_owned()));
            seen
        };
        (ended, reached, trace(&request), trace(&response))
    }

    #[test]
    fn request_hooks_run_in_order_and_response_hooks_in_reverse() {
        let (ended, reached, request, response) = walk(vec![Tracer("a", None), Tracer("b", None)]);
        assert!(ended);
        assert_eq!((reached, request, response), (2, vec!["a".into(), "b".into()], vec!["b".into(), "a".into()]));
    }

    #[test]
    fn a_refusal_travels_back_through_the_filters_before_it_only() {
        let refuse = || Verdict::Reject(Box::new(Rejection::new(Code::FORBIDDEN, "no")));
        let (ended, reached, request, response) =
            walk(vec![Tracer("a", None), Tracer("b", Some(refuse)), Tracer("c", None)]);
        assert!(!ended);
        assert_eq!((reached, request, response), (1, vec!["a".into(), "b".into()], vec!["a".into()]));
    }

    #[test]
    fn a_reply_ends_the_walk() {
        let answer = || Verdict::Reply(Box::new(Reply::new(StatusCode::NO_CONTENT)));
        let (ended, reached, _, _) = walk(vec![Tracer("a", Some(answer)), Tracer("b", None)]);
        assert_eq!((ended, reached), (false, 0));
    }
}
