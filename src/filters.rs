//! The registry of filters: a table anyone can read.
//!
//! A filter is one file in `filters/`: reference page, settings, behaviour, tests. Adding one takes that file and two lines
//! here: its `mod` and its row.

mod allow_ips;
mod auth;
mod concurrency;
mod cors;
mod fault;
mod grpc_web;
mod headers;
mod plugin;
mod quota;
mod rate_limit;
mod require;
mod rewrite;
mod security_headers;
pub mod validate;
pub mod webhook;

use crate::contract::Entry;

/// Every filter, by the name it has in YAML.
#[rustfmt::skip]
pub static FILTERS: &[Entry] = &[
    Entry::of::<allow_ips::AllowIpsSettings>(),
    Entry::of::<auth::AuthSettings>(),
    Entry::of::<concurrency::ConcurrencySettings>(),
    Entry::of::<cors::CorsSettings>(),
    Entry::of::<fault::FaultSettings>(),
    Entry::of::<grpc_web::GrpcWebSettings>(),
    Entry::of::<headers::HeadersSettings>(),
    Entry::of::<plugin::PluginSettings>(),
    Entry::of::<quota::QuotaSettings>(),
    Entry::of::<rate_limit::RateLimitSettings>(),
    Entry::of::<require::RequireSettings>(),
    Entry::of::<rewrite::RewriteSettings>(),
    Entry::of::<security_headers::SecurityHeadersSettings>(),
    Entry::of::<validate::ValidateSettings>(),
    Entry::of::<webhook::WebhookSettings>(),
];

/// The names of all filters.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    FILTERS.iter().map(|entry| entry.name)
}
