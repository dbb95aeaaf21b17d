//! Sources as text, with what is no code blanked out.

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file.
pub struct Source {
    /// Relative to the repository.
    pub path: String,
    pub text: String,
    /// The text without comments, literals and what is compiled for tests only; line breaks stay.
    pub code: String,
    /// `["filters", "cors", "origin"]`
    pub module: Vec<String>,
    /// The file is compiled for tests only.
    pub is_test: bool,
    /// Like `code`, with the tests.
    whole: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under a folder.
pub fn sources(folder: &str) -> Vec<Source> {
    let mut files = Vec::new();
    walk(&root().join(folder), &mut files);
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    let mut sources: Vec<Source> = files.iter().map(|file| Source::read(file)).collect();
    // Modules that are declared for tests only, and everything inside them.
    let mut tests: Vec<Vec<String>> = Vec::new();
    for source in &sources {
        for name in test_modules(&source.whole) {
            let mut module = source.module.clone();
            if module == ["lib"] {
                module.clear();
            }
            module.push(name);
            tests.push(module);
        }
    }
    for source in &mut sources {
        source.is_test = tests.iter().any(|test| source.module.starts_with(test));
    }
    assert!(!sources.is_empty() || !root().join(folder).exists(), "{folder} has sources");
    sources
}

/// Every file that people wrote, by its path.
pub fn all_text() -> Vec<(String, String)> {
    let mut files = Vec::new();
    walk(root(), &mut files);
    let relative = |file: &Path| file.strip_prefix(root()).unwrap().display().to_string();
    files.into_iter().filter_map(|file| Some((relative(&file), fs::read_to_string(&file).ok()?))).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Nobody wrote what is in these.
        if ["target", ".git", "corpus", "artifacts"].contains(&&*name) {
            continue;
        }
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}

impl Source {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap();
        let whole = blank(&text);
        let path = file.strip_prefix(root()).unwrap();
        let module = path.with_extension("").iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect();
        Self { path: path.display().to_string(), code: without_tests(&whole), text, module, is_test: false, whole }
    }

