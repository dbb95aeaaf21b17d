//! What every test stands on: a gateway, upstreams that record, clients that say exactly what they are told to.

mod admin;
mod client;
mod disk;
mod folder;
mod gateway;
mod h2c;
mod pebble;
mod redis;
mod tls;
mod tls_service;
mod upstream;
mod wire;

use std::io::Write as _;
use std::time::Duration;

pub use client::{Client, Response};
pub use disk::Disk;
pub use folder::Folder;
pub use gateway::Gateway;
pub use h2c::{H2Client, H2Response};
pub use pebble::{Pebble, Site};
pub use redis::RedisServer;
pub use tls::{Authority, Pair, TlsClient, plain, self_signed};
pub use tls_service::{Shows, TlsService};
pub use upstream::{Conn, Request, Upstream, answer};
pub use wire::{Broken, Framing};

/// How long an event may take that has to come: generous, as machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Awaits what has to come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Says what is not tested on this machine, and why, also where a test passes without it.
pub fn left_out(what: &str) {
    // Not by a macro: what those print is held back until a test fails.
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {what}");
}

/// Configuration that sends everything to one upstream.
pub fn all_to(upstream: &Upstream) -> String {
    routed(upstream, "")
}

/// The same, with more keys in the upstream: `timeouts: { idle: 1s }`.
pub fn routed(upstream: &Upstream, keys: &str) -> String {
    let address = upstream.address;
    format!(
        "upstreams:\n  main: {{ targets: [{{ address: \"{address}\" }}]{}{keys} }}\n\
         routes:\n  - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n",
        if keys.is_empty() { "" } else { ", " }
    )
}

/// A body in chunks of this size (RFC 9112 §7.1).
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Bytes that do not repeat in any obvious way.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
