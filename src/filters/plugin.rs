//! `plugin`: a filter of your own, in WebAssembly.
//!
//! Runs filters that speak the [proxy-wasm ABI](https://github.com/proxy-wasm/spec), 0.2.0 and 0.2.1, as Envoy, Kong, APISIX and
//! Istio do: existing ones run unchanged. They see heads and bodies of both directions, may change them, answer in place of the
//! service, and call other services. How to write one: [Plugins](../docs/plugins.md).
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `file` | the `.wasm`, relative to `gateway.yaml`; a change in it is a reload | |
//! | `name` | its name in logs and metrics | name of the file |
//! | `config` | what the plugin is configured with: a text is handed over as it is, anything else as JSON | nothing |
//! | `vm_config` | the same for its virtual machine | nothing |
//! | `root_id` | which of the plugins in the file it is, where there are several | none |
//! | `on_failure` | when the plugin fails: `deny` refuses the request with 503 `PLUGIN_FAILED`, `skip` goes on without it | `deny` |
//! | `calls` | upstreams that it may send requests to, by name | none |
//! | `limits.memory` | memory of one instance, 1MiB to 1GiB | `32MiB` |
//! | `limits.time` | how long it may work for one call, 1ms to 1s; ended when it is over by the clock and the thread has worked for as long again | `5ms` |
//! | `limits.start` | how long an instance may take to start, 10ms to 1m | `1s` |
//! | `limits.held` | how long it may hold a request, 1ms to 5m | `30s` |
//! | `limits.body` | what it may hold back of a body, and make of it; at most 64MiB | `1MiB` |
//! | `limits.instances` | instances at once, 1 to 10000: each serves one request at a time | `1024` |
//!
//! Several plugins may stand in one chain, and one plugin in several. An instance serves one request from its head to the end
//! of its answer; when it fails (it runs too long, takes too much memory, runs into a mistake of its own), that request is what
//! it costs. Starts that fail are tried again less and less often, up to 30 seconds apart; of instances that fail behind their
//! start no more than 500 are replaced within a second.
//!
//! A plugin that pauses is waited for while a service that it has called has not answered, for `limits.held` at most; then it is
//! shown the whole body (at most `limits.body`), and waited for again. After that nothing can let the request go on, and it
//! counts as a failure.
//!
//! It can call the upstreams in `calls` and no others, 16 at once for each request. They are asked as any request asks them,
//! with their balancing, health, circuit breakers, TLS and timeouts; an answer may have `limits.body`, and takes `limits.held` at
//! most. A call that fails is told to the plugin as an answer without fields. What is not answered when the request ends is
//! given up. A response, its body and a body that streams to the service are held for an answer in the same way; when none of
//! the answers lets them go on, that counts as a failure.
//!
//! A plugin that changes the length of a body has to remove `content-length` when it is told of the head; a body that turns
//! out longer or shorter than its head says is broken off.
//!
//! `tollgate test` and `explain` run the plugin on the head of the request; what it asks of other services is not sent, and
//! a request that it holds goes on.
//!
//! Refused when the configuration is read: a file that is no such plugin, that needs what the ABI does not have, or that does
//! not take its `config`.
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! routes:
//!   - name: tasks
//!     match: GET /tasks
//!     filters:
//!       - plugin: { file: plugins/country.wasm, config: { allow: [DE, AT] } }
//!     respond: { json: { tasks: [] } }
//! tests:
//!   - { request: GET /tasks, headers: { CF-IPCountry: AT }, expect: { status: 200 } }
//!   - { request: GET /tasks, headers: { CF-IPCountry: FR }, expect: { status: 403 } }
//! ```

#[cfg(feature = "plugins")]
mod running;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::contract::{Compiler, Settings, Step};
use crate::types::{Period, Size};
use crate::yaml::{Located, Node};

/// Runs a filter in WebAssembly that speaks the proxy-wasm ABI.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[cfg_attr(not(feature = "plugins"), allow(dead_code, reason = "nothing is built of it"))]
pub struct PluginSettings {
    /// The `.wasm`, relative to gateway.yaml.
    file: Located<String>,
    /// Its name in logs and metrics. Default: name of the file.
    name: Option<Located<String>>,
    /// What the plugin is configured with: a text as it is, anything else as JSON.
    config: Option<Node>,
    /// The same for its virtual machine.
    vm_config: Option<Node>,
    /// Which of the plugins in the file it is, where there are several. Default: none.
    root_id: Option<String>,
    /// What becomes of a request when the plugin fails. Default `deny`.
    #[serde(default)]
    on_failure: OnFailure,
    /// Upstreams that it may send requests to. Default: none.
    #[serde(default)]
    calls: Vec<Located<String>>,
    /// What it may take.
    #[serde(default)]
    limits: LimitSettings,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnFailure {
    /// It is refused with 503.
    #[default]
    Deny,
    /// It goes on as if there were no plugin.
    Skip,
}

/// Bounds of a plugin.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[cfg_attr(not(feature = "plugins"), allow(dead_code, reason = "nothing is built of it"))]
struct LimitSettings {
    /// Memory of one instance, 1MiB to 1GiB. Default 32MiB.
    memory: Option<Located<Size>>,
    /// How long it may run for one call, 1ms to 1s. Default 5ms.
    time: Option<Located<Period>>,
    /// How long an instance may take to start, 10ms to 1m. Default 1s.
    start: Option<Located<Period>>,
    /// How long it may hold a request, 1ms to 5m. Default 30s.
    held: Option<Located<Period>>,
    /// What it may hold back of a body, and make of it; at most 64MiB. Default 1MiB.
    body: Option<Located<Size>>,
    /// Instances at once, 1 to 10000. Default 1024.
    instances: Option<Located<u32>>,
}

impl Settings for PluginSettings {
    const NAME: &'static str = "plugin";
    const SUMMARY: &'static str = "runs a filter of your own: WebAssembly that speaks the proxy-wasm ABI";

    #[cfg(feature = "plugins")]
    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        running::build(&self, compiler)
    }

    #[cfg(not(feature = "plugins"))]
    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        let problem = crate::yaml::Problem::new(compiler.place(), "this gateway was built without plugins");
        compiler.report(problem.with_hint("build it with `cargo build --release --features plugins`"));
        None
    }
}