    /// The code, line by line, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Paths that begin at the crate or at a parent, resolved: each with its line.
    pub fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let mut paths = Vec::new();
        for (number, line) in self.lines() {
            let mut from = 0;
            while let Some(at) = ["crate::", "super::"].iter().filter_map(|start| line[from..].find(start)).min() {
                let start = from + at;
                let end = line[start..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
                let end = end.map_or(line.len(), |end| start + end);
                let inner = line[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
                if !inner {
                    paths.extend(self.resolve(&line[start..end], &line[end..]).into_iter().map(|path| (number, path)));
                }
                from = end;
            }
        }
        paths
    }

    /// `super::{a, b::c}` is two paths; only one level of braces on the same line is looked into.
    fn resolve(&self, path: &str, after: &str) -> Vec<Vec<String>> {
        let mut base = self.module.clone();
        let mut parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
        if parts.first() == Some(&"crate") {
            base.clear();
            parts.remove(0);
        }
        while parts.first() == Some(&"super") {
            base.pop();
            parts.remove(0);
        }
        base.extend(parts.iter().map(|part| (*part).to_owned()));
        let group = after.strip_prefix('{').map(|group| group.split('}').next().unwrap_or_default());
        match group {
            Some(group) => {
                let names = group.split(',').map(|name| name.trim().split("::").next().unwrap_or_default().to_owned());
                names.map(|name| base.iter().cloned().chain([name]).collect()).collect()
            }
            None if base.is_empty() => Vec::new(),
            None => vec![base],
        }
    }

    /// Functions with a body, those of tests included: name, first line, number of lines.
    pub fn functions(&self) -> Vec<(String, usize, usize)> {
        let mut functions = Vec::new();
        for (at, _) in self.whole.match_indices("fn ") {
            let is_word = !self.whole[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let name: String = self.whole[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(open) = self.whole[at..].find(['{', ';']) else { continue };
            if !is_word || name.is_empty() || self.whole[at + open..].starts_with(';') {
                continue;
            }
            let end = block_end(&self.whole, at + open, ('{', '}'));
            let first = self.whole[..at].matches('\n').count() + 1;
            functions.push((name, first, self.whole[at..end].matches('\n').count() + 1));
        }
        functions
    }
}

/// Where the block ends that begins at `open`.
pub fn block_end(code: &str, open: usize, (begin, end): (char, char)) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[open..].char_indices() {
        if c == begin {
            depth += 1;
        } else if c == end {
            depth -= 1;
            if depth == 0 {
                return open + at + 1;
            }
        }
    }
    code.len()
}

const TEST: &str = "#[cfg(test)]";

/// Names of modules in files of their own that are compiled for tests only.
fn test_modules(code: &str) -> Vec<String> {
    let declarations = code.match_indices(TEST).filter_map(|(at, _)| {
        let declaration = code[at + TEST.len()..].split([';', '{']).next()?;
        let is_file = code[at + TEST.len() + declaration.len()..].starts_with(';');
        let name = declaration.split("mod ").nth(1)?.trim();
        is_file.then(|| name.to_owned())
    });
    declarations.collect()
}

fn without_tests(code: &str) -> String {
    let mut rest = code;
    let mut left = String::with_capacity(code.len());
    while let Some(at) = rest.find(TEST) {
        left.push_str(&rest[..at]);
        let end = match rest[at..].find([';', '{']) {
            Some(open) if rest[at + open..].starts_with('{') => block_end(rest, at + open, ('{', '}')),
            Some(end) => at + end + 1,
            None => rest.len(),
        };
        left.extend(rest[at..end].chars().filter(|c| *c == '\n'));
        rest = &rest[end..];
    }
    left.push_str(rest);
    left
}

/// Blanks out comments, strings and characters.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let skip = literal(rest, code.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        if skip > 0 {
            code.extend(rest[..skip].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[skip..];
        } else {
            let c = rest.chars().next().unwrap();
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

/// How long the comment or literal is that begins here; 0 when none does.
fn literal(rest: &str, in_word: bool) -> usize {
    let quoted = |open: usize, quote: char| {
        let mut escaped = false;
        let end = rest[open..].char_indices().find(|(_, c)| {
            let ends = *c == quote && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        end.map_or(rest.len(), |(at, c)| open + at + c.len_utf8())
    };
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    if !in_word && let Some(raw) = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r')) {
        let hashes = raw.chars().take_while(|c| *c == '#').count();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = rest.len() - raw.len() + hashes + 1;
            return rest[body..].find(&close).map_or(rest.len(), |end| body + end + close.len());
        }
    }
    if rest.starts_with('"') {
        return quoted(1, '"');
    }
    if let Some(inner) = rest.strip_prefix('\'') {
        // A lifetime has no closing quote behind its first character.
        let mut chars = inner.chars();
        let (first, second) = (chars.next(), chars.next());
        if first == Some('\\') || second == Some('\'') {
            return quoted(1, '\'');
        }
    }
    0
}

/// Links of a Markdown text that lead to files: each with its line.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split([')', ' ', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') {
                links.push((number + 1, target.to_owned()));
            }
        }
    }
    links
}

#[test]
fn what_is_no_code_is_blanked_out() {
    let text = "let a = \"fn { \\\" //\"; // x {\nlet b = r#\"\" {\"#; let c = '{'; let d: &'a str = b'}'; /* { */ e";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    assert!(!code.contains('{') && !code.contains('}') && code.contains("&'a str") && code.ends_with(" e"), "{code}");
    let tested = "a\n#[cfg(test)]\nmod tests {\n  fn b() { }\n}\nc\n#[cfg(test)]\nmod more;\nd";
    assert_eq!(without_tests(tested), "a\n\n\n\n\nc\n\n\nd");
    assert_eq!(test_modules(tested), ["more"]);
}
