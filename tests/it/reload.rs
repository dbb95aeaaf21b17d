//! Changing a gateway that runs. What `src/live` does with files is tested there; here is what clients and operators see.

mod files;
mod listeners;
mod traffic;

use std::net::SocketAddr;

use crate::harness::{Folder, Gateway};

/// What the tests do not change. Two workers, so that both have to follow.
const ROOT: &str = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nadmin: { bind: 127.0.0.1:0 }\nthreads: 2\n\
                    access_log: { to: none }\ninclude: [routes.d/*.yaml]\n";

/// A gateway with [`ROOT`] and this fragment.
async fn gateway(fragment: &str) -> Gateway {
    Gateway::start_in(Folder::with(&[("gateway.yaml", ROOT), ("routes.d/main.yaml", fragment)])).await
}

/// A fragment with one route `name`, at `/name`, that answers with a text.
fn says(name: &str, text: &str) -> String {
    format!("routes:\n  - {{ name: {name}, match: GET /{name}, respond: {{ body: \"{text}\" }} }}\n")
}

/// A fragment with one route `name`, at `/name` and below, to one target.
fn forwards(name: &str, address: SocketAddr) -> String {
    format!(
        "upstreams:\n  {name}: {{ targets: [{{ address: \"{address}\" }}] }}\n\
         routes:\n  - {{ name: {name}, match: \"/{name}/{{*rest}}\", upstream: {name} }}\n"
    )
}
