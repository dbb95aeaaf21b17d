//! Requests that a plugin sends to other services. Only upstreams that the operator has named can be called.
//!
//! Nothing is sent while the plugin runs: a call goes out when the callback has returned, and a plugin that fails in it has
//! sent nothing.

use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use wasmtime::{Caller, Linker};

use crate::head::{HeaderName, HeaderValue, Method};
use crate::wasm::call::Call;
use crate::wasm::host::{Host, Refusal, put_u32, slice, split, told};
use crate::wasm::pairs;
use crate::wasm::status::Status;

/// Most fields of a request, and most trailers.
const FIELDS_MAX: usize = 128;

/// A place in the memory of the plugin, and how many bytes.
type Span = (u32, u32);

pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_http_call",
        |mut caller: Caller<'_, Host>,
         upstream: u32,
         upstream_size: u32,
         fields: u32,
         fields_size: u32,
         body: u32,
         body_size: u32,
         trailers: u32,
         trailers_size: u32,
         timeout: u32,
         number: u32| {
            let spans = Spans {
                upstream: (upstream, upstream_size),
                fields: (fields, fields_size),
                body: (body, body_size),
                trailers: (trailers, trailers_size),
            };
            told(call(&mut caller, &spans, timeout, number))
        },
    )?;
    Ok(())
}

/// What the plugin hands over.
struct Spans {
    upstream: Span,
    fields: Span,
    body: Span,
    trailers: Span,
}

fn call(caller: &mut Caller<'_, Host>, spans: &Spans, timeout: u32, number: u32) -> Result<(), Refusal> {
    let (memory, host) = split(caller)?;
    // Before anything is taken: a call whose number nobody can be told must not be sent.
    slice(memory, number, 4)?;
    let call = read(memory, host, spans, timeout)?;
    let context = host.effective();
    let given = host.calls.ask(context, call)?;
    Ok(put_u32(caller, number, given)?)
}

fn read(memory: &[u8], host: &Host, spans: &Spans, timeout: u32) -> Result<Call, Status> {
    let part = |span: Span| slice(memory, span.0, span.1);
    let (upstream, fields) = (part(spans.upstream)?, part(spans.fields)?);
    let (body, trailers) = (part(spans.body)?, part(spans.trailers)?);
    let limits = &host.terms.limits;
    let upstream = std::str::from_utf8(upstream).map_err(|_| Status::BadArgument)?;
    if !host.terms.calls.iter().any(|known| **known == *upstream) {
        tracing::warn!(plugin = &*host.terms.name, upstream, "a plugin calls an upstream that its `calls` do not name");
        return Err(Status::BadArgument);
    }
    if body.len() > limits.body_max {
        return Err(Status::BadArgument);
    }
    let (mut method, mut target, mut authority) = (None, None, None);
    let pairs = pairs::read(fields)?;
    for (name, value) in &pairs {
        match *name {
            b":method" => method = Method::from_bytes(value).ok().filter(|method| *method != Method::CONNECT),
            b":path" => target = path(value),
            b":authority" => authority = Authority::try_from(*value).ok().and(HeaderValue::from_bytes(value).ok()),
            _ => {}
        }
    }
    let asked = Duration::from_millis(timeout.into());
    Ok(Call {
        upstream: upstream.to_owned(),
        method: method.ok_or(Status::BadArgument)?,
        target: target.ok_or(Status::BadArgument)?,
        authority: authority.ok_or(Status::BadArgument)?,
        fields: sent(&pairs)?,
        body: body.to_vec().into(),
        trailers: sent(&pairs::read(trailers)?)?,
        // Nobody waits any longer than a request may be held.
        timeout: if asked.is_zero() { limits.held_max } else { asked.min(limits.held_max) },
        answer_bytes_max: limits.body_max,
    })
}

/// Path and query, as they go out byte for byte.
fn path(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.starts_with('/'))?;
    let parsed = PathAndQuery::try_from(text).ok()?;
    (parsed.as_str() == text).then(|| text.to_owned())
}

/// The fields that go out. What frames the message is left out: the gateway writes it.
fn sent(pairs: &[(&[u8], &[u8])]) -> Result<Vec<(HeaderName, HeaderValue)>, Status> {
    if pairs.len() > FIELDS_MAX {
        return Err(Status::BadArgument);
    }
    let mut fields = Vec::with_capacity(pairs.len());
    for (name, value) in pairs.iter().filter(|(name, _)| !name.starts_with(b":")) {
        let name = HeaderName::from_bytes(name).map_err(|_| Status::BadArgument)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Status::BadArgument)?;
        if !super::fields::frames(&name) {
            fields.push((name, value));
        }
    }
    Ok(fields)
}
