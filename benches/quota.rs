//! What a quota costs a request. `cargo bench --profile quick --bench quota`
#![allow(clippy::expect_used, reason = "a benchmark that cannot set up must stop")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use divan::Bencher;
use tollgate::clock;
use tollgate::limits::quotas::{Bucket, Calendar, Moment, OnStoreError, Outcome, Quotas, Terms, Unit, Want};
use tollgate::state::{Limits, Memory};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What never runs out while it is measured.
const AMPLE: u64 = 1_000_000_000_000;
/// More callers than any cache holds.
const CALLERS: usize = 100_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _entered = runtime.enter();
    divan::main();
}

struct Bench {
    bucket: Arc<Bucket>,
    terms: Terms,
    callers: Vec<String>,
}

impl Bench {
    fn new(callers: usize) -> Self {
        let quotas = Quotas::default();
        quotas.attach(Arc::new(Memory::new(Limits::default())));
        let calendar = Calendar::new(Unit::Month, "Europe/Berlin").expect("a zone");
        let callers = (0..callers).map(|number| format!("consumer=shop-{number}")).collect();
        Self { bucket: quotas.bucket("b"), terms: Terms { calendar, on_store_error: OnStoreError::Local }, callers }
    }

    fn spend(&self, index: usize, limit: u64) -> bool {
        let at = Moment { wall: clock::wall(), now: clock::now() };
        let who = self.callers.get(index).expect("a caller");
        let outcome = self.bucket.try_spend(&self.terms, black_box(who), Want { limit, cost: 1 }, at);
        matches!(outcome, Outcome::Known(_))
    }
}

/// One caller, blocks and their share of the store included.
#[divan::bench]
fn one_caller(bencher: Bencher<'_, '_>) {
    let bench = Bench::new(1);
    bencher.bench_local(|| bench.spend(0, AMPLE));
}

#[divan::bench]
fn one_caller_that_is_refused(bencher: Bencher<'_, '_>) {
    let bench = Bench::new(1);
    bench.spend(0, 1);
    bencher.bench_local(|| bench.spend(0, 1));
}

#[divan::bench]
fn many_callers(bencher: Bencher<'_, '_>) {
    let bench = Bench::new(CALLERS);
    assert!((0..CALLERS).all(|index| bench.spend(index, AMPLE) || bench.spend(index, AMPLE)));
    let turn = AtomicUsize::new(0);
    bencher.bench_local(|| bench.spend(turn.fetch_add(7919, Ordering::Relaxed) % CALLERS, AMPLE));
}

/// Nothing is taken ahead: each asks the store, which is that in memory.
#[divan::bench]
fn without_blocks(bencher: Bencher<'_, '_>) {
    let bench = Bench::new(CALLERS);
    let turn = AtomicUsize::new(0);
    bencher.bench_local(|| bench.spend(turn.fetch_add(1, Ordering::Relaxed) % CALLERS, 199));
}
