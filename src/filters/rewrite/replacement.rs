//! The text that takes the place of a match.

use regex::{Captures, Regex};

/// A parsed replacement. Unlike that of the crate `regex`, `$1x` is the capture 1 and an `x`.
pub(super) struct Replacement(Vec<Part>);

enum Part {
    Text(Box<str>),
    Capture(usize),
}

impl Replacement {
    /// Fails with a message and a hint.
    pub(super) fn parse(text: &str, regex: &Regex) -> Result<Self, (String, String)> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                literal.push('$');
                rest = after;
                continue;
            }
            let (name, after) = split_name(after)?;
            let hint = || format!("it has {}", names(regex));
            let index = index_of(name, regex)
                .ok_or_else(|| (format!("the regular expression has no capture `{name}`"), hint()))?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Capture(index));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        for part in &parts {
            if let Part::Text(text) = part
                && !crate::head::is_path(&format!("/{text}"))
            {
                let message = format!("`{text}` holds a character that no path may hold");
                return Err((message, "percent-encode it; the query is changed by `query`".to_owned()));
            }
        }
        Ok(Self(parts))
    }

    /// `path` with what was `found` replaced; `None` above `bytes_max`.
    pub(super) fn replace(&self, path: &str, found: &Captures<'_>, bytes_max: usize) -> Option<String> {
        let whole = found.get(0)?;
        let mut result = path.get(..whole.start())?.to_owned();
        for part in &self.0 {
            match part {
                Part::Text(text) => result.push_str(text),
                Part::Capture(index) => result.push_str(found.get(*index).map_or("", |capture| capture.as_str())),
            }
            if result.len() > bytes_max {
                return None;
            }
        }
        result.push_str(path.get(whole.end()..)?);
        Some(result)
    }
}

/// The name behind a `$` and what follows it.
fn split_name(text: &str) -> Result<(&str, &str), (String, String)> {
    if let Some((name, after)) = text.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        return Ok((name, after));
    }
    let is_number = text.starts_with(|c: char| c.is_ascii_digit());
    let in_name = |c: char| c.is_ascii_digit() || (!is_number && (c.is_ascii_alphabetic() || c == '_'));
    let end = text.find(|c: char| !in_name(c)).unwrap_or(text.len());
    match text.split_at(end) {
        ("", _) => {
            Err(("a `$` without the name of a capture".to_owned(), "write `$$` for the character itself".to_owned()))
        }
        split => Ok(split),
    }
}

fn index_of(name: &str, regex: &Regex) -> Option<usize> {
    match name.parse::<usize>() {
        Ok(index) => (index < regex.captures_len()).then_some(index),
        Err(_) => regex.capture_names().position(|known| known == Some(name)),
    }
}

fn names(regex: &Regex) -> String {
    let name =
        |(index, name): (usize, Option<&str>)| name.map_or_else(|| format!("`${index}`"), |name| format!("`${name}`"));
    let names: Vec<String> = regex.capture_names().enumerate().map(name).collect();
    names.join(", ")
}
