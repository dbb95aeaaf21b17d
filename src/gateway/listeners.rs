//! Addresses where clients connect, and what TLS they speak.

mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Gateway;
use super::acme::Compiler;
use crate::config::load::Config;
use crate::config::{self, ProxyProtocolFrom};
use crate::types::{Bind, Network};
use crate::yaml::{Located, Place, Problem};

pub use tls::Tls;

/// Where clients connect.
#[derive(Clone, Debug)]
pub struct Listener {
    /// As written; port 0 is any free one.
    pub address: SocketAddr,
    /// `None`: plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Who connects here, and begins each connection with a header of the PROXY protocol. `None`: clients themselves.
    pub proxies: Option<Arc<[IpNet]>>,
    /// The port of HTTPS that plain HTTP is redirected to.
    pub https_port: Option<u16>,
}

/// Compiles the listeners. One whose TLS did not change keeps it, and with it the sessions that clients may resume.
pub fn listeners(
    config: &Config,
    previous: Option<&Gateway>,
    acme: &mut Compiler<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Listener> {
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
        let tls = written.tls.as_ref().and_then(|tls| {
            let managed = acme.certificates(&tls.acme, problems);
            if tls.certificates.place == Place::UNKNOWN && tls.acme.is_empty() {
                let problem = Problem::new(written.bind.place, "a listener with `tls` needs a certificate");
                problems.push(problem.with_hint("write `certificates: [{ cert: site.pem, key: site.key }]`"));
                return None;
            }
            Tls::compile(tls, &config.attached, managed, known, problems)
        });
        let proxies = proxies(written, &root.trusted_proxies, problems);
        Listener { address, tls, proxies, https_port: https_port(written, problems) }
    });
    compiled.collect()
}

/// Who begins connections with a header of the PROXY protocol.
fn proxies(written: &config::Listener, trusted: &[Network], problems: &mut Vec<Problem>) -> Option<Arc<[IpNet]>> {
    let setting = written.proxy_protocol.as_ref()?;
    let (networks, place) = match setting.from() {
        Ok(ProxyProtocolFrom::Off) => return None,
        Ok(ProxyProtocolFrom::Trusted) => (trusted.to_vec(), setting.0.place),
        Ok(ProxyProtocolFrom::These(networks)) => (networks.value, networks.place),
        Err(found) => {
            problems.extend(found);
            return None;
        }
    };
    if networks.is_empty() {
        problems.push(
            Problem::new(place, "nobody could connect here: no network may send the header of the PROXY protocol")
                .with_hint("write `proxy_protocol: { from: [10.0.0.0/8] }` with the addresses of your load balancers"),
        );
    }
    Some(networks.iter().map(|network| network.0).collect())
}

fn https_port(written: &config::Listener, problems: &mut Vec<Problem>) -> Option<u16> {
    let asked = written.https_redirect.as_ref()?;
    let port = asked.value.port()?;
    if written.tls.is_some() {
        let problem = Problem::new(asked.place, "a listener with `tls` has nothing to redirect to HTTPS");
        problems.push(problem.with_hint("write `https_redirect` at the listener of plain HTTP"));
    }
    if port == 0 {
        problems.push(Problem::new(asked.place, "port 0 cannot be connected to"));
    }
    Some(port)
}
