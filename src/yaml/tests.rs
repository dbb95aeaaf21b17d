//! From text to values and messages, as the layers above see it.

mod decode;
mod interpolate;
mod parse;
mod render;

use super::*;
use serde::de::DeserializeOwned;
use std::collections::HashMap;

fn sources(text: &str) -> (Sources, FileId) {
    let mut sources = Sources::new();
    let file = sources.add("gateway.yaml", text);
    (sources, file)
}

fn tree(text: &str) -> Node {
    let (sources, file) = sources(text);
    parse(&sources, file).unwrap()
}

/// `line:column message | hint` of every problem.
fn brief(problems: &[Problem]) -> Vec<String> {
    let one = |problem: &Problem| {
        let hint = problem.hint.as_ref().map(|hint| format!(" | {hint}")).unwrap_or_default();
        format!("{}:{} {}{hint}", problem.place.line, problem.place.column, problem.message)
    };
    problems.iter().map(one).collect()
}

fn parse_problems(text: &str) -> Vec<String> {
    let (sources, file) = sources(text);
    brief(&parse(&sources, file).unwrap_err())
}

fn decoded<T: DeserializeOwned>(text: &str) -> T {
    decode(&tree(text)).unwrap()
}

fn decode_problems<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> Vec<String> {
    brief(&decode::<T>(&tree(text)).unwrap_err())
}

/// Variables and files of a test.
#[derive(Default)]
struct Known {
    env: HashMap<&'static str, &'static str>,
    files: HashMap<&'static str, &'static str>,
}

impl Lookup for Known {
    fn random(&self, name: &str) -> Result<String, String> {
        Ok(format!("random-{name}"))
    }

    fn env(&self, name: &str) -> Option<String> {
        self.env.get(name).map(|&value| value.to_owned())
    }

    fn file(&self, path: &str, _: FileId) -> Result<String, String> {
        self.files.get(path).map(|&value| value.to_owned()).ok_or_else(|| "no such file".to_owned())
    }
}

fn known(env: &[(&'static str, &'static str)]) -> Known {
    Known { env: env.iter().copied().collect(), files: HashMap::new() }
}
