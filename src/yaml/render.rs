//! Showing problems to a person: place, line, caret, hint.

mod hidden;
mod line;

use super::problem::{Problem, Report};
use super::{FileId, Node, Place};
use hidden::Hidden;
use std::fmt::Write as _;

/// The files of a configuration: what a [`FileId`] stands for.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<Source>,
    hidden: Hidden,
}

#[derive(Clone)]
struct Source {
    name: String,
    text: String,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The text may hold secrets.
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Sources {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a file. `name` is what messages call it.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> FileId {
        let id = FileId(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        let mut text = text.into();
        // A byte order mark is no column.
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        self.files.push(Source { name: name.into(), text });
        id
    }

    /// Takes in what was substituted in `node`: no problem shows it, whoever reports that.
    pub fn hide(&mut self, node: &Node) {
        self.hidden.collect(node);
    }

    /// The display name of a file.
    pub fn name(&self, file: FileId) -> &str {
        self.file(file).map_or("(built in)", |source| &source.name)
    }

    /// The text of a file; empty for a file of another table.
    pub fn text(&self, file: FileId) -> &str {
        self.file(file).map_or("", |source| &source.text)
    }

    /// `file:line:column` of a place.
    pub fn locate(&self, place: Place) -> String {
        if place.line == 0 {
            return line::printable(self.name(place.file));
        }
        format!("{}:{}:{}", line::printable(self.name(place.file)), place.line, place.column)
    }

    /// A problem for people: several lines, the last one without a line break.
    ///
    /// The line of the file is shown with a caret below, cropped when it is long, and with the values below keys that
    /// look like credentials (`secret`, `password`, `token`, `key`, …) replaced by `…`; so are those behind an unknown key
    /// where such a key may have been meant.
    pub fn render(&self, problem: &Problem) -> String {
        let mut out = format!("{}: {}", self.locate(problem.place), self.text_about(problem.place, &problem.message));
        if let Some(shown) = line::show(self.text(problem.place.file), problem.place, problem.hides_values) {
            let number = problem.place.line.to_string();
            let margin = " ".repeat(number.len());
            let pad = " ".repeat(shown.caret_column);
            let carets = "^".repeat(shown.caret_width);
            let _ = write!(out, "\n   {number} | {}\n   {margin} | {pad}{carets}", shown.text);
        }
        if let Some(related) = &problem.related {
            let label = self.text_about(related.place, &related.label);
            let _ = write!(out, "\n   {label} at {}", self.locate(related.place));
        }
        if let Some(hint) = self.hint_about(problem) {
            let _ = write!(out, "\n   hint: {hint}");
        }
        out
    }

    /// A problem for machines.
    pub fn report(&self, problem: &Problem) -> Report {
        let mut message = self.text_about(problem.place, &problem.message);
        if let Some(related) = &problem.related {
            let label = self.text_about(related.place, &related.label);
            let _ = write!(message, "; {label} at {}", self.locate(related.place));
        }
        Report {
            file: self.name(problem.place.file).to_owned(),
            line: problem.place.line,
            column: problem.place.column,
            message,
            hint: self.hint_about(problem),
        }
    }

    fn text_about(&self, place: Place, text: &str) -> String {
        line::printable(&self.hidden.message(place, text, self.line(place)))
    }

    fn hint_about(&self, problem: &Problem) -> Option<String> {
        let hint = problem.hint.as_deref()?;
        self.hidden.hint(problem.place, hint, self.line(problem.place)).map(line::printable)
    }

    /// The line of the file at `place`.
    fn line(&self, place: Place) -> &str {
        line::at(self.text(place.file), place).unwrap_or_default()
    }

    fn file(&self, file: FileId) -> Option<&Source> {
        self.files.get(usize::try_from(file.0).ok()?)
    }
}
