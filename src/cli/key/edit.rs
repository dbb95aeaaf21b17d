//! Adding a key to a file that people wrote, without touching anything else in it.
//!
//! The place is found in the parsed file, lines are put in, and the result is parsed again: only if it is the file as it
//! was with exactly this key added is it written. What cannot be extended by whole lines (`{ … }`, `[ … ]`) is left alone.

use std::path::Path;

use super::paste::{Paste, lines};
use crate::yaml::{Entry, Kind, Node, Sources, parse};

/// A file of the configuration, as it is.
pub struct File<'t> {
    text: &'t str,
    root: Node,
}

/// Lines to put in.
struct Insertion {
    /// Behind how many lines of the file.
    behind: usize,
    indent: usize,
    lines: Vec<String>,
}

const NO_BLOCK: &str = "`consumers` or what is in it is not written as a list with one `- ` per line";

impl<'t> File<'t> {
    /// Reads a file, or says what is wrong with it.
    pub fn read(path: &Path, text: &'t str) -> Result<Self, String> {
        let mut sources = Sources::new();
        let file = sources.add(path.display().to_string(), text);
        let root = parse(&sources, file);
        let shown = |problems: Vec<_>| problems.iter().map(|problem| sources.render(problem) + "\n\n").collect();
        root.map(|root| Self { text, root }).map_err(shown)
    }

    /// Whether this is a `gateway.yaml`, and no included file.
    pub fn is_root(&self) -> bool {
        self.root.get("version").is_some()
    }

    pub fn has_id(&self, id: &str) -> bool {
        let consumers = self.root.get("consumers").map(Node::items).unwrap_or_default();
        let keys = consumers.iter().filter_map(|consumer| consumer.get("keys")).flat_map(Node::items);
        keys.filter_map(|key| key.get("id")).any(|own| own.as_str() == Some(id))
    }

    /// `id`, or with the first number behind it that is free.
    pub fn free_id(&self, id: &str) -> String {
        let numbered = (2_u32..).map(|number| format!("{id}-{number}"));
        let mut ids = std::iter::once(id.to_owned()).chain(numbered);
        ids.find(|id| !self.has_id(id)).unwrap_or_default()
    }

    /// The text with the key added, or why that cannot be done.
    pub fn with_key(&self, paste: &Paste<'_>) -> Result<String, &'static str> {
        let new = parsed(&paste.as_new_consumer()).ok_or(NO_BLOCK)?;
        let (insertion, expected) = self.plan(paste, &new).ok_or(NO_BLOCK)?;
        let text = self.insert(&insertion);
        // The proof: whatever the plan overlooked shows here.
        match parsed(&text) {
            Some(root) if same(&root, &expected) => Ok(text),
            _ => Err(NO_BLOCK),
        }
    }

    /// Where lines go in, and what the file is then. `new` is a file with nothing but the new consumer.
    fn plan(&self, paste: &Paste<'_>, new: &Node) -> Option<(Insertion, Node)> {
        let new_list = new.get("consumers")?;
        let new_consumer = new_list.items().first()?;
        let Some(consumers) = self.root.get("consumers") else {
            let lines = [vec!["consumers:".to_owned()], indented(&paste.consumer_item(), 2)].concat();
            let insertion = Insertion { behind: self.text.lines().count(), indent: 0, lines };
            return Some((insertion, with_entry(&self.root, "consumers", new_list.clone())));
        };
        let named = |consumer: &Node| consumer.get("name").and_then(Node::as_str) == Some(paste.consumer);
        let Some(index) = consumers.items().iter().position(named) else {
            let insertion = self.behind_last(consumers, paste.consumer_item())?;
            let extended = with_item(consumers, consumers.items().len(), new_consumer.clone());
            return Some((insertion, with_entry(&self.root, "consumers", extended)));
        };
        let consumer = consumers.items().get(index)?;
        let key = parsed_item(&paste.key_item())?;
        let (insertion, keys) = match consumer.get("keys") {
            Some(keys) => (self.behind_last(keys, paste.key_item())?, with_item(keys, keys.items().len(), key)),
            None => {
                let lines = [vec!["keys:".to_owned()], indented(&paste.key_item(), 2)].concat();
                let dash = self.dash(consumer)?;
                let indent = usize::try_from(consumer.place.column).ok()?.checked_sub(1)?;
                let insertion = Insertion { behind: self.end(consumer, dash), indent, lines };
                (insertion, Node::new(consumer.place, Kind::Seq([key].into())))
            }
        };
        let extended = with_item(consumers, index, with_entry(consumer, "keys", keys));
        Some((insertion, with_entry(&self.root, "consumers", extended)))
    }

    /// Behind the last item of a list, indented as it.
    fn behind_last(&self, list: &Node, lines: Vec<String>) -> Option<Insertion> {
        let last = list.items().last()?;
        let indent = self.dash(last)?;
        Some(Insertion { behind: self.end(last, indent), indent, lines })
    }

    /// How many spaces stand before the `-` of an item, when nothing else does.
    fn dash(&self, item: &Node) -> Option<usize> {
        let line = self.line(usize::try_from(item.place.line).ok()?)?;
        let before: String = line.chars().take(usize::try_from(item.place.column).ok()?.checked_sub(1)?).collect();
        let indent = before.len().checked_sub(before.trim_start_matches(' ').len())?;
        let marker = before.trim_matches(' ');
        (marker == "-" && before.ends_with(' ')).then_some(indent)
    }

    /// The number of the last line of an item whose `-` is behind `indent` spaces: texts over several lines and comments
    /// in it included.
    fn end(&self, item: &Node, indent: usize) -> usize {
        let mut end = usize::try_from(last_line(item)).unwrap_or_default();
        let is_inside = |line: &str| {
            let inner = line.trim_start_matches(' ');
            line.len().saturating_sub(inner.len()) > indent && !inner.trim().is_empty()
        };
        let mut next = end.saturating_add(1);
        while let Some(line) = self.line(next) {
            if is_inside(line) {
                end = next;
            } else if !line.trim().is_empty() {
                break;
            }
            next = next.saturating_add(1);
        }
        end
    }

    /// A line by its number, from 1 on.
    fn line(&self, number: usize) -> Option<&'t str> {
        self.text.lines().nth(number.checked_sub(1)?)
    }

