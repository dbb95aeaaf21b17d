//! What a permit costs that can be had at once: taken and given back. `cargo bench --profile quick --bench permits`
#![allow(clippy::panic, clippy::unwrap_used, reason = "a benchmark that cannot set up must stop")]

use std::num::NonZeroU32;

use divan::Bencher;
use tollgate::context::Held;
use tollgate::limits::permits::{Entrance, Permit, Permits};

const MAX: NonZeroU32 = NonZeroU32::new(1000).unwrap();

fn main() {
    divan::main();
}

fn admitted(entrance: Entrance) -> Permit {
    match entrance {
        Entrance::Admitted(permit) => permit,
        Entrance::Queued(_) | Entrance::Full => panic!("there is room"),
    }
}

/// The only one of its caller: its entry comes into being and vanishes.
#[divan::bench(args = ["", "consumer=dashboard"], threads = [1, 2])]
fn alone(bencher: Bencher<'_, '_>, who: &str) {
    let bucket = Permits::default().bucket("api");
    bencher.bench(|| drop(admitted(bucket.enter(who, MAX, 0))));
}

/// One of several of the same caller.
#[divan::bench(args = ["", "consumer=dashboard"], threads = [1, 2])]
fn among_others(bencher: Bencher<'_, '_>, who: &str) {
    let bucket = Permits::default().bucket("api");
    let _others = [(); 5].map(|()| admitted(bucket.enter(who, MAX, 0)));
    bencher.bench(|| drop(admitted(bucket.enter(who, MAX, 0))));
}

/// With 100,000 other callers in flight.
#[divan::bench]
fn in_a_crowd(bencher: Bencher<'_, '_>) {
    let bucket = Permits::default().bucket("api");
    let _others: Vec<Permit> =
        (0..100_000).map(|other| admitted(bucket.enter(&format!("ip=10.{other}"), MAX, 0))).collect();
    bencher.bench_local(|| drop(admitted(bucket.enter("ip=192.0.2.1", MAX, 0))));
}

/// As a filter holds it for a request.
#[divan::bench]
fn held(bencher: Bencher<'_, '_>) {
    let bucket = Permits::default().bucket("api");
    bencher.bench_local(|| drop(Held::new(admitted(bucket.enter("consumer=dashboard", MAX, 0)))));
}
