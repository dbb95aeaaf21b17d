//! Ten thousand forgeries of each sender, all refused, and none for another reason than its own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use fastrand::Rng;

use super::sender::{Sender, Sent, hex, sha1, sha256};
use super::*;

const SECRET: &str = "an example and no secret at all";
const OTHER_SECRET: &str = "an example and no secret at aLL";
const COUNT: usize = 10_000;
/// Forgeries made of one genuine message.
const OF_ONE: usize = 20;

const MISSING: &str = "SIGNATURE_MISSING";
const INVALID: &str = "SIGNATURE_INVALID";
const EXPIRED: &str = "SIGNATURE_EXPIRED";

/// A way to forge: what becomes of a genuine message, and the codes that it may be refused with. `None`: this sender offers no
/// such way, or this message does not.
type Forge = fn(&Forger, &mut Rng) -> Option<(Sent, &'static [&'static str])>;

/// What a forger has: a genuine message, and all that it is made of but the secret.
struct Forger {
    sender: Sender,
    genuine: Sent,
    signature: String,
    id: String,
}

const WAYS: &[(&str, Forge)] = &[
    ("a bit of the field of the signature", |forger, rng| {
        let mut sent = forger.genuine.clone();
        flip(&mut sent.fields[0].1, rng);
        Some((sent, &[MISSING, INVALID, EXPIRED]))
    }),
    ("a bit of the signature", |forger, rng| {
        let mut bytes = forger.signature.clone().into_bytes();
        flip(&mut bytes, rng);
        Some((forger.with_signature(&String::from_utf8(bytes).ok()?), &[MISSING, INVALID]))
    }),
    ("a bit of the body", |forger, rng| {
        let mut sent = forger.genuine.clone();
        flip(&mut sent.body, rng);
        Some((sent, &[INVALID]))
    }),
    ("a bit of the timestamp or the id", |forger, rng| {
        let mut sent = forger.genuine.clone();
        let index = sent.fields.len().checked_sub(2).map(|others| 1 + rng.usize(..=others))?;
        flip(&mut sent.fields[index].1, rng);
        Some((sent, &[MISSING, INVALID, EXPIRED]))
    }),
    ("a truncated signature", |forger, rng| {
        let kept = rng.usize(..forger.signature.len());
        Some((forger.with_signature(forger.signature.get(..kept)?), &[MISSING]))
    }),
    ("an extended signature", |forger, rng| {
        let more = ["0", "00", "A", "=", "a0b1", ",", " "][rng.usize(..7)];
        Some((forger.with_signature(&format!("{}{more}", forger.signature)), &[MISSING]))
    }),
    ("a truncated body", |forger, rng| {
        let mut sent = forger.genuine.clone();
        sent.body.truncate(rng.usize(..sent.body.len()));
        Some((sent, &[INVALID]))
    }),
    ("an extended body", |forger, rng| {
        let mut sent = forger.genuine.clone();
        sent.body.push(*rng.choice(b" \n0\0}x")?);
        Some((sent, &[INVALID]))
    }),
    ("stale by a second", |forger, _| {
        let sent = forger.sender.send(SECRET, &forger.genuine.body, NOW - 301, &forger.id);
        forger.sender.signs_time().then_some((sent, &[EXPIRED]))
    }),
    ("too far in the future by a second", |forger, _| {
        let sent = forger.sender.send(SECRET, &forger.genuine.body, NOW + 301, &forger.id);
        forger.sender.signs_time().then_some((sent, &[EXPIRED]))
    }),
    ("another timestamp under the same signature", |forger, rng| {
        let time = NOW - 1 - rng.u64(..299);
        let sent =
            forger.sender.send_with(std::slice::from_ref(&forger.signature), &forger.genuine.body, time, &forger.id);
        forger.sender.signs_time().then_some((sent, &[INVALID]))
    }),
    ("signed with another secret", |forger, _| {
        Some((forger.sender.send(OTHER_SECRET, &forger.genuine.body, NOW, &forger.id), &[INVALID]))
    }),
    ("signed with nothing", |forger, _| {
        Some((forger.sender.send("", &forger.genuine.body, NOW, &forger.id), &[INVALID]))
    }),
    ("the signature of another message", |forger, rng| {
        let other = format!("{{\"n\": {}}}", rng.u64(..));
        Some((forger.with_signature(&forger.sender.sign(SECRET, other.as_bytes(), NOW, &forger.id)), &[INVALID]))
    }),
    ("a field twice", |forger, rng| {
        let mut sent = forger.genuine.clone();
        let twin = sent.fields[rng.usize(..sent.fields.len())].clone();
        sent.fields.insert(rng.usize(..=sent.fields.len()), twin);
        Some((sent, &[MISSING]))
    }),
    ("a signature of one's own before or behind it", |forger, rng| {
        let mut sent = forger.genuine.clone();
        let own = forger.sender.send(OTHER_SECRET, &sent.body, NOW, &forger.id).fields.swap_remove(0);
        sent.fields.insert(rng.usize(..2), own);
        Some((sent, &[MISSING]))
    }),
    ("a field is missing", |forger, rng| {
        let mut sent = forger.genuine.clone();
        sent.fields.remove(rng.usize(..sent.fields.len()));
        Some((sent, &[MISSING]))
    }),
    ("in capitals, or in both cases", |forger, _| {
        let upper = forger.signature.to_ascii_uppercase();
        let mixed = upper.get(..16)?.to_owned() + forger.signature.get(16..)?;
        let is_taken = matches!(forger.sender, Sender::CustomTimestamp | Sender::CustomBody);
        let sent = forger.with_signature(if is_taken { &mixed } else { &upper });
        let is_other = mixed != forger.signature && mixed != upper;
        (is_other && !forger.sender.writes_base64()).then_some((sent, &[MISSING]))
    }),
    ("in base64url", |forger, _| {
        let other = forger.signature.replace('+', "-").replace('/', "_");
        let is_other = forger.sender.writes_base64() && other != forger.signature;
        is_other.then(|| (forger.with_signature(&other), &[MISSING] as &[_]))
    }),
    ("without padding", |forger, _| {
        let bare = forger.signature.trim_end_matches('=');
        forger.sender.writes_base64().then(|| (forger.with_signature(bare), &[MISSING] as &[_]))
    }),
    ("hex for base64, base64 for hex", |forger, _| {
        let made = sha256(SECRET.as_bytes(), &[&forger.genuine.body]);
        let other = if forger.sender.writes_base64() { hex(&made) } else { URL_SAFE.encode(made) };
        Some((forger.with_signature(&other), &[MISSING]))
    }),
    ("blanks", |forger, rng| {
        let mut bytes = forger.signature.clone();
        bytes.insert(rng.usize(..=bytes.len()), *rng.choice(&[' ', '\t'])?);
        Some((forger.with_signature(&bytes), &[MISSING]))
    }),
    ("another prefix", |forger, rng| {
        let mut sent = forger.genuine.clone();
        let (old, new) = (forger.sender.prefix(), *rng.choice(&["sha1=", "v2=", "v1a,", "", "SHA256=", "V1="])?);
        let text = String::from_utf8(sent.fields[0].1.clone()).ok()?;
        sent.fields[0].1 = text.replace(old, new).into_bytes();
        (!old.is_empty()).then_some((sent, &[MISSING]))
    }),
    ("a body that was parsed and written again", |forger, _| {
        let mut sent = forger.genuine.clone();
        let parsed: serde_json::Value = serde_json::from_slice(&sent.body).ok()?;
        sent.body = serde_json::to_vec(&parsed).ok()?;
        (sent.body != forger.genuine.body).then_some((sent, &[INVALID]))
    }),
    ("as another provider sends it", |forger, rng| {
        let other = *rng.choice(&Sender::ALL)?;
        let sent = other.send(SECRET, &forger.genuine.body, NOW, &forger.id);
        let same = sent.fields[0].0 == forger.genuine.fields[0].0 || is_standard(other) && is_standard(forger.sender);
        (!same).then_some((sent, &[MISSING]))
    }),
    ("with the hash of another algorithm", |forger, _| {
        let pieces: &[&[u8]] = &[&forger.genuine.body];
        let is_sha1 = matches!(forger.sender, Sender::Trello | Sender::CustomBody);
        let key = SECRET.as_bytes();
        let made = if is_sha1 { sha256(key, pieces) } else { sha1(key, pieces) };
        Some((forger.with_signature(&hex(&made)), &[MISSING]))
    }),
    ("an empty signature", |forger, rng| {
        let mut sent = forger.with_signature("");
        if rng.bool() {
            sent.fields[0].1.clear();
        }
        Some((sent, &[MISSING]))
    }),
    ("a signature of zeros", |forger, _| {
        let zeros = |digit: &str| digit.repeat(forger.signature.trim_end_matches('=').len());
        let padding = forger.signature.matches('=').count();
        let zeros = zeros(if forger.sender.writes_base64() { "A" } else { "0" }) + &"=".repeat(padding);
        Some((forger.with_signature(&zeros), &[INVALID]))
    }),
];

