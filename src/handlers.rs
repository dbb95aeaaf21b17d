//! The registry of handlers: what answers a route. A table anyone can read.
//!
//! A handler is one file in `handlers/`: reference page, settings, behaviour, tests. Adding one takes that file and two lines
//! here: its `mod` and its row. `upstream: NAME` is the handler that forwards, and the only one that is not in the table.

mod api_keys;
mod health;
mod inbox;
mod login;
mod logout;
mod redirect;
mod refresh;
mod respond;

use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use crate::contract::{AnyHandler, AsyncHandler, Compiler, Handler};
use crate::upstream::Slot;
use crate::upstream::split::Split;
use crate::yaml::Node;

/// Every handler that answers itself, by the name it has in YAML.
#[rustfmt::skip]
pub static HANDLERS: &[Entry] = &[
    Entry::of::<api_keys::ApiKeysSettings>(),
    Entry::of::<health::HealthSettings>(),
    Entry::of::<inbox::InboxSettings>(),
    Entry::of::<login::LoginSettings>(),
    Entry::of::<logout::LogoutSettings>(),
    Entry::of::<redirect::RedirectSettings>(),
    Entry::of::<refresh::RefreshSettings>(),
    Entry::of::<respond::RespondSettings>(),
];

/// What answers a route.
#[derive(Clone)]
pub enum Action {
    Forward(Arc<Slot>),
    /// Each request to one of several.
    Split(Arc<Split>),
    Answer(Arc<dyn Handler>),
    /// Takes the body, or waits for its answer.
    Await(Arc<dyn AsyncHandler>),
}

impl Action {
    /// How long the upstream gives its targets to begin an answer.
    pub fn first_byte(&self) -> Option<Duration> {
        match self {
            Self::Forward(upstream) => upstream.load().timeouts.first_byte,
            Self::Split(split) => split.first_byte(),
            Self::Answer(_) | Self::Await(_) => None,
        }
    }
}

impl From<AnyHandler> for Action {
    fn from(handler: AnyHandler) -> Self {
        match handler {
            AnyHandler::Sync(handler) => Self::Answer(handler),
            AnyHandler::Async(handler) => Self::Await(handler),
        }
    }
}

/// The settings of a handler as they stand in YAML.
pub trait Settings: DeserializeOwned + JsonSchema {
    /// The key in YAML.
    const NAME: &'static str;
    /// One line for the table of handlers.
    const SUMMARY: &'static str;

    /// Builds the handler, or reports to `compiler` why that cannot be.
    fn build(self, compiler: &mut Compiler) -> Option<AnyHandler>;
}

/// A row of the registry.
pub struct Entry {
    pub name: &'static str,
    pub summary: &'static str,
    pub build: fn(&Node, &mut Compiler) -> Option<AnyHandler>,
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

impl Entry {
    pub const fn of<S: Settings>() -> Self {
        Self { name: S::NAME, summary: S::SUMMARY, build: build::<S>, schema: |generator| S::json_schema(generator) }
    }
}

fn build<S: Settings>(node: &Node, compiler: &mut Compiler) -> Option<AnyHandler> {
    compiler.settings::<S>(node)?.build(compiler)
}

/// The names of all handlers.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    HANDLERS.iter().map(|entry| entry.name).chain(["upstream"])
}

#[cfg(test)]
mod testing;
