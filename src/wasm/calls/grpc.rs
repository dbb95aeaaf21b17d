//! Calls by gRPC, of which this host has none: to it no upstream is one that could be called like that.

use wasmtime::{Caller, Linker};

use crate::wasm::host::{Host, Refusal, slice, split, told};
use crate::wasm::status::Status;

pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_grpc_call",
        |mut caller: Caller<'_, Host>,
         upstream: u32,
         upstream_size: u32,
         service: u32,
         service_size: u32,
         method: u32,
         method_size: u32,
         metadata: u32,
         metadata_size: u32,
         message: u32,
         message_size: u32,
         _timeout: u32,
         id: u32| {
            let texts = [(upstream, upstream_size), (service, service_size), (method, method_size)];
            let bytes = [(metadata, metadata_size), (message, message_size), (id, 4)];
            refuse(&mut caller, texts.iter().chain(&bytes), Status::ParseFailure)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_grpc_stream",
        |mut caller: Caller<'_, Host>,
         upstream: u32,
         upstream_size: u32,
         service: u32,
         service_size: u32,
         method: u32,
         method_size: u32,
         metadata: u32,
         metadata_size: u32,
         id: u32| {
            let texts = [(upstream, upstream_size), (service, service_size), (method, method_size)];
            let bytes = [(metadata, metadata_size), (id, 4)];
            refuse(&mut caller, texts.iter().chain(&bytes), Status::ParseFailure)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_grpc_send",
        |mut caller: Caller<'_, Host>, _stream: u32, message: u32, size: u32, _end: u32| {
            refuse(&mut caller, &[(message, size)], Status::NotFound)
        },
    )?;
    for function in ["proxy_grpc_cancel", "proxy_grpc_close"] {
        linker.func_wrap("env", function, |_: Caller<'_, Host>, _call: u32| Status::NotFound.number())?;
    }
    Ok(())
}

/// What a plugin is told that names places in its memory.
fn refuse<'a>(
    caller: &mut Caller<'_, Host>,
    spans: impl IntoIterator<Item = &'a (u32, u32)>,
    status: Status,
) -> wasmtime::Result<u32> {
    let looked = split(caller)
        .and_then(|(memory, _)| spans.into_iter().try_for_each(|(at, size)| slice(memory, *at, *size).map(|_| ())));
    told(looked.and(Err(status)).map_err(Refusal::from))
}
