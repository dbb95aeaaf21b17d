//! What the gateway knows about one request besides its head: who sent it, how it is called, what the route captured.

mod grpc;
mod standing;
mod webhook;

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use http::Version;
use smallvec::SmallVec;

use crate::caller::{Caller, ClientCertificate};
use crate::head::HeaderValue;

pub use grpc::Speaks;
pub use standing::{Limited, Policy, Standing};
pub use webhook::{Once, Webhook, results};

/// The context of one request, from its first byte to its last log line.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who sent the request: the peer, or what the peer says when it is a trusted proxy.
    pub client: IpAddr,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Whether `peer` is one of `trusted_proxies`.
    pub peer_is_trusted: bool,
    pub wire: Wire,
    pub scheme: Scheme,
    /// Unique per request; 32 hexadecimal digits unless a trusted proxy chose it.
    pub request_id: RequestId,
    /// Name of the matched route; empty before the match.
    pub route: Arc<str>,
    /// What the route's path parameters captured. Filled only for routes that use them.
    pub captures: Captures,
    /// The request is a CORS preflight that stands for the method of the matched route.
    pub preflight: bool,
    /// What the client proved on its connection, verified against `client_ca` of the listener. `None`: it sent none.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Who calls, once an `auth` filter knows.
    pub caller: Option<Arc<Caller>>,
    /// The values of `WWW-Authenticate` that an `auth` filter left for the filters behind it, when nobody had to say who
    /// they are and nobody did.
    pub challenges: Option<Arc<[HeaderValue]>>,
    /// What filters decided about the caller, in order: for the audit log and the metric.
    pub decisions: SmallVec<[Decision; 2]>,
    /// When an upgraded connection has to end because of its caller.
    pub close_on: CloseOn,
    /// A WebSocket that is refused because of its caller is accepted and closed, so that a script in a browser learns why.
    pub closes_refused_sockets: bool,
    /// What limits said, in the order of their filters.
    pub standings: SmallVec<[Standing; 1]>,
    /// The client speaks gRPC-Web, and what goes on is gRPC.
    pub grpc_web: Option<Speaks>,
    /// The webhook that the request is, once a `webhook` filter looked at it.
    pub webhook: Option<Box<Webhook>>,
    /// What is given back when the exchange ends, however it ends.
    pub held: SmallVec<[Held; 1]>,
    /// What filters remember of the exchange, by their numbers.
    pub kept: Kept,
    /// When the head was complete.
    pub started: Instant,
    /// When the filter that runs got the request: `started`, or when the last one that waited for something was done. On the way
    /// back, when the head of the answer was there.
    pub now: Instant,
}

impl Context {
    /// The context of a request from `peer` that came over no connection: for `tollgate test`, `explain` and unit tests.
    pub fn detached(peer: IpAddr, request_id: RequestId, started: Instant) -> Self {
        Self {
            client: peer,
            peer,
            peer_is_trusted: false,
            wire: Wire::default(),
            scheme: Scheme::Http,
            request_id,
            route: Arc::from(""),
            captures: Captures::default(),
            preflight: false,
            certificate: None,
            caller: None,
            challenges: None,
            decisions: SmallVec::new(),
            close_on: CloseOn::default(),
            closes_refused_sockets: false,
            standings: SmallVec::new(),
            grpc_web: None,
            webhook: None,
            held: SmallVec::new(),
            kept: Kept::default(),
            started,
            now: started,
        }
    }
}

/// What filters remember of an exchange, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Kept(Vec<(u64, Held)>);

impl Kept {
    /// Remembers something for the filter of this number.
    pub fn keep(&mut self, filter: u64, what: Held) {
        self.0.retain(|(number, _)| *number != filter);
        self.0.push((filter, what));
    }

    /// What the filter of this number remembers.
    pub fn of<T: Any + Send + Sync>(&self, filter: u64) -> Option<&T> {
        self.0.iter().find(|(number, _)| *number == filter)?.1.get()
    }
}

/// What a filter decided about who calls. All texts are constants of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The filter.
    pub by: &'static str,
    pub allowed: bool,
    /// Kind of the credential: `api_key`, `jwt`, `mtls`, or `none`.
    pub kind: &'static str,
    /// Why; `ok` when there is nothing to say.
    pub reason: &'static str,
}

