//! The first look at a request: is it sound, who sent it, which route takes it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri, Version};
use pingora::proxy::Session;
use smallvec::SmallVec;

use super::edge::{Connection, connection_of};
use super::exchange::Exchange;
use super::heads::{Request, Seen, end_nominated, set_target};
use super::phases::NOWHERE;
use super::redirected::redirect;
use crate::client::{self, Guarded};
use crate::context::{Captures, CloseOn, Context, Kept, Scheme, Wire};
use crate::gateway::{Gateway, Limits, Matched};
use crate::reply::{Code, Rejection, Reply};
use crate::route::normalise;

/// What only Pingora's head can tell, looked at before it is taken apart.
pub struct Raw {
    head_bytes: u64,
    /// The target has a form whose path can be told.
    target_is_sound: bool,
}

impl Raw {
    /// Of a head that was looked at already.
    pub fn sound(head_bytes: usize) -> Self {
        Self { head_bytes: head_bytes as u64, target_is_sound: true }
    }

    pub fn look(session: &Session, x: &Exchange) -> Self {
        let head_bytes = session.as_http1().map_or(0, |h1| h1.get_headers_raw_bytes().len()) as u64;
        let head = session.req_header();
        // What cannot be held as a URI is kept raw by Pingora and would be forwarded past our eyes.
        let seen = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
        let is_origin = head.raw_path() == seen.as_bytes() || head.version == Version::HTTP_2;
        let scheme = x.connection.as_ref().map_or(Scheme::Http, |connection| connection.scheme);
        let has_form = is_origin || is_absolute(head.raw_path(), seen, scheme);
        // `?query` alone reads as the path `/`, but is forwarded as it stands; and RFC 3986 knows ASCII only.
        Self { head_bytes, target_is_sound: has_form && (seen == "*" || seen.starts_with('/')) && seen.is_ascii() }
    }
}

/// Whether the target is `http://authority`, over TLS `https://authority`, and then what is seen of it (RFC 9112 §3.2.2).
/// That the authority is the Host has been checked by Pingora.
fn is_absolute(raw: &[u8], seen: &str, scheme: Scheme) -> bool {
    let begin: &[u8] = if scheme == Scheme::Https { b"https://" } else { b"http://" };
    let Some((scheme, rest)) = raw.split_at_checked(begin.len()) else { return false };
    let path = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
    let path = rest.get(path..).unwrap_or_default();
    let seen = if path.starts_with(b"/") { Some(seen) } else { seen.strip_prefix('/') };
    scheme.eq_ignore_ascii_case(begin) && Some(path) == seen.map(str::as_bytes)
}

/// Begins the exchange.
pub fn begin(session: &mut Session, x: &mut Exchange) {
    x.connection = connection_of(session.digest());
    if let Some(connection) = &x.connection {
        connection.begin();
    }
    let limits = &x.gateway.settings.limits;
    session.set_read_timeout(Some(limits.body_timeout));
    session.set_write_timeout(Some(limits.body_timeout));
}

/// An answer before any filter ran passes the response hooks of the default ones.
pub fn fall_back(x: &mut Exchange) {
    let fallback = x.gateway.fallback();
    x.reached = fallback.chain.links().len();
    x.route = Some(Arc::clone(fallback));
}

