//! What a verified message says: its name, and whether its sender only asks.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::context::hex;

/// What names a message, whenever and however often it is sent. Always a part of what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    Body,
    /// The signed id.
    Id,
    /// The member `id` of a JSON body, or else the body.
    MemberId,
    /// The member `event_id` of a JSON body, or else the body.
    MemberEventId,
    /// All that is signed.
    Signed,
}

impl Naming {
    /// The first 32 hexadecimal digits of the SHA-256 of what names the message. `pieces` are what is signed.
    pub fn delivery<'p>(self, id: Option<&[u8]>, body: &[u8], pieces: impl Iterator<Item = &'p [u8]>) -> Arc<str> {
        match (self, id) {
            (Self::Body, _) => digest(std::iter::once(body)),
            (Self::Id, Some(id)) => digest(std::iter::once(id)),
            (Self::MemberId, _) => by_member(body, object(body).and_then(|event: StripeEvent| event.id)),
            (Self::MemberEventId, _) => by_member(body, object(body).and_then(|event: SlackEvent| event.event_id)),
            (Self::Signed | Self::Id, _) => digest(pieces),
        }
    }
}

fn by_member(body: &[u8], member: Option<String>) -> Arc<str> {
    let named = member.filter(|name| !name.is_empty());
    digest(std::iter::once(named.as_ref().map_or(body, |name| name.as_bytes())))
}

fn digest<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Arc<str> {
    let mut hash = Sha256::new();
    pieces.for_each(|piece| hash.update(piece));
    let bits = hash.finalize().iter().take(16).fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte));
    let digits = hex(bits);
    std::str::from_utf8(&digits).unwrap_or_default().into()
}

/// Longest body that asks whether somebody is there, in bytes; that of Slack has some 200.
const QUESTION_BYTES_MAX: usize = 4096;

/// The text that Slack wants to have back, when it asks whether somebody is there.
pub fn challenge(body: &[u8]) -> Option<String> {
    let question: SlackQuestion = if body.len() > QUESTION_BYTES_MAX { None } else { object(body) }?;
    (question.kind == "url_verification").then_some(question.challenge)
}

/// A JSON object. There is none where a member that counts stands twice or is no string.
fn object<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    // Slack sends forms too.
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    if is_object { serde_json::from_slice(body).ok() } else { None }
}

#[derive(Deserialize)]
struct StripeEvent {
    id: Option<String>,
}

#[derive(Deserialize)]
struct SlackEvent {
    event_id: Option<String>,
}

#[derive(Deserialize)]
struct SlackQuestion {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
}
