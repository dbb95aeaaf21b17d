//! The reload storm of `benches/storm`, in short: enough to see a request fail for a reload, too little to judge memory.

#[path = "../../benches/storm/clients.rs"]
mod clients;
#[path = "../../benches/storm/engine.rs"]
mod engine;
#[path = "../../benches/storm/process.rs"]
mod process;
#[path = "../../benches/storm/service.rs"]
mod service;
#[path = "../../benches/storm/wire.rs"]
mod wire;

use std::sync::atomic::Ordering;

use engine::{Outcome, Plan, Sample, Trigger};

async fn storm(trigger: Trigger, reloads: u64, broken_every: u64) -> Outcome {
    let binary = env!("CARGO_BIN_EXE_tollgate").into();
    let plan = Plan { binary, reloads, connections: 16, trigger, broken_every, sample_every: reloads.max(1) };
    let outcome = engine::run(&plan, |sample| eprintln!("{}\n{sample}", Sample::TITLE))
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert!(outcome.is_clean(), "{outcome}");
    assert_eq!((outcome.applied, outcome.refused), (reloads - reloads / broken_every, reloads / broken_every));
    assert!(outcome.tally.requests.load(Ordering::Relaxed) > 0);
    assert!(outcome.tally.pings.load(Ordering::Relaxed) > 0);
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_for_reloads_asked_of_the_admin_address() {
    let outcome = storm(Trigger::Api, 100, 10).await;
    assert!(outcome.tally.uploads.load(Ordering::Relaxed) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_for_reloads_by_signal() {
    storm(Trigger::Signal, 50, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_for_reloads_by_a_change_of_the_file() {
    storm(Trigger::Watch, 8, 4).await;
}
