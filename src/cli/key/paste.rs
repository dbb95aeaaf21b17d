//! A new key as it stands in YAML.

use std::time::SystemTime;

use crate::identity::NewKey;
use crate::yaml::{Kind, Sources, parse};

/// What is said about a new key.
pub struct Paste<'a> {
    pub consumer: &'a str,
    pub id: String,
    pub key: &'a NewKey,
    pub scopes: &'a [String],
    pub expires: Option<SystemTime>,
}

impl Paste<'_> {
    /// A file that holds nothing but the consumer with this key. Scopes are the consumer's: it has no others.
    pub fn as_new_consumer(&self) -> String {
        format!("consumers:\n{}", lines(&self.consumer_item(), 2, "\n"))
    }

    /// The consumer as an item of `consumers`.
    pub fn consumer_item(&self) -> Vec<String> {
        let mut item = vec![format!("- name: {}", scalar(self.consumer))];
        if !self.scopes.is_empty() {
            item.push(format!("  scopes: {}", list(self.scopes)));
        }
        item.push("  keys:".to_owned());
        item.extend(self.fields(&[]).into_iter().map(|line| format!("    {line}")));
        item
    }

    /// The key as an item of the `keys` of a consumer that may have more scopes.
    pub fn key_item(&self) -> Vec<String> {
        self.fields(self.scopes)
    }

    fn fields(&self, scopes: &[String]) -> Vec<String> {
        let mut fields = vec![
            format!("- id: {}", scalar(&self.id)),
            format!("  sha256: {}", scalar(&self.key.digest.to_string())),
            format!("  prefix: {}", scalar(&self.key.visible)),
        ];
        if let Some(expires) = self.expires {
            let time = jiff::Timestamp::try_from(expires).unwrap_or(jiff::Timestamp::MAX);
            fields.push(format!("  expires: {time:.0}"));
        }
        if !scopes.is_empty() {
            fields.push(format!("  scopes: {}", list(scopes)));
        }
        fields
    }
}

/// Lines that begin with `indent` spaces and end with `newline`.
pub fn lines(lines: &[String], indent: usize, newline: &str) -> String {
    lines.iter().map(|line| format!("{:indent$}{line}{newline}", "")).collect()
}

/// A text as YAML: plain where that is read as this text, else in quotes.
pub fn scalar(text: &str) -> String {
    let mut sources = Sources::new();
    let file = sources.add("", format!("[{text}]"));
    let is_plain = parse(&sources, file).is_ok_and(|node| match &node.kind {
        Kind::Seq(items) => matches!(&**items, [item] if item.as_str() == Some(text)),
        _ => false,
    });
    // JSON is YAML.
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| scalar(word)).collect::<Vec<_>>().join(", "))
}
