//! What a plugin says for those who operate it, and the system functions of WASI that its language needs.
//!
//! WASI snapshot preview 1, as far as Proxy-Wasm ABI 0.2.1 names it: standard output and error are log lines, there are no
//! files, no arguments, no environment.

use std::time::UNIX_EPOCH;

use wasmtime::{Caller, Linker};

use crate::clock;
use crate::wasm::host::{Host, LOG_BYTES_MAX, Refusal, put, put_u32, put_u64, slice, split, told};
use crate::wasm::status::Status;

/// The module that they are imported from, and what compilers called it before.
const WASI: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

/// Numbers that WASI functions return.
mod errno {
    pub const SUCCESS: u32 = 0;
    pub const BADF: u32 = 8;
    pub const FAULT: u32 = 21;
    pub const INVAL: u32 = 28;
    pub const NOTSUP: u32 = 58;
}

/// Most bytes of randomness at once.
const RANDOM_BYTES_MAX: u32 = 64 * 1024;
/// The level of a warning.
const WARN: u32 = 3;
/// Most parts of one write.
const PARTS_MAX: u32 = 64;

pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_log", |mut caller: Caller<'_, Host>, level: u32, at: u32, size: u32| {
        told(log(&mut caller, level, (at, size)))
    })?;
    linker.func_wrap("env", "proxy_get_log_level", |mut caller: Caller<'_, Host>, at: u32| {
        told(put_u32(&mut caller, at, log_level()).map_err(Refusal::from))
    })?;
    linker.func_wrap("env", "proxy_get_current_time_nanoseconds", |mut caller: Caller<'_, Host>, at: u32| {
        told(put_u64(&mut caller, at, wall_nanoseconds()).map_err(Refusal::from))
    })?;
    // What emscripten tells JavaScript, which is not there; what it makes for hosts like this one imports it.
    linker.func_wrap("env", "emscripten_notify_memory_growth", |_: Caller<'_, Host>, _memory: u32| {})?;
    WASI.into_iter().try_for_each(|module| link_system(linker, module))
}

