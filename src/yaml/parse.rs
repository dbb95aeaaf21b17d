//! Text into nodes, by way of the YAML library.
//!
//! The library reads the text into a raw tree with places ([`Raw`]); what the configuration does not allow
//! (keys that are no strings, duplicate keys, tags) is found while that becomes [`Node`]s, so that all of it is
//! reported at once. Merge keys (`<<`) are applied here, so that a key given twice is still told from one that a
//! merge brings along.

use super::problem::{Problems, quoted};
use super::{Entry, FileId, Key, Kind, Node, Place, Problem, Sources, Text};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Size of one file, in bytes.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How deep lists and maps may nest.
const DEPTH_MAX: usize = 64;
/// Values in one file.
const NODES_MAX: usize = 1_000_000;
/// Stack for reading [`DEPTH_MAX`] levels; a level takes up to 64 KiB without optimisation.
const STACK_BYTES: usize = 16 * 1024 * 1024;
/// Parser events that aliases may replay: each repeats what its anchor holds.
const REPLAYED_EVENTS_MAX: usize = 500_000;

/// Reads one YAML document.
///
/// An empty file is `Null`. At most 16 MiB, 64 levels and a million values; aliases may repeat about half a million.
///
/// # Errors
///
/// A syntax error is reported alone; else every duplicate key, key that is not a string, tag and number out of range.
pub fn parse(sources: &Sources, file: FileId) -> Result<Node, Vec<Problem>> {
    let text = sources.text(file);
    let start = Place { file, line: 1, column: 1 };
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes; at most {FILE_BYTES_MAX} are read", text.len());
        return Err(vec![Problem::new(start, message).with_hint("split it into several files")]);
    }
    let raw = read_deep(text, file).map_err(|problem| vec![problem])?;
    let mut build = Build { file, text, problems: Problems::default() };
    let root = build.node(raw);
    build.problems.finish(root)
}

/// Reads on a thread of its own: the library recurses, and 64 levels of its frames do not fit every caller's stack.
fn read_deep(text: &str, file: FileId) -> Result<Raw, Problem> {
    let read = || -> Result<Raw, Problem> {
        serde_yaml::from_str_with_options::<Spanned<RawKind>>(text, options())
            .map(Raw::from)
            .map_err(|error| syntax(&error, file))
    };
    let failed = || Problem::new(Place { file, line: 1, column: 1 }, "no thread could be started to read the file");
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("yaml".to_owned()).stack_size(STACK_BYTES);
        let reader = builder.spawn_scoped(scope, read).map_err(|_| failed())?;
        reader.join().unwrap_or_else(|_| Err(failed()))
    })
}

fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: NODES_MAX * 3,
            // One anchor used by every route is ordinary; the replay limit below is what stops a bomb.
            max_aliases: NODES_MAX,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: REPLAYED_EVENTS_MAX },
        duplicate_keys: serde_yaml::DuplicateKeyPolicy::PassThrough,
        merge_keys: serde_yaml::MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        emit_comments: false,
    }
}

/// The library's error in our words: one line, without its place and snippet.
fn syntax(error: &serde_yaml::Error, file: FileId) -> Problem {
    let error = error.without_snippet();
    let place = error.location().map_or(Place { file, line: 1, column: 1 }, |at| Place {
        file,
        line: u32::try_from(at.line()).unwrap_or(u32::MAX).max(1),
        column: u32::try_from(at.column()).unwrap_or(u32::MAX).max(1),
    });
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let message = first.split(" at line ").next().unwrap_or_default();
    if message.starts_with("multiple YAML documents") {
        return Problem::new(place, "a second YAML document in one file").with_hint("give each document its own file");
    }
    if message.starts_with("unsupported tag") {
        return Problem::new(place, format!("{message}: tags are not allowed")).with_hint("remove it");
    }
    if message.starts_with("alias replay limit exceeded") {
        let message = format!("aliases repeat more than {REPLAYED_EVENTS_MAX} values");
        return Problem::new(place, message).with_hint("an alias of aliases multiplies; write the values out");
    }
    if message.starts_with("budget breached: Depth") {
        return Problem::new(place, format!("lists and maps nest deeper than {DEPTH_MAX} levels"));
    }
    if message.starts_with("budget breached: Nodes") || message.starts_with("budget breached: Events") {
        let message = format!("the file holds more than {NODES_MAX} values");
        return Problem::new(place, message).with_hint("split it into several files");
    }
    let problem = Problem::new(place, format!("not valid YAML: {message}"));
    if message.starts_with("tabs") {
        return problem.with_hint("indent with spaces");
    }
    if message.starts_with("mapping values are not allowed") {
        return problem.with_hint("quote a value that contains `: `, and check the indentation");
    }
    if message.contains("flow mapping") || message.contains("flow sequence") {
        return problem.with_hint("inside `{ }` and `[ ]`, quote values such as \"${NAME}\"");
    }
    problem
}

