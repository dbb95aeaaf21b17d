//! Values and queues that the instances of a plugin share.

use wasmtime::{Caller, Linker};

use crate::wasm::host::{Host, Refusal, give, put_u32, slice, split, told};
use crate::wasm::shared::resolve;
use crate::wasm::status::Status;

pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_shared_data",
        |mut caller: Caller<'_, Host>, key: u32, length: u32, at: u32, size: u32, cas: u32| {
            told(get(&mut caller, (key, length), (at, size), cas))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_shared_data",
        |mut caller: Caller<'_, Host>, key: u32, length: u32, value: u32, size: u32, cas: u32| {
            told(set(&mut caller, (key, length), (value, size), cas).map_err(Refusal::from))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_register_shared_queue",
        |mut caller: Caller<'_, Host>, name: u32, length: u32, id: u32| {
            told(register(&mut caller, (name, length), id).map_err(Refusal::from))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_resolve_shared_queue",
        |mut caller: Caller<'_, Host>, vm_id: u32, vm_id_length: u32, name: u32, length: u32, id: u32| {
            told(open(&mut caller, (vm_id, vm_id_length), (name, length), id).map_err(Refusal::from))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_enqueue_shared_queue",
        |mut caller: Caller<'_, Host>, id: u32, value: u32, size: u32| {
            told(push(&mut caller, id, (value, size)).map_err(Refusal::from))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_dequeue_shared_queue",
        |mut caller: Caller<'_, Host>, id: u32, at: u32, size: u32| told(pop(&mut caller, id, at, size)),
    )?;
    Ok(())
}

/// A place in the memory of the plugin, and how many bytes.
type Span = (u32, u32);

fn get(caller: &mut Caller<'_, Host>, key: Span, value: Span, cas: u32) -> Result<(), Refusal> {
    let (memory, host) = split(caller)?;
    let (found, number) = host.space.get(slice(memory, key.0, key.1)?).ok_or(Status::NotFound)?;
    slice(memory, cas, 4)?;
    give(caller, &found, value.0, value.1)?;
    Ok(put_u32(caller, cas, number)?)
}

fn set(caller: &mut Caller<'_, Host>, key: Span, value: Span, cas: u32) -> Result<(), Status> {
    let (memory, host) = split(caller)?;
    host.space.set(slice(memory, key.0, key.1)?, slice(memory, value.0, value.1)?, cas)
}

fn register(caller: &mut Caller<'_, Host>, name: Span, id: u32) -> Result<(), Status> {
    let (memory, host) = split(caller)?;
    slice(memory, id, 4)?;
    let queue = host.space.register(slice(memory, name.0, name.1)?)?;
    let number = queue.id;
    host.open_queue(&queue, true)?;
    put_u32(caller, id, number)
}

fn open(caller: &mut Caller<'_, Host>, vm_id: Span, name: Span, id: u32) -> Result<(), Status> {
    let (memory, host) = split(caller)?;
    slice(memory, id, 4)?;
    let vm_id = std::str::from_utf8(slice(memory, vm_id.0, vm_id.1)?).map_err(|_| Status::NotFound)?;
    // Most plugins know no name of theirs and mean their own queues.
    let vm_id = if vm_id.is_empty() { &host.terms.name } else { vm_id };
    let queue = resolve(vm_id, slice(memory, name.0, name.1)?).ok_or(Status::NotFound)?;
    let number = queue.id;
    host.open_queue(&queue, false)?;
    put_u32(caller, id, number)
}

fn push(caller: &mut Caller<'_, Host>, id: u32, value: Span) -> Result<(), Status> {
    let (memory, host) = split(caller)?;
    let item = slice(memory, value.0, value.1)?;
    host.queue(id).ok_or(Status::NotFound)?.push(item)
}

fn pop(caller: &mut Caller<'_, Host>, id: u32, at: u32, size: u32) -> Result<(), Refusal> {
    let (memory, host) = split(caller)?;
    // An item that cannot be handed over would be lost.
    slice(memory, at, 4)?;
    slice(memory, size, 4)?;
    let item = host.queue(id).ok_or(Status::NotFound)?.pop().ok_or(Status::Empty)?;
    give(caller, &item, at, size)
}
