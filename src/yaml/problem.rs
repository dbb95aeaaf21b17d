//! What went wrong, and where.

use std::collections::HashSet;

/// How many problems are reported in one go.
const PROBLEMS_MAX: usize = 200;

/// How much of a user's text a message quotes, in characters.
const QUOTED_CHARS_MAX: usize = 80;

/// A file in a [`Sources`](super::Sources) table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub(super) u32);

/// A position in a file. Line and column count from 1; the column counts characters, not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub file: FileId,
    pub line: u32,
    pub column: u32,
}

impl Place {
    /// For values that no file holds: built-in defaults, tests.
    pub const UNKNOWN: Self = Self { file: FileId(u32::MAX), line: 0, column: 0 };
}

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// What is wrong, in one line, without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// A second place that belongs to it.
    pub related: Option<Related>,
    /// Nothing that stands behind a key on the line is shown: it may be a secret.
    pub(super) hides_values: bool,
}

/// A second place of a [`Problem`], such as the first of two definitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    pub place: Place,
    /// Stands before `at file:line:column`: "first defined".
    pub label: String,
}

/// A [`Problem`] for machines.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    pub file: String,
    pub line: u32,
    pub column: u32,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), hint: None, related: None, hides_values: false }
    }

    /// Something that is named but does not exist, with the nearest name or all there are as a hint.
    pub fn unknown<'c>(place: Place, what: &str, wrong: &str, known: impl Iterator<Item = &'c str> + Clone) -> Self {
        let problem = Self::new(place, format!("unknown {what} {}", quoted(wrong)));
        if let Some(near) = suggest(wrong, known.clone()) {
            return problem.with_hint(format!("did you mean `{near}`?"));
        }
        let mut known: Vec<&str> = known.collect();
        known.sort_unstable();
        match known.len() {
            0 => problem.with_hint(format!("there is no {what} at all")),
            1..=20 => problem.with_hint(format!("there are {}", known.join(", "))),
            count => problem.with_hint(format!("none of the {count} there are has a name like it")),
        }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn with_related(mut self, label: impl Into<String>, place: Place) -> Self {
        self.related = Some(Related { place, label: label.into() });
        self
    }
}

/// The candidate that `wrong` is most likely a slip of, if any is near enough.
///
/// Near means: at most a third of the longer word's letters changed, added, dropped or swapped. `-` and `_` count
/// as equal.
pub fn suggest<'c>(wrong: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Beyond this nobody's slip; and the distance costs the product of both lengths.
    if wrong.len() > 64 {
        return None;
    }
    let wrong = wrong.to_lowercase().replace('-', "_");
    let mut best: Option<(usize, &'c str)> = None;
    for candidate in candidates {
        let distance = strsim::damerau_levenshtein(&wrong, &candidate.to_lowercase().replace('-', "_"));
        let allowed = wrong.chars().count().max(candidate.chars().count()).div_ceil(3);
        if distance <= allowed && best.is_none_or(|(nearest, _)| distance < nearest) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// The user's text between backquotes, shortened.
pub(super) fn quoted(text: &str) -> String {
    if text.chars().nth(QUOTED_CHARS_MAX).is_none() {
        return format!("`{text}`");
    }
    let start: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    format!("`{start}…`")
}

/// The hint for a name that is not among `known`: the near one, or all of them.
pub(super) fn hint_known(wrong: &str, known: &[&str], what: &str) -> Option<String> {
    if let Some(near) = suggest(wrong, known.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    if known.is_empty() {
        return None;
    }
    let list: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    Some(format!("{what}: {}", list.join(", ")))
}

/// Gathers problems, each once, up to a limit.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    seen: HashSet<(Place, String)>,
    more: Option<Place>,
}

impl Problems {
    /// Adds a problem. An alias leads to the same place more than once: a repetition is dropped.
    pub(super) fn push(&mut self, problem: Problem) {
        if self.is_full() {
            self.more.get_or_insert(problem.place);
        } else if self.seen.insert((problem.place, problem.message.clone())) {
            self.list.push(problem);
        }
    }

    /// Marks the list as cut short at `place`.
    pub(super) fn cut(&mut self, place: Place) {
        self.more.get_or_insert(place);
    }

    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= PROBLEMS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `value` when there was no problem, else all problems in the order of the file.
    pub(super) fn finish<T>(mut self, value: T) -> Result<T, Vec<Problem>> {
        if self.is_empty() && self.more.is_none() {
            return Ok(value);
        }
        self.list.sort_by_key(|problem| problem.place);
        // Problems are shown with their lines: what one of them hides, another on the same line must not show.
        let line = |problem: &Problem| (problem.place.file, problem.place.line);
        let hidden: HashSet<_> = self.list.iter().filter(|problem| problem.hides_values).map(line).collect();
        self.list.iter_mut().for_each(|problem| problem.hides_values = hidden.contains(&line(problem)));
        if let Some(place) = self.more {
            self.list.push(Problem::new(place, "there may be more problems").with_hint("mend those above first"));
        }
        Err(self.list)
    }
}
