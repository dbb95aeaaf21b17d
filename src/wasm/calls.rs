//! The functions that a plugin may call: one file for each section of the specification.

mod buffers;
mod contexts;
mod fields;
mod foreign;
mod grpc;
mod http_calls;
mod logs;
mod metrics;
mod properties;
mod shared;
mod streams;
mod timers;

use std::sync::Arc;

use wasmtime::{Extern, FuncType, Linker, Store};

use super::engine::engine;
use super::host::Host;
use super::record::Record;
use super::shared::Space;

/// Links every function.
pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    buffers::link(linker)?;
    contexts::link(linker)?;
    fields::link(linker)?;
    foreign::link(linker)?;
    grpc::link(linker)?;
    http_calls::link(linker)?;
    logs::link(linker)?;
    metrics::link(linker)?;
    properties::link(linker)?;
    shared::link(linker)?;
    streams::link(linker)?;
    timers::link(linker)?;
    Ok(())
}

/// Every function, with the module it is imported from.
pub fn all(linker: &Linker<Host>) -> Vec<(String, String, FuncType)> {
    let Ok(engine) = engine() else { return Vec::new() };
    let mut store = Store::new(engine, nobody());
    let externs: Vec<_> =
        linker.iter(&mut store).map(|(module, name, given)| (module.to_owned(), name.to_owned(), given)).collect();
    let functions = externs.into_iter().filter_map(|(module, name, given)| match given {
        Extern::Func(function) => Some((module, name, function.ty(&store))),
        _ => None,
    });
    functions.collect()
}

/// Arguments and result of a function.
pub fn signature(linker: &Linker<Host>, module: &str, name: &str) -> Option<FuncType> {
    let mut store = Store::new(engine().ok()?, nobody());
    match linker.get(&mut store, module, name).ok()? {
        Extern::Func(function) => Some(function.ty(&store)),
        _ => None,
    }
}

/// The state of an instance that there is not, and that nobody counts.
fn nobody() -> Host {
    Host::new(Arc::default(), Arc::new(Space::default()), Arc::new(Record::new("")))
}
