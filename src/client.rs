//! Who the client is, and what the upstream is told of it.
//!
//! `X-Forwarded-*` and `Forwarded` ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)) are believed only when the peer is in
//! `trusted_proxies`; from everybody else they are removed before a filter can see them, in every spelling. The address
//! of the client is the last one in `X-Forwarded-For` that is not a trusted proxy itself.

use std::net::IpAddr;
use std::sync::OnceLock;

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

/// Whether servers may take the byte of a field name for `-`. CGI makes `_` of both `-` and `_` (RFC 3875 §4.1.18), and some
/// servers of every byte that is neither a letter nor a digit.
fn is_like_dash(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric()
}

/// Whether a client has to be trusted to send this field, in a spelling that some server takes for it.
pub fn is_claim(name: &str) -> bool {
    if !name.starts_with(['f', 'x', 't']) {
        return false;
    }
    let same = |a: u8, b: u8| a == b || (b == b'-' && is_like_dash(a));
    CLAIMS.iter().any(|claim| {
        let prefix = claim.ends_with('-');
        let fits = if prefix { name.len() >= claim.len() } else { name.len() == claim.len() };
        fits && name.bytes().zip(claim.bytes()).all(|(a, b)| same(a, b))
    })
}

/// Whether the name is a claim spelled so that only some servers see it as one: never let through, not even from a proxy.
pub fn is_disguised(name: &str) -> bool {
    name.bytes().any(|byte| byte != b'-' && is_like_dash(byte)) && is_claim(name)
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
        let dashed =
            |name: &HeaderName| name.as_str().replace(|sent: char| u8::try_from(sent).is_ok_and(is_like_dash), "-");
        let mut names: Vec<Box<str>> = names.map(|name| dashed(name).into()).collect();
        names.sort_unstable();
        names.dedup();
        Self { names }
    }

    /// Whether the name is one of these, or looks like one to some servers.
    pub fn covers(&self, name: &str) -> bool {
        self.names.iter().any(|guarded| is_spelling(name, guarded))
    }

    /// Removes what the sender may not say.
    pub fn strip(&self, head: &mut dyn Headers) {
        let mut found: SmallVec<[HeaderName; 4]> = SmallVec::new();
        head.all(&mut |name, _| {
            if self.covers(name) {
                found.extend(HeaderName::from_bytes(name.as_bytes()));
            }
        });
        found.iter().for_each(|name| head.remove(name));
    }
}

