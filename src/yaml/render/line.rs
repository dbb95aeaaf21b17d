//! One line of a file, fit to be shown: credentials hidden, control characters escaped, cropped round the caret.

use super::Place;
use crate::types::names_credential;

/// Longer lines are cropped, in columns of a terminal.
const COLUMNS_MAX: usize = 160;
/// What stays before the caret of a cropped line.
const COLUMNS_BEFORE: usize = 70;
/// Ancestors of a line are looked for this far up.
const LINES_UP_MAX: usize = 10_000;

pub(super) struct Shown {
    pub(super) text: String,
    /// Columns before the caret.
    pub(super) caret_column: usize,
    pub(super) caret_width: usize,
}

/// The line at `place`, or nothing when the text has no such line or nothing is on it. With `hides_values`, no value is
/// shown.
pub(super) fn show(text: &str, place: Place, hides_values: bool) -> Option<Shown> {
    let index = usize::try_from(place.line).ok()?.checked_sub(1)?;
    let lines: Vec<&str> = lines(text).take(index.saturating_add(1)).collect();
    let (line, above) = lines.split_last().filter(|_| lines.len() > index)?;
    if line.trim().is_empty() {
        return None;
    }
    let hides = match under_credential(line, above) {
        Hidden::Credentials if hides_values => Hidden::Values,
        hides => hides,
    };
    let cells = cells(line, hides);
    let at = usize::try_from(place.column).ok()?.saturating_sub(1);
    let length = token_length(line, at);
    Some(crop(&cells, at.min(cells.len()), length))
}

/// The line at `place` as it is written.
pub(super) fn at(text: &str, place: Place) -> Option<&str> {
    lines(text).nth(usize::try_from(place.line).ok()?.checked_sub(1)?)
}

/// The lines as YAML counts them: LF, CR LF and CR end a line.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// A text with everything escaped that a terminal might act upon or not show.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(printable_char).collect()
}

fn printable_char(c: char) -> String {
    let invisible = matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}');
    if c.is_control() || invisible { c.escape_unicode().to_string() } else { c.to_string() }
}

/// How many characters the thing at `at` has: what the caret underlines.
fn token_length(line: &str, at: usize) -> usize {
    let mut chars = line.chars().skip(at).peekable();
    let quote = chars.next_if(|c| matches!(c, '"' | '\''));
    let mut length = usize::from(quote.is_some());
    let mut braces = 0_usize;
    while let Some(c) = chars.next() {
        match quote {
            Some(quote) if c == quote => return length.saturating_add(1),
            Some(_) => {}
            None => {
                let ends_key = c == ':' && chars.peek().is_none_or(|next| next.is_whitespace());
                // A reference keeps its braces.
                braces = if c == '{' { braces.saturating_add(1) } else { braces };
                let closes = c == '}' && braces == 0;
                if c.is_whitespace() || matches!(c, ',' | ']') || closes || ends_key {
                    break;
                }
                braces = if c == '}' { braces.saturating_sub(1) } else { braces };
            }
        }
        length = length.saturating_add(1);
    }
    length.max(1)
}

fn indent(line: &str) -> usize {
    line.chars().take_while(|c| *c == ' ').count()
}

/// The key that a line starts with, list dashes left out.
fn first_key(line: &str) -> Option<&str> {
    let line = line.trim_start_matches([' ', '-', '?', '{', '[']);
    let end = line.find(": ").or_else(|| line.strip_suffix(':').map(str::len))?;
    line.get(..end)
}

/// What of a line is hidden.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hidden {
    /// Values of credentials that are named on the line.
    Credentials,
    /// All values.
    Values,
    /// All text: nothing here is surely a key.
    All,
}

