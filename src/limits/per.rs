//! Whose limit it is: the setting `per`, and the text that a caller is counted under.
//!
//! | written | counted under | for each |
//! |---|---|---|
//! | `consumer` | `consumer=dashboard` | consumer; of a token, its subject beside the name of its issuer: `consumer=main/alice`, so that nobody who may choose a name shares the bucket of a consumer |
//! | `key` | `key=dashboard-2026` | API key, by its id; a caller with a token or certificate has none and counts as `consumer` |
//! | `ip` | `ip=203.0.113.9`, `ip=2001:db8::/64` | client address, behind `trusted_proxies`; of IPv6 the first 64 bits, for that is the least a customer has |
//! | `{ ip: { v4: /24, v6: /56 } }` | `ip=203.0.113.0/24` | network of that size |
//! | `{ header: X-Tenant }` | `header.x-tenant=acme` | first value of the request field; clients choose it, unless a proxy before or a filter sets it |
//! | `{ claim: org }` | `claim.org=main/acme` | value of the claim of a token, beside its issuer |
//! | `route` | `route=tasks.read` | route |
//!
//! A list counts each combination apart: `[consumer, route]` is `consumer=a,route=b`. What is missing (nobody known, the
//! field or claim absent or empty) is replaced by the client's address, so that nobody escapes by leaving something out.
//! In values, `,`, `=`, `%` and all that is not visible ASCII is percent-encoded; one of more than 64 bytes is written as
//! `sha256:` and its digest, and so is a whole text of more than 160, and any value of a field that may hold a credential: it
//! stands in keys of the state store, and in what operators are shown.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use crate::buckets;
use crate::caller::{Caller, Credential, claim_text};
use crate::context::Context;
use crate::head::{HeaderName, RequestHead};
use crate::types::hex;
use crate::yaml::{Entry, Kind, Node, Place, Problem, decode};

/// Most parts of one `per`.
const PARTS_MAX: usize = 4;
/// Longest value in a text, in bytes; a longer one is replaced by its digest, which is longer, so that no value can be
/// written that reads like a digest.
const VALUE_BYTES_MAX: usize = 64;
/// Longest text, in bytes.
pub const WHO_BYTES_MAX: usize = buckets::WHO_BYTES_MAX;
/// Bits of an address that count when nothing is said. A customer with IPv6 has a /64 at least and may use any address in it.
const PREFIX_V4: u8 = 32;
const PREFIX_V6: u8 = 64;

/// One part, or a list of parts that are counted together.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "PerForm", rename = "Per")]
pub struct PerSettings(Node);

#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[allow(dead_code, reason = "describes the format; never built")]
enum PerForm {
    One(PartForm),
    Several(Vec<PartForm>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "describes the format; never built")]
enum PartForm {
    Word(Word),
    Of(PartSettings),
}

/// A part without settings.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[allow(dead_code, reason = "describes the format; never built")]
enum Word {
    /// Each consumer; of a token, its subject and issuer.
    Consumer,
    /// Each API key.
    Key,
    /// Each client address; of IPv6, each /64.
    Ip,
    /// Each route.
    Route,
}

/// A part with settings.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum PartSettings {
    /// Client networks of this size.
    Ip(Prefixes),
    /// The first value of this request field.
    Header(String),
    /// The value of this claim of the token; a path such as `realm.tenant`.
    Claim(String),
}

/// How many bits of an address count.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Prefixes {
    /// `/24`. Default `/32`: each address.
    #[schemars(with = "Option<String>")]
    v4: Option<Node>,
    /// `/56`. Default `/64`: what a customer has at least.
    #[schemars(with = "Option<String>")]
    v6: Option<Node>,
}

/// All parts, for hints.
const PARTS: [&str; 6] = ["consumer", "key", "ip", "header", "claim", "route"];
/// Those that may have settings.
const WITH_SETTINGS: [&str; 3] = ["ip", "header", "claim"];

/// A compiled `per`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Per {
    parts: SmallVec<[Part; 1]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Consumer,
    Key,
    Ip {
        v4: u8,
        v6: u8,
    },
    /// The label is ready to be written: `header.x-tenant=`.
    Header {
        name: HeaderName,
        label: Box<str>,
        is_secret: bool,
    },
    Claim {
        name: Box<str>,
        label: Box<str>,
    },
    Route,
}

