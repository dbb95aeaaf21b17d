//! What unit tests of handlers share.

use std::sync::Arc;

use super::Settings;
use crate::contract::testing::{node, outcome};
use crate::contract::{Compiler, Handler};
use crate::yaml::Place;

fn build<S: Settings>(text: &str) -> Result<Arc<dyn Handler>, Vec<String>> {
    let mut compiler = Compiler::at(Place::UNKNOWN);
    let built = super::build::<S>(&node(text), &mut compiler);
    outcome(built, compiler)
}

pub fn handler<S: Settings>(text: &str) -> Arc<dyn Handler> {
    build::<S>(text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// The problems of settings that must not be accepted, in one text.
pub fn refused<S: Settings>(text: &str) -> String {
    match build::<S>(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(problems) => problems.join("\n"),
    }
}
