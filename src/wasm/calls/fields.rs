//! Fields of heads and trailers.
//!
//! Of a request there are `:method`, `:scheme`, `:authority` and `:path` besides its fields, of a response `:status`. A name
//! that occurs several times is read at its first occurrence and replaced as a whole.

use wasmtime::{Caller, Linker};

use crate::context::Scheme;
use crate::head::{HeaderName, HeaderValue, Headers, RequestHead, ResponseHead, StatusCode};
use crate::wasm::exchange::{Exchange, current};
use crate::wasm::host::{Host, Refusal, copied, give, put_u32, slice, split, told};
use crate::wasm::pairs::{self, Writer};
use crate::wasm::status::{Map, Status};

pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_get_header_map_size", |mut caller: Caller<'_, Host>, map: u32, size: u32| {
        told(all_size(&mut caller, map, size))
    })?;
    linker.func_wrap(
        "env",
        "proxy_get_header_map_pairs",
        |mut caller: Caller<'_, Host>, map: u32, at: u32, size: u32| told(all(&mut caller, map, at, size)),
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_header_map_pairs",
        |mut caller: Caller<'_, Host>, map: u32, at: u32, size: u32| told(set_all(&mut caller, map, (at, size))),
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_header_map_value",
        |mut caller: Caller<'_, Host>, map: u32, name: u32, length: u32, at: u32, size: u32| {
            told(get(&mut caller, map, (name, length), at, size))
        },
    )?;
    for (function, how) in [("proxy_add_header_map_value", How::Add), ("proxy_replace_header_map_value", How::Replace)]
    {
        linker.func_wrap(
            "env",
            function,
            move |mut caller: Caller<'_, Host>, map: u32, name: u32, length: u32, value: u32, size: u32| {
                told(change(&mut caller, how, map, (name, length), (value, size)))
            },
        )?;
    }
    linker.func_wrap(
        "env",
        "proxy_remove_header_map_value",
        |mut caller: Caller<'_, Host>, map: u32, name: u32, length: u32| {
            told(change(&mut caller, How::Remove, map, (name, length), (0, 0)))
        },
    )?;
    Ok(())
}

/// A place in the memory of the plugin, and how many bytes.
type Span = (u32, u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Add,
    Replace,
    Remove,
}

fn all_size(caller: &mut Caller<'_, Host>, map: u32, size: u32) -> Result<(), Refusal> {
    let bytes = written(caller, Map::of(map)?)?;
    let length = u32::try_from(bytes.len()).map_err(|_| Status::InternalFailure)?;
    Ok(put_u32(caller, size, length)?)
}

fn all(caller: &mut Caller<'_, Host>, map: u32, at: u32, size: u32) -> Result<(), Refusal> {
    let bytes = written(caller, Map::of(map)?)?;
    give(caller, &bytes, at, size)
}

/// Every field of a map, as the ABI writes it.
fn written(caller: &Caller<'_, Host>, map: Map) -> Result<Vec<u8>, Status> {
    let mut writer = Writer::default();
    each(caller.data(), map, &mut |name, value| writer.push(name, value))?;
    Ok(writer.finish())
}