/// A value as the library gives it.
struct Raw {
    line: u32,
    column: u32,
    /// Where the value starts in the text, in bytes.
    offset: Option<usize>,
    kind: RawKind,
}

enum RawKind {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Str(Arc<str>),
    Seq(Vec<Raw>),
    Map(Vec<(Raw, Raw)>),
}

impl From<Spanned<RawKind>> for Raw {
    fn from(spanned: Spanned<RawKind>) -> Self {
        // Of an alias this is where the anchor stands: there is the text that a problem is about.
        let at = spanned.defined;
        Self {
            line: u32::try_from(at.line()).unwrap_or(u32::MAX).max(1),
            column: u32::try_from(at.column()).unwrap_or(u32::MAX).max(1),
            offset: at.span().byte_offset().and_then(|offset| usize::try_from(offset).ok()),
            kind: spanned.value,
        }
    }
}

impl<'de> Deserialize<'de> for RawKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<RawKind, E> {
        Ok(RawKind::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<RawKind, E> {
        Ok(RawKind::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<RawKind, E> {
        Ok(RawKind::Signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<RawKind, E> {
        Ok(RawKind::Unsigned(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<RawKind, E> {
        Ok(RawKind::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<RawKind, E> {
        Ok(RawKind::Str(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<RawKind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<RawKind>>()? {
            items.push(item.into());
        }
        Ok(RawKind::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawKind, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = access.next_entry::<Spanned<RawKind>, Spanned<RawKind>>()? {
            entries.push((key.into(), value.into()));
        }
        Ok(RawKind::Map(entries))
    }
}

struct Build<'t> {
    file: FileId,
    text: &'t str,
    problems: Problems,
}

impl Build<'_> {
    fn node(&mut self, raw: Raw) -> Node {
        let place = self.place(&raw);
        self.refuse_tag(&raw);
        let kind = match raw.kind {
            RawKind::Null => Kind::Null,
            RawKind::Bool(value) => Kind::Bool(value),
            RawKind::Signed(value) => Kind::Int(value),
            RawKind::Unsigned(value) => i64::try_from(value).map_or_else(|_| self.too_large(place), Kind::Int),
            RawKind::Float(value) if !self.is_float(raw.offset) => self.too_large_if(value, place),
            RawKind::Float(value) => Kind::Float(value),
            RawKind::Str(text) => Kind::Str(Text::plain(text)),
            RawKind::Seq(items) => Kind::Seq(items.into_iter().map(|item| self.node(item)).collect()),
            RawKind::Map(entries) => Kind::Map(self.map(entries).into()),
        };
        Node { place, kind }
    }

    fn place(&self, raw: &Raw) -> Place {
        Place { file: self.file, line: raw.line, column: raw.column }
    }

    fn map(&mut self, raw: Vec<(Raw, Raw)>) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(raw.len());
        let mut seen: HashMap<Arc<str>, Place> = HashMap::with_capacity(raw.len());
        let mut merges = Vec::new();
        for (key, value) in raw {
            let Some(key) = self.key(key) else { continue };
            let value = self.node(value);
            if let Some(first) = seen.get(&key.text) {
                let problem = Problem::new(key.place, format!("duplicate key {}", quoted(&key.text)));
                self.problems.push(problem.with_related("first defined", *first));
                continue;
            }
            seen.insert(key.text.clone(), key.place);
            if &*key.text == "<<" {
                merges.push(value);
            } else {
                entries.push(Entry { key, value });
            }
        }
        for merged in merges {
            self.merge(&merged, &mut entries, &mut seen);
        }
        entries
    }

    fn key(&mut self, raw: Raw) -> Option<Key> {
        let place = self.place(&raw);
        self.refuse_tag(&raw);
        match raw.kind {
            RawKind::Str(text) => return Some(Key { place, text }),
            RawKind::Seq(_) | RawKind::Map(_) => {
                self.problems.push(Problem::new(place, "a key must be a string, not a list or a map"));
            }
            RawKind::Null | RawKind::Bool(_) | RawKind::Signed(_) | RawKind::Unsigned(_) | RawKind::Float(_) => {
                self.problems.push(Problem::new(place, "a key must be a string").with_hint("quote it"));
            }
        }
        None
    }

    /// Adds the entries of a merge (`<<: *anchor` or a list of these). What is there already wins.
    fn merge(&mut self, merged: &Node, entries: &mut Vec<Entry>, seen: &mut HashMap<Arc<str>, Place>) {
        match &merged.kind {
            Kind::Map(from) => {
                for entry in from.iter() {
                    if !seen.contains_key(&entry.key.text) {
                        seen.insert(entry.key.text.clone(), entry.key.place);
                        entries.push(entry.clone());
                    }
                }
            }
            Kind::Seq(list) if list.iter().all(|item| matches!(item.kind, Kind::Map(_))) => {
                for item in list.iter() {
                    self.merge(item, entries, seen);
                }
            }
            _ => {
                let problem = Problem::new(merged.place, "`<<` merges a map or a list of maps");
                self.problems.push(problem.with_hint("write `<<: *anchor`, where `&anchor` marks a map"));
            }
        }
    }

    /// Core tags (`!!str`) change types quietly, and the library applies them before we see the value. Only
    /// properties can stand between an indicator and its value on one line, so the text tells.
    fn refuse_tag(&mut self, raw: &Raw) {
        let Some(before) = raw.offset.and_then(|offset| self.text.get(..offset)) else { return };
        if !before.ends_with([' ', '\t']) {
            return;
        }
        let mut rest = before.trim_end_matches([' ', '\t']);
        loop {
            let start = rest.rfind([' ', '\t', '\n', '\r', '[', '{', ',']).map_or(0, |at| at.saturating_add(1));
            let Some((head, word)) = rest.split_at_checked(start) else { return };
            if word.starts_with('!') {
                let problem = Problem::new(self.place(raw), format!("tag {}: tags are not allowed", quoted(word)));
                self.problems.push(problem.with_hint("remove it; quote the value if it is to be a string"));
                return;
            }
            if !word.starts_with('&') {
                return;
            }
            rest = head.trim_end_matches([' ', '\t']);
        }
    }

    /// Whether the number at `offset` is written as a fraction: the library reads a whole number that no integer
    /// holds as one.
    fn is_float(&self, offset: Option<usize>) -> bool {
        let written = offset.and_then(|offset| self.text.get(offset..)).unwrap_or_default();
        let word = written.split(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}')).next();
        word.is_some_and(|word| word.contains(['.', 'e', 'E']))
    }

    fn too_large_if(&mut self, value: f64, place: Place) -> Kind {
        if value.abs() < 9e18 { Kind::Float(value) } else { self.too_large(place) }
    }

    fn too_large(&mut self, place: Place) -> Kind {
        let message = format!("the number is out of range: {} to {}", i64::MIN, i64::MAX);
        self.problems.push(Problem::new(place, message).with_hint("quote it if it is to be a string"));
        Kind::Null
    }
}
