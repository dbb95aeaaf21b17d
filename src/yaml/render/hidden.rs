//! What was put in for `${…}`, so that no message shows it.
//!
//! Whoever compiles a value names what it refuses (`` `x` is no port ``), and need not know where the value came from: that
//! is known here, by its place.

use std::borrow::Cow;
use std::collections::HashMap;

use super::super::{Kind, Node, Place, Text};

/// Shorter runs of characters are found in any two texts.
const SHARED_CHARS_MAX: usize = 5;

/// Substituted values by place.
#[derive(Clone, Debug, Default)]
pub(super) struct Hidden(HashMap<Place, Text>);

impl Hidden {
    pub(super) fn collect(&mut self, node: &Node) {
        if let Kind::Str(text) = &node.kind
            && text.substituted()
        {
            self.0.insert(node.place, text.clone());
        }
        node.items().iter().for_each(|item| self.collect(item));
        node.entries().iter().for_each(|entry| self.collect(&entry.value));
    }

    /// A message about the value at `place`, without any part of it that is not also in `written`, the line of the file.
    pub(super) fn message<'m>(&self, place: Place, message: &'m str, written: &str) -> Cow<'m, str> {
        let Some(Text { text, origin: Some(origin) }) = self.0.get(&place) else { return Cow::Borrowed(message) };
        let masked = without_quotes(message, text, written);
        if shares(&masked, text, written) {
            return Cow::Owned(format!("the value of {origin} is not allowed here"));
        }
        Cow::Owned(masked)
    }

    /// The same for a hint, which is left out when it would have to be made vague.
    pub(super) fn hint<'m>(&self, place: Place, hint: &'m str, written: &str) -> Option<&'m str> {
        match self.message(place, hint, written) {
            Cow::Borrowed(hint) => Some(hint),
            Cow::Owned(masked) => (masked == hint).then_some(hint),
        }
    }
}

/// `message` with `…` for what stands between backticks and is a part of `value`, or holds it.
fn without_quotes(message: &str, value: &str, written: &str) -> String {
    let value = value.to_ascii_lowercase();
    let hide = |quoted: &str| {
        let lower = quoted.to_ascii_lowercase();
        let related = value.contains(&lower) || (!value.is_empty() && lower.contains(&value));
        !quoted.is_empty() && !written.contains(quoted) && related
    };
    let parts = message.split('`').enumerate();
    let parts: Vec<&str> = parts.map(|(index, part)| if index % 2 == 1 && hide(part) { "…" } else { part }).collect();
    parts.join("`")
}

/// Whether `message` still holds a run of characters of `value`.
fn shares(message: &str, value: &str, written: &str) -> bool {
    let (message, value) = (message.to_ascii_lowercase(), value.to_ascii_lowercase());
    let written = written.to_ascii_lowercase();
    let starts: Vec<usize> = message.char_indices().map(|(at, _)| at).chain([message.len()]).collect();
    let length = SHARED_CHARS_MAX.saturating_add(1);
    let mut runs = starts.iter().zip(starts.iter().skip(length)).filter_map(|(from, to)| message.get(*from..*to));
    runs.any(|run| value.contains(run) && !written.contains(run))
}

#[cfg(test)]
mod tests;