/// Visits every field of a map.
///
/// # Errors
/// `BAD_ARGUMENT` when there is no such map in this callback.
fn each(host: &Host, map: Map, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Status> {
    let visit_fields = |fields: &dyn Headers, visit: &mut dyn FnMut(&[u8], &[u8])| {
        fields.all(&mut |name, value| visit(name.as_bytes(), value));
    };
    match map {
        Map::CallHeaders => {
            if let Ok(answer) = host.answer.as_ref().ok_or(Status::BadArgument)? {
                visit(b":status", answer.status.as_str().as_bytes());
                visit_fields(&answer.fields, visit);
            }
            Ok(())
        }
        Map::CallTrailers => {
            if let Ok(answer) = host.answer.as_ref().ok_or(Status::BadArgument)? {
                visit_fields(&answer.trailers, visit);
            }
            Ok(())
        }
        _ => current(|exchange| {
            match map {
                Map::RequestHeaders => {
                    let request = exchange.request()?;
                    pseudo(request, exchange.context().scheme, &mut |name, value| visit(name, value));
                    visit_fields(request, visit);
                }
                Map::ResponseHeaders => {
                    let response = exchange.response()?;
                    visit(b":status", response.status().as_str().as_bytes());
                    visit_fields(response, visit);
                }
                _ => visit_fields(trailers(exchange, map)?, visit),
            }
            Some(())
        })
        .flatten()
        .ok_or(Status::BadArgument),
    }
}

fn trailers(exchange: &mut dyn Exchange, map: Map) -> Option<&mut dyn Headers> {
    match map {
        Map::RequestTrailers => exchange.request_trailers(),
        Map::ResponseTrailers => exchange.response_trailers(),
        _ => None,
    }
}

/// What HTTP/2 calls pseudo-header fields of a request (RFC 9113 §8.3.1).
fn pseudo(request: &dyn RequestHead, scheme: Scheme, visit: &mut dyn FnMut(&[u8], &[u8])) {
    visit(b":method", request.method().as_str().as_bytes());
    visit(b":scheme", scheme.as_str().as_bytes());
    visit(b":authority", authority(request));
    visit(b":path", target(request).as_bytes());
}

/// The `Host` field as it is sent on, or the host the client asked for.
pub(super) fn authority(request: &dyn RequestHead) -> &[u8] {
    request.get(&http::header::HOST).unwrap_or_else(|| request.host().as_bytes())
}

pub(super) fn target(request: &dyn RequestHead) -> String {
    match request.query() {
        Some(query) => format!("{}?{query}", request.path()),
        None => request.path().to_owned(),
    }
}

fn get(caller: &mut Caller<'_, Host>, map: u32, name: Span, at: u32, size: u32) -> Result<(), Refusal> {
    let map = Map::of(map)?;
    let (memory, host) = split(caller)?;
    let name = slice(memory, name.0, name.1)?;
    let value = value(host, map, name)?.ok_or(Status::NotFound)?;
    give(caller, &value, at, size)
}

/// The first value of a field, or that of a pseudo-header field.
fn value(host: &Host, map: Map, name: &[u8]) -> Result<Option<Vec<u8>>, Status> {
    let first = |fields: &dyn Headers| {
        let name = HeaderName::from_bytes(name).ok()?;
        fields.get(&name).map(<[u8]>::to_vec)
    };
    match map {
        Map::CallHeaders | Map::CallTrailers => {
            // A call that failed has an answer without fields.
            let Ok(answer) = host.answer.as_ref().ok_or(Status::BadArgument)? else { return Ok(None) };
            match (map, name) {
                (Map::CallHeaders, b":status") => Ok(Some(answer.status.as_str().as_bytes().to_vec())),
                (Map::CallHeaders, _) => Ok(first(&answer.fields)),
                _ => Ok(first(&answer.trailers)),
            }
        }
        _ => current(|exchange| match map {
            Map::RequestHeaders => {
                let request = exchange.request()?;
                Some(match name {
                    b":method" => Some(request.method().as_str().as_bytes().to_vec()),
                    b":scheme" => Some(exchange.context().scheme.as_str().as_bytes().to_vec()),
                    b":authority" => Some(authority(request).to_vec()),
                    b":path" => Some(target(request).into_bytes()),
                    _ => first(request),
                })
            }
            Map::ResponseHeaders => {
                let response = exchange.response()?;
                Some(match name {
                    b":status" => Some(response.status().as_str().as_bytes().to_vec()),
                    _ => first(response),
                })
            }
            _ => Some(first(trailers(exchange, map)?)),
        })
        .flatten()
        .ok_or(Status::BadArgument),
    }
}

fn change(caller: &mut Caller<'_, Host>, how: How, map: u32, name: Span, value: Span) -> Result<(), Refusal> {
    let map = Map::of(map)?;
    let (memory, _) = split(caller)?;
    let name = slice(memory, name.0, name.1)?;
    let value = slice(memory, value.0, value.1)?;
    let change = Change { how, name, value };
    Ok(current(|exchange| change.apply(exchange, map)).unwrap_or(Err(Status::BadArgument))?)
}

fn set_all(caller: &mut Caller<'_, Host>, map: u32, span: Span) -> Result<(), Refusal> {
    let map = Map::of(map)?;
    let bytes = copied(caller, span.0, span.1)?;
    let pairs = pairs::read(&bytes)?;
    let done = current(|exchange| {
        let mut gone = Vec::new();
        let fields = fields(exchange, map).ok_or(Status::BadArgument)?;
        fields.all(&mut |name, _| gone.extend(HeaderName::from_bytes(name.as_bytes()).ok()));
        for name in gone {
            // What the gateway writes itself stays, unless it is named as well.
            if !frames(&name) && !pairs.iter().any(|(new, _)| new.eq_ignore_ascii_case(name.as_str().as_bytes())) {
                fields.remove(&name);
            }
        }
        let mut seen: Vec<&[u8]> = Vec::new();
        for (name, value) in &pairs {
            let how = if seen.contains(name) { How::Add } else { How::Replace };
            seen.push(name);
            Change { how, name, value }.apply(exchange, map)?;
        }
        Ok(())
    });
    Ok(done.unwrap_or(Err(Status::BadArgument))?)
}

/// The fields of a map that can be changed in this callback.
fn fields(exchange: &mut dyn Exchange, map: Map) -> Option<&mut dyn Headers> {
    match map {
        Map::RequestHeaders => exchange.request_mut().map(|head| -> &mut dyn Headers { head }),
        Map::ResponseHeaders => exchange.response_mut().map(|head| -> &mut dyn Headers { head }),
        _ => trailers(exchange, map),
    }
}

/// What is to be done with one field.
struct Change<'a> {
    how: How,
    name: &'a [u8],
    value: &'a [u8],
}

