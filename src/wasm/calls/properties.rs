//! Properties: what the gateway knows about an exchange, and what a plugin notes about it itself.
//!
//! A path is segments between zero bytes. Integers are 8 bytes, little-endian; times are nanoseconds since 1970 and durations
//! nanoseconds, both of them such integers; a truth is one byte. That is how other hosts write them and how the libraries for
//! plugins read them.

use std::time::{Duration, UNIX_EPOCH};

use wasmtime::{Caller, Linker};

use super::fields;
use crate::caller::{ClientCertificate, SubjectName};
use crate::clock;
use crate::context::Context;
use crate::head::{HeaderName, Headers, RequestHead};
use crate::wasm::exchange::{Exchange, current};
use crate::wasm::host::{Host, Refusal, copied, give, slice, split, told};
use crate::wasm::pairs::Writer;
use crate::wasm::status::Status;

/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// First segments of what is the gateway's to say.
const RESERVED: &[&[u8]] = &[
    b"connection",
    b"destination",
    b"plugin_name",
    b"plugin_root_id",
    b"plugin_vm_id",
    b"request",
    b"response",
    b"source",
    b"tollgate",
    b"upstream",
];

pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_property",
        |mut caller: Caller<'_, Host>, path: u32, length: u32, at: u32, size: u32| {
            told(get(&mut caller, (path, length), at, size))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_property",
        |mut caller: Caller<'_, Host>, path: u32, length: u32, value: u32, size: u32| {
            told(set(&mut caller, (path, length), (value, size)).map_err(Refusal::from))
        },
    )?;
    Ok(())
}

/// A path as everybody means it: libraries of some languages end it with a zero byte.
fn path(memory: &[u8], span: (u32, u32)) -> Result<&[u8], Status> {
    let path = slice(memory, span.0, span.1)?;
    if path.len() > PATH_BYTES_MAX {
        return Err(Status::NotFound);
    }
    Ok(path.strip_suffix(&[0]).unwrap_or(path))
}

fn segments(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == 0).collect()
}

fn get(caller: &mut Caller<'_, Host>, span: (u32, u32), at: u32, size: u32) -> Result<(), Refusal> {
    let (memory, host) = split(caller)?;
    let path = path(memory, span)?;
    let value = known(host, &segments(path))
        .or_else(|| host.kept.get(host.effective(), path).map(|value| value.to_vec()))
        .ok_or(Status::NotFound)?;
    give(caller, &value, at, size)
}

/// Notes a value for as long as the exchange lasts. What the gateway says cannot be changed.
fn set(caller: &mut Caller<'_, Host>, span: (u32, u32), value: (u32, u32)) -> Result<(), Status> {
    let value = copied(caller, value.0, value.1)?;
    let (memory, host) = split(caller)?;
    let path = path(memory, span)?;
    if segments(path).first().is_none_or(|first| first.is_empty() || RESERVED.contains(first)) {
        return Err(Status::NotFound);
    }
    let context = host.effective();
    if host.kept.set(context, path, &value) { Ok(()) } else { Err(Status::InternalFailure) }
}

/// What the gateway knows.
fn known(host: &Host, path: &[&[u8]]) -> Option<Vec<u8>> {
    match path {
        [b"plugin_name" | b"plugin_vm_id"] => Some(host.terms.name.as_bytes().to_vec()),
        [b"plugin_root_id"] => Some(host.terms.root_id.as_bytes().to_vec()),
        [group, name @ ..] => current(|exchange| match (*group, name) {
            (b"source", [name]) => source(exchange.context(), name),
            (b"destination", [name]) => destination(exchange.context(), name),
            (b"connection", [name]) => connection(exchange.context(), name),
            (b"tollgate", [name]) => tollgate(exchange.context(), name),
            (b"request", name) => request(exchange, name),
            (b"response", name) => response(exchange, name),
            _ => None,
        })
        .flatten(),
        [] => None,
    }
}

fn source(context: &Context, name: &[u8]) -> Option<Vec<u8>> {
    let port = context.wire.peer_port;
    match name {
        b"address" => Some(std::net::SocketAddr::new(context.peer, port).to_string().into_bytes()),
        b"port" => Some(number(port.into())),
        _ => None,
    }
}

fn destination(context: &Context, name: &[u8]) -> Option<Vec<u8>> {
    let address = context.wire.reached?;
    match name {
        b"address" => Some(address.to_string().into_bytes()),
        b"port" => Some(number(address.port().into())),
        _ => None,
    }
}