impl Per {
    /// Each consumer; whoever is not known by its address.
    pub fn consumer() -> Self {
        Self { parts: [Part::Consumer].into_iter().collect() }
    }

    /// Compiles what is written, or says what is wrong with it.
    pub fn compile(written: &PerSettings) -> Result<Self, Vec<Problem>> {
        let node = &written.0;
        let nodes = if matches!(node.kind, Kind::Seq(_)) { node.items() } else { std::slice::from_ref(node) };
        let mut problems = Vec::new();
        let mut parts = SmallVec::new();
        for node in nodes {
            match part(node) {
                Ok(part) if parts.contains(&part) => {
                    problems.push(Problem::new(node.place, "`per` has this part twice"));
                }
                Ok(part) => parts.push(part),
                Err(found) => problems.extend(found),
            }
        }
        if nodes.is_empty() || nodes.len() > PARTS_MAX {
            let problem = Problem::new(node.place, format!("`per` has 1 to {PARTS_MAX} parts, not {}", nodes.len()));
            problems.push(problem.with_hint(format!("such as {}", PARTS.join(", "))));
        }
        if problems.is_empty() { Ok(Self { parts }) } else { Err(problems) }
    }

    /// Whether it makes sense only behind something that finds out who calls.
    pub fn needs_caller(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Consumer | Part::Key | Part::Claim { .. }))
    }

    /// Whether each consumer, or each of its keys, counts apart: then the rates of its own apply.
    pub fn knows_caller(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Consumer | Part::Key))
    }

    /// A word for it that clients are shown: `consumer`, `ip-route`.
    pub fn word(&self) -> String {
        let words = self.parts.iter().map(|part| match part {
            Part::Consumer => "consumer",
            Part::Key => "key",
            Part::Ip { .. } => "ip",
            Part::Header { .. } => "header",
            Part::Claim { .. } => "claim",
            Part::Route => "route",
        });
        words.collect::<Vec<&str>>().join("-")
    }

    /// Who sent the request, as far as this limit tells callers apart.
    pub fn who(&self, request: &dyn RequestHead, context: &Context) -> Who {
        self.written(false, request, context)
    }

    /// The same for a caller whose key has rates of its own: it counts by its key where others count by their consumer.
    pub fn who_by_key(&self, request: &dyn RequestHead, context: &Context) -> Who {
        self.written(true, request, context)
    }

    fn written(&self, by_key: bool, request: &dyn RequestHead, context: &Context) -> Who {
        let mut who = Who(SmallVec::new());
        let key = Part::Key;
        for part in &self.parts {
            let part = if by_key && *part == Part::Consumer { &key } else { part };
            if !who.0.is_empty() {
                who.0.push(b',');
            }
            if !part.write(request, context, &mut who) {
                who.address(context.client, PREFIX_V4, PREFIX_V6);
            }
        }
        who.bounded()
    }
}

/// As it is written in a configuration: to tell two apart.
impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                f.write_char('+')?;
            }
            match part {
                Part::Consumer => f.write_str("consumer")?,
                Part::Key => f.write_str("key")?,
                Part::Ip { v4: PREFIX_V4, v6: PREFIX_V6 } => f.write_str("ip")?,
                Part::Ip { v4, v6 } => write!(f, "ip/{v4}/{v6}")?,
                Part::Header { name, .. } => write!(f, "header {name}")?,
                Part::Claim { name, .. } => write!(f, "claim {name}")?,
                Part::Route => f.write_str("route")?,
            }
        }
        Ok(())
    }
}