impl Change<'_> {
    fn apply(&self, exchange: &mut dyn Exchange, map: Map) -> Result<(), Status> {
        if self.name.starts_with(b":") {
            return match map {
                Map::RequestHeaders => self.apply_to_request(exchange.request_mut().ok_or(Status::BadArgument)?),
                Map::ResponseHeaders => self.apply_to_response(exchange.response_mut().ok_or(Status::BadArgument)?),
                _ => Err(Status::BadArgument),
            };
        }
        let name = HeaderName::from_bytes(self.name).map_err(|_| Status::BadArgument)?;
        if name == http::header::CONTENT_LENGTH {
            return self.apply_to_length(fields(exchange, map).ok_or(Status::BadArgument)?, map);
        }
        if frames(&name) {
            return Err(Status::BadArgument);
        }
        let fields = fields(exchange, map).ok_or(Status::BadArgument)?;
        let value = HeaderValue::from_bytes(self.value).map_err(|_| Status::BadArgument)?;
        match self.how {
            How::Add => fields.append(&name, value),
            How::Replace => fields.set(&name, value),
            How::Remove => fields.remove(&name),
        }
        Ok(())
    }

    /// The length may be removed: then the body may get another one. It is never set: the gateway counts by itself.
    fn apply_to_length(&self, fields: &mut dyn Headers, map: Map) -> Result<(), Status> {
        if self.how != How::Remove {
            return Ok(());
        }
        if !matches!(map, Map::RequestHeaders | Map::ResponseHeaders) {
            return Err(Status::BadArgument);
        }
        fields.remove(&http::header::CONTENT_LENGTH);
        Ok(())
    }

    fn apply_to_request(&self, request: &mut dyn RequestHead) -> Result<(), Status> {
        let value = std::str::from_utf8(self.value).map_err(|_| Status::BadArgument)?;
        match (self.name, self.how) {
            (_, How::Remove) => Err(Status::BadArgument),
            (b":path", _) => {
                let (path, query) = value.split_once('?').map_or((value, None), |(path, query)| (path, Some(query)));
                let is_set = crate::head::is_normal_path(path) && request.set_target(path, query);
                if is_set { Ok(()) } else { Err(Status::BadArgument) }
            }
            (b":authority", _) => {
                let value = HeaderValue::from_str(value).map_err(|_| Status::BadArgument)?;
                request.set(&http::header::HOST, value);
                Ok(())
            }
            _ => Err(Status::BadArgument),
        }
    }

    fn apply_to_response(&self, response: &mut dyn ResponseHead) -> Result<(), Status> {
        match (self.name, self.how) {
            (b":status", How::Add | How::Replace) => {
                let status = StatusCode::from_bytes(self.value).map_err(|_| Status::BadArgument)?;
                if status.is_informational() {
                    return Err(Status::BadArgument);
                }
                response.set_status(status);
                Ok(())
            }
            _ => Err(Status::BadArgument),
        }
    }
}

/// Whether a field says where a message ends or how a connection is used: these belong to the gateway (RFC 9110 §7.6.1).
pub(super) fn frames(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-length" | "transfer-encoding" | "host" | "connection" | "keep-alive" | "te" | "trailer" | "upgrade"
    ) || name.as_str().starts_with("proxy-")
}
