//! What unit tests of handlers share.

use std::sync::Arc;

use super::Settings;
use crate::contract::testing::{node, outcome};
use crate::contract::{AnyHandler, Compiler, Handler, Known};
use crate::yaml::Place;

fn build<S: Settings>(text: &str) -> Result<AnyHandler, Vec<String>> {
    let mut compiler = Compiler::at(Place::UNKNOWN, String::new(), &Known::default());
    let built = super::build::<S>(&node(text), &mut compiler);
    outcome(built, compiler)
}

pub fn handler<S: Settings>(text: &str) -> Arc<dyn Handler> {
    match build::<S>(text) {
        Ok(AnyHandler::Sync(handler)) => handler,
        Ok(AnyHandler::Async(_)) => panic!("{} is an async handler", S::NAME),
        Err(problems) => panic!("{problems:#?}"),
    }
}

/// The problems of settings that must not be accepted, in one text.
pub fn refused<S: Settings>(text: &str) -> String {
    match build::<S>(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(problems) => problems.join("\n"),
    }
}