    fn insert(&self, insertion: &Insertion) -> String {
        let newline = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        let all: Vec<&str> = self.text.split_inclusive('\n').collect();
        let (before, after) = all.split_at(insertion.behind.min(all.len()));
        let mut text = before.concat();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push_str(newline);
        }
        // What begins at the edge is a part of its own.
        if insertion.indent == 0 && after.is_empty() && !text.is_empty() && !insertion.lines.concat().starts_with('-') {
            text.push_str(newline);
        }
        text.push_str(&lines(&insertion.lines, insertion.indent, newline));
        text.push_str(&after.concat());
        text
    }
}

fn parsed(text: &str) -> Option<Node> {
    let mut sources = Sources::new();
    let file = sources.add("", text);
    parse(&sources, file).ok()
}

/// The first item of a list of these lines.
fn parsed_item(item: &[String]) -> Option<Node> {
    parsed(&lines(item, 0, "\n"))?.items().first().cloned()
}

fn indented(lines: &[String], by: usize) -> Vec<String> {
    lines.iter().map(|line| format!("{:by$}{line}", "")).collect()
}

/// The last line on which anything of this begins.
fn last_line(node: &Node) -> u32 {
    let inside = node.items().iter().map(last_line);
    let entries = node.entries().iter().map(|entry| entry.key.place.line.max(last_line(&entry.value)));
    inside.chain(entries).fold(node.place.line, u32::max)
}

/// A map with another value for a key, or with one entry more.
fn with_entry(map: &Node, key: &str, value: Node) -> Node {
    let mut entries = map.entries().to_vec();
    match entries.iter_mut().find(|entry| &*entry.key.text == key) {
        Some(entry) => entry.value = value,
        None => {
            let key = crate::yaml::Key { place: map.place, text: key.into() };
            entries.push(Entry { key, value });
        }
    }
    Node::new(map.place, Kind::Map(entries.into()))
}

/// A list with another item at `index`, or with one more.
fn with_item(list: &Node, index: usize, item: Node) -> Node {
    let mut items = list.items().to_vec();
    match items.get_mut(index) {
        Some(old) => *old = item,
        None => items.push(item),
    }
    Node::new(list.place, Kind::Seq(items.into()))
}

/// Whether two trees hold the same, wherever it stands.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.kind, &other.kind) {
        (Kind::Null, Kind::Null) => true,
        (Kind::Bool(one), Kind::Bool(other)) => one == other,
        (Kind::Int(one), Kind::Int(other)) => one == other,
        (Kind::Float(one), Kind::Float(other)) => one.to_bits() == other.to_bits(),
        (Kind::Str(one), Kind::Str(other)) => one.text == other.text,
        (Kind::Seq(one), Kind::Seq(other)) => {
            one.len() == other.len() && one.iter().zip(other.iter()).all(|(one, other)| same(one, other))
        }
        (Kind::Map(one), Kind::Map(other)) => {
            let equal =
                |(one, other): (&Entry, &Entry)| one.key.text == other.key.text && same(&one.value, &other.value);
            one.len() == other.len() && one.iter().zip(other.iter()).all(equal)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