/// Looks at the head and finds the route, unless the request is redirected. On return `context` is set, also when the request is refused.
pub fn admit(head: &mut Parts, raw: &Raw, x: &mut Exchange) -> Result<Option<Box<Reply>>, Rejection> {
    let Exchange { gateway, connection, original, .. } = x;
    let limits = &gateway.settings.limits;
    let peer = peer(connection.as_deref());
    let trusted = gateway.trusts(peer);
    let context = x.context.insert(context(head, gateway, connection.as_deref(), trusted, x.started));
    if connection.as_ref().is_some_and(|connection| connection.is_crowded()) {
        return Err(Rejection::new(Code::OVERLOADED, "too many requests at once on this connection"));
    }
    let fields = Fields::look(head, trusted, &gateway.guarded);
    check_head(head, raw, &fields, limits)?;
    let host = settled_host(head, fields.host);
    let Fields { nominates, claims, guarded, .. } = fields;
    if nominates {
        end_nominated(head);
    }
    if claims {
        client::strip_claims(&mut Request { head, original }, trusted);
    }
    if guarded {
        gateway.guarded.strip(&mut Request { head, original });
    }
    if trusted {
        context.client = client::client(&Seen(head), peer, &|address| gateway.trusts(address));
    }
    if let Some(host) = host? {
        settle_host(head, host)?;
    }
    normalise_path(head, original)?;
    if let Some(reply) = redirect(head, context, connection.as_deref())? {
        return Ok(Some(reply));
    }
    match gateway.find(&Seen(head), context) {
        Matched::Route(route) => {
            x.in_flight = Some(route.metrics.begin());
            x.route = Some(Arc::clone(route));
            Ok(None)
        }
        Matched::Refused(rejection) => Err(rejection),
    }
}

/// What one walk over the fields finds: looking for each by its name costs more.
struct Fields<'a> {
    /// The first `Host`.
    host: Option<&'a HeaderValue>,
    /// Something says how long the body is.
    framing: bool,
    /// `Connection` may name fields that end here.
    nominates: bool,
    /// Something has to be removed before anybody sees it.
    claims: bool,
    /// The same, because of what filters keep for the gateway.
    guarded: bool,
}

impl<'a> Fields<'a> {
    fn look(head: &'a Parts, trusted: bool, guarded: &Guarded) -> Self {
        let mut found = Self { host: None, framing: false, nominates: false, claims: false, guarded: false };
        for (name, value) in &head.headers {
            if *name == HOST {
                found.host = found.host.or(Some(value));
            } else if *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING {
                found.framing = true;
            } else if *name == CONNECTION {
                found.nominates |= !(value == "keep-alive" || value == "close");
            } else {
                found.guarded |= guarded.covers(name.as_str());
                found.claims |=
                    if trusted { client::is_disguised(name.as_str()) } else { client::is_claim(name.as_str()) };
            }
        }
        found
    }
}

fn peer(connection: Option<&Connection>) -> IpAddr {
    connection.map_or(NOWHERE, |connection| connection.peer.ip().to_canonical())
}

fn context(
    head: &Parts,
    gateway: &Gateway,
    connection: Option<&Connection>,
    trusted: bool,
    started: Instant,
) -> Context {
    let peer = peer(connection);
    let own = connection.map_or(Scheme::Http, |connection| connection.scheme);
    Context {
        client: peer,
        peer,
        peer_is_trusted: trusted,
        wire: Wire {
            peer_port: connection.map_or(0, |connection| connection.peer.port()),
            reached: connection.and_then(|connection| connection.reached),
            version: head.version,
        },
        scheme: if trusted { client::scheme(&Seen(head), own) } else { own },
        request_id: client::request_id(&Seen(head), trusted),
        route: Arc::clone(&gateway.fallback().name),
        captures: Captures::default(),
        preflight: false,
        certificate: connection.and_then(|connection| connection.certificate.clone()),
        caller: None,
        challenges: None,
        decisions: SmallVec::new(),
        standings: SmallVec::new(),
        grpc_web: None,
        webhook: None,
        held: SmallVec::new(),
        kept: Kept::default(),
        close_on: CloseOn::default(),
        closes_refused_sockets: false,
        started,
        now: started,
    }
}

/// Bounds, and what Pingora lets through although it is not sound.
fn check_head(head: &Parts, raw: &Raw, fields: &Fields<'_>, limits: &Limits) -> Result<(), Rejection> {
    if head.headers.len() > limits.headers_max || raw.head_bytes > limits.header_bytes_max {
        return Err(Rejection::new(Code::HEADERS_TOO_LARGE, "the request head is too large"));
    }
    if head.version == Version::HTTP_2 {
        // Pingora bounds the bytes of an HTTP/2 head itself; here they are summed as RFC 9113 §6.5.2 counts them.
        let sum = head.headers.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()) as u64);
        if sum.map(|field| field.saturating_add(32)).sum::<u64>() > limits.header_bytes_max {
            return Err(Rejection::new(Code::HEADERS_TOO_LARGE, "the request head is too large"));
        }
    }
    if head.version == Version::HTTP_11 && fields.host.is_none() {
        return Err(Rejection::new(Code::BAD_REQUEST, "the request has no Host"));
    }
    if !raw.target_is_sound {
        return Err(Rejection::new(Code::BAD_REQUEST, "the request target is not valid"));
    }
    if fields.framing { check_framing(head) } else { Ok(()) }
}

