//! The engine that compiles and runs WebAssembly, and the clock that ends what runs too long.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{Config, OptLevel};

/// How often it is looked whether a callback has run too long.
pub const TICK: Duration = Duration::from_millis(1);
/// Stack of a plugin, in bytes: its calls and those of the compiler's helpers. Threads of the gateway have 2 MiB.
const STACK_BYTES_MAX: usize = 512 * 1024;

/// How much longer than it has to the clock counts, in ticks: so rarely it is told to go on, while plugins work.
const LONGER: u64 = 1000;
/// What another thread may have counted meanwhile, in ticks.
const MARGIN: u64 = 16;

/// Ticks so far: never fewer than the engine was told of.
static COUNTED: AtomicU64 = AtomicU64::new(0);
/// The clock counts to here, and rests then.
static UNTIL: AtomicU64 = AtomicU64::new(0);
static RESTS: AtomicBool = AtomicBool::new(false);
static CLOCK: OnceLock<Thread> = OnceLock::new();

/// The engine of the process; it begins with the first plugin.
///
/// # Errors
/// What the engine says when this machine cannot run it.
pub fn engine() -> Result<&'static wasmtime::Engine, String> {
    static ENGINE: OnceLock<Result<wasmtime::Engine, String>> = OnceLock::new();
    ENGINE.get_or_init(|| start().map_err(|error| format!("{error:#}"))).as_ref().map_err(Clone::clone)
}

/// Has the clock count for so many ticks from now on: a deadline of the engine that was set before comes.
pub fn count(ticks: u64) {
    let least = COUNTED.load(Ordering::SeqCst).saturating_add(ticks).saturating_add(MARGIN);
    if UNTIL.load(Ordering::SeqCst) >= least {
        return;
    }
    UNTIL.fetch_max(least.saturating_add(LONGER), Ordering::SeqCst);
    // Either it sees the new end before it rests, or it is seen to rest.
    if RESTS.load(Ordering::SeqCst)
        && let Some(clock) = CLOCK.get()
    {
        clock.unpark();
    }
}

fn start() -> wasmtime::Result<wasmtime::Engine> {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES_MAX)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .memory_init_cow(true);
    let engine = wasmtime::Engine::new(&config)?;
    let ticking = engine.weak();
    let clock = thread::Builder::new().name("plugin clock".to_owned()).spawn(move || tick(&ticking))?;
    let _ = CLOCK.set(clock.thread().clone());
    Ok(engine)
}

/// Counts time for as long as the engine lives and a plugin works. One is given so many ticks and ended when they are over.
fn tick(engine: &wasmtime::EngineWeak) {
    while let Some(engine) = engine.upgrade() {
        let counted = COUNTED.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        engine.increment_epoch();
        drop(engine);
        if counted < UNTIL.load(Ordering::SeqCst) {
            thread::park_timeout(TICK);
        } else {
            rest(counted);
        }
    }
}

/// Until somebody is to be ended again.
fn rest(counted: u64) {
    RESTS.store(true, Ordering::SeqCst);
    while counted >= UNTIL.load(Ordering::SeqCst) {
        thread::park();
    }
    RESTS.store(false, Ordering::SeqCst);
}
