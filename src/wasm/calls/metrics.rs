//! Metrics of a plugin.

use wasmtime::{Caller, Linker};

use crate::wasm::host::{Host, Refusal, put_u32, put_u64, slice, split, told};
use crate::wasm::record::Kind;
use crate::wasm::status::Status;

pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_define_metric",
        |mut caller: Caller<'_, Host>, kind: u32, name: u32, length: u32, id: u32| {
            told(define(&mut caller, kind, (name, length), id).map_err(Refusal::from))
        },
    )?;
    linker.func_wrap("env", "proxy_record_metric", |caller: Caller<'_, Host>, id: u32, value: u64| {
        told(caller.data().record.record(id, value).map_err(Refusal::from))
    })?;
    linker.func_wrap("env", "proxy_increment_metric", |caller: Caller<'_, Host>, id: u32, delta: i64| {
        told(caller.data().record.increment(id, delta).map_err(Refusal::from))
    })?;
    linker.func_wrap("env", "proxy_get_metric", |mut caller: Caller<'_, Host>, id: u32, at: u32| {
        told(get(&mut caller, id, at).map_err(Refusal::from))
    })?;
    Ok(())
}

fn define(caller: &mut Caller<'_, Host>, kind: u32, name: (u32, u32), id: u32) -> Result<(), Status> {
    let kind = Kind::of(kind)?;
    let (memory, host) = split(caller)?;
    slice(memory, id, 4)?;
    let number = host.record.define(kind, slice(memory, name.0, name.1)?)?;
    put_u32(caller, id, number)
}

fn get(caller: &mut Caller<'_, Host>, id: u32, at: u32) -> Result<(), Status> {
    let value = caller.data().record.value(id)?;
    put_u64(caller, at, value)
}
