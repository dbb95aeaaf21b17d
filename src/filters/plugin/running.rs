//! The filter at work: what a plugin wants, in terms of the chain.

mod waiting;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{LimitSettings, OnFailure, PluginSettings};
use crate::context::{Context, Held};
use crate::contract::{
    Compiler, Ending, Hooks, Onward, Outset, Passed, Pending, Released, Setting, Step, StreamFilter, Verdict,
};
use crate::head::{Headers, RequestHead, ResponseHead};
use crate::reply::{Code, Rejection};
use crate::types::{Period, Size};
use crate::wasm::exchange::{Access, View};
use crate::wasm::instance::{Failure, Head, Outcome};
use crate::wasm::plugin::{Limits, Plugin, Terms};
use crate::wasm::status::Action;
use crate::wasm::stream::{Stream, Way};
use crate::yaml::{Located, Node, Problem};

/// Builds the filter. The file was read with the configuration; it is compiled here, beside the request path.
pub(super) fn build(settings: &PluginSettings, compiler: &mut Compiler) -> Option<Step> {
    let limits = limits(&settings.limits, compiler)?;
    let stem = Path::new(&settings.file.value).file_stem().and_then(|stem| stem.to_str()).unwrap_or("plugin");
    let name = settings.name.as_ref().map_or(stem, |name| name.value.as_str());
    let terms = Terms {
        name: name.into(),
        root_id: settings.root_id.as_deref().unwrap_or_default().into(),
        configuration: configuration(settings.config.as_ref()),
        vm_configuration: configuration(settings.vm_config.as_ref()),
        limits,
        calls: calls(&settings.calls, compiler)?,
    };
    let plugins = Arc::clone(compiler.plugins());
    let got = plugins.get(compiler.file(&settings.file)?, &terms);
    match got {
        Ok(plugin) => {
            let (on_failure, number) = (settings.on_failure, compiler.number());
            let (response, sees_response_bodies) = plugin.sees_responses();
            let hooks = Hooks { response, ..Hooks::BOTH };
            let ends_with_request = plugin.sees_heads_of_requests_only();
            let running = Running { plugin, on_failure, number, hooks, sees_response_bodies, ends_with_request };
            Some(Step::Stream(Arc::new(running)))
        }
        Err(words) => {
            for words in words {
                compiler.report(
                    Problem::new(settings.file.place, format!("`{}` cannot be used: {words}", settings.file.value))
                        .with_hint("`tollgate plugin check FILE` says what a plugin has and needs"),
                );
            }
            None
        }
    }
}

/// The upstreams that it may call.
fn calls(written: &[Located<String>], compiler: &mut Compiler) -> Option<Box<[Box<str>]>> {
    let mut are_known = true;
    for name in written {
        are_known &= compiler.has_upstream(name);
    }
    are_known.then(|| written.iter().map(|name| name.value.as_str().into()).collect())
}

/// A text as it is, anything else as JSON.
fn configuration(node: Option<&Node>) -> Bytes {
    match node {
        None => Bytes::new(),
        Some(node) => match node.as_str() {
            Some(text) => Bytes::copy_from_slice(text.as_bytes()),
            None => Bytes::from(node.to_json().to_string()),
        },
    }
}

/// What is written, within its bounds.
fn limits(settings: &LimitSettings, compiler: &mut Compiler) -> Option<Limits> {
    let default = Limits::default();
    let mut is_sound = true;
    let mut check = |fits: bool, place, message: &str| {
        if !fits {
            is_sound = false;
            compiler.report(Problem::new(place, message.to_owned()));
        }
    };
    let mut size = |written: &Option<Located<Size>>, default: usize, least: u64, most: u64, message: &str| {
        written.as_ref().map_or(default, |written| {
            check((least..=most).contains(&written.value.0), written.place, message);
            usize::try_from(written.value.0).unwrap_or(default)
        })
    };
    let memory_max = size(&settings.memory, default.memory_max, 1 << 20, 1 << 30, "`memory` must be 1MiB to 1GiB");
    let body_max = size(&settings.body, default.body_max, 0, 64 << 20, "`body` must be at most 64MiB");
    let mut period = |written: &Option<Located<Period>>, default: Duration, least: u64, most: u64, message: &str| {
        written.as_ref().map_or(default, |written| {
            let bounds = Duration::from_millis(least)..=Duration::from_millis(most);
            check(bounds.contains(&written.value.0), written.place, message);
            written.value.0
        })
    };
    let time_max = period(&settings.time, default.time_max, 1, 1_000, "`time` must be 1ms to 1s");
    let start_time_max = period(&settings.start, default.start_time_max, 10, 60_000, "`start` must be 10ms to 1m");
    let held_max = period(&settings.held, default.held_max, 1, 300_000, "`held` must be 1ms to 5m");
    let instances_max = settings.instances.as_ref().map_or(default.instances_max, |written| {
        check((1..=10_000).contains(&written.value), written.place, "`instances` must be 1 to 10000");
        usize::try_from(written.value).unwrap_or(default.instances_max)
    });
    is_sound.then_some(Limits { memory_max, time_max, start_time_max, held_max, body_max, instances_max })
}

