//! One choice of a target, by way and number of targets, and with what is watched of targets. `cargo bench --profile quick --bench balance`
#![allow(clippy::expect_used, reason = "a benchmark that cannot set up must stop")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use divan::Bencher;
use tollgate::clock;
use tollgate::config;
use tollgate::config::load::Attached;
use tollgate::head::{HeaderName, HeaderValue, Headers, Method, RequestBuf};
use tollgate::observe::metrics::Metrics;
use tollgate::upstream::{Choice, Hints, Upstream};
use tollgate::yaml::{Located, Place, Sources, decode, parse};

const TARGETS: [usize; 2] = [3, 100];

fn main() {
    divan::main();
}

fn upstream(targets: usize, keys: &str) -> Arc<Upstream> {
    let targets: Vec<String> = (0..targets).map(|index| format!("{{ address: 10.0.0.{index}:80 }}")).collect();
    let mut sources = Sources::new();
    let file = sources.add("upstream.yaml", format!("{{ targets: [{}], {keys} }}", targets.join(", ")));
    let written: config::Upstream = decode(&parse(&sources, file).expect("YAML")).expect("an upstream");
    let name = Located::new("main".to_owned(), Place::UNKNOWN);
    Upstream::compile(&name, &written, None, &Metrics::new(1000), &Attached::new()).expect("sound settings")
}

/// A choice and its end, while as many requests are in flight as there are targets.
fn choices(bencher: Bencher<'_, '_>, targets: usize, keys: &str) {
    let upstream = upstream(targets, keys);
    let now = clock::now();
    let mut heads: Vec<RequestBuf> =
        (0..64).map(|key| RequestBuf::new(Method::GET, &format!("/api/v1/tasks/{key}"))).collect();
    for (key, head) in heads.iter_mut().enumerate() {
        let value = |text: String| HeaderValue::try_from(text).expect("a value");
        head.append(&HeaderName::from_static("x-tenant"), value(format!("tenant-{key}")));
        let field = upstream.cookie(u16::try_from(key % targets).expect("a target"), false);
        let pair = field.as_ref().and_then(|field| field.to_str().ok()?.split(';').next());
        head.append(&HeaderName::from_static("cookie"), value(pair.unwrap_or("a=b").to_owned()));
    }
    let client = Some(IpAddr::from([192, 0, 2, 7]));
    let hints = |head| Hints { head, client, consumer: Some("dashboard") };
    for index in 0..targets {
        upstream.responded(u16::try_from(index).expect("a target"), 200, std::time::Duration::from_millis(5), now);
    }
    let held: Vec<Choice<'_>> =
        heads.iter().cycle().take(targets).filter_map(|head| upstream.choose(&[], &hints(head), now).ok()).collect();
    let mut next = heads.iter().cycle();
    bencher.bench_local(|| {
        let head = next.next().expect("a cycle");
        black_box(upstream.choose(black_box(&[]), &hints(head), now).map(|choice| choice.index))
    });
    drop(held);
}

#[divan::bench(args = TARGETS)]
fn round_robin(bencher: Bencher<'_, '_>, targets: usize) {
    choices(bencher, targets, "balance: round_robin");
}

#[divan::bench(args = TARGETS)]
fn round_robin_bounded(bencher: Bencher<'_, '_>, targets: usize) {
    choices(bencher, targets, "balance: round_robin, target_in_flight_max: 1000");
}

#[divan::bench(args = TARGETS)]
fn least_connections(bencher: Bencher<'_, '_>, targets: usize) {
    choices(bencher, targets, "balance: least_connections");
}

#[divan::bench(args = TARGETS)]
fn random(bencher: Bencher<'_, '_>, targets: usize) {
    choices(bencher, targets, "balance: random");
}

#[divan::bench(args = TARGETS)]
fn hash_header(bencher: Bencher<'_, '_>, targets: usize) {
    choices(bencher, targets, "balance: { hash: { header: X-Tenant } }");
}

#[divan::bench(args = TARGETS)]
fn hash_ip(bencher: Bencher<'_, '_>, targets: usize) {
    choices(bencher, targets, "balance: { hash: ip }");
}

#[divan::bench(args = TARGETS)]
fn sticky(bencher: Bencher<'_, '_>, targets: usize) {
    choices(bencher, targets, "sticky: { cookie: lb }");
}

/// Both kinds of breakers, checks and outliers.
const WATCHED: &str = "circuit_breaker: [{ rate: 50% }, { per: target, rate: 50% }], health: { tcp: true, panic_threshold: 50%, \
                       outliers: { failures: 5, rate: 50%, latency: { over: 1s, times: 3 } } }";

#[divan::bench(args = TARGETS)]
fn round_robin_watched(bencher: Bencher<'_, '_>, targets: usize) {
    choices(bencher, targets, WATCHED);
}

/// A choice, an answer and its end; the clock is not read.
fn exchanges(bencher: Bencher<'_, '_>, targets: usize, keys: &str) {
    let upstream = upstream(targets, keys);
    let (now, took) = (clock::now(), std::time::Duration::from_millis(5));
    let head = RequestBuf::new(Method::GET, "/api/v1/tasks/7");
    let hints = Hints { head: &head, client: None, consumer: None };
    bencher.bench_local(|| {
        let mut own = upstream.admit(now).ok().flatten();
        let mut choice = upstream.choose(black_box(&[]), &hints, now).expect("a target");
        let well = upstream.responded(choice.index, 200, took, now);
        for permit in [&mut own, &mut choice.permit].into_iter().flatten() {
            permit.answered(200, took, now);
        }
        if well {
            upstream.succeeded(choice.index, now);
        }
    });
}

#[divan::bench(args = TARGETS)]
fn exchange(bencher: Bencher<'_, '_>, targets: usize) {
    exchanges(bencher, targets, "balance: round_robin");
}

#[divan::bench(args = TARGETS)]
fn exchange_watched(bencher: Bencher<'_, '_>, targets: usize) {
    exchanges(bencher, targets, WATCHED);
}
