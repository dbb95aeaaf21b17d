//! The end of a context, and what became of a call.

use wasmtime::{Caller, Linker};

use crate::wasm::host::{Host, Refusal, give, put_u32, slice, split, told};

pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_done", |mut caller: Caller<'_, Host>| {
        told(caller.data_mut().done().map_err(Refusal::from))
    })?;
    linker.func_wrap("env", "proxy_get_status", |mut caller: Caller<'_, Host>, code: u32, at: u32, size: u32| {
        told(status(&mut caller, code, at, size))
    })?;
    Ok(())
}

/// The status of the answer to a call; 0 without a word where there was no call.
fn status(caller: &mut Caller<'_, Host>, code: u32, at: u32, size: u32) -> Result<(), Refusal> {
    let (memory, host) = split(caller)?;
    slice(memory, code, 4)?;
    let status = host.answer.as_ref().and_then(|answered| answered.as_ref().ok()).map(|answer| answer.status);
    let words = status.and_then(|status| status.canonical_reason()).unwrap_or_default();
    give(caller, words.as_bytes(), at, size)?;
    Ok(put_u32(caller, code, status.map_or(0, |status| status.as_u16().into()))?)
}