fn part(node: &Node) -> Result<Part, Vec<Problem>> {
    if let Some(word) = node.as_str() {
        return match word {
            "consumer" => Ok(Part::Consumer),
            "key" => Ok(Part::Key),
            "ip" => Ok(Part::Ip { v4: PREFIX_V4, v6: PREFIX_V6 }),
            "route" => Ok(Part::Route),
            "header" | "claim" => {
                let problem = Problem::new(node.place, format!("`{word}` needs a name"));
                Err(vec![problem.with_hint(format!("write `{{ {word}: NAME }}`"))])
            }
            other => Err(vec![Problem::unknown(node.place, "part of `per`", other, PARTS.into_iter())]),
        };
    }
    let [entry] = node.entries() else {
        let problem = Problem::new(node.place, "this is no part of `per`");
        return Err(vec![problem.with_hint("write consumer, key, ip, route, { header: NAME } or { claim: NAME }")]);
    };
    with_settings(node, entry)
}

fn with_settings(node: &Node, entry: &Entry) -> Result<Part, Vec<Problem>> {
    let place = entry.value.place;
    let one = |problem: Problem| Err(vec![problem]);
    if !WITH_SETTINGS.contains(&&*entry.key.text) {
        return one(Problem::unknown(entry.key.place, "part of `per`", &entry.key.text, PARTS.into_iter()));
    }
    match decode::<PartSettings>(node)? {
        PartSettings::Ip(written) => {
            let v4 = prefix(written.v4.as_ref(), 32, PREFIX_V4);
            let v6 = prefix(written.v6.as_ref(), 128, PREFIX_V6);
            match (v4, v6) {
                (Ok(v4), Ok(v6)) => Ok(Part::Ip { v4, v6 }),
                (v4, v6) => Err(v4.err().into_iter().chain(v6.err()).collect()),
            }
        }
        PartSettings::Header(name) => match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => {
                let (label, is_secret) = (label("header", name.as_str()), may_hold_credential(&name));
                Ok(Part::Header { name, label, is_secret })
            }
            Err(_) => one(Problem::new(place, format!("`{name}` is no field name"))),
        },
        PartSettings::Claim(name) if name.is_empty() => one(Problem::new(place, "a claim has a name")),
        PartSettings::Claim(name) => Ok(Part::Claim { label: label("claim", &name), name: name.into() }),
    }
}

fn prefix(written: Option<&Node>, most: u8, default: u8) -> Result<u8, Problem> {
    let Some(node) = written else { return Ok(default) };
    let bits = node.as_str().and_then(|text| text.strip_prefix('/')).and_then(|bits| bits.parse::<u8>().ok());
    bits.filter(|bits| (1..=most).contains(bits)).ok_or_else(|| wrong_prefix(node.place, most))
}

fn wrong_prefix(place: Place, most: u8) -> Problem {
    let example = if most == 32 { "/24" } else { "/56" };
    Problem::new(place, "this is no prefix length").with_hint(format!("write {example}; from /1 to /{most}"))
}

/// Whether what clients send in this field lets others in as them, as far as its name says.
fn may_hold_credential(name: &HeaderName) -> bool {
    const SAY: [&str; 8] = ["authorization", "cookie", "token", "key", "secret", "password", "session", "signature"];
    SAY.iter().any(|word| name.as_str().contains(word))
}

/// `header.x-tenant=`
fn label(kind: &str, name: &str) -> Box<str> {
    let mut label = Who(SmallVec::new());
    label.0.extend_from_slice(kind.as_bytes());
    label.0.push(b'.');
    label.value(&[name.as_bytes()]);
    label.0.push(b'=');
    label.as_str().into()
}

impl Part {
    /// Writes the part; `false` when what it asks for is missing: nothing was written then.
    fn write(&self, request: &dyn RequestHead, context: &Context, who: &mut Who) -> bool {
        match self {
            Self::Ip { v4, v6 } => who.address(context.client, *v4, *v6),
            Self::Route => {
                who.0.extend_from_slice(b"route=");
                who.value(&[context.route.as_bytes()]);
            }
            Self::Header { name, label, is_secret } => {
                let Some(value) = request.get(name).filter(|value| !value.is_empty()) else { return false };
                who.0.extend_from_slice(label.as_bytes());
                match is_secret {
                    true => who.digest(&[value]),
                    false => who.value(&[value]),
                }
            }
            Self::Consumer | Self::Key | Self::Claim { .. } => {
                let Some(caller) = &context.caller else { return false };
                return self.write_caller(caller, who);
            }
        }
        true
    }

