//! Who the client is, and what the upstream is told of it.
//!
//! `X-Forwarded-*` and `Forwarded` ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)) are believed only when the peer is in
//! `trusted_proxies`; from everybody else they are removed before a filter can see them, in every spelling. The address
//! of the client is the last one in `X-Forwarded-For` that is not a trusted proxy itself.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST};
use smallvec::SmallVec;

use crate::context::{Context, RequestId, Scheme, hex};
use crate::head::{HeaderName, HeaderValue, Headers};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Most addresses of `X-Forwarded-For` that are looked at.
const HOPS_MAX: usize = 32;

/// What a client must not be able to say about itself. A trailing `-` stands for every field that begins so.
const CLAIMS: &[&str] = &["forwarded", "x-forwarded-", "x-real-ip", "x-request-id", "x-client-ip", "true-client-ip"];

/// Whether a client has to be trusted to send this field. `_` counts as `-`: many servers cannot tell them apart.
pub fn is_claim(name: &str) -> bool {
    if !name.starts_with(['f', 'x', 't']) {
        return false;
    }
    let same = |a: u8, b: u8| a == b || (a == b'_' && b == b'-');
    CLAIMS.iter().any(|claim| {
        let prefix = claim.ends_with('-');
        let fits = if prefix { name.len() >= claim.len() } else { name.len() == claim.len() };
        fits && name.bytes().zip(claim.bytes()).all(|(a, b)| same(a, b))
    })
}

/// Whether the name is a claim spelled so that only some servers see it as one: never let through, not even from a proxy.
pub fn is_disguised(name: &str) -> bool {
    name.contains('_') && is_claim(name)
}

/// Removes what this client may not say about itself.
pub fn strip_claims(head: &mut dyn Headers, trusted: bool) {
    let mut claims: SmallVec<[HeaderName; 4]> = SmallVec::new();
    head.all(&mut |name, _| {
        if if trusted { is_disguised(name) } else { is_claim(name) } {
            claims.extend(HeaderName::from_bytes(name.as_bytes()));
        }
    });
    claims.iter().for_each(|name| head.remove(name));
}

/// Fields that only the gateway may set: what somebody else sends under such a name, in any spelling, is removed.
#[derive(Debug, Default)]
pub struct Guarded {
    /// In lower case, with `-`.
    names: Vec<Box<str>>,
}

impl Guarded {
    pub fn new<'a>(names: impl Iterator<Item = &'a HeaderName>) -> Self {
        let mut names: Vec<Box<str>> = names.map(|name| name.as_str().replace('_', "-").into()).collect();
        names.sort_unstable();
        names.dedup();
        Self { names }
    }

    /// Removes what the sender may not say.
    pub fn strip(&self, head: &mut dyn Headers) {
        if self.names.is_empty() {
            return;
        }
        let mut found: SmallVec<[HeaderName; 4]> = SmallVec::new();
        head.all(&mut |name, _| {
            if self.names.iter().any(|guarded| is_spelling(name, guarded)) {
                found.extend(HeaderName::from_bytes(name.as_bytes()));
            }
        });
        found.iter().for_each(|name| head.remove(name));
    }
}

/// Whether many servers would take `name` for `guarded`: `_` counts as `-`.
fn is_spelling(name: &str, guarded: &str) -> bool {
    name.len() == guarded.len()
        && name.bytes().zip(guarded.bytes()).all(|(sent, guarded)| sent == guarded || (sent == b'_' && guarded == b'-'))
}

/// Who sent the request, when `peer` is trusted to say so. `trusts` tells whose word is believed.
pub fn client(head: &dyn Headers, peer: IpAddr, trusts: &dyn Fn(IpAddr) -> bool) -> IpAddr {
    let mut hops: SmallVec<[IpAddr; 4]> = SmallVec::new();
    head.each(&X_FORWARDED_FOR, &mut |value| {
        for hop in value.split(|byte| *byte == b',') {
            // What cannot be read ends the chain of trust: whoever wrote it is the last one known.
            match std::str::from_utf8(hop).ok().and_then(|hop| address(hop.trim())) {
                Some(address) => hops.push(address),
                None => hops.clear(),
            }
        }
    });
    let mut client = peer;
    for hop in hops.iter().rev().take(HOPS_MAX) {
        client = *hop;
        if !trusts(client) {
            break;
        }
    }
    client
}

/// The scheme the client used, when the peer is trusted to say so.
pub fn scheme(head: &dyn Headers, own: Scheme) -> Scheme {
    match head.get(&X_FORWARDED_PROTO) {
        Some(b"https") => Scheme::Https,
        Some(b"http") => Scheme::Http,
        _ => own,
    }
}

