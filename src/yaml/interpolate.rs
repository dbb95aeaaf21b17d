//! `${NAME}`, `${NAME:-default}` and `${file:path}` in values.

use super::problem::{Problems, quoted};
use super::{Entry, FileId, Kind, Node, Place, Problem, Text};
use std::fmt::Write as _;

/// Size of one value after substitution, in bytes.
const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Size of all substituted values of one tree together, in bytes.
const TOTAL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where references find their values.
pub trait Lookup {
    /// The environment variable `name`.
    fn env(&self, name: &str) -> Option<String>;

    /// The content of the file at `path`, relative to the directory of the configuration file `base`.
    ///
    /// # Errors
    ///
    /// Why it could not be read, without any of its content: the text becomes a message.
    fn file(&self, path: &str, base: FileId) -> Result<String, String>;
}

/// Replaces the references in all values of a tree.
///
/// `${NAME}` must be set; `${NAME:-default}` is `default` when `NAME` is unset or empty; `${file:path}` is the content
/// of a file without its last line break; `$${` is a literal `${`. A default cannot hold a reference, and what is put in is
/// not searched again. A value that held a reference decodes as its target wants: a number, a boolean or a string,
/// quoted or not (inside `{ }` YAML demands the quotes).
///
/// # Errors
///
/// Every unset variable, unreadable file, malformed reference and reference in a key; a value above 1 MiB, all of
/// them above 16 MiB.
pub fn interpolate(node: &Node, lookup: &dyn Lookup) -> Result<Node, Vec<Problem>> {
    let mut run = Run { lookup, problems: Problems::default(), bytes_left: TOTAL_BYTES_MAX };
    let node = run.node(node);
    run.problems.finish(node)
}

struct Run<'l> {
    lookup: &'l dyn Lookup,
    problems: Problems,
    bytes_left: usize,
}

impl Run<'_> {
    fn node(&mut self, node: &Node) -> Node {
        let kind = match &node.kind {
            Kind::Str(text) if text.origin.is_none() && text.text.contains("${") => {
                Kind::Str(self.text(&text.text, node.place))
            }
            Kind::Seq(items) => Kind::Seq(items.iter().map(|item| self.node(item)).collect()),
            Kind::Map(entries) => Kind::Map(entries.iter().map(|entry| self.entry(entry)).collect()),
            other => other.clone(),
        };
        Node { place: node.place, kind }
    }

    fn entry(&mut self, entry: &Entry) -> Entry {
        if entry.key.text.contains("${") {
            let problem = Problem::new(entry.key.place, format!("reference in the key {}", quoted(&entry.key.text)));
            self.problems.push(problem.with_hint("`${…}` is replaced in values only"));
        }
        Entry { key: entry.key.clone(), value: self.node(&entry.value) }
    }

    fn text(&mut self, text: &str, place: Place) -> Text {
        match self.substitute(text, place) {
            Ok(done) => done,
            Err(problem) => {
                self.problems.push(*problem);
                Text::plain(text)
            }
        }
    }

    /// Only the first mistake of a value is reported, but for unset variables: of these, all.
    fn substitute(&mut self, text: &str, place: Place) -> Result<Text, Box<Problem>> {
        let mut result = String::new();
        let mut origin = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(escaped) = before.strip_suffix('$') {
                result.push_str(escaped);
                result.push_str("${");
                rest = after;
                continue;
            }
            result.push_str(before);
            let Some((inside, tail)) = after.split_once('}') else {
                let problem = Problem::new(place, "`${` without a closing `}`");
                return Err(Box::new(problem.with_hint("write `$${` for a literal `${`")));
            };
            let reference = Reference::read(inside, place)?;
            let _ = write!(origin, "{}${{{}}}", if origin.is_empty() { "" } else { " and " }, reference.shown());
            if let Some(value) = self.value(&reference, place) {
                result.push_str(&value);
            }
            if result.len() > VALUE_BYTES_MAX {
                return Err(Box::new(Problem::new(place, format!("the value of {origin} is above 1 MiB"))));
            }
            rest = tail;
        }
        result.push_str(rest);
        if origin.is_empty() {
            return Ok(Text::plain(result));
        }
        let Some(left) = self.bytes_left.checked_sub(result.len()) else {
            return Err(Box::new(Problem::new(place, "all substituted values together are above 16 MiB")));
        };
        self.bytes_left = left;
        Ok(Text { text: result.into(), origin: Some(origin.into()) })
    }

    fn value(&mut self, reference: &Reference<'_>, place: Place) -> Option<String> {
        match *reference {
            Reference::Env { name, default } => {
                let found = self.lookup.env(name);
                match default {
                    Some(default) => {
                        Some(found.filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned()))
                    }
                    None => {
                        if found.is_none() {
                            let hint = format!("set {name}, or write ${{{name}:-default}}");
                            let problem = Problem::new(place, format!("the variable {} is not set", quoted(name)));
                            self.problems.push(problem.with_hint(hint));
                        }
                        found
                    }
                }
            }
            Reference::File { path } => match self.lookup.file(path, place.file) {
                Ok(mut content) => {
                    if content.ends_with('\n') {
                        content.pop();
                        if content.ends_with('\r') {
                            content.pop();
                        }
                    }
                    Some(content)
                }
                Err(why) => {
                    let problem = Problem::new(place, format!("cannot read the file {}: {why}", quoted(path)));
                    self.problems.push(problem);
                    None
                }
            },
        }
    }
}

/// What stands between `${` and `}`.
enum Reference<'t> {
    Env { name: &'t str, default: Option<&'t str> },
    File { path: &'t str },
}

impl<'t> Reference<'t> {
    fn read(inside: &'t str, place: Place) -> Result<Self, Box<Problem>> {
        let fail = |message: String, hint: &str| Err(Box::new(Problem::new(place, message).with_hint(hint)));
        if let Some(path) = inside.strip_prefix("file:") {
            if path.is_empty() || path.contains("${") {
                return fail("`${file:…}` needs the path of a file".to_owned(), "write ${file:/run/secrets/name}");
            }
            return Ok(Self::File { path });
        }
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if default.is_some_and(|default| default.contains("${")) {
            return fail(format!("reference inside the default of {}", quoted(name)), "a default is a literal text");
        }
        let mut chars = name.chars();
        let head = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !head || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let message = format!("{} is no name of a variable", quoted(name));
            return fail(message, "write ${NAME}, ${NAME:-default} or ${file:path}; `$${` for a literal `${`");
        }
        Ok(Self::Env { name, default })
    }

    /// For messages: without the default, which may be a secret too.
    fn shown(&self) -> String {
        match self {
            Self::Env { name, .. } => (*name).to_owned(),
            Self::File { path } => format!("file:{path}"),
        }
    }
}