/// Whether some servers would take `name` for `guarded`.
fn is_spelling(name: &str, guarded: &str) -> bool {
    let same = |sent: u8, guarded: u8| sent == guarded || (guarded == b'-' && is_like_dash(sent));
    name.len() == guarded.len() && name.bytes().zip(guarded.bytes()).all(|(sent, guarded)| same(sent, guarded))
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
pub fn announce<H: Headers + ?Sized>(head: &mut H, context: &Context, peer: &PeerText) {
    let host = head.shared(&HOST);
    // A trusted peer's list goes on; anybody else's is gone by now.
    if !head.add(&X_FORWARDED_FOR, &mut || peer.address.clone())
        && let Some(list) = extended(head, &peer.address)
    {
        head.set(&X_FORWARDED_FOR, list);
    }
    if let Some(element) = peer.element(host.as_ref(), context.scheme) {
        head.append(&FORWARDED, element);
    }
    if let Some(host) = host {
        head.add(&X_FORWARDED_HOST, &mut || host.clone());
    }
    head.set(&X_FORWARDED_PROTO, HeaderValue::from_static(context.scheme.as_str()));
    head.set(&X_REQUEST_ID, context.request_id.value());
    let new = head.add(&TRACEPARENT, &mut || traceparent(context));
    if !new && !head.get(&TRACEPARENT).is_some_and(is_traceparent) {
        head.set(&TRACEPARENT, traceparent(context));
    }
}

/// `X-Forwarded-For` with one more address.
fn extended<H: Headers + ?Sized>(head: &H, peer: &HeaderValue) -> Option<HeaderValue> {
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
    node: HeaderValue,
    /// What `Forwarded` said of the first request. Most connections ask for one host only.
    first: OnceLock<Element>,
}

/// An element of `Forwarded`, and what it was made of besides the peer.
#[derive(Clone, Debug)]
struct Element {
    host: Option<HeaderValue>,
    scheme: Scheme,
    text: HeaderValue,
}

impl PeerText {
    pub fn new(peer: IpAddr) -> Self {
        let peer = peer.to_canonical();
        let node = match peer {
            IpAddr::V4(peer) => format!("for={peer}"),
            IpAddr::V6(peer) => format!("for=\"[{peer}]\""),
        };
        let unknown = || HeaderValue::from_static("unknown");
        Self {
            address: HeaderValue::try_from(peer.to_string()).unwrap_or_else(|_| unknown()),
            node: HeaderValue::try_from(node).unwrap_or_else(|_| unknown()),
            first: OnceLock::new(),
        }
    }

    /// What `Forwarded` says of a request of this peer ([RFC 7239 §4](https://www.rfc-editor.org/rfc/rfc7239#section-4)).
    fn element(&self, host: Option<&HeaderValue>, scheme: Scheme) -> Option<HeaderValue> {
        let fits = |first: &&Element| first.scheme == scheme && first.host.as_ref() == host;
        if let Some(first) = self.first.get().filter(fits) {
            return Some(first.text.clone());
        }
        let named = host.map(HeaderValue::as_bytes).filter(|host| is_quotable(host));
        let (node, proto) = (self.node.as_bytes(), scheme.as_str().as_bytes());
        let text = match named {
            Some(host) => join(&[node, b";host=\"", host, b"\";proto=", proto]),
            None => join(&[node, b";proto=", proto]),
        }?;
        // A copy of the host: the value itself would keep the whole head it came in.
        let host = host.and_then(|host| HeaderValue::from_bytes(host.as_bytes()).ok());
        // An element of another request is there already: it stays.
        let _ = self.first.set(Element { host, scheme, text: text.clone() });
        Some(text)
    }
}

/// One value of several parts, in one allocation.
fn join(parts: &[&[u8]]) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(parts.concat())).ok()
}

/// Whether this may stand in a `Host` field: `name`, `name:port`, `[address]`, `[address]:port`. Stricter than RFC 3986, which
/// allows characters in names that no name has.
pub fn is_host(host: &[u8]) -> bool {
    // Whether a port has begun, and whether all fits that came after the last `]`: before it, a `:` begins none.
    let (mut port, mut fits) = (false, true);
    for byte in host {
        match byte {
            b'0'..=b'9' => {}
            b']' => (port, fits) = (false, true),
            b':' => {
                fits &= !port;
                port = true;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'[' => fits &= !port,
            _ => return false,
        }
    }
    fits
}

/// Whether the text may stand in a quoted string without escapes.
fn is_quotable(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(byte))
}

/// A new trace. Its id is the request id when that has the form of one, so that logs and traces find each other.
fn traceparent(context: &Context) -> HeaderValue {
    let own: Option<&[u8; 32]> = context.request_id.as_str().as_bytes().try_into().ok();
    // Only a trusted proxy chooses an id of another form.
    let fits = |id: &&[u8; 32]| !context.peer_is_trusted || is_lower_hex(*id);
    let trace = own.filter(fits).copied().unwrap_or_else(|| hex(fastrand::u128(1..)));
    let span = hex(u128::from(fastrand::u64(1..)));
    let mut text = *b"00-tttttttttttttttttttttttttttttttt-ssssssssssssssss-01";
    text[3..35].copy_from_slice(&trace);
    text[36..52].copy_from_slice(&span[16..]);
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
}