/// One length or one coding, in one spelling. Pingora takes lists of equal lengths and codings before `chunked`, and
/// forwards them as they are, for the service to find another meaning in them.
fn check_framing(head: &Parts) -> Result<(), Rejection> {
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && (lengths.next().is_some() || !length.as_bytes().iter().all(u8::is_ascii_digit))
    {
        return Err(Rejection::new(Code::BAD_REQUEST, "the Content-Length is not one number"));
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Rejection::new(Code::BAD_REQUEST, "the only Transfer-Encoding there may be is `chunked`"));
    }
    Ok(())
}

/// The host in lower case, when it has to be put into the `Host` field. `field` is what stands there.
fn settled_host(head: &Parts, field: Option<&HeaderValue>) -> Result<Option<HeaderValue>, Rejection> {
    let invalid = || Rejection::new(Code::BAD_REQUEST, "the Host is not valid");
    let host = field.map(HeaderValue::as_bytes);
    let mut lower = None;
    if let Some(authority) = head.uri.authority() {
        // HTTP/2 names the host in `:authority`, HTTP/1.1 also in an absolute target. Two names are two opinions on who
        // answers.
        if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority.as_str().as_bytes())) {
            return Err(invalid());
        }
        lower = Some(authority.as_str().to_ascii_lowercase().into_bytes());
    } else if let Some(host) = host.filter(|host| host.iter().any(u8::is_ascii_uppercase)) {
        lower = Some(host.to_ascii_lowercase());
    }
    if !client::is_host(lower.as_deref().or(host).unwrap_or_default()) {
        return Err(invalid());
    }
    lower.map(|lower| HeaderValue::from_maybe_shared(bytes::Bytes::from(lower)).map_err(|_| invalid())).transpose()
}

/// Puts the host in one place, the `Host` field, so that nobody downstream has to look twice.
fn settle_host(head: &mut Parts, host: HeaderValue) -> Result<(), Rejection> {
    let invalid = |_| Rejection::new(Code::BAD_REQUEST, "the Host is not valid");
    head.headers.try_insert(HOST, host).map_err(invalid)?;
    if head.uri.authority().is_some() {
        let target = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        head.uri = Uri::from(target);
    }
    Ok(())
}

/// From here on there is one path: the one that is matched is the one that is forwarded.
fn normalise_path(head: &mut Parts, original: &mut Option<Uri>) -> Result<(), Rejection> {
    if head.uri.path() == "*" {
        return Err(Rejection::new(Code::NOT_FOUND, "no route matches this request"));
    }
    let normal = match normalise(head.uri.path()) {
        Ok(std::borrow::Cow::Borrowed(_)) => return Ok(()),
        Ok(normal) => normal.into_owned(),
        Err(error) => return Err(Rejection::new(Code::BAD_REQUEST, error.to_string())),
    };
    let query = head.uri.query().map(str::to_owned);
    if set_target(head, original, &normal, query.as_deref()) {
        Ok(())
    } else {
        Err(Rejection::new(Code::BAD_REQUEST, "the request target is not valid"))
    }
}

/// Refuses at once what says that it is too large.
pub fn check_length(head: &Parts, max: u64) -> Result<(), Rejection> {
    if length(head).is_some_and(|length| length > max) { Err(too_large(max)) } else { Ok(()) }
}

/// How large the body says it is.
pub fn length(head: &Parts) -> Option<u64> {
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// The refusal of a body of more than `max` bytes.
pub fn too_large(max: u64) -> Rejection {
    Rejection::new(Code::BODY_TOO_LARGE, "the request body is too large").with_detail("body_max", max)
}