/// What the languages of plugins take for the system.
fn link_system(linker: &mut Linker<Host>, module: &str) -> wasmtime::Result<()> {
    linker.func_wrap(
        module,
        "fd_write",
        |mut caller: Caller<'_, Host>, fd: u32, parts: u32, count: u32, at: u32| {
            write(&mut caller, fd, (parts, count), at)
        },
    )?;
    linker.func_wrap(module, "clock_time_get", |mut caller: Caller<'_, Host>, clock: u32, _: u64, at: u32| {
        let time = match clock {
            0 => wall_nanoseconds(),
            1 => monotonic_nanoseconds(),
            _ => return errno::NOTSUP,
        };
        or_fault(put_u64(&mut caller, at, time))
    })?;
    linker.func_wrap(module, "random_get", |mut caller: Caller<'_, Host>, at: u32, size: u32| {
        random(&mut caller, at, size)
    })?;
    for function in ["environ_sizes_get", "args_sizes_get"] {
        linker.func_wrap(module, function, |mut caller: Caller<'_, Host>, count: u32, size: u32| {
            or_fault(put_u32(&mut caller, count, 0).and_then(|()| put_u32(&mut caller, size, 0)))
        })?;
    }
    for function in ["environ_get", "args_get"] {
        linker.func_wrap(module, function, |_: Caller<'_, Host>, _: u32, _: u32| errno::SUCCESS)?;
    }
    linker.func_wrap(module, "proc_exit", |_: Caller<'_, Host>, code: u32| -> wasmtime::Result<()> {
        Err(wasmtime::format_err!("it called `proc_exit` with {code}"))
    })?;
    // What the standard libraries of languages import whether they need it or not. There is nothing to open, so nothing is open.
    linker.func_wrap(module, "fd_close", |_: Caller<'_, Host>, _: u32| errno::BADF)?;
    linker.func_wrap(module, "fd_fdstat_get", |_: Caller<'_, Host>, _: u32, _: u32| errno::BADF)?;
    linker.func_wrap(module, "fd_seek", |_: Caller<'_, Host>, _: u32, _: u64, _: u32, _: u32| errno::BADF)?;
    linker.func_wrap(module, "fd_read", |_: Caller<'_, Host>, _: u32, _: u32, _: u32, _: u32| errno::BADF)?;
    linker.func_wrap(module, "fd_prestat_get", |_: Caller<'_, Host>, _: u32, _: u32| errno::BADF)?;
    linker.func_wrap(module, "fd_prestat_dir_name", |_: Caller<'_, Host>, _: u32, _: u32, _: u32| errno::BADF)?;
    linker.func_wrap(module, "sched_yield", |_: Caller<'_, Host>| errno::SUCCESS)?;
    Ok(())
}

fn or_fault(done: Result<(), Status>) -> u32 {
    if done.is_ok() { errno::SUCCESS } else { errno::FAULT }
}

fn wall_nanoseconds() -> u64 {
    let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn monotonic_nanoseconds() -> u64 {
    use std::sync::OnceLock;
    static BEGINNING: OnceLock<std::time::Instant> = OnceLock::new();
    let since = clock::now().saturating_duration_since(*BEGINNING.get_or_init(clock::now));
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The level that lines are written from on.
fn log_level() -> u32 {
    match tracing::level_filters::LevelFilter::current() {
        tracing::level_filters::LevelFilter::TRACE => 0,
        tracing::level_filters::LevelFilter::DEBUG => 1,
        tracing::level_filters::LevelFilter::INFO => 2,
        tracing::level_filters::LevelFilter::WARN => 3,
        tracing::level_filters::LevelFilter::ERROR => 4,
        _ => 5,
    }
}

fn log(caller: &mut Caller<'_, Host>, level: u32, span: (u32, u32)) -> Result<(), Refusal> {
    let (memory, host) = split(caller)?;
    let text = slice(memory, span.0, span.1)?;
    Ok(say(host, level, text)?)
}

/// Writes one line. What is longer than [`LOG_BYTES_MAX`] is cut; control characters are escaped.
fn say(host: &mut Host, level: u32, text: &[u8]) -> Result<(), Status> {
    let text = String::from_utf8_lossy(text.get(..LOG_BYTES_MAX).unwrap_or(text));
    let text = text.trim_end();
    if level >= WARN {
        host.complaint = Some(text.to_owned());
    }
    let plugin = &*host.terms.name;
    match level {
        0 => tracing::trace!(plugin, "{}", text.escape_debug()),
        1 => tracing::debug!(plugin, "{}", text.escape_debug()),
        2 => tracing::info!(plugin, "{}", text.escape_debug()),
        3 => tracing::warn!(plugin, "{}", text.escape_debug()),
        4 | 5 => tracing::error!(plugin, "{}", text.escape_debug()),
        _ => return Err(Status::BadArgument),
    }
    Ok(())
}

/// Standard output is information, standard error an error.
fn write(caller: &mut Caller<'_, Host>, fd: u32, parts: (u32, u32), at: u32) -> u32 {
    let level = match fd {
        1 => 2,
        2 => 4,
        _ => return errno::BADF,
    };
    if parts.1 > PARTS_MAX {
        return errno::INVAL;
    }
    let Ok((memory, host)) = split(caller) else { return errno::FAULT };
    let mut text = Vec::new();
    let mut written = 0_u32;
    for index in 0..parts.1 {
        let part = parts.0.saturating_add(index.saturating_mul(8));
        let number =
            |at: u32| slice(memory, at, 4).ok().and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        let (Some(start), Some(size)) = (number(part), number(part.saturating_add(4))) else { return errno::FAULT };
        let Ok(bytes) = slice(memory, start, size) else { return errno::FAULT };
        text.extend_from_slice(bytes.get(..LOG_BYTES_MAX).unwrap_or(bytes));
        written = written.saturating_add(size);
    }
    // A line of its own for every write: languages write a line at once.
    let _ = say(host, level, &text);
    or_fault(put(memory, at, &written.to_le_bytes()))
}

fn random(caller: &mut Caller<'_, Host>, at: u32, size: u32) -> u32 {
    if size > RANDOM_BYTES_MAX {
        return errno::INVAL;
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    if getrandom::fill(&mut bytes).is_err() {
        return errno::NOTSUP;
    }
    let Ok((memory, _)) = split(caller) else { return errno::FAULT };
    or_fault(put(memory, at, &bytes))
}
