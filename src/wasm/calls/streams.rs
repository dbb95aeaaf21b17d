//! The exchange as a whole: letting it go on, ending it, answering it, and whose it is.

use wasmtime::{Caller, Linker};

use crate::head::{HeaderName, HeaderValue, StatusCode};
use crate::reply::Reply;
use crate::wasm::host::{Host, Refusal, copied, told};
use crate::wasm::pairs;
use crate::wasm::status::Status;

/// Most fields of an answer by a plugin.
const FIELDS_MAX: usize = 128;

pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_continue_stream", |mut caller: Caller<'_, Host>, stream: u32| {
        told(resume(caller.data_mut(), stream))
    })?;
    linker.func_wrap("env", "proxy_close_stream", |mut caller: Caller<'_, Host>, stream: u32| {
        told(close(caller.data_mut(), stream))
    })?;
    linker.func_wrap(
        "env",
        "proxy_send_local_response",
        |mut caller: Caller<'_, Host>,
         status: u32,
         details: u32,
         details_size: u32,
         body: u32,
         body_size: u32,
         fields: u32,
         fields_size: u32,
         _grpc_status: u32| {
            told(answer(&mut caller, status, (details, details_size), (body, body_size), (fields, fields_size)))
        },
    )?;
    linker.func_wrap("env", "proxy_set_effective_context", |mut caller: Caller<'_, Host>, context: u32| {
        told(caller.data_mut().act_for(context).map_err(Refusal::from))
    })?;
    Ok(())
}

/// `UNIMPLEMENTED` for streams of TCP.
fn resume(host: &mut Host, stream: u32) -> Result<(), Refusal> {
    match stream {
        0 => host.wish().resumed.request = true,
        1 => host.wish().resumed.response = true,
        2 | 3 => return Err(Status::Unimplemented.into()),
        _ => return Err(Status::BadArgument.into()),
    }
    Ok(())
}

fn close(host: &mut Host, stream: u32) -> Result<(), Refusal> {
    if stream > 3 {
        return Err(Status::BadArgument.into());
    }
    host.wish().closes = true;
    Ok(())
}

/// Takes the answer that the plugin gives in place of the service. What frames a message is left out: the gateway writes it.
fn answer(
    caller: &mut Caller<'_, Host>,
    status: u32,
    details: (u32, u32),
    body: (u32, u32),
    fields: (u32, u32),
) -> Result<(), Refusal> {
    let number = u16::try_from(status).map_err(|_| Status::BadArgument)?;
    let status = StatusCode::from_u16(number).map_err(|_| Status::BadArgument)?;
    if status.is_informational() {
        return Err(Status::BadArgument.into());
    }
    let _ = copied(caller, details.0, details.1)?;
    let body = copied(caller, body.0, body.1)?;
    let fields = copied(caller, fields.0, fields.1)?;
    if body.len() > caller.data().terms.limits.body_max {
        return Err(Status::BadArgument.into());
    }
    let mut reply = Reply::new(status);
    for (name, value) in pairs::read(&fields)?.into_iter().take(FIELDS_MAX) {
        if name.starts_with(b":") {
            continue;
        }
        let name = HeaderName::from_bytes(name).map_err(|_| Status::BadArgument)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Status::BadArgument)?;
        if !super::fields::frames(&name) {
            reply.fields.push((name, value));
        }
    }
    reply.body = body.into();
    caller.data_mut().wish().reply = Some(Box::new(reply));
    Ok(())
}