struct Running {
    plugin: Arc<Plugin>,
    on_failure: OnFailure,
    number: u64,
    /// Which heads it is shown; known of its module.
    hooks: Hooks,
    sees_response_bodies: bool,
    /// It is told of nothing behind the head of a request that has no body.
    ends_with_request: bool,
}

/// What is remembered of an exchange. `None` once the plugin failed and is skipped.
type Kept = Mutex<Accompanied>;

struct Accompanied {
    stream: Stream,
    /// It was shown the whole body of the request before that went on, or there is none.
    has_seen_body: bool,
}

impl StreamFilter for Running {
    fn hooks(&self) -> Hooks {
        self.hooks
    }

    fn on_request<'a>(&'a self, request: &'a mut dyn RequestHead, ends: bool, context: &'a mut Context) -> Setting<'a> {
        Box::pin(self.enter(request, ends, context))
    }

    fn on_whole_body<'a>(
        &'a self,
        request: &'a mut dyn RequestHead,
        body: &'a mut Bytes,
        context: &'a mut Context,
    ) -> Pending<'a> {
        Box::pin(self.look(request, body, context))
    }

    fn preview(&self, request: &mut dyn RequestHead, body: &Bytes, context: &mut Context) -> Verdict {
        let decided = match self.begin(request, body.is_empty(), false, context) {
            Ok(None) if !body.is_empty() => self.show(request, &mut body.clone(), context),
            decided => decided,
        };
        match decided {
            Ok(Some(verdict)) => verdict,
            // What it asked of others was not sent: what they would say is not known here.
            Ok(None) if self.expects_answers(context) => Verdict::Continue,
            Ok(None) => self.verdict(&self.held()),
            Err(failure) => self.verdict(&failure),
        }
    }

    fn watches_request_body(&self, context: &Context) -> bool {
        let watches = |kept: &Kept| {
            let kept = lock(kept);
            !kept.has_seen_body && kept.stream.looks_at_bodies().0
        };
        context.kept.of::<Kept>(self.number).is_some_and(watches)
    }

    fn on_request_piece(&self, request: &dyn RequestHead, piece: Bytes, ends: bool, context: &Context) -> Passed {
        if !self.watches_request_body(context) {
            return Ok(Onward::Passed(piece));
        }
        self.pass(Way::Request, View::behind_request(request, context), piece, ends, context)
    }

    fn release_request_piece<'a>(
        &'a self,
        request: &'a dyn RequestHead,
        ends: bool,
        context: &'a Context,
    ) -> Released<'a, Bytes> {
        Box::pin(self.release(Way::Request, request, ends, context))
    }

    fn on_response(
        &self,
        request: &dyn RequestHead,
        response: &mut dyn ResponseHead,
        ends: bool,
        context: &Context,
    ) -> Result<Onward<()>, Ending> {
        self.show_response(request, response, ends, context)
    }

    fn release_response<'a>(
        &'a self,
        request: &'a dyn RequestHead,
        response: &'a mut dyn ResponseHead,
        ends: bool,
        context: &'a Context,
    ) -> Released<'a, ()> {
        Box::pin(self.release_head(request, response, ends, context))
    }

    fn sees_response_bodies(&self) -> bool {
        self.sees_response_bodies
    }

    fn may_hold_response_body(&self, trailers: bool, context: &Context) -> bool {
        let Some(kept) = context.kept.of::<Kept>(self.number) else { return false };
        let stream = &lock(kept).stream;
        let looks = stream.looks_at_bodies().1;
        (looks && (!self.plugin.terms().calls.is_empty() || stream.may_be_woken()))
            || (trailers && (looks || stream.looks_at_response_trailers()))
    }

    fn on_response_piece(&self, request: &dyn RequestHead, piece: Bytes, ends: bool, context: &Context) -> Passed {
        self.pass(Way::Response, View::behind_request(request, context), piece, ends, context)
    }

    fn release_response_piece<'a>(
        &'a self,
        request: &'a dyn RequestHead,
        ends: bool,
        context: &'a Context,
    ) -> Released<'a, Bytes> {
        Box::pin(self.release(Way::Response, request, ends, context))
    }

    fn on_response_trailers<'a>(
        &'a self,
        request: &'a dyn RequestHead,
        trailers: &'a mut dyn Headers,
        context: &'a Context,
    ) -> Released<'a, ()> {
        Box::pin(self.end_with(request, trailers, context))
    }

    fn on_end(&self, request: &dyn RequestHead, response: Option<&dyn ResponseHead>, context: &Context) {
        let Some(kept) = context.kept.of::<Kept>(self.number) else { return };
        let view = View::behind_request(request, context);
        let mut view = match response {
            Some(response) => view.with_response(Access::Read(response)),
            None => view,
        };
        lock(kept).stream.finish(Some(&mut view));
    }
}

