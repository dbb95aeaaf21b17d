//! Bodies and configuration, as bytes.

use bytes::{Bytes, BytesMut};
use wasmtime::{Caller, Linker};

use crate::wasm::host::{Host, Refusal, give, put_u32, slice, split, told};
use crate::wasm::status::{Buffer, Status};

pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_buffer_bytes",
        |mut caller: Caller<'_, Host>, buffer: u32, start: u32, max: u32, at: u32, size: u32| {
            told(get(&mut caller, buffer, (start, max), at, size))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_buffer_bytes",
        |mut caller: Caller<'_, Host>, buffer: u32, start: u32, size: u32, value: u32, length: u32| {
            told(set(&mut caller, buffer, (start, size), (value, length)))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_buffer_status",
        |mut caller: Caller<'_, Host>, buffer: u32, size: u32, flags: u32| {
            told(status(&mut caller, buffer, size, flags))
        },
    )?;
    Ok(())
}

/// A buffer that there is in this callback.
fn buffer(host: &Host, number: u32) -> Result<Bytes, Status> {
    match Buffer::of(number)? {
        Buffer::VmConfiguration => Ok(host.terms.vm_configuration.clone()),
        Buffer::PluginConfiguration => Ok(host.terms.configuration.clone()),
        Buffer::CallBody => match host.answer.as_ref().ok_or(Status::NotFound)? {
            Ok(answer) => Ok(answer.body.clone()),
            // A call that failed has an empty answer.
            Err(_) => Ok(Bytes::new()),
        },
        Buffer::GrpcMessage => Err(Status::NotFound),
        body => (host.body.is == Some(body)).then(|| host.body.bytes.clone()).ok_or(Status::NotFound),
    }
}

fn get(caller: &mut Caller<'_, Host>, number: u32, range: (u32, u32), at: u32, size: u32) -> Result<(), Refusal> {
    let bytes = buffer(caller.data(), number)?;
    let wide = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let start = wide(range.0);
    let end = start.saturating_add(wide(range.1)).min(bytes.len());
    let part = bytes.get(start..end).ok_or(Status::BadArgument)?;
    give(caller, part, at, size)
}

fn status(caller: &mut Caller<'_, Host>, number: u32, size: u32, flags: u32) -> Result<(), Refusal> {
    let length = u32::try_from(buffer(caller.data(), number)?.len()).map_err(|_| Status::InternalFailure)?;
    put_u32(caller, size, length)?;
    Ok(put_u32(caller, flags, 0)?)
}

/// Replaces a part of a body: before it, within it, behind it.
fn set(caller: &mut Caller<'_, Host>, number: u32, range: (u32, u32), value: (u32, u32)) -> Result<(), Refusal> {
    let which = Buffer::of(number)?;
    let (memory, host) = split(caller)?;
    let value = slice(memory, value.0, value.1)?;
    if host.body.is != Some(which) {
        return Err(Status::NotFound.into());
    }
    let length = host.body.bytes.len();
    let wide = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let start = wide(range.0).min(length);
    let end = start.saturating_add(wide(range.1)).min(length);
    let size = length.saturating_sub(end.saturating_sub(start)).saturating_add(value.len());
    if size > host.terms.limits.body_max {
        return Err(Status::BadArgument.into());
    }
    let mut changed = BytesMut::with_capacity(size);
    changed.extend_from_slice(host.body.bytes.get(..start).unwrap_or_default());
    changed.extend_from_slice(value);
    changed.extend_from_slice(host.body.bytes.get(end..).unwrap_or_default());
    host.body.bytes = changed.freeze();
    Ok(())
}