/// Something that is given back when the last clone of it is dropped.
#[derive(Clone)]
pub struct Held(Arc<dyn Any + Send + Sync>);

impl Held {
    pub fn new(what: impl Any + Send + Sync) -> Self {
        Self(Arc::new(what))
    }

    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

/// What ends a WebSocket that is open. Written by the filter that lets the request in, kept by the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloseOn {
    /// The credential of the caller expires.
    pub token_expiry: bool,
    /// The credential of the caller is revoked, or the configuration does not know it any more.
    pub key_revoked: bool,
}

impl CloseOn {
    pub fn any(self) -> bool {
        self.token_expiry || self.key_revoked
    }
}

/// The connection that the request came over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// The port of the peer; 0 where there is none.
    pub peer_port: u16,
    /// The address that the client connected to.
    pub reached: Option<SocketAddr>,
    pub version: Version,
}

/// How the client reached the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The name of one request in logs, errors and the `X-Request-Id` field. Cloning does not copy the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

/// Longest request id taken over from a trusted proxy, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

impl RequestId {
    /// Writes 128 random bits as 32 hexadecimal digits.
    pub fn from_bits(bits: u128) -> Self {
        // Hexadecimal digits are always a valid field value; the alternative is never taken.
        Self(HeaderValue::from_bytes(&hex(bits)).unwrap_or(HeaderValue::from_static("0")))
    }

    /// Takes over an id: 1 to [`REQUEST_ID_BYTES_MAX`] visible ASCII characters without quotes, backslash or comma.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let sound = |byte: &u8| byte.is_ascii_graphic() && !b"\"'\\,<>".contains(byte);
        if text.is_empty() || text.len() > REQUEST_ID_BYTES_MAX || !text.iter().all(sound) {
            return None;
        }
        HeaderValue::from_bytes(text).ok().map(Self)
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The id as a field value, sharing its text.
    pub fn value(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// 32 hexadecimal digits, in lower case.
pub fn hex(bits: u128) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'0'; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bits.to_be_bytes()) {
        let nibbles = [byte >> 4, byte & 0xf];
        for (digit, nibble) in pair.iter_mut().zip(nibbles) {
            *digit = DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
        }
    }
    text
}

/// Values of the path parameters of the matched route.
#[derive(Clone, Debug, Default)]
pub struct Captures {
    names: Option<Arc<[Box<str>]>>,
    values: Vec<Option<Box<str>>>,
}

impl Captures {
    /// `values` in the order of `names`; `None` for an optional parameter that is absent.
    pub fn new(names: Arc<[Box<str>]>, values: Vec<Option<Box<str>>>) -> Self {
        Self { names: Some(names), values }
    }

    /// The value of the parameter `name`, percent-encoded as in the path.
    pub fn get(&self, name: &str) -> Option<&str> {
        let index = self.names.as_ref()?.iter().position(|known| &**known == name)?;
        self.values.get(index)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_hex_and_distinct_bits_give_distinct_text() {
        assert_eq!(RequestId::from_bits(0xab).as_str(), format!("{:032x}", 0xab));
        assert_eq!(RequestId::from_bits(u128::MAX).as_str(), "f".repeat(32));
    }

    #[test]
    fn a_request_id_that_could_break_a_log_or_a_field_is_not_taken_over() {
        assert!(RequestId::parse(b"req-1/2.3:4").is_some());
        for bad in [&b""[..], b"a b", b"a\"b", b"a\r\nb", b"a,b", b"\xff", &[b'a'; 129]] {
            assert!(RequestId::parse(bad).is_none(), "{bad:?}");
        }
        assert!(RequestId::parse(&[b'a'; 128]).is_some());
    }

    #[test]
    fn captures_are_found_by_name() {
        let captures = Captures::new(Arc::from(["id".into(), "rest".into()]), vec![Some("7".into()), None]);
        assert_eq!(captures.get("id"), Some("7"));
        assert_eq!(captures.get("rest"), None);
        assert_eq!(captures.get("other"), None);
    }
}
