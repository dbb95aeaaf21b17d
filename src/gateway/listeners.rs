//! Addresses where clients connect, and what TLS they speak.

mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use super::Gateway;
use crate::config::load::Config;
use crate::types::Bind;
use crate::yaml::{Located, Problem};

pub use tls::Tls;

/// Where clients connect.
#[derive(Clone, Debug)]
pub struct Listener {
    /// As written; port 0 is any free one.
    pub address: SocketAddr,
    /// `None`: plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

/// Compiles the listeners. One whose TLS did not change keeps it, and with it the sessions that clients may resume.
pub fn listeners(config: &Config, previous: Option<&Gateway>, problems: &mut Vec<Problem>) -> Vec<Listener> {
    let root = &config.root;
    if root.listeners.is_empty() {
        problems.push(
            Problem::new(root.version.place, "there is no listener")
                .with_hint("write `listeners: [{ bind: 0.0.0.0:8000 }]`"),
        );
    }
    let mut seen: Vec<&Located<Bind>> = Vec::new();
    let admin = root.admin.iter().map(|admin| &admin.bind);
    for bind in root.listeners.iter().map(|listener| &listener.bind).chain(admin) {
        if let Some(first) = seen.iter().find(|first| first.value == bind.value && bind.0.port() != 0) {
            problems.push(
                Problem::new(bind.place, format!("{} is listened on twice", bind.value))
                    .with_related("first", first.place),
            );
        }
        seen.push(bind);
    }
    let known = previous.map(|previous| previous.settings.listeners.as_slice()).unwrap_or_default();
    let compiled = root.listeners.iter().map(|written| {
        let address = written.bind.value.0;
        let known = known.iter().find(|known| known.address == address).and_then(|known| known.tls.as_ref());
        let tls = written.tls.as_ref().and_then(|tls| Tls::compile(tls, &config.attached, known, problems));
        Listener { address, tls }
    });
    compiled.collect()
}
