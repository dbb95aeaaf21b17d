//! The engine that compiles and runs WebAssembly, and the clock that ends what runs too long.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use wasmtime::{Config, OptLevel};

/// How often it is looked whether a callback has run too long.
pub const TICK: Duration = Duration::from_millis(1);
/// Stack of a plugin, in bytes: its calls and those of the compiler's helpers. Threads of the gateway have 2 MiB.
const STACK_BYTES_MAX: usize = 512 * 1024;

/// The engine of the process; it begins with the first plugin.
///
/// # Errors
/// What the engine says when this machine cannot run it.
pub fn engine() -> Result<&'static wasmtime::Engine, String> {
    static ENGINE: OnceLock<Result<wasmtime::Engine, String>> = OnceLock::new();
    ENGINE.get_or_init(|| start().map_err(|error| format!("{error:#}"))).as_ref().map_err(Clone::clone)
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
    thread::Builder::new().name("plugin clock".to_owned()).spawn(move || tick(&ticking))?;
    Ok(engine)
}

/// Counts time for as long as the engine lives. A plugin is given so many ticks and ended when they are over.
fn tick(engine: &wasmtime::EngineWeak) {
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        thread::park_timeout(TICK);
    }
}