/// What to hide of a line below a key that looks like a credential, judged by indentation: this must work for text
/// that is not valid YAML too.
fn under_credential(line: &str, above: &[&str]) -> Hidden {
    let mut level = indent(line);
    // An element may stand at the indentation of its list's key.
    let mut loose = line.trim_start().starts_with('-') || first_key(line).is_none();
    let mut hides = None;
    for line in above.iter().rev().take(LINES_UP_MAX) {
        let text = line.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let here = indent(line);
        let dash = text.starts_with('-');
        if dash && here < level && level == content_column(line) {
            // The line before in the same list element: no ancestor, but the element's start.
            (level, loose) = (here, true);
            continue;
        }
        if here > level || (here == level && (!loose || dash)) {
            continue;
        }
        // Below `key: text` or `key: |` there is only more text.
        let structured = line.trim_end().ends_with([':', '{', '[', ',', '-']);
        let hides = *hides.get_or_insert(if structured { Hidden::Values } else { Hidden::All });
        if keys(line).into_iter().any(names_credential) {
            return hides;
        }
        (level, loose) = (here, dash);
        if level == 0 && !loose {
            break;
        }
    }
    Hidden::Credentials
}

/// Where the first key of a list element stands.
fn content_column(line: &str) -> usize {
    line.chars().take_while(|c| matches!(c, ' ' | '-')).count()
}

/// All keys of a line.
fn keys(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find(':') {
        let (head, tail) = rest.split_at(at);
        let key = head.rsplit([' ', '{', '[', ',']).next().unwrap_or(head);
        found.push(key);
        rest = tail.get(1..).unwrap_or_default();
    }
    found
}

/// One text per character of the line: itself, escaped, or hidden.
fn cells(line: &str, hides: Hidden) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    let mut cells = Vec::with_capacity(chars.len());
    let mut hidden = hides != Hidden::Credentials;
    // Depth at which the key stands that made values hidden; 0 lasts to the end of the line.
    let mut since = 0_usize;
    let mut depth = 0_usize;
    // A word before a colon is a key, but not where a value stands: that may hold a colon.
    let mut in_value = hides == Hidden::All;
    let mut rest: &[char] = &chars;
    while let Some(first) = rest.first() {
        let comment = *first == '#' && chars.get(cells.len().wrapping_sub(1)).is_none_or(|c| c.is_whitespace());
        let length = if comment { rest.len() } else { word_length(rest) };
        let (word, tail) = rest.split_at(length.min(rest.len()));
        rest = tail;
        let colon = matches!(tail, [':'] | [':', ' ' | '\t', ..]) || (tail.first() == Some(&':') && is_quoted(word));
        if length == 1 && is_punctuation(*first) {
            match first {
                '{' | '[' => depth = depth.saturating_add(1),
                '}' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if hidden && since > 0 && (depth < since || (*first == ',' && depth == since)) {
                (hidden, since) = (false, 0);
            }
            if matches!(first, '{' | '[' | ',') {
                in_value = hides == Hidden::All;
            }
            cells.push(shown_char(*first));
        } else if colon && !(hidden && in_value) {
            cells.extend(word.iter().chain([&':']).copied().map(shown_char));
            rest = tail.get(1..).unwrap_or_default();
            in_value = true;
            if !hidden && names_credential(&word.iter().collect::<String>()) {
                (hidden, since) = (true, depth);
            }
        } else if hidden && !is_reference(word) {
            cells.push("…".to_owned());
            cells.resize(cells.len().saturating_add(word.len()).saturating_sub(1), String::new());
        } else {
            cells.extend(without_userinfo(word));
        }
    }
    cells
}

fn is_punctuation(c: char) -> bool {
    c.is_whitespace() || matches!(c, '{' | '}' | '[' | ']' | ',' | ':' | '-' | '?' | '|' | '>')
}

fn is_quoted(word: &[char]) -> bool {
    matches!(word, ['"', .., '"'] | ['\'', .., '\''])
}

/// Whether a value is a mere reference to the environment or a file, without a default: no secret.
fn is_reference(word: &[char]) -> bool {
    let text: String = word.iter().collect();
    let text = text.trim_matches(['"', '\'']);
    text.strip_prefix("${").and_then(|text| text.strip_suffix('}')).is_some_and(|inside| {
        !inside.contains(":-")
            && inside.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '/' | '.' | '-'))
    })
}

