//! Foreign functions, of which this host has none.

use wasmtime::{Caller, Linker};

use crate::wasm::host::{Host, Refusal, slice, split, told};
use crate::wasm::status::Status;

/// Longest name that is shown, in bytes.
const NAME_BYTES_MAX: usize = 128;

pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_call_foreign_function",
        |mut caller: Caller<'_, Host>, name: u32, length: u32, given: u32, size: u32, at: u32, returned: u32| {
            let done = refuse(&mut caller, (name, length), (given, size), (at, returned));
            told(done.map_err(Refusal::from))
        },
    )?;
    Ok(())
}

/// Says once for each name that there is no such function: a plugin may live without it, and may ask at every request.
fn refuse(
    caller: &mut Caller<'_, Host>,
    name: (u32, u32),
    given: (u32, u32),
    returned: (u32, u32),
) -> Result<(), Status> {
    let (memory, host) = split(caller)?;
    slice(memory, given.0, given.1)?;
    slice(memory, returned.0, 4)?;
    slice(memory, returned.1, 4)?;
    let name = slice(memory, name.0, name.1)?;
    let name = String::from_utf8_lossy(name.get(..NAME_BYTES_MAX).unwrap_or(name));
    if host.record.is_first_asked(&name) {
        let (plugin, function) = (&*host.terms.name, name.escape_debug());
        tracing::warn!(plugin, "it asks for the foreign function `{function}`, which this gateway does not have");
    }
    Err(Status::NotFound)
}