/// The id a trusted peer gave the request, or a new one.
pub fn request_id(head: &dyn Headers, trusted: bool) -> RequestId {
    let given = if trusted { head.get(&X_REQUEST_ID) } else { None };
    given.and_then(RequestId::parse).unwrap_or_else(|| RequestId::from_bits(fastrand::u128(..)))
}

/// An address as it stands in `X-Forwarded-For`: with or without a port, IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok()
}

/// Tells the upstream who the client is, how it came, and what the request is called.
pub fn announce(head: &mut dyn Headers, context: &Context, peer: &PeerText) {
    let host = head.shared(&HOST);
    // A trusted peer's list goes on; anybody else's is gone by now.
    if let Some(list) = extended(head, &peer.address) {
        head.set(&X_FORWARDED_FOR, list);
    }
    let scheme = context.scheme.as_str();
    let named = host.as_ref().map(HeaderValue::as_bytes).filter(|host| is_quotable(host));
    let element = match named {
        Some(host) => join(&[peer.element.as_bytes(), b";host=\"", host, b"\";proto=", scheme.as_bytes()]),
        None => join(&[peer.element.as_bytes(), b";proto=", scheme.as_bytes()]),
    };
    if let Some(element) = element {
        head.append(&FORWARDED, element);
    }
    if let Some(host) = host.filter(|_| !head.has(&X_FORWARDED_HOST)) {
        head.set(&X_FORWARDED_HOST, host);
    }
    head.set(&X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    head.set(&X_REQUEST_ID, context.request_id.value());
    if !head.get(&TRACEPARENT).is_some_and(is_traceparent) {
        head.set(&TRACEPARENT, traceparent(&context.request_id));
    }
}

/// `X-Forwarded-For` with one more address.
fn extended(head: &dyn Headers, peer: &HeaderValue) -> Option<HeaderValue> {
    if !head.has(&X_FORWARDED_FOR) {
        return Some(peer.clone());
    }
    let mut list = Vec::new();
    head.each(&X_FORWARDED_FOR, &mut |value| {
        list.extend_from_slice(value);
        list.extend_from_slice(b", ");
    });
    list.extend_from_slice(peer.as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(list)).ok()
}

/// The address of a peer as it stands in fields: written once for each connection.
#[derive(Clone, Debug)]
pub struct PeerText {
    /// As in `X-Forwarded-For`.
    address: HeaderValue,
    /// As in `Forwarded`: `for=192.0.2.1`, `for="[2001:db8::1]"`.
    element: HeaderValue,
}

impl PeerText {
    pub fn new(peer: IpAddr) -> Self {
        let peer = peer.to_canonical();
        let element = match peer {
            IpAddr::V4(peer) => format!("for={peer}"),
            IpAddr::V6(peer) => format!("for=\"[{peer}]\""),
        };
        let unknown = || HeaderValue::from_static("unknown");
        Self {
            address: HeaderValue::try_from(peer.to_string()).unwrap_or_else(|_| unknown()),
            element: HeaderValue::try_from(element).unwrap_or_else(|_| unknown()),
        }
    }
}

/// One value of several parts, in one allocation.
fn join(parts: &[&[u8]]) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(parts.concat())).ok()
}

/// Whether this may stand in a `Host` field: `name`, `name:port`, `[address]`, `[address]:port`. Stricter than RFC 3986, which
/// allows characters in names that no name has.
pub fn is_host(host: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    let name = host.iter().rposition(|byte| *byte == b']').unwrap_or(0);
    let mut after = host.get(name..).unwrap_or_default().splitn(2, |byte| *byte == b':').skip(1);
    host.iter().all(allowed) && after.all(|port| port.iter().all(u8::is_ascii_digit))
}

/// Whether the text may stand in a quoted string without escapes.
fn is_quotable(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(byte))
}

/// A new trace. Its id is the request id when that has the form of one, so that logs and traces find each other.
fn traceparent(request_id: &RequestId) -> HeaderValue {
    let own = request_id.as_str().as_bytes();
    let fits = own.len() == 32 && own.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let span = hex(u128::from(fastrand::u64(1..)));
    let span = span.get(16..).unwrap_or_default();
    let made = if fits {
        join(&[b"00-", own, b"-", span, b"-01"])
    } else {
        join(&[b"00-", &hex(fastrand::u128(1..)), b"-", span, b"-01"])
    };
    made.unwrap_or(HeaderValue::from_static(""))
}

