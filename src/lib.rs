//! Tollgate: the front door for existing microservices.
//!
//! Modules are listed from the top layer to the bottom one. A module imports only from modules listed below
//! it; `tests/tidy.rs` keeps it so and `docs/architecture.md` explains the map.
#![forbid(unsafe_code)]

pub mod cli;
pub mod server;

pub mod admin;
pub mod proxy;

pub mod delivery;

pub mod live;

pub mod gateway;

pub mod route;

pub mod handlers;

pub mod upstream;

pub mod acme;

pub mod config;

pub mod filters;

pub mod chain;

pub mod contract;

pub mod identity;

pub mod limits;

pub mod overload;

pub mod replay;

pub mod inbox;

pub mod state;

pub mod buckets;

#[cfg(feature = "plugins")]
pub mod wasm;

pub mod client;

pub mod sources;

pub mod observe;

pub mod lines;

pub mod template;

pub mod reply;

pub mod context;

pub mod caller;

pub mod rates;

pub mod head;

pub mod json;

pub mod proxy_protocol;

pub mod stream;

pub mod wire;

pub mod yaml;

pub mod types;

pub mod clock;
