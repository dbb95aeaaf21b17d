//! Services that register themselves, say that they are still there, and leave.
//!
//! Where the configuration has no `registry`, none of this is there. Everything asks for a token of the configuration; a name
//! that no upstream asks for, and an address outside of the networks that are allowed, are refused.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse, Response};
use http::header;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{Admin, refuse};
use crate::clock;
use crate::gateway::{Gateway, Registry, RegistryToken};
use crate::head::{HeaderValue, StatusCode};
use crate::reply::{Code, Rejection};
use crate::state::StoreError;
use crate::types::Period;
use crate::upstream::discovery::registry::{Instance, Registration};

/// Largest body, in bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// How long a service is taken to be there when it says nothing.
const TTL: Duration = Duration::from_secs(30);
const TTL_MIN: Duration = Duration::from_secs(1);
const WEIGHT_MAX: u16 = 1000;
const ID_CHARS_MAX: usize = 128;

/// What a service says of itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    name: String,
    /// Default: the address.
    id: Option<String>,
    address: String,
    weight: Option<u16>,
    ttl: Option<String>,
}

/// What it is told.
#[derive(Serialize)]
struct Shown {
    name: String,
    id: String,
    address: SocketAddr,
    weight: u16,
    ttl: String,
    expires_at: String,
}

/// What stands behind `Authorization: Bearer`.
pub struct Presented(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Presented {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, token) = value.and_then(|value| value.split_once(' ')).unwrap_or_default();
        Ok(Self(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())))
    }
}

type Answer = Result<Response, Box<Rejection>>;

/// `GET /registry/services`
pub async fn list(State(admin): State<Admin>, presented: Presented) -> Response {
    finish(&admin, all(&admin, &presented).await)
}

/// `POST /registry/services`
pub async fn register(State(admin): State<Admin>, presented: Presented, body: Bytes) -> Response {
    finish(&admin, add(&admin, &presented, &body).await)
}

/// `DELETE /registry/services/{name}/{id}`
pub async fn deregister(
    State(admin): State<Admin>,
    Path((name, id)): Path<(String, String)>,
    presented: Presented,
) -> Response {
    finish(&admin, remove(&admin, &presented, &name, &id).await)
}

async fn all(admin: &Admin, presented: &Presented) -> Answer {
    let current = admin.live.current();
    let (_, token) = entitled(&current, presented)?;
    let mut shown = Vec::new();
    for service in services(&current).filter(|service| token.covers(service)) {
        let instances = admin.live.discovery().instances(&service).await.map_err(|error| away(&error))?;
        shown.extend(instances.iter().map(Shown::of));
    }
    Ok(axum::Json(serde_json::json!({ "services": shown })).into_response())
}

async fn add(admin: &Admin, presented: &Presented, body: &[u8]) -> Answer {
    let current = admin.live.current();
    let (registry, token) = entitled(&current, presented)?;
    if body.len() > BODY_BYTES_MAX {
        return Err(invalid("the body is larger than 16 KiB"));
    }
    let asked: Asked = serde_json::from_slice(body).map_err(|error| invalid(format!("the body: {error}")))?;
    known(&current, token, &asked.name)?;
    let instance = checked(asked, registry)?;
    let (service, id) = (instance.service.clone(), instance.id.clone());
    match admin.live.discovery().register(&instance).await.map_err(|error| away(&error))? {
        Registration::New => {
            info!(service, id, address = %instance.address, "a service registered itself");
            Ok((StatusCode::CREATED, axum::Json(Shown::of(&instance))).into_response())
        }
        Registration::Again => Ok(axum::Json(Shown::of(&instance)).into_response()),
        Registration::Full => Err(Box::new(Rejection::new(
            Code::OVERLOADED,
            format!("`{service}` has as many instances as an upstream takes"),
        ))),
    }
}

