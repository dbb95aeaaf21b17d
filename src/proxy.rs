//! The engine: the only code that knows Pingora's sessions and headers.
//!
//! A connection is driven by [`connection`] over an [`edge`] stream; each request on it passes through [`phases`], which pins
//! the snapshot, walks the chain, and forwards or answers. Filters never notice which engine runs them.

mod accompanied;
mod accompany;
mod admit;
mod alarm;
mod announce;
mod answer;
mod attempt;
mod audit;
mod circuit;
mod connection;
mod decide;
mod direct;
mod edge;
mod exchange;
mod failure;
mod finished;
mod gather;
mod grpc;
mod heads;
mod held;
mod memory;
mod mirrored;
mod pace;
mod peer;
mod phases;
mod redirected;
mod report;
mod retry;
mod roots;
mod secured;
mod sent;
mod shed;
mod socket;
mod sound;
mod target;
mod tenure;
mod unprocessed;
mod upload;
mod validated;
mod webhooks;
mod written;

pub use connection::{Arrival, Engine, EngineOptions, unread_reply};
pub use memory::body_memory;
