//! The gateway from outside: the real binary, real sockets, real signals.
//!
//! Every wait is for an event, bounded by [`harness::PATIENCE`]; the few that measure a deadline say so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that meets something unexpected has to fail"
)]
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]

mod harness;

mod acme;
mod admin_inboxes;
mod admin_limits;
mod auth;
mod balancing;
mod bodies;
mod breaker;
mod chaos_targets;
mod concurrency;
mod discovery;
mod engines;
mod gathered;
mod grpc;
mod h2spec;
mod headers;
mod health;
mod http2;
mod inbox;
mod inbox_chaos;
mod issuers;
mod keys;
mod limits;
mod malformed;
mod mirroring;
mod misbehaving;
mod observe;
mod overload;
#[cfg(feature = "plugins")]
mod plugins;
mod proxy_protocol;
mod proxying;
mod quota;
mod reload;
mod retries;
mod routing;
mod shared_limits;
mod shutdown;
mod slow_clients;
mod splits;
mod storm;
mod streaming;
mod tls;
mod token_service;
mod upgrade;
mod uploads;
mod upstream_tls;
mod upstreams;
mod validate;
mod webhook_guide;
mod webhook_sdks;
mod webhooks;
mod webhooks_once;
mod websocket;