async fn remove(admin: &Admin, presented: &Presented, service: &str, id: &str) -> Answer {
    let current = admin.live.current();
    let (_, token) = entitled(&current, presented)?;
    known(&current, token, service)?;
    if admin.live.discovery().deregister(service, id).await.map_err(|error| away(&error))? {
        info!(service, id, "a service left");
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Err(Box::new(Rejection::new(Code::NOT_FOUND, format!("`{service}` has no instance of this id"))))
}

/// The registry, and the token that was presented.
fn entitled<'a>(
    gateway: &'a Gateway,
    presented: &Presented,
) -> Result<(&'a Registry, &'a RegistryToken), Box<Rejection>> {
    let Some(registry) = &gateway.settings.registry else {
        return Err(Box::new(Rejection::new(Code::NOT_FOUND, "the configuration has no `registry`")));
    };
    let token = presented.0.as_ref().and_then(|token| registry.token(token)).ok_or_else(|| {
        let rejection = Rejection::new(Code::UNAUTHORIZED, "a token of the registry is needed");
        Box::new(rejection.with_field(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
    })?;
    Ok((registry, token))
}

/// The services that upstreams ask for.
fn services(gateway: &Gateway) -> impl Iterator<Item = Arc<str>> {
    let mut found: Vec<Arc<str>> =
        gateway.slots().iter().filter_map(|slot| slot.source()?.registered_service().cloned()).collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter()
}

/// Whether some upstream asks for the service, and the token is good for it.
fn known(gateway: &Gateway, token: &RegistryToken, service: &str) -> Result<(), Box<Rejection>> {
    if !token.covers(service) {
        return Err(Box::new(Rejection::new(Code::FORBIDDEN, "this token is not good for this service")));
    }
    if !services(gateway).any(|known| *known == *service) {
        return Err(Box::new(Rejection::new(Code::NOT_FOUND, "no upstream asks for a service of this name")));
    }
    Ok(())
}

fn checked(asked: Asked, registry: &Registry) -> Result<Instance, Box<Rejection>> {
    let Asked { name: service, id, address: written, weight, ttl } = asked;
    let address: SocketAddr =
        written.parse().ok().filter(|address: &SocketAddr| address.port() != 0).ok_or_else(|| {
            invalid("`address` is an IP address with a port, such as 10.0.0.5:9101 or [fd00::5]:9101")
        })?;
    if !registry.allows(address.ip()) {
        return Err(Box::new(Rejection::new(Code::FORBIDDEN, "this address is in no network of `allow`")));
    }
    if is_nobodys(address.ip()) || registry.is_own(address) {
        return Err(Box::new(Rejection::new(Code::FORBIDDEN, "no service can be at this address")));
    }
    let id = id.unwrap_or_else(|| address.to_string());
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
    if id.is_empty() || id.len() > ID_CHARS_MAX || !id.bytes().all(sound) {
        return Err(invalid("`id` has 1 to 128 letters, digits, `-`, `_`, `.`, `:`"));
    }
    let weight = weight.unwrap_or(1);
    if !(1..=WEIGHT_MAX).contains(&weight) {
        return Err(invalid(format!("`weight` must be 1 to {WEIGHT_MAX}")));
    }
    let ttl = match ttl.map(|ttl| ttl.parse::<Period>()) {
        None => TTL.min(registry.ttl_max),
        Some(Ok(ttl)) if ttl.0 >= TTL_MIN && ttl.0 <= registry.ttl_max => ttl.0,
        Some(Ok(_)) => {
            let (least, most) = (Period(TTL_MIN), Period(registry.ttl_max));
            return Err(invalid(format!("`ttl` must be {least} to {most}")));
        }
        Some(Err(error)) => return Err(invalid(format!("`ttl`: {error}"))),
    };
    let now = clock::wall();
    Ok(Instance { service, id, address, weight, ttl, expires: now.checked_add(ttl).unwrap_or(now) })
}

/// Whether no service can be there: connections to `0.0.0.0` lead to the gateway's own machine.
fn is_nobodys(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_unspecified() || address.is_multicast() || address == Ipv4Addr::BROADCAST
}

impl Shown {
    fn of(instance: &Instance) -> Self {
        Self {
            name: instance.service.clone(),
            id: instance.id.clone(),
            address: instance.address,
            weight: instance.weight,
            ttl: Period(instance.ttl).to_string(),
            expires_at: clock::rfc3339(instance.expires),
        }
    }
}

fn invalid(message: impl Into<String>) -> Box<Rejection> {
    Box::new(Rejection::new(Code::VALIDATION_ERROR, message.into()))
}

fn away(error: &StoreError) -> Box<Rejection> {
    Box::new(Rejection::new(Code::STATE_UNAVAILABLE, error.to_string()))
}

fn finish(admin: &Admin, answer: Answer) -> Response {
    let mut response = answer.unwrap_or_else(|rejection| refuse(admin, *rejection));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
