//! Runs plugins: WebAssembly that speaks the proxy-wasm ABI, 0.2.0 and 0.2.1.
//!
//! Source: [Proxy-Wasm ABI 0.2.1](https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1). What a plugin may ask for is
//! in [`calls`], a file for each section of it. Nothing a plugin does reaches further than its own memory, the exchange it is
//! called for and what the host functions give it; it is ended when it runs too long or takes too much memory.

pub mod call;
mod calls;
mod engine;
pub mod exchange;
mod host;
pub mod instance;
mod kept;
pub mod mailbox;
mod named;
pub mod pairs;
pub mod plugin;
pub mod plugins;
pub mod program;
pub mod record;
mod shared;
pub mod status;
mod stock;
pub mod stream;
mod timers;

#[cfg(test)]
mod tests;
