//! A message without its body as bytes.
//!
//! A version, then text and fields, each behind its length in four bytes, the lowest first. What may be absent is a list
//! of none or one.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::Message;

const VERSION: u8 = 1;

/// All of a message but its inbox and its body.
pub fn pack(message: &Message) -> Vec<u8> {
    let mut packed = Vec::with_capacity(usize::try_from(message.head_bytes()).unwrap_or(0).saturating_add(64));
    packed.push(VERSION);
    packed.extend_from_slice(&milliseconds(message.received).to_le_bytes());
    for text in [&message.id, &message.delivery, &message.request_id, &message.route, &message.method, &message.target]
    {
        put(&mut packed, text.as_bytes());
    }
    for option in [&message.order, &message.provider] {
        packed.push(u8::from(option.is_some()));
        put(&mut packed, option.as_deref().unwrap_or_default().as_bytes());
    }
    for (name, value) in &message.fields {
        put(&mut packed, name.as_bytes());
        put(&mut packed, value);
    }
    packed
}

/// The message of which this is the head. `None`: it is none, or of a gateway that is newer.
pub fn unpack(inbox: Arc<str>, packed: &[u8], body: Bytes) -> Option<Message> {
    let mut left = packed.strip_prefix(&[VERSION])?;
    let (received, rest) = left.split_first_chunk()?;
    left = rest;
    let received = UNIX_EPOCH.checked_add(Duration::from_millis(u64::from_le_bytes(*received)))?;
    let [id, delivery, request_id, route, method, target] = texts(&mut left)?;
    let (order, provider) = (option(&mut left)?, option(&mut left)?);
    let mut fields = Vec::new();
    while !left.is_empty() {
        fields.push((text(&mut left)?, take(&mut left)?.to_vec()));
    }
    Some(Message { id, inbox, delivery, order, received, request_id, route, provider, method, target, fields, body })
}

fn milliseconds(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// A length does not fit only where the part would be of 4 GiB, more than any limit of a head.
fn put(packed: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    packed.extend_from_slice(&length.to_le_bytes());
    packed.extend_from_slice(part);
}

fn take<'a>(left: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = left.split_first_chunk()?;
    let (part, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    *left = rest;
    Some(part)
}

fn text(left: &mut &[u8]) -> Option<String> {
    std::str::from_utf8(take(left)?).ok().map(str::to_owned)
}

fn texts<const COUNT: usize>(left: &mut &[u8]) -> Option<[String; COUNT]> {
    let mut texts = [const { String::new() }; COUNT];
    for slot in &mut texts {
        *slot = text(left)?;
    }
    Some(texts)
}

fn option(left: &mut &[u8]) -> Option<Option<String>> {
    let (there, rest) = left.split_first()?;
    *left = rest;
    let text = text(left)?;
    match there {
        0 if text.is_empty() => Some(None),
        1 => Some(Some(text)),
        _ => None,
    }
}
