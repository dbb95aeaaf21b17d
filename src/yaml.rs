//! Configuration text into typed values, with every mistake reported at its place.
//!
//! Four steps, each of which returns *all* problems it finds:
//!
//! 1. [`parse`]: the text of one file becomes a tree of [`Node`]s that know where they stand.
//! 2. [`interpolate`]: `${NAME}`, `${NAME:-default}` and `${file:path}` in values are replaced.
//! 3. [`decode`]: the tree becomes a `T: Deserialize`; unknown keys, missing keys and wrong values are collected.
//! 4. [`Sources::render`]: a [`Problem`] is shown with its line, a caret and a hint.
//!
//! Nothing is coerced: `yes` is a string, `30` is not a string, a single value is not a list.
//!
//! A value that was substituted never appears in a message: the message names the reference instead. A rendered
//! line hides what stands under a key that looks like a credential.
//!
//! What settings types should know: enums are externally tagged (`name` or `{ name: settings }`); `#[serde(flatten)]`,
//! `untagged` and internally tagged enums lose places and the check for unknown keys, and must not hold
//! [`Located`] or [`Node`]. `deny_unknown_fields` is not needed. A setting that has more than one form keeps its [`Node`]
//! (`#[serde(transparent)]`) and reads it later; an inlined enum that is never built describes the forms for the schema
//! (`#[schemars(with = "Form")]`).

mod access;
mod decode;
mod failure;
mod interpolate;
mod located;
mod named;
mod node;
mod parse;
mod problem;
mod render;
mod stand_in;

pub use decode::decode;
pub use interpolate::{Lookup, interpolate};
pub use located::{Located, Rest};
pub use named::Named;
pub use node::{Entry, Key, Kind, Node, Text};
pub use parse::parse;
pub use problem::{FileId, Place, Problem, Related, Report, suggest};
pub use render::Sources;

#[cfg(test)]
mod tests;
