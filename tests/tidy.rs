//! Taste, kept by a test: what a reviewer would otherwise have to say twice.
//!
//! Reads the sources as text: rustfmt'd code with comments and literals blanked out. It understands no macros and needs
//! no compiler, so it runs in no time and its rules can be read here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that meets something unexpected has to fail"
)]

#[path = "tidy/source.rs"]
mod source;

use std::path::Path;

use source::{Source, all_text, block_end, links, root, sources};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// Folders whose modules do not know each other.
const FOLDERS_OF_STRANGERS: [&str; 4] = ["filters", "handlers", "cli", "observe"];

fn report(what: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{what}:\n  {}", problems.join("\n  "));
}

/// The layers, top to bottom, as `src/lib.rs` lists them.
fn layers(sources: &[Source]) -> Vec<String> {
    let lib = sources.iter().find(|source| source.path == "src/lib.rs").expect("src/lib.rs");
    let names = lib.code.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let layers: Vec<String> = names.map(str::to_owned).collect();
    assert!(layers.len() > 10, "src/lib.rs lists the modules: {layers:?}");
    layers
}

#[test]
fn imports_point_downward() {
    let sources = sources("src");
    let layers = layers(&sources);
    let rank = |name: &str| layers.iter().position(|layer| layer == name);
    let mut problems = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test) {
        let Some(own) = rank(&source.module[0]) else { continue };
        for (line, path) in source.paths() {
            let Some(other) = rank(&path[0]) else { continue };
            if other < own {
                problems.push(format!("{}:{line}: {} imports from {} above it", source.path, layers[own], path[0]));
            }
        }
    }
    report("imports that point upward", &problems);
}

#[test]
fn siblings_do_not_know_each_other() {
    let sources = sources("src");
    let mut problems = Vec::new();
    for folder in FOLDERS_OF_STRANGERS {
        let own = |source: &&Source| source.module[0] == folder && source.module.len() > 1 && !source.is_test;
        let names: Vec<&String> = sources.iter().filter(own).map(|source| &source.module[1]).collect();
        assert!(!names.is_empty(), "src/{folder}/ has modules");
        for source in sources.iter().filter(own) {
            for (line, path) in source.paths() {
                if let [first, second, ..] = path.as_slice()
                    && first == folder
                    && *second != source.module[1]
                    && names.contains(&second)
                {
                    problems.push(format!("{}:{line}: imports from its sibling {second}", source.path));
                }
            }
        }
    }
    report("imports that point sideways", &problems);
}

#[test]
fn files_and_functions_are_short() {
    let mut problems = Vec::new();
    for source in sources("src") {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            problems.push(format!("{}: {lines} lines, more than {FILE_LINES_MAX}", source.path));
        }
        for (name, line, length) in source.functions() {
            if length > FUNCTION_LINES_MAX {
                problems.push(format!(
                    "{}:{line}: `{name}` has {length} lines, more than {FUNCTION_LINES_MAX}",
                    source.path
                ));
            }
        }
    }
    report("too long", &problems);
}

#[test]
fn only_the_engine_knows_pingora() {
    let mut problems = Vec::new();
    for source in sources("src") {
        let layer = source.module[0].as_str();
        for (number, line) in source.lines() {
            if line.contains("pingora") && layer != "proxy" && layer != "server" {
                problems.push(format!("{}:{number}: names pingora", source.path));
            }
            if line.contains("HeaderMap") && layer != "proxy" && layer != "wire" {
                problems.push(format!("{}:{number}: names a header map", source.path));
            }
        }
    }
    report("below the engine nobody knows what it is made of", &problems);
}

#[test]
fn filters_and_handlers_have_a_row_and_a_page() {
    let sources = sources("src");
    let mut problems = Vec::new();
    for folder in ["filters", "handlers"] {
        let registry = sources.iter().find(|source| source.path == format!("src/{folder}.rs")).expect("a registry");
        for source in sources.iter().filter(|source| source.module.len() == 2 && source.module[0] == folder) {
            let name = &source.module[1];
            if source.is_test {
                continue;
            }
            if !registry.code.contains(&format!("Entry::of::<{name}::")) {
                problems.push(format!("{}: has no row in src/{folder}.rs", source.path));
            }
            let page: Vec<&str> = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
            if !page.iter().any(|line| line.starts_with(&format!("//! `{name}`"))) {
                problems.push(format!("{}: does not begin with a page on `{name}`", source.path));
            }
            if !page.contains(&"//! ```yaml") {
                problems.push(format!("{}: its page has no runnable example", source.path));
            }
        }
    }
    report("not in the table or not explained", &problems);
}

#[test]
fn nothing_unwraps() {
    let mut problems = Vec::new();
    for source in sources("src").iter().filter(|source| !source.is_test) {
        for (number, line) in source.lines() {
            if line.contains(".unwrap()") || line.contains(".expect(") {
                problems.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    report("a request or a file must not be able to end the process", &problems);
}

#[test]
fn names_say_what_is_inside() {
    let banned = ["mod", "util", "utils", "helper", "helpers", "manager", "common", "misc"];
    let named = |path: &str| banned.contains(&Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or(""));
    let problems: Vec<String> = ["src", "tests", "examples", "benches"]
        .into_iter()
        .flat_map(sources)
        .filter(|source| named(&source.path))
        .map(|source| source.path)
        .collect();
    report("names that say nothing", &problems);
}

#[test]
fn every_exception_has_a_reason() {
    let mut problems = Vec::new();
    for source in ["src", "tests", "examples", "benches"].into_iter().flat_map(sources) {
        let mut from = 0;
        while let Some(at) = source.code[from..].find("[allow(").or_else(|| source.code[from..].find("[expect(")) {
            let start = from + at;
            let open = start + source.code[start..].find('(').unwrap();
            let end = block_end(&source.code, open, ('(', ')'));
            if !source.code[start..end].contains("reason") {
                let line = source.code[..start].lines().count();
                problems.push(format!("{}:{line}: {}", source.path, &source.code[start..end]));
            }
            from = end;
        }
    }
    report("lints that are switched off without a reason", &problems);
}

#[test]
fn links_lead_somewhere() {
    let mut problems = Vec::new();
    for (path, text) in all_text().iter().filter(|(path, _)| path.ends_with(".md")) {
        let folder = root().join(path).parent().unwrap().to_owned();
        for (line, target) in links(text) {
            if !folder.join(&target).exists() {
                problems.push(format!("{path}:{line}: {target}"));
            }
        }
    }
    report("links to files that are not there", &problems);
}

#[test]
fn the_project_speaks_of_itself_only() {
    // In two pieces, so that this file does not hold it.
    let foreign = ["/wo", "rk/"].concat();
    let mut problems = Vec::new();
    for (path, text) in all_text() {
        for (number, line) in text.lines().enumerate() {
            if line.contains(&foreign) {
                problems.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    report("paths of somebody's machine", &problems);
}