impl Running {
    /// The way of the head, to its end.
    async fn enter(&self, request: &mut dyn RequestHead, ends: bool, context: &mut Context) -> Outset {
        let mut decided = self.begin(request, ends, true, context);
        if matches!(decided, Ok(None)) {
            // Unless no body is to come that the plugin may be waiting for, it is waited for answers alone.
            decided = self.wait_on(request, None, context, ends).await;
        }
        match decided {
            Ok(Some(verdict)) => Outset::Decided(verdict),
            Ok(None) if ends => Outset::Decided(self.verdict(&self.held())),
            Ok(None) => Outset::Body(self.plugin.terms().limits.body_max as u64),
            Err(failure) => Outset::Decided(self.verdict(&failure)),
        }
    }

    /// The way of a body that the plugin has to see as a whole.
    async fn look(&self, request: &mut dyn RequestHead, body: &mut Bytes, context: &mut Context) -> Verdict {
        let mut decided = self.show(request, body, context);
        if matches!(decided, Ok(None)) {
            decided = self.wait_on(request, Some(Way::Request), context, true).await;
            self.take_back(Way::Request, body, context);
        }
        match decided {
            Ok(Some(verdict)) => verdict,
            Ok(None) => self.verdict(&self.held()),
            Err(failure) => self.verdict(&failure),
        }
    }

    /// Shows the head to the plugin. `None`: it pauses.
    fn begin(
        &self,
        request: &mut dyn RequestHead,
        ends: bool,
        calls: bool,
        context: &mut Context,
    ) -> Result<Option<Verdict>, Failure> {
        let mut stream = Stream::open(&self.plugin)?;
        if !calls {
            stream = stream.without_calls();
        }
        let told = stream.head(Head::Request, ends, &mut View::of_request(request, context)).map(decided);
        if self.ends_with_request && ends && matches!(told, Ok(Some(_))) && !stream.expects_answers() {
            // Its instance is free for the next request, while it is still warm.
            return told;
        }
        context.kept.keep(self.number, Held::new(Kept::new(Accompanied { stream, has_seen_body: ends })));
        told
    }

    /// Shows the whole body to a plugin that paused for it. `None`: it pauses again, with a reason to.
    fn show(
        &self,
        request: &mut dyn RequestHead,
        body: &mut Bytes,
        context: &mut Context,
    ) -> Result<Option<Verdict>, Failure> {
        let Some(kept) = context.kept.of::<Kept>(self.number) else { return Ok(Some(Verdict::Continue)) };
        let mut kept = lock(kept);
        kept.has_seen_body = true;
        let shown = kept.stream.body(Way::Request, body.clone(), true, &mut View::of_request(request, context))?;
        if shown.waits {
            return Ok(decided(Outcome { action: Action::Pause, wish: shown.wish }));
        }
        *body = shown.bytes;
        // Where nothing would ever let it go on, it goes on by itself.
        Ok(decided(Outcome { action: Action::Continue, wish: shown.wish }))
    }

    fn expects_answers(&self, context: &Context) -> bool {
        context.kept.of::<Kept>(self.number).is_some_and(|kept| lock(kept).stream.expects_answers())
    }

    /// The request was held for longer than it may be, or nothing would ever let it go on. Every other failure is counted where
    /// it happens.
    fn held(&self) -> Failure {
        self.plugin.count(&Failure::Held);
        Failure::Held
    }

    fn verdict(&self, failure: &Failure) -> Verdict {
        match self.failed(failure) {
            Ok(()) => Verdict::Continue,
            Err(rejection) => Verdict::Reject(rejection),
        }
    }

    /// Says that the plugin failed, and what that means for the request.
    fn failed(&self, failure: &Failure) -> Result<(), Box<Rejection>> {
        let plugin = &*self.plugin.terms().name;
        let reason = failure.reason();
        match (failure, failure.words()) {
            // It was told of when it ended.
            (Failure::Ended, _) => {}
            (_, "") => tracing::error!(plugin, reason, "plugin failed"),
            (_, words) => tracing::error!(plugin, reason, "plugin failed: {words}"),
        }
        match self.on_failure {
            OnFailure::Skip => Ok(()),
            OnFailure::Deny => Err(Box::new(Rejection::new(Code::PLUGIN_FAILED, "a filter of this route failed"))),
        }
    }
}

/// What a plugin decided; `None` while it pauses.
fn decided(outcome: Outcome) -> Option<Verdict> {
    if outcome.wish.closes {
        return Some(Verdict::Reject(Box::new(closed())));
    }
    if let Some(reply) = outcome.wish.reply {
        return Some(Verdict::Reply(reply));
    }
    (outcome.action == Action::Continue || outcome.wish.resumed.request).then_some(Verdict::Continue)
}

/// The plugin ended the exchange without an answer.
fn closed() -> Rejection {
    Rejection::new(Code::FORBIDDEN, "a filter of this route ended the request")
}

fn lock(kept: &Kept) -> MutexGuard<'_, Accompanied> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
