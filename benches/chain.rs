//! The walk along a filter chain, in both directions, by number of filters. `cargo bench --profile quick --bench chain`
#![allow(clippy::expect_used, reason = "a benchmark that cannot set up must stop")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use divan::Bencher;
use tollgate::caller::{Caller, CallerFields, Credential, Level, Scopes};
use tollgate::chain::{Chain, Link, Stop};
use tollgate::clock;
use tollgate::context::{Context, RequestId};
use tollgate::contract::{AsyncFilter, Compiler, Filter, Hooks, Known, Pending, Step, Verdict};
use tollgate::filters::FILTERS;
use tollgate::head::{Method, RequestBuf, RequestHead, ResponseBuf, ResponseHead, StatusCode};
use tollgate::rates::{Own, OwnRates, Rates};
use tollgate::yaml::{self, Place, Sources};

const LENGTHS: [usize; 4] = [0, 1, 5, 10];

fn main() {
    divan::main();
}

/// Costs what the walk costs: the hooks are called and do nothing.
struct Idle(Hooks);

impl Filter for Idle {
    fn hooks(&self) -> Hooks {
        self.0
    }
    fn on_request(&self, request: &mut dyn RequestHead, _: &mut Context) -> Verdict {
        black_box(request);
        Verdict::Continue
    }
    fn on_response(&self, _: &dyn RequestHead, response: &mut dyn ResponseHead, _: &Context) {
        black_box(response);
    }
}

impl AsyncFilter for Idle {
    fn on_request<'a>(&'a self, request: &'a mut dyn RequestHead, _: &'a mut Context) -> Pending<'a> {
        Box::pin(async move {
            black_box(request);
            Verdict::Continue
        })
    }
    fn preview(&self, _: &mut dyn RequestHead, _: &mut Context) -> Verdict {
        Verdict::Continue
    }
}

fn sync(hooks: Hooks) -> Step {
    Step::filter(Idle(hooks))
}

fn chain(steps: impl Iterator<Item = Step>) -> Chain {
    Chain::new(steps.map(|step| Arc::new(Link::new("idle", Place::UNKNOWN, None, step))).collect())
}

/// In and out, as the engine does it; a step that has to be awaited is polled once, since it is ready.
fn walk(bencher: Bencher<'_, '_>, chain: &Chain) {
    let mut request = RequestBuf::new(Method::GET, "/api/v1/tasks/42");
    let mut response = ResponseBuf::new(StatusCode::OK);
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut context = Context::detached(peer, RequestId::from_bits(0), clock::now());
    let mut task = TaskContext::from_waker(Waker::noop());
    bencher.bench_local(|| {
        let mut reached = 0;
        while let Stop::Wait(filter) = black_box(chain).advance(&mut reached, &mut request, &mut context) {
            let polled = filter.on_request(&mut request, &mut context).as_mut().poll(&mut task);
            assert!(matches!(polled, Poll::Ready(Verdict::Continue)), "an idle step is ready");
        }
        chain.respond(reached, &request, &mut response, true, &context);
        reached
    });
}

#[divan::bench(args = LENGTHS)]
fn both_directions(bencher: Bencher<'_, '_>, length: usize) {
    walk(bencher, &chain((0..length).map(|_| sync(Hooks::BOTH))));
}

#[divan::bench(args = LENGTHS)]
fn request_only(bencher: Bencher<'_, '_>, length: usize) {
    walk(bencher, &chain((0..length).map(|_| sync(Hooks::REQUEST))));
}

/// The last step is one that has to be awaited, the others are not.
#[divan::bench(args = [1, 5, 10])]
fn request_only_last_waits(bencher: Bencher<'_, '_>, length: usize) {
    let waits = std::iter::once_with(|| Step::Async(Arc::new(Idle(Hooks::REQUEST))));
    walk(bencher, &chain((1..length).map(|_| sync(Hooks::REQUEST)).chain(waits)));
}

/// One `rate_limit` and both of its hooks, the fields included: what a limit adds to a request.
#[divan::bench(args = [
    "{ rates: [1000000000/day], per: consumer }",
    "{ rates: [1000000000/day], per: ip }",
    "{ rates: [1000000000/day, 1000000000/hour, 1000000000/min], per: [consumer, route] }",
    "{ rates: [1000000000/day], per: consumer, fields: legacy }",
    "{ rates: [1000000000/day], per: consumer, fields: none }",
])]
fn rate_limit(bencher: Bencher<'_, '_>, settings: &str) {
    limited(bencher, settings, None);
}

/// The same for a consumer with rates of its own.
#[divan::bench]
fn rate_limit_own_rates(bencher: Bencher<'_, '_>) {
    let rate = "1000000000/day".parse().expect("a rate");
    let every = Rates::new([rate], None).map(|rates| Own { rates, is_of_key: false });
    limited(bencher, "{ rates: [1/day], per: consumer }", Some(OwnRates { every, by_bucket: Box::default() }));
}

fn limited(bencher: Bencher<'_, '_>, settings: &str, own: Option<OwnRates>) {
    let mut sources = Sources::new();
    let file = sources.add("bench.yaml", settings);
    let node = yaml::parse(&sources, file).expect("sound YAML");
    let entry = FILTERS.iter().find(|filter| filter.name == "rate_limit").expect("the filter");
    let mut compiler = Compiler::at(Place::UNKNOWN, "route:tasks.read".to_owned(), &Known::default());
    let step = (entry.build)(&node, &mut compiler).expect("sound settings");
    let chain = Chain::new(vec![Arc::new(Link::new("rate_limit", Place::UNKNOWN, None, step))]);
    let mut request = RequestBuf::new(Method::GET, "/api/v1/tasks/42");
    let mut response = ResponseBuf::new(StatusCode::OK);
    let peer = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let mut context = Context::detached(peer, RequestId::from_bits(0), clock::now());
    context.route = Arc::from("tasks.read");
    context.caller = Some(Arc::new(Caller {
        name: "dashboard".into(),
        credential: Credential::Key { id: "dashboard-2026".into(), managed: false, version: 1 },
        level: Level::User,
        roles: ["user".into()].into(),
        scopes: Scopes::default(),
        claims: serde_json::Map::new(),
        expires: None,
        fields: CallerFields::new("dashboard", &[], &Scopes::default()).expect("fields"),
        rates: own.map(Arc::new),
    }));
    bencher.bench_local(|| {
        context.standings.clear();
        let mut reached = 0;
        let stop = black_box(&chain).advance(&mut reached, &mut request, &mut context);
        assert!(matches!(stop, Stop::End), "it is never used up");
        chain.respond(reached, &request, &mut response, true, &context);
        reached
    });
}