/// `version-trace-parent-flags` in lower-case hexadecimal ([W3C Trace Context](https://www.w3.org/TR/trace-context/)).
fn is_traceparent(value: &[u8]) -> bool {
    let digits = |part: &[u8]| part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let set = |part: &[u8]| part.iter().any(|b| *b != b'0');
    let parts: SmallVec<[&[u8]; 4]> = value.splitn(4, |byte| *byte == b'-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { return false };
    let future = flags.get(2) == Some(&b'-') && *version != b"00";
    let lengths = version.len() == 2 && trace.len() == 32 && parent.len() == 16 && (flags.len() == 2 || future);
    lengths
        && *version != b"ff"
        && digits(version)
        && digits(trace)
        && digits(parent)
        && digits(flags.get(..2).unwrap_or_default())
        && set(trace)
        && set(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{Method, RequestBuf};

    #[test]
    fn claims_are_known_in_every_spelling() {
        for name in
            ["forwarded", "x-forwarded-for", "x_forwarded_for", "x-forwarded_proto", "x-real-ip", "x-request-id"]
        {
            assert!(is_claim(name), "{name}");
        }
        for name in ["forward", "x-forwarded", "x-api-key", "x-request-ids", "te", "x-forwardedfor", "host"] {
            assert!(!is_claim(name), "{name}");
        }
        assert!(is_disguised("x_forwarded-for") && !is_disguised("x-forwarded-for") && !is_disguised("my_field"));
    }

    #[test]
    fn a_traceparent_is_taken_over_only_when_it_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good.as_bytes()));
        assert!(is_traceparent(format!("01{}-what-the-future-holds", good.strip_prefix("00").unwrap()).as_bytes()));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
        let id = RequestId::from_bits(0x4bf9);
        let made = traceparent(&id);
        assert!(is_traceparent(made.as_bytes()) && made.to_str().unwrap().contains(id.as_str()));
    }

    #[test]
    fn addresses_are_read_with_and_without_ports() {
        for (text, address_) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(address(text), Some(address_.parse().unwrap()), "{text}");
        }
        assert_eq!(address("unknown"), None);
        assert_eq!(address(""), None);
    }

    fn head(fields: &[(&'static str, &'static str)]) -> RequestBuf {
        let mut head = RequestBuf::new(Method::GET, "/");
        for (name, value) in fields {
            head.append(&HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        head
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let trusts = |address: IpAddr| address.to_string().starts_with("10.");
        let of = |fields: &[(&'static str, &'static str)]| client(&head(fields), peer, &trusts).to_string();
        assert_eq!(of(&[]), "10.0.0.1");
        assert_eq!(of(&[("x-forwarded-for", "192.0.2.9, 203.0.113.5, 10.0.0.2")]), "203.0.113.5");
        assert_eq!(of(&[("x-forwarded-for", "192.0.2.9"), ("x-forwarded-for", "10.0.0.2")]), "192.0.2.9");
        assert_eq!(of(&[("x-forwarded-for", "10.0.0.3, 10.0.0.2")]), "10.0.0.3");
        // Whoever wrote what cannot be read is the last one known.
        assert_eq!(of(&[("x-forwarded-for", "192.0.2.9, unknown, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(of(&[("x-forwarded-for", "192.0.2.9, unknown")]), "10.0.0.1");
    }

    #[test]
    fn claims_are_stripped_from_strangers_and_only_the_disguised_ones_from_proxies() {
        let fields = [("x-forwarded-for", "1.1.1.1"), ("x_real_ip", "1.1.1.1"), ("x-api-key", "k")];
        let (mut stranger, mut proxy) = (head(&fields), head(&fields));
        strip_claims(&mut stranger, false);
        strip_claims(&mut proxy, true);
        let names = |head: &RequestBuf| {
            let mut names = Vec::new();
            head.all(&mut |name, _| names.push(name.to_owned()));
            names
        };
        assert_eq!(names(&stranger), ["x-api-key"]);
        assert_eq!(names(&proxy), ["x-forwarded-for", "x-api-key"]);
    }

    #[test]
    fn the_upstream_is_told_who_sent_what() {
        let mut head = head(&[("host", "a.example:8000"), ("x-forwarded-for", "192.0.2.9")]);
        let peer = "2001:db8::1".parse().unwrap();
        announce(
            &mut head,
            &Context::detached(peer, RequestId::from_bits(7), crate::clock::now()),
            &PeerText::new(peer),
        );
        assert_eq!(head.text(&X_FORWARDED_FOR), Some("192.0.2.9, 2001:db8::1"));
        assert_eq!(head.text(&FORWARDED), Some("for=\"[2001:db8::1]\";host=\"a.example:8000\";proto=http"));
        assert_eq!(head.text(&X_FORWARDED_HOST), Some("a.example:8000"));
        assert_eq!(head.text(&X_FORWARDED_PROTO), Some("http"));
        assert_eq!(head.text(&X_REQUEST_ID), Some(RequestId::from_bits(7).as_str()));
    }
}