fn is_lower_hex(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `version-trace-parent-flags` in lower-case hexadecimal ([W3C Trace Context](https://www.w3.org/TR/trace-context/)).
fn is_traceparent(value: &[u8]) -> bool {
    let set = |part: &[u8]| part.iter().any(|b| *b != b'0');
    let parts: SmallVec<[&[u8]; 4]> = value.splitn(4, |byte| *byte == b'-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { return false };
    let future = flags.get(2) == Some(&b'-') && *version != b"00";
    let lengths = version.len() == 2 && trace.len() == 32 && parent.len() == 16 && (flags.len() == 2 || future);
    lengths
        && *version != b"ff"
        && is_lower_hex(version)
        && is_lower_hex(trace)
        && is_lower_hex(parent)
        && is_lower_hex(flags.get(..2).unwrap_or_default())
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
            ["forwarded", "x-forwarded-for", "x_forwarded_for", "x-forwarded_proto", "x.real-ip", "x-request!id"]
        {
            assert!(is_claim(name), "{name}");
        }
        for name in ["forward", "x-forwarded", "x-api-key", "x-request-ids", "te", "x-forwardedfor", "host"] {
            assert!(!is_claim(name), "{name}");
        }
        assert!(
            is_disguised("x_forwarded-for")
                && is_disguised("x-real.ip")
                && !is_disguised("x-forwarded-for")
                && !is_disguised("my_field")
        );
    }

    /// What becomes `HTTP_X_CONSUMER` on its way into a program is `X-Consumer`.
    #[test]
    fn a_guarded_name_is_known_with_any_other_byte_for_its_dash() {
        for chosen in ["x.consumer", "x_consumer"] {
            assert!(Guarded::new([HeaderName::from_static(chosen)].iter()).covers("x-consumer"), "{chosen}");
        }
        let guarded = Guarded::new([HeaderName::from_static("x-consumer")].iter());
        for name in ["x-consumer", "x_consumer", "x.consumer", "x!consumer", "x~consumer"] {
            assert!(guarded.covers(name), "{name}");
        }
        for name in ["xxconsumer", "x-consumers", "x--consumer", "x-c-nsumer", "xconsumer"] {
            assert!(!guarded.covers(name), "{name}");
        }
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
        let peer = "192.0.2.1".parse().unwrap();
        let mut context = Context::detached(peer, RequestId::from_bits(0x4bf9), crate::clock::now());
        let made = traceparent(&context);
        assert!(is_traceparent(made.as_bytes()) && made.to_str().unwrap().contains(context.request_id.as_str()));
        // What a proxy calls a request need not be the name of a trace.
        context.peer_is_trusted = true;
        for (given, fits) in
            [(&b"4bf92f3577b34da6a3ce929d0e0e4736"[..], true), (b"4BF92F3577B34DA6A3CE929D0E0E4736", false)]
        {
            context.request_id = RequestId::parse(given).unwrap();
            let made = traceparent(&context);
            assert!(is_traceparent(made.as_bytes()), "{made:?}");
            assert_eq!(made.to_str().unwrap().contains(context.request_id.as_str()), fits);
        }
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
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for good in ["", "a", "a:", "a:80", "a_b.example-1:65535", "[::1]", "[::1]:80", "]:1", "a]b"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in ["a:b", "a:80:80", "a:8a", "[::1]:x", "[::1]x:1:2", "a/b", "a b", "a@b", "a,b", "\u{e4}", "a:8]:x"] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn the_forwarded_element_follows_host_and_scheme_within_one_connection() {
        let peer = PeerText::new("192.0.2.1".parse().unwrap());
        let of = |host: Option<&'static str>, scheme| {
            let host = host.map(HeaderValue::from_static);
            peer.element(host.as_ref(), scheme).unwrap().to_str().unwrap().to_owned()
        };
        for _ in 0..2 {
            assert_eq!(of(Some("a"), Scheme::Http), "for=192.0.2.1;host=\"a\";proto=http");
            assert_eq!(of(Some("b"), Scheme::Http), "for=192.0.2.1;host=\"b\";proto=http");
            assert_eq!(of(Some("a"), Scheme::Https), "for=192.0.2.1;host=\"a\";proto=https");
            assert_eq!(of(None, Scheme::Http), "for=192.0.2.1;proto=http");
            assert_eq!(of(Some("a\"b"), Scheme::Http), "for=192.0.2.1;proto=http");
        }
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