    fn write_caller(&self, caller: &Caller, who: &mut Who) -> bool {
        match (self, &caller.credential) {
            (Self::Key, Credential::Key { id, .. }) => {
                who.0.extend_from_slice(b"key=");
                who.value(&[id.as_bytes()]);
            }
            (Self::Claim { name, label }, Credential::Token { issuer, .. }) => {
                let Some(value) = caller.claim(name).and_then(claim_text).filter(|value| !value.is_empty()) else {
                    return false;
                };
                who.0.extend_from_slice(label.as_bytes());
                who.value(&[issuer.as_bytes(), b"/", value.as_bytes()]);
            }
            (Self::Claim { .. }, _) => return false,
            // Neither consumers nor issuers have a `/` in their names.
            (_, Credential::Token { issuer, .. }) => {
                who.0.extend_from_slice(b"consumer=");
                who.value(&[issuer.as_bytes(), b"/", caller.name.as_bytes()]);
            }
            _ => {
                who.0.extend_from_slice(b"consumer=");
                who.value(&[caller.name.as_bytes()]);
            }
        }
        true
    }
}

/// The text that a caller is counted under. At most [`WHO_BYTES_MAX`] bytes of visible ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who(SmallVec<[u8; 64]>);

impl Who {
    pub fn as_str(&self) -> &str {
        // Only visible ASCII was written.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn address(&mut self, address: IpAddr, v4: u8, v6: u8) {
        self.0.extend_from_slice(b"ip=");
        let (bits, all) = match address.to_canonical() {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(v4.into())).unwrap_or(0);
                // By hand: `write!` takes several times as long, and most limits count by such an address.
                for (index, octet) in Ipv4Addr::from_bits(address.to_bits() & mask).octets().into_iter().enumerate() {
                    if index > 0 {
                        self.0.push(b'.');
                    }
                    self.decimal(octet);
                }
                (v4, 32)
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(v6.into())).unwrap_or(0);
                // Writing to memory cannot fail.
                let _ = write!(self, "{}", Ipv6Addr::from_bits(address.to_bits() & mask));
                (v6, 128)
            }
        };
        if bits < all {
            let _ = write!(self, "/{bits}");
        }
    }

    fn decimal(&mut self, octet: u8) {
        let digit = |value: u8| b'0'.saturating_add(value % 10);
        if octet >= 100 {
            self.0.push(digit(octet / 100));
        }
        if octet >= 10 {
            self.0.push(digit(octet / 10));
        }
        self.0.push(digit(octet));
    }

    /// Appends a value that is in several pieces.
    fn value(&mut self, pieces: &[&[u8]]) {
        let begin = self.0.len();
        for piece in pieces {
            if piece.iter().all(|byte| is_plain(*byte)) && piece.len() <= VALUE_BYTES_MAX {
                self.0.extend_from_slice(piece);
            } else {
                self.encoded(piece);
            }
        }
        if self.0.len().saturating_sub(begin) > VALUE_BYTES_MAX {
            self.0.truncate(begin);
            self.digest(pieces);
        }
    }

    #[cold]
    fn encoded(&mut self, piece: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
        // One byte more is enough to see that it is too long.
        for byte in piece.iter().take(VALUE_BYTES_MAX.saturating_add(1)) {
            if is_plain(*byte) {
                self.0.push(*byte);
            } else {
                self.0.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0xf)]);
            }
        }
    }

    #[cold]
    fn digest(&mut self, pieces: &[&[u8]]) {
        let mut hasher = Sha256::new();
        pieces.iter().for_each(|piece| hasher.update(piece));
        self.0.extend_from_slice(b"sha256:");
        self.0.extend_from_slice(hex(&hasher.finalize()).as_bytes());
    }

    fn bounded(self) -> Self {
        if self.0.len() <= WHO_BYTES_MAX {
            return self;
        }
        let mut short = Self(SmallVec::new());
        short.digest(&[&self.0]);
        short
    }
}

impl Write for Who {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Stands for itself in a text.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b",=%".contains(&byte)
}

#[cfg(test)]
mod tests;
