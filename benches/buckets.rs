//! Token buckets in memory: what a million take, and what a draw costs.
//! `cargo bench --profile quick --bench buckets`
//!
//! A million live buckets must stay below 200 MiB, and a draw far below a microsecond, however many buckets there are.
#![allow(clippy::expect_used, reason = "a benchmark that cannot set up must stop")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use mimalloc::MiMalloc;
use tollgate::buckets::{Key, Local};
use tollgate::clock;
use tollgate::rates::{Ask, Rates};
use tollgate::types::Rate;

/// What the gateway uses.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const MANY: u32 = 1_000_000;
const FEW: u32 = 100;
const DRAWS: u32 = 4_000_000;
const ONE: &str = "1000000000/min";
const THREE: [&str; 3] = ["1000000000/min", "1000000000/hour", "1000000000/day"];

fn main() {
    let many: Vec<String> = (0..MANY).map(address).collect();
    let few: Vec<String> = (0..FEW).map(|number| format!("consumer=dashboard-{number}")).collect();
    let one = filled("1 rate ", &many, &rates(&[ONE]));
    let three = filled("3 rates", &many, &rates(&THREE));
    println!();
    for (local, rates, of) in [(&one, rates(&[ONE]), "1 rate "), (&three, rates(&THREE), "3 rates")] {
        // In an order that no cache foresees.
        let shuffled: Vec<&str> = (0..MANY).filter_map(|number| at(&many, number.wrapping_mul(61_813))).collect();
        let few: Vec<&str> = few.iter().map(String::as_str).collect();
        report(&format!("{of}, hit among {MANY}"), draws(local, &rates, &[&shuffled]));
        report(&format!("{of}, hit among {FEW}"), draws(&Local::default(), &rates, &[&few]));
        report(&format!("{of}, 2 threads, different keys of {MANY}"), {
            let (first, second) = shuffled.split_at(shuffled.len() / 2);
            draws(local, &rates, &[first, second])
        });
        report(&format!("{of}, 2 threads, the same {FEW} keys"), draws(&Local::default(), &rates, &[&few, &few]));
        let same = ["consumer=everybody"];
        report(&format!("{of}, 2 threads, one key"), draws(&Local::default(), &rates, &[&same, &same]));
    }
    full(&one);
    operators(&one);
}

fn address(number: u32) -> String {
    format!("ip={}", Ipv4Addr::from_bits(number.wrapping_mul(2_654_435_761)))
}

fn rates(written: &[&str]) -> Rates {
    let rates = written.iter().map(|rate| rate.parse::<Rate>().expect("a rate"));
    Rates::new(rates, None).expect("rates")
}

fn at(keys: &[String], number: u32) -> Option<&str> {
    keys.get(usize::try_from(number).ok()? % keys.len()).map(String::as_str)
}

fn key(who: &str) -> Key<'_> {
    Key { bucket: "chain:api", who }
}

/// A bucket for each key: what they take, in memory and time.
fn filled(what: &str, keys: &[String], rates: &Rates) -> Local {
    let (before, local) = (resident_bytes(), Local::default());
    // Time stands still, so that none is full again before it was measured.
    let (now, began) = (clock::now(), processor_time());
    for who in keys {
        local.draw(key(who), rates, Ask::exactly(1_000_000.0), now);
    }
    let (took, grown) = (processor_time().saturating_sub(began), resident_bytes().saturating_sub(before));
    let each = grown.checked_div(local.len()).unwrap_or_default();
    println!("{what}: {} buckets, {} MiB resident, {each} B each", local.len(), grown >> 20);
    report(&format!("{what}, insert"), per_draw(took, MANY));
    local
}

/// Nanoseconds of a draw, with a thread for each list of keys: of the one that took longest.
fn draws(local: &Local, rates: &Rates, keys: &[&[&str]]) -> f64 {
    let ready = Barrier::new(keys.len());
    let run = |keys: &[&str]| {
        ready.wait();
        let (now, began) = (clock::now(), processor_time());
        let mut next = keys.iter().cycle();
        for _ in 0..DRAWS {
            // A request brings the time with it; it is read once for all that it does.
            let drawn = next.next().map(|who| local.draw(key(who), rates, Ask::exactly(0.001), now));
            black_box(drawn);
        }
        processor_time().saturating_sub(began)
    };
    let took = thread::scope(|scope| {
        let threads: Vec<_> = keys.iter().map(|keys| scope.spawn(|| run(keys))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).max().unwrap_or_default()
    });
    per_draw(took, DRAWS)
}

/// New buckets when there is no room.
fn full(local: &Local) {
    let rates = rates(&[ONE]);
    local.set_max(local.len(), clock::now());
    let keys: Vec<String> = (0..MANY).map(|number| format!("ip=2001:db8::{number:x}")).collect();
    let (before, now, began) = (resident_bytes(), clock::now(), processor_time());
    for who in &keys {
        local.draw(key(who), &rates, Ask::exactly(1.0), now);
    }
    println!();
    report("insert when full, 1,000,000 times", per_draw(processor_time().saturating_sub(began), MANY));
    println!("grown by {} MiB, {} buckets", resident_bytes().saturating_sub(before) >> 20, local.len());
}

/// What operators ask for, and the sweep beside requests.
fn operators(local: &Local) {
    // A flood leaves little in use; somebody is to be found.
    for who in 0..100 {
        local.draw(key(&format!("consumer={who}")), &rates(&["1000/day"]), Ask::exactly(500.0), clock::now());
    }
    let began = clock::now();
    let top = local.top("chain:api", 20, began).len();
    println!("top {top} of {}: {:?}", local.len(), began.elapsed());
    let (later, began) = (clock::now() + Duration::from_hours(48), clock::now());
    let removed = local.sweep(later);
    println!("sweep of {removed}: {:?}; then room for {} buckets", began.elapsed(), local.capacity());
}

fn per_draw(took: Duration, draws: u32) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(draws)
}

fn report(what: &str, nanos: f64) {
    println!("{what}: {nanos:.0} ns");
}

/// Time that this thread had a core, so that other work on the machine does not count (proc(5), schedstat: the first number, in
/// nanoseconds).
fn processor_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos = schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number");
    Duration::from_nanos(nanos)
}

/// Memory of this process, in bytes (proc(5), statm: the second number, in pages).
fn resident_bytes() -> usize {
    const PAGE_BYTES: usize = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages.saturating_mul(PAGE_BYTES)
}