fn is_standard(sender: Sender) -> bool {
    matches!(sender, Sender::StandardWebhooks | Sender::Svix)
}

impl Forger {
    fn new(sender: Sender, rng: &mut Rng) -> Self {
        // Blanks that no serializer writes.
        let body = format!("{{ \"id\": \"evt_{:x}\",  \"text\": \"{:x}\" }}", rng.u64(..), rng.u128(..));
        let id = format!("msg_{:x}", rng.u64(..));
        let genuine = sender.send(SECRET, body.as_bytes(), NOW, &id);
        let signature = sender.sign(SECRET, body.as_bytes(), NOW, &id);
        Self { sender, genuine, signature, id }
    }

    fn with_signature(&self, signature: &str) -> Sent {
        self.sender.send_with(&[signature.to_owned()], &self.genuine.body, NOW, &self.id)
    }
}

fn flip(bytes: &mut [u8], rng: &mut Rng) {
    let index = rng.usize(..bytes.len());
    bytes[index] ^= 1 << rng.u8(..8);
}

fn forge(sender: Sender) {
    let filter = webhook(&sender.settings(&[SECRET]));
    let mut rng = Rng::with_seed(0x7011_6a7e);
    let (mut refused, mut used) = (0, vec![0_usize; WAYS.len()]);
    while refused < COUNT {
        let forger = Forger::new(sender, &mut rng);
        let genuine = request(&forger.genuine.fields).unwrap();
        assert_eq!(judge(&filter, &genuine, &forger.genuine.body, NOW).0, "ok", "{sender:?} {:?}", forger.genuine);
        for _ in 0..OF_ONE {
            let way = rng.usize(..WAYS.len());
            let (name, forge) = WAYS[way];
            let Some((sent, codes)) = forge(&forger, &mut rng) else { continue };
            // What no field may hold never gets here.
            let Some(forged) = request(&sent.fields) else { continue };
            let (outcome, webhook) = judge(&filter, &forged, &sent.body, NOW);
            assert!(codes.contains(&outcome.as_str()), "{sender:?}, {name}: {outcome} {sent:?}");
            assert_eq!(webhook.result, outcome.to_ascii_lowercase());
            refused += 1;
            used[way] += 1;
        }
    }
    let unused: Vec<&str> = WAYS.iter().zip(&used).filter(|(_, count)| **count == 0).map(|(way, _)| way.0).collect();
    assert!(unused.len() <= 7, "{sender:?} knows no way for {unused:?}");
}

#[test]
fn of_slack() {
    forge(Sender::Slack);
}

#[test]
fn of_github() {
    forge(Sender::Github);
}

#[test]
fn of_stripe() {
    forge(Sender::Stripe);
}

#[test]
fn of_shopify() {
    forge(Sender::Shopify);
}

#[test]
fn of_jira() {
    forge(Sender::Jira);
}

#[test]
fn of_trello() {
    forge(Sender::Trello);
}

#[test]
fn of_standard_webhooks() {
    forge(Sender::StandardWebhooks);
}

#[test]
fn of_svix() {
    forge(Sender::Svix);
}

#[test]
fn of_custom_senders() {
    for sender in [Sender::CustomTimestamp, Sender::CustomId, Sender::CustomBody] {
        forge(sender);
    }
}
