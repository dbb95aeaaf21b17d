//! Lookup and normalisation, by number of routes. `cargo bench --profile quick --bench route`
#![allow(clippy::expect_used, reason = "a benchmark that cannot set up must stop")]

use std::hint::black_box;

use divan::Bencher;
use tollgate::head::{Method, RequestBuf};
use tollgate::route::{Captures, MatchSpec, PathPattern, Table, TrailingSlash, normalise};

const SIZES: [usize; 3] = [10, 1_000, 10_000];

fn main() {
    divan::main();
}

fn table(size: usize, pattern: impl Fn(usize) -> String) -> Table {
    let specs = (0..size).map(|index| MatchSpec {
        hosts: Vec::new(),
        methods: Vec::new(),
        path: PathPattern::parse(&pattern(index)).expect("a valid pattern"),
        trailing_slash: TrailingSlash::Ignore,
        headers: Vec::new(),
        query: Vec::new(),
    });
    Table::build(specs.collect()).expect("no ties")
}

/// Looks up as many different routes as there are, up to a thousand, so that the table is not served from one line of
/// the cache.
fn lookups(bencher: Bencher<'_, '_>, table: &Table, size: usize, target: impl Fn(usize) -> String) {
    let count = size.min(1_000);
    let targets = (0..count).map(|index| target(index * 7919 % size));
    let requests: Vec<RequestBuf> = targets.map(|target| RequestBuf::new(Method::GET, &target)).collect();
    let mut next = requests.iter().cycle();
    let mut captures = Captures::default();
    bencher.bench_local(|| {
        let request = next.next().expect("a cycle");
        black_box(table.find(black_box(request), &request.method, &mut captures))
    });
}

#[divan::bench(args = SIZES)]
fn find_rest(bencher: Bencher<'_, '_>, size: usize) {
    let table = table(size, |index| format!("/api/svc{index}/{{*rest}}"));
    lookups(bencher, &table, size, |index| format!("/api/svc{index}/v1/tasks/42"));
}

#[divan::bench(args = SIZES)]
fn find_parameters(bencher: Bencher<'_, '_>, size: usize) {
    let table = table(size, |index| format!("/api/svc{index}/{{kind}}/tasks/{{id}}"));
    lookups(bencher, &table, size, |index| format!("/api/svc{index}/v1/tasks/42"));
}

#[divan::bench(args = SIZES)]
fn find_nothing(bencher: Bencher<'_, '_>, size: usize) {
    let table = table(size, |index| format!("/api/svc{index}/{{kind}}/tasks/{{id}}"));
    lookups(bencher, &table, size, |index| format!("/api/svc{index}/v1/users/42"));
}

#[divan::bench]
fn normalise_plain() -> usize {
    normalise(black_box("/api/v1/tasks/4711/comments/42")).map_or(0, |path| path.len())
}

#[divan::bench]
fn normalise_dirty() -> usize {
    normalise(black_box("/api//v1/./tasks/x/../4711/%63omments/%c3%a4")).map_or(0, |path| path.len())
}