/// Length of the punctuation, quoted text or plain text that `chars` starts with.
fn word_length(chars: &[char]) -> usize {
    let Some(first) = chars.first() else { return 0 };
    if matches!(first, '"' | '\'') {
        let mut escaped = false;
        let end = chars.iter().skip(1).position(|c| {
            let closes = c == first && !escaped;
            escaped = *c == '\\' && !escaped && *first == '"';
            closes
        });
        return end.map_or(chars.len(), |end| end.saturating_add(2));
    }
    // An indicator only where a value may start and something follows that ends it.
    let alone = chars.get(1).is_none_or(|next| next.is_whitespace());
    if first.is_whitespace() || matches!(first, '{' | '}' | '[' | ']' | ',') {
        return 1;
    }
    if alone && is_punctuation(*first) {
        return 1;
    }
    let mut braces = 0_usize;
    let mut length = 0_usize;
    for (index, c) in chars.iter().enumerate() {
        let next = chars.get(index.saturating_add(1));
        let ends_key = *c == ':' && next.is_none_or(|next| next.is_whitespace()) && index > 0;
        let comment = *c == ' ' && next == Some(&'#');
        if ends_key || comment || (matches!(c, ',' | ']' | '}' | '[') && braces == 0) {
            break;
        }
        match c {
            '{' => braces = braces.saturating_add(1),
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
        length = index.saturating_add(1);
    }
    length.max(1)
}

/// The cells of a value that is shown, but for the user and password of a URL.
fn without_userinfo(word: &[char]) -> Vec<String> {
    let mut cells: Vec<String> = word.iter().copied().map(shown_char).collect();
    let start = word.windows(3).position(|three| three == [':', '/', '/']).map(|at| at.saturating_add(3));
    let end = word.iter().rposition(|c| *c == '@');
    if let (Some(start), Some(end)) = (start, end)
        && start < end
    {
        for (index, cell) in cells.iter_mut().enumerate().take(end).skip(start) {
            *cell = if index == start { "…".to_owned() } else { String::new() };
        }
    }
    cells
}

fn shown_char(c: char) -> String {
    if c == '\t' { "    ".to_owned() } else { printable_char(c) }
}

/// Puts the cells together, at most [`COLUMNS_MAX`] columns round the caret.
fn crop(cells: &[String], at: usize, length: usize) -> Shown {
    let (before, after) = cells.split_at(at.min(cells.len()));
    let caret: usize = after.iter().take(length).map(|cell| width(cell)).sum();
    let total: usize = cells.iter().map(|cell| width(cell)).sum();
    if total <= COLUMNS_MAX {
        let text = cells.concat().trim_end().to_owned();
        let column = before.iter().map(|cell| width(cell)).sum();
        return Shown { text, caret_column: column, caret_width: caret.max(1) };
    }
    let mut head: Vec<&str> = Vec::new();
    let mut column = 0_usize;
    for cell in before.iter().rev() {
        if column.saturating_add(width(cell)) > COLUMNS_BEFORE {
            head.push("…");
            column = column.saturating_add(1);
            break;
        }
        column = column.saturating_add(width(cell));
        head.push(cell);
    }
    head.reverse();
    let mut text = head.concat();
    let mut used = column;
    for cell in after {
        used = used.saturating_add(width(cell));
        if used >= COLUMNS_MAX {
            text.push('…');
            break;
        }
        text.push_str(cell);
    }
    let room = COLUMNS_MAX.saturating_sub(column);
    Shown { text: text.trim_end().to_owned(), caret_column: column, caret_width: caret.clamp(1, room.max(1)) }
}

/// Columns that a terminal takes for a text: two for East Asian wide characters and emoji, none for combining marks.
fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match u32::from(c) {
            0x300..=0x36f | 0xfe00..=0xfe0f => 0,
            0x1100..=0x115f
            | 0x2e80..=0xa4cf
            | 0xac00..=0xd7a3
            | 0xf900..=0xfaff
            | 0xfe30..=0xfe6f
            | 0xff00..=0xff60
            | 0xffe0..=0xffe6
            | 0x1f300..=0x1f64f
            | 0x1f680..=0x1f6ff
            | 0x1f900..=0x1f9ff
            | 0x20000..=0x3fffd => 2,
            _ => 1,
        })
        .sum()
}