fn connection(context: &Context, name: &[u8]) -> Option<Vec<u8>> {
    let certificate = context.certificate.as_deref();
    if name == b"mtls" {
        return Some(vec![u8::from(certificate.is_some())]);
    }
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let certificate = certificate?;
    match name {
        b"subject_peer_certificate" => text(&certificate.subject),
        b"sha256_peer_certificate_digest" => text(&certificate.sha256),
        b"dns_san_peer_certificate" => first_name(certificate, |name| match name {
            SubjectName::Dns(name) => Some(name),
            _ => None,
        }),
        b"uri_san_peer_certificate" => first_name(certificate, |name| match name {
            SubjectName::Uri(name) => Some(name),
            _ => None,
        }),
        _ => None,
    }
}

fn first_name(certificate: &ClientCertificate, which: impl Fn(&SubjectName) -> Option<&str>) -> Option<Vec<u8>> {
    certificate.names.iter().find_map(|name| which(name).map(|name| name.as_bytes().to_vec()))
}

/// What only this gateway has.
fn tollgate(context: &Context, name: &[u8]) -> Option<Vec<u8>> {
    let text = match name {
        b"route" => context.route.to_string(),
        b"consumer" => context.caller.as_ref()?.name.to_string(),
        b"request_id" => context.request_id.as_str().to_owned(),
        b"client_ip" => context.client.to_string(),
        _ => return None,
    };
    Some(text.into_bytes())
}

fn request(exchange: &mut dyn Exchange, name: &[&[u8]]) -> Option<Vec<u8>> {
    let context = exchange.context();
    let (request, [first, rest @ ..]) = (exchange.request()?, name) else { return None };
    match (*first, rest) {
        (b"headers", [name]) => field(request, name),
        (b"headers", []) => Some(all(request)),
        (name, []) => match name {
            b"protocol" => Some(format!("{:?}", context.wire.version).replace("/2.0", "/2").into_bytes()),
            b"time" => Some(nanoseconds(clock::wall().duration_since(UNIX_EPOCH).ok()?.checked_sub(age(context))?)),
            b"duration" => Some(nanoseconds(age(context))),
            b"id" => Some(context.request_id.as_str().as_bytes().to_vec()),
            b"scheme" => Some(context.scheme.as_str().as_bytes().to_vec()),
            name => of_request(request, name),
        },
        _ => None,
    }
}

fn of_request(request: &dyn RequestHead, name: &[u8]) -> Option<Vec<u8>> {
    match name {
        b"path" => Some(fields::target(request).into_bytes()),
        b"url_path" => Some(request.path().as_bytes().to_vec()),
        b"query" => Some(request.query().unwrap_or_default().as_bytes().to_vec()),
        b"host" => Some(fields::authority(request).to_vec()),
        b"method" => Some(request.method().as_str().as_bytes().to_vec()),
        b"referer" => field(request, b"referer"),
        b"useragent" => field(request, b"user-agent"),
        b"size" => size(request),
        _ => None,
    }
}

fn response(exchange: &mut dyn Exchange, name: &[&[u8]]) -> Option<Vec<u8>> {
    let response = exchange.response()?;
    match name {
        [b"code"] => Some(number(response.status().as_u16().into())),
        [b"headers", name] => field(response, name),
        [b"headers"] => Some(all(response)),
        [b"size"] => size(response),
        _ => None,
    }
}

fn field(fields: &(impl Headers + ?Sized), name: &[u8]) -> Option<Vec<u8>> {
    fields.get(&HeaderName::from_bytes(name).ok()?).map(<[u8]>::to_vec)
}

fn all(fields: &(impl Headers + ?Sized)) -> Vec<u8> {
    let mut writer = Writer::default();
    fields.all(&mut |name, value| writer.push(name.as_bytes(), value));
    writer.finish()
}

/// The length of the body that the head says; a body without one is as long as it turns out to be.
fn size(fields: &(impl Headers + ?Sized)) -> Option<Vec<u8>> {
    fields.text(&http::header::CONTENT_LENGTH)?.parse().ok().map(number)
}

/// How long ago the request was there.
fn age(context: &Context) -> Duration {
    clock::now().saturating_duration_since(context.started)
}

fn nanoseconds(duration: Duration) -> Vec<u8> {
    number(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

fn number(number: i64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}
