//! Ticks.

use std::time::Duration;

use wasmtime::{Caller, Linker};

use crate::clock;
use crate::wasm::host::{Host, told};

/// Ticks do not come more often than that.
const PERIOD_MIN: Duration = Duration::from_millis(10);

pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_set_tick_period_milliseconds", |mut caller: Caller<'_, Host>, period: u32| {
        let period = Duration::from_millis(period.into());
        let period = (!period.is_zero()).then(|| period.max(PERIOD_MIN));
        caller.data_mut().tick_every(period, clock::now());
        told(Ok(()))
    })?;
    Ok(())
}
