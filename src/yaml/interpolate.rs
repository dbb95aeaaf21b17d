//! `${NAME}`, `${NAME:-default}`, `${file:path}` and `${random:name}` in values.

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

    /// A secret that nobody knows: the same whenever this process asks by the same name, another one in every other process.
    ///
    /// # Errors
    ///
    /// Why the system gave no randomness.
    fn random(&self, name: &str) -> Result<String, String>;
}

/// Replaces the references in all values of a tree.
///
/// `${NAME}` must be set; `${NAME:-default}` is `default` when `NAME` is unset or empty; `${file:path}` is the content
/// of a file without its last line break; `${random:name}` is a secret that this process makes up; `$${` is a literal
/// `${`. A default holds no reference but one to a random secret: `${NAME:-${random:name}}`. What is put in is not searched
/// again. A value that held a reference decodes as its target wants: a number, a boolean or a string,
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
            let Some((inside, tail)) = split_reference(after) else {
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
                    Default::Text(default) => {
                        Some(found.filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned()))
                    }
                    Default::Random(secret) => {
                        found.filter(|value| !value.is_empty()).or_else(|| self.random(secret, place))
                    }
                    Default::None => {
                        if found.is_none() {
                            let hint = format!("set {name}, or write ${{{name}:-default}}");
                            let problem = Problem::new(place, format!("the variable {} is not set", quoted(name)));
                            self.problems.push(problem.with_hint(hint));
                        }
                        found
                    }
                }
            }
            Reference::Random { name } => self.random(name, place),
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

impl Run<'_> {
    fn random(&mut self, name: &str, place: Place) -> Option<String> {
        let made =
            self.lookup.random(name).map_err(|why| Problem::new(place, format!("cannot make up a secret: {why}")));
        made.map_err(|problem| self.problems.push(problem)).ok()
    }
}

/// Splits behind the `}` that closes a reference; its default may hold one itself.
fn split_reference(text: &str) -> Option<(&str, &str)> {
    let (inside, tail) = text.split_once('}')?;
    match inside.split_once(":-${") {
        Some(_) if tail.starts_with('}') => Some((text.get(..=inside.len())?, tail.get(1..)?)),
        _ => Some((inside, tail)),
    }
}

/// What stands between `${` and `}`.
#[derive(Clone, Copy)]
enum Reference<'t> {
    Env { name: &'t str, default: Default<'t> },
    File { path: &'t str },
    Random { name: &'t str },
}

/// What a variable that is unset or empty stands for.
#[derive(Clone, Copy)]
enum Default<'t> {
    None,
    Text(&'t str),
    Random(&'t str),
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
        const FORMS: &str = "write ${NAME}, ${NAME:-default}, ${file:path} or ${random:name}; `$${` for a literal `${`";
        if let Some(name) = inside.strip_prefix("random:") {
            if !is_name(name) {
                return fail(format!("{} is no name of a random secret", quoted(name)), FORMS);
            }
            return Ok(Self::Random { name });
        }
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let default = match default {
            None => Default::None,
            Some(text) => match text.strip_prefix("${random:").and_then(|rest| rest.strip_suffix('}')) {
                Some(secret) if is_name(secret) => Default::Random(secret),
                _ if text.contains("${") => {
                    let message = format!("reference inside the default of {}", quoted(name));
                    return fail(message, "a default is a literal text, or `${random:name}`");
                }
                _ => Default::Text(text),
            },
        };
        if !is_name(name) {
            return fail(format!("{} is no name of a variable", quoted(name)), FORMS);
        }
        Ok(Self::Env { name, default })
    }

    /// For messages: without the default, which may be a secret too.
    fn shown(&self) -> String {
        match self {
            Self::Env { name, .. } => (*name).to_owned(),
            Self::File { path } => format!("file:{path}"),
            Self::Random { name } => format!("random:{name}"),
        }
    }
}

/// Letters, digits and `_`, not beginning with a digit.
fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    let head = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    head && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
