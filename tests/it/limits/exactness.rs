//! As many as the rate says, and no more: with many clients at once, and while the configuration changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::rate_limit::{ask, consumer};
use crate::harness::{Client, Gateway, within};

fn yaml(rate: &str, consumers: usize) -> String {
    let people: String = (0..consumers).map(|number| consumer(&format!("c{number}"), "")).collect();
    format!(
        "admin: {{ bind: 127.0.0.1:0 }}\nroutes:\n  - name: all\n    match: GET /x\n    \
         filters: [{{ auth: {{ accept: [api_key] }} }}, {{ rate_limit: {{ bucket: b, rates: [{rate}] }} }}]\n    \
         respond: {{}}\nconsumers:\n{people}"
    )
}

/// When a request was sent and answered, since the beginning: it was decided upon in between.
type Span = (Duration, Duration);

/// Sends one request after the other until one is refused that was sent late enough: those that pass, and those that do not.
async fn hammer(mut client: Client, key: &str, began: Instant, until: Duration) -> [Vec<Span>; 2] {
    let mut seen = [Vec::new(), Vec::new()];
    loop {
        let sent = began.elapsed();
        let status = ask(&mut client, "GET /x", key).await.status;
        let [admitted, refused] = &mut seen;
        match status {
            200 => admitted.push((sent, began.elapsed())),
            429 => refused.push((sent, began.elapsed())),
            other => panic!("{other}"),
        }
        if status == 429 && sent >= until {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_clients_get_what_the_rate_says_in_every_window() {
    const LIMIT: usize = 20;
    const BURST: usize = 20;
    const RUNS: usize = 10;
    const WINDOW: Duration = Duration::from_secs(1);
    let gateway = Gateway::start(&yaml("20/s", RUNS)).await;
    for run in 0..RUNS {
        let key = format!("c{run}");
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(gateway.client().await);
        }
        let (began, until) = (Instant::now(), WINDOW.mul_f64(1.3));
        let hammers = clients.into_iter().map(|client| hammer(client, &key, began, until));
        let seen = futures_util::future::join_all(hammers).await;
        let [admitted, refused] =
            [0, 1].map(|which| seen.iter().flat_map(|seen| seen[which].clone()).collect::<Vec<_>>());
        for begin in (0..=30).map(|step| Duration::from_millis(10 * step)) {
            let end = begin + WINDOW;
            let certainly = admitted.iter().filter(|(sent, answered)| *sent >= begin && *answered <= end).count();
            // Clients that were kept waiting take what flowed back in the meantime later: until one is refused again.
            let used_up = refused.iter().filter(|(sent, _)| *sent >= end).map(|(_, answered)| *answered).min().unwrap();
            let possibly = admitted.iter().filter(|(sent, answered)| *answered >= begin && *sent <= used_up).count();
            assert!(certainly <= LIMIT + BURST, "run {run}, from {begin:?} on: {certainly}");
            assert!(possibly >= LIMIT - 1, "run {run}, from {begin:?} on: {possibly}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_reloads_resets_nothing_and_a_changed_rate_keeps_what_is_used() {
    let gateway = Gateway::start(&yaml("500/hour", 1)).await;
    let began = Instant::now();
    let state = Arc::new((AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0)));
    let mut hammers = Vec::new();
    for _ in 0..4 {
        let (state, mut client) = (Arc::clone(&state), gateway.client().await);
        hammers.push(tokio::spawn(async move {
            let (over, admitted, refused) = &*state;
            while !over.load(Ordering::SeqCst) {
                match ask(&mut client, "GET /x", "c0").await.status {
                    200 => admitted.fetch_add(1, Ordering::SeqCst),
                    429 => refused.fetch_add(1, Ordering::SeqCst),
                    other => panic!("{other}"),
                };
            }
        }));
    }
    let written = gateway.folder.read("gateway.yaml");
    let refusals = async |count: usize| {
        let wanted = state.2.load(Ordering::SeqCst) + count;
        let enough = async {
            while state.2.load(Ordering::SeqCst) < wanted {
                tokio::task::yield_now().await;
            }
        };
        within("refusals", enough).await;
    };
    for round in 0..30 {
        gateway.folder.write("gateway.yaml", &format!("{written}# {round}\n"));
        gateway.reload_well().await;
    }
    refusals(100).await;
    let back = || (began.elapsed().as_secs_f64() * 900.0 / 3600.0).ceil() as usize;
    let admitted = state.1.load(Ordering::SeqCst);
    assert!((500..=500 + back()).contains(&admitted), "{admitted}");
    for (rate, limit) in [("800/hour", 800), ("600/hour", 800), ("900/hour", 900)] {
        gateway.folder.write("gateway.yaml", &written.replace("500/hour", rate));
        gateway.reload_well().await;
        refusals(100).await;
        let admitted = state.1.load(Ordering::SeqCst);
        assert!((limit..=limit + back()).contains(&admitted), "{rate}: {admitted}");
    }
    state.0.store(true, Ordering::SeqCst);
    for hammer in hammers {
        hammer.await.unwrap();
    }
}
